"""An order of trees in which a leaf knows most about the next tree's first tests.

Sums of integers are the same in any order, so that in fixed point the order is free within an output. A flow
(see flow) leaves out every test that the path to a leaf before it decides: where two trees ask about the same
feature, the second often need not. What following tree b saves after tree a is

    gain[a, b] = sum over a's leaves of P(leaf) * (tests of b, from its root down, that the leaf decides)

and an order of much gain is a travelling salesman's tour: the best of some greedy ones, then moves of short runs
of trees to better places (Or-opt: Or, "Traveling salesman-type combinatorial problems", 1976).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compile.emit.flow import MAX_SLOTS
from compile.forest import Floats, Ints
from compile.ranks import Ranks

BLOCK = 128
"""Trees of an output that are ordered among themselves: the work grows with the square of it."""
_STARTS, _PASSES, _RUN, _LEVELS = 8, 30, 12, 3


def ordered(ranks: Ranks) -> tuple[Ranks, list[int]]:
    """The Ranks of the forest in the new order of trees, and the old number of each tree in it."""
    forest = ranks.forest
    order: list[int] = []
    for output in np.unique(forest.tree_output):
        trees = np.nonzero(forest.tree_output == output)[0]
        for at in range(0, len(trees), BLOCK):
            block = trees[at : at + BLOCK]
            order += block[_tour(_gains(ranks, block))].tolist() if _pays(ranks, block) else block.tolist()
    return _permuted(ranks, order), order


def _pays(ranks: Ranks, trees: NDArray[np.intp]) -> bool:
    return len(trees) > 2 and len(ranks.numeric) <= MAX_SLOTS


def _permuted(ranks: Ranks, order: list[int]) -> Ranks:
    forest = ranks.forest
    sizes = np.diff(forest.roots)[order]
    nodes = np.concatenate([np.arange(forest.roots[t], forest.roots[t + 1]) for t in order])
    place = np.empty(len(nodes), np.int32)
    place[nodes] = np.arange(len(nodes))
    split = forest.feature[nodes] >= 0
    moved = replace(
        forest,
        roots=np.cumsum([0, *sizes]).astype(np.int32),
        feature=forest.feature[nodes],
        threshold_key=forest.threshold_key[nodes],
        left=np.where(split, place[forest.left[nodes]], forest.left[nodes]).astype(np.int32),
        right=np.where(split, place[forest.right[nodes]], forest.right[nodes]).astype(np.int32),
        nan_left=forest.nan_left[nodes],
        zero_missing=forest.zero_missing[nodes],
        category=forest.category[nodes],
        leaf=forest.leaf[nodes],
        tree_output=forest.tree_output[order],
        count=forest.count[nodes],
    )
    return replace(
        ranks, forest=moved, slot=ranks.slot[nodes], rank=ranks.rank[nodes], share=ranks.share[nodes]
    )


def _gains(ranks: Ranks, trees: NDArray[np.intp]) -> Floats:
    roots = ranks.forest.roots[trees]
    gain = np.array([_saved(ranks, roots, *box) for box in _boxes(ranks, trees)])
    np.fill_diagonal(gain, -1.0)
    return gain


def _boxes(ranks: Ranks, trees: NDArray[np.intp]) -> Iterator[tuple[Ints, Ints, Floats]]:
    """For each tree: the lowest and highest rank of every slot at each leaf, and the leaf's share."""
    forest, numeric = ranks.forest, len(ranks.numeric)
    for tree in trees:
        first, last = int(forest.roots[tree]), int(forest.roots[tree + 1])
        low = np.zeros((last - first, numeric), np.int32)
        high = np.tile(np.array([len(s.keys) for s in ranks.numeric], np.int32), (last - first, 1))
        for node in range(first, last):  # parents come first
            slot = ranks.slot[node]
            if slot < 0:
                continue
            left, right = forest.left[node] - first, forest.right[node] - first
            for child in (left, right):
                low[child], high[child] = low[node - first], high[node - first]
            if slot < numeric:
                high[left, slot] = min(high[left, slot], ranks.rank[node])
                low[right, slot] = max(low[right, slot], ranks.rank[node] + 1)
        leaf = ranks.slot[first:last] < 0
        yield low[leaf], high[leaf], ranks.share[first:last][leaf]


def _saved(ranks: Ranks, roots: Ints, low: Ints, high: Ints, share: Floats) -> Floats:
    """Tests that the leaves decide of the trees with those roots, (trees,): mean over the leaves."""
    forest = ranks.forest
    rows = np.arange(len(share))[:, None]

    def decided(nodes: Ints) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        slot, rank = ranks.slot[nodes], ranks.rank[nodes]
        known = (slot >= 0) & (slot < len(ranks.numeric))
        at = np.where(known, slot, 0)
        return known & (high[rows, at] <= rank), known & (low[rows, at] > rank)

    at = np.broadcast_to(roots, (len(share), len(roots)))
    left, right = decided(at)
    saved = (left | right).astype(np.float64)
    for child in (forest.left[roots], forest.right[roots]):  # behind a root that stays open
        a, b = decided(np.broadcast_to(np.maximum(child, 0), at.shape))
        saved += ~(left | right) * (a | b) * ranks.share[child]
    for _ in range(_LEVELS):
        open_ = ~(left | right)
        at = np.where(left, forest.left[at], np.where(right, forest.right[at], at))
        left, right = decided(at)
        left, right = left & ~open_, right & ~open_
        saved += left | right
    return np.asarray(share @ saved)


def _tour(gain: Floats) -> list[int]:
    starts = sorted({k * len(gain) // _STARTS for k in range(_STARTS)})
    tour = max((_greedy(gain, start) for start in starts), key=lambda order: _total(gain, order))
    for _ in range(_PASSES):
        before = tour
        for length in range(1, min(_RUN, len(tour) - 2) + 1):
            for at in range(len(tour) - length + 1):
                tour = _moved(gain, tour, at, length)
        if tour == before:
            break
    return tour


def _greedy(gain: Floats, start: int) -> list[int]:
    order, free = [start], np.ones(len(gain), bool)
    free[start] = False
    while free.any():
        order.append(int(np.where(free, gain[order[-1]], -2.0).argmax()))
        free[order[-1]] = False
    return order


def _total(gain: Floats, order: list[int]) -> float:
    return float(gain[order[:-1], order[1:]].sum())


def _moved(gain: Floats, tour: list[int], at: int, length: int) -> list[int]:
    """The tour with a run of trees where it gains most, or as it was."""
    run, rest = tour[at : at + length], tour[:at] + tour[at + length :]
    before, behind = gain[rest, run[0]], gain[run[-1], rest]
    added = np.concatenate([[0.0], before]) + np.concatenate([behind, [0.0]])
    added[1:-1] -= gain[rest[:-1], rest[1:]]
    best = int(added.argmax())
    return rest[:best] + run + rest[best:] if added[best] > added[at] + 1e-9 else tour
