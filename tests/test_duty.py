"""Duty: the detection limit kept, by simulation; what a mission's profiles make of it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hw_profiles
from edge_runtime.duty import Limit, always, break_even_s, catch, choose, coarser, longest_period_s
from edge_runtime.errors import BadInput
from edge_runtime.power.interval import Interval
from edge_runtime.resample import Resampler
from edge_runtime.scan import Axis
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


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("2s:95%", Limit()),
        ("500ms:90%", Limit(0.5, 0.9)),
        ("1.5 min:99.5%:80%", Limit(90, 0.995, 0.8)),
    ],
)
def test_limits_in_words(text: str, limit: Limit) -> None:
    assert Limit.parse(text) == limit
    assert Limit.parse(str(limit)) == limit


@pytest.mark.parametrize("text", ["2s", "95%", "2h:95%", "2s:95", "0s:95%", "2s:0%", "2s:101%", "..s:95%"])
def test_limits_that_cannot_be(text: str) -> None:
    with pytest.raises(BadInput, match="limit"):
        Limit.parse(text)


@settings(deadline=None, derandomize=True)
@given(st.integers(2, 5000), st.integers(1, 10**6), st.integers(2, 8))
def test_a_coarser_axis_covers_the_finer(points: int, step_hz: int, factor: int) -> None:
    """Every point of the finer has a nearest one, so that what comes of it can be resampled."""
    axis = Axis(433_000_000, step_hz, points)
    wide = coarser(axis, factor)
    assert wide.points <= points // factor + 2
    Resampler(wide, axis, "nearest")
