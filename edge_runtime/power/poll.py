"""Energy from sources that only tell power when asked: asked at random moments, so that no rhythm can fool it."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

from edge_runtime.errors import HardwareUnavailable
from edge_runtime.power.base import Reading
from edge_runtime.power.sampling import SamplingMeter

_Z95 = 1.96


class PollMeter(SamplingMeter):
    """Mean power of samples at random moments, times the time that passed.

    every_s: mean time between samples; each is drawn from half to one and a half of it. systematic: relative
    error of the source itself. The uncertainty adds what so many samples of so uneven a load leave open.
    """

    every_s = 0.1
    systematic = 0.02

    def __init__(self, **timing: Any) -> None:
        super().__init__(**timing)
        self.samples = 0
        self._mean_w = self._spread = 0.0
        self._volts = math.nan

    @abstractmethod
    def sample(self) -> tuple[float, float]:
        """Power and rail voltage now, watts and volts. Raises HardwareUnavailable, saying why."""

    def step(self) -> float:
        """Take a sample; seconds to the next."""
        self.require()
        try:
            watts, volts = self.sample()
        except HardwareUnavailable as e:
            self.unavailable = str(e)
            return self.every_s
        with self._lock:  # Welford's running mean and spread
            self.samples += 1
            away = watts - self._mean_w
            self._mean_w += away / self.samples
            self._spread += away * (watts - self._mean_w)
            self._volts = volts
        return self.every_s * self._random.uniform(0.5, 1.5)

    def read(self) -> Reading:
        """Mean power so far times the time since it was opened."""
        if self.samples == 0:
            self.step()
        self.require()
        now = self._clock_us()
        seconds = (now - self._begun_us) * 1e-6
        with self._lock:
            joules = self._mean_w * seconds
            few = self.samples < 2
            error_w = math.inf if few else math.sqrt(self._spread / (self.samples - 1) / self.samples)
            volts = self._volts
        scatter = _Z95 * error_w * seconds if seconds else 0.0
        return Reading(joules, math.hypot(joules * self.systematic, scatter), volts, now)
