"""State of charge against the kinetic battery model and PyBaMM: through offsets, gains, age, cold, and a charger."""

from __future__ import annotations

import csv
import math
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

import hw_profiles
from edge_runtime.battery import Flow, StateOfCharge, capacity_share
from edge_runtime.errors import BadInput
from edge_runtime.power.interval import Interval
from edge_runtime.verdict import Rung
from hw_profiles.schema import Battery, Quantity
from tests.kibam import Kibam

PYBAMM = Path(__file__).parent / "data/pybamm_chen2020.csv"
"""Minute, load in mA, volts, share of the charge left: an LG M50 by PyBaMM (tests/bench/pybamm_reference.py)."""


def profile(name: str) -> Battery:
    """A shipped battery."""
    battery = hw_profiles.load("battery", name)
    assert isinstance(battery, Battery)
    return battery


def open_circuit_v(battery: Battery, share: float) -> float:
    """The middle of the profile's voltage table at a state of charge."""
    rows = [(pct / 100, volts.middle) for pct, volts in battery.soc_v][::-1]
    for (s0, v0), (s1, v1) in pairwise(rows):
        if share <= s1:
            return v0 + (v1 - v0) * (share - s0) / (s1 - s0)
    return rows[-1][1]


def discharge(
    battery: Battery, *, gain: float, offset_ma: float, rests: bool, seed: int
) -> tuple[float, float]:
    """A whole discharge in bursts of load; the worst and the last error of the estimate, in shares.

    The meter that the estimate sees has a gain and an offset; the terminals drop by the load on the resistance.
    """
    rng = random.Random(seed)
    truth = Kibam(battery.capacity_mah.range.high)
    estimate = StateOfCharge(battery)
    resistance_ohm = battery.internal_mohm.range.middle / 1000
    worst = 0.0
    minute = 0
    while not truth.empty:
        minute += 1
        resting = rests and minute % 240 < 45
        load_ma = 8.0 if resting else rng.choice((120.0, 170.0, 240.0))
        truth.draw(load_ma, 1 / 60)
        volts = open_circuit_v(battery, truth.surface) - load_ma / 1000 * resistance_ohm
        charge = estimate.update(60, gain * load_ma + offset_ma, volts + rng.gauss(0, 0.002))
        worst = max(worst, abs(charge.share - truth.share))
    return worst, abs(estimate.charge.share - truth.share)


@pytest.mark.parametrize("name", ["li-ion-18650", "lipo", "lifepo4-18650", "alkaline-4aa"])
@pytest.mark.parametrize(("gain", "offset_ma"), [(1.0, 0.0), (1.01, 1.0), (0.99, -1.0)])
def test_within_three_percent_of_the_kinetic_model(name: str, gain: float, offset_ma: float) -> None:
    """Over a whole discharge with rests, with a meter off by its shunt's 1 % and 1 mA."""
    battery = profile(name)
    for seed in range(3):
        worst, _ = discharge(battery, gain=gain, offset_ma=offset_ma, rests=True, seed=seed)
        assert worst <= 0.03, (name, seed, worst)


@pytest.mark.parametrize(
    ("gain", "offset_ma", "limit"),
    [(1.0, 0.0, 0.03), (1.01, 1.0, 0.03), (0.99, -1.0, 0.03), (1.05, 3.0, 0.035)],  # the last: a bad shunt
)
def test_within_three_percent_of_pybamm(gain: float, offset_ma: float, limit: float) -> None:
    """An electrochemical model's whole discharge: its voltages against the profile's table, which knows no LG M50."""
    worst, last = pybamm_errors(gain, offset_ma, with_volts=True)
    assert worst <= limit
    assert last <= 0.01


def test_pybamm_tells_a_bad_meter() -> None:
    """A meter that misses a tenth is a tenth off at the end; the voltages bring it back to 2 %."""
    _, adrift = pybamm_errors(0.9, 0.0, with_volts=False)
    _, held = pybamm_errors(0.9, 0.0, with_volts=True)
    assert adrift == pytest.approx(0.1, abs=0.005)
    assert held < 0.02


def pybamm_errors(gain: float, offset_ma: float, *, with_volts: bool) -> tuple[float, float]:
    """The worst and the last error of the estimate over PyBaMM's discharge, in shares."""
    with PYBAMM.open() as file:
        rows = [tuple(map(float, row)) for row in list(csv.reader(file))[2:]]
    held_mah = [
        a[1] * (b[0] - a[0]) / 60 / (a[3] - b[3]) for a, b in pairwise(rows) if a[1] == b[1] and a[1] > 100
    ]
    capacity_mah = sorted(held_mah)[len(held_mah) // 2]
    capacity = Quantity(Interval(0.8 * capacity_mah, capacity_mah), "derived", "the discharge itself")
    estimate = StateOfCharge(replace(profile("li-ion-18650"), capacity_mah=capacity))
    worst = 0.0
    for (minute, _, _, before), (later, _, volts, share) in pairwise(rows):
        load_ma = (before - share) * capacity_mah * 60 / (later - minute)
        seconds = 60 * (later - minute)
        charge = estimate.update(seconds, gain * load_ma + offset_ma, volts if with_volts else None)
        worst = max(worst, abs(charge.share - share))
    return worst, abs(charge.share - share)


def test_rests_are_what_corrects() -> None:
    """A meter that misses a tenth: without rests the count drifts away, with rests the voltage brings it back."""
    battery = profile("li-ion-18650")
    _, adrift = discharge(battery, gain=0.9, offset_ma=0.0, rests=False, seed=1)
    _, held = discharge(battery, gain=0.9, offset_ma=0.0, rests=True, seed=1)
    assert adrift > 0.08
    assert held < 0.05


def test_an_unknown_start_is_told_by_the_voltage() -> None:
    """Put in half full: the first reading says so, within its deviation."""
    battery = profile("li-ion-18650")
    estimate = StateOfCharge(battery, share=None)
    charge = estimate.update(1, 5.0, open_circuit_v(battery, 0.47))
    assert abs(charge.share - 0.47) < 2 * charge.deviation
    assert charge.deviation < 0.06


def test_age_is_learnt() -> None:
    """A cell that holds 70 % of its profile: after a discharge between two good voltages the fade is known."""
    battery = profile("li-ion-18650")
    capacity_mah = 0.7 * battery.capacity_mah.range.high
    estimate = StateOfCharge(battery)
    share = 1.0
    for _ in range(3):
        while share > 0.12:
            share -= 250 / capacity_mah / 60
            estimate.update(60, 250)
        for _ in range(40):
            estimate.update(60, 0.0, open_circuit_v(battery, share))
        share = 1.0
        recharged = 0.88 * capacity_mah
        estimate.update(3600, -recharged)
        for _ in range(40):
            estimate.update(60, 0.0, open_circuit_v(battery, 1.0))
    assert abs(estimate.fade - 0.7) < 0.1
    assert estimate.capacity_mah < 0.8 * battery.capacity_mah.range.high


def test_charging_is_noticed() -> None:
    """By a current into the cell, and by a voltage that rises under the same load; a lighter load is no charger."""
    battery = profile("li-ion-18650")
    estimate = StateOfCharge(battery, share=0.5)
    assert estimate.update(60, 200, 3.60).flow is Flow.DISCHARGING
    assert estimate.update(60, 20, 3.64).flow is not Flow.CHARGING
    assert estimate.update(60, 200, 3.60).flow is Flow.DISCHARGING
    assert estimate.update(60, 200, 3.95).flow is Flow.CHARGING
    assert estimate.update(60, 200, 3.90).flow is Flow.DISCHARGING
    before = estimate.charge.share
    assert estimate.update(3600, -500, 4.0).flow is Flow.CHARGING
    assert estimate.charge.share > before + 0.15


def test_the_ladder_steps_down_and_does_not_flutter() -> None:
    """Each step is taken once on the way down, and only taken back with charge to spare."""
    battery = profile("li-ion-18650")
    estimate, rung, steps = StateOfCharge(battery), Rung.NETWORK, []
    for _ in range(3000):
        estimate.update(36, 100 + 150 * math.sin(_ / 7))
        new = estimate.ladder_limit(rung)
        if new is not rung:
            steps.append(new)
        rung = new
    assert steps == [Rung.TREES, Rung.SCREEN, Rung.NONE]
    estimate.update(3600, -0.06 * estimate.capacity_mah)
    assert estimate.ladder_limit(rung) is Rung.NONE or estimate.charge.share > 0.05 + 0.03


def test_cold_takes_its_part() -> None:
    """Capacity falls with temperature, from the bottom; an unknown chemistry is an error that says so."""
    battery = profile("li-ion-18650")
    estimate = StateOfCharge(battery, share=0.5)
    assert estimate.remaining_mah(25) == pytest.approx(0.5 * battery.capacity_mah.range.high)
    assert estimate.remaining_mah(-10) == pytest.approx(0.25 * battery.capacity_mah.range.high)
    assert capacity_share("li-ion", -40) == capacity_share("li-ion", -20)
    with pytest.raises(BadInput, match="choose of"):
        capacity_share("potato", 20)


def test_kibam_recovers_and_conserves() -> None:
    """The reference itself: charge drawn is charge gone, a rest refills the first well, steps add up."""
    one, many = Kibam(1000), Kibam(1000)
    one.draw(500, 0.5)
    for _ in range(1000):
        many.draw(500, 0.0005)
    assert one.available_mah == pytest.approx(many.available_mah, rel=1e-9)
    assert one.share == pytest.approx(0.75)
    low = one.surface
    one.draw(0, 2)
    assert one.share == pytest.approx(0.75)
    assert low < one.surface <= 0.7501


@pytest.mark.parametrize(("fade", "share"), [(0.0, 1.0), (1.0, 1.5)])
def test_impossible_batteries(fade: float, share: float) -> None:
    """Shares of one are shares of one."""
    with pytest.raises(BadInput, match="shares of one"):
        StateOfCharge(profile("lipo"), fade=fade, share=share)
