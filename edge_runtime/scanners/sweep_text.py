"""Sweeps as rows of text: rtl_power, hackrf_sweep and soapy_power, from a file or a pipe.

    date, time, low Hz, high Hz, step Hz, samples, dB, dB, ...

A row is a hop, a sweep is the hops that join without a gap. What differs between the programs:

- rtl_power prints a hop's last bin twice; hackrf_sweep prints as many bins as fit between low and high, a quarter
  of the FFT size that it gives as its samples. The number of bins is therefore (high - low) / step.
- hackrf_sweep's rows are out of frequency order. A sweep has ended when a hop comes again; once one has been
  seen whole, the next is given as soon as it is.
- The times are local and have no zone: scans carry the time of their arrival.
- An empty bin is printed as -inf or nan, and refused as damage.

The values are dB relative to the receiver's full scale, not dBm; they are given as they are.
"""

from __future__ import annotations

import re
from bisect import bisect
from math import isfinite

from edge_runtime.reasons import Reason
from edge_runtime.scan import Axis, Scan
from edge_runtime.scanners.base import Configuration, Damage, Heard, StreamScanner, int16

LINE_LIMIT = 1 << 20
MAX_HOPS = 4000
_DATE = re.compile(rb"\d{4}-\d\d-\d\d")


class Hop:
    """One row: `low_hz` to `high_hz` in bins of `step_hz`, and their powers as a Scan holds them."""

    __slots__ = ("high_hz", "low_hz", "powers", "step_hz")

    def __init__(self, low_hz: float, high_hz: float, step_hz: float, powers: bytes) -> None:
        self.low_hz = low_hz
        self.high_hz = high_hz
        self.step_hz = step_hz
        self.powers = powers


class Sweeper(StreamScanner):
    """Joins hops to sweeps, whatever order they come in."""

    units = "dB"

    def __init__(self, axis: Axis | None = None) -> None:
        super().__init__()
        self._axis: Axis | None = None

    def reset(self) -> None:
        super().reset()
        self._searched = 0
        self._hops: list[Hop] = []  # of the sweep that comes, by frequency
        # A sweep's shape is its number of hops and its lowest frequency. Two sweeps in a row settle it.
        self._shape: tuple[int, float] | None = None
        self._last_shape: tuple[int, float] | None = None

    def _finish(self, now_us: int, events: list[Heard]) -> None:
        self._sweep(now_us, events)

    def _take(self, hop: Hop, now_us: int, events: list[Heard]) -> None:
        place = bisect(self._hops, hop.low_hz, key=_low)
        # Every program begins with its lowest hop: what came before a lower one began in a sweep's middle.
        if self._hops and place == 0:
            self._refuse(events)
        elif self._overlaps(hop, place) or len(self._hops) == MAX_HOPS:
            self._sweep(now_us, events)
            place = 0
        self._hops.insert(place, hop)
        if self._shape and len(self._hops) == self._shape[0]:
            self._sweep(now_us, events)

    def _overlaps(self, hop: Hop, place: int) -> bool:
        """Whether a hop begins within another: it is of the next sweep."""
        return place > 0 and self._hops[place - 1].high_hz - hop.low_hz > hop.step_hz / 2

    def _refuse(self, events: list[Heard]) -> None:
        events.append(Damage(Reason.TRUNCATED, sum(len(hop.powers) for hop in self._hops)))
        self._hops = []

    def _sweep(self, now_us: int, events: list[Heard]) -> None:
        """The hops so far are a sweep, if they join and have the shape of the one before."""
        hops = self._hops
        if not hops:
            return
        first = hops[0]
        shape = len(hops), first.low_hz
        again, self._last_shape = shape == self._last_shape, shape
        if not all(map(_joins, hops, hops[1:])) or (self._shape and shape != self._shape and not again):
            self._refuse(events)
            return
        if again:
            # What is left over of larger sweeps than the shape's begins above its lowest: learn anew.
            self._shape = None if self._shape and first.low_hz > self._shape[1] else shape
        self._hops = []
        powers = b"".join(hop.powers for hop in hops)
        axis = Axis(round(first.low_hz), max(1, round(first.step_hz)), len(powers) // 2)
        if axis != self._axis:
            self._axis = axis
            said = f"{first.low_hz:.0f} Hz, step {first.step_hz:g} Hz, {len(hops)} hops"
            events.append(Configuration(axis, said))
        events.append(Scan(powers, self._axis, now_us))


def _low(hop: Hop) -> float:
    return hop.low_hz


def _joins(a: Hop, b: Hop) -> bool:
    return abs(a.high_hz - b.low_hz) < a.step_hz / 2 and a.step_hz == b.step_hz


class SweepText(Sweeper):
    """Rows of text; see the module."""

    name = "sweep-text"
    terminator = 0x0A

    def _piece(self, at: int, now_us: int, events: list[Heard]) -> int:
        buffer = self._buffer
        end = buffer.find(b"\n", at + self._searched, at + LINE_LIMIT)
        if end < 0:
            self._searched = len(buffer) - at
            if self._searched < LINE_LIMIT:
                return 0
            self._searched = 0
            return self._lose(LINE_LIMIT, Reason.GARBAGE, events)
        self._searched = 0
        line = buffer[at:end].strip()
        hop = parse_row(line)
        if hop is None and line and not line.startswith(b"#"):
            # Where an end of line was lost, the second row may be whole.
            begins = [m.start() for m in _DATE.finditer(line)]
            hop = parse_row(line[begins[-1] :]) if begins else None
            self._lose(begins[-1] if hop else end + 1 - at, Reason.GARBAGE, events)
        if hop is not None:
            self._flush(events)
            self.frame_bytes = end + 1 - at
            self._take(hop, now_us, events)
        return end + 1 - at


def parse_row(line: bytes) -> Hop | None:
    """The hop of a row; None where it is no row, or a bin of it has no value."""
    cells = line.split(b",")
    if len(cells) < 7 or not _DATE.fullmatch(cells[0].strip()):
        return None
    try:
        low, high, step = (float(cell) for cell in cells[2:5])
        values = [float(cell) for cell in cells[6:]]
    except ValueError:
        return None
    if not (0 <= low < high < 1e12 and 1 <= step <= high - low and all(map(isfinite, values))):
        return None
    count = round((high - low) / step)
    if len(values) == count + 1 and values[-1] == values[-2]:
        values.pop()
    if len(values) != count:
        return None
    return Hop(low, high, step, b"".join(int16(round(100 * value)) for value in values))
