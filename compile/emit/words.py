"""Thermometer words: bit j of a word says whether the row goes left at the word's j-th threshold.

A column's hottest 63 thresholds share a word, the next 63 a second one, and so on; a word is all ones, shifted
left by the number of its thresholds that lie below the value (`shifts`), so a test is one bit. Categorical
slots have words too, read from a table by the category's row.

A column is a slot, or all slots of a feature: they differ in the rank of NaN only, which then has a word of its own
(`nan_bits`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compile.forest import Floats, Ints
from compile.ranks import Ranks

PER_WORD = 63
"""Thresholds a 64-bit word holds: one of the 64 shift counts says that none is left."""
SETS_PER_WORD = 64


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """Slots of one feature. keys: ascending, all their thresholds, or the set numbers of a categorical slot.

    position: for each slot, the place of its thresholds in `keys`.
    """

    slots: tuple[int, ...]
    keys: Ints
    position: tuple[Ints, ...]

    def nan_position(self, ranks: Ranks, slot: int) -> int:
        """The rank of NaN among all thresholds, as a slot's tests want it."""
        own, at = ranks.numeric[slot], self.position[self.slots.index(slot)]
        return int(at[own.nan_rank]) if own.nan_rank < len(at) else len(self.keys)


@dataclass(frozen=True, slots=True, eq=False)
class Word:
    """A word of a column. tests: (slot, rank or set number) of each bit; members: their places among the column's
    keys, ascending.

    weight: tests of its bits per inference.
    """

    column: int
    tests: tuple[tuple[int, int], ...]
    members: Ints
    weight: float

    def shifts(self, ranks: int) -> NDArray[np.uint8]:
        """For each rank 0 .. `ranks`: how many of the word's thresholds lie below."""
        return np.searchsorted(self.members, np.arange(ranks + 1), "left").astype(np.uint8)

    def nan_bits(self, ranks: Ranks) -> int:
        """The word for NaN."""
        return sum(
            1 << j for j, (slot, rank) in enumerate(self.tests) if ranks.numeric[slot].nan_rank <= rank
        )


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """Columns and words, and where each test's bit is: (slot, rank) -> (word, bit). Words that get registers come
    first; in both parts they are in the order of their columns.
    """

    columns: tuple[Column, ...]
    words: tuple[Word, ...]
    place: dict[tuple[int, int], tuple[int, int]]


def columns_of(ranks: Ranks, *, merged: bool) -> tuple[Column, ...]:
    """The columns of a model: a feature each if `merged`, else a slot each."""
    by_feature: dict[object, list[int]] = {}
    for number, slot in enumerate(ranks.numeric):
        by_feature.setdefault(slot.feature if merged else (number,), []).append(number)
    made = []
    for slots in by_feature.values():
        keys = np.unique(np.concatenate([ranks.numeric[s].keys for s in slots]))
        position = tuple(np.searchsorted(keys, ranks.numeric[s].keys).astype(np.int32) for s in slots)
        made.append(Column(tuple(slots), keys, position))
    for number, chosen in enumerate(ranks.categorical, len(ranks.numeric)):
        sets = np.arange(chosen.rows.shape[1], dtype=np.int32)
        made.append(Column((number,), sets, (sets,)))
    return tuple(made)


def words_of(ranks: Ranks, mass: Floats, *, merged: bool, registers: int, setup: float) -> Words:
    """Choose words: the first `registers` are free to test, others cost a load per test.

    mass: how often each node is executed per inference. A further word is made where its tests outweigh
    `setup`, what it costs to fill in; tests of thresholds without a word compare ranks.
    """
    weights = _weights(ranks, mass)
    columns = columns_of(ranks, merged=merged)
    made: list[Word] = []
    for number, column in enumerate(columns):
        tests = [(slot, rank) for slot in column.slots for rank in range(len(weights[slot]))]
        places = np.concatenate(column.position)
        heat = np.concatenate([weights[slot] for slot in column.slots])
        size = SETS_PER_WORD if column.slots[0] >= len(ranks.numeric) else PER_WORD
        hottest = np.argsort(-heat, kind="stable")
        for at in range(0, len(hottest), size):
            chosen = hottest[at : at + size]
            chosen = chosen[np.argsort(places[chosen], kind="stable")]
            of = tuple(tests[i] for i in chosen.tolist())
            made.append(Word(number, of, places[chosen], float(heat[chosen].sum())))
    made.sort(key=lambda w: -w.weight)
    kept = [
        w
        for i, w in enumerate(made)
        if columns[w.column].slots[0] >= len(ranks.numeric) or w.weight > (setup if i >= registers else 0)
    ]
    kept[:registers] = sorted(kept[:registers], key=lambda w: w.column)
    kept[registers:] = sorted(kept[registers:], key=lambda w: w.column)
    place = {test: (number, bit) for number, word in enumerate(kept) for bit, test in enumerate(word.tests)}
    return Words(columns, tuple(kept), place)


def _weights(ranks: Ranks, mass: Floats) -> list[Floats]:
    sizes = [len(s.keys) for s in ranks.numeric] + [c.rows.shape[1] for c in ranks.categorical]
    splits = np.nonzero(ranks.slot >= 0)[0]
    starts = np.cumsum([0, *sizes])
    flat = np.bincount(
        starts[ranks.slot[splits]] + ranks.rank[splits], mass[splits].astype(np.float64), int(starts[-1])
    )
    return [flat[starts[i] : starts[i + 1]].astype(np.float64) for i in range(len(sizes))]
