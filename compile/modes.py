"""Which mode a target's trees are compiled in, where nobody says: by its flash, and by what the modes cost on it.

A machine with megabytes of memory and hardware doubles gets the training library's bits. On a microcontroller the
code of every mode is built and counted; exact code is taken where it fits and costs at most twice the cheapest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from compile import elf, toolchain
from compile.emit.header import header_h
from compile.emit.trees import MODES, TreeCode, emit
from compile.emulate import Machine, Out
from compile.forest import Forest
from compile.probes import probe_rows
from compile.quantise import Fixed
from compile.targets import FLASH_BYTES, Target
from edge_runtime.errors import BadInput

PIPELINE_BYTES = 24 * 1024
"""About what a pipeline's own code and tables take on a microcontroller."""
BITS_ARE_WORTH = 2
"""How many times the instructions of the cheapest mode exact code may take."""
_ROWS = 16


class Choice(NamedTuple):
    """A mode of emit.trees, and why, in a line. room_bytes: the flash it was chosen for, None where any will do."""

    mode: str
    why: str
    room_bytes: int | None = None


class _Measured(NamedTuple):
    mode: str
    bytes: int
    instructions: float

    def __str__(self) -> str:
        return f"{self.mode} takes {self.bytes / 1024:.0f} KiB and {self.instructions:,.0f} instructions"


def choose(
    forest: Forest, target: Target, rows: int, quantise: Callable[[], Fixed], *, pipeline: bool = False
) -> Choice:
    """The mode of one target.

    pipeline: whether a pipeline goes along, and takes its share of the flash.
    rows: of the data whose decisions fixed point keeps; without any, nothing but exact code can be proven.
    quantise: the forest in fixed point; BadInput from it means that there is none.
    Raises BadInput where no mode that can be proven fits into half of the target's flash.
    """
    flash = FLASH_BYTES.get(target.machine)
    if flash is None:
        return Choice("exact", "the training library's bits, and memory for them is no concern here")
    room = flash // 2 - (PIPELINE_BYTES if pipeline else 0)
    part = f"{room // 1024} KiB, half of a common {target.name}'s {flash // 1024} KiB of flash"
    part += " less the pipeline" if pipeline else ""
    measured = list(_measure(forest, target, room, quantise if rows else None))
    found = {m.mode: m for m in measured if m.bytes <= room}
    exact = found.get("exact")
    if not rows and exact:
        why = f"{exact}, within {part}; without data no other decisions can be proven equal"
        return Choice("exact", why, room)
    if not found:
        said = "; ".join(map(str, measured)) or f"exact takes about {_about(forest) // 1024} KiB"
        hint = (
            "train fewer trees" if rows else "give --data, on which fixed point can be proven to decide alike"
        )
        raise BadInput(
            f"target {target.name}: {said}, and may take {part}; {hint}, or name a --mode yourself"
        )
    cheapest = min(found.values(), key=lambda m: m.instructions)
    if exact and exact.instructions <= BITS_ARE_WORTH * cheapest.instructions:
        return Choice("exact", f"{exact}, within {part}, and no mode takes less than half of that", room)
    against = "; ".join(str(m) for m in measured if m is not cheapest)
    return Choice(
        cheapest.mode,
        f"{cheapest}, {against or 'exact does not fit'}; {part}; decisions equal on {rows} rows",
        room,
    )


def _measure(
    forest: Forest, target: Target, room: int, quantise: Callable[[], Fixed] | None
) -> Iterator[_Measured]:
    """Every mode that may be taken."""
    if _about(forest) < 2 * FLASH_BYTES[target.machine]:  # else it is not worth a try
        yield _built(forest, target, "exact", room, None)
    if quantise is None:
        return
    try:
        quantised = quantise()
    except BadInput:
        return
    for mode in MODES[1:]:
        yield _built(forest, target, mode, room, quantised)


def _built(forest: Forest, target: Target, mode: str, room: int, quantised: Fixed | None) -> _Measured:
    code = emit(forest, target, mode=mode, quantised=quantised, room_bytes=room)
    artifact = toolchain.build(alone(forest, code), target)
    linked = elf.parse(toolchain.image(artifact, target), what=target.name)
    machine = Machine(target, artifact, count=True)
    out = Out(8 * forest.n_outputs)
    calls = [machine.call("edge_model_scores", row.tobytes(), out) for row in probe_rows(forest, _ROWS)]
    return _Measured(
        mode, linked.text_bytes + linked.rodata_bytes, float(np.mean([c.instructions for c in calls]))
    )


def alone(forest: Forest, code: TreeCode) -> dict[str, str]:
    """The sources of a model without a pipeline."""
    header = header_h(list(forest.feature_names), forest.n_outputs, (), None)
    return {"edge_model.h": header, "edge_model.c": f'#include "edge_model.h"\n{code.c}', **code.files}


def _about(forest: Forest) -> int:
    """About what the exact table walk takes: splits, leaves, thresholds."""
    splits = int((forest.feature >= 0).sum())
    thresholds = len(np.unique(forest.threshold_key * np.int64(4096) + forest.feature))
    return 6 * splits + forest.leaf_values.size * (4 if forest.single else 8) + 5 * thresholds + 2048
