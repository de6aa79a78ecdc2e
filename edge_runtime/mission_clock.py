"""The mission's clock: the host's, or one on which waiting counts many times.

A day in the field is spent waiting: for the next sweep, or for the end of a pause. With `speed` each microsecond
waited counts so many times, and work once. So a rig plays a day in minutes while latencies, ages and the energy of
a scan stay what they are. Loop, governor, pacer, battery and journal all read this one clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from edge_runtime.errors import BadInput
from edge_runtime.scan import Happening, Scan

MAX_SPEED = 100_000


class MissionClock:
    """host_us: the host's monotonic clock. Raises BadInput for a speed that is none."""

    def __init__(self, host_us: Callable[[], int], speed: float = 1.0) -> None:
        if not 1 <= speed <= MAX_SPEED:
            raise BadInput(f"--speed {speed:g}: give 1 to {MAX_SPEED}")
        self.speed = speed
        self.host_us = host_us
        self._skipped_us = 0
        self.us: Callable[[], int] = host_us if speed == 1 else self._us

    def _us(self) -> int:
        return self.host_us() + self._skipped_us

    def stamped(self, source: Iterable[Scan | Happening]) -> Iterable[Scan | Happening]:
        """The source, which reads the host's clock, with its scans stamped by this one."""
        return source if self.speed == 1 else self._stamped(source)

    def _stamped(self, source: Iterable[Scan | Happening]) -> Iterator[Scan | Happening]:
        since_us = self.host_us()
        for event in source:
            if isinstance(event, Scan):
                captured_us, measured_us = event.captured_us, event.measured_us
                self._skip(max(0, captured_us - since_us))
                skipped_us = self._skipped_us
                measured_us += skipped_us * (measured_us > 0)
                yield event._replace(captured_us=captured_us + skipped_us, measured_us=measured_us)
            else:
                self._skip(self.host_us() - since_us)
                yield event
            since_us = self.host_us()

    def rest(self, microseconds: int, nap: Callable[[int], None]) -> None:
        """Let `nap` wait until so much time has passed on this clock."""
        begun_us = self.host_us()
        nap(round(microseconds / self.speed))
        self._skip(self.host_us() - begun_us)

    def _skip(self, waited_us: int) -> None:
        self._skipped_us += round(waited_us * (self.speed - 1))
