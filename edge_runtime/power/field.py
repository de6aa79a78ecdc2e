"""Energy in the field: a real meter's joules, attributed to scans by the rung that answered them.

Every scan is counted under its rung. At the end of a window of a few seconds the meter is read, and window and
counts go to the running regression. Once a rung's energy is resolved, its scans are charged with it, measured;
until then with the model's figure, which says so. What belongs to every scan (port, decoder, journal) is part
of each rung's energy: counts that always move together cannot be told apart, and no figure pretends to. So
with a scan rate that never changes even the common part hides in the idle power, and the model's figures stay:
a duty cycle, or pauses, bring it out.
"""

from __future__ import annotations

import math
from argparse import Namespace
from contextlib import ExitStack
from typing import Any

from edge_runtime.errors import HardwareUnavailable
from edge_runtime.power.attribution import Estimate, Regression
from edge_runtime.power.base import Charge, Meter, Reading, Source
from edge_runtime.power.clock import ClockUs
from edge_runtime.power.interval import Interval
from edge_runtime.power.meters import bench_of, open_meter
from edge_runtime.power.modelled import ModelledMeter
from edge_runtime.verdict import Rung

WINDOW_S = 2.0
SOLVE_EVERY = 60
"""Windows between two solutions: two minutes. Solving costs a device some milliseconds."""

_MAX_NJ = 0xFFFF_FFFF
_Z95 = 1.96


class FieldMeter:
    """A real meter in the loop, with the modelled one to fall back on.

    charge: once a scan. finish: the last window. summary: what was found, for the run's end.
    A meter that fails ends the measuring, not the loop: `lost` says why, and the model goes on. With an emulated
    meter all is done but the charging: no record says "measured" that was not.
    """

    def __init__(
        self,
        meter: Meter,
        modelled: ModelledMeter,
        clock_us: ClockUs,
        *,
        window_s: float = WINDOW_S,
        emulated: bool = False,
    ) -> None:
        self._meter, self._modelled, self._clock_us = meter, modelled, clock_us
        self._window_us = int(window_s * 1e6)
        self._emulated = emulated
        self._counts = [0] * len(Rung)
        self._ever = [0] * len(Rung)
        self._charges: list[Charge | None] = [None] * len(Rung)
        self._estimates: dict[str, Estimate] = {}
        self._regression = Regression([rung.name.lower() for rung in Rung])
        self.lost: str | None = None
        self._windows = 0
        self._first = self._last = meter.read()
        self._due_us = clock_us() + self._window_us

    def charge(self, rung: int) -> Charge:
        """Count one scan answered at `rung`; its energy, measured where that is resolved."""
        modelled = self._modelled.charge(rung)
        self._counts[rung] += 1
        if self._clock_us() >= self._due_us:
            self._close_window()
        return self._charges[rung] or modelled

    def _close_window(self) -> None:
        self._due_us = self._clock_us() + self._window_us
        if self.lost is not None:
            return
        try:
            reading = self._meter.read()
        except HardwareUnavailable as e:
            self.lost = str(e)
            return
        seconds = (reading.at_us - self._last.at_us) * 1e-6
        if seconds <= 0:  # the meter has nothing new yet: let the window go on
            return
        self._regression.add(seconds, reading.energy_j - self._last.energy_j, self._counts)
        self._last = reading
        self._ever = [a + b for a, b in zip(self._ever, self._counts, strict=True)]
        self._counts = [0] * len(Rung)
        self._windows += 1
        if self._windows % SOLVE_EVERY == 0:
            self._solve()

    def _solve(self) -> None:
        self._estimates = self._regression.solve()
        rail_mv = 0 if math.isnan(self._last.rail_v) else round(self._last.rail_v * 1e3)
        for rung in Rung:
            found = self._estimates[rung.name.lower()]
            self._charges[rung] = None if self._emulated else _charge(found, rail_mv)

    def finish(self) -> dict[str, Any]:
        """Take what is left and solve once more; the summary."""
        self._close_window()
        self._solve()
        return self.summary()

    @property
    def reading(self) -> Reading:
        """The meter's last one."""
        return self._last

    @property
    def scans(self) -> int:
        """How many were counted."""
        return self._modelled.scans

    @property
    def source(self) -> Source:
        """MEASURED where every rung that answered is resolved, else the model's."""
        return Source.MEASURED if self._all_resolved() else self._modelled.source

    def _all_resolved(self) -> bool:
        answered = [rung for rung in Rung if self._ever[rung] + self._counts[rung]]
        return bool(answered) and all(self._charges[rung] is not None for rung in answered)

    @property
    def scans_uj(self) -> Interval:
        """Energy of all scans counted: measured where `source` says so (95 %), else the model's range."""
        if not self._all_resolved():
            return self._modelled.scans_uj
        total = error = 0.0
        for rung in Rung:
            count = self._ever[rung] + self._counts[rung]
            if count:
                found = self._estimates[rung.name.lower()]
                total += count * found.value
                error += count * (found.high - found.low) / 2
        return Interval(max(total - error, 0.0) * 1e6, (total + error) * 1e6)

    def summary(self) -> dict[str, Any]:
        """The meter's joules over the run, and each stage's energy, as JSON values."""
        joules = self._last.energy_j - self._first.energy_j
        uncertain = self._last.uncertainty_j
        answered = [rung.name.lower() for rung in Rung if self._ever[rung]]
        shown = [n for n in (*answered, "idle_w") if n in self._estimates]
        return {
            "meter": self._meter.name,
            "domain": self._meter.domain,
            "emulated": self._emulated,
            "lost": self.lost,
            "energy_j": joules,
            "energy_uncertainty_j": uncertain if math.isfinite(uncertain) else None,
            "windows": self._windows,
            "stages": {name: _row(self._estimates[name], name) for name in shown},
        }


def in_the_loop(args: Namespace, modelled: ModelledMeter, clock_us: ClockUs, stack: ExitStack) -> FieldMeter:
    """The meter that `--meter` names, for the loop; it is closed with the stack.

    Raises BadInput for a name that is none, HardwareUnavailable where the meter is not there.
    """
    bench, _ = bench_of(args, stack)
    meter = stack.enter_context(open_meter(args.meter, bench))
    meter.require()
    return FieldMeter(meter, modelled, clock_us, emulated=args.emulated)


def _charge(found: Estimate, rail_mv: int) -> Charge | None:
    nj = found.value * 1e9
    if not found.resolved or not 0 <= nj <= _MAX_NJ:
        return None
    return Charge(round(nj), round((found.high - found.low) / 2 / _Z95 * 1e9), int(Source.MEASURED), rail_mv)


def _row(found: Estimate, name: str) -> dict[str, Any]:
    unit = "W" if name == "idle_w" else "J"
    if not math.isfinite(found.error):
        return {"text": found.text(unit), "resolved": False}
    figure = {"value": found.value} if found.resolved else {}
    return {
        **figure,
        "error": found.error,
        "interval": [found.low, found.high],
        "resolved": found.resolved,
        "text": found.text(unit),
    }
