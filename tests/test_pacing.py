"""The mission's clock and the pacer, on clocks of their own; the source's rests on a real pseudo-terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hw_profiles
from edge_runtime.duty import Duty, Limit, choose
from edge_runtime.errors import BadInput
from edge_runtime.mission_clock import MissionClock
from edge_runtime.pacing import TIMED_SWEEPS, Paced, Pacer, timed
from edge_runtime.reasons import Reason
from edge_runtime.rig.load import VirtualClock
from edge_runtime.rig.rf_explorer import RFExplorerEmulator
from edge_runtime.rig.tinysa import TinySAEmulator
from edge_runtime.scan import Axis, Happening, Scan
from edge_runtime.scanners.rf_explorer import RFExplorer
from edge_runtime.scanners.tinysa import TinySAUltra
from edge_runtime.source import Source
from tests.rig_run import clock_us, recording, running

AXIS = Axis(433_795_000, 980, 256)


class Sweeping:
    """A scanner that sweeps in `sweep_s` unless it is held, on a clock of its own."""

    def __init__(self, sweep_s: float, scans: int = 60) -> None:
        self.host = VirtualClock()
        self.sweep_s, self.scans = sweep_s, scans

    def __iter__(self) -> Iterator[Scan | Happening]:
        for _ in range(self.scans):
            self.host.sleep(self.sweep_s)
            yield Scan(b"", AXIS, self.host.us(), self.host.us() - 100)
            yield Happening(Reason.CONFIGURED, "as ever")

    def rest(self, microseconds: int) -> None:
        self.host.sleep(microseconds / 1e6)


def answered(events: Iterable[Scan | Happening], host: VirtualClock, work_s: float) -> list[Scan]:
    """The scans, each with so much work on it before the next is asked for."""
    scans = []
    for event in events:
        if isinstance(event, Scan):
            scans.append(event)
            host.sleep(work_s)
    return scans


def choose_for(limit: Limit) -> Pacer:
    """A pacer for the demo's mission."""
    mission = hw_profiles.mission("zero2w", "rf-explorer", "lipo", shared=True)
    return Pacer(lambda sweep_s: choose(mission, limit, sweep_hz=1 / sweep_s))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.floats(0.02, 1.5), st.floats(1.0, 500.0), st.floats(0.0, 0.004))
def test_sweeps_begin_a_period_apart(sweep_s: float, speed: float, work_s: float) -> None:
    """At any speed: on the mission's clock the rests are what the limit leaves, and work counts once."""
    limit = Limit(2.0, 0.95)
    scanner = Sweeping(sweep_s / speed)
    clock = MissionClock(scanner.host.us, speed)
    pacer = choose_for(limit)
    paced = Paced(clock.stamped(scanner), scanner.rest, clock, pacer)
    at_us = [scan.captured_us for scan in answered(paced, scanner.host, work_s)]
    if sweep_s > 1.02:
        assert pacer.duty is None
        assert paced.rested_us == 0
        return
    if sweep_s > 0.98 or work_s > 0.2 * sweep_s:
        return
    assert isinstance(pacer.duty, Duty)
    periods_s = [(b - a) / 1e6 for a, b in pairwise(at_us)][TIMED_SWEEPS + 1 :]
    # Rests are cut to whole microseconds of the host's clock.
    assert max(periods_s) <= pacer.duty.period_s + 2e-6 * speed + work_s
    assert min(periods_s) >= pacer.duty.period_s - 4e-6 * speed - 0.03 - work_s


def test_repeated_words_are_said_once() -> None:
    """A scanner that says its configuration at every resume fills no journal."""
    scanner = Sweeping(0.2)
    clock = MissionClock(scanner.host.us)
    events = list(Paced(clock.stamped(scanner), scanner.rest, clock, choose_for(Limit())))
    said = [event for event in events if isinstance(event, Happening)]
    assert [event.reason for event in said].count(Reason.CONFIGURED) == 1
    assert [event.reason for event in said].count(Reason.DUTY) == 1


def test_a_scanner_set_slower_gets_another_duty() -> None:
    """Four times as long a sweep, and the limit goes on being kept; so slow that it cannot be, and nothing rests."""
    pacer = choose_for(Limit())
    said = [pacer.time(took) for took in [200_000] * 8 + [800_000] * 8 + [1_500_000] * 8 + [200_000] * 8]
    changes = [text for text in said if text]
    assert len(changes) == 4
    assert "every 1.86 s" in changes[0]
    assert "every 1.24 s" in changes[1]
    assert "sweeping without a pause" in changes[2]
    assert pacer.duty is not None
    pacer = choose_for(Limit())
    for took in [1_500_000] * 8:
        pacer.time(took)
    assert pacer.rest_us(10_000_000, 10_000_100) == 0


def test_late_sweeps_shorten_the_rests() -> None:
    """What the slowest of the last eight took beyond the median comes off."""
    steady, ragged = choose_for(Limit()), choose_for(Limit())
    for k in range(8):
        steady.time(200_000)
        ragged.time(200_000 + 30_000 * (k == 5))
    assert steady.rest_us(0, 0) - ragged.rest_us(0, 0) == 30_000


def test_sweeps_that_waited_are_not_timed() -> None:
    """A scanner that swept before the loop came: eight at once, then one every 200 ms; the eight tell nothing."""
    host = VirtualClock()
    host.sleep(1)

    def backlog() -> Iterator[Scan]:
        for k in range(60):
            host.sleep(0.2 if k > 15 else 0)
            yield Scan(b"", AXIS, host.us())

    pacer, expected = choose_for(Limit()), []
    list(
        Paced(
            timed(backlog(), expected.append), lambda us: host.sleep(us / 1e6), MissionClock(host.us), pacer
        )
    )
    assert pacer.duty is not None
    assert pacer.duty.sweep_s == pytest.approx(0.2)
    assert min(expected) >= 200_000


def test_at_speed_one_the_clock_is_the_hosts() -> None:
    scanner = Sweeping(0.2)
    clock = MissionClock(scanner.host.us)
    assert clock.us == scanner.host.us
    assert clock.stamped(scanner) is scanner
    with pytest.raises(BadInput, match="1 to"):
        MissionClock(scanner.host.us, 0.5)


def test_waiting_counts_many_times_and_work_once() -> None:
    """A hundred sweeps of 10 ms and 2 ms of work each, at speed 50."""
    scanner = Sweeping(0.01, 100)
    clock = MissionClock(scanner.host.us, 50)
    scans = answered(clock.stamped(scanner), scanner.host, 0.002)
    assert clock.us() == pytest.approx(1e6 * 100 * (50 * 0.01 + 0.002), rel=1e-6)
    assert all(b.captured_us - a.captured_us == 502_000 for a, b in pairwise(scans))
    assert all(scan.captured_us - scan.measured_us == 100 for scan in scans)


@pytest.mark.parametrize(
    ("emulator", "scanner"), [(RFExplorerEmulator, RFExplorer), (TinySAEmulator, TinySAUltra)]
)
def test_a_held_scanner_sends_nothing_and_goes_on(emulator: type, scanner: type) -> None:
    """Six rests of five sweeps' time: none leaves but one that had begun, and after each a new one."""
    with (
        running(emulator, recording(2000), 20, loop=True) as rig,
        Source(rig.port, scanner(AXIS), clock_us) as source,
    ):
        rests, scans = [], 0
        for event in source:
            if not isinstance(event, Scan):
                assert event.reason in (Reason.IDENTIFIED, Reason.CONFIGURED)
                continue
            scans += 1
            if rests:
                assert event.captured_us > rests[-1][1]
            begun_us = clock_us()
            source.rest(250_000)
            rests.append((begun_us, clock_us()))
            if scans == 6:
                break
        left_us = [int(row[0]) for row in rig.log]
    for begun_us, ended_us in rests:
        assert ended_us - begun_us >= 240_000
        assert sum(begun_us < at < ended_us for at in left_us) <= 1


def test_rests_of_ten_seconds_put_a_scanner_to_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it can: the screen's light goes off. A stop ends the rest."""
    with (
        running(RFExplorerEmulator, recording(200), 100, loop=True) as rig,
        Source(rig.port, RFExplorer(AXIS), clock_us) as source,
    ):
        sent: list[bytes] = []
        monkeypatch.setattr(source, "send", sent.append)
        source.stop()
        begun_us = clock_us()
        source.rest(10_000_000)
        assert clock_us() - begun_us < 1_000_000
        assert sent == [source.scanner.sleep(), source.scanner.wake()]
        assert rig.emulator.played >= 0
