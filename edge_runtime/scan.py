"""What a scanner gives: sweeps (what was measured, along which axis, when), and what else happened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, final


@dataclass(frozen=True, slots=True)
class Axis:
    """Frequencies of a sweep's points: `start_hz + k * step_hz` for k in 0 .. points - 1."""

    start_hz: int
    step_hz: int
    points: int

    def is_near(self, other: Axis, slack_hz: int) -> bool:
        """Whether both have as many points, and no frequency is more than `slack_hz` from the other's."""
        first_hz = self.start_hz - other.start_hz
        last_hz = first_hz + (self.step_hz - other.step_hz) * (other.points - 1)
        return self.points == other.points and max(abs(first_hz), abs(last_hz)) <= slack_hz


@final
class Scan(NamedTuple):
    """One sweep.

    power_cdbm: little-endian int16, hundredths of a dBm, `2 * axis.points` bytes. Bytes and not a list or an
        array: the artifact's C entry point takes them as they are, and no Python object is made per point.
    axis: the frequencies of the points.
    captured_us: when the sweep's last byte arrived, microseconds on the host's monotonic clock.
    measured_us: when the scanner had measured it, on the same clock: its own stamp, or captured_us less the
        time on the wire; 0 where neither is known.
    """

    power_cdbm: bytes
    axis: Axis
    captured_us: int
    measured_us: int = 0


new_scan: Callable[[tuple[bytes, Axis | None, int, int]], Scan] = partial(tuple.__new__, Scan)
"""The same as `Scan._make`, for the loop's steady state: a named tuple's own constructors cost twice as much."""


class Happening(NamedTuple):
    """Something other than a scan that came of a port: damage, silence, an unplugged cable.

    reason: a reasons.Reason. detail: for people and the journal, one line. facts: the same for programs, JSON values.
    """

    reason: int
    detail: str
    facts: Mapping[str, Any] | None = None
