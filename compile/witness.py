"""Rows that reach every split of every tree, at its threshold and just above: what a wrong split would show on.

Random rows leave the colder half of a forest untouched, so that a wrong leaf there goes unseen. A row here is
made for one split: inside what the path to it allows, with the tested feature on one edge of the threshold.
All other features are put on edges too, so that a row usually serves a dozen splits.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from compile.forest import INF_KEY, NAN_KEY, Forest, Ints, category_codes, float_keys
from compile.ranks import NumericSlot, Ranks, rank_forest

BATCH = 128
SEED = 20261124


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


class _Search:
    def __init__(self, forest: Forest) -> None:
        self.forest = forest
        self.ranks: Ranks = rank_forest(forest)
        self.rng = np.random.default_rng(SEED)
        self.points = _points(forest, self.ranks)
        splits = np.nonzero(forest.feature >= 0)[0]
        # Two wanted rows a split: 2 * node goes left at the edge, 2 * node + 1 goes right.
        self.wanted = np.zeros(2 * len(forest.feature), bool)
        self.wanted[2 * splits] = self.wanted[2 * splits + 1] = True
        self.parent = np.full(len(forest.feature), -1, np.int32)
        self.parent[forest.left[splits]] = splits
        self.parent[forest.right[splits]] = splits

    def batches(self) -> Iterator[NDArray[np.float32]]:
        """Rows until no split wants one."""
        while True:
            wanted = np.nonzero(self.wanted)[0]
            if not len(wanted):
                return
            picked = self.rng.choice(wanted, min(BATCH, len(wanted)), replace=False)
            rows = np.stack([self._row(int(goal) // 2, bool(goal % 2)) for goal in picked])
            self.wanted[picked] = False  # also where its path contradicts itself
            self._cross_off(rows)
            yield rows

    def _row(self, node: int, right: bool) -> NDArray[np.float32]:
        """A row that reaches a split, on one edge of its threshold; anything where no row can."""
        forest = self.forest
        row = np.array([self.rng.choice(p) for p in self.points], np.float32)
        low = np.full(forest.n_features, -INF_KEY, np.int64)
        high = np.full(forest.n_features, INF_KEY, np.int64)
        steps = [(node, right)]
        while self.parent[node] >= 0:
            parent = int(self.parent[node])
            steps.append((parent, node == forest.right[parent]))
            node = parent
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

    def _code(self, node: int, right: bool) -> float:
        chosen = self.forest.category_sets[self.forest.category[node]]
        codes = sorted(chosen.left | chosen.right) or [0]
        codes = [c for c in [*codes, max(codes) + 1] if chosen.goes_left(c) != right] or codes
        return float(self.rng.choice(codes))

    def _cross_off(self, rows: NDArray[np.float32]) -> None:
        """Mark the splits that the rows reach on an edge of their threshold."""
        forest = self.forest
        keys = float_keys(rows)
        codes = category_codes(rows, forest.code_rule) if forest.category_sets else keys
        at = np.broadcast_to(forest.roots[:-1], (len(rows), forest.n_trees)).copy()
        while True:
            index, trees = np.nonzero(forest.feature[at] >= 0)
            if not len(index):
                return
            node: Ints = at[index, trees]
            left = forest.goes_left(node, keys, codes, index)
            key = keys[index, forest.feature[node]]
            edge = (key == forest.threshold_key[node] + (~left).astype(np.int32)) | (
                forest.category[node] >= 0
            )
            self.wanted[2 * node[edge] + (~left[edge]).astype(np.int32)] = False
            at[index, trees] = np.where(left, forest.left[node], forest.right[node])


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
