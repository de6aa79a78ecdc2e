"""Leaves in fixed point: a forest whose sums are integers, for targets without a double-precision unit.

A leaf v becomes round(v * 2**shift); sums of integers are exact in any order and on any target, and so is their
conversion to float64. Divisors are folded into the leaves. The forest that comes out is as exact a description
of the compiled code as the original is of the training library's.

With data, each tree's leaves also make up for what the rounding of all other trees does to the rows that come to
them, and lie on a grid of the tree's own: its step is the one with which they take a whole number of bits. The
fewest bits are taken with which at most one in a thousand decisions changes, on rows that the rounding did not see;
then no decision on the data changes at all: where rounding would flip a row, leaves on its way are rounded the
other way.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import chain
from typing import Any

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
_ROWS, _CELLS = 40_000, 100_000_000
"""Of the data, by which bits are chosen: half to round by, half to judge. No more than fit memory, times trees."""
_FINER = (0.75, 0.5, 0.25)
"""Less than the fewest whole bits, tried in this order: a tree's step need not be a power of two."""
_STEP, _WHOLE_BITS = 4, 15
"""What a step is about in units of 2**-shift; bits of the largest leaf in those, so that it fits 16."""
_LEAF_UNITS = 4 * _STEP
"""More than rounding moves a leaf, in those units."""
_SWEEPS = 3
_PRIOR, _FURTHEST = 4.0, 0.75
"""Rows without an error that every leaf is thought to have seen; how far beyond rounding a leaf may be moved."""


@dataclass(frozen=True, slots=True, eq=False)
class Fixed:
    """A forest in fixed point.

    forest: with the quantised values as float64, of which raw scores are exact multiples of 2**-shift.
    integers: the same forest with its values times 2**shift.
    step: (trees,), leaves of one tree differ by multiples of its step, in those integers.
    worst_error: how far a raw score can be from the original's, in any output, for any row.
    """

    forest: Forest
    integers: Forest
    shift: int
    bits: float
    worst_error: float
    step: Ints


@dataclass(frozen=True, slots=True, eq=False)
class _Grid:
    """Where leaves may lie, in units of 2**-shift: low, low + step, ... high of their tree; all (trees,)."""

    shift: int
    bits: float
    low: Floats
    step: Floats
    high: Floats


def fixed(forest: Forest, data: NDArray[np.float32] | None = None, raw: Floats | None = None) -> Fixed:
    """The forest with the fewest bits at which all decisions on `data` are the original's (12 bits without).

    raw: the original's raw scores on `data`, where they are known. A decision is the best output, or whether
    the only one is above zero. Raises BadInput where 15 bits do not do.
    """
    if data is None or not len(data):
        return with_bits(forest, START_BITS)
    raw = forest.raw_scores(data) if raw is None else raw
    rows = min(len(data), _ROWS, max(_CELLS // forest.n_trees, 2))
    few = np.linspace(0, len(data) - 1, rows).astype(np.int64)
    leaf: Ints = forest.leaf[forest.leaves(data[few])]
    wanted = decide(raw[few[1::2]])

    def alike(made: Fixed) -> bool:
        return bool((decide(_sums(made.integers, leaf[1::2])) != wanted).sum() <= CHANGED * len(wanted))

    def rounded(bits: float) -> _Rounded:
        return _rounded(forest, bits, leaf[::2])

    for bits in BITS if len(few) * CHANGED >= 2 else _BITS_OF_FEW:
        made = rounded(bits)
        if not alike(made.fixed) and bits != BITS[-1]:
            continue
        finer = (rounded(bits - less) for less in _FINER if made.grid is not None)
        for tried in chain((f for f in finer if alike(f.fixed)), [made]):
            repaired = _Repair(forest, tried, data, raw).run()
            if repaired is not None:
                return repaired
    raise BadInput(
        f"mode fixed or compact: {BITS[-1]} bits a leaf change decisions on the data; build with --mode exact"
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Rounded:
    """A forest in fixed point, and the grid of its leaves; None where leaves are vectors."""

    fixed: Fixed
    grid: _Grid | None


def _rounded(forest: Forest, bits: float, leaf: Ints) -> _Rounded:
    """Leaves rounded so that errors cancel on rows, given by their leaf in each tree (rows, trees)."""
    if forest.leaf_values.shape[1] > 1:
        return _Rounded(with_bits(forest, int(bits)), None)
    grid = _grid(forest, bits)
    exact = forest.leaf_values[:, 0] / forest.divisor * 2.0**grid.shift
    whole = exact.copy()
    error = np.zeros((forest.n_outputs, len(leaf)))
    trees = [_reached(forest, tree, leaf[:, tree]) for tree in range(forest.n_trees)]
    for sweep in range(_SWEEPS):
        for tree, (mine, at, seen) in enumerate(trees):
            others = error[forest.tree_output[tree]]
            if sweep:
                others -= (whole[mine] - exact[mine])[at]
            furthest = _FURTHEST * grid.step[tree]
            mean = np.clip(np.bincount(at, others, len(mine)) / seen, -furthest, furthest)
            place = np.clip(exact[mine] - mean, grid.low[tree], grid.high[tree]) - grid.low[tree]
            whole[mine] = grid.low[tree] + grid.step[tree] * np.rint(place / grid.step[tree])
            others += (whole[mine] - exact[mine])[at]
    return _Rounded(_made(forest, whole[:, None], grid.shift, bits, grid.step.astype(np.int32)), grid)


def _reached(forest: Forest, tree: int, leaf: Ints) -> tuple[Ints, NDArray[np.unsignedinteger[Any]], Floats]:
    """A tree's leaves; which of them each row comes to; how many rows come to each."""
    mine = forest.leaf[forest.roots[tree] : forest.roots[tree + 1]]
    mine = np.sort(mine[mine >= 0])
    at = np.searchsorted(mine, leaf).astype(np.min_scalar_type(len(mine)))  # small: one for each tree is kept
    return mine, at, np.bincount(at, minlength=len(mine)) + _PRIOR


def _grid(forest: Forest, bits: float) -> _Grid:
    """The grid whose steps are about the largest leaf's last bit: of each tree the nearest whole number of bits."""
    values = forest.leaf_values[:, 0] / forest.divisor
    largest = float(np.abs(values).max(initial=0.0)) or 1.0
    unit = largest / (2**bits - 1)
    shift = int(np.ceil(np.log2(_STEP / unit)))
    shift = min(shift, int(np.floor(np.log2((2**_WHOLE_BITS - 1) / largest))), _most_shift(forest, values))
    exact = values * 2.0**shift
    coarse = unit * 2.0**shift >= _STEP / 2  # else units are coarse themselves
    low, step, high = [], [], []
    for tree in range(forest.n_trees):
        leaf = forest.leaf[forest.roots[tree] : forest.roots[tree + 1]]
        mine = exact[leaf[leaf >= 0]]
        least, span = float(mine.min()), float(np.ptp(mine))
        steps = 2 ** round(np.log2(span / (unit * 2.0**shift) + 1)) - 1 if coarse else int(np.ceil(span)) + 1
        step.append(max(int(np.ceil(span / max(steps, 1))), 1) if steps else 1)
        low.append(round(least + (span - step[-1] * steps) / 2))
        high.append(low[-1] + step[-1] * steps)
    return _Grid(shift, bits, np.array(low, float), np.array(step, float), np.array(high, float))


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
    shift = min(shift, _most_shift(forest, values))
    return _made(forest, np.rint(values * 2.0**shift), shift, bits, np.ones(forest.n_trees, np.int32))


def _most_shift(forest: Forest, values: Floats) -> int:
    """The largest shift with which no sum exceeds an int32."""
    reach = _reach(forest, values.reshape(len(values), -1)) + float(np.abs(forest.base).max(initial=0.0))
    room = 2**31 - 1 - _LEAF_UNITS * len(forest.leaf)
    return min(int(np.floor(np.log2(room / max(reach, 1e-300)))), 1000)


def _made(forest: Forest, whole: Floats, shift: int, bits: float, step: Ints) -> Fixed:
    scale = 2.0**shift
    base = np.rint(forest.base * scale)
    integers = dataclasses.replace(
        forest, leaf_values=whole, base=base, base_first=True, divisor=1.0, single=False
    )
    scaled = dataclasses.replace(integers, leaf_values=whole / scale, base=base / scale)
    error = _reach(forest, scaled.leaf_values - forest.leaf_values / forest.divisor)
    error += float(np.abs(scaled.base - forest.base).max(initial=0.0))
    return Fixed(scaled, integers, shift, bits, error, step)


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

    def __init__(self, forest: Forest, rounded: _Rounded, data: NDArray[np.float32], raw: Floats) -> None:
        self.forest, self.made, self.grid = forest, rounded.fixed, rounded.grid
        made = self.made
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
                return _made(self.forest, self.whole, self.made.shift, self.made.bits, self.made.step)
            if self.grid is None:
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
        """Move by a step a leaf on the row's way: one that this brings near its exact value, and flips no other."""
        assert self.grid is not None
        trees = np.nonzero(self.forest.tree_output == output)[0]
        moved = self.whole[self.leaf[row, trees], 0] + by * self.grid.step[trees]
        trees = trees[(moved >= self.grid.low[trees]) & (moved <= self.grid.high[trees])]
        leaves = self.leaf[row, trees]
        step = by * self.grid.step[trees]
        gain = (self.exact[leaves, 0] - self.whole[leaves, 0]) / step
        best, fewest = None, np.inf
        for i in np.argsort(-gain)[:_CANDIDATES]:
            rows = np.nonzero(self.leaf[:, trees[i]] == leaves[i])[0]
            moved = self.sums[rows].copy()
            moved[:, output] += step[i]
            wrong = (decide(moved) != self.wanted[rows]).sum() - (
                decide(self.sums[rows]) != self.wanted[rows]
            ).sum()
            if wrong < fewest:
                best, fewest = (leaves[i], rows, step[i]), wrong
        if best is not None:
            self.whole[best[0], 0] += best[2]
            self.sums[best[1], output] += best[2]


def _margins(raw: Floats) -> Floats:
    """How far each row is from another decision."""
    ordered = np.sort(raw, axis=1)
    margins: Floats = np.abs(raw[:, 0]) if raw.shape[1] == 1 else ordered[:, -1] - ordered[:, -2]
    return margins
