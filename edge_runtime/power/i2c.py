"""The I2C bus that current meters hang on: smbus2's calls, and why they fail, in words."""

from __future__ import annotations

import errno
from typing import Protocol

from edge_runtime.errors import HardwareUnavailable


class Bus(Protocol):
    """What the drivers need of `smbus2.SMBus`."""

    def read_word_data(self, i2c_addr: int, register: int) -> int: ...

    def write_word_data(self, i2c_addr: int, register: int, value: int) -> None: ...

    def read_i2c_block_data(self, i2c_addr: int, register: int, length: int) -> list[int]: ...

    def close(self) -> None: ...


def open_bus(number: int) -> Bus:
    """/dev/i2c-NUMBER. Raises HardwareUnavailable, saying why, where it cannot be opened."""
    try:
        import smbus2  # noqa: PLC0415 (an extra: only who has such a meter installs it)
    except ImportError as e:
        raise HardwareUnavailable("smbus2 is not installed; pip install 'edge-runtime[ina219]'") from e
    try:
        bus: Bus = smbus2.SMBus(number)
    except FileNotFoundError as e:
        raise HardwareUnavailable(f"there is no /dev/i2c-{number}; switch I2C on (raspi-config)") from e
    except OSError as e:
        raise HardwareUnavailable(f"/dev/i2c-{number}: {e.strerror}; add the user to group i2c") from e
    return bus


class Device:
    """One chip on a bus: registers of two bytes, most significant first."""

    def __init__(self, bus: Bus, address: int) -> None:
        self._bus, self._address = bus, address

    def word(self, register: int) -> int:
        """Read 16 bits. SMBus words come least significant byte first, these chips send the other way."""
        value = self._bus.read_word_data(self._address, register)
        return (value & 0xFF) << 8 | value >> 8

    def signed(self, register: int) -> int:
        """Read 16 bits, two's complement."""
        value = self.word(register)
        return value - 0x10000 if value & 0x8000 else value

    def write(self, register: int, value: int) -> None:
        """Write 16 bits."""
        self._bus.write_word_data(self._address, register, (value & 0xFF) << 8 | value >> 8)

    def wide(self, register: int, size: int) -> int:
        """Read `size` bytes, unsigned."""
        return int.from_bytes(self._bus.read_i2c_block_data(self._address, register, size), "big")


class Converting:
    """What drivers of a shunt-sampling chip share: one word to register 0 says what is converted.

    `_shunt_mode` and `_bus_mode` are those words.
    """

    _shunt_mode = _bus_mode = 0

    def __init__(self, bus: Bus, address: int) -> None:
        self.address = address
        self._device = Device(bus, address)

    def start_shunt(self) -> None:
        """Convert the shunt, back to back."""
        self._device.write(0, self._shunt_mode)

    def start_bus(self) -> None:
        """Convert the bus voltage once."""
        self._device.write(0, self._bus_mode)


def explain(e: OSError, address: int) -> str:
    """Why a transfer failed, for "unavailable, because"."""
    if e.errno in (errno.EREMOTEIO, errno.ENXIO):
        return f"nothing answers at address 0x{address:02x}; check wiring and address pins"
    return f"the bus fails at address 0x{address:02x} ({e.strerror})"
