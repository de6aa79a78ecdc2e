"""The ways to fly a mission, what each takes by part, and what makes the difference between them."""

from __future__ import annotations

import itertools
import math
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_runtime import duty
from edge_runtime.planning import flight
from edge_runtime.planning.work import HOST, PARTS, Ran, Work
from edge_runtime.power.interval import Interval, exactly
from hw_profiles import Mission


@dataclass(frozen=True, slots=True)
class Way:
    """One way to fly the mission: mean power by part, milliwatts, and the share of signals it catches."""

    name: str
    powers_mw: Mapping[str, Interval]
    scan_hz: float
    caught: float

    @property
    def total_mw(self) -> Interval:
        """All parts."""
        total = exactly(0)
        for power in self.powers_mw.values():
            total = total + power
        return total

    @property
    def model_mw(self) -> Interval:
        """What the model itself takes: screen, trees and network."""
        return self.powers_mw["screen"] + self.powers_mw["trees"] + self.powers_mw["network"]

    @property
    def rest_mw(self) -> Interval:
        """What all but the model takes."""
        return sum((self.powers_mw[part] for part in PARTS[:-3]), exactly(0))

    def life_h(self, capacity: Interval) -> Interval:
        """From full to empty."""
        return (capacity / self.total_mw).scaled(1 / 3.6)


def ways_to_fly(
    mission: Mission, each: Work, chosen: duty.Duty, flown: flight.Flight, args: Namespace
) -> list[Way]:
    before = duty.always(mission)
    scans = max(1, flown.scans)
    governed = (flown.screened / scans, flown.trees / scans, flown.network / scans)
    asked = flown.network / flown.trees if flown.trees else 0.0
    always, none = (1.0, 1.0, asked), (0.0, 0.0, 0.0)
    own, hz = args.own_battery, chosen.scan_hz
    rested, unrested = (
        (chosen.board_mw, chosen.scanner_mw, hz, hz * (chosen.period_s > chosen.sweep_s)),
        (before.board_mw, before.scanner_mw, args.rate, 0.0),
    )
    return [
        _way("governor", each, *rested, governed, chosen.caught, own),
        _way("model on every sweep", each, *rested, always, chosen.caught, own),
        _way("always, with model", each, *unrested, always, 1.0, own),
        _way("always, no model", each, *unrested, none, 1.0, own),
    ]


def _way(
    name: str,
    each: Work,
    board_mw: Interval,
    scanner_mw: Interval,
    scan_hz: float,
    rest_hz: float,
    rungs: tuple[float, float, float],
    caught: float,
    own_battery: bool,
) -> Way:
    a_second = Ran(scan_hz, rest_hz, *(scan_hz * share for share in rungs))
    parts_mw = {part: uj.scaled(1e-3) for part, uj in each.parts_uj(a_second).items()}
    rest_mw = {"board idle": board_mw, "scanner": exactly(0) if own_battery else scanner_mw}
    return Way(name, rest_mw | parts_mw, scan_hz, caught)


def levers(chosen: duty.Duty, ways: Sequence[Way]) -> list[dict[str, Any]]:
    """What each measure saves of the power of 'always, no model', milliwatts; the model itself takes some back.

    Each from what it is about alone: a paused scanner draws no more than the same scanner sweeping, a board tuned no
    more than the same board.
    """
    governed, none = ways[0].powers_mw, ways[3].powers_mw
    # Energies a scan are the same on both sides; a rest is one too, of its own.
    fewer = sum((none[part] for part in HOST), exactly(0)).scaled(1 - ways[0].scan_hz / ways[3].scan_hz)
    rests = governed["rests"]
    sweeping, paced = none["scanner"], governed["scanner"]
    # Of the paced scanner's power `sweeping` is a part, so the ends of the difference lie at like ends.
    resting = Interval(
        0.0, max(0.0, sweeping.high - paced.low - (sweeping.high - sweeping.low) * chosen.sweeping)
    )
    taken = ways[0].model_mw
    rows = {
        "board tuning": _less(none["board idle"], governed["board idle"]),
        "scanner duty": (resting.low, sweeping.middle - paced.middle, resting.high),
        "fewer scans to read and log": (
            fewer.low - rests.high,
            fewer.middle - rests.middle,
            fewer.high - rests.low,
        ),
        "the model": (-taken.high, -taken.middle, -taken.low),
    }
    whole = sum(nominal for _, nominal, _ in rows.values())
    return [
        {
            "lever": lever,
            "saved_mw": nominal if math.isfinite(nominal) else None,
            "interval_mw": [low, high] if math.isfinite(nominal) else None,
            "share": nominal / whole if math.isfinite(whole) and whole else None,
        }
        for lever, (low, nominal, high) in rows.items()
    ]


def _less(before: Interval, after: Interval) -> tuple[float, float, float]:
    """Lowest, nominal and highest of a saving that is none at worst."""
    return max(0.0, before.low - after.high), before.middle - after.middle, before.high - after.low


Ratios = dict[str, dict[str, float | None]]


def life_ratios(mission: Mission, chosen: duty.Duty, ways: Sequence[Way], args: Namespace) -> Ratios:
    """Life with the governor over life always on without a model; then what each measure does alone, and what would.

    Every profile quantity is the same on both sides. `nominal` is at the middles of all ranges.
    """
    scanner = mission.scanner
    if args.own_battery:
        sweeping = paused = exactly(0)
    else:
        sweeping = scanner.power_mw.range
        paused = scanner.paused_mw.range if scanner.paused_mw.range.known else sweeping
    ranges = (mission.board.idle_mw.range, chosen.board_mw, sweeping, paused)
    share = min(1.0, chosen.sweep_s / chosen.period_s)
    governed, always = (sum(w.powers_mw[p].middle for p in PARTS[2:]) for w in (ways[0], ways[3]))
    cases = {
        "as planned": lambda idle, tuned, on, held: tuned + on * share + held * (1 - share) + governed,
        "tuned board alone": lambda idle, tuned, on, held: tuned + on + always,
        "pauses alone": lambda idle, tuned, on, held: idle + on * share + held * (1 - share) + governed,
        "would be, if the scanner drew nothing when paused": lambda idle, tuned, on, held: (
            tuned + on * share + governed
        ),
        "would be, on a board of a tenth of the idle power": lambda idle, tuned, on, held: (
            tuned / 10 + on * share + held * (1 - share) + governed
        ),
    }
    return {name: _ratio(ranges, always, power) for name, power in cases.items()}


def _ratio(
    ranges: tuple[Interval, Interval, Interval, Interval], always_mw: float, power: Callable[..., float]
) -> dict[str, float | None]:
    """Lowest and highest ratio over the corners that can be: tuned is no more than idle, paused than sweeping."""
    if not all(r.known for r in ranges):
        return {"low": None, "nominal": None, "high": None}

    def ratio(idle: float, tuned: float, on: float, held: float) -> float:
        return (idle + on + always_mw) / power(idle, tuned, on, held)

    corners = itertools.product(*((r.low, r.high) for r in ranges))
    # A ratio of sums is monotone in each, so its ends lie in corners; the two limits add their own.
    possible = [ratio(i, min(t, i), on, min(held, on)) for i, t, on, held in corners]
    return {"low": min(possible), "nominal": ratio(*(r.middle for r in ranges)), "high": max(possible)}
