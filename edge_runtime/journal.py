"""The journal: an append-only log of framed records that survives a cut at any byte.

A directory of segments, one or more a run. A segment is a sequence of frames, little-endian:

    u8  0xED
    u8  record type
    u16 length of the payload
    u8  check: the low byte of the CRC-32 of the four bytes before it
    ... payload
    u32 CRC-32 of all that precedes it in the frame

A frame is written by one `write` before its verdict is reported, so whatever was reported is in the file when
the process is killed. The header has a check of its own so that a frame that was cut short (normal: the power
went) can be told from one that was changed (an error).
"""

from __future__ import annotations

import errno
import json
import os
import struct
from collections.abc import Callable, Iterator
from enum import IntEnum
from functools import lru_cache
from os import write
from pathlib import Path
from time import monotonic_ns
from typing import Any, NamedTuple
from zlib import crc32

from edge_runtime.errors import BadInput, HardwareUnavailable

SYNC_BYTE = 0xED
SUFFIX = ".edgej"
MAX_PAYLOAD = 0xFFFF
SEGMENT_BYTES = 8 << 20
SYNC_US = 30_000_000
"""Records younger than this may be lost with the power (never with the process): a sync wakes the SD card."""

_HEAD = struct.Struct("<BBH")
_pack_crc = struct.Struct("<I").pack
_HEAD_BYTES = 5
OVERHEAD = _HEAD_BYTES + 4
"""What a frame has beside its payload, bytes."""


class Kind(IntEnum):
    """What a record holds."""

    RUN = 1  # JSON: what runs: bundle, profile, port, clocks
    VERDICT = 2  # VerdictRecord, packed
    EVENT = 3  # JSON: what happened to the port or the decoder, with its reason
    SCAN = 4  # the sweep of an UNKNOWN answer, kept for labelling: u32 sequence number, then int16 powers
    END = 5  # JSON: the run's summary
    BUDGET = 6  # the governor's account, packed by it
    LEARNT = 7  # what the governor has learnt, packed by it
    HEARD = 8  # what one slot of a mission has heard, packed by governor.history, as is the next
    PAST = 9  # what a whole earlier mission has heard, slot by slot
    PLAN = (
        10  # JSON: a mission begins or goes on: its spending plan, and the missions that it was learnt from
    )
    BACK = 11  # u32: the segment at which a start reads on, backwards (journal_tail)


class VerdictRecord(NamedTuple):
    """One journaled verdict.

    captured_us: monotonic clock, as the scan's; latency_us: from then to this record's writing.
    scan_crc32: CRC-32 of the scan's powers, so that a verdict can be tied to its sweep.
    energy_nj, energy_sigma_nj: of this inference, with its standard uncertainty, at a rail of `rail_mv`;
    energy_source: see power.Source.
    """

    sequence: int
    captured_us: int
    latency_us: int
    scan_crc32: int
    label: int
    best: int
    reason: int
    rung: int
    energy_source: int
    confidence_q16: int
    novelty_q8: int
    rail_mv: int
    energy_nj: int
    energy_sigma_nj: int
    margin: float


VERDICT = struct.Struct("<IQIIhhBBBxIIHxxIId")


@lru_cache(16)
def frame_head(kind: int, size: int) -> bytes:
    """The head of a frame whose payload has `size` bytes."""
    head = _HEAD.pack(SYNC_BYTE, kind, size)
    return head + bytes((crc32(head) & 0xFF,))


VERDICT_HEAD = frame_head(Kind.VERDICT, VERDICT.size)
pack_verdict: Callable[..., bytes] = struct.Struct(f"<{_HEAD_BYTES}s{VERDICT.format[1:]}").pack
"""The frame, without its CRC, of VERDICT_HEAD and the fields of a VerdictRecord: one step, for every scan."""


def framed_verdict(frame: bytes) -> VerdictRecord:
    """What `pack_verdict` packed."""
    return verdict_record(frame[_HEAD_BYTES:])


def _clock_us() -> int:
    return monotonic_ns() // 1000


class JournalWriter:
    """Appends records to a new segment of a directory.

    The directory is made where it is missing. Raises BadInput where it cannot be written.
    syncs: how often the disk was made to write. first: the number of this writer's first segment.
    carry: the records that each further segment begins with; as it stands, where a start reads on (journal_tail).
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor = -1
        self._left = 0  # of the segment, bytes
        self._earlier = 0  # bytes of the segments before it
        self.syncs = 0
        self.first = 0
        self.carry: Callable[[], None] = self.point_back
        self._sync_due_us = _clock_us() + SYNC_US
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._open_segment()
        except OSError as e:
            raise BadInput(f"journal {directory}: {e.strerror}; choose a writable --journal") from e

    def append(self, kind: int, payload: bytes) -> None:
        """Write one record. Raises HardwareUnavailable where the disk takes no more."""
        self.put(frame_head(kind, len(payload)) + payload, _clock_us())

    def put(self, frame: bytes, now_us: int) -> None:
        """Write one frame that still lacks its CRC, such as `pack_verdict` gives. Raises as `append` does.

        now_us: the monotonic clock, which who journals a verdict has just read.
        """
        frame += _pack_crc(crc32(frame))
        size = len(frame)
        try:
            if size > self._left:
                self.sync()
                self._open_segment()
                self.carry()
            if write(self._descriptor, frame) != size:
                self._take_back()
            self._left -= size
            if now_us > self._sync_due_us:
                self.sync()
                self._sync_due_us = now_us + SYNC_US  # by the clock of who calls: a rig's may run faster
        except OSError as e:
            raise HardwareUnavailable(
                f"journal {self._directory}: {e.strerror}; make room or mend the card"
            ) from e

    def append_json(self, kind: int, value: dict[str, Any]) -> None:
        """Write one record with a JSON payload of at most 64 KiB."""
        self.append(kind, json.dumps(value, separators=(",", ":")).encode())

    def point_back(self) -> None:
        """Note that no later start asks for anything in this writer's segments: it reads on before the first."""
        self.append(Kind.BACK, (self.first - 1).to_bytes(4, "little"))

    @property
    def written(self) -> int:
        """Bytes so far. Reckoned from what the segment has left, so that a record pays nothing for it."""
        return self._earlier + SEGMENT_BYTES - self._left

    def sync(self) -> None:
        """Force what is written to the disk."""
        os.fdatasync(self._descriptor)
        self.syncs += 1
        self._sync_due_us = _clock_us() + SYNC_US

    def close(self) -> None:
        """Sync and close; further calls do nothing."""
        if self._descriptor >= 0:
            self.sync()
            os.close(self._descriptor)
            self._descriptor = -1

    def _take_back(self) -> None:
        """The disk filled within a frame: take its torn half back."""
        os.ftruncate(self._descriptor, SEGMENT_BYTES - self._left)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _open_segment(self) -> None:
        if self._descriptor >= 0:
            self._earlier = self.written
            os.close(self._descriptor)
        number = max((int(p.stem) for p in segments(self._directory)), default=0) + 1
        path = self._directory / f"{number:06d}{SUFFIX}"
        self._descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644
        )
        self._left = SEGMENT_BYTES
        self.first = self.first or number


def segments(directory: Path) -> list[Path]:
    """The segments of a journal, oldest first."""
    return sorted(p for p in directory.glob(f"*{SUFFIX}") if p.stem.isdecimal())


class Frame(NamedTuple):
    """One good record, or (with `kind` 0) a stretch of bytes that is none.

    `torn` says that the stretch is the beginning of a frame at a segment's end, as a cut leaves it.
    """

    kind: int
    payload: bytes
    offset: int
    torn: bool = False


def frames(data: bytes) -> Iterator[Frame]:
    """Every record of a segment's bytes, and every stretch that is none, in order."""
    at, bad_from = 0, -1
    while at < len(data):
        frame = frame_at(data, at)
        if frame is not None:
            if bad_from >= 0:
                yield Frame(0, data[bad_from:at], bad_from)
                bad_from = -1
            yield frame
            at += len(frame.payload) + OVERHEAD
            continue
        if bad_from < 0:
            bad_from = at
        at += 1
    if bad_from >= 0:
        yield Frame(0, data[bad_from:], bad_from, torn=_is_torn(data, bad_from))


def frame_at(data: bytes, at: int) -> Frame | None:
    """The good record that begins at `at`; None where none does."""
    size = _frame_size(data, at)
    if size == 0 or at + size > len(data) or not _intact(data, at, size):
        return None
    return Frame(data[at + 1], data[at + _HEAD_BYTES : at + size - 4], at)


def _frame_size(data: bytes, at: int) -> int:
    """The size of the frame that seems to begin at `at`; 0 where none does."""
    if data[at] != SYNC_BYTE or at + _HEAD_BYTES > len(data):
        return 0
    if crc32(data[at : at + 4]) & 0xFF != data[at + 4]:
        return 0
    return int.from_bytes(data[at + 2 : at + 4], "little") + OVERHEAD


def _intact(data: bytes, at: int, size: int) -> bool:
    end = at + size - 4
    return crc32(memoryview(data)[at:end]) == int.from_bytes(data[end : end + 4], "little")


def _is_torn(data: bytes, at: int) -> bool:
    """Whether the rest of a segment is what a cut leaves: a frame's beginning, or blocks never filled."""
    rest = data[at:]
    if not rest.strip(b"\0"):
        return True
    if len(rest) < _HEAD_BYTES:
        return rest[0] == SYNC_BYTE
    return _frame_size(data, at) > len(rest)


def read(directory: Path) -> Iterator[Frame]:
    """Every record of a journal, oldest first, with damaged stretches as frames of kind 0.

    Raises BadInput where the directory holds no journal.
    """
    for path in _existing(directory):
        yield from frames(path.read_bytes())


class Audit(NamedTuple):
    """What `verify` found. A journal is sound where `damage` is empty; torn tails are what a cut leaves."""

    segments: int
    records: int
    verdicts: int
    torn_bytes: int
    damage: list[str]


def verify(directory: Path) -> Audit:
    """Check every byte of a journal: frames, payloads, and that no verdict of a run is missing."""
    damage: list[str] = []
    records = verdicts = torn = 0
    expected = 0
    paths = _existing(directory)
    for path in paths:
        for frame in frames(path.read_bytes()):
            where = f"{path.name} at byte {frame.offset}"
            if frame.kind == 0:
                if frame.torn:
                    torn += len(frame.payload)
                else:
                    damage.append(f"{where}: {len(frame.payload)} bytes that are no record")
                continue
            records += 1
            if frame.kind == Kind.RUN:
                expected = 0
            elif frame.kind == Kind.VERDICT:
                verdicts += 1
                sequence = verdict_record(frame.payload).sequence
                if sequence != expected:
                    damage.append(f"{where}: verdict {sequence} where {expected} was due")
                expected = sequence + 1
    return Audit(len(paths), records, verdicts, torn, damage)


def _existing(directory: Path) -> list[Path]:
    found = segments(directory) if directory.is_dir() else []
    if not found:
        raise BadInput(f"journal {directory}: no *{SUFFIX} in it; give a directory that run --journal wrote")
    return found


def verdict_record(payload: bytes) -> VerdictRecord:
    """Unpack the payload of a VERDICT record."""
    return VerdictRecord._make(VERDICT.unpack(payload))
