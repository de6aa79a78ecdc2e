"""Energy in the field: a real meter's joules, attributed to what the loop does.

Everything is counted by stage: scans that were screened, those that asked the trees or the network, kilobytes
received, kilobytes written to the journal and its syncs. At the end of a window of a few seconds the meter is
read, and window and counts go to the running regression, which gives each stage's energy.

A scan is charged with the stages that it went through and its share of port and journal: measured once their
sum is resolved, until then with the model's figure, which says so. Stages that always move together cannot be
told apart, and no figure pretends to: the sum may be known all the same. With a scan rate that never changes
even the sum hides in the idle power, and the model's figures stay: a duty cycle, or pauses, bring it out.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from edge_runtime.errors import HardwareUnavailable
from edge_runtime.journal import JournalWriter
from edge_runtime.power.attribution import LEAST_WINDOWS, UNRESOLVED, Estimate, Regression, Solution
from edge_runtime.power.base import Charge, Meter, Reading, Source
from edge_runtime.power.clock import ClockUs
from edge_runtime.power.interval import Interval
from edge_runtime.power.meters import bench_of, open_meter
from edge_runtime.power.modelled import ModelledMeter
from edge_runtime.verdict import Rung

WINDOW_S = 2.0
QUIET_US = 80_000
"""A window ends best when nothing was done for so long: then no work straddles its edge."""
SOLVE_EVERY = 60
"""Windows between two solutions: two minutes. Solving costs a device some milliseconds."""

THROUGH = {
    Rung.SCREEN: ("screen",),
    Rung.TREES: ("screen", "trees"),
    Rung.NETWORK: ("screen", "trees", "network"),
    Rung.BASELINE: ("baseline",),
    Rung.LAST_GOOD: ("last_good",),
    Rung.NONE: ("none",),
}
"""The stages that a scan answered at a rung went through; what the loop does for every scan is in the first."""
UNITS = {
    "screen": "J a scan",
    "trees": "J a scan",
    "network": "J a scan",
    "baseline": "J a scan",
    "last_good": "J a scan",
    "none": "J a scan",
    "serial": "J a kilobyte received",
    "journal": "J a kilobyte written",
    "sync": "J a sync of the journal",
}
STAGES = tuple(UNITS)
_OF_ALL = STAGES[6:]
"""Stages that no rung has to itself."""

FEW = 0.01
"""So small a share of the scans may have answers whose energy is not resolved: they count as the others' mean."""

_MAX_NJ = 0xFFFF_FFFF
_Z95 = 1.96
_NOTHING = Solution(dict.fromkeys(STAGES, UNRESOLVED), UNRESOLVED, {})


class FieldMeter:
    """A real meter in the loop, with the modelled one to fall back on.

    heard: before bytes that arrived are looked at. charge: once a scan. finish: the last window. summary: what
    was found.
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
        self._counts = modelled.counts  # the very list: a scan is counted once
        self._received = 0
        self._journal: JournalWriter | None = None
        self._charges: list[Charge | None] = [None] * len(Rung)
        self._found = _NOTHING
        self._regression = Regression(STAGES)
        self.lost: str | None = None
        self._windows = 0
        self._first = self._last = meter.read()
        self._closed_us = self._active_us = clock_us()
        self._due_us = self._closed_us + self._window_us
        self._tallied = self._edge = self._began = [0.0] * len(STAGES)

    def watch(self, journal: JournalWriter) -> None:
        """Count the journal's work too, from here on."""
        self._journal = journal
        self._tallied = self._edge = self._began = self._tally()

    def heard(self, size: int) -> None:
        """So many bytes arrived, and nothing was done with them yet: the time to end a window."""
        now_us = self._clock_us()
        if now_us >= self._due_us:
            self._close_window(now_us, quiet=True)
        self._received += size
        self._active_us = now_us  # damaged bytes are work too, though no scan follows

    def charge(self, rung: int) -> Charge:
        """Count one scan answered at `rung`; its energy, measured where that is resolved."""
        modelled = self._modelled.charge(rung)
        self._active_us = now_us = self._clock_us()
        if now_us >= self._due_us + self._window_us:  # there never was a quiet moment
            self._close_window(now_us)
        return self._charges[rung] or modelled

    def _tally(self) -> list[float]:
        """All counts so far, in the order of STAGES."""
        tally = dict.fromkeys(STAGES, 0.0)
        for rung, stages in THROUGH.items():
            for stage in stages:
                tally[stage] += self._counts[rung]
        tally["serial"] = self._received * 1e-3
        if self._journal is not None:
            tally["journal"], tally["sync"] = self._journal.written * 1e-3, float(self._journal.syncs)
        return list(tally.values())

    def _counted(self) -> dict[str, float]:
        """What was counted until the last window's end."""
        return {
            stage: now - began for stage, now, began in zip(STAGES, self._tallied, self._began, strict=True)
        }

    def _close_window(self, now_us: int, *, quiet: bool = False) -> None:
        """Read the meter and take the window. quiet: only where its last conversion saw the work's end."""
        if self.lost is not None:
            return
        try:
            reading = self._meter.read()
        except HardwareUnavailable as e:
            self.lost = str(e)
            return
        seconds = (reading.at_us - self._last.at_us) * 1e-6
        if seconds <= 0 or (quiet and reading.at_us < self._active_us + QUIET_US):  # let the window go on
            return
        tally, edge = self._at(reading.at_us, now_us)
        self._regression.add(
            seconds,
            reading.energy_j - self._last.energy_j,
            [n - before for n, before in zip(edge, self._edge, strict=True)],
        )
        self._last, self._closed_us, self._tallied, self._edge = reading, now_us, tally, edge
        self._due_us = now_us + self._window_us
        self._windows += 1
        if self._windows % SOLVE_EVERY == 0:
            self._solve()

    def _at(self, reading_us: int, now_us: int) -> tuple[list[float], list[float]]:
        """All counts now, and as they stood at the reading, which is as old as the meter's last conversion.

        Left as they are, the counts would belong to energy that the window has not got: every figure too small by
        the reading's age over the window's length.
        """
        tally = self._tally()
        behind = 0.0
        if self._active_us > reading_us:  # else nothing was done since
            behind = min((now_us - reading_us) / max(now_us - self._closed_us, 1), 1.0)
        return tally, [n - behind * (n - before) for n, before in zip(tally, self._tallied, strict=True)]

    def _solve(self) -> None:
        self._found = self._regression.solve()
        rail_mv = 0 if math.isnan(self._last.rail_v) else round(self._last.rail_v * 1e3)
        for rung in Rung:
            found = self._found.combined(self._one_scan(rung)) if self._counts[rung] else UNRESOLVED
            found = found.also(self._meter_error)
            self._charges[rung] = None if self._emulated else _charge(found, rail_mv)

    @property
    def _meter_error(self) -> float:
        """What the meter itself is uncertain by, relative: no number of windows makes that smaller."""
        return self._last.uncertainty_j / self._last.energy_j if self._last.energy_j > 0 else math.inf

    def _one_scan(self, rung: Rung) -> dict[str, float]:
        """The stages of one scan, with its share of what all scans have in common."""
        counted = self._counted()
        return {
            **{stage: counted[stage] / max(self.scans, 1) for stage in _OF_ALL},
            **dict.fromkeys(THROUGH[rung], 1.0),
        }

    def finish(self) -> dict[str, Any]:
        """Take what is left and solve once more; the summary."""
        self._close_window(self._clock_us())
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
        """MEASURED where every rung that answered more than FEW scans is resolved, else the model's."""
        return Source.MEASURED if self._resolved() else self._modelled.source

    def _resolved(self) -> list[Rung]:
        """The rungs whose energy is known; none where they leave out more than FEW scans."""
        known = [rung for rung in Rung if self._charges[rung] is not None]
        left_out = self.scans - sum(self._counts[rung] for rung in known)
        return known if left_out <= FEW * self.scans else []

    @property
    def scans_uj(self) -> Interval:
        """Energy of all scans counted: measured where `source` says so (95 %), else the model's range."""
        rungs = self._resolved()
        if not rungs:
            return self._modelled.scans_uj
        together: dict[str, float] = {}
        for rung in rungs:
            for stage, count in self._one_scan(rung).items():
                together[stage] = together.get(stage, 0.0) + count * self._counts[rung]
        found = self._found.combined(together).also(self._meter_error)
        scale = 1e6 * self.scans / sum(self._counts[rung] for rung in rungs)
        return Interval(max(found.low, 0.0) * scale, max(found.high, 0.0) * scale)

    def summary(self) -> dict[str, Any]:
        """The meter's joules over the run, and each stage's energy, as JSON values."""
        joules = self._last.energy_j - self._first.energy_j
        uncertain = self._last.uncertainty_j
        found, counted, error = self._found, self._counted(), self._meter_error
        stages = {
            name: _row(found.stages[name].also(error), UNITS[name], found.inseparable.get(name, ()))
            for name in STAGES
            if counted[name]
        }
        return {
            "meter": self._meter.name,
            "domain": self._meter.domain,
            "emulated": self._emulated,
            "lost": self.lost,
            "energy_j": joules,
            "energy_uncertainty_j": uncertain if math.isfinite(uncertain) else None,
            "windows": self._windows,
            "own_cpu_s": getattr(self._meter, "own_cpu_s", None),
            "counted": counted,
            "stages": {"idle": _row(found.idle_w.also(error), "W", ()), **stages},
        }


def lines(summary: dict[str, Any]) -> Iterator[str]:
    """The summary for people."""
    uncertain = summary["energy_uncertainty_j"]
    source = "EMULATED, no hardware" if summary["emulated"] else "measured"
    yield (
        f"meter      {summary['meter']}: {summary['energy_j']:.4g} +- "
        f"{'unknown' if uncertain is None else f'{uncertain:.2g}'} J in {summary['windows']} windows ({source})"
    )
    if summary["own_cpu_s"] is not None:
        yield f"           sampling it took {summary['own_cpu_s']:.2g} s of a core"
    if summary["lost"]:
        yield f"           lost: {summary['lost']}"
    if summary["windows"] < LEAST_WINDOWS:
        yield f"           stages come apart from {LEAST_WINDOWS} windows on, some minutes"
        return
    for name, row in summary["stages"].items():
        yield f"  {name:<24} {row['text']}"


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


def _row(found: Estimate, unit: str, moves_with: tuple[str, ...]) -> dict[str, Any]:
    """One stage as JSON values; a figure only where it is resolved."""
    row: dict[str, Any] = {"unit": unit, "resolved": found.resolved, "text": found.text(unit)}
    if moves_with:
        others = " and ".join(moves_with)
        named = found.resolved and "idle" not in moves_with
        row["not_separable_from"] = list(moves_with)
        row["resolved"] = named
        row["text"] = f"{row['text']}, {others} included" if named else f"not separable from {others}"
    if math.isfinite(found.error) and math.isfinite(found.high):
        row |= {"error": found.error, "interval": [found.low, found.high]}
    if row["resolved"]:
        row["value"] = found.value
    return row
