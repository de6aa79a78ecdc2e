"""INA meters on emulated chips and a virtual clock: what the tests of them, and scripts/bench_meters, share."""

from __future__ import annotations

import statistics
from typing import Any

from edge_runtime.power.calibration import Calibration
from edge_runtime.power.ina219 import Ina219
from edge_runtime.power.ina226 import Ina226, Ina3221
from edge_runtime.power.shunt import ShuntMeter
from edge_runtime.rig import ina
from edge_runtime.rig.i2c_bus import EmulatedBus
from edge_runtime.rig.load import Load, VirtualClock

MODULE = Calibration(shunt_ohm=0.1)
CHIPS = {
    "ina219": (ina.Ina219, lambda bus, **k: Ina219(bus, MODULE, **k)),
    "ina226": (ina.Ina226, Ina226),
    "ina3221": (ina.Ina3221, Ina3221),
}


def bench(
    name: str,
    load: Load,
    *,
    calibration: Calibration = MODULE,
    seed: int = 1,
    fail_every: int = 0,
    **analogue: float,
) -> tuple[ShuntMeter, VirtualClock, Any]:
    clock = VirtualClock()
    emulated, driver = CHIPS[name]
    chip = emulated(load, lambda: clock.seconds, **analogue)
    bus = EmulatedBus({0x40: chip}, clock.sleep, fail_every=fail_every)
    meter = ShuntMeter(
        driver(bus),
        calibration,
        name=name,
        domain="the load",
        clock_us=clock.us,
        sleep=clock.sleep,
        seed=seed,
    )
    return meter, clock, chip


def error(meter: ShuntMeter, load: Load, seconds: float) -> float:
    """Relative error of the energy over exactly the time that the meter covered."""
    begun = meter._begun_us * 1e-6
    meter.advance(seconds)
    reading = meter.read()
    truth = load.energy_j(reading.at_us * 1e-6) - load.energy_j(begun)
    assert abs(reading.energy_j - truth) <= reading.uncertainty_j
    return reading.energy_j / truth - 1


def constant(amps: float) -> Load:
    """The same current for ever."""
    return Load([(1.0, amps)])


def naive_polling(load: Load, poll_s: float, seconds: float = 20) -> float:
    """What a loop of `sleep; read current` with the chip's usual settings (12 bit, unaveraged) gets."""
    clock = VirtualClock()
    chip = ina.Ina219(load, lambda: clock.seconds)
    chip.write(0, 0x399F)
    chip.write(5, 4096)
    amps = []
    clock.sleep(0.0031)
    while clock.seconds < seconds:
        value = chip.read(4, 2)
        amps.append((value - 65536 if value & 0x8000 else value) * 1e-4)
        clock.sleep(poll_s)
    return statistics.fmean(amps) / load.mean_amps(0, seconds) - 1


# Periods that no careless meter survives: the conversion's own, its multiples and fractions, the voltage's.
NASTY_MS = [4.26, 5, 17.02, 34.05, 50, 64.4, 68.1, 70.4, 72.36, 100, 136.2, 204.3, 500, 1000, 1004.26, 2000]
