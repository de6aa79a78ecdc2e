"""Machine code as a graph of basic blocks: what follows what, what is called, how many instructions that is.

Only what changes the flow of control is decoded: AArch64 (ARM DDI 0487, C4), A32 and Thumb (ARM DDI 0406, A5 and A6)
by their encodings, x86-64 by capstone. Code is followed from an entry point, so literals between it are not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from compile.elf import Elf


class Unreadable(Exception):
    """The flow of control cannot be told from the code: an indirect jump, for one."""


class Kind(Enum):
    """What an instruction does to the flow of control."""

    PLAIN = "goes on"
    BRANCH = "goes on, or to the target"
    JUMP = "goes to the target"
    CALL = "calls the target, then goes on"
    LEAVE = "returns"
    MAY_LEAVE = "returns, or goes on"


_FLOW = {
    Kind.PLAIN: (False, True),
    Kind.BRANCH: (True, True),
    Kind.JUMP: (True, False),
    Kind.CALL: (False, True),
    Kind.LEAVE: (False, False),
    Kind.MAY_LEAVE: (False, True),
}
"""Whether an instruction may go to its target, and whether to the next one."""


class Step(NamedTuple):
    """One instruction. size: in bytes."""

    size: int
    kind: Kind
    target: int = 0


class Block(NamedTuple):
    """Instructions that are executed one after the other.

    end: the address behind them. falls_through: the way may lead on to there. leaves: the
    function may be left.
    """

    start: int
    instructions: int
    successors: tuple[int, ...]
    calls: tuple[int, ...]
    end: int
    falls_through: bool
    leaves: bool


Decoder = Callable[[int], Step]
_PLAIN_2, _PLAIN_4 = Step(2, Kind.PLAIN), Step(4, Kind.PLAIN)


@dataclass(frozen=True, slots=True)
class Function:
    """One function's blocks, by address."""

    entry: int
    blocks: dict[int, Block]


def function(decode: Decoder, entry: int) -> Function:
    """The blocks that are reached from an entry point, tail calls included. Raises Unreadable."""
    steps: dict[int, Step] = {}
    leaders, todo = {entry}, [entry]
    plain = Kind.PLAIN
    while todo:
        at = todo.pop()
        while at not in steps:
            step = steps[at] = decode(at)
            at += step.size
            if step.kind is plain:
                continue
            goes_to, goes_on = _FLOW[step.kind]
            if goes_to:
                leaders.add(step.target)
                todo.append(step.target)
            if not goes_on:
                break
            if step.kind is not Kind.CALL:
                leaders.add(at)
    return Function(entry, {start: _block(steps, leaders, start) for start in leaders})


def _block(steps: dict[int, Step], leaders: set[int], start: int) -> Block:
    at, count, calls = start, 0, []
    plain = Kind.PLAIN
    while True:
        step = steps[at]
        count += 1
        at += step.size
        kind = step.kind
        if kind is Kind.CALL:
            calls.append(step.target)
        elif kind is not plain:
            break
        if at in leaders:
            break
    goes_to, goes_on = _FLOW[kind]
    ways = ((at,) if goes_on else ()) + ((step.target,) if goes_to else ())
    leaves = kind is Kind.LEAVE or kind is Kind.MAY_LEAVE
    return Block(start, count, ways, tuple(calls), at, goes_on, leaves)


def functions(decode: Decoder, entry: int) -> dict[int, Function]:
    """A function and all that it calls, by entry point. Raises Unreadable."""
    found: dict[int, Function] = {}
    todo = [entry]
    while todo:
        at = todo.pop()
        if at not in found:
            found[at] = function(decode, at)
            todo += [call for block in found[at].blocks.values() for call in block.calls]
    return found


def reader(parsed: Elf) -> Callable[[int, int], bytes]:
    """What reads bytes of a linked file: (address, size)."""
    memory = [(s.address, s.address + len(s.data), s.data) for s in parsed.segments]

    def read(at: int, size: int) -> bytes:
        for first, end, data in memory:
            if first <= at < end:
                return data[at - first : at - first + size]
        raise Unreadable(f"code at {at:#x}, outside of the file")

    return read


def decoder(machine: str, parsed: Elf) -> Decoder:
    """What reads one instruction of a linked file at an address; on 32-bit ARM bit 0 of an address says Thumb."""
    read = reader(parsed)
    if machine == "aarch64":
        return lambda at: _a64(int.from_bytes(read(at, 4), "little"), at)
    if machine == "x86_64":
        return _x86(read)
    thumb = _Thumb(read)
    return lambda at: thumb(at - 1) if at & 1 else _a32(int.from_bytes(read(at, 4), "little"), at)


def _signed(value: int, bits: int) -> int:
    return value - (value >> (bits - 1) << bits)


def _a64(w: int, at: int) -> Step:
    if w & 0x7C000000 == 0x14000000:
        return Step(4, Kind.CALL if w >> 31 else Kind.JUMP, at + 4 * _signed(w & 0x3FFFFFF, 26))
    if w & 0xFF000010 == 0x54000000 or w & 0x7E000000 == 0x34000000:  # b.cond, cbz
        return Step(4, Kind.BRANCH, at + 4 * _signed(w >> 5 & 0x7FFFF, 19))
    if w & 0x7E000000 == 0x36000000:  # tbz
        return Step(4, Kind.BRANCH, at + 4 * _signed(w >> 5 & 0x3FFF, 14))
    if w & 0xFE000000 == 0xD6000000:
        if w & 0xFFFFFC1F == 0xD65F0000:
            return Step(4, Kind.LEAVE)
        raise Unreadable(f"an indirect jump at {at:#x}")
    return _PLAIN_4


def _a32(w: int, at: int) -> Step:
    always = w >> 28 == 0xE
    if w >> 28 == 0xF:
        if w >> 25 == 0x7D:  # blx
            target = at + 8 + 4 * _signed(w & 0xFFFFFF, 24) + (w >> 23 & 2)
            return Step(4, Kind.CALL, target | 1)
        return _PLAIN_4
    if w & 0x0E000000 == 0x0A000000:
        target = at + 8 + 4 * _signed(w & 0xFFFFFF, 24)
        if w >> 24 & 1:
            return Step(4, Kind.CALL, target)
        return Step(4, Kind.JUMP if always else Kind.BRANCH, target)
    leaves = (
        w & 0x0FFFFFFF in {0x012FFF1E, 0x01A0F00E} or w & 0x0FFF8000 == 0x08BD8000
    )  # bx lr, mov pc, pop {pc}
    if leaves or w & 0x0FFFFFFF == 0x049DF004:
        return Step(4, Kind.LEAVE if always else Kind.MAY_LEAVE)
    writes_pc = w & 0x0E108000 == 0x08108000 or (w & 0x0C10F000 == 0x0410F000) or w & 0x0FFFFFD0 == 0x012FFF10
    if writes_pc or (w & 0x0C00F000 == 0x0000F000 and w & 0x01900000 != 0x01100000 and w & 0xF0 != 0x90):
        raise Unreadable(f"an indirect jump at {at:#x}")
    return _PLAIN_4


class _Thumb:
    """Keeps in mind which instructions an IT makes conditional."""

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        self.read = read
        self.conditional: set[int] = set()

    def __call__(self, at: int) -> Step:
        code = self.read(at, 4)
        op = int.from_bytes(code[:2], "little")
        step = (
            self._wide(op, int.from_bytes(code[2:], "little"), at) if op >= 0xE800 else self._narrow(op, at)
        )
        if op & 0xFF00 == 0xBF00 and op & 0xF:
            self._mark(at + 2, 4 - ((op & -op & 0xF).bit_length() - 1))
        if at in self.conditional:
            kinds = {Kind.JUMP: Kind.BRANCH, Kind.LEAVE: Kind.MAY_LEAVE}
            step = step._replace(kind=kinds.get(step.kind, step.kind))
        return step

    def _mark(self, at: int, count: int) -> None:
        for _ in range(count):
            self.conditional.add(at)
            at += 4 if self.read(at, 2)[1] >= 0xE8 else 2

    def _narrow(self, op: int, at: int) -> Step:
        if op & 0xF000 == 0xD000 and op >> 8 & 0xF < 14:
            return Step(2, Kind.BRANCH, at + 5 + 2 * _signed(op & 0xFF, 8))
        if op & 0xF800 == 0xE000:
            return Step(2, Kind.JUMP, at + 5 + 2 * _signed(op & 0x7FF, 11))
        if op & 0xF500 == 0xB100:  # cbz
            return Step(2, Kind.BRANCH, at + 5 + ((op >> 3 & 0x1F) << 1 | (op >> 9 & 1) << 6))
        if op == 0x4770 or op & 0xFF00 == 0xBD00:  # bx lr, pop {pc}
            return Step(2, Kind.LEAVE)
        if op & 0xFF00 == 0x4700 or op & 0xFD87 == 0x4487:  # bx, blx, add pc, mov pc
            raise Unreadable(f"an indirect jump at {at:#x}")
        return _PLAIN_2

    def _wide(self, op: int, second: int, at: int) -> Step:
        if op & 0xF800 == 0xF000 and second & 0x8000:
            return self._branch(op, second, at)
        if op & 0xFFD0 in {0xE890, 0xE910} and second & 0x8000:  # ldm with pc
            return Step(4, Kind.LEAVE)
        if op == 0xF85D and second == 0xFB04:  # pop {pc}
            return Step(4, Kind.LEAVE)
        table_branch = op & 0xFFF0 == 0xE8D0 and second & 0xFFE0 == 0xF000
        if table_branch or (op & 0xFF70 == 0xF850 and second >> 12 == 15):
            raise Unreadable(f"an indirect jump at {at:#x}")
        return _PLAIN_4

    def _branch(self, op: int, second: int, at: int) -> Step:
        sign = op >> 10 & 1
        j1, j2 = second >> 13 & 1, second >> 11 & 1
        if not second & 0x5000:
            if op >> 6 & 0xF >= 14:  # not a branch: msr, barriers and the like
                return _PLAIN_4
            offset = sign << 20 | j2 << 19 | j1 << 18 | (op & 0x3F) << 12 | (second & 0x7FF) << 1
            return Step(4, Kind.BRANCH, at + 5 + _signed(offset, 21))
        offset = (
            sign << 24
            | (j1 ^ sign ^ 1) << 23
            | (j2 ^ sign ^ 1) << 22
            | (op & 0x3FF) << 12
            | (second & 0x7FF) << 1
        )
        target = at + 4 + _signed(offset, 25)
        if second & 0x5000 == 0x4000:  # blx
            return Step(4, Kind.CALL, target & ~3)
        return Step(4, Kind.CALL if second & 0x4000 else Kind.JUMP, target | 1)


def _x86(read: Callable[[int, int], bytes]) -> Decoder:
    import capstone  # noqa: PLC0415 - only x86's instructions need a disassembler

    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)

    def decode(at: int) -> Step:
        lines: Iterator[tuple[int, int, str, str]] = engine.disasm_lite(read(at, 16), at, 1)
        found = next(lines, None)
        if found is None:
            raise Unreadable(f"no instruction at {at:#x}")
        _, size, name, operands = found
        if name in {"ret", "repz ret"}:
            return Step(size, Kind.LEAVE)
        if name == "call" or name.startswith("j"):
            if not operands.startswith("0x"):
                raise Unreadable(f"an indirect jump at {at:#x}")
            kind = {"call": Kind.CALL, "jmp": Kind.JUMP}.get(name, Kind.BRANCH)
            return Step(size, kind, int(operands, 16))
        return Step(size, Kind.PLAIN)

    return decode
