"""Rows that reach every split of every tree, at its threshold and just above: what a wrong split would show on.

Random rows leave the colder half of a forest untouched, so that a wrong leaf there goes unseen. A row here is
made for one split: inside what the path to it allows, with the tested feature on one edge of the threshold.
All other features are put on edges too, so that a row usually serves a dozen splits. Emitters make further versions
of a tree's tests for hot leaves of the tree before; those are reached by way of their leaf.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from compile.emit import aarch64
from compile.emit.flow import END, flow_of
from compile.forest import INF_KEY, NAN_KEY, Forest, category_codes, float_keys
from compile.ranks import NumericSlot, Ranks, rank_forest

BATCH, TRIES = 128, 4
SEED = 20261124


def observable_splits(forest: Forest, rows: NDArray[np.float32]) -> set[int]:
    """Splits whose test the rows reach on both edges of its threshold, in its first version, so that a wrong one
    would show.

    Others may be unreachable there: the leaves before them decide for every row that comes near.
    """
    search = _Search(forest)
    reached = search.reached(rows)
    first: dict[int, int] = {}
    for block, node in enumerate(search.node.tolist()):
        first.setdefault(node, block)
    return {node for node, block in first.items() if {(block, False), (block, True)} <= reached}


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


Goal = tuple[int, bool]
"""A block with a test, and whether the row goes right."""


class _Search:
    def __init__(self, forest: Forest) -> None:
        self.forest = forest
        ranks = rank_forest(forest)
        self.flow = flow_of(ranks, aarch64.taste(ranks.forest))
        self.node = np.array(self.flow.node, np.int32)
        self.left, self.right = np.array(self.flow.left, np.int32), np.array(self.flow.right, np.int32)
        self.rng = np.random.default_rng(SEED)
        self.points = _points(forest, ranks)
        splits = np.nonzero(forest.feature >= 0)[0]
        self.parent = np.full(len(forest.feature), -1, np.int32)
        self.parent[forest.left[splits]] = splits
        self.parent[forest.right[splits]] = splits
        tests = np.nonzero(forest.feature[self.node] >= 0)[0].tolist()
        # Goals, and how often each may still be tried: a way may be barred by what a row cannot be.
        self.tries: dict[Goal, int] = {(block, side): TRIES for block in tests for side in (False, True)}

    def batches(self) -> Iterator[NDArray[np.float32]]:
        """Rows until every goal is reached, or has been tried often enough."""
        while self.tries:
            goals = list(itertools.islice(self.tries, BATCH))
            rows = np.stack([self._row(block, side) for block, side in goals])
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
        forest = self.forest
        keys = float_keys(rows)
        codes = category_codes(rows, forest.code_rule) if forest.category_sets else keys
        reached: set[Goal] = set()
        for order in self.flow.order:
            at = np.full(len(rows), order[0], np.int32)
            while len(index := np.nonzero(at != END)[0]):
                nodes = self.node[at[index]]
                split = forest.feature[nodes] >= 0
                at[index[~split]] = self.left[at[index[~split]]]
                index, nodes = index[split], nodes[split]
                blocks = at[index]
                left = forest.goes_left(nodes, keys, codes, index)
                edge = keys[index, forest.feature[nodes]] == forest.threshold_key[nodes] + ~left
                edge |= forest.category[nodes] >= 0
                reached.update(zip(blocks[edge].tolist(), (~left[edge]).tolist(), strict=True))
                at[index] = np.where(left, self.left[blocks], self.right[blocks])
        return reached

    def _row(self, block: int, right: bool) -> NDArray[np.float32]:
        """A row that reaches a test, on one edge of its threshold; anything where no row can."""
        node, leaf = self.flow.node[block], self.flow.via[block]
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
