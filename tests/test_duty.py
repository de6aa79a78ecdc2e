"""Duty: the detection limit kept, by simulation; the board's switches on a tree of files."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hw_profiles
from edge_runtime.duty import (
    BoardControl,
    Limit,
    Pacer,
    always,
    break_even_s,
    catch,
    choose,
    longest_period_s,
)
from edge_runtime.errors import BadInput, HardwareUnavailable
from edge_runtime.power.interval import Interval
from hw_profiles.schema import Quantity


def caught(limit: Limit, sweep_s: float, period_s: float, rng: random.Random) -> float:
    """Signals at random moments against a comb of sweeps."""
    hits, signals = 0, 4000
    for _ in range(signals):
        begins = rng.uniform(10, 20)
        first = int((begins - sweep_s) / period_s)
        sweeps = [k * period_s for k in range(first, first + int(limit.signal_s / period_s) + 3)]
        whole = [s for s in sweeps if s >= begins and s + sweep_s <= begins + limit.signal_s]
        hits += any(rng.random() < limit.per_sweep for _ in whole)
    return hits / signals


@pytest.mark.parametrize("sweep_s", [0.12, 0.2, 0.9])
@pytest.mark.parametrize("per_sweep", [1.0, 0.8])
def test_a_two_second_signal_is_caught(sweep_s: float, per_sweep: float) -> None:
    """At the longest period, the simulated chance is the limit's, and what `catch` says."""
    limit = Limit(2.0, 0.95, per_sweep)
    period_s = longest_period_s(limit, sweep_s)
    if period_s is None:
        assert catch(limit, sweep_s, sweep_s) < 0.95
        return
    seen = caught(limit, sweep_s, period_s, random.Random(1))
    assert seen == pytest.approx(catch(limit, sweep_s, period_s), abs=0.015)
    assert seen >= 0.935
    assert caught(limit, sweep_s, period_s * 1.3, random.Random(1)) < 0.95


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.floats(0.05, 60), st.floats(0.01, 1), st.floats(0.05, 1), st.floats(0.01, 5))
def test_the_period_keeps_the_limit(signal_s: float, chance: float, per_sweep: float, sweep_s: float) -> None:
    """The longest period keeps it, a hair longer does not, and none is shorter than a sweep."""
    limit = Limit(signal_s, chance, per_sweep)
    period_s = longest_period_s(limit, sweep_s)
    if period_s is None:
        assert catch(limit, sweep_s, sweep_s) < chance
        return
    assert period_s >= sweep_s
    assert catch(limit, sweep_s, period_s) >= chance - 1e-9
    assert catch(limit, sweep_s, period_s * 1.01 + 1e-6) < chance + 1e-9


def test_the_demo_mission() -> None:
    """Zero 2 W and RF Explorer: pauses between sweeps, a tuned board that stays on, and why."""
    mission = hw_profiles.mission("zero2w", "rf-explorer", "lipo", shared=True)
    duty, before = choose(mission, Limit(), sweep_hz=5), always(mission)
    assert 1.8 < duty.period_s < 1.95
    assert duty.caught >= 0.95 - 1e-9
    assert duty.board_mw.high < before.board_mw.low
    assert duty.scanner_mw.high <= before.scanner_mw.high
    assert not duty.board_off
    assert any("stays on" in line for line in duty.why)
    with pytest.raises(BadInput, match="at best"):
        choose(mission, Limit(0.1), sweep_hz=5)


def test_a_board_with_an_alarm_is_off_where_that_pays() -> None:
    """A start of 20 J against 3 W idle: seven seconds pay; the limit decides whether there are as many."""
    mission = hw_profiles.mission("5", "rf-explorer", "lipo", shared=True)
    board = replace(mission.board, boot_j=Quantity(Interval(18, 22), "assumed", "test"))
    mission = replace(mission, board=board)
    assert break_even_s(board).low == pytest.approx(
        18_000 / (board.idle_mw.range.high - board.off_mw.range.low)
    )
    assert not choose(mission, Limit(2.0), sweep_hz=5).board_off
    asleep = choose(mission, Limit(600.0), sweep_hz=5)
    assert asleep.board_off
    assert asleep.board_mw.high < 100


def test_pacer() -> None:
    """Sweeps begin a period apart; while something is going on there is no pause."""
    pacer = Pacer(1_800_000, resume_us=50_000, dwell_us=2_000_000)
    assert pacer.pause_us(1_000_000, 1_200_000, busy=False) == 1_550_000
    assert pacer.pause_us(3_000_000, 3_200_000, busy=True) == 0
    assert pacer.pause_us(3_200_000, 3_400_000, busy=False) == 0
    assert pacer.pause_us(5_100_000, 5_300_000, busy=False) == 1_550_000
    assert pacer.pause_us(6_000_000, 9_000_000, busy=False) == 0


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """Four cores; core 0 cannot go off-line; one clock with an alarm."""
    for n in range(4):
        cpufreq = tmp_path / f"devices/system/cpu/cpu{n}/cpufreq"
        cpufreq.mkdir(parents=True)
        (cpufreq / "scaling_governor").write_text("ondemand\n")
        (cpufreq / "scaling_available_governors").write_text("ondemand powersave performance\n")
        if n:
            (cpufreq.parent / "online").write_text("1\n")
    rtc = tmp_path / "class/rtc/rtc0"
    rtc.mkdir(parents=True)
    (rtc / "wakealarm").write_text("")
    return tmp_path


def state(root: Path) -> tuple[list[str], list[str]]:
    """Governors and the cores on-line."""
    cpus = root / "devices/system/cpu"
    governors = [p.read_text().strip() for p in sorted(cpus.glob("cpu*/cpufreq/scaling_governor"))]
    return governors, [p.read_text().strip() for p in sorted(cpus.glob("cpu*/online"))]


def test_the_board_is_tuned_and_turned_back(sysfs: Path) -> None:
    """One core at the slowest governor while the mission runs; afterwards as it was."""
    control = BoardControl(sysfs)
    control.tune()
    assert state(sysfs) == (["powersave"] * 4, ["0"] * 3)
    control.restore()
    assert state(sysfs) == (["ondemand"] * 4, ["1"] * 3)
    assert control.notes == []
    control.tune(cores=2)
    assert state(sysfs)[1] == ["1", "0", "0"]


def test_what_may_not_be_switched_stays_and_is_said(sysfs: Path) -> None:
    """A governor that is not offered, a switch that is a folder (write fails even for root), no alarm."""
    cpus = sysfs / "devices/system/cpu"
    (cpus / "cpu1/cpufreq/scaling_available_governors").write_text("performance\n")
    (cpus / "cpu2/online").unlink()
    (cpus / "cpu2/online").mkdir()
    control = BoardControl(sysfs)
    control.tune()
    assert len(control.notes) == 2
    assert state_of(cpus / "cpu3/online") == "0"
    control.wake_after(90)
    assert (sysfs / "class/rtc/rtc0/wakealarm").read_text() == "+90"
    (sysfs / "class/rtc/rtc0/wakealarm").unlink()
    with pytest.raises(HardwareUnavailable, match="leave the board on"):
        control.wake_after(90)


def state_of(path: Path) -> str:
    """A switch's value."""
    return path.read_text().strip()
