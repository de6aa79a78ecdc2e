"""Intervals, the modelled meter and the headline figures, against closed forms."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hw_profiles
from edge_runtime.power.base import Source
from edge_runtime.power.figures import capacity_j, headline, mah
from edge_runtime.power.interval import UNKNOWN, Interval, exactly
from edge_runtime.power.modelled import (
    NO_LOOP,
    LoopWork,
    ModelledMeter,
    instruction_pj,
    scan_energy,
    source_of,
    wake_uj,
)
from edge_runtime.verdict import Rung
from hw_profiles.schema import Quantity

values = st.just(0.0) | st.floats(1e-9, 1e9)
intervals = st.builds(lambda a, b: Interval(min(a, b), max(a, b)), values, values)
within = st.floats(0, 1)
quick = settings(deadline=None, derandomize=True, max_examples=200)


def at(interval: Interval, along: float) -> float:
    return min(interval.low + along * (interval.high - interval.low), interval.high)


@quick
@given(intervals, intervals, within, within)
def test_interval_arithmetic_holds_every_pair(a: Interval, b: Interval, s: float, t: float) -> None:
    x, y = at(a, s), at(b, t)
    truths = [(a + b, x + y), (a * b, x * y), (a.share_of(b), x / (x + y) if x else 0.0)]
    if y:
        truths.append((a / b, x / y))
    for held, truth in truths:
        assert held.low * (1 - 1e-9) <= truth <= held.high * (1 + 1e-9)


@quick
@given(intervals, intervals)
def test_interval_ends_are_reached(a: Interval, b: Interval) -> None:
    assert (a + b) == Interval(a.low + b.low, a.high + b.high)
    assert (a * b).low == a.low * b.low
    share = a.share_of(b)
    assert share.high == (a.high / (a.high + b.low) if a.high else 0)
    assert exactly(0) / exactly(0) == UNKNOWN


@quick
@given(intervals)
def test_unknown_stays_unknown(a: Interval) -> None:
    assert not (a + UNKNOWN).known
    assert (UNKNOWN * a).known == (a.high == 0)
    assert UNKNOWN.share_of(a).high == 1
    assert a.share_of(UNKNOWN).low == 0
    assert UNKNOWN.to_json() == [0, None]


@pytest.mark.parametrize("ends", [(2, 1), (-1, 1), (math.nan, 1), (0, math.nan), (math.inf, math.inf)])
def test_no_interval(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="no range"):
        Interval(*ends)


def q(low: float, high: float | None = None, basis: str = "measured") -> Quantity:
    return Quantity(Interval(low, low if high is None else high), basis, "made up for a closed form")


BOARD = replace(
    hw_profiles.board("zero2w"), busy_core_mw=q(500), clock_mhz=q(1000), instructions_per_cycle=q(0.5),
    idle_mw=q(600), wake_us=q(10), rail_v=q(5),
)  # fmt: skip
MISSION = hw_profiles.mission("zero2w")
ROUND = replace(
    MISSION, board=BOARD, scanner=replace(MISSION.scanner, sweep_hz=q(2), power_mw=q(200)),
    battery=replace(MISSION.battery, capacity_mah=q(2500), mean_v=q(3.6), converter_efficiency=q(0.9)),
)  # fmt: skip
LOOP = LoopWork(exactly(20_000), exactly(3), "a made-up count")


def test_closed_form_of_a_scan() -> None:
    # 500 mW / 1000 MHz = 0.5 nJ a cycle, half an instruction a cycle: 1 nJ an instruction.
    assert instruction_pj(BOARD) == exactly(1000)
    assert wake_uj(BOARD) == exactly(5)
    parts = scan_energy(BOARD, 10_000, LOOP)
    assert parts.artifact_uj.low == pytest.approx(10)
    assert parts.loop_uj.high == pytest.approx(20)
    assert parts.kernel_uj.low == pytest.approx(15)
    assert parts.total_uj.middle == pytest.approx(45)


def test_closed_form_of_the_headline() -> None:
    figures = headline(exactly(45), Source.MODELLED, ROUND)
    # 45 uJ at the rail are 50 uJ at the terminals; 1 mAh at 3.6 V is 12.96 J.
    assert figures.mah_per_inference.middle == pytest.approx(50e-6 / 12.96)
    assert figures.battery_share.middle == pytest.approx(0.09 / 600.09)
    assert figures.mission_h.middle == pytest.approx(2500e-3 * 3.6 * 0.9 / 0.60009)
    assert figures.idle_floor_mw == exactly(600)


def test_106_mw_of_model_on_a_600_mw_board_is_15_percent() -> None:
    figures = headline(exactly(53_000), Source.MODELLED, ROUND)
    assert figures.battery_share.middle == pytest.approx(0.15, abs=5e-4)
    without = headline(exactly(0), Source.MODELLED, ROUND)
    assert without.mission_h.middle / figures.mission_h.middle == pytest.approx(1.176, abs=2e-3)


def test_one_mah_is_18_joules_at_5_volts_and_13_at_3_7() -> None:
    battery = replace(ROUND.battery, converter_efficiency=q(1), mean_v=q(5))
    assert mah(exactly(18e6), battery).middle == pytest.approx(1)
    assert mah(exactly(13.32e6), replace(battery, mean_v=q(3.7))).middle == pytest.approx(1)
    assert capacity_j(replace(battery, capacity_mah=q(1))).middle == pytest.approx(18)


def test_a_shared_battery_counts_the_scanner() -> None:
    alone = headline(exactly(45), Source.MODELLED, ROUND)
    shared = headline(exactly(45), Source.MODELLED, replace(ROUND, shared_battery=True))
    assert alone.mission_h.middle / shared.mission_h.middle == pytest.approx(800.09 / 600.09)


def test_headline_is_json_even_where_nothing_is_known() -> None:
    board = hw_profiles.board("zero2w")
    unknown = scan_energy(board, 1000, NO_LOOP).total_uj
    document = json.loads(json.dumps(headline(unknown, Source.MODELLED, MISSION).to_json(), allow_nan=False))
    assert document["energy_uj_per_inference"] is None
    assert document["energy_uj_per_inference_interval"][1] is None
    assert document["energy_source"] == "modelled"


class Clock:
    now_us = 1_000

    def __call__(self) -> int:
        return self.now_us


def test_modelled_meter_charges_and_reads() -> None:
    clock = Clock()
    meter = ModelledMeter(BOARD, {Rung.SCREEN: 1_000, Rung.TREES: 10_000}, LOOP, clock)
    assert meter.source is Source.MODELLED
    charges = [meter.charge(r) for r in (Rung.TREES, Rung.TREES, Rung.SCREEN, Rung.LAST_GOOD)]
    assert [c.energy_nj for c in charges] == [45_000, 45_000, 36_000, 35_000]
    assert charges[0] == (45_000, 0, Source.MODELLED, 5000)
    clock.now_us += 2_000_000
    reading = meter.read()
    assert reading.energy_j == pytest.approx(1.2 + 161e-6)
    assert reading.uncertainty_j == 0
    assert (reading.rail_v, reading.at_us) == (5, 2_001_000)
    assert meter.scans == 4


@quick
@given(st.lists(st.sampled_from(list(Rung)), max_size=50), within)
def test_modelled_meter_is_the_sum_of_its_charges(rungs: list[Rung], along: float) -> None:
    board = hw_profiles.board("3b+")
    meter = ModelledMeter(board, {Rung.TREES: 9_000, Rung.NETWORK: 900_000}, LOOP, lambda: 0)
    total_nj = sum(meter.charge(r).energy_nj for r in rungs)
    assert meter.scans_uj.middle * 1e3 == pytest.approx(total_nj, abs=len(rungs) + 1)
    # Any board within the profile's ranges spends within the meter's interval.
    pj = at(board.busy_core_mw.range, along) / at(board.clock_mhz.range, along) * 1e3
    pj /= at(board.instructions_per_cycle.range, along)
    truth_uj = sum(
        ({Rung.TREES: 9_000, Rung.NETWORK: 900_000}.get(r, 0) + 20_000) * pj * 1e-6
        + 3 * at(board.wake_us.range, along) * at(board.busy_core_mw.range, along) * 1e-3
        for r in rungs
    )
    assert meter.scans_uj.low * (1 - 1e-9) <= truth_uj <= meter.scans_uj.high * (1 + 1e-9)


def test_an_unknown_charge_is_marked_as_none() -> None:
    charge = ModelledMeter(BOARD, {Rung.TREES: 1}, NO_LOOP, lambda: 0).charge(Rung.TREES)
    assert charge == (0, 0xFFFF_FFFF, Source.NONE, 5000)


def test_a_fitted_profile_says_fitted() -> None:
    fitted = replace(BOARD, instruction_pj=q(400, 500, "fitted"))
    assert instruction_pj(fitted) == Interval(400, 500)
    assert source_of(fitted) is Source.FITTED


@pytest.mark.parametrize("name", ["zero2w", "3b+", "4b", "5", "cm4", "cortex-m4", "cortex-m0"])
def test_shipped_boards_agree_with_the_published_figures(name: str) -> None:
    """Board-level energy an instruction lies above the core's own (Cortex-A7: 50-80 pJ) and within sense."""
    pj = instruction_pj(hw_profiles.board(name))
    assert 50 <= pj.low < pj.high <= 3000
