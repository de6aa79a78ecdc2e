"""How often the loops of emitted code turn in one call: what the model says, and which loop is which.

Every loop of the emitters goes through something that the model knows: the slots, the thresholds of a bucket, the
trees, the splits on a row's way. Those are counted here, row by row, with the most that any row can have. Which of
them a loop of the compiled code goes through is found by running it on some rows: a loop is taken for one only if
it turns as often as that says on every row (times a factor, plus a constant). A compiler may turn one loop into
several, each for a part of the trees; so parts are counted, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from compile.emit import buckets
from compile.emit.c_bitvector import BLOCK
from compile.forest import NAN_KEY, ZERO_KEY, Forest, float_keys
from compile.probes import probe_rows
from compile.ranks import NumericSlot, Ranks, rank_forest
from compile.verify import ODD

Counts = NDArray[np.int64]
Rows = NDArray[np.float32]
ROWS = 40
UNROLLED = (1, 2, 3, 4, 5, 6, 8)
"""Turns that a compiler may make one of."""
PARTS = (1, 2, 3, 4, 6, 8)
"""Trees (every second, ...) that it may give loops of their own."""


@dataclass(frozen=True, slots=True, eq=False)
class Counter:
    """Something that loops go through. values: (rows,), how often. most: for any row."""

    values: Counts
    most: int


def sample(forest: Forest) -> Rows:
    """Rows that set loops apart: values at thresholds, and odd ones."""
    odd = np.repeat(ODD[:, None], forest.n_features, axis=1)
    rows: Rows = np.concatenate([probe_rows(forest, ROWS), odd]).astype(np.float32)
    return rows


def most_turns(counted: Counts, counters: Sequence[Counter]) -> int | None:
    """The most turns of a loop in one call, from those on the sample, (rows,); None where nothing explains them."""
    if (counted == counted[0]).all():
        # Among the rows are all-missing, all-infinite and all-zero ones: what turns as often on them is a count of
        # slots or trees. What never turned may still do so on a row that is not among them.
        still = [c.most - int(c.values[0]) for c in counters if (c.values == c.values[0]).all()]
        return int(counted[0]) or max(still, default=0)
    return next((found for c in counters if (found := _fit(counted, c)) is not None), None)


def most_together(counted: Counts, counters: Sequence[Counter]) -> dict[tuple[int, ...], int]:
    """For loops, (rows, loops), that nothing explains alone: those that share one thing out, and their most turns."""
    left = list(range(counted.shape[1]))
    for size in range(len(left), 1, -1):
        for group in combinations(left, size):
            most = most_turns(counted[:, group].sum(1), counters)
            if most is not None:
                rest = [k for k in left if k not in group]
                others = most_together(counted[:, rest], counters)
                return {group: most} | {tuple(rest[k] for k in of): n for of, n in others.items()}
    return {}


def _fit(counted: Counts, counter: Counter) -> int | None:
    """The bound, where a whole factor of the counter and a constant give every count."""
    values = counter.values
    low, high = int(values.argmin()), int(values.argmax())
    if values[low] == values[high]:
        return None
    factor, rest = divmod(int(counted[high] - counted[low]), int(values[high] - values[low]))
    constant = int(counted[low]) - factor * int(values[low])
    if rest or not factor or (factor * values + constant != counted).any():
        return None
    return max(factor, 0) * counter.most + constant


def counters(forest: Forest, rows: Rows) -> list[Counter]:
    """All that loops of any style may go through."""
    ranks = rank_forest(forest)
    return [*_walks(forest, rows), *_searches(ranks, rows), *_failing(ranks, rows)]


def _shapes(of: Counts, most: Counts) -> Iterator[Counter]:
    """What a loop over items may turn: as often as of (rows, items) says, one or two less, unrolled, the rest."""
    for less in (0, 1, 2):
        left, at_most = np.maximum(of - less, 0), np.maximum(most - less, 0)
        for unrolled in UNROLLED:
            yield Counter((left // unrolled).sum(1), int((at_most // unrolled).sum()))
            if unrolled > 1:
                yield Counter((left % unrolled).sum(1), int(np.minimum(at_most, unrolled - 1).sum()))


def _each(of: Counts, most: Counts) -> Iterator[Counter]:
    """All items, and each alone: a compiler may unroll the loop over them."""
    yield from _shapes(of, most)
    for item in range(of.shape[1]):
        yield from _shapes(of[:, item : item + 1], most[item : item + 1])


def _searches(ranks: Ranks, rows: Rows) -> Iterator[Counter]:
    """Slots that miss their feature; steps up from where a bucket begins; runs, halvings and words of packed code."""
    keys = float_keys(rows).astype(np.int64)
    some_nan = (keys == NAN_KEY).any(1)  # assembly may leave such a row to C
    yield Counter(some_nan.astype(np.int64), 1)
    found: dict[str, list[tuple[Counts, int]]] = {}
    first = 0
    count = buckets.bucket_count(ranks.numeric)
    for slot in ranks.numeric:
        key = keys[:, slot.feature]
        missing = (key == NAN_KEY) | (slot.zero_missing & (np.abs(key) <= ZERO_KEY))
        rank = np.searchsorted(slot.keys, key)
        halvings = (len(slot.keys) - 1).bit_length()  # of a search among all of a slot's thresholds
        parts = {
            "words": _words(slot, first, rank, missing),
            "missing": (missing.astype(np.int64), 1),
            "search": (np.where(missing, 0, halvings), halvings),
            "search in C": (np.where(missing | ~some_nan, 0, halvings), halvings),
        }
        parts |= _runs(slot, rows[:, slot.feature])
        if buckets.has_floats(slot):
            group = [s for s in ranks.numeric if s.feature == slot.feature]
            made = buckets.float_buckets(group, count)
            starts = made.starts[next(i for i, s in enumerate(group) if s is slot)]
            begin = starts[buckets.bucket_of(rows[:, slot.feature], made, count)]
            most = int(np.diff([*starts, len(slot.keys)]).max())
            parts["steps"] = (np.where(missing, 0, rank - begin), most)
        for name, part in parts.items():
            found.setdefault(name, []).append(part)
        first += len(slot.keys)
    for of in found.values():
        yield from _each(np.stack([values for values, _ in of], 1), np.array([most for _, most in of]))


def _runs(slot: NumericSlot, x: Rows) -> dict[str, tuple[Counts, int]]:
    """Of packed thresholds: runs of one top byte that are passed, and halvings of the run that is met."""
    bits = np.ascontiguousarray(x).view(np.int32).astype(np.int64)
    plain = np.where(bits < 0, -(2**31) - bits, bits)  # NaN goes by its bits
    tops, sizes = np.unique(slot.keys.astype(np.int64) >> 24, return_counts=True)
    passed = np.minimum(np.searchsorted(tops, plain >> 24), len(tops))
    halvings = np.zeros(len(x), np.int64)
    ends = np.cumsum(sizes)
    for k in range(len(x)):
        if passed[k] < len(tops) and tops[passed[k]] == plain[k] >> 24:
            low, high = int(ends[passed[k]] - sizes[passed[k]]), int(ends[passed[k]])
            while low < high:
                middle = (low + high) >> 1
                halvings[k] += 1
                if int(slot.keys[middle]) & 0xFFFFFF < int(plain[k]) & 0xFFFFFF:
                    low = middle + 1
                else:
                    high = middle
    return {
        "runs": (passed.astype(np.int64), len(tops)),
        "halvings": (halvings, max(int(s).bit_length() for s in sizes)),
    }


def _words(slot: NumericSlot, first: int, rank: Counts, missing: NDArray[np.bool_]) -> tuple[Counts, int]:
    """Words of a row's bits that lie before the last one in which a slot sets some."""
    below = first + np.where(missing, slot.nan_rank, rank)
    end = first + len(slot.keys)
    spanned = np.where(below < end, (end - 1 >> 5) - (below >> 5), 0)
    return spanned.astype(np.int64), (end - 1 >> 5) - (first >> 5)


def _walks(forest: Forest, rows: Rows) -> Iterator[Counter]:
    """Splits on the ways through the trees, and through every second, fourth and eighth tree."""
    depth = np.zeros(len(forest.feature), np.int64)
    for node in range(len(depth)):  # children come after their parents
        if forest.feature[node] >= 0:
            depth[[forest.left[node], forest.right[node]]] = depth[node] + 1
    lengths = depth[forest.leaves(rows)]
    deepest = np.maximum.reduceat(depth, forest.roots[:-1])
    for step in PARTS:
        for begin in range(min(step, forest.n_trees)):
            yield from _shapes(lengths[:, begin::step], deepest[begin::step])


def _failing(ranks: Ranks, rows: Rows) -> Iterator[Counter]:
    """Of bit vectors: splits of each slot and block that fail."""
    keys = float_keys(rows)
    trees = np.searchsorted(ranks.forest.roots, np.arange(len(ranks.slot)), "right") - 1
    found: list[Counts] = []
    most: list[int] = []
    for begin in range(0, ranks.forest.n_trees, BLOCK):
        for number, slot in enumerate(ranks.numeric):
            nodes = (ranks.slot == number) & (trees >= begin) & (trees < begin + BLOCK)
            key = keys[:, slot.feature]
            rank = np.where(key == NAN_KEY, slot.nan_rank, np.searchsorted(slot.keys, key))
            found.append(np.searchsorted(np.sort(ranks.rank[nodes]), rank).astype(np.int64))
            most.append(int(nodes.sum()))
    if found:
        yield from _each(np.stack(found, 1), np.array(most))
