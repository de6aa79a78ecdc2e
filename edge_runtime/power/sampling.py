"""A meter that samples: in a thread of known cost, or step by step in the caller's."""

from __future__ import annotations

import random
import threading
import time
from abc import abstractmethod

from edge_runtime.power.base import Meter, Source
from edge_runtime.power.clock import ClockUs, Sleep, monotonic_us


class SamplingMeter(Meter):
    """What meters share that must look at their source again and again.

    `step` does what is due and gives the seconds to the next step; `start` runs it in a thread, whose own processor
    time is counted: `own_cpu_s`. clock_us, sleep: how time passes. seed: of the moments that are drawn by lot.
    """

    source = Source.MEASURED

    def __init__(
        self, clock_us: ClockUs = monotonic_us, sleep: Sleep = time.sleep, seed: int | None = None
    ) -> None:
        self._clock_us, self._sleep = clock_us, sleep
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._begun_us = clock_us()
        self.own_cpu_s = 0.0

    @abstractmethod
    def step(self) -> float:
        """Do what is due; seconds until it is worth looking again."""

    def start(self) -> None:
        """Sample in a thread until `close`."""
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self.unavailable is None and not self._stop.wait(self.step()):
            self.own_cpu_s = time.thread_time()

    def advance(self, seconds: float) -> None:
        """Sample for so long in this thread: for benches, and for virtual time."""
        end = self._clock_us() + seconds * 1e6
        while (left := end - self._clock_us()) > 0:
            self._sleep(min(self.step(), left * 1e-6))

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.unavailable = self.unavailable or "it was closed"
