"""An I2C bus of emulated chips with the surface of `smbus2.SMBus`, and the time that transfers take."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import Protocol

CLOCK_HZ = 400_000


class Chip(Protocol):
    """A device with registers of any width, most significant byte first on the wire."""

    def read(self, register: int, size: int) -> int: ...

    def write(self, register: int, value: int) -> None: ...


class EmulatedBus:
    """Chips by address. An address without a chip fails as a real bus does (EREMOTEIO).

    sleep: how a transfer's time passes; None where a real clock runs anyway.
    fail_every: every n-th transfer fails with EIO, as on a bus with a loose wire.
    """

    def __init__(
        self,
        chips: Mapping[int, Chip],
        sleep: Callable[[float], None] | None = None,
        *,
        fail_every: int = 0,
    ) -> None:
        self._chips, self._sleep, self._fail_every = chips, sleep, fail_every
        self.transfers = 0

    def _chip(self, address: int, bits: int) -> Chip:
        self.transfers += 1
        if self._sleep is not None:
            self._sleep(bits / CLOCK_HZ)
        if self._fail_every and self.transfers % self._fail_every == 0:
            raise OSError(errno.EIO, "Input/output error")
        if address not in self._chips:
            raise OSError(errno.EREMOTEIO, "Remote I/O error")
        return self._chips[address]

    def read_word_data(self, i2c_addr: int, register: int) -> int:
        """A 16-bit register as SMBus gives it: least significant byte first, so swapped."""
        value = self._chip(i2c_addr, 48).read(register, 2)
        return (value >> 8) | ((value & 0xFF) << 8)

    def write_word_data(self, i2c_addr: int, register: int, value: int) -> None:
        """Write a 16-bit register, bytes swapped as above."""
        self._chip(i2c_addr, 39).write(register, (value >> 8) | ((value & 0xFF) << 8))

    def read_i2c_block_data(self, i2c_addr: int, register: int, length: int) -> list[int]:
        """`length` bytes of a register, most significant first."""
        value = self._chip(i2c_addr, 30 + 9 * length).read(register, length)
        return list(value.to_bytes(length, "big"))

    def close(self) -> None:
        """Nothing to give back."""
