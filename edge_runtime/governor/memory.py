"""What a mission has learnt, through restarts: a LEARNT record in the journal, some 700 bytes at each slot's end.

It holds the ladder's counts (the calibration's and those of the field added to them), the mission's scans by score
bin, and how far each expert is believed. It is no account: a record that is lost with the power, or that another
bundle wrote, costs what was learnt since and nothing else.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from edge_runtime import journal
from edge_runtime.governor.ladder import Calibration
from edge_runtime.journal import Kind

VERSION = 1
_HEAD = struct.Struct("<BBBBI")
"""version, score bins, margin bins, experts, CRC-32 of the bins."""
_MOST = 0xFFFF_FFFF


class Memory(NamedTuple):
    """Counts of the ladder as in Calibration; the forecast's histograms and weights."""

    trees_seen: list[int]
    trees_changed: list[int]
    network_seen: list[int]
    network_changed: list[int]
    so_far: list[int]
    lately: list[int]
    weights: list[int]

    def pack(self, calibration: Calibration) -> bytes:
        """The journal's payload; `calibration` tells the bins that the counts belong to."""
        sizes = len(self.trees_seen), len(self.network_seen), len(self.weights)
        numbers = [min(n, _MOST) for part in self for n in part]
        return _HEAD.pack(VERSION, *sizes, _bins(calibration)) + struct.pack(f"<{len(numbers)}I", *numbers)

    @classmethod
    def unpack(cls, payload: bytes, calibration: Calibration, experts: int) -> Memory | None:
        """None where the record is of another version, bundle or plan."""
        scores, margins = len(calibration.trees_seen), len(calibration.network_seen)
        sizes = [scores, scores, margins, margins, scores, scores, experts]
        head = _HEAD.pack(VERSION, scores, margins, experts, _bins(calibration))
        if payload[: _HEAD.size] != head or len(payload) != _HEAD.size + 4 * sum(sizes):
            return None
        numbers = iter(struct.unpack_from(f"<{sum(sizes)}I", payload, _HEAD.size))
        return cls._make([next(numbers) for _ in range(size)] for size in sizes)


def _bins(calibration: Calibration) -> int:
    return crc32(calibration.score_bin + calibration.margin_bin)


def remembered(directory: Path) -> bytes | None:
    """The last LEARNT payload that a journal holds."""
    if not directory.is_dir() or not journal.segments(directory):
        return None
    last = None
    for frame in journal.read(directory):
        if frame.kind == Kind.LEARNT:
            last = frame.payload
    return last
