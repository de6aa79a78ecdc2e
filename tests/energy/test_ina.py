"""The current meters on emulated chips get the energy right, and say where they cannot."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import BadInput, HardwareUnavailable
from edge_runtime.power.calibration import Calibration
from edge_runtime.power.i2c import open_bus
from edge_runtime.power.ina219 import Ina219
from edge_runtime.power.ina226 import Ina3221
from edge_runtime.power.ina228 import Ina228Meter
from edge_runtime.power.shunt import ShuntMeter
from edge_runtime.rig import ina
from edge_runtime.rig.i2c_bus import EmulatedBus
from edge_runtime.rig.load import VirtualClock, pulses
from tests.energy.ina_bench import CHIPS, MODULE, NASTY_MS, bench, constant, error, naive_polling

# --- aliasing ---


def test_side_by_side_with_naive_polling() -> None:
    """The load of the published traps: 3 ms of 600 mA every 50 ms, over 120 mA."""
    load = pulses(0.050)
    assert naive_polling(load, 0.010) == pytest.approx(0.44, abs=0.02)
    assert naive_polling(load, 0.100) == pytest.approx(2.98, abs=0.06)
    for name in CHIPS:
        meter, _, _ = bench(name, load)
        assert abs(error(meter, load, 20)) < 0.01


@pytest.mark.parametrize("name", CHIPS)
def test_energy_within_1_percent_at_any_period(name: str) -> None:
    worst = 0.0
    for period_ms in NASTY_MS:
        load = pulses(period_ms * 1e-3, source_ohm=0.05)
        meter, _, _ = bench(name, load)
        worst = max(worst, abs(error(meter, load, 20)))
        assert meter.missed == 0
    assert worst < 0.01


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.floats(0.004, 3), st.floats(0.05, 0.95), st.floats(0.9, 1.1), st.integers(0, 2**32))
def test_energy_within_1_percent_whatever_the_duty_and_the_oscillator(
    period_s: float, duty: float, oscillator: float, seed: int
) -> None:
    """The chip's clock may be 10 % off ours; pacing follows its ready bit. Offset and tolerance are apart."""
    load = pulses(period_s, width_s=period_s * duty, high_a=0.4, source_ohm=0.05)
    meter, _, _ = bench("ina219", load, seed=seed, oscillator=oscillator)
    assert abs(error(meter, load, 30)) < 0.01
    assert meter.missed <= 1


@pytest.mark.parametrize("channel", [1, 2, 3])
def test_each_rail_of_an_ina3221(channel: int) -> None:
    clock, load = VirtualClock(), pulses(0.05)
    chip = ina.Ina3221(load, lambda: clock.seconds)
    chip.channel = channel
    for asked in (1, 2, 3):
        driver = Ina3221(EmulatedBus({0x40: chip}, clock.sleep), channel=asked)
        timing = {"clock_us": clock.us, "sleep": clock.sleep}
        meter = ShuntMeter(driver, MODULE, name="ina3221", domain="", **timing)
        meter.advance(5)
        assert (meter.read().energy_j > 3) == (asked == channel)


def test_ina228_adds_up_in_hardware() -> None:
    for period_s in (0.05, 0.0681, 0.0101):
        clock, load = VirtualClock(), pulses(period_s, source_ohm=0.05)
        chip = ina.Ina228(load, lambda: clock.seconds, oscillator=1.003)  # noqa: B023
        bus = EmulatedBus({0x40: chip}, clock.sleep)
        meter = Ina228Meter(bus, MODULE, domain="the load", clock_us=clock.us, sleep=clock.sleep)
        begun = clock.seconds
        clock.sleep(4)
        reading = meter.read()
        truth = load.energy_j(clock.seconds) - load.energy_j(begun)
        assert reading.energy_j == pytest.approx(truth, rel=0.01)
        assert abs(reading.energy_j - truth) <= reading.uncertainty_j
        assert reading.rail_v == pytest.approx(5, abs=0.05)


# --- what goes wrong ---


def test_offset_and_gain_of_the_calibration_file_are_undone(tmp_path: Path) -> None:
    load = pulses(0.05)
    off = {"offset_uv": 80.0, "gain": 1.012}
    raw, _, _ = bench("ina219", load, **off)
    uncalibrated = error(raw, load, 20)
    assert uncalibrated > 0.015
    path = tmp_path / "bench.json"
    Calibration(0.1, 80, 1.012, 5, 0.001, "a test").save(path)
    meter, _, _ = bench("ina219", load, calibration=Calibration.load(path), **off)
    assert abs(error(meter, load, 20)) < 0.003
    assert meter.read().uncertainty_j < raw.read().uncertainty_j


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"shunt_ohm": "x"}', '{"shunt_ohm": 0.1}'])
def test_a_calibration_that_is_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(content)
    with pytest.raises(BadInput, match=r"c\.json: .*make one with edge-runtime calibrate"):
        Calibration.load(path)


def test_a_clipped_shunt_leaves_no_figure_that_looks_sure() -> None:
    clock = VirtualClock()
    load = constant(0.6)
    chip = ina.Ina219(load, lambda: clock.seconds)
    driver = Ina219(EmulatedBus({0x40: chip}, clock.sleep), MODULE, max_amps=0.4)
    meter = ShuntMeter(driver, MODULE, name="ina219", domain="", clock_us=clock.us, sleep=clock.sleep)
    meter.advance(1)
    assert meter.clipped == meter.conversions > 5
    assert math.isinf(meter.read().uncertainty_j)
    assert meter.overflows == 0  # OVF is another matter: it stays silent here


def test_overflow_of_the_chips_arithmetic_is_counted() -> None:
    meter, _, chip = bench("ina219", constant(2))
    meter.advance(0.2)
    assert meter.overflows == 0
    chip.write(5, 0xFFFE)
    meter.advance(0.2)
    assert meter.overflows > 0


def test_the_range_follows_the_peak_and_the_shunt() -> None:
    bus = EmulatedBus({})
    full = [Ina219(bus, MODULE, max_amps=a).full_scale_uv for a in (0.3, 0.4, 0.5, 1.6, 3.2, 9)]
    assert full == [40_000, 40_000, 80_000, 160_000, 320_000, 320_000]
    driver = Ina219(bus, MODULE)
    assert driver._calibration == int(0.04096 / (driver.current_lsb_a * 0.1)) & 0xFFFE


def test_conversions_that_nobody_took_are_counted_and_doubted() -> None:
    load = pulses(0.05)
    meter, clock, _ = bench("ina219", load)
    meter.advance(5)
    before = meter.read()
    clock.sleep(2)  # the thread starved
    meter.advance(1)
    after = meter.read()
    assert meter.missed == pytest.approx(2 / 0.0681, abs=2)
    truth = load.energy_j(after.at_us * 1e-6) - load.energy_j(before.at_us * 1e-6)
    assert abs(after.energy_j - before.energy_j - truth) < after.uncertainty_j - before.uncertainty_j


def test_a_loose_wire_is_survived_and_a_torn_one_named() -> None:
    load = pulses(0.05)
    meter, _, _ = bench("ina219", load, fail_every=37)
    assert abs(error(meter, load, 20)) < 0.01
    assert meter.errors > 3
    meter._chip.ready = lambda: (_ for _ in ()).throw(OSError(121, "Remote I/O error"))  # type: ignore[method-assign]
    with pytest.raises(HardwareUnavailable, match="nothing answers at address 0x40"):
        meter.advance(10)


def test_no_chip_at_the_address() -> None:
    meter = ShuntMeter(
        Ina219(EmulatedBus({}), MODULE), MODULE, name="ina219", domain="", sleep=lambda _: None
    )
    with pytest.raises(
        HardwareUnavailable, match="ina219: unavailable, because nothing answers at address 0x40"
    ):
        meter.read()


def test_no_bus_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HardwareUnavailable, match="there is no /dev/i2c-77"):
        open_bus(77)
    monkeypatch.setitem(sys.modules, "smbus2", None)
    with pytest.raises(HardwareUnavailable, match="smbus2 is not installed"):
        open_bus(1)


def test_the_thread_on_a_real_clock_knows_its_own_cost() -> None:
    load = pulses(0.05)
    chip = ina.Ina219(load, time.monotonic)
    meter = ShuntMeter(
        Ina219(EmulatedBus({0x40: chip}), MODULE, average=16), MODULE, name="ina219", domain=""
    )
    begun = meter._begun_us * 1e-6
    meter.start()
    time.sleep(1.0)
    reading = meter.read()
    truth = load.energy_j(reading.at_us * 1e-6) - load.energy_j(begun)
    assert abs(reading.energy_j - truth) < max(reading.uncertainty_j, 0.02 * truth)
    meter.close()
    assert 0 < meter.own_cpu_s < 0.5 * meter.own_wall_s
    with pytest.raises(HardwareUnavailable, match="it was closed"):
        meter.read()
