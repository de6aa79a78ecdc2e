"""Current meters that a Linux driver owns: IIO (ina2xx-adc) and hwmon (ina2xx, ina238, ina3221).

Both drivers take a 10 mohm shunt for granted where nobody told them otherwise, and the usual modules carry
100 mohm: a tenfold error without a warning. So a driver that still believes in 10 mohm is not believed: the
shunt must be said, and everything is then computed with that.
(Linux: drivers/iio/adc/ina2xx-adc.c, drivers/hwmon/ina2xx.c, Documentation/hwmon/ina2xx.rst.)
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from edge_runtime.errors import HardwareUnavailable
from edge_runtime.power.base import Meter, Reading, Source
from edge_runtime.power.clock import ClockUs, monotonic_us
from edge_runtime.power.poll import PollMeter

DEFAULT_SHUNT_OHM = 0.01
CHIPS = ("ina219", "ina220", "ina226", "ina228", "ina230", "ina231", "ina237", "ina238", "ina260", "ina3221")


def number(path: Path) -> float:
    """The number in a sysfs file. Raises HardwareUnavailable, saying why."""
    try:
        return float(path.read_text())
    except OSError as e:
        raise HardwareUnavailable(f"{path}: {e.strerror}") from e
    except ValueError as e:
        raise HardwareUnavailable(f"{path} holds no number") from e


def text(path: Path) -> str:
    """The first line of a sysfs file, or nothing where it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def find(folder: Path, pattern: str) -> Path | None:
    """The first device whose `name` is a known chip's."""
    return next((d for d in sorted(folder.glob(pattern)) if text(d / "name") in CHIPS), None)


def shunt_correction(driver_ohm: float, shunt_ohm: float | None) -> float:
    """What to multiply the driver's current by. Raises HardwareUnavailable where its shunt is not to be trusted."""
    if shunt_ohm is not None:
        return driver_ohm / shunt_ohm
    if math.isclose(driver_ohm, DEFAULT_SHUNT_OHM, rel_tol=1e-6):
        raise HardwareUnavailable(
            "the driver believes in a shunt of 10 mohm, its default; modules carry 100 mohm and would read "
            "tenfold: say which it is with --shunt OHM"
        )
    return 1.0


class IioMeter(PollMeter):
    """A chip under the IIO driver: shunt and bus voltage at full resolution."""

    name = "iio"

    def __init__(
        self, *, sysfs: Path = Path("/sys"), shunt_ohm: float | None = None, rail: str = "", **timing: Any
    ) -> None:
        super().__init__(**timing)
        self.domain = f"whatever hangs behind the shunt{rail}"
        device = find(sysfs / "bus/iio/devices", "iio:device*")
        if device is None:
            self.unavailable = (
                "there is no INA2xx under /sys/bus/iio (load ina2xx-adc, or use ina219 directly)"
            )
            return
        self._device = device
        self.domain += f", by {text(device / 'name')} at {device.name}"
        try:
            self._shunt_ohm = shunt_ohm or number(device / "in_shunt_resistor")
            shunt_correction(number(device / "in_shunt_resistor"), shunt_ohm)
            self._shunt_v = number(device / "in_voltage0_scale") * 1e-3
            self._bus_v = number(device / "in_voltage1_scale") * 1e-3
        except HardwareUnavailable as e:
            self.unavailable = str(e)

    def sample(self) -> tuple[float, float]:
        """Current from the shunt's voltage, times the bus voltage."""
        volts = number(self._device / "in_voltage1_raw") * self._bus_v
        amps = number(self._device / "in_voltage0_raw") * self._shunt_v / self._shunt_ohm
        return amps * volts, volts


class HwmonMeter(PollMeter):
    """A chip under the hwmon driver: current to 1 mA, which is 5 mW at 5 V."""

    name = "hwmon"

    def __init__(
        self, *, sysfs: Path = Path("/sys"), shunt_ohm: float | None = None, rail: str = "", **timing: Any
    ) -> None:
        super().__init__(**timing)
        self.domain = f"whatever hangs behind the shunt{rail}"
        device = find(sysfs / "class/hwmon", "hwmon*")
        if device is None:
            self.unavailable = (
                "there is no INA2xx under /sys/class/hwmon (load ina2xx, or use ina219 directly)"
            )
            return
        self._device = device
        self.domain += f", by {text(device / 'name')} at {device.name}; current in steps of 1 mA"
        channel = device / "shunt1_resistor"
        file = channel if channel.exists() else device / "shunt_resistor"
        try:
            self._correction = shunt_correction(number(file) * 1e-6, shunt_ohm)
        except HardwareUnavailable as e:
            self.unavailable = str(e)

    def sample(self) -> tuple[float, float]:
        """Milliamperes and millivolts, with the shunt put right."""
        volts = number(self._device / "in1_input") * 1e-3
        return number(self._device / "curr1_input") * 1e-3 * self._correction * volts, volts


class PowerSupplyMeter(Meter):
    """A battery or fuel gauge of the kernel: what it holds now, less what it held at first.

    Prefers energy_now; else charge_now at the mean voltage. Gauges move in coarse steps, seconds apart: the
    uncertainty is two of the largest step seen, or a percent of the full charge before any was.
    (Linux: Documentation/ABI/testing/sysfs-class-power.)
    """

    name = "power_supply"
    source = Source.MEASURED
    domain = "all that the battery supplies, the scanner too where it hangs on it"

    def __init__(self, *, sysfs: Path = Path("/sys"), clock_us: ClockUs = monotonic_us) -> None:
        self._clock_us = clock_us
        self._step_j = 0.0
        supplies = sorted((sysfs / "class/power_supply").glob("*"))
        batteries = [s for s in supplies if text(s / "type") == "Battery" and text(s / "present") != "0"]
        if not batteries:
            self.unavailable = "there is no battery under /sys/class/power_supply"
            return
        self._device = batteries[0]
        self.domain += f", by {self._device.name}"
        try:
            self._full_j = self._holds("full")
            self._first_j = self._last_j = self._holds("now")
        except HardwareUnavailable as e:
            self.unavailable = str(e)

    def _holds(self, when: str) -> float:
        energy = self._device / f"energy_{when}"
        if energy.exists():
            return number(energy) * 3600e-6
        return number(self._device / f"charge_{when}") * 3600e-6 * self._volts()

    def _volts(self) -> float:
        return number(self._device / "voltage_now") * 1e-6

    def read(self) -> Reading:
        """Joules taken from the battery. Unavailable while it charges."""
        self.require()
        if text(self._device / "status") == "Charging":
            raise HardwareUnavailable("meter power_supply: unavailable, because the battery is charging")
        try:
            now_j, volts = self._holds("now"), self._volts()
        except HardwareUnavailable as e:
            self.unavailable = str(e)
            raise HardwareUnavailable(f"meter power_supply: unavailable, because {e}") from e
        self._step_j = max(self._step_j, abs(self._last_j - now_j))
        self._last_j = min(self._last_j, now_j)
        uncertain = 2 * (self._step_j or 0.01 * self._full_j)
        return Reading(self._first_j - self._last_j, uncertain, volts, self._clock_us())
