"""The journal: what was written is read back, whatever cut or bit flip the file then suffers."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime import journal
from edge_runtime.errors import BadInput, HardwareUnavailable
from edge_runtime.journal import (
    SYNC_US,
    VERDICT,
    VERDICT_HEAD,
    JournalWriter,
    Kind,
    VerdictRecord,
    pack_verdict,
)

RECORDS = st.lists(st.tuples(st.sampled_from(list(Kind)), st.binary(max_size=60)), min_size=1, max_size=6)


def verdict(sequence: int) -> VerdictRecord:
    return VerdictRecord(
        sequence, 10**12, 900, 0xDEADBEEF, -1, 3, 16, 2, 1, 65_000, 300, 5_000, 41, 7, -0.125
    )


def segment(tmp_path: Path, records: list[tuple[Kind, bytes]]) -> bytes:
    writer = JournalWriter(tmp_path)
    for kind, payload in records:
        writer.append(kind, payload)
    writer.close()
    return journal.segments(tmp_path)[-1].read_bytes()


def good(data: bytes) -> list[tuple[int, bytes]]:
    return [(f.kind, f.payload) for f in journal.frames(data) if f.kind]


@settings(max_examples=40, deadline=None)
@given(records=RECORDS)
def test_a_cut_at_any_byte_loses_only_the_record_it_hit(
    records: list[tuple[Kind, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = segment(tmp_path_factory.mktemp("journal"), records)
    written = [(int(k), p) for k, p in records]
    ends = []
    for frame in journal.frames(data):
        ends.append(frame.offset + len(frame.payload) + 9)
    for cut in range(len(data) + 1):
        whole = sum(end <= cut for end in ends)
        assert good(data[:cut]) == written[:whole]
        rest = [f for f in journal.frames(data[:cut]) if not f.kind]
        assert all(f.torn for f in rest), "a cut is no damage"


@settings(max_examples=30, deadline=None)
@given(records=RECORDS)
def test_every_single_bit_flip_is_seen_and_costs_one_record(
    records: list[tuple[Kind, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = segment(tmp_path_factory.mktemp("journal"), records)
    written = [(int(k), p) for k, p in records]
    for bit in range(8 * len(data)):
        hurt = bytearray(data)
        hurt[bit // 8] ^= 1 << (bit % 8)
        read = good(bytes(hurt))
        missing = [r for r in written if r not in read]
        assert len(read) == len(written) - 1
        assert all(r in written for r in read)
        assert len(missing) <= 1
        assert any(f.kind == 0 for f in journal.frames(bytes(hurt)))


def test_a_flipped_bit_fails_verify_and_a_cut_does_not(tmp_path: Path) -> None:
    segment(tmp_path, [(Kind.RUN, b"{}"), *((Kind.VERDICT, VERDICT.pack(*verdict(k))) for k in range(3))])
    path = journal.segments(tmp_path)[0]
    data = path.read_bytes()
    assert journal.verify(tmp_path) == (1, 4, 3, 0, [])
    for cut in range(1, len(data)):
        path.write_bytes(data[:cut])
        assert not journal.verify(tmp_path).damage
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes((data[at] ^ 4,)) + data[at + 1 :])
        assert journal.verify(tmp_path).damage


def test_a_missing_verdict_is_noticed(tmp_path: Path) -> None:
    segment(tmp_path, [(Kind.RUN, b"{}"), *((Kind.VERDICT, VERDICT.pack(*verdict(k))) for k in (0, 1, 3))])
    assert "verdict 3 where 2 was due" in journal.verify(tmp_path).damage[0]


def test_blocks_that_the_disk_never_filled_are_a_torn_tail(tmp_path: Path) -> None:
    segment(tmp_path, [(Kind.RUN, b"{}")])
    path = journal.segments(tmp_path)[0]
    path.write_bytes(path.read_bytes() + bytes(4096))
    assert journal.verify(tmp_path) == (1, 1, 0, 4096, [])


def test_each_run_begins_a_segment_and_leaves_the_torn_one_alone(tmp_path: Path) -> None:
    first = segment(tmp_path, [(Kind.RUN, b"first")])
    torn = journal.segments(tmp_path)[0]
    torn.write_bytes(first + b"\xed\x02")
    segment(tmp_path, [(Kind.RUN, b"second")])
    assert [f.payload for f in journal.read(tmp_path) if f.kind] == [b"first", b"second"]
    assert journal.verify(tmp_path).torn_bytes == 2


def test_segments_roll_over_and_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 100)
    segment(tmp_path, [(Kind.VERDICT, VERDICT.pack(*verdict(k))) for k in range(9)])
    audit = journal.verify(tmp_path)
    assert (audit.verdicts, audit.damage) == (9, [])
    assert audit.segments > 1


def test_verdicts_survive_the_round_trip() -> None:
    assert journal.verdict_record(VERDICT.pack(*verdict(7))) == verdict(7)


def test_a_full_disk_says_so_and_leaves_no_torn_frame(tmp_path: Path) -> None:
    """/dev/full is the real thing: every write to it fails with ENOSPC."""
    writer = JournalWriter(tmp_path)
    writer.append(Kind.RUN, b"{}")
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, writer._descriptor)
    with pytest.raises(HardwareUnavailable, match="No space left"):
        writer.append(Kind.RUN, b"{}")
    assert journal.verify(tmp_path).torn_bytes == 0
    os.close(full)


def test_bad_places_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match=r"journal .*file/j: Not a directory"):
        JournalWriter(tmp_path / "file" / "j")
    with pytest.raises(BadInput, match=r"no \*\.edgej in it"):
        journal.verify(tmp_path)


def test_the_disk_is_made_to_write_when_the_clock_that_was_handed_on_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, fdatasync = [], os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: synced.append(fdatasync(descriptor)))
    writer = JournalWriter(tmp_path)
    now_us = time.monotonic_ns() // 1000
    frame = pack_verdict(VERDICT_HEAD, *verdict(0))
    writer.put(frame, now_us + SYNC_US - 1_000_000)
    writer.append(Kind.EVENT, b"{}")
    assert not synced
    writer.put(frame, now_us + SYNC_US + 1_000_000)
    assert len(synced) == 1
    writer.put(frame, now_us + SYNC_US - 1_000_000)  # the next is due so long after the last
    assert len(synced) == 1
    writer.close()
    assert len(synced) == 2
