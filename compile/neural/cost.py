"""What each layer costs: multiply-accumulates, flash and arena bytes, and instructions counted on an emulated CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from compile.emulate import Machine, Out
from compile.neural import emit as emitter
from compile.neural import integer
from compile.neural import layers as layers_c
from compile.targets import Target
from compile.toolchain import build


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One step of the network. flash_bytes: its constants. arena_bytes: its output and scratch."""

    layer: str
    kind: str
    output: tuple[int, ...]
    macs: int
    instructions: int
    flash_bytes: int
    arena_bytes: int

    def document(self) -> dict[str, Any]:
        """For a manifest."""
        return {name: getattr(self, name) for name in self.__slots__} | {"output": list(self.output)}


def endless(plan: integer.Plan) -> int:
    """Instructions that no inference of a network takes on any target; twelve a multiply-accumulate are seen."""
    return 5_000_000 + 40 * sum(macs(step) for step in plan.steps)


def macs(step: integer.Step) -> int:
    """Multiply-accumulates of one step, margins included."""
    if not isinstance(step, integer.Product | integer.Depthwise):
        return 0
    positions = step.rows if isinstance(step, integer.Product) else 1
    if step.window is not None:
        positions = step.window.out_height * step.window.out_width
    return int(step.weights.size) * positions


def flash_bytes(step: integer.Step) -> int:
    """Bytes of a step's constants as the C holds them."""
    if isinstance(step, integer.Product | integer.Depthwise):
        packed = layers_c.pack_products if isinstance(step, integer.Product) else layers_c.pack_depthwise
        return len(packed(step.weights)) + 12 * -(-len(step.bias) // 4) * 4
    if isinstance(step, integer.Softmax):
        return 1024
    return 256 if isinstance(step, integer.Table) else 0


def layers(plan: integer.Plan, target: Target, example: bytes) -> list[LayerCost]:
    """A row a step, instructions counted on `target` for one input (the arithmetic does not depend on values)."""
    source = emitter.emit_prefixes(plan)
    machine = Machine(target, build(source, target), count=True, endless=endless(plan))
    size = plan.tensors[plan.output].size * np.dtype(plan.tensors[plan.output].dtype).itemsize
    counts = [
        machine.call(emitter.PREFIX, example, Out(size), n).instructions for n in range(len(plan.steps) + 1)
    ]
    rows = []
    for n, step in enumerate(plan.steps):
        out = plan.tensors[step.dst]
        scratch = sum(size for _, size in layers_c.layer(n, step).scratch)
        rows.append(
            LayerCost(
                step.source,
                step.kind.name,
                out.shape,
                macs(step),
                counts[n + 1] - counts[n],
                flash_bytes(step),
                out.size * np.dtype(out.dtype).itemsize + scratch,
            )
        )
    return rows
