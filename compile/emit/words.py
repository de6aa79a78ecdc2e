"""Thermometer words: bit j of a word says whether the row goes left at the word's j-th threshold.

A slot's hottest 63 thresholds share a word, the next 63 a second one, and so on; a word is all ones, shifted
left by the number of its thresholds that lie below the value (`shifts`), so a test is one bit. Categorical
slots have words too, read from a table by the category's row.
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
class Word:
    """A word of a slot. members: ascending ranks, or set numbers of a categorical slot; bit j is member j.

    weight: tests of its bits per inference.
    """

    slot: int
    members: Ints
    weight: float

    def shifts(self, ranks: int) -> NDArray[np.uint8]:
        """For each rank 0 .. `ranks`: how many of the word's thresholds lie below."""
        return np.searchsorted(self.members, np.arange(ranks + 1), "left").astype(np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """All words, hottest first, and where each test's bit is: (slot, rank) -> (word, bit)."""

    words: tuple[Word, ...]
    place: dict[tuple[int, int], tuple[int, int]]


def words_of(ranks: Ranks, mass: Floats, *, registers: int, setup: float) -> Words:
    """Choose words: the first `registers` are free to test, others cost a load per test.

    mass: how often each node is executed per inference. A further word is made where its tests outweigh
    `setup`, what it costs to fill in; tests of thresholds without a word compare ranks.
    """
    weights = _weights(ranks, mass)
    made: list[Word] = []
    for slot, of_slot in enumerate(weights):
        categorical = slot >= len(ranks.numeric)
        size = SETS_PER_WORD if categorical else PER_WORD
        hottest = np.argsort(-of_slot, kind="stable")
        for at in range(0, len(hottest), size):
            members = np.sort(hottest[at : at + size]).astype(np.int32)
            made.append(Word(slot, members, float(of_slot[members].sum())))
    made.sort(key=lambda w: -w.weight)
    numeric = len(ranks.numeric)
    kept = [w for i, w in enumerate(made) if w.slot >= numeric or w.weight > (setup if i >= registers else 0)]
    place = {
        (word.slot, int(member)): (number, bit)
        for number, word in enumerate(kept)
        for bit, member in enumerate(word.members)
    }
    return Words(tuple(kept), place)


def _weights(ranks: Ranks, mass: Floats) -> list[Floats]:
    sizes = [len(s.keys) for s in ranks.numeric] + [c.rows.shape[1] for c in ranks.categorical]
    splits = np.nonzero(ranks.slot >= 0)[0]
    starts = np.cumsum([0, *sizes])
    flat = np.bincount(
        starts[ranks.slot[splits]] + ranks.rank[splits], mass[splits].astype(np.float64), int(starts[-1])
    )
    return [flat[starts[i] : starts[i + 1]].astype(np.float64) for i in range(len(sizes))]
