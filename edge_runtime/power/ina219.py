"""INA219 on smbus2, at register level (TI SBOS448G, section 8.6)."""

from __future__ import annotations

from edge_runtime.power.calibration import Calibration
from edge_runtime.power.i2c import Bus, Converting

CONFIGURATION, SHUNT, BUS, POWER, CURRENT, CALIBRATION = range(6)
RESET = 0x8000
READY, OVERFLOW = 0x2, 0x1
MODE_BUS_ONCE, MODE_SHUNT = 2, 5

GAINS_UV = (40_000, 80_000, 160_000, 320_000)
SHUNT_LSB_UV = 10.0
BUS_LSB_V = 0.004

AVERAGE_US = {1: 532, 2: 1060, 4: 2130, 8: 4260, 16: 8510, 32: 17020, 64: 34050, 128: 68100}
_BUS_AVERAGE = 8


class Ina219(Converting):
    """One INA219 as a ShuntChip.

    max_amps: the highest peak, not the mean: a peak beyond the range that this selects is clipped inside an
        average, where nobody can see it. average: samples a conversion, a power of two up to 128.
    """

    voltage_error = 0.01  # 0.5 % at 25 C, 1 % over temperature (SBOS448G, 7.5)

    def __init__(
        self,
        bus: Bus,
        calibration: Calibration,
        *,
        address: int = 0x40,
        max_amps: float = 3.2,
        average: int = 128,
        bus_range_32v: bool = False,
    ) -> None:
        super().__init__(bus, address)
        self.shunt_us = float(AVERAGE_US[average])
        self.bus_us = float(AVERAGE_US[_BUS_AVERAGE])
        wanted_uv = max_amps * calibration.shunt_ohm * 1e6 * 0.999
        gain = next((k for k, full in enumerate(GAINS_UV) if full >= wanted_uv), len(GAINS_UV) - 1)
        self.full_scale_uv = float(GAINS_UV[gain])
        base = bus_range_32v << 13 | gain << 11
        shunt, volts = 8 | average.bit_length() - 1, 8 | _BUS_AVERAGE.bit_length() - 1
        self._shunt_mode = base | volts << 7 | shunt << 3 | MODE_SHUNT
        self._bus_mode = base | volts << 7 | shunt << 3 | MODE_BUS_ONCE
        # Current register in units that put full scale just inside 15 bits, so that OVF means what it says.
        self.current_lsb_a = self.full_scale_uv * 1e-6 / calibration.shunt_ohm / 32_000
        self._calibration = int(0.04096 / (self.current_lsb_a * calibration.shunt_ohm)) & 0xFFFE
        self._calibrated = False

    def _calibrate(self) -> None:
        if not self._calibrated:
            self._device.write(CALIBRATION, self._calibration)
            self._calibrated = True

    def start_bus(self) -> None:
        """Convert the bus voltage once; the first time also program the calibration."""
        self._calibrate()
        super().start_bus()

    def ready(self) -> tuple[bool, bool]:
        """CNVR, and OVF: an overflow of the chip's arithmetic, which is not the same as a clipped shunt."""
        value = self._device.word(BUS)
        return bool(value & READY), bool(value & OVERFLOW)

    def shunt_uv(self) -> float:
        """The shunt's voltage; reading the power register clears CNVR."""
        value = self._device.signed(SHUNT) * SHUNT_LSB_UV
        self._device.word(POWER)
        return value

    def bus_v(self) -> float:
        """The bus voltage, volts."""
        return (self._device.word(BUS) >> 3) * BUS_LSB_V
