"""The order to evaluate trees in: those that ask alike one after the other, so that the second asks less.

Values are added in the model's order, which keeps every bit of the sum. They need not be found in that order: a
window of trees is evaluated in any order, if each value waits for its turn in a register of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from compile.forest import Floats, Ints
from compile.ranks import Ranks

_HIGHEST = 1 << 30
_RARE = 0.05
"""Tests that are executed less often than this do not matter for the order."""
_AT_ONCE = 1_000_000
"""Ranges that are found together: more need the memory, fewer the time."""


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
    for number, (low, high, weight) in enumerate(_leaf_ranges(ranks, trees)):
        decided = (high[:, columns] <= rank) | (low[:, columns] > rank)
        spared = np.where(decided, weight[:, None], 0).sum(0)  # `@` would wake the threads of a BLAS
        found[number] = np.bincount(owner, share * spared, len(trees))
    return found


def _leaf_ranges(ranks: Ranks, trees: Sequence[int]) -> Iterator[tuple[Ints, Ints, Floats]]:
    """For each tree its leaves': (leaves, slots) lowest and highest ranks, and (leaves,) the chance of each."""
    sizes = np.diff(ranks.forest.roots)[trees] * max(len(ranks.numeric), 1)
    some: list[int] = []
    room = _AT_ONCE
    for tree, size in zip(trees, sizes.tolist(), strict=True):
        if some and size > room:
            yield from _ranges_of(ranks, some)
            some, room = [], _AT_ONCE
        some.append(tree)
        room -= size
    yield from _ranges_of(ranks, some)


def _ranges_of(ranks: Ranks, trees: Sequence[int]) -> Iterator[tuple[Ints, Ints, Floats]]:
    """The same of trees that are few enough to go down together, a level at a time."""
    forest, numeric = ranks.forest, len(ranks.numeric)
    sizes = np.diff(forest.roots)[trees]
    starts = np.cumsum([0, *sizes.tolist()])
    shift = np.repeat(forest.roots[:-1][trees] - starts[:-1], sizes)
    of = np.arange(starts[-1]) + shift
    slot, rank = ranks.slot[of], ranks.rank[of]
    low = np.zeros((len(of), numeric), np.int32)
    high = np.full((len(of), numeric), _HIGHEST, np.int32)
    at = starts[:-1]
    while len(at := at[slot[at] >= 0]):
        left, right = forest.left[of[at]] - shift[at], forest.right[of[at]] - shift[at]
        for child in (left, right):
            low[child], high[child] = low[at], high[at]
        asked = slot[at] < numeric
        of_slot, limit = slot[at[asked]], rank[at[asked]]
        high[left[asked], of_slot] = np.minimum(high[left[asked], of_slot], limit)
        low[right[asked], of_slot] = np.maximum(low[right[asked], of_slot], limit + 1)
        at = np.concatenate([left, right])
    for first, last in itertools.pairwise(starts.tolist()):
        leaves = np.nonzero(slot[first:last] < 0)[0] + first
        yield low[leaves], high[leaves], ranks.share[of[leaves]]
