"""Leaves in fixed point: a forest whose sums are integers, for targets without a double-precision unit.

A leaf v becomes round(v * 2**shift); sums of integers are exact in any order and on any target, and so is their
conversion to float64. Divisors are folded into the leaves. The forest that comes out is as exact a description
of the compiled code as the original is of the training library's.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compile.forest import Floats, Forest
from edge_runtime.errors import BadInput

BITS = (8, 9, 10, 11, 12, 13, 14, 15)
"""Bits of the largest leaf without its sign, fewest first."""
START_BITS = 12
"""Where there is no data: the fewest at which no decision differed in the measurements behind the design."""


@dataclass(frozen=True, slots=True, eq=False)
class Fixed:
    """A forest in fixed point.

    forest: with the quantised values as float64, of which raw scores are exact multiples of 2**-shift.
    integers: the same forest with its values times 2**shift.
    worst_error: how far a raw score can be from the original's, in any output, for any row.
    """

    forest: Forest
    integers: Forest
    shift: int
    bits: int
    worst_error: float


def fixed(forest: Forest, data: NDArray[np.float32] | None = None) -> Fixed:
    """The forest with the fewest bits at which all decisions on `data` are the original's (12 bits without).

    A decision is the best output, or the sign of the only one. Raises BadInput where 15 bits do not do.
    """
    if data is None or not len(data):
        return with_bits(forest, START_BITS)
    decisions = decide(forest, forest.raw_scores(data))
    for bits in BITS:
        made = with_bits(forest, bits)
        if np.array_equal(decide(forest, made.forest.raw_scores(data)), decisions):
            return made
    raise BadInput(
        f"mode compact: {BITS[-1]} bits a leaf change decisions on the data; build with --mode exact"
    )


def decide(forest: Forest, raw: Floats) -> NDArray[np.int64]:
    """What raw scores (rows, outputs) decide: the best output, or whether the only one is above zero."""
    del forest
    return raw.argmax(1) if raw.shape[1] > 1 else (raw[:, 0] > 0).astype(np.int64)


def with_bits(forest: Forest, bits: int) -> Fixed:
    """The forest with leaves of at most that many bits and a sign."""
    values = forest.leaf_values / forest.divisor
    largest = float(np.abs(values).max(initial=0.0)) or 1.0
    shift = int(np.floor(np.log2((2**bits - 1) / largest)))
    reach = _reach(forest, values) + float(np.abs(forest.base).max(initial=0.0))
    shift = min(shift, int(np.floor(np.log2((2**31 - 1 - len(forest.leaf)) / max(reach, 1e-300)))))
    scale = 2.0**shift
    whole, base = np.rint(values * scale), np.rint(forest.base * scale)
    integers = dataclasses.replace(
        forest, leaf_values=whole, base=base, base_first=True, divisor=1.0, single=False
    )
    scaled = dataclasses.replace(integers, leaf_values=whole / scale, base=base / scale)
    error = _reach(forest, scaled.leaf_values - values) + float(
        np.abs(scaled.base - forest.base).max(initial=0.0)
    )
    return Fixed(scaled, integers, shift, bits, error)


def _reach(forest: Forest, values: Floats) -> float:
    """The largest sum of one leaf a tree, in any output."""
    of_tree = np.searchsorted(forest.roots, np.nonzero(forest.leaf >= 0)[0], "right") - 1
    leaves = forest.leaf[forest.leaf >= 0]
    per_tree = np.zeros((forest.n_trees, values.shape[1]))
    np.maximum.at(per_tree, of_tree, np.abs(values[leaves]))
    if forest.tree_output[0] < 0:
        return float(per_tree.sum(0).max())
    return float(np.bincount(forest.tree_output, per_tree[:, 0]).max())
