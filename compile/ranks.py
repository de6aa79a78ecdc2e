"""Thresholds to ranks: every split becomes `rank(slot) <= k`, or a bit of a category's row.

A slot is a feature as some of its nodes see it. Usually one serves: rank(x) is the number of its thresholds
below x, and NaN gets the one rank that sends it the right way at every node (0 or the last where all nodes
agree, the rank of 0 for LightGBM's "NaN is zero"). Where no rank does, the nodes that send NaN left and those
that send it right get a slot each, so that a default direction costs nothing per node.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compile.forest import INF_KEY, CategorySet, Floats, Forest, Ints, key_to_float, keys_to_floats

NEVER = np.int32(-(2**31))
"""An integer threshold that no feature is at or below."""


@dataclass(frozen=True, slots=True, eq=False)
class NumericSlot:
    """A feature by its rank. keys: (n,) ascending thresholds; rank is 0 .. n.

    nan_rank: the rank of NaN. zero_missing: whether |x| <= 1e-35 has that rank too.
    weights: (n,), the expected number of visits per inference to nodes with that threshold.
    """

    feature: int
    keys: Ints
    nan_rank: int
    zero_missing: bool
    weights: Floats

    def integer_thresholds(self) -> Ints:
        """Thresholds for integer features: x <= t is x <= floor(t)."""
        finite = np.abs(self.keys.astype(np.int64)) <= INF_KEY
        floats = np.where(finite, keys_to_floats(self.keys), -np.inf).astype(np.float64)
        return np.floor(np.clip(floats, float(NEVER), 2.0**31 - 1)).astype(np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class CategorySlot:
    """A categorical feature. rows: (codes + 2, sets), whether a code goes left at each set.

    The last but one row is for a value that is no code or a larger one, the last for NaN.
    """

    feature: int
    rows: NDArray[np.bool_]

    @property
    def other(self) -> int:
        """Row of everything that is no code; rows before it are codes."""
        return len(self.rows) - 2


@dataclass(frozen=True, slots=True, eq=False)
class Ranks:
    """A Forest's slots, and for each node its slot and its rank (numeric) or set number (categorical).

    slot: (nodes,), numeric ones first, -1 at a leaf. rank: (nodes,). share: (nodes,), the chance that an
    inference visits the node.
    """

    forest: Forest
    numeric: tuple[NumericSlot, ...]
    categorical: tuple[CategorySlot, ...]
    slot: Ints
    rank: Ints
    share: Floats

    @property
    def largest(self) -> int:
        """The largest rank, or row of a category, that a slot can hold."""
        sizes = [len(s.keys) for s in self.numeric] + [len(c.rows) - 1 for c in self.categorical]
        return max(sizes, default=0)

    def dump(self) -> Iterator[str]:
        """The slots as text: what `--dump ranks` prints."""
        for number, slot in enumerate(self.numeric):
            name = self.forest.feature_names[slot.feature]
            zero = ", zero too" if slot.zero_missing else ""
            yield f"slot {number}: {name}, {len(slot.keys)} thresholds, NaN has rank {slot.nan_rank}{zero}"
            for k, (key, weight) in enumerate(zip(slot.keys, slot.weights, strict=True)):
                yield f"  rank > {k} where {name} > {key_to_float(int(key))!r}, {weight:.4f} visits"
        for number, chosen in enumerate(self.categorical, len(self.numeric)):
            name = self.forest.feature_names[chosen.feature]
            yield f"slot {number}: {name}, categorical, {chosen.other} codes, {chosen.rows.shape[1]} sets"
            for k, column in enumerate(chosen.rows.T):
                left = np.nonzero(column[:-2])[0].tolist()
                yield f"  set {k}: left {left}, others {column[-2]}, NaN {column[-1]}"


def rank_forest(forest: Forest) -> Ranks:
    """The Ranks of a Forest."""
    share = visit_shares(forest)
    slot = np.full(len(forest.feature), -1, np.int32)
    rank = np.zeros(len(forest.feature), np.int32)
    numeric: list[NumericSlot] = []
    for feature, zero, nodes in _groups(forest):
        for part in _consistent(forest, nodes):
            slot[part] = len(numeric)
            made, rank[part] = _numeric_slot(forest, share, feature, zero, part)
            numeric.append(made)
    categorical: list[CategorySlot] = []
    for feature in np.unique(forest.feature[forest.category >= 0]):
        part = np.nonzero((forest.category >= 0) & (forest.feature == feature))[0]
        slot[part] = len(numeric) + len(categorical)
        chosen, rank[part] = _category_slot(forest, int(feature), part)
        categorical.append(chosen)
    return Ranks(forest, tuple(numeric), tuple(categorical), slot, rank, share)


def visit_shares(forest: Forest) -> Floats:
    """The chance that an inference visits each node, from training counts; halves where there are none."""
    # Plain lists: these are read one element at a time, where numpy is ten times slower.
    share = [1.0] * len(forest.feature)
    count: list[float] = forest.count.tolist()
    children = zip(forest.feature.tolist(), forest.left.tolist(), forest.right.tolist(), strict=True)
    for node, (feature, left, right) in enumerate(children):  # children come after their parents
        if feature >= 0:
            total = count[left] + count[right]
            part = count[left] / total if total > 0 else 0.5
            share[left], share[right] = share[node] * part, share[node] * (1 - part)
    return np.array(share)


def _groups(forest: Forest) -> Iterator[tuple[int, bool, NDArray[np.intp]]]:
    is_numeric = (forest.feature >= 0) & (forest.category < 0)
    for feature in np.unique(forest.feature[is_numeric]):
        mine = is_numeric & (forest.feature == feature)
        for zero in (False, True):
            nodes = np.nonzero(mine & (forest.zero_missing == zero))[0]
            if len(nodes):
                yield int(feature), zero, nodes


def _consistent(forest: Forest, nodes: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """The nodes as one part where one rank of NaN serves them all, else as those for left and for right."""
    left = forest.nan_left[nodes]
    keys = forest.threshold_key[nodes]
    if left.all() or not left.any() or keys[left].min() > keys[~left].max():
        return [nodes]
    return [nodes[left], nodes[~left]]


def _numeric_slot(
    forest: Forest, share: Floats, feature: int, zero: bool, nodes: NDArray[np.intp]
) -> tuple[NumericSlot, Ints]:
    keys, ranks = np.unique(forest.threshold_key[nodes], return_inverse=True)
    left = forest.nan_left[nodes]
    # NaN passes every threshold of the nodes that send it right, and none of those that send it left.
    nan_rank = int(ranks[~left].max()) + 1 if (~left).any() else 0
    weights = np.bincount(ranks, share[nodes], len(keys)).astype(np.float64)
    return NumericSlot(feature, keys.astype(np.int32), nan_rank, zero, weights), ranks.astype(np.int32)


def _category_slot(forest: Forest, feature: int, nodes: NDArray[np.intp]) -> tuple[CategorySlot, Ints]:
    numbers: dict[tuple[CategorySet, bool], int] = {}
    ranks = []
    for node in nodes:
        split = forest.category_sets[forest.category[node]], bool(forest.nan_left[node])
        ranks.append(numbers.setdefault(split, len(numbers)))
    codes = 1 + max((max(s.left | s.right, default=-1) for s, _ in numbers), default=-1)
    rows = np.zeros((codes + 2, len(numbers)), bool)
    for number, (chosen, nan_left) in enumerate(numbers):
        rows[: codes + 1, number] = chosen.other_left
        rows[sorted(chosen.right), number] = False
        rows[sorted(chosen.left), number] = True
        rows[codes + 1, number] = nan_left
    return CategorySlot(feature, rows), np.array(ranks, np.int32)
