"""Slots for code that compares ranks signed or unsigned: one for a feature, wherever its nodes send NaN.

`rank_forest` gives a feature two slots where some nodes send NaN left and some right. In 32 bits, -1 is below
every rank to a signed comparison and above every rank to an unsigned one: with NaN as -1, the comparison that
a node is given says where NaN goes, and one slot serves both kinds of nodes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from compile.forest import Bools
from compile.ranks import NumericSlot, Ranks

MISSING = -1
"""The rank of NaN in a slot whose nodes do not agree about it."""


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """ranks: slots that serve all nodes of a feature. signed: (nodes,), whether the comparison is signed."""

    ranks: Ranks
    signed: Bools

    @property
    def mixed(self) -> bool:
        """Whether a slot holds MISSING."""
        return any(s.nan_rank < 0 for s in self.ranks.numeric)


def columns_of(ranks: Ranks) -> Columns:
    """The columns of a Forest's slots."""
    forest = ranks.forest
    groups: dict[tuple[int, bool], list[int]] = {}
    for i, slot in enumerate(ranks.numeric):
        groups.setdefault((slot.feature, slot.zero_missing), []).append(i)
    numeric: list[NumericSlot] = []
    slot_of, rank_of = ranks.slot.copy(), ranks.rank.copy()
    signed = np.zeros(len(forest.feature), bool)
    for (feature, zero), members in groups.items():
        if len(members) == 1:
            slot_of[ranks.slot == members[0]] = len(numeric)
            numeric.append(ranks.numeric[members[0]])
            continue
        nodes = np.nonzero(np.isin(ranks.slot, members))[0]
        keys, rank_of[nodes] = np.unique(forest.threshold_key[nodes], return_inverse=True)
        weights = np.bincount(rank_of[nodes], ranks.share[nodes], len(keys)).astype(np.float64)
        slot_of[nodes] = len(numeric)
        signed[nodes] = forest.nan_left[nodes]
        numeric.append(NumericSlot(feature, keys.astype(np.int32), MISSING, zero, weights))
    slot_of[ranks.slot >= len(ranks.numeric)] += len(numeric) - len(ranks.numeric)
    return Columns(replace(ranks, numeric=tuple(numeric), slot=slot_of, rank=rank_of), signed)
