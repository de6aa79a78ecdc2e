"""A /sys with meters in it: files that a load and a clock keep up to date, as a kernel's driver would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edge_runtime.rig.load import Load

AVERAGED_S = 0.0681
"""Over how long the chip behind the driver averages: 128 samples of an INA219."""


def write(folder: Path, files: dict[str, object]) -> None:
    """Make a device's folder, a value a file; a reader sees the old value or the new one, as in a real /sys."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        part = folder / f".{name}"
        part.write_text(f"{value}\n")
        part.replace(folder / name)


class SysfsRig:
    """INA219s under IIO and hwmon with a shunt of `shunt_ohm`, which their drivers take for `driver_ohm`;
    and a battery that empties. `update` writes what they read now.
    """

    def __init__(
        self,
        root: Path,
        load: Load,
        now: Callable[[], float],
        *,
        shunt_ohm: float = 0.1,
        driver_ohm: float = 0.1,
    ) -> None:
        self._load, self._now = load, now
        self._shunt_ohm, self._driver_ohm = shunt_ohm, driver_ohm
        self.iio = root / "bus/iio/devices/iio:device0"
        self.hwmon = root / "class/hwmon/hwmon2"
        self.battery = root / "class/power_supply/BAT0"
        write(
            self.iio,
            {
                "name": "ina219",
                "in_shunt_resistor": f"{driver_ohm:.9f}",
                "in_voltage0_scale": 0.01,
                "in_voltage1_scale": 4,
            },
        )
        write(self.hwmon, {"name": "ina219", "shunt_resistor": round(driver_ohm * 1e6)})
        write(
            self.battery,
            {"type": "Battery", "present": 1, "status": "Discharging", "energy_full": 9_250_000},
        )
        self.update()

    def update(self) -> None:
        """Write what the devices show at this moment."""
        t = max(self._now(), AVERAGED_S)
        amps = self._load.mean_amps(t - AVERAGED_S, t)
        volts = self._load.mean_volts(t - AVERAGED_S, t)
        shunt_v = amps * self._shunt_ohm
        write(
            self.iio,
            {"in_voltage0_raw": round(shunt_v / 10e-6), "in_voltage1_raw": int(volts / 0.004)},
        )
        # The hwmon driver divides by the shunt that it believes in.
        write(
            self.hwmon,
            {"curr1_input": round(shunt_v / self._driver_ohm * 1e3), "in1_input": round(volts * 1e3)},
        )
        left_uwh = 9_000_000 - self._load.energy_j(self._now()) / 3600e-6
        write(
            self.battery, {"energy_now": int(left_uwh // 10_000 * 10_000), "voltage_now": round(volts * 1e6)}
        )
