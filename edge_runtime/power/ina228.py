"""INA228: the chip itself adds up energy and charge (TI SLYS021B, section 7.6)."""

from __future__ import annotations

import math
import time

from edge_runtime.power.base import Meter, Reading, Source
from edge_runtime.power.calibration import Calibration
from edge_runtime.power.clock import ClockUs, Sleep, monotonic_us
from edge_runtime.power.i2c import Bus, Device, explain

CONFIGURATION, ADC, SHUNT_CAL, SHUNT, BUS, ENERGY, CHARGE, DIAGNOSIS = 0, 1, 2, 4, 5, 9, 0x0A, 0x0B
RESET, CLEAR = 0x8000, 0x4000
ENERGY_OVERFLOW, MATHS_OVERFLOW = 0x800, 0x200
# Shunt and bus, continuously, 50 us each: the shunt is seen half of the time, 10,000 times a second, so a
# load would have to keep step with the chip's own oscillator to fool it.
_ADC_FAST = 0xB << 12
SHUNT_LSB_UV, BUS_LSB_V = 0.3125, 195.3125e-6
FULL_SCALE_UV = 163_840.0


class Ina228Meter(Meter):
    """Cumulative energy from the chip's 40-bit accumulator. max_amps: the highest peak."""

    name = "ina228"
    source = Source.MEASURED

    def __init__(
        self,
        bus: Bus,
        calibration: Calibration,
        *,
        domain: str,
        address: int = 0x40,
        max_amps: float = 1.6,
        clock_us: ClockUs = monotonic_us,
        sleep: Sleep = time.sleep,
    ) -> None:
        self.domain = domain
        self._calibration, self._clock_us, self._address = calibration, clock_us, address
        self._device = Device(bus, address)
        self._full_a = FULL_SCALE_UV * 1e-6 / calibration.shunt_ohm
        self._lsb_a = min(max_amps, self._full_a) / 2**19
        try:
            self._device.write(CONFIGURATION, RESET)
            sleep(0.001)
            cal = 13107.2e6 * self._lsb_a * calibration.shunt_ohm
            # The chip multiplies by a whole number; use the step that this number really gives.
            self._lsb_a *= round(cal) / cal
            self._device.write(SHUNT_CAL, round(cal))
            self._device.write(ADC, _ADC_FAST)
            self._device.write(CONFIGURATION, CLEAR)
        except OSError as e:
            self.unavailable = explain(e, address)
        self._begun_us = clock_us()

    def read(self) -> Reading:
        """What the chip has added up, corrected by the calibration."""
        self.require()
        now = self._clock_us()
        try:
            raw_j = self._device.wide(ENERGY, 5) * 16 * 3.2 * self._lsb_a
            flags = self._device.word(DIAGNOSIS)
            volts = (self._device.wide(BUS, 3) >> 4) * BUS_LSB_V
        except OSError as e:
            self.unavailable = explain(e, self._address)
            self.require()
        seconds, calibration = (now - self._begun_us) * 1e-6, self._calibration
        offset_w = calibration.offset_uv / (calibration.shunt_ohm * 1e6) * volts
        joules = (raw_j - offset_w * seconds) / calibration.gain
        uncertainty = math.hypot(
            joules * calibration.gain_error, calibration.offset_error_a * volts * seconds
        )
        if flags & (ENERGY_OVERFLOW | MATHS_OVERFLOW):
            uncertainty = math.inf
        return Reading(joules, uncertainty, volts, now)
