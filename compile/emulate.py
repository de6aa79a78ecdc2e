"""Runs an artifact's functions on an emulated CPU of its target (Unicorn): results, instructions, stack.

Every target has the CPU model of its oldest part, so code that uses an instruction the part lacks faults here
and not in the field. Buffers end where mapped memory ends: a read or write past one faults too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import unicorn
from numpy.typing import NDArray
from unicorn import arm64_const, arm_const, x86_const

from compile import elf
from compile.batch import LOOPS, ROWS_AT, SECONDS, Answers, Strides
from compile.targets import Form, Target
from compile.toolchain import image
from edge_runtime.errors import BadInput, CheckFailed

_untyped: Any = unicorn  # its annotations cover half of it

_PAGE = 0x1000
_LOAD_BIAS = 0x1000_0000
_RETURN_AT = 0x3000_0000
_STACK_TOP, _STACK_BYTES = 0x200C_0000, 0x8_0000
_SLOTS_AT, _SLOT_STRIDE, _SLOT_BYTES = 0x2010_0000, 0x4_0000, 0x2_0000
_MAX_ARGS = 4  # passed in registers by every target's calling convention
PAINT = b"\xa5"
"""What output buffers and the stack hold before a call."""
ENDLESS = 20_000_000  # instructions; no artifact's call takes a tenth of it, soft floating point included


class Out(NamedTuple):
    """An output buffer of `size` bytes; what the function leaves in it is in `Call.outputs`."""

    size: int


class Call(NamedTuple):
    """What one call did.

    value: the C `int` that the function returned.
    instructions: executed by the call; 0 unless the machine counts.
    outputs: the bytes of each Out argument, in order. Bytes the function never wrote are 0xA5.
    stack_bytes: how deep the stack was written, return address included.
    """

    value: int
    instructions: int
    outputs: tuple[bytes, ...]
    stack_bytes: int


class EmulationFault(CheckFailed):
    """The emulated code touched memory that is not its own, or has an instruction its CPU lacks."""


@dataclass(frozen=True, slots=True)
class _Cpu:
    """How Unicorn knows a target's CPU, and what its calling convention calls things."""

    arch: int
    mode: int
    model: int
    arguments: tuple[int, ...]
    result: int
    stack: int
    pc: int
    link: int | None  # the register with the return address; None where it is pushed


_ARM_ARGUMENTS = (
    arm_const.UC_ARM_REG_R0,
    arm_const.UC_ARM_REG_R1,
    arm_const.UC_ARM_REG_R2,
    arm_const.UC_ARM_REG_R3,
)


def _arm(mode: int, model: int) -> _Cpu:
    """AAPCS32, section 6.1."""
    return _Cpu(
        unicorn.UC_ARCH_ARM,
        mode,
        model,
        _ARM_ARGUMENTS,
        arm_const.UC_ARM_REG_R0,
        arm_const.UC_ARM_REG_SP,
        arm_const.UC_ARM_REG_PC,
        arm_const.UC_ARM_REG_LR,
    )


# No UC_MODE_MCLASS: with it Unicorn 2.1 runs every M part as a Cortex-M33, whatever the model.
_CPUS = {
    "x86_64": _Cpu(  # System V ABI for x86-64, section 3.2.3
        unicorn.UC_ARCH_X86,
        unicorn.UC_MODE_64,
        x86_const.UC_CPU_X86_QEMU64,
        (
            x86_const.UC_X86_REG_RDI,
            x86_const.UC_X86_REG_RSI,
            x86_const.UC_X86_REG_RDX,
            x86_const.UC_X86_REG_RCX,
        ),
        x86_const.UC_X86_REG_RAX,
        x86_const.UC_X86_REG_RSP,
        x86_const.UC_X86_REG_RIP,
        None,
    ),
    "aarch64": _Cpu(  # AAPCS64, section 6.1
        unicorn.UC_ARCH_ARM64,
        unicorn.UC_MODE_ARM,
        arm64_const.UC_CPU_ARM64_A53,
        (
            arm64_const.UC_ARM64_REG_X0,
            arm64_const.UC_ARM64_REG_X1,
            arm64_const.UC_ARM64_REG_X2,
            arm64_const.UC_ARM64_REG_X3,
        ),
        arm64_const.UC_ARM64_REG_X0,
        arm64_const.UC_ARM64_REG_SP,
        arm64_const.UC_ARM64_REG_PC,
        arm64_const.UC_ARM64_REG_LR,
    ),
    "armv7": _arm(unicorn.UC_MODE_ARM, arm_const.UC_CPU_ARM_CORTEX_A7),
    "cortex-m4": _arm(unicorn.UC_MODE_THUMB, arm_const.UC_CPU_ARM_CORTEX_M4),
    "cortex-m0": _arm(unicorn.UC_MODE_THUMB, arm_const.UC_CPU_ARM_CORTEX_M0),
}


def _enable_fpu(uc: Any, machine: str) -> None:
    """What start-up code does on the part, before any floating-point instruction."""
    if machine == "x86_64":  # CR4.OSFXSR and OSXMMEXCPT
        uc.reg_write(x86_const.UC_X86_REG_CR4, uc.reg_read(x86_const.UC_X86_REG_CR4) | 3 << 9)
    elif machine == "aarch64":  # CPACR_EL1.FPEN
        uc.reg_write(arm64_const.UC_ARM64_REG_CPACR_EL1, 3 << 20)
    elif machine == "armv7":  # CPACR cp10 and cp11, then FPEXC.EN
        uc.reg_write(arm_const.UC_ARM_REG_C1_C0_2, 0xF << 20)
        uc.reg_write(arm_const.UC_ARM_REG_FPEXC, 1 << 30)
    elif machine == "cortex-m4":
        uc.reg_write(arm_const.UC_ARM_REG_FPEXC, 1 << 30)


class Machine:
    """One artifact loaded on its target's CPU. Not for use by two threads."""

    def __init__(
        self, target: Target, artifact: bytes, *, count: bool = False, endless: int = ENDLESS
    ) -> None:
        """Load `artifact` (as toolchain.build made it).

        With `count` every call reports its instructions and is stopped after `endless` of them, at some cost in
        speed. Raises BadInput where the artifact is no ELF file for this target.
        """
        self.target = target
        if target.form is Form.FREESTANDING:
            artifact = image(artifact, target)
        self._elf = elf.parse(artifact, what=target.name)
        self._bias = _LOAD_BIAS if self._elf.type == elf.ET_DYN else 0
        self._cpu = _CPUS[target.machine]
        self._uc: Any = _untyped.Uc(self._cpu.arch, self._cpu.mode)
        self._uc.ctl_set_cpu_model(self._cpu.model)
        self._fault = ""
        self._instructions, self._endless = 0, endless
        self._map()
        _enable_fpu(self._uc, target.machine)
        self._uc.hook_add(unicorn.UC_HOOK_MEM_INVALID, self._on_bad_memory)
        if count:
            self._length = _instruction_counter(target.machine, self._uc)
            self._lengths: dict[tuple[int, int], int] = {}
            self._uc.hook_add(unicorn.UC_HOOK_BLOCK, self._on_block)

    def watch(self, address: int, visited: Callable[[], None]) -> None:
        """Have `visited` called before each execution of the instruction at an address of the file."""
        at = self._bias + (address & ~1 if self._cpu.arch == unicorn.UC_ARCH_ARM else address)
        self._uc.hook_add(unicorn.UC_HOOK_CODE, lambda *_: visited(), begin=at, end=at)

    def _map(self) -> None:
        pages: set[int] = set()
        for segment in self._elf.segments:
            start = (self._bias + segment.address) & -_PAGE
            end = self._bias + segment.address + segment.memory_size
            for page in range(start, end, _PAGE):
                if page not in pages:
                    self._uc.mem_map(page, _PAGE, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
                    pages.add(page)
            self._uc.mem_write(self._bias + segment.address, segment.data)
        self._uc.mem_map(_RETURN_AT, _PAGE, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        for k in range(_MAX_ARGS):
            self._uc.mem_map(_SLOTS_AT + k * _SLOT_STRIDE, _SLOT_BYTES, _DATA)
        self._uc.mem_map(_STACK_TOP - _STACK_BYTES, _STACK_BYTES, _DATA)
        self._uc.mem_write(_STACK_TOP - _STACK_BYTES, PAINT * _STACK_BYTES)

    def call(self, symbol: str, *args: int | bytes | Out) -> Call:
        """Call an exported function with integers, input buffers (bytes) and output buffers (Out).

        Raises EmulationFault where the code misbehaves, BadInput for an unknown symbol or too large buffers.
        """
        address = self._elf.exports.get(symbol)
        if address is None:
            raise BadInput(f"artifact for {self.target.name}: exports no {symbol}; build it again")
        uc, cpu = self._uc, self._cpu
        outputs = self._place(args)
        top = _STACK_TOP - 64
        if cpu.link is None:
            top -= 8
            uc.mem_write(top, _RETURN_AT.to_bytes(8, "little"))
        else:
            uc.reg_write(cpu.link, _RETURN_AT | (address & 1))
        uc.reg_write(cpu.stack, top)
        self._instructions, self._fault = 0, ""
        try:
            uc.emu_start(self._bias + address, _RETURN_AT)
        except _untyped.UcError as e:
            self._fault = self._fault or str(e)
        if self._fault:
            raise EmulationFault(self._describe(symbol))
        value = uc.reg_read(cpu.result) & 0xFFFF_FFFF
        return Call(
            value - (value >> 31 << 32),
            self._instructions,
            tuple(bytes(uc.mem_read(at, size)) for at, size in outputs),
            self._stack_bytes(),
        )

    def batch(
        self, symbol: str, rows: NDArray[np.uint8], output_bytes: int, points: int | None = None
    ) -> Answers:
        """Call an exported function for every row, uint8 (n, bytes), as (row, [points,] output), uncounted.

        Much quicker than `call`, but a read past a row finds the next one. Raises EmulationFault where the code
        misbehaves or comes to no end, BadInput for an unknown symbol.
        """
        address = self._elf.exports.get(symbol)
        if address is None:
            raise BadInput(f"artifact for {self.target.name}: exports no {symbol}; build it again")
        count, row_bytes = rows.shape
        uc, loop = self._uc, LOOPS[self.target.machine]
        strides = Strides(-(-row_bytes // 8) * 8, -(-output_bytes // 8) * 8)
        padded = np.zeros((count, strides.row), np.uint8)
        padded[:, :row_bytes] = rows
        output_at = ROWS_AT + padded.nbytes
        value_at = output_at + count * strides.output
        size = -(-(value_at + 4 * count + 8 - ROWS_AT) // _PAGE) * _PAGE
        uc.mem_map(ROWS_AT, size, _DATA)
        try:
            uc.mem_write(ROWS_AT, padded.tobytes() + PAINT * (count * strides.output))
            registers = dict(zip(loop.strides, strides, strict=False)) | {
                loop.row: ROWS_AT, loop.output: output_at, loop.count: count, loop.points: points or 0,
                loop.function: self._bias + address, loop.value: value_at, self._cpu.stack: _STACK_TOP - 64,
            }  # fmt: skip
            for register, value in registers.items():
                uc.reg_write(register, value)
            code = loop.code(points is not None, strides)
            uc.mem_write(_RETURN_AT + 16, code)
            uc.ctl_remove_cache(_RETURN_AT + 16, _RETURN_AT + 16 + len(code))  # of the last batch's loop
            self._run_batch(symbol, _RETURN_AT + 16, _RETURN_AT + 16 + len(code))
            data = np.frombuffer(bytes(uc.mem_read(output_at, size - (output_at - ROWS_AT))), np.uint8)
        finally:
            uc.mem_unmap(ROWS_AT, size)
        outputs = data[: count * strides.output].reshape(count, strides.output)[:, :output_bytes]
        values = data[count * strides.output :][: 4 * count].copy().view("<i4")
        return Answers(values, outputs)

    def _run_batch(self, symbol: str, start: int, end: int) -> None:
        uc = self._uc
        thumb = int(self.target.machine.startswith("cortex"))
        self._instructions, self._fault = 0, ""
        try:
            uc.emu_start(start | thumb, end, timeout=SECONDS * 1_000_000)
        except _untyped.UcError as e:
            self._fault = self._fault or str(e)
        if not self._fault and uc.reg_read(self._cpu.pc) != end:
            self._fault = f"no end after {SECONDS} seconds"
        if self._fault:
            raise EmulationFault(self._describe(symbol))

    def _place(self, args: tuple[int | bytes | Out, ...]) -> list[tuple[int, int]]:
        """Put the arguments in registers and buffers; the (address, size) of each output buffer."""
        if len(args) > _MAX_ARGS:
            raise BadInput(f"emulated call: {len(args)} arguments; at most {_MAX_ARGS} travel in registers")
        outputs = []
        for slot, (register, arg) in enumerate(zip(self._cpu.arguments, args, strict=False)):
            if isinstance(arg, int):
                self._uc.reg_write(register, arg)
                continue
            data = PAINT * arg.size if isinstance(arg, Out) else arg
            if len(data) > _SLOT_BYTES:
                raise BadInput(f"emulated call: a buffer of {len(data)} bytes; at most {_SLOT_BYTES} fit")
            at = _SLOTS_AT + slot * _SLOT_STRIDE + _SLOT_BYTES - len(data)
            self._uc.mem_write(at, data)
            self._uc.reg_write(register, at)
            if isinstance(arg, Out):
                outputs.append((at, arg.size))
        return outputs

    def _stack_bytes(self) -> int:
        """Depth of the deepest byte written since the last call; paints the stack again."""
        bottom = _STACK_TOP - _STACK_BYTES
        stack = self._uc.mem_read(bottom, _STACK_BYTES - 64)
        used = len(stack.lstrip(PAINT))
        self._uc.mem_write(_STACK_TOP - 64 - used, PAINT * used)
        return used

    def _on_block(self, uc: Any, address: int, size: int, _: object) -> None:
        count = self._lengths.get((address, size))
        if count is None:
            count = self._lengths[address, size] = self._length(address, size)
            if self._cpu.model == arm_const.UC_CPU_ARM_CORTEX_M0 and _has_it_or_cbz(
                bytes(uc.mem_read(address, size))
            ):
                self._fault = "IT or CBZ, which ARMv6-M lacks"
                uc.emu_stop()
        self._instructions += count
        if self._instructions > self._endless:
            self._fault = f"more than {self._endless:,} instructions"
            uc.emu_stop()

    def _on_bad_memory(self, uc: Any, access: int, address: int, size: int, value: int, _: object) -> bool:
        self._fault = f"{_ACCESS.get(access, 'access to')} {size} bytes at {address:#x}"
        return False

    def _describe(self, symbol: str) -> str:
        pc = self._uc.reg_read(self._cpu.pc) - self._bias
        return f"artifact for {self.target.name}: {symbol} faults at pc {pc:#x}: {self._fault}"


_DATA = unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE
_ACCESS = {
    unicorn.UC_MEM_READ_UNMAPPED: "reads",
    unicorn.UC_MEM_WRITE_UNMAPPED: "writes",
    unicorn.UC_MEM_FETCH_UNMAPPED: "executes",
    unicorn.UC_MEM_WRITE_PROT: "writes read-only",
    unicorn.UC_MEM_READ_PROT: "reads protected",
    unicorn.UC_MEM_FETCH_PROT: "executes data:",
}


def _instruction_counter(machine: str, uc: Any) -> Callable[[int, int], int]:
    """How many instructions a block of `size` bytes at `address` holds."""
    if machine == "aarch64":
        return lambda _, size: size // 4
    if machine == "x86_64":
        import capstone  # noqa: PLC0415 - only x86's lengths need a disassembler

        decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        return lambda at, size: sum(1 for _ in decoder.disasm_lite(bytes(uc.mem_read(at, size)), at))

    def arm(address: int, size: int) -> int:
        thumb = machine != "armv7" or uc.reg_read(arm_const.UC_ARM_REG_CPSR) & 0x20
        return _thumb_instructions(bytes(uc.mem_read(address, size))) if thumb else size // 4

    return arm


def _thumb_instructions(code: bytes) -> int:
    return sum(1 for _ in _thumb_opcodes(code))


def _has_it_or_cbz(code: bytes) -> bool:
    """Unicorn's Cortex-M0 refuses what ARMv6-M lacks, but for these two (ARM DDI 0403, A5.2.5)."""
    return any(op & 0xF500 == 0xB100 or (op & 0xFF00 == 0xBF00 and op & 0xF) for op in _thumb_opcodes(code))


def _thumb_opcodes(code: bytes) -> Iterator[int]:
    """The first halfword of each; those of 32 bits begin with 0b11101, 0b11110 or 0b11111 (A5.1)."""
    at = 0
    while at < len(code):
        yield code[at] | code[at + 1] << 8
        at += 4 if code[at + 1] >= 0xE8 else 2
