"""Energy from sources that only tell power when asked: asked at random moments, so that no rhythm can fool it."""

from __future__ import annotations

import math
import random
import threading
import time
from abc import abstractmethod

from edge_runtime.errors import HardwareUnavailable
from edge_runtime.power.base import Meter, Reading, Source
from edge_runtime.power.clock import ClockUs, Sleep, monotonic_us

_Z95 = 1.96


class PollMeter(Meter):
    """Mean power of samples at random moments, times the time that passed.

    every_s: mean time between samples; each is drawn from half to one and a half of it. systematic: relative
    error of the source itself. The uncertainty adds what so many samples of so uneven a load leave open.
    """

    source = Source.MEASURED
    every_s = 0.1
    systematic = 0.02

    def __init__(
        self, clock_us: ClockUs = monotonic_us, sleep: Sleep = time.sleep, seed: int | None = None
    ) -> None:
        self._clock_us, self._sleep = clock_us, sleep
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._begun_us = clock_us()
        self.samples = 0
        self._mean_w = self._spread = 0.0
        self._volts = math.nan
        self.own_cpu_s = 0.0

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

    def start(self) -> None:
        """Sample in a thread until `close`."""
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self.unavailable is None and not self._stop.wait(self.step()):
            self.own_cpu_s = time.thread_time()

    def advance(self, seconds: float) -> None:
        """Sample for so long in this thread."""
        end = self._clock_us() + seconds * 1e6
        while (left := end - self._clock_us()) > 0:
            self._sleep(min(self.step(), left * 1e-6))

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

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.unavailable = self.unavailable or "it was closed"
