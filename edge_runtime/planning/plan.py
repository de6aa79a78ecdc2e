"""`edge-runtime plan`: the expected battery life before the mission starts, and what is spent where.

Four ways to fly the same mission: as the governor would; the same board and duty with the model asked on every
sweep; the scanner sweeping always, the model always on, nothing switched off; and that without any model. Powers
are intervals from the profiles. The ratio of two lives is computed with each profile quantity the same on both
sides, over all corners of their ranges.
"""

from __future__ import annotations

import itertools
import math
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hw_profiles
from edge_runtime import console, duty
from edge_runtime.board import GROUPS
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BadInput
from edge_runtime.governor import Budget
from edge_runtime.governor.in_the_loop import budget_of
from edge_runtime.journal import VerdictRecord
from edge_runtime.planning import arrivals, flight, svg
from edge_runtime.planning.work import HOST, PARTS, Ran, Work, calibration, work
from edge_runtime.power.figures import capacity_j
from edge_runtime.power.interval import Interval, exactly
from edge_runtime.power.modelled import loop_work
from edge_runtime.verdict import Rung
from hw_profiles import Mission

DAY_US = 86_400_000_000


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

    def life_h(self, capacity: Interval) -> Interval:
        """From full to empty."""
        return (capacity / self.total_mw).scaled(1 / 3.6)


def add_arguments(parser: console.Parser) -> None:
    """The command's arguments."""
    parser.add_argument("--bundle", type=Path, required=True, help="the .edge file")
    parser.add_argument("--profile", default="zero2w", help="the board's profile (%(default)s)")
    parser.add_argument("--scanner", default="rf-explorer", help="the scanner's profile (%(default)s)")
    parser.add_argument("--battery", default="li-ion-18650", help="the battery's profile (%(default)s)")
    parser.add_argument("--own-battery", action="store_true", help="the scanner runs on a battery of its own")
    parser.add_argument(
        "--budget", default="1%", help="what inference may use: 1%%, 20mAh, 50J, 48h (%(default)s)"
    )
    parser.add_argument("--hours", type=float, default=24.0, help="the mission's length (%(default)s)")
    parser.add_argument(
        "--limit",
        default="2s:95%",
        metavar="T:P",
        help="rest as long as a signal of length T is caught with chance P (%(default)s)",
    )
    parser.add_argument("--no-pause", action="store_true", help="the scanner sweeps without a rest")
    parser.add_argument("--rate", type=float, default=5.0, metavar="HZ", help="sweeps a second (%(default)s)")
    parser.add_argument("--log", type=Path, metavar="DIR", help="arrivals of this journal, not by chance")
    parser.add_argument(
        "--active", type=float, default=0.1, help="share of scans with something (%(default)s)"
    )
    parser.add_argument("--plot", type=Path, metavar="SVG", help="write a plot there")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: Namespace) -> int:
    """Print the plan; write the plot where one is asked for."""
    document = plan(args)
    if args.plot:
        _write(args.plot, plot(document))
    if args.json:
        console.print_json(document)
    else:
        print("\n".join(lines(document)))
    return 0


def plan(args: Namespace) -> dict[str, Any]:
    """The plan as a JSON-able document."""
    bundle = Bundle.open(args.bundle)
    mission = hw_profiles.mission(args.profile, args.scanner, args.battery, shared=not args.own_battery)
    if not (0 < args.hours <= 24 * 366 and 0 < args.rate <= 1000):
        raise BadInput(
            f"plan: {args.hours} hours at {args.rate} sweeps a second; give positive numbers, a year at most"
        )
    each = work(bundle, mission.board, loop_work())
    limit = duty.Limit.parse(args.limit)
    chosen = _duty(mission, limit, args)
    battery_j = capacity_j(mission.battery)
    budget = budget_of(
        args.budget, args.hours, mission, duty.rest_mw(_planned(mission, limit, args), args.own_battery)
    )
    begun = time.monotonic()
    flown, seen = _fly_a_day(args, bundle, each, chosen, budget)
    took_s = time.monotonic() - begun
    answered = flown.got / flown.changes if flown.changes else 1.0
    if 0 < answered < 1:
        # What the governor leaves unanswered, more sweeps have to make up for.
        limit = replace(limit, per_sweep=round(limit.per_sweep * answered, 4))
        chosen = _duty(mission, limit, args)
    ways = _ways(mission, each, chosen, flown, args)
    ratios = _ratios(mission, chosen, ways, args)
    document = _document(args, mission, battery_j, budget, chosen, ways, ratios, flown, seen)
    document |= {"levers": _levers(chosen, ways), "run_with": _run_with(args, limit)}
    document["goals"] = _goals(document, limit)
    return document | {"simulated_s": round(took_s, 3)}


def _run_with(args: Namespace, limit: duty.Limit) -> str:
    """The options that have `run` carry this plan out."""
    words = ["--profile", args.profile, "--scanner", args.scanner, "--battery", args.battery]
    words += ["--budget", args.budget, "--hours", f"{args.hours:g}", "--tune", ",".join(GROUPS)]
    words += [] if args.no_pause else ["--limit", str(limit)]
    return " ".join(words + ["--own-battery"] * args.own_battery)


def _duty(mission: Mission, limit: duty.Limit, args: Namespace) -> duty.Duty:
    return duty.choose(mission, limit, sweep_hz=args.rate, can_pause=not args.no_pause)


def _planned(mission: Mission, limit: duty.Limit, args: Namespace) -> duty.Duty:
    """The duty that `run` goes by before it has timed a sweep: a run time to reach is the same for both."""
    return duty.planned(mission, None if args.no_pause else limit, mission.board.idle_tuned_mw.range)


def _fly_a_day(
    args: Namespace, bundle: Bundle, each: Work, chosen: duty.Duty, budget: Budget
) -> tuple[flight.Flight, str]:
    """A day of the mission (or less, where the mission is shorter) under its share of the budget."""
    day_us = min(DAY_US, budget.duration_us)
    scan_us = int(chosen.period_s * 1e6)
    if args.log:
        records, logged = arrivals.from_journal(args.log)
        asked = _asked(records)
        heard = [logged[n % len(logged)]._replace(captured_us=n * scan_us) for n in range(day_us // scan_us)]
        seen = f"the order of {len(logged)} scans in {args.log}"
    else:
        heard = arrivals.by_chance(day_us // scan_us, scan_us, args.active)
        asked = ((bundle.manifest.get("network") or {}).get("cascade") or {}).get("asked", 0.0)
        seen = f"by chance: something in {args.active:.0%} of the scans, in bursts, more by day than by night"
    share = Budget(budget.energy_nj * day_us // budget.duration_us, day_us, 0, budget.text)
    flown = flight.fly("governor", heard, share, calibration(bundle.manifest), each.governed_costs)
    # In the loop the network follows the trees where their margin is small: as often as in the log, or at the build.
    flown.network = round(flown.trees * asked)
    return flown, seen


def _asked(records: Sequence[VerdictRecord]) -> float:
    """After how many of a log's answers by the trees the network was asked, as a share."""
    network = sum(record.rung == Rung.NETWORK for record in records)
    return network / max(1, network + sum(record.rung == Rung.TREES for record in records))


def _ways(
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


def _levers(chosen: duty.Duty, ways: Sequence[Way]) -> list[dict[str, Any]]:
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


def _goals(document: Mapping[str, Any], limit: duty.Limit) -> list[dict[str, Any]]:
    """What a mission is held to, each with its figure."""
    governed, _, always, none = document["ways"]
    ratio = document["life_ratio_to_always_without_model"]["as planned"]["nominal"]
    detections = governed["signals_caught"] / always["signals_caught"]
    share = document["model_share_at_rate"][1]
    rows = [
        (f"life, as many times that of '{none['way']}', nominal", ratio, ">=", 1.5),
        ("signals caught, of those that always-on catches", detections, ">=", limit.chance),
        (f"signals of {limit.signal_s:g} s caught", governed["signals_caught"], ">=", limit.chance),
        (f"the model's share at {1 / document['rate_s']:g} scans a second, upper end", share, "<=", 0.01),
    ]
    return [
        {"name": name, "value": value, "goal": f"{sign} {goal:g}", "met": _meets(value, sign, goal)}
        for name, value, sign, goal in rows
    ]


def _meets(value: float | None, sign: str, goal: float) -> bool:
    if value is None:
        return False
    return value >= goal - 1e-4 if sign == ">=" else value <= goal


Ratios = dict[str, dict[str, float | None]]


def _ratios(mission: Mission, chosen: duty.Duty, ways: Sequence[Way], args: Namespace) -> Ratios:
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


def _document(
    args: Namespace,
    mission: Mission,
    battery_j: Interval,
    budget: Budget,
    chosen: duty.Duty,
    ways: Sequence[Way],
    ratios: Ratios,
    flown: flight.Flight,
    seen: str,
) -> dict[str, Any]:
    rows = []
    for way in ways:
        life = way.life_h(battery_j)
        rows.append(
            {
                "way": way.name,
                "life_h": life.to_json(),
                "total_mw": way.total_mw.to_json(),
                "parts_mw": {part: power.to_json() for part, power in way.powers_mw.items()},
                "model_share": way.model_mw.share_of(_rest(way)).to_json(),
                "scan_hz": round(way.scan_hz, 4),
                "signals_caught": round(way.caught, 4),
            }
        )
    at_rate = ways[2].model_mw.share_of(_rest(ways[2])).to_json()
    return {
        "board": mission.board.title,
        "scanner": mission.scanner.title + (" (on its own battery)" if args.own_battery else ""),
        "battery": mission.battery.title,
        "battery_j": battery_j.to_json(),
        "hours": args.hours,
        "rate_s": 1 / args.rate,
        "budget": {"text": budget.text, "joules": budget.energy_nj / 1e9},
        "policy": "governor",
        "duty": {
            "period_s": round(chosen.period_s, 3),
            "sweep_s": round(chosen.sweep_s, 3),
            "caught": round(chosen.caught, 4),
            "board_off_between_sweeps": chosen.board_off,
            "why": list(chosen.why),
        },
        "ways": rows,
        "life_ratio_to_always_without_model": ratios,
        "model_share_at_rate": at_rate,
        "governor": {
            "scans": flown.scans,
            "screened": flown.screened,
            "trees": flown.trees,
            "network": flown.network,
            "answers_missed": flown.missed,
            "arrivals": seen,
        },
        "basis": "modelled: profiles' ranges and counted instructions; nothing here was measured",
    }


def _rest(way: Way) -> Interval:
    rest = exactly(0)
    for part in PARTS[:5]:
        rest = rest + way.powers_mw[part]
    return rest


def lines(document: Mapping[str, Any]) -> Iterator[str]:
    """The plan for people."""
    yield f"{document['board']}, {document['scanner']}, {document['battery']}"
    yield (
        f"budget     {document['budget']['text']} = {document['budget']['joules']:.4g} J for inference in "
        f"{document['hours']:g} h"
    )
    rest = document["duty"]
    yield (
        f"duty       a sweep of {rest['sweep_s']} s every {rest['period_s']} s; signals caught {rest['caught']:.1%}"
    )
    for why in rest["why"]:
        yield f"           {why}"
    yield ""
    yield f"{'way':<22}{'life, hours':>18}{'power, mW':>18}{'model':>22}{'caught':>8}"
    for row in document["ways"]:
        yield (
            f"{row['way']:<22}{_span(row['life_h']):>18}{_span(row['total_mw']):>18}"
            f"{_span([100 * (x or 0) for x in row['model_share']]) + ' %':>22}{row['signals_caught']:>8.1%}"
        )
    yield ""
    yield f"{'part, mW':<22}" + "".join(f"{row['way']:>22}" for row in document["ways"])
    for part in PARTS:
        yield f"{part:<22}" + "".join(f"{_span(row['parts_mw'][part]):>22}" for row in document["ways"])
    yield ""
    yield f"{'saved by, mW':<30}{'nominal':>12}{'range':>20}{'of it all':>12}"
    for row in document["levers"]:
        if row["saved_mw"] is None:
            yield f"{row['lever']:<30}{'unknown':>12}"
            continue
        share = "" if row["share"] is None else f"{row['share']:.1%}"
        span = "{:.3g} to {:.3g}".format(*row["interval_mw"])
        yield f"{row['lever']:<30}{row['saved_mw']:>12.3g}{span:>20}{share:>12}"
    yield ""
    yield "life over that of 'always, no model':"
    for name, ends in document["life_ratio_to_always_without_model"].items():
        if ends["low"] is None:
            yield f"  {name}: unknown, as a power in the profiles is"
        else:
            yield f"  {name}: {ends['nominal']:.2f} ({ends['low']:.2f} to {ends['high']:.2f})"
    yield ""
    for row in document["goals"]:
        value = "unknown" if row["value"] is None else f"{row['value']:.4g}"
        yield f"{'met   ' if row['met'] else 'missed'}  {row['name']}: {value} (goal {row['goal']})"
    yield ""
    yield f"carried out by: edge-runtime run {document['run_with']}"
    yield f"({document['basis']}; arrivals {document['governor']['arrivals']})"


def _span(ends: Sequence[float | None]) -> str:
    low, high = ends
    if high is None:
        return "unknown" if not low else f"{low:.3g} or more"
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def plot(document: Mapping[str, Any]) -> str:
    """The ways as stacked bars of mean power; unknown parts are left out and said so."""
    bars = []
    for row in document["ways"]:
        known = {part: sum(ends) / 2 for part, ends in row["parts_mw"].items() if None not in ends}
        unknown = [part for part, ends in row["parts_mw"].items() if None in ends]
        note = f"{_span(row['life_h'])} h" + (f" ({', '.join(unknown)} unknown)" if unknown else "")
        bars.append((row["way"], note, known))
    return svg.stacked_bars(f"{document['board']}: mean power and battery life", "mW", bars)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as e:
        raise BadInput(f"plot {path}: {e.strerror}; choose another --plot") from e
