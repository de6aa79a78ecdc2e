"""Which INA chip answers at an address: TI's newer ones say who they are, the INA219 by its reset value."""

from __future__ import annotations

from edge_runtime.power.i2c import Bus, Device

_TI = 0x5449
_BY_DIE = {0x2260: "ina226", 0x2280: "ina228", 0x3220: "ina3221"}
_RESET, _INA219_AFTER_RESET = 0x8000, 0x399F


def identify(bus: Bus, address: int) -> str:
    """The chip's name, or "an unknown chip". Resets an INA219. Raises OSError where nothing answers."""
    device = Device(bus, address)
    for maker, die in ((0x3E, 0x3F), (0xFE, 0xFF)):
        if device.word(maker) == _TI and (name := _BY_DIE.get(device.word(die) & 0xFFF0)):
            return name
    device.write(0, _RESET)
    return "ina219" if device.word(0) == _INA219_AFTER_RESET else "an unknown chip"
