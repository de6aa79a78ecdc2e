"""The order to evaluate trees in: those that ask alike one after the other, so that the second asks less.

Values are added in the model's order, which keeps every bit of the sum. They need not be found in that order: a
window of trees is evaluated in any order, if each value waits for its turn in a register of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compile.forest import Floats, Ints
from compile.ranks import Ranks

_HIGHEST = 1 << 30
_RARE = 0.05
"""Tests that are executed less often than this do not matter for the order."""


def in_sequence(ranks: Ranks, trees: Sequence[int]) -> list[int]:
    """Trees of one output that can change places, in the order to evaluate them."""
    return _chained(list(trees), _saved(ranks, list(trees))) if len(trees) > 2 else list(trees)


def _chained(trees: list[int], saved: Floats) -> list[int]:
    """Trees in a chain of the pairs that save most, the heaviest first."""
    n = len(trees)
    after, before = [-1] * n, [-1] * n
    end = list(range(n))  # of a chain's first tree its last, and the other way round
    for pair in np.argsort(-saved, axis=None, kind="stable").tolist():
        one, other = divmod(pair, n)
        if one == other or after[one] >= 0 or before[other] >= 0 or end[one] == other:
            continue
        after[one], before[other] = other, one
        first, last = end[one], end[other]
        end[first], end[last] = last, first
    at = before.index(-1)
    order = []
    while at >= 0:
        order.append(trees[at])
        at = after[at]
    return order


def _saved(ranks: Ranks, trees: list[int]) -> Floats:
    """(trees, trees): the tests that a tree is spared, per inference, right behind another one."""
    roots, slot, numeric = ranks.forest.roots, ranks.slot, len(ranks.numeric)
    asked = (slot >= 0) & (slot < numeric) & (ranks.share > _RARE)
    tests = [np.nonzero(asked[roots[t] : roots[t + 1]])[0] + roots[t] for t in trees]
    of = np.concatenate(tests)
    owner = np.repeat(np.arange(len(trees)), [len(t) for t in tests])
    share, columns, rank = ranks.share[of], slot[of], ranks.rank[of]
    found = np.zeros((len(trees), len(trees)))
    for number, tree in enumerate(trees):
        low, high, weight = _leaf_ranges(ranks, tree)
        decided = (high[:, columns] <= rank) | (low[:, columns] > rank)
        spared = np.where(decided, weight[:, None], 0).sum(0)  # `@` would wake the threads of a BLAS
        found[number] = np.bincount(owner, share * spared, len(trees))
    return found


def _leaf_ranges(ranks: Ranks, tree: int) -> tuple[Ints, Ints, Floats]:
    """For a tree's leaves: (leaves, slots) lowest and highest ranks, and (leaves,) the chance of each."""
    forest, numeric = ranks.forest, len(ranks.numeric)
    first, last = int(forest.roots[tree]), int(forest.roots[tree + 1])
    low = np.zeros((last - first, numeric), np.int32)
    high = np.full((last - first, numeric), _HIGHEST, np.int32)
    for node in range(first, last):
        slot, rank = int(ranks.slot[node]), int(ranks.rank[node])
        if slot < 0:
            continue
        for child in (int(forest.left[node]), int(forest.right[node])):
            low[child - first], high[child - first] = low[node - first], high[node - first]
        if slot < numeric:
            left, right = int(forest.left[node]) - first, int(forest.right[node]) - first
            high[left, slot] = min(high[left, slot], rank)
            low[right, slot] = max(low[right, slot], rank + 1)
    leaves: NDArray[np.intp] = np.nonzero(ranks.slot[first:last] < 0)[0]
    return low[leaves], high[leaves], ranks.share[first:last][leaves]
