"""One cross compiler for every target: C and assembly in, a self-contained ELF out, always the same bytes.

The compiler is the `ziglang` wheel (clang, lld and a compiler runtime for every target). Another is used
where the environment names one: for a target in EDGE_CC_<TARGET> (EDGE_CC_AARCH64="aarch64-linux-gnu-gcc"),
or for all in EDGE_CC.

An artifact needs nothing from its surroundings. A freestanding C compiler may still call memcpy, memset, the
64-bit division or, on a Cortex-M, double-precision helpers of the run-time ABI (__aeabi_*); a shared library
gets them, hidden, from the compiler's runtime. A relocatable object for a firmware leaves them to the
firmware's linker, which has them in its own runtime, and `image` links one for emulation.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from compile import elf
from compile.targets import Form, Target
from edge_runtime.cache import cache_dir
from edge_runtime.errors import BadInput

FLASH_BASE = 0x0800_0000
RAM_BASE = 0x2000_0000
"""Where STM32-like Cortex-M parts have their flash and SRAM."""

MACHINES = {
    "x86_64": elf.EM_X86_64,
    "aarch64": elf.EM_AARCH64,
    "armv7": elf.EM_ARM,
    "cortex-m4": elf.EM_ARM,
    "cortex-m0": elf.EM_ARM,
}

_COMMON = [
    "-std=c11",
    "-ffp-contract=off",  # a fused multiply-add rounds once where the reference rounds twice
    "-ffreestanding",
    "-nostdlib",
    "-fvisibility=hidden",
    "-fomit-frame-pointer",
    "-fno-stack-protector",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
    "-fno-ident",
    "-g0",
]
_ZIG_ONLY = ["-fno-addrsig", "-fno-sanitize=all"]
_ZIG_RUNTIME = "-rtlib=compiler-rt"
_SHARED = ["-shared", "-fPIC", "-s", "-Wl,-Bsymbolic", "-Wl,--build-id=none"]
_GCC_MACHINE = {
    "x86_64": ["-m64"],
    "aarch64": ["-march=armv8-a", "-mtune=cortex-a53"],
    "armv7": ["-mcpu=cortex-a7", "-mfpu=neon-vfpv4", "-mfloat-abi=hard"],
    "cortex-m4": ["-mthumb", "-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"],
    "cortex-m0": ["-mthumb", "-mcpu=cortex-m0plus", "-mfloat-abi=soft"],
}
_FIRMWARE_RUNTIME = ("__aeabi_", "mem")
"""Prefixes of what every ARM toolchain gives a firmware (the AAPCS run-time ABI; memcpy and its kin)."""

_IMAGE_SCRIPT = f"""\
SECTIONS {{
    . = {FLASH_BASE:#x};
    .text : {{ *(.text*) }}
    .rodata : {{ *(.rodata*) }}
    .data {RAM_BASE:#x} : {{ *(.data*) }}
    .bss : {{ *(.bss*) }}
    /DISCARD/ : {{ *(.ARM.exidx*) *(.ARM.extab*) *(.comment) *(.ARM.attributes) }}
}}
"""


class CompileError(BadInput):
    """The cross compiler refused the source, or made something that is no artifact."""


class _Compiler:
    """The command for one target, and the flags that differ between compilers."""

    def __init__(self, target: Target) -> None:
        named = os.environ.get(f"EDGE_CC_{target.name.upper().replace('-', '_')}") or os.environ.get(
            "EDGE_CC"
        )
        self.env = dict(os.environ)
        if named:
            self.command = [*shlex.split(named), *_GCC_MACHINE[target.name]]
            self.flags: list[str] = []
            self.runtime = ["-lgcc"]
        else:
            if importlib.util.find_spec("ziglang") is None:
                raise BadInput(
                    f"toolchain: no cross compiler for {target.name}; "
                    'pip install "edge-runtime[compile]", or name one in EDGE_CC'
                )
            zig = [sys.executable, "-m", "ziglang", "cc"]
            self.command = [*zig, "-target", target.triple, f"-mcpu={target.cpu}"]
            self.flags = _ZIG_ONLY
            self.runtime = [_ZIG_RUNTIME]
            zig_cache = str(cache_dir("zig"))
            self.env |= {"ZIG_GLOBAL_CACHE_DIR": zig_cache, "ZIG_LOCAL_CACHE_DIR": zig_cache}

    def run(self, arguments: Sequence[str], folder: str, target: Target) -> bytes:
        """Run in `folder`, where the output is called `out`; its bytes. Raises CompileError."""
        # The folder's name never reaches the compiler: all paths are relative, so no output can hold it.
        command = [*self.command, *arguments, "-o", "out"]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=self.env,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        except OSError as e:
            raise CompileError(
                f"toolchain: {self.command[0]}: {e.strerror}; name a compiler in EDGE_CC"
            ) from e
        if done.returncode:
            raise CompileError(f"toolchain: {target.name}: {_first_error(done.stderr)}")
        return Path(folder, "out").read_bytes()


def build(
    sources: Mapping[str, str],
    target: Target,
    *,
    optimise: str = "-O2",
    extra_flags: Sequence[str] = (),
) -> bytes:
    """Compile `sources` (file name -> text; .c and .S are compiled, others can be included) for `target`.

    Returns a stripped shared library that needs nothing, or for a freestanding target a relocatable object
    that needs at most the compiler's runtime. Equal sources give equal bytes. Raises CompileError with the
    compiler's first error, and where the result needs symbols it cannot get, or keeps state.
    """
    compiler = _Compiler(target)
    shared = target.form is Form.SHARED
    with tempfile.TemporaryDirectory(prefix="edge-cc-") as folder:
        for name, text in sources.items():
            Path(folder, _plain(name)).write_text(text, encoding="utf-8")
        units = sorted(n for n in sources if n.endswith((".c", ".S")))
        form = [*_SHARED, *compiler.runtime] if shared else ["-r"]
        data = compiler.run(
            [*_COMMON, *compiler.flags, optimise, *extra_flags, *units, *form], folder, target
        )
    _check(data, target)
    return data


@lru_cache(maxsize=4)
def image(data: bytes, target: Target) -> bytes:
    """Link a relocatable object with the compiler's runtime at flash and RAM addresses, symbols kept.

    For emulation: a firmware links the object itself. Raises CompileError.
    """
    compiler = _Compiler(target)
    roots = [f"-Wl,-u,{name}" for name in sorted(elf.parse(data, what=target.name).exports)]
    arguments = ["-O2", "-nostdlib", "-static", "object.o", *compiler.runtime, "-Wl,-T,image.ld", "-Wl,-e,0"]
    with tempfile.TemporaryDirectory(prefix="edge-ld-") as folder:
        Path(folder, "object.o").write_bytes(data)
        Path(folder, "image.ld").write_text(_IMAGE_SCRIPT, encoding="ascii")
        return compiler.run([*arguments, *roots, "-Wl,--gc-sections"], folder, target)


LIBRARY = "artifact.so"
"""The name under which a `program` looks for its artifact, in its own folder."""


def program(source: str, target: Target, artifact: bytes) -> bytes:
    """An executable, with a C library, from one C source that calls an artifact. Raises CompileError.

    At run time the artifact must lie beside it as LIBRARY.
    """
    compiler = _Compiler(target)
    with tempfile.TemporaryDirectory(prefix="edge-cc-") as folder:
        Path(folder, "main.c").write_text(source, encoding="utf-8")
        Path(folder, LIBRARY).write_bytes(artifact)
        return compiler.run(["-O2", "-g0", "main.c", LIBRARY, "-Wl,-rpath,$ORIGIN"], folder, target)


def version_of(package: str) -> str:
    """A package's version, for a manifest; "not installed" for a source tree that is run as it lies."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _plain(name: str) -> str:
    if Path(name).name != name or not name:
        raise BadInput(f"toolchain: source name {name!r} has a path in it; give plain file names")
    return name


def _check(data: bytes, target: Target) -> None:
    parsed = elf.parse(data, what=target.name)
    if parsed.machine != MACHINES[target.name]:
        raise CompileError(
            f"toolchain: {target.name}: the compiler made code for ELF machine {parsed.machine}, not "
            f"{MACHINES[target.name]}; name one for this target in EDGE_CC"
        )
    missing = parsed.undefined
    if target.form is Form.FREESTANDING:
        missing = tuple(n for n in missing if not n.startswith(_FIRMWARE_RUNTIME))
    if missing:
        raise CompileError(
            f"toolchain: {target.name}: nothing defines {', '.join(missing)}; define it static"
        )
    if target.form is Form.SHARED and parsed.relocation_count:
        raise CompileError(
            f"toolchain: {target.name}: {parsed.relocation_count} relocations; use offsets, no pointers"
        )
    if parsed.writable_bytes:
        raise CompileError(
            f"toolchain: {target.name}: {parsed.writable_bytes} bytes of variables; make them constant"
        )


def _first_error(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = (line for line in lines if "error:" in line or "undefined" in line)
    return next(errors, lines[0] if lines else "the compiler failed and said nothing")
