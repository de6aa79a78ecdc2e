"""Counts a guest program's instructions under QEMU: builds the plugin and reads what it wrote."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from edge_runtime.cache import cache_dir
from edge_runtime.errors import HardwareUnavailable

_SOURCE = Path(__file__).with_name("insncount.c")


class Mark(NamedTuple):
    """The counters where the guest set a mark, began a write of `number` bytes, or (`number` None) at its exit.

    loads, stores: 0 unless they were asked for.
    """

    number: int | None
    instructions: int
    loads: int
    stores: int


class Counts(NamedTuple):
    """What one guest process executed, with its marks in order, and its writes where they were asked for."""

    marks: tuple[Mark, ...]
    exit: Mark
    writes: tuple[Mark, ...] = ()

    def between(self, first: int, second: int) -> int:
        """Instructions from the last mark `first` before the last mark `second` to that."""
        at = {mark.number: mark.instructions for mark in self.marks}
        return at[second] - at[first]


def read_counts(path: Path) -> Counts:
    """What the plugin wrote. Raises HardwareUnavailable where the guest wrote nothing."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError as e:
        raise HardwareUnavailable(
            f"counting: QEMU wrote no counts ({e.strerror}); is it qemu-user 7.2?"
        ) from e
    seen: dict[str, list[Mark]] = {"mark": [], "write": []}
    last = None
    for line in lines:
        what, number, *counters = line.split()
        if what == "exit":
            last = Mark(None, *map(int, counters))
        else:
            seen[what].append(Mark(int(number), *map(int, counters)))
    if last is None:
        raise HardwareUnavailable("counting: the guest never reached its end; see what it printed")
    return Counts(tuple(seen["mark"]), last, tuple(seen["write"]))


@cache
def plugin() -> Path:
    """The plugin as a shared library for this machine's QEMU, built at first need.

    Raises HardwareUnavailable where there is no C compiler.
    """
    source = _SOURCE.read_bytes()
    folder = cache_dir("qemu-plugin")
    built = folder / f"insncount-{hashlib.sha256(source).hexdigest()[:16]}.so"
    if not built.exists():
        with tempfile.TemporaryDirectory(dir=folder) as part:
            made = Path(part, "insncount.so")
            command = [*_compiler(), "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-o", str(made)]
            done = subprocess.run(
                [*command, str(_SOURCE)], capture_output=True, text=True, check=False, env=build_environment()
            )
            if done.returncode:
                raise HardwareUnavailable(f"counting: the QEMU plugin does not build: {done.stderr[:300]!r}")
            made.replace(built)
    return built


def _compiler() -> Sequence[str]:
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return [path]
    if find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc", "-Wl,--allow-shlib-undefined"]
    raise HardwareUnavailable("counting: no C compiler for the QEMU plugin; apt-get install gcc")


def build_environment() -> dict[str, str]:
    """For whatever compiler builds here: the ziglang wheel keeps its cache in ours."""
    zig = str(cache_dir("zig"))
    return os.environ | {"ZIG_GLOBAL_CACHE_DIR": zig, "ZIG_LOCAL_CACHE_DIR": zig}
