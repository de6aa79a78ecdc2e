"""The field's meter in a simulated mission: modelled until resolved, then measured, and right."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

import hw_profiles
from edge_runtime.errors import HardwareUnavailable
from edge_runtime.power.base import Meter, Reading, Source
from edge_runtime.power.field import SOLVE_EVERY, FieldMeter
from edge_runtime.power.interval import exactly
from edge_runtime.power.modelled import LoopWork, ModelledMeter
from edge_runtime.rig.load import VirtualClock
from edge_runtime.verdict import Rung

TRUTH_J = {Rung.SCREEN: 1.2e-3, Rung.TREES: 3e-3, Rung.NETWORK: 40e-3}


class Rail(Meter):
    """A meter over a simulated board: idle power, noise, and what the scans really take."""

    name, source, domain = "rail", Source.MEASURED, "the simulated board"

    def __init__(self, clock: VirtualClock, seed: int) -> None:
        self._clock, self._rng = clock, np.random.default_rng(seed)
        self.work_j = self.noise_j = 0.0
        self.volts = 5.0

    def read(self) -> Reading:
        self.require()
        self.noise_j += abs(self._rng.normal(0.003, 0.001))
        joules = 0.6 * self._clock.seconds + self.work_j + self.noise_j
        return Reading(joules, 0.01 * joules, self.volts, self._clock.us())


def mission(
    minutes: float, seed: int = 1, every: tuple[float, float] = (0.03, 0.3)
) -> tuple[FieldMeter, Rail, list[tuple[int, int]]]:
    """Scans at a rate that the scanner's duty varies, answered by rungs as busy or quiet minutes have it."""
    clock = VirtualClock()
    rail = Rail(clock, seed)
    board = hw_profiles.board("zero2w")
    modelled = ModelledMeter(
        board, dict.fromkeys(TRUTH_J, 9000), LoopWork(exactly(40_000), exactly(2), "-"), clock.us
    )
    field = FieldMeter(rail, modelled, clock.us)
    rng = np.random.default_rng(seed + 100)
    charged = []
    rungs = list(TRUTH_J)
    while clock.seconds < minutes * 60:
        busy, every_s = rng.uniform(0, 1), rng.uniform(*every)
        for _ in range(int(rng.integers(1, 40))):
            rung = rungs[int(rng.choice(3, p=[1 - 0.7 * busy, 0.6 * busy, 0.1 * busy]))]
            rail.work_j += TRUTH_J[rung]
            charge = field.charge(rung)
            charged.append((charge.source, charge.energy_nj))
            clock.sleep(every_s)
    return field, rail, charged


def test_modelled_first_then_measured_and_right() -> None:
    field, rail, charged = mission(15)
    assert charged[0][0] == Source.MODELLED
    assert charged[-1][0] == Source.MEASURED
    first = next(k for k, (source, _) in enumerate(charged) if source == Source.MEASURED)
    assert first > SOLVE_EVERY
    field.finish()
    assert field.source is Source.MEASURED
    assert field.scans == len(charged)
    assert field.scans_uj.low <= rail.work_j * 1e6 <= field.scans_uj.high
    assert field.scans_uj.middle == pytest.approx(rail.work_j * 1e6, rel=0.05)
    summary = json.loads(json.dumps(field.summary(), allow_nan=False))
    before = 0.0
    for rung, truth in TRUTH_J.items():  # each stage is what its rung takes beyond the one below
        stage = summary["stages"][rung.name.lower()]
        assert stage["resolved"]
        assert stage["value"] == pytest.approx(truth - before, rel=0.05)
        assert stage["interval"][0] <= stage["value"] <= stage["interval"][1]
        charge, before = field._charges[rung], truth
        assert charge is not None
        assert charge.energy_nj == pytest.approx(truth * 1e9, rel=0.05)
    assert summary["stages"]["idle"]["value"] == pytest.approx(0.6, abs=0.01)
    assert set(summary["stages"]) == {"idle", "screen", "trees", "network"}


def test_what_is_not_resolved_stays_modelled() -> None:
    field, _, charged = mission(1)
    field.finish()
    assert {source for source, _ in charged} == {Source.MODELLED}
    assert field.source is Source.MODELLED
    assert field.scans_uj == field._modelled.scans_uj
    assert all("value" not in row for row in field.summary()["stages"].values() if not row["resolved"])


def test_a_rate_that_never_changes_tells_nothing_of_what_all_scans_share() -> None:
    """Then idle and the scans' common part move together: no absolute figure may be named."""
    field, _, _ = mission(15, every=(0.06, 0.06))
    summary = field.finish()
    assert field.source is Source.MODELLED
    assert summary["stages"]["screen"]["text"] == "not separable from idle"


def test_a_meter_that_dies_does_not_take_the_loop_with_it() -> None:
    field, rail, _ = mission(5)
    rail.unavailable = "the wire came off"
    clock: VirtualClock = rail._clock
    clock.sleep(10)
    charge = field.charge(Rung.TREES)
    assert charge.energy_nj > 0
    assert "the wire came off" in str(field.lost)
    clock.sleep(10)
    field.charge(Rung.TREES)
    field.finish()
    assert "the wire came off" in field.summary()["lost"]


def test_a_meter_that_is_not_there_is_told_at_once() -> None:
    clock = VirtualClock()
    rail = Rail(clock, 1)
    rail.unavailable = "nothing answers"
    modelled = ModelledMeter(hw_profiles.board("5"), {}, LoopWork(exactly(1), exactly(1), "-"), clock.us)
    with pytest.raises(HardwareUnavailable, match="nothing answers"):
        FieldMeter(rail, modelled, clock.us)


def test_a_rail_without_a_voltage_and_a_rung_beyond_a_record() -> None:
    field, rail, _ = mission(6)
    rail.volts = math.nan
    field.finish()
    for rung in TRUTH_J:
        charge = field._charges[rung]
        assert charge is None or charge.rail_mv == 0
    huge = replace(field._found.stages["trees"], value=5.0, low=4.9, high=5.1, error=0.01)
    from edge_runtime.power.field import _charge  # noqa: PLC0415

    assert _charge(huge, 5000) is None
