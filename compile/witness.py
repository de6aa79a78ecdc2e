"""Rows that reach every split of every tree, at its threshold and just above: what a wrong split would show on.

Random rows leave the colder half of a forest untouched, so that a wrong leaf there goes unseen. A row here is
made for one split: inside what the path to it allows, with the tested feature on one edge of the threshold.
All other features are put on edges too, so that a row usually serves a dozen splits. Emitters copy a tree's first
tests behind the hot leaves of the tree before; those copies are reached by way of their leaf.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from compile.emit import aarch64
from compile.emit.flow import END, flow_of
from compile.forest import INF_KEY, NAN_KEY, Forest, Ints, category_codes, float_keys
from compile.ranks import NumericSlot, Ranks, rank_forest

BATCH, TRIES = 128, 4
SEED = 20261124


def observable_splits(forest: Forest, rows: NDArray[np.float32]) -> set[int]:
    """Splits whose test the rows reach on both edges of its threshold, so that a wrong one would show.

    Others may be unreachable there: the leaves before them decide for every row that comes near.
    """
    reached = _Search(forest).reached(rows)
    return {split for leaf, split, side in reached if leaf < 0 and side and (-1, split, False) in reached}


def witness_rows(forest: Forest, limit: int) -> NDArray[np.float32]:
    """At most `limit` rows, float32 (rows, n_features), the first of them serving the most splits.

    Splits that no row can reach (their path contradicts itself) have none.
    """
    batches = []
    found = 0
    for rows in _Search(forest).batches():
        batches.append(rows[: limit - found])
        found += len(batches[-1])
        if found >= limit:
            break
    return np.concatenate(batches) if batches else np.zeros((0, forest.n_features), np.float32)


Goal = tuple[int, int, bool]
"""A leaf whose copy of a test is meant, or -1 for the test itself; the split; whether the row goes right."""


class _Search:
    def __init__(self, forest: Forest) -> None:
        self.forest = forest
        ranks = rank_forest(forest)
        self.flow = flow_of(ranks, aarch64.TASTE)
        self.rng = np.random.default_rng(SEED)
        self.points = _points(forest, ranks)
        splits = np.nonzero(forest.feature >= 0)[0]
        self.parent = np.full(len(forest.feature), -1, np.int32)
        self.parent[forest.left[splits]] = splits
        self.parent[forest.right[splits]] = splits
        tests = [(-1, int(split)) for split in splits if self.flow.live[split]]
        tests += [(leaf, copy.node) for leaf, of in self.flow.copies.items() for copy in of]
        self.has_copies = np.zeros(len(forest.feature), bool)
        self.has_copies[list(self.flow.copies)] = True
        # Goals, and how often each may still be tried: a way may be barred by what a row cannot be.
        self.tries: dict[Goal, int] = {
            (leaf, split, side): TRIES for leaf, split in tests for side in (False, True)
        }

    def batches(self) -> Iterator[NDArray[np.float32]]:
        """Rows until every goal is reached, or has been tried often enough."""
        while self.tries:
            goals = list(itertools.islice(self.tries, BATCH))
            rows = np.stack([self._row(split, side, leaf) for leaf, split, side in goals])
            reached = self.reached(rows)
            for goal in goals:
                left = self.tries.pop(goal) - 1
                if left and goal not in reached:
                    self.tries[goal] = left  # again, after all others
            for goal in reached:
                self.tries.pop(goal, None)
            yield rows

    def reached(self, rows: NDArray[np.float32]) -> set[Goal]:
        """The goals that rows reach, by following the emitted code's flow of control."""
        forest, flow = self.forest, self.flow
        keys = float_keys(rows)
        codes = category_codes(rows, forest.code_rule) if forest.category_sets else keys
        reached: set[Goal] = set()

        def test(leaf: int, nodes: Ints, index: NDArray[np.intp]) -> NDArray[np.bool_]:
            left: NDArray[np.bool_] = forest.goes_left(nodes, keys, codes, index)
            edge = keys[index, forest.feature[nodes]] == forest.threshold_key[nodes] + (~left).astype(
                np.int32
            )
            edge |= forest.category[nodes] >= 0
            reached.update(
                (leaf, n, not side) for n, side in zip(nodes[edge].tolist(), left[edge].tolist(), strict=True)
            )
            return left

        for group in flow.groups:
            at = np.full(len(rows), forest.roots[group.trees[0]], np.int32)
            while len(index := np.nonzero(at != END)[0]):
                split = forest.feature[at[index]] >= 0
                walking = index[split]
                if len(walking):
                    nodes = at[walking]
                    left = test(-1, nodes, walking)
                    at[walking] = np.where(left, flow.left[nodes], flow.right[nodes])
                leaving = index[~split]
                copied = self.has_copies[at[leaving]]
                for row in leaving[copied].tolist():
                    at[row] = self._onward(int(at[row]), row, test)
                at[leaving[~copied]] = flow.after[at[leaving[~copied]]]
        return reached

    def _onward(self, leaf: int, row: int, test: Callable[..., NDArray[np.bool_]]) -> int:
        for copy in self.flow.copies.get(leaf, ()):
            if bool(test(leaf, np.array([copy.node], np.int32), np.array([row]))[0]) == copy.goes_left:
                return copy.target
        return int(self.flow.after[leaf])

    def _row(self, node: int, right: bool, leaf: int) -> NDArray[np.float32]:
        """A row that reaches a split, on one edge of its threshold, and a leaf; anything where no row can."""
        forest = self.forest
        row = np.array([self.rng.choice(p) for p in self.points], np.float32)
        low = np.full(forest.n_features, -INF_KEY, np.int64)
        high = np.full(forest.n_features, INF_KEY, np.int64)
        steps = [(node, right), *self._way_to(node), *(self._way_to(leaf) if leaf >= 0 else ())]
        for at, goes_right in reversed(steps):
            feature, key = forest.feature[at], int(forest.threshold_key[at])
            if forest.category[at] >= 0:
                row[feature] = self._code(at, goes_right)
            elif goes_right:
                low[feature] = max(low[feature], key + 1)
            else:
                high[feature] = min(high[feature], key)
        for feature in np.nonzero((low > -INF_KEY) | (high < INF_KEY))[0]:
            keys = float_keys(self.points[feature])
            inside = self.points[feature][
                (keys >= low[feature]) & (keys <= high[feature]) & (keys != NAN_KEY)
            ]
            if len(inside):
                row[feature] = self.rng.choice(inside)
        at, goes_right = steps[0]
        if forest.category[at] < 0:
            key = int(forest.threshold_key[at]) + int(goes_right)
            row[forest.feature[at]] = _value(int(np.clip(key, -INF_KEY, INF_KEY)))
        return row

    def _way_to(self, node: int) -> Iterator[tuple[int, bool]]:
        """The splits above a node, nearest first, and whether the way there goes right."""
        while self.parent[node] >= 0:
            parent = int(self.parent[node])
            yield parent, bool(node == self.forest.right[parent])
            node = parent

    def _code(self, node: int, right: bool) -> float:
        chosen = self.forest.category_sets[self.forest.category[node]]
        codes = sorted(chosen.left | chosen.right) or [0]
        codes = [c for c in [*codes, max(codes) + 1] if chosen.goes_left(c) != right] or codes
        return float(self.rng.choice(codes))


def _points(forest: Forest, ranks: Ranks) -> list[NDArray[np.float32]]:
    """For each feature the values worth trying: both edges of every threshold, or the codes; 0 where unused."""
    slots: dict[int, list[NumericSlot]] = {}
    for slot in ranks.numeric:
        slots.setdefault(slot.feature, []).append(slot)
    points = []
    for feature in range(forest.n_features):
        keys = np.unique(np.concatenate([s.keys for s in slots.get(feature, [])] or [np.zeros(0, np.int32)]))
        edges = np.clip(np.concatenate([keys, keys.astype(np.int64) + 1]), -INF_KEY, INF_KEY)
        values = [float(_value(int(k))) for k in np.unique(edges)]
        for chosen in ranks.categorical:
            values += [float(c) for c in range(chosen.other + 1)] if chosen.feature == feature else []
        points.append(np.array(values or [0.0], np.float32))
    return points


def _value(key: int) -> np.float32:
    bits = key if key >= 0 else 0x80000000 - key
    return np.float32(np.uint32(bits).view(np.float32))
