"""INA226 (TI SBOS547B, section 7.6) and INA3221 (TI SBOS576C, section 8.6), at register level."""

from __future__ import annotations

from edge_runtime.power.i2c import Bus, Converting

SHUNT, BUS, MASK_226 = 1, 2, 6
MASK_3221 = 0x0F
MODE_BUS_ONCE, MODE_SHUNT = 2, 5

AVERAGES = (1, 4, 16, 64, 128, 256, 512, 1024)
_TIME_CODE, _TIME_US = 4, 1100
_BUS_AVERAGE_CODE, _BUS_AVERAGE = 1, 4


class _Averaging(Converting):
    """Both chips code averaging and times in the same bits."""

    def __init__(self, bus: Bus, address: int, enable: int, average: int) -> None:
        super().__init__(bus, address)
        self.shunt_us, self.bus_us = float(_TIME_US * average), float(_TIME_US * _BUS_AVERAGE)
        base = enable | _TIME_CODE << 6 | _TIME_CODE << 3
        self._shunt_mode = base | AVERAGES.index(average) << 9 | MODE_SHUNT
        self._bus_mode = base | _BUS_AVERAGE_CODE << 9 | MODE_BUS_ONCE


class Ina226(_Averaging):
    """One INA226 as a ShuntChip: 2.5 uV a step, full scale 81.92 mV."""

    voltage_error = 0.001
    full_scale_uv = 81_917.5

    def __init__(self, bus: Bus, *, address: int = 0x40, average: int = 64) -> None:
        super().__init__(bus, address, 0x4000, average)

    def ready(self) -> tuple[bool, bool]:
        """CVRF and OVF; reading them clears CVRF."""
        value = self._device.word(MASK_226)
        return bool(value & 0x8), bool(value & 0x4)

    def shunt_uv(self) -> float:
        """The shunt's voltage, microvolts."""
        return self._device.signed(SHUNT) * 2.5

    def bus_v(self) -> float:
        """The bus voltage, volts."""
        return self._device.word(BUS) * 0.00125


class Ina3221(_Averaging):
    """One channel (1 to 3) of an INA3221 as a ShuntChip: 40 uV a step, full scale 163.8 mV.

    Only that channel converts: three in turn would each go unseen for two thirds of the time.
    """

    voltage_error = 0.01
    full_scale_uv = 163_800.0

    def __init__(self, bus: Bus, *, address: int = 0x40, channel: int = 1, average: int = 64) -> None:
        super().__init__(bus, address, 0x8000 >> channel, average)
        self._shunt, self._bus = 2 * channel - 1, 2 * channel

    def ready(self) -> tuple[bool, bool]:
        """CVRF; reading it clears it. The chip does no arithmetic that could overflow."""
        return bool(self._device.word(MASK_3221) & 1), False

    def shunt_uv(self) -> float:
        """The shunt's voltage, microvolts."""
        return (self._device.signed(self._shunt) >> 3) * 40.0

    def bus_v(self) -> float:
        """The bus voltage, volts."""
        return (self._device.signed(self._bus) >> 3) * 0.008
