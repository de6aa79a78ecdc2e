"""Leaves in fixed point: a forest whose sums are integers, for targets without a double-precision unit.

A leaf v becomes round(v * 2**shift); sums of integers are exact in any order and on any target, and so is their
conversion to float64. Divisors are folded into the leaves. The forest that comes out is as exact a description
of the compiled code as the original is of the training library's.

With data, each tree's leaves also make up for what the rounding of the trees before them has done to the rows
that come to them. The fewest bits are taken with which at most one in a thousand decisions changes, on rows that
the rounding did not see; then no decision on the data changes at all: where rounding would flip a row, leaves on
its way are rounded the other way.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compile.forest import Floats, Forest, Ints
from edge_runtime.errors import BadInput

BITS = range(5, 16)
"""Bits of the largest leaf without its sign that are tried on data, fewest first."""
CHANGED = 1e-3
"""The share of decisions on new rows that rounding may change: where they are close enough to be a coin's toss."""
START_BITS = 12
"""Where there is no data: 1.9e-3 was the worst error of a probability in the measurements behind the design."""
_BITS_OF_FEW = range(9, 16)
"""The same for too few rows to tell such a share."""
_PASSES, _NUDGES, _CANDIDATES = 30, 50, 16
_ROWS = 20_000
"""Of the data, by which bits are chosen: half to round by, half to judge."""
_PRIOR, _FURTHEST = 4.0, 0.75
"""Rows without an error that every leaf is thought to have seen; how far beyond rounding a leaf may be moved."""


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


def fixed(forest: Forest, data: NDArray[np.float32] | None = None, raw: Floats | None = None) -> Fixed:
    """The forest with the fewest bits at which all decisions on `data` are the original's (12 bits without).

    raw: the original's raw scores on `data`, where they are known. A decision is the best output, or whether
    the only one is above zero. Raises BadInput where 15 bits do not do.
    """
    if data is None or not len(data):
        return with_bits(forest, START_BITS)
    raw = forest.raw_scores(data) if raw is None else raw
    few = np.linspace(0, len(data) - 1, min(len(data), _ROWS)).astype(np.int64)
    leaf: Ints = forest.leaf[forest.leaves(data[few])]
    wanted = decide(raw[few])
    for bits in BITS if len(few) * CHANGED >= 2 else _BITS_OF_FEW:
        made = _made_up_for(forest, with_bits(forest, bits), leaf[::2])
        changed = (decide(_sums(made.integers, leaf[1::2])) != wanted[1::2]).sum()
        if changed > CHANGED * len(wanted[1::2]) and bits != BITS[-1]:
            continue
        repaired = _Repair(forest, made, data, raw).run()
        if repaired is not None:
            return repaired
    raise BadInput(
        f"mode fixed or compact: {BITS[-1]} bits a leaf change decisions on the data; build with --mode exact"
    )


def _made_up_for(forest: Forest, made: Fixed, leaf: Ints) -> Fixed:
    """Leaves rounded so that errors cancel on rows, given by their leaf in each tree (rows, trees)."""
    if forest.leaf_values.shape[1] > 1:
        return made
    exact = forest.leaf_values[:, 0] / forest.divisor * 2.0**made.shift
    whole = made.integers.leaf_values.copy()
    error = np.zeros((len(leaf), forest.n_outputs))
    for tree, output in enumerate(forest.tree_output):
        mine = forest.leaf[forest.roots[tree] : forest.roots[tree + 1]]
        mine = np.sort(mine[mine >= 0])
        at = np.searchsorted(mine, leaf[:, tree])
        seen = np.bincount(at, minlength=len(mine)) + _PRIOR
        mean = np.bincount(at, error[:, output], len(mine)) / seen
        whole[mine, 0] = np.rint(exact[mine] - np.clip(mean, -_FURTHEST, _FURTHEST))
        error[:, output] += (whole[mine, 0] - exact[mine])[at]
    return _made(forest, whole, made.shift, made.bits)


def _sums(integers: Forest, leaf: Ints) -> Floats:
    """Sums (rows, outputs) of rows given by their leaves (rows, trees)."""
    sums = np.tile(integers.base, (len(leaf), 1))
    if integers.tree_output[0] < 0:
        summed: Floats = sums + integers.leaf_values[leaf].sum(1)
        return summed
    for output in range(integers.n_outputs):
        sums[:, output] += integers.leaf_values[leaf[:, integers.tree_output == output], 0].sum(1)
    return sums


def decide(raw: Floats) -> NDArray[np.int64]:
    """What raw scores (rows, outputs) decide: the best output, or whether the only one is above zero."""
    return raw.argmax(1) if raw.shape[1] > 1 else (raw[:, 0] > 0).astype(np.int64)


def with_bits(forest: Forest, bits: int) -> Fixed:
    """The forest with leaves of at most that many bits and a sign, each rounded to the nearest."""
    values = forest.leaf_values / forest.divisor
    largest = float(np.abs(values).max(initial=0.0)) or 1.0
    shift = int(np.floor(np.log2((2**bits - 1) / largest)))
    reach = _reach(forest, values) + float(np.abs(forest.base).max(initial=0.0))
    shift = min(shift, int(np.floor(np.log2((2**31 - 1 - len(forest.leaf)) / max(reach, 1e-300)))), 1000)
    return _made(forest, np.rint(values * 2.0**shift), shift, bits)


def _made(forest: Forest, whole: Floats, shift: int, bits: int) -> Fixed:
    scale = 2.0**shift
    base = np.rint(forest.base * scale)
    integers = dataclasses.replace(
        forest, leaf_values=whole, base=base, base_first=True, divisor=1.0, single=False
    )
    scaled = dataclasses.replace(integers, leaf_values=whole / scale, base=base / scale)
    error = _reach(forest, scaled.leaf_values - forest.leaf_values / forest.divisor)
    error += float(np.abs(scaled.base - forest.base).max(initial=0.0))
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


class _Repair:
    """Rounds leaves the other way until every row decides as it did. Only rows that are close call for it."""

    def __init__(self, forest: Forest, made: Fixed, data: NDArray[np.float32], raw: Floats) -> None:
        self.forest, self.made = forest, made
        close = _margins(raw) <= 2 * made.worst_error
        self.wanted = decide(raw[close])
        self.leaf: Ints = forest.leaf[forest.leaves(data[close])]
        self.exact = forest.leaf_values / forest.divisor * 2.0**made.shift
        self.whole = made.integers.leaf_values.copy()
        self.single = raw.shape[1] == 1

    def run(self) -> Fixed | None:
        """The repaired forest, or None where rows keep contradicting each other."""
        self.sums = _sums(self.made.integers, self.leaf)
        for _ in range(_PASSES):
            flipped = np.nonzero(decide(self.sums) != self.wanted)[0]
            if not len(flipped):
                return _made(self.forest, self.whole, self.made.shift, self.made.bits)
            if self.forest.leaf_values.shape[1] > 1:
                return None  # a leaf's vector has no single value to mend
            for row in flipped:
                self._mend(int(row))
        return None

    def _mend(self, row: int) -> None:
        wanted = self.wanted[row]
        for _ in range(_NUDGES):
            if decide(self.sums[row : row + 1])[0] == wanted:
                return
            if self.single:
                self._nudge(row, 0, 1 if wanted else -1)
            else:
                rival = int(self.sums[row].argmax())
                self._nudge(row, int(wanted), 1)
                self._nudge(row, rival, -1)

    def _nudge(self, row: int, output: int, by: int) -> None:
        """Change by one a leaf on the row's way: one that this brings near its exact value, and flips no other."""
        trees = np.nonzero(self.forest.tree_output == output)[0]
        leaves = self.leaf[row, trees]
        gain = by * (self.exact[leaves, 0] - self.whole[leaves, 0])
        best, fewest = None, np.inf
        for i in np.argsort(-gain)[:_CANDIDATES]:
            rows = np.nonzero(self.leaf[:, trees[i]] == leaves[i])[0]
            moved = self.sums[rows].copy()
            moved[:, output] += by
            wrong = (decide(moved) != self.wanted[rows]).sum() - (
                decide(self.sums[rows]) != self.wanted[rows]
            ).sum()
            if wrong < fewest:
                best, fewest = (leaves[i], rows), wrong
        if best is not None:
            self.whole[best[0], 0] += by
            self.sums[best[1], output] += by


def _margins(raw: Floats) -> Floats:
    """How far each row is from another decision."""
    ordered = np.sort(raw, axis=1)
    margins: Floats = np.abs(raw[:, 0]) if raw.shape[1] == 1 else ordered[:, -1] - ordered[:, -2]
    return margins
