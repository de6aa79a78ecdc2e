"""Energy from a chip that samples a shunt, without gaps, so that no rhythm of the load can fool it.

A poll of single conversions aliases with the load: a 3 ms pulse every 50 ms polled every 100 ms reads three
times too much. Here the chip converts the shunt alone, back to back and averaged, and every conversion is
taken once, paced by the chip's own conversion-ready bit: together they are the integral of the current. The
rail's voltage moves little; it is measured about once a second, at a moment that is drawn by lot, and the
current of those few milliseconds is taken from the conversion that follows.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

from edge_runtime.power.base import Reading
from edge_runtime.power.calibration import Calibration
from edge_runtime.power.i2c import explain
from edge_runtime.power.pace import Pace
from edge_runtime.power.sampling import SamplingMeter

VOLTAGE_EVERY_S = 1.0
_FAILURES_TO_GIVE_UP = 50


class ShuntChip(Protocol):
    """Register access to one chip, as its driver supplies it.

    address: on the bus. shunt_us: nominal time of one averaged shunt conversion; bus_us: of a bus conversion.
    full_scale_uv: where the shunt's voltage clips. voltage_error: relative, of the bus voltage.
    """

    address: int
    shunt_us: float
    bus_us: float
    full_scale_uv: float
    voltage_error: float

    def start_shunt(self) -> None:
        """Convert the shunt, back to back."""
        ...

    def start_bus(self) -> None:
        """Convert the bus voltage once."""
        ...

    def ready(self) -> tuple[bool, bool]:
        """Whether a conversion is new, and whether the chip's arithmetic overflowed."""
        ...

    def shunt_uv(self) -> float:
        """The last shunt voltage; acknowledges it, so that the next `ready` tells of the next one."""
        ...

    def bus_v(self) -> float:
        """The last bus voltage."""
        ...


class ShuntMeter(SamplingMeter):
    """Cumulative energy from a ShuntChip. timing: as a SamplingMeter takes it."""

    def __init__(
        self, chip: ShuntChip, calibration: Calibration, *, name: str, domain: str, **timing: Any
    ) -> None:
        super().__init__(**timing)
        self.name, self.domain = name, domain
        self._chip, self._calibration = chip, calibration
        self._charge_c = self._energy_j = self._doubt_j = 0.0
        self._volts, self._low_v, self._high_v = math.nan, math.inf, 0.0
        self.conversions = self.missed = self.clipped = self.overflows = self.errors = 0
        self._failed = 0
        self._pace = Pace(chip.shunt_us, self._clock_us())
        try:
            self._measure_volts()
        except OSError as e:
            self.unavailable = explain(e, chip.address)
        self._begun_us = self._taken_us = self._clock_us()

    def _measure_volts(self) -> None:
        """One bus conversion, then back to the shunt; and when to do so next."""
        chip = self._chip
        chip.start_bus()
        for _ in range(20):
            self._sleep(chip.bus_us * 0.3e-6)
            if chip.ready()[0]:
                break
        self._volts = chip.bus_v()
        self._low_v, self._high_v = min(self._low_v, self._volts), max(self._high_v, self._volts)
        chip.start_shunt()
        wait_us = VOLTAGE_EVERY_S * 1e6 * self._random.uniform(0.5, 1.5)
        self._volts_due_us = self._clock_us() + wait_us
        self._pace.restart(self._clock_us())

    def step(self) -> float:
        """Take a conversion if there is one; seconds until it is worth looking again."""
        self.require()
        try:
            new, overflow = self._chip.ready()
            if not new:
                return self._pace.too_early(self._clock_us()) * 1e-6
            self._take(overflow)
            if self._clock_us() >= self._volts_due_us:
                self._measure_volts()
            self._failed = 0
        except OSError as e:
            self.errors += 1
            self._failed += 1
            if self._failed >= _FAILURES_TO_GIVE_UP:
                self.unavailable = explain(e, self._chip.address)
            return self._chip.shunt_us * 0.1e-6
        return self._pace.wait_us(self._clock_us()) * 1e-6

    def _take(self, overflow: bool) -> None:
        uv, now = self._chip.shunt_uv(), self._clock_us()
        amps = self._calibration.amps(uv)
        elapsed_us = now - self._taken_us
        with self._lock:
            joules = amps * self._volts * elapsed_us * 1e-6
            self._charge_c += amps * elapsed_us * 1e-6
            self._energy_j += joules
            self._taken_us = now
            self.conversions += 1
            self._judge(uv, overflow, self._pace.taken(now), joules)

    def _judge(self, uv: float, overflow: bool, unseen: int, joules: float) -> None:
        """Count what was lost: conversions nobody took, a shunt at full scale, an overflow."""
        self.missed += unseen
        self._doubt_j += abs(joules) * unseen / (unseen + 1)
        self.overflows += overflow
        if abs(uv) >= self._chip.full_scale_uv:
            self.clipped += 1
            self._doubt_j = math.inf  # nobody knows how much higher it was

    def read(self) -> Reading:
        """The energy of all conversions so far. Infinitely uncertain once the shunt has clipped."""
        self.require()
        with self._lock:
            seconds = (self._taken_us - self._begun_us) * 1e-6
            systematic = self._energy_j * math.hypot(self._calibration.gain_error, self._chip.voltage_error)
            offset = self._calibration.offset_error_a * self._volts * seconds
            # Voltage and current may move together between two looks at the voltage.
            swing = (self._high_v - self._low_v) / self._high_v if self._high_v else 0.0
            together = self._energy_j * swing
            uncertainty = math.hypot(systematic, offset, together) + self._doubt_j
            return Reading(self._energy_j, uncertainty, self._volts, self._taken_us)

    @property
    def charge_c(self) -> float:
        """Coulombs through the shunt so far."""
        return self._charge_c

    @property
    def own_wall_s(self) -> float:
        """For how long it has been sampling."""
        return (self._taken_us - self._begun_us) * 1e-6
