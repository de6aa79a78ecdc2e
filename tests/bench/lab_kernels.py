"""The lab session's workloads: built for the board, their instructions counted by class on the emulated aarch64.

A board cannot count its instructions by class, and need not: the same binary executes the same instructions
wherever it runs. So they are counted here once, a round of each kernel, and the board only counts its rounds.
"""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from compile.emulate import Machine
from compile.targets import TARGETS, Target
from compile.toolchain import build
from edge_runtime.power.fit import CLASSES
from edge_runtime.power.lab_session import KERNELS, ROUNDS

SOURCE = Path(__file__).with_name("lab_kernels.c")
COUNTED_ON = "aarch64"


def kind(word: int) -> str:
    """The class of an A64 instruction, by its main encoding (Arm ARM, DDI 0487, C4.1)."""
    main = word >> 25 & 15
    if main & 0b1110 == 0b1010:
        return "branch"
    if main & 0b0101 == 0b0100:
        return "load_store"
    return "floating" if main & 0b0111 == 0b0111 else "integer"


class ClassCounter(Machine):
    """An emulated aarch64 that counts by class as well. kinds: since the last `clear`."""

    def __init__(self, artifact: bytes) -> None:
        self.kinds: Counter[str] = Counter()
        self._kinds_of: dict[tuple[int, int], Counter[str]] = {}
        super().__init__(TARGETS[COUNTED_ON], artifact, count=True)

    def _on_block(self, uc: Any, address: int, size: int, unused: object) -> None:
        super()._on_block(uc, address, size, unused)
        kinds = self._kinds_of.get((address, size))
        if kinds is None:
            code = bytes(uc.mem_read(address, size))
            words = (int.from_bytes(code[k : k + 4], "little") for k in range(0, size, 4))
            kinds = self._kinds_of[address, size] = Counter(map(kind, words))
        self.kinds.update(kinds)


def library(target: Target) -> bytes:
    """The kernels as a shared library."""
    return build({"lab_kernels.c": SOURCE.read_text(encoding="utf-8")}, target)


@cache
def per_round() -> dict[str, dict[str, float]]:
    """Instructions of each class that one round of each kernel takes, on aarch64."""
    machine = ClassCounter(library(TARGETS[COUNTED_ON]))
    found = {}
    for name in KERNELS:
        machine.kinds.clear()
        call = machine.call(f"lab_{name}", ROUNDS)  # just as the board calls it
        assert call.instructions == machine.kinds.total()
        found[name] = {c: machine.kinds[c] / ROUNDS for c in CLASSES}
    return found


def files(target: Target) -> dict[str, bytes]:
    """What travels to the board, by file name."""
    return {"kernels.so": library(target), "kernels.json": json.dumps(per_round()).encode()}
