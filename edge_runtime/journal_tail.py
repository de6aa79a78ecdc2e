"""The end of a journal: what a start needs to know, without reading what a week has left behind it.

Reading goes backwards, segment by segment, until a BACK record says that nothing older is needed, or where to read
on: who writes a segment repeats there what later starts will ask for (a run with a budget), or points to the
segment before the run (a run without one, whose segments hold verdicts and nothing that a start asks for). Journals
without such records are read whole, as are segments whose BACK was lost: nothing depends on it but time.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from edge_runtime.journal import OVERHEAD, SYNC_BYTE, Frame, Kind, frame_at, segments

BACK = struct.Struct("<I")
"""The payload of a BACK record: the segment to read on at, backwards; 0 where nothing older is needed."""
_HEAD_BYTES = 4096
"""A segment's BACK is looked for in its first bytes, before all of it is read."""


class Tail(NamedTuple):
    """Records of the kinds asked for, oldest first; how many bytes and segments were read for them."""

    frames: list[Frame]
    bytes_read: int
    segments_read: int


def tail(directory: Path, kinds: Iterable[int]) -> Tail:
    """The records of `kinds` that a start has to know; none where there is no journal yet."""
    wanted, found = (*kinds, Kind.BACK), []
    bytes_read = segments_read = 0
    upto: int | None = None
    for path in reversed(segments(directory) if directory.is_dir() else []):
        if upto is not None and int(path.stem) > upto:
            continue
        data, upto = _segment(path)
        bytes_read += len(data)
        segments_read += 1
        records = list(records_of(data, wanted))
        backs = [BACK.unpack(r.payload)[0] for r in records if r.kind == Kind.BACK]
        found.append([r for r in records if r.kind != Kind.BACK])
        if 0 in backs:
            break
    return Tail([frame for records in reversed(found) for frame in records], bytes_read, segments_read)


def _segment(path: Path) -> tuple[bytes, int | None]:
    """The bytes of a segment that matter, and where its first ones say to read on: the rest does not matter then."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        backs = [BACK.unpack(r.payload)[0] for r in records_of(head, (Kind.BACK,))]
        if backs and backs[0]:
            return head, backs[0]
        return head + file.read(), None


def records_of(data: bytes, kinds: Iterable[int]) -> Iterator[Frame]:
    """The intact records of some kinds among a segment's bytes, in order: what `journal.frames` finds of them.

    Looks for the two bytes that such a record begins with, at the speed of memory, and checks what it finds: a
    week's verdicts between them cost nothing each.
    """
    pattern = re.compile(b"%c[%s]" % (SYNC_BYTE, b"".join(b"\\x%02x" % kind for kind in kinds)))
    end = 0
    for match in pattern.finditer(data):
        if match.start() < end:
            continue  # within the last one's payload
        frame = frame_at(data, match.start())
        if frame is not None:
            end = match.start() + len(frame.payload) + OVERHEAD
            yield frame
