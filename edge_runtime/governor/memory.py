"""What a mission has learnt, through restarts: a LEARNT record in the journal, some 700 bytes at each slot's end.

It holds the ladder's counts (the calibration's and those of the field added to them), the mission's scans by score
bin, and how far each expert is believed. It is no account: a record that is lost with the power, or that another
bundle wrote, costs what was learnt since and nothing else.
"""

from __future__ import annotations

import struct
from typing import NamedTuple
from zlib import crc32

from edge_runtime.governor.ladder import Calibration

VERSION = 2
_HEAD = struct.Struct("<BBBBII")
"""version, score bins, margin bins, experts, CRC-32 of the bins, the mission's mark."""
_MOST = 0xFFFF_FFFF


class Memory(NamedTuple):
    """Counts of the ladder as in Calibration; the forecast's histograms and weights.

    The forecast's are one mission's and its plan's (`mark`): read by another they are empty.
    """

    trees_seen: list[int]
    trees_changed: list[int]
    network_seen: list[int]
    network_changed: list[int]
    so_far: list[int]
    lately: list[int]
    weights: list[int]

    def pack(self, calibration: Calibration, mark: int = 0) -> bytes:
        """The journal's payload; `calibration` tells the bins that the counts belong to."""
        sizes = len(self.trees_seen), len(self.network_seen), len(self.weights)
        numbers = [min(n, _MOST) for part in self for n in part]
        head = _HEAD.pack(VERSION, *sizes, _bins(calibration), mark)
        return head + struct.pack(f"<{len(numbers)}I", *numbers)

    @classmethod
    def unpack(cls, payload: bytes, calibration: Calibration, experts: int, mark: int = 0) -> Memory | None:
        """None where the record is of another version or bundle; without the forecast's of another mission."""
        if len(payload) < _HEAD.size:
            return None
        scores, margins = len(calibration.trees_seen), len(calibration.network_seen)
        version, *known, of = _HEAD.unpack_from(payload)
        sizes = [scores, scores, margins, margins, scores, scores, known[2]]
        if [version, *known[:2], known[3]] != [VERSION, scores, margins, _bins(calibration)]:
            return None
        if len(payload) != _HEAD.size + 4 * sum(sizes):
            return None
        numbers = iter(struct.unpack_from(f"<{sum(sizes)}I", payload, _HEAD.size))
        memory = cls._make([next(numbers) for _ in range(size)] for size in sizes)
        if (known[2], of) == (experts, mark):
            return memory
        return memory._replace(so_far=[], lately=[], weights=[])


def _bins(calibration: Calibration) -> int:
    return crc32(calibration.score_bin + calibration.margin_bin)
