"""Plans learnt from earlier missions: what a start reads of a journal, which missions count, and that a restart keeps
its plan. The journals are real ones on disk, with small segments where it is about segments."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime import journal, journal_tail
from edge_runtime.errors import BadInput
from edge_runtime.governor import Calibration, Costs, Governor, Ladder, Ledger
from edge_runtime.governor.forecast import SLOTS
from edge_runtime.governor.history import (
    ENOUGH_SLOTS,
    MOST,
    Ask,
    History,
    Plan,
    learnt_from,
    pack_heard,
    pack_past,
    slots_of,
)
from edge_runtime.governor.in_the_loop import Recorder, begin, examples_in
from edge_runtime.governor.ledger import Entry, last_entry
from edge_runtime.governor.policy import BLOCK
from edge_runtime.journal import JournalWriter, Kind
from edge_runtime.journal_tail import records_of, tail
from tests.governor_parts import DURATION_US, trials

H_US = 3_600_000_000
ASK = Ask(mission=1, duration_us=24 * H_US, key=7, bins=4)
VERDICT = bytes(journal.VERDICT.size)


def slots(seed: int = 0, n: int = SLOTS) -> dict[int, list[int]]:
    """What a mission of four score bins heard in its first slots."""
    rng = random.Random(seed)
    return {slot: [rng.randrange(50), rng.randrange(100), 200, 700] for slot in range(n)}


class Device:
    """Processes that come and go over one journal, and a clock on the wall."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unix_us = H_US
        self.plan = Plan([], "")
        self.recorder: Recorder
        self.writer: JournalWriter

    def start(self, ask: Ask = ASK, plan_from: tuple[Path, ...] = ()) -> None:
        """What `run --budget` does (governor.in_the_loop.Governing), for a mission of this length."""
        history = History.read(self.folder)
        entry = last_entry(history.accounts.values(), ask.mission)
        anew = entry is None or self.unix_us - entry.unix_us + entry.elapsed_us >= ask.duration_us
        if anew:
            history.close_missions(self.unix_us)
            plan = learnt_from([*examples_in(plan_from), *history.pasts], ask)
        else:
            plan = history.resumed(ask.mission) or Plan([], "none: the mission began without one")
        self.began_us = self.unix_us if anew or entry is None else entry.unix_us - entry.elapsed_us
        self.ask, self.writer = ask, JournalWriter(self.folder)
        self.writer.append_json(Kind.RUN, {"bundle": "-"})
        self.plan, self.recorder = begin(self.writer, history, ask, plan, anew=anew)
        self.account(0 if anew or entry is None else entry.ceiling_nj)

    def account(self, ceiling_nj: int) -> None:
        """A lease."""
        elapsed_us = self.unix_us - self.began_us
        self.recorder.account(Entry(64, self.ask.mission, 10**9, ceiling_nj, elapsed_us, self.unix_us).pack())

    def fly(self, heard: dict[int, list[int]]) -> None:
        """Slot by slot."""
        for slot, counts in heard.items():
            self.recorder.hear(slot, counts)
            self.unix_us += self.ask.duration_us // SLOTS
            self.account(1000 * slot)


# What a start reads


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.tuples(st.sampled_from(list(Kind)), st.binary(max_size=80)), max_size=40),
    damage=st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 255)), max_size=3),
    cut=st.integers(0, 60),
)
def test_what_is_looked_for_is_found(
    rows: list[tuple[Kind, bytes]], damage: list[tuple[int, int]], cut: int
) -> None:
    """Among any records, payloads with the marks of records in them, damage and a torn end: what `frames` finds."""
    framed = bytearray()
    for kind, payload in rows:
        frame = journal.frame_head(kind, len(payload)) + payload
        framed += frame + journal._pack_crc(journal.crc32(frame))
    for at, flip in damage:
        if framed:
            framed[at % len(framed)] ^= flip
    data = bytes(framed[: len(framed) - cut] if cut < len(framed) else framed)
    wanted = (Kind.BUDGET, Kind.LEARNT, Kind.BACK)
    assert list(records_of(data, wanted)) == [f for f in journal.frames(data) if f.kind in wanted]


def test_a_week_of_verdicts_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind any number of segments, with a budget and without: the last one, and the heads of those skipped."""
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 1 << 16)
    device = Device(tmp_path)
    device.start()
    device.fly(slots(n=16))
    for governed in (True, False, False):
        if governed:
            device.start()
        else:
            device.writer = JournalWriter(tmp_path)
            device.writer.append_json(Kind.RUN, {"bundle": "-"})
            device.writer.point_back()
        for _ in range(10_000):
            device.writer.append(Kind.VERDICT, VERDICT)
        device.writer.close()
        whole = sum(p.stat().st_size for p in journal.segments(tmp_path))
        read = tail(tmp_path, (Kind.BUDGET, Kind.HEARD, Kind.PLAN, Kind.PAST))
        assert read.bytes_read < 3 << 16 < whole // 3
        history = History.read(tmp_path)
        assert history.heard[device.plan.serial] == slots(n=16)
        assert list(history.accounts) == [ASK.mission]


steps = st.lists(
    st.tuples(
        st.sampled_from(["run", "plain", "scans", "hear", "lease", "lease", "wait", "cut"]),
        st.integers(0, 10**6),
    ),
    min_size=5,
    max_size=40,
)


def test_no_account_is_forgotten(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever ran before and whatever was cut: a start knows each mission's last ceiling as a reading of all does,
    and its plan is the one that the mission began with."""

    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(steps)
    def never(events: list[tuple[str, int]]) -> None:
        folder = tmp_path_factory.mktemp("accounts") / "journal"
        device = Device(folder)
        device.start()
        began: dict[int, list[int]] = {device.plan.serial: device.plan.crcs}
        ceiling_nj = 0
        for what, n in events:
            if what == "run":
                device.start(ASK._replace(mission=1 + n % 3))
            elif what == "plain":
                writer = JournalWriter(folder)
                writer.point_back()
                for _ in range(n % 3000):
                    writer.append(Kind.VERDICT, VERDICT)
                device.start()
            elif what == "scans":
                for _ in range(n % 1500):
                    device.writer.append(Kind.VERDICT, VERDICT)
            elif what == "hear":
                device.fly(slots(n, 1 + n % SLOTS))
            elif what == "lease":
                ceiling_nj += n
                device.account(ceiling_nj)
            elif what == "wait":
                device.unix_us += n * 30_000
            elif what == "cut":  # the power goes within the last record: all after the last sync may be torn
                last = journal.segments(folder)[-1]
                device.writer.append(Kind.VERDICT, VERDICT)
                os.truncate(last, last.stat().st_size - 1 - n % len(VERDICT))
                device.start()
            assert began.setdefault(device.plan.serial, device.plan.crcs) == device.plan.crcs
            whole: dict[int, bytes] = {}
            for frame in journal.read(folder):
                if frame.kind == Kind.BUDGET:
                    whole[Entry.unpack(frame.payload).mission] = frame.payload
            assert History.read(folder).accounts == whole

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "SEGMENT_BYTES", 1 << 16)
        patch.setattr(journal_tail, "_HEAD_BYTES", 256)
        never()


def test_a_torn_block_is_not_believed(tmp_path: Path) -> None:
    """Cut at every byte of the repeated records: the account is known all the same, from the segment before."""
    device = Device(tmp_path)
    device.start()
    device.fly(slots(n=16))
    device.account(77_000)
    device.writer.close()
    device.start()
    device.recorder.carry()
    last = journal.segments(tmp_path)[-1]
    data = last.read_bytes()
    for size in range(0, len(data), 13):
        last.write_bytes(data[:size])
        account = History.read(tmp_path).accounts[ASK.mission]
        assert Entry.unpack(account).ceiling_nj == 77_000


# What a governor tells


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    scan_us=st.integers(20_000, 3_000_000),
    budget_nj=st.sampled_from([10**12, 10**7, 3 * 10**5]),
    stops=st.lists(st.integers(1, 8000), max_size=3),
)
def test_every_scan_is_told_once(scan_us: int, budget_nj: int, stops: list[int]) -> None:
    """Through any number of orderly ends: each scan that was screened is in one slot, that of its time or, where a
    block ran over the slot's end, a neighbour of it."""
    now_us, told, screened = 0, [0] * SLOTS, 0

    def hear(slot: int, counts: list[int]) -> None:
        assert min(counts) >= 0
        told[slot] += sum(counts)

    def process() -> Governor:
        return Governor(
            Ladder(Calibration.count(trials()), Costs(1, 1000, 0)),
            Ledger(budget_nj, DURATION_US, lambda _p: None, lambda: now_us, worst_nj=5000),
            [],
            duration_us=DURATION_US,
            scan_us=scan_us,
            clock_us=lambda: now_us,
            hear=hear,
        )

    for n in [*stops, 10**5]:
        governor = process()
        for _ in range(n):
            if now_us >= DURATION_US:
                break
            if governor.dense or governor.wants_screen():
                governor.note(n % 256)
                if governor.bar() <= 10:
                    governor.pays_trees()
                screened += governor.every == 1
            now_us += scan_us
        governor.close()
    assert sum(told) >= screened
    if screened == -(-DURATION_US // scan_us):  # never thinned out
        assert sum(told) == screened
        assert max(told) <= DURATION_US // SLOTS // scan_us + 2 * BLOCK


# Which missions are a plan


def test_each_mission_learns_from_those_before(tmp_path: Path) -> None:
    """One after the other in one journal: nothing, one, two; what they heard is what was heard."""
    device = Device(tmp_path)
    for n in range(4):
        device.start()
        assert len(device.plan.payloads) == n
        device.fly(slots(n))
        device.writer.close()
    assert device.plan.note == "learnt from 3 earlier missions"
    for seed, payload in enumerate(device.plan.payloads):
        for counts, shares in zip(slots(seed).values(), slots_of(payload), strict=True):
            total = sum(counts)
            assert all(abs(s / 65535 - n / total) < 1e-4 for n, s in zip(counts, shares, strict=True))
        assert Plan([payload], "").pasts[0].share[0][-1] == 1 << 15


def test_a_killed_mission_goes_on_with_its_plan(tmp_path: Path) -> None:
    """Whatever happened since, to the journal or to what --plan-from names: the same missions to the bit."""
    other = Device(tmp_path / "other")
    other.start()
    other.fly(slots(1))
    device = Device(tmp_path / "own")
    device.start()
    device.fly(slots(2))
    device.start(plan_from=(other.folder,))
    before = device.plan
    assert len(before.payloads) == 2
    device.fly({0: [1, 2, 3, 4]})
    other.start()
    other.fly(slots(3))
    device.start(ASK._replace(mission=2), plan_from=(other.folder,))  # another mission in between
    device.start()  # and without --plan-from
    assert device.plan == before
    assert device.plan.mark == before.mark
    assert [p.share for p in device.plan.pasts] == [p.share for p in before.pasts]
    for damaged in (journal.segments(device.folder)[-1:], journal.segments(device.folder)):
        for path in damaged:
            data = path.read_bytes()
            path.write_bytes(data.replace(before.payloads[0], bytes(len(before.payloads[0]))))
        device.start()
    assert not device.plan.payloads
    assert "lost a part" in device.plan.note


def test_a_slot_in_pieces_is_one(tmp_path: Path) -> None:
    """Told by two processes: their sum; a slot cut short is as its shares say, one unheard as its neighbour."""
    device = Device(tmp_path)
    device.start()
    heard = slots()
    device.fly({s: c for s, c in heard.items() if s < 10})
    device.start()
    device.recorder.hear(9, [300, 0, 0, 100])
    device.fly({s: c for s, c in heard.items() if s >= 10 and s != 20} | {31: [n // 3 for n in heard[31]]})
    device.unix_us += ASK.duration_us
    device.start()
    shares = slots_of(device.plan.payloads[0])
    assert shares[20] in (shares[19], shares[21])
    both = [heard[9][0] + 300, heard[9][1], heard[9][2], heard[9][3] + 100]
    assert shares[9] == [n * 65535 // sum(both) for n in both]
    assert sum(shares[31]) == pytest.approx(65535, abs=4)


@pytest.mark.parametrize(
    ("ask", "heard", "note"),
    [
        (ASK._replace(key=8), slots(), "the 1 earlier mission known had another bundle or another length"),
        (ASK._replace(bins=5), slots(), "another bundle"),
        (ASK._replace(duration_us=48 * H_US), slots(), "another length"),
        (ASK, slots(n=ENOUGH_SLOTS - 1), "no earlier mission is known that heard 24 of its 32 slots"),
        (ASK, {}, "no earlier mission"),
        (ASK, slots(n=ENOUGH_SLOTS), ""),
    ],
)
def test_no_plan_where_it_would_not_fit(
    tmp_path: Path, ask: Ask, heard: dict[int, list[int]], note: str
) -> None:
    """Another bundle, ladder or length, or too little heard: none, and why."""
    device = Device(tmp_path)
    device.start()
    device.fly(heard)
    device.unix_us += ASK.duration_us
    device.start(ask._replace(mission=2))
    assert len(device.plan.payloads) == (not note)
    assert note in device.plan.note


def test_only_the_latest_are_kept(tmp_path: Path) -> None:
    """A journal of years does not grow the plan nor what each segment repeats."""
    device = Device(tmp_path)
    for n in range(MOST + 5):
        device.start()
        device.fly(slots(n, ENOUGH_SLOTS))
        device.unix_us += ASK.duration_us
        device.writer.close()
    assert len(device.plan.payloads) == MOST
    assert device.plan.payloads[-1] == pack_past(ASK, slots(MOST + 3, ENOUGH_SLOTS))
    assert sum(len(payload) for _, payload in History.read(tmp_path).records()) < 100_000


def test_foreign_records_are_skipped(tmp_path: Path) -> None:
    """HEARD of another version, a slot that is none, cut short: as if not there."""
    history = History()
    good = pack_heard(3, 5, [1, 2, 3])
    for payload in (b"\x02" + good[1:], good[:-1], good[:1] + b"\x20" + good[2:], b"", good[:6]):
        history.note(Kind.HEARD, payload)
    assert not history.heard
    history.note(Kind.HEARD, good)
    assert history.heard == {3: {5: [1, 2, 3]}}
    with pytest.raises(BadInput, match="no journal there; give directories that run --journal wrote"):
        examples_in([tmp_path])


def test_the_plan_is_in_the_journal_for_people(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.start()
    device.writer.close()
    rows = [json.loads(f.payload) for f in journal.read(tmp_path) if f.kind == Kind.PLAN]
    assert rows[-1]["note"] == device.plan.note
