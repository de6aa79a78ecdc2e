"""Rows that reach every split of every tree, at its threshold and just above: what a wrong split would show on.

Random rows leave the colder half of a forest untouched, so that a wrong leaf there goes unseen. A row here is
made for one split: inside what the path to it allows, with the tested feature on one edge of the threshold.
All other features are put on edges too, so that a row usually serves a dozen splits. A split can stand in the code
several times, for ways that come from different leaves of the tree before; each of these is reached on its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from compile.emit import aarch64
from compile.emit.flow import END, Flow, flow_of
from compile.forest import INF_KEY, Forest, Ints, category_codes, float_keys
from compile.ranks import NumericSlot, Ranks, rank_forest

BATCH, TRIES = 256, 4
SEED = 20261124

Steps = list[tuple[int, bool]]
"""Splits, and whether the way goes right there."""
Goals = NDArray[np.int64]
"""What rows are wanted for, as numbers: 3 * block + side. side: 0 and 1 are the threshold's, at its edge, left and
right; NAN is a missing value, where the feature's splits do not all send it the same way."""
NAN = 2


class _Blocks(NamedTuple):
    """The flow of control as blocks, each a node of the forest where it stands in the code, (blocks,).

    left, right: a split's targets; a leaf's, or END, is in both. via: the leaf before the block's tree that all
    ways to it come from, -1 where there are several. starts: of the groups.
    """

    node: Ints
    left: Ints
    right: Ints
    via: Ints
    starts: Ints


def _blocks_of(flow: Flow) -> _Blocks:
    node, left, right, via = np.array([flow.node, flow.left, flow.right, flow.via], np.int32)
    return _Blocks(node, left, right, via, np.array([order[0] for order in flow.order], np.int32))


def observable_splits(forest: Forest, rows: NDArray[np.float32]) -> set[int]:
    """Splits whose test the rows reach on both edges of its threshold, in its first version, so that a wrong one
    would show.

    Others may be unreachable there: the leaves before them decide for every row that comes near.
    """
    search = _Search(forest)
    reached = np.concatenate([search.reached(rows[at : at + BATCH]) for at in range(0, len(rows), BATCH)])
    unseen = {goal // 3 for goal in set(search.tries) - set(reached.tolist())}
    nodes, first = np.unique(search.blocks.node, return_index=True)
    tests = forest.feature[nodes] >= 0
    return {n for n, b in zip(nodes[tests].tolist(), first[tests].tolist(), strict=True) if b not in unseen}


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
        ranks = rank_forest(forest)
        self.blocks = _blocks_of(flow_of(ranks, aarch64.taste(ranks.forest)))
        self.rng = np.random.default_rng(SEED)
        self.points = _points(forest, ranks)
        self.keys = [float_keys(p) for p in self.points]
        splits = np.nonzero(forest.feature >= 0)[0]
        self.parent = np.full(len(forest.feature), -1, np.int32)
        self.parent[forest.left[splits]] = splits
        self.parent[forest.right[splits]] = splits
        tests = np.nonzero(forest.feature[self.blocks.node] >= 0)[0].tolist()
        # How often each may still be tried: a way may be barred by what a row cannot be.
        self.tries = {3 * block + side: TRIES for block in tests for side in (0, 1)}
        slots = np.bincount([slot.feature for slot in ranks.numeric], minlength=forest.n_features)
        both_ways = (slots > 1)[forest.feature[self.blocks.node]] & (forest.category[self.blocks.node] < 0)
        self.tries |= {3 * block + NAN: TRIES for block in tests if both_ways[block]}

    def batches(self) -> Iterator[NDArray[np.float32]]:
        """Rows until every goal is reached, or has been tried often enough."""
        while self.tries:
            goals = list(itertools.islice(self.tries, BATCH))
            rows = self._rows(goals)
            reached = set(self.reached(rows).tolist())
            for goal in goals:
                left = self.tries.pop(goal) - 1
                if left and goal not in reached:
                    self.tries[goal] = left  # again, after all others
            for goal in reached:
                self.tries.pop(goal, None)
            yield rows

    def reached(self, rows: NDArray[np.float32]) -> Goals:
        """The goals that rows reach, by following the emitted code's flow of control, all groups at once."""
        forest, blocks = self.forest, self.blocks
        keys = float_keys(rows)
        codes = category_codes(rows, forest.code_rule) if forest.category_sets else keys
        row = np.repeat(np.arange(len(rows)), len(blocks.starts))
        at = np.tile(blocks.starts, len(rows))
        found = [np.zeros(0, np.int64)]
        while len(at):
            tests = np.nonzero(forest.feature[blocks.node[at]] >= 0)[0]
            block = at[tests]
            node = blocks.node[block]
            right = ~forest.goes_left(node, keys, codes, row[tests])
            edge = keys[row[tests], forest.feature[node]] == forest.threshold_key[node] + right
            missing = np.isnan(rows[row[tests], forest.feature[node]]) & (forest.category[node] < 0)
            edge |= (forest.category[node] >= 0) | missing
            side = np.where(missing, NAN, right)
            found.append(np.unique((block * np.int64(3) + side)[edge]))
            at = blocks.left[at]  # of a leaf, where it goes
            at[tests] = np.where(right, blocks.right[block], at[tests])
            walking = at != END
            at, row = at[walking], row[walking]
        return np.unique(np.concatenate(found))

    def _rows(self, goals: Sequence[int]) -> NDArray[np.float32]:
        """For each goal a row that reaches a split, on one edge of its threshold, and a leaf, if any can."""
        rows: NDArray[np.float32] = np.stack([self.rng.choice(p, len(goals)) for p in self.points], 1)
        for row, goal in zip(rows, goals, strict=True):
            block, side = divmod(goal, 3)
            split, leaf = int(self.blocks.node[block]), int(self.blocks.via[block])
            steps = [(split, side == 1), *self._way_to(split), *(self._way_to(leaf) if leaf >= 0 else ())]
            self._lead(row, steps)
            if side == NAN:
                row[self.forest.feature[split]] = np.nan
        return rows

    def _lead(self, row: NDArray[np.float32], steps: Steps) -> None:
        """Change a row so that it goes all of these ways, on the edge at the first."""
        forest = self.forest
        bounds: dict[int, list[int]] = {}
        for at, goes_right in reversed(steps):
            feature, key = int(forest.feature[at]), int(forest.threshold_key[at])
            if forest.category[at] >= 0:
                row[feature] = self._code(at, goes_right)
                continue
            bound = bounds.setdefault(feature, [-INF_KEY, INF_KEY])
            bound[not goes_right] = max(bound[0], key + 1) if goes_right else min(bound[1], key)
        for feature, (low, high) in bounds.items():
            first, last = (
                np.searchsorted(self.keys[feature], low),
                np.searchsorted(self.keys[feature], high, "right"),
            )
            if first < last:
                row[feature] = self.points[feature][self.rng.integers(first, last)]
        at, goes_right = steps[0]
        if forest.category[at] < 0:
            key = int(forest.threshold_key[at]) + int(goes_right)
            row[forest.feature[at]] = _value(int(np.clip(key, -INF_KEY, INF_KEY)))

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
        points.append(np.array(sorted(values) or [0.0], np.float32))
    return points


def _value(key: int) -> np.float32:
    bits = key if key >= 0 else 0x80000000 - key
    return np.float32(np.uint32(bits).view(np.float32))
