"""The INA219 meter's own work, through the real smbus2, counted in the emulated machine."""

from __future__ import annotations

import threading
from typing import Any

import smbus2

from edge_runtime.power.calibration import Calibration
from edge_runtime.power.ina219 import BUS, CONFIGURATION, MODE_BUS_ONCE, SHUNT, Ina219
from edge_runtime.power.shunt import ShuntMeter

SHUNT_S, BUS_S = 0.0681, 0.00426


class Chip:
    """As little of an INA219 as the driver needs, below smbus2: in place of the kernel's ioctl."""

    def __init__(self) -> None:
        self.seconds = self.began = 0.0
        self.period = SHUNT_S
        self.taken = 0
        self._never = threading.Event()

    def sleep(self, seconds: float) -> None:
        """Virtual time passes; what waiting on an event costs is counted."""
        self._never.wait(0)
        self.seconds += seconds

    def us(self) -> int:
        return int(self.seconds * 1e6)

    def ioctl(self, _fd: int, _request: int, message: Any) -> None:
        if isinstance(message, int):  # the address
            return
        data, register = message.data.contents, message.command
        if message.read_write == 0:
            if register == CONFIGURATION:
                mode = (data.word >> 8) & 7
                self.period = BUS_S if mode == MODE_BUS_ONCE else SHUNT_S
                self.began, self.taken = self.seconds, 0
            return
        done = int((self.seconds - self.began) / self.period)
        value = {SHUNT: 1488, BUS: 1250 << 3 | (done > self.taken) << 1}.get(register, 0)
        if register == 3:
            self.taken = done
        data.word = value >> 8 | (value & 0xFF) << 8


def make_meter() -> list[Any]:
    """A meter at its default rate."""
    chip = Chip()
    smbus2.smbus2.ioctl = chip.ioctl
    bus = smbus2.SMBus()
    bus.fd = 0
    bus.funcs = 0
    driver = Ina219(bus, Calibration(0.1))
    meter = ShuntMeter(
        driver, Calibration(0.1), name="ina219", domain="", clock_us=chip.us, sleep=chip.sleep, seed=1
    )
    return [meter]


def second(meter: ShuntMeter) -> dict[str, int]:
    """One second of sampling, its voltage measurement with it."""
    before = meter.conversions
    meter._volts_due_us = meter._clock_us()
    meter.advance(1.0)
    return {"conversions": meter.conversions - before, "joules": round(meter.read().energy_j)}
