"""`edge-runtime plan`: the expected battery life before the mission starts, and what is spent where.

Four ways to fly the same mission: as the governor would; the same board and duty with the model asked on every
sweep; the scanner sweeping always, the model always on, nothing switched off; and that without any model. Powers
are intervals from the profiles. The ratio of two lives is computed with each profile quantity the same on both
sides, over all corners of their ranges.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hw_profiles
from edge_runtime import console, duty
from edge_runtime.board import GROUPS
from edge_runtime.bundle import Bundle, Manifest
from edge_runtime.engines.compiled import SCORE_ASK
from edge_runtime.errors import BadInput
from edge_runtime.governor import Budget, Past
from edge_runtime.governor.history import Plan, learnt_from, slots_of
from edge_runtime.governor.in_the_loop import asked, budget_of, examples_in
from edge_runtime.journal import VerdictRecord
from edge_runtime.planning import arrivals, flight, report
from edge_runtime.planning.ways import Ratios, Way, levers, life_ratios, ways_to_fly
from edge_runtime.planning.work import Work, calibration, scored, work
from edge_runtime.power.figures import capacity_j
from edge_runtime.power.interval import Interval
from edge_runtime.power.modelled import loop_work
from edge_runtime.verdict import Rung
from hw_profiles import Mission

DAY_US = 86_400_000_000


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
    parser.add_argument(
        "--plan-from",
        type=Path,
        nargs="+",
        default=[],
        metavar="JOURNAL",
        help="the governor has learnt from these journals' missions",
    )
    parser.add_argument("--plot", type=Path, metavar="SVG", help="write a plot there")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: Namespace) -> int:
    """Print the plan; write the plot where one is asked for."""
    document = plan(args)
    if args.plot:
        _write(args.plot, report.plot(document))
    if args.json:
        console.print_json(document)
    else:
        print("\n".join(report.lines(document)))
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
    flown, seen, learnt = _fly_a_day(args, bundle, each, chosen, budget)
    took_s = time.monotonic() - begun
    answered = flown.got / flown.changes if flown.changes else 1.0
    if 0 < answered < 1:
        # What the governor leaves unanswered, more sweeps have to make up for.
        limit = replace(limit, per_sweep=round(limit.per_sweep * answered, 4))
        chosen = _duty(mission, limit, args)
    ways = ways_to_fly(mission, each, chosen, flown, args)
    ratios = life_ratios(mission, chosen, ways, args)
    document = _document(args, mission, battery_j, budget, chosen, ways, ratios, flown, seen)
    document["governor"]["plan"] = learnt
    document |= {"levers": levers(chosen, ways), "run_with": _run_with(args, limit)}
    document["goals"] = _goals(document, limit)
    return document | {"simulated_s": round(took_s, 3)}


def _run_with(args: Namespace, limit: duty.Limit) -> str:
    """The options that have `run` carry this plan out."""
    words = ["--profile", args.profile, "--scanner", args.scanner, "--battery", args.battery]
    words += ["--budget", args.budget, "--hours", f"{args.hours:g}", "--tune", ",".join(GROUPS)]
    words += [] if args.no_pause else ["--limit", str(limit)]
    words += ["--plan-from", *map(str, args.plan_from)] if args.plan_from else []
    return " ".join(words + ["--own-battery"] * args.own_battery)


def _duty(mission: Mission, limit: duty.Limit, args: Namespace) -> duty.Duty:
    return duty.choose(mission, limit, sweep_hz=args.rate, can_pause=not args.no_pause)


def _planned(mission: Mission, limit: duty.Limit, args: Namespace) -> duty.Duty:
    """The duty that `run` goes by before it has timed a sweep: a run time to reach is the same for both."""
    return duty.planned(mission, None if args.no_pause else limit, mission.board.idle_tuned_mw.range)


def _fly_a_day(
    args: Namespace, bundle: Bundle, each: Work, chosen: duty.Duty, budget: Budget
) -> tuple[flight.Flight, str, str]:
    """A day of the mission (or less, where the mission is shorter) under its share of the budget.

    What was flown, and in words what was heard and what was known of earlier missions.
    """
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
    chances, learnt = calibration(bundle.manifest), _learnt(args, bundle, share)
    pasts = yes_or_no(learnt, bundle.manifest)
    flown = flight.fly("governor", heard, share, chances, each.governed_costs, pasts)
    # In the loop the network follows the trees where their margin is small: as often as in the log, or at the build.
    flown.network = round(flown.trees * asked)
    return flown, seen, learnt.note


def _learnt(args: Namespace, bundle: Bundle, share: Budget) -> Plan:
    """The governor's spending plan for the day that is flown: what `run` would learn for a mission as long."""
    return learnt_from(examples_in(args.plan_from), asked(bundle, share))


def yes_or_no(plan: Plan, manifest: Manifest) -> list[Past]:
    """The plan's past missions for a screen that says yes or no, as `calibration` has it."""
    bins = scored(manifest).score_bin
    first_quiet = bins[SCORE_ASK - 1]
    return [
        Past([[sum(slot[:first_quiet]), sum(slot[first_quiet:])] for slot in slots_of(payload)])
        for payload in plan.payloads
    ]


def _asked(records: Sequence[VerdictRecord]) -> float:
    """After how many of a log's answers by the trees the network was asked, as a share."""
    network = sum(record.rung == Rung.NETWORK for record in records)
    return network / max(1, network + sum(record.rung == Rung.TREES for record in records))


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
                "model_share": way.model_mw.share_of(way.rest_mw).to_json(),
                "scan_hz": round(way.scan_hz, 4),
                "signals_caught": round(way.caught, 4),
            }
        )
    at_rate = ways[2].model_mw.share_of(ways[2].rest_mw).to_json()
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


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as e:
        raise BadInput(f"plot {path}: {e.strerror}; choose another --plot") from e
