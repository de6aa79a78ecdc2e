"""`edge-runtime replay JOURNAL --policy ...`: what another policy would have cost on a real log, and missed."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hw_profiles
from edge_runtime import console
from edge_runtime.bundle import Bundle
from edge_runtime.governor import Budget
from edge_runtime.journal import VerdictRecord
from edge_runtime.planning import arrivals, flight
from edge_runtime.planning.work import calibration, work
from edge_runtime.power.figures import capacity_j
from edge_runtime.power.modelled import loop_work
from edge_runtime.verdict import Rung


def add_arguments(parser: console.Parser) -> None:
    """The command's arguments."""
    parser.add_argument("directory", type=Path, metavar="JOURNAL", help="the log's folder")
    parser.add_argument(
        "--bundle", type=Path, required=True, help="the .edge file that the log was made with"
    )
    parser.add_argument(
        "--policy", action="append", help=f"one of {flight.POLICIES}; may be given more than once"
    )
    parser.add_argument("--budget", default="1%", help="what inference might have used (%(default)s)")
    parser.add_argument("--profile", default="zero2w", help="the board's profile (%(default)s)")
    parser.add_argument("--battery", default="li-ion-18650", help="the battery's profile (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: Namespace) -> int:
    """Print what each policy would have done."""
    document = replay(args)
    if args.json:
        console.print_json(document)
    else:
        print("\n".join(lines(document)))
    return 0


def replay(args: Namespace) -> dict[str, Any]:
    """Each policy on the log, as a JSON-able document."""
    bundle = Bundle.open(args.bundle)
    board = hw_profiles.board(args.profile)
    mission = hw_profiles.mission(args.profile, battery=args.battery)
    each = work(bundle, board, loop_work())
    records, heard = arrivals.from_journal(args.directory)
    hours = max(heard[-1].captured_us, 1_000_000) / 3.6e9
    budget = Budget.parse(
        args.budget,
        hours,
        battery_j=capacity_j(mission.battery).low,
        battery_v=mission.battery.mean_v.range.middle,
        efficiency=mission.battery.converter_efficiency.range.middle,
    )
    chances = calibration(bundle.manifest)
    rows = []
    for policy in args.policy or ["always", "screen", "governor"]:
        # Decided and paid as in the loop, where the network follows the trees; priced as what then ran.
        flown = flight.fly(policy, heard, budget, chances, each.governed_costs)
        rows.append(
            {
                "policy": policy,
                "screened": flown.screened,
                "trees": flown.trees,
                "network": flown.network,
                "screen_j": flown.screened * each.costs.screen_nj / 1e9,
                "trees_j": flown.trees * each.costs.trees_nj / 1e9,
                "network_j": flown.network * each.costs.network_nj / 1e9,
                "inference_j": flown.spent_nj(each.costs) / 1e9,
                "changes": flown.changes,
                "missed": flown.missed,
            }
        )
    return {"log": _log(records, hours), "budget_j": budget.energy_nj / 1e9, "policies": rows}


def _log(records: Sequence[VerdictRecord], hours: float) -> dict[str, Any]:
    by_rung = {rung.name: sum(r.rung == rung for r in records) for rung in Rung}
    return {
        "scans": len(records),
        "hours": hours,
        "rungs": {name: count for name, count in by_rung.items() if count},
        "recorded_j": sum(r.energy_nj for r in records) / 1e9,
        "unknown_to_it": "where only the screen answered, nobody knows what the trees would have said, "
        "nor whether the network would have been asked",
    }


def lines(document: Mapping[str, Any]) -> Iterator[str]:
    """The counterfactuals for people."""
    log = document["log"]
    yield f"log        {log['scans']} scans in {log['hours']:.2f} h, {log['recorded_j']:.4g} J; {log['rungs']}"
    yield f"budget     {document['budget_j']:.4g} J for inference"
    columns = (
        "screened",
        "trees",
        "network",
        "screen_j",
        "trees_j",
        "network_j",
        "inference_j",
        "changes",
        "missed",
    )
    yield f"{'policy':<14}" + "".join(f"{name:>12}" for name in columns)
    for row in document["policies"]:
        cells = (f"{row[c]:>12.4g}" if c.endswith("_j") else f"{row[c]:>12}" for c in columns)
        yield f"{row['policy']:<14}" + "".join(cells)
    yield f"({log['unknown_to_it']})"
