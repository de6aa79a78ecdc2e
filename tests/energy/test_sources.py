"""Meters that Linux or the firmware owns, over files and commands that behave like theirs."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import pytest

from edge_runtime.errors import HardwareUnavailable
from edge_runtime.power.kernel import HwmonMeter, IioMeter, PowerSupplyMeter
from edge_runtime.power.pmic import FIT_SLOPE, FIT_W, PmicMeter, rails_w
from edge_runtime.power.poll import PollMeter
from edge_runtime.rig.bench import VCGENCMD
from edge_runtime.rig.load import Load, VirtualClock, pulses
from edge_runtime.rig.sysfs import SysfsRig, write

KERNEL = {"iio": IioMeter, "hwmon": HwmonMeter}


class RiggedClock(VirtualClock):
    """Time that takes the files along."""

    rig: SysfsRig

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.rig.update()


def rigged(root: Path, load: Load, **shunts: float) -> RiggedClock:
    clock = RiggedClock()
    clock.seconds = 1.0
    clock.rig = SysfsRig(root, load, lambda: clock.seconds, **shunts)
    return clock


@pytest.mark.parametrize("name", KERNEL)
@pytest.mark.parametrize("period_s", [0.05, 1.0])
def test_energy_within_what_is_stated(tmp_path: Path, name: str, period_s: float) -> None:
    load = pulses(period_s)
    clock = rigged(tmp_path, load)
    meter = KERNEL[name](sysfs=tmp_path, clock_us=clock.us, sleep=clock.sleep, seed=3)
    meter.advance(20)
    reading = meter.read()
    truth = load.energy_j(clock.seconds) - load.energy_j(1.0)
    assert abs(reading.energy_j - truth) < reading.uncertainty_j < 0.15 * truth
    assert abs(reading.energy_j / truth - 1) < 0.05
    assert reading.rail_v == pytest.approx(5, abs=0.01)
    assert "ina219 at" in meter.domain


@pytest.mark.parametrize("name", KERNEL)
def test_a_driver_that_believes_in_its_default_shunt_is_not_believed(tmp_path: Path, name: str) -> None:
    """A module's 100 mohm under a driver that takes 10 mohm for granted: ten times the current."""
    load = Load([(1.0, 0.2)])
    clock = rigged(tmp_path, load, shunt_ohm=0.1, driver_ohm=0.01)
    timing = {"clock_us": clock.us, "sleep": clock.sleep}
    blind = KERNEL[name](sysfs=tmp_path, **timing)
    with pytest.raises(HardwareUnavailable, match=r"believes in a shunt of 10 mohm.* --shunt OHM"):
        blind.read()
    told = KERNEL[name](sysfs=tmp_path, shunt_ohm=0.1, **timing)
    told.advance(5)
    assert told.read().energy_j == pytest.approx(5.0, rel=0.02)
    # A board that does carry 10 mohm is believed once it is said.
    raw = KERNEL[name](sysfs=tmp_path, shunt_ohm=0.01, **timing)
    raw.advance(5)
    assert raw.read().energy_j == pytest.approx(50, rel=0.02)


@pytest.mark.parametrize("name", KERNEL)
def test_no_device_and_a_device_that_goes(tmp_path: Path, name: str) -> None:
    assert "there is no INA2xx under" in str(KERNEL[name](sysfs=tmp_path).unavailable)
    clock = rigged(tmp_path, pulses(0.05))
    meter = KERNEL[name](sysfs=tmp_path, clock_us=clock.us, sleep=clock.sleep)
    meter.step()
    for file in (*clock.rig.iio.glob("in_voltage*_raw"), clock.rig.hwmon / "in1_input"):
        file.unlink()
    meter.step()
    with pytest.raises(HardwareUnavailable, match="No such file"):
        meter.read()


def test_hwmon_of_an_ina3221_has_its_shunt_by_channel(tmp_path: Path) -> None:
    files = {"name": "ina3221", "shunt1_resistor": 10_000, "in1_input": 5000, "curr1_input": 400}
    write(tmp_path / "class/hwmon/hwmon0", files)
    meter = HwmonMeter(sysfs=tmp_path, shunt_ohm=0.1)
    assert meter.sample() == pytest.approx((0.2, 5.0))


def test_a_battery_that_empties_and_one_that_charges(tmp_path: Path) -> None:
    load = Load([(1.0, 0.5)])
    clock = rigged(tmp_path, load)
    meter = PowerSupplyMeter(sysfs=tmp_path, clock_us=clock.us)
    before = meter.read()
    assert before.energy_j == 0
    assert before.uncertainty_j == pytest.approx(0.02 * 9.25 * 3600)
    for _ in range(30):
        clock.sleep(60)
        meter.read()
    reading = meter.read()
    truth = load.energy_j(clock.seconds) - load.energy_j(1.0)
    assert abs(reading.energy_j - truth) <= reading.uncertainty_j < 0.1 * truth
    write(clock.rig.battery, {"status": "Charging"})
    with pytest.raises(HardwareUnavailable, match="because the battery is charging"):
        meter.read()


def test_a_gauge_in_ampere_hours(tmp_path: Path) -> None:
    gauge = tmp_path / "class/power_supply/gauge"
    full = {"type": "Battery", "charge_full": 2_500_000, "charge_now": 2_000_000, "voltage_now": 3_700_000}
    write(gauge, full)
    meter = PowerSupplyMeter(sysfs=tmp_path)
    write(gauge, {"charge_now": 1_900_000})
    assert meter.read().energy_j == pytest.approx(0.1 * 3.7 * 3600)
    assert meter.read().rail_v == pytest.approx(3.7)
    assert PowerSupplyMeter(sysfs=tmp_path / "none").unavailable is not None


def test_pmic_sums_the_rails_and_scales_to_the_plug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PmicMeter().unavailable == "there is no vcgencmd (only a Raspberry Pi has it)"
    command = tmp_path / "vcgencmd"
    command.write_text(VCGENCMD)
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    meter = PmicMeter()
    watts, volts = meter.sample()
    assert watts == pytest.approx(FIT_SLOPE * (0.2 * 3.3 + 0.75) + FIT_W)
    assert volts == pytest.approx(5.1)
    command.write_text("#!/bin/sh\necho 'Command not registered'\n")
    assert "only a Pi 5 has them" in str(PmicMeter().unavailable)


def test_rails_without_a_pair_are_left_out() -> None:
    report = "A_A current(0)=2.0A\nA_V volt(8)=3.0V\nB_A current(1)=9.0A\nBATT_V volt(25)=0.02V\n"
    watts, volts = rails_w(report)
    assert watts == 6
    assert math.isnan(volts)
    with pytest.raises(ValueError, match="no rail"):
        rails_w("")


class Steady(PollMeter):
    name, domain, every_s = "steady", "nothing", 0.002

    def sample(self) -> tuple[float, float]:
        return 2.0, 5.0


def test_polling_in_a_thread() -> None:
    with Steady() as meter:
        assert isinstance(meter, Steady)
        meter.start()
        time.sleep(0.3)
        reading = meter.read()
        seconds = (reading.at_us - meter._begun_us) * 1e-6
        assert reading.energy_j == pytest.approx(2 * seconds)
        assert meter.samples > 20
    assert 0 < meter.own_cpu_s < seconds
    with pytest.raises(HardwareUnavailable, match="it was closed"):
        meter.read()
