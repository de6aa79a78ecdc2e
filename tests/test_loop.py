"""The loop's rules about time, with a clock that the test holds: what is too old, too late, or was stopped."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge_runtime.journal import JournalWriter, Kind, VerdictRecord, read, verdict_record
from edge_runtime.loop import MAX_LATENCY_US, Loop
from edge_runtime.power.base import Charge
from edge_runtime.reasons import Reason
from edge_runtime.scan import Axis, Scan
from edge_runtime.verdict import UNKNOWN, Answer, Rung

AXIS = Axis(433_000_000, 1000, 8)
MAX_AGE_MS = 1000
GOOD = (1, 1, int(Reason.OK), int(Rung.TREES), 60_000, 10, 1.0)


class Device:
    """A clock, an engine whose answers take `takes_us`, and a meter that remembers what it charged."""

    def __init__(self, folder: Path) -> None:
        self.now_us = 10_000_000
        self.takes_us = 100
        self.answers: list[Answer] = []
        self.charged: list[int] = []
        self.folder = folder
        contract = {"axis_tolerance_hz": 500, "max_age_ms": MAX_AGE_MS}
        bundle: Any = SimpleNamespace(classes=("a", "b"), manifest={"contract": contract}, axis=AXIS)
        engine: Any = self
        self.loop = Loop(bundle, engine, engine, JournalWriter(folder), lambda: self.now_us, None)

    def infer(self, _power_cdbm: bytes) -> Answer:
        self.now_us += self.takes_us
        self.answers.append(GOOD)
        return GOOD

    def charge(self, rung: int) -> Charge:
        self.charged.append(rung)
        return Charge(1, 1, 3, 5000)

    def answer(self, captured_us: int, axis: Axis = AXIS) -> VerdictRecord:
        """One scan through the loop; what it journaled."""
        self.loop.run([Scan(bytes(16), axis, captured_us)])
        return [verdict_record(f.payload) for f in read(self.folder) if f.kind == Kind.VERDICT][-1]


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "journal")


def test_an_old_scan_costs_no_inference(device: Device) -> None:
    record = device.answer(device.now_us - 1000 * MAX_AGE_MS - 1)
    assert (record.label, record.reason, record.rung) == (UNKNOWN, Reason.STALE, Rung.NONE)
    assert not device.answers
    assert device.answer(device.now_us - 1000 * MAX_AGE_MS + 200).reason == Reason.OK


def test_scans_that_waited_while_others_were_answered_are_old(device: Device) -> None:
    began_us, device.takes_us = device.now_us, 600 * MAX_AGE_MS
    reasons = [device.answer(began_us + k).reason for k in range(3)]
    assert reasons == [Reason.OK, Reason.STALE, Reason.STALE]
    assert len(device.answers) == 2  # the second was begun in time, the third never


def test_an_answer_that_comes_too_late_is_none_and_its_energy_is_charged(device: Device) -> None:
    device.takes_us = 1000 * MAX_AGE_MS + 1
    record = device.answer(device.now_us)
    assert (record.label, record.reason, record.rung) == (UNKNOWN, Reason.STALE, Rung.NONE)
    assert record.latency_us == device.takes_us
    assert device.charged == [Rung.TREES]


def test_a_late_answer_is_not_kept_as_the_last_good_one(device: Device) -> None:
    first_us = device.now_us
    device.answer(first_us)
    device.takes_us = 2000 * MAX_AGE_MS
    fell_back = device.answer(first_us + 1000)
    assert (fell_back.label, fell_back.rung) == (1, Rung.LAST_GOOD)
    assert device.answer(first_us + 1000 * MAX_AGE_MS + 1).rung == Rung.NONE


def test_a_process_stopped_for_hours_with_a_scan_in_hand_goes_on(device: Device) -> None:
    device.takes_us = 5 * 3600 * 1_000_000
    record = device.answer(device.now_us)
    assert (record.latency_us, record.reason) == (MAX_LATENCY_US, Reason.STALE)
    device.takes_us = 100
    assert device.answer(device.now_us).reason == Reason.OK


def test_an_axis_within_the_tolerance_is_known_from_then_on(device: Device) -> None:
    near, far = Axis(AXIS.start_hz + 400, 1000, 8), Axis(AXIS.start_hz + 600, 1000, 8)
    assert device.answer(device.now_us, near).reason == Reason.OK
    assert device.answer(device.now_us, far).reason == Reason.AXIS
    assert device.answer(device.now_us, Axis(AXIS.start_hz, 1000, 9)).reason == Reason.POINTS
    assert len(device.answers) == 1
    assert device.answer(device.now_us, near).label == 1
