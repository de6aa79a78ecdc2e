"""The governor against an oracle that knows the future, beside simpler policies, with kills; and what it costs.

    scripts/bench_governor [--json] [--runs N]

Two sets of costs. "counted": the demo's rungs as counted on aarch64. "reference": trees to network as 1 to 3, as in
the reference simulation, with the screen at a thousandth of the whole climb: at a budget of 1 % it is a tenth of the
budget. `ceiling` is what the oracle itself would reach if it too had to screen whatever it chooses from.
Every policy pays for its screening; scores are no probabilities, and how they bend changes from run to run.

`bound` is what no policy in the field could beat on average (bounds.py): it pays for screens and margins, and in
`switch` it does not know when. `no plan` is the governor without past missions, as a device flies its first.
`learnt` is what a device makes of that by itself (learnt_plans.py): missions flown one after the other, each recorded
in a journal as `run` records it and as far as its budget let it screen, the plan learnt from there.

Seeds are fixed and of two kinds, parted on 24 November 2026. DEVELOPMENT: all that the policy was ever tuned on, 0 to
63, those of this bench before that day among them. EVALUATION: what this bench flies, chosen afterwards and flown
for the first time when the policy stood; whoever tunes the policy draws a new range here. Each mean comes with its
standard error over the runs.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compile.demo.run import build_demo
from edge_runtime import console
from edge_runtime.energy_ci.guest import Guest
from edge_runtime.errors import HardwareUnavailable
from edge_runtime.governor.ladder import Costs
from edge_runtime.planning import plan
from tests.bench import bounds, learnt_plans, missions, policies

ROOT = Path(__file__).parents[2]
BUDGETS = (0.01, 0.03, 0.10, 0.30)
GOALS = {0.01: 0.90, 0.10: 0.97}
DEVELOPMENT = range(64)
EVALUATION = range(520_000, 530_000)
PLAN_MISSIONS = 64
KILLS = 300
"""Some come while a torn write is due already: at least 200 restarts remain."""
KILLED_RUNS = 1
"""Runs of each process that are flown with kills too, at each budget and cost: that takes its time."""
MAX_INSTRUCTIONS = 2_000
_COLUMNS = ("governor", "ceiling", "no plan", "killed", *policies.PEERS)
COSTS = {
    # Instructions x 1 nJ: edge-compile inspect on the demo (screen 1,601, trees 7,318 of which the screen is a
    # part) and the CNN of the reference page on neural networks (448,000 an invoke). Only the ratios matter.
    "counted": Costs(1_601, 5_717, 448_000),
    "reference": Costs(4_000, 1_000_000, 3_000_000),
}


Flown = tuple[missions.Mission, tuple[list[bool], list[bool]], bool]
"""A mission, its outcomes, and whether it is flown with kills too."""


def fly(costs: Costs, flown: Flown) -> list[dict[str, Any]]:
    """One mission: a row for each budget; shares are of the oracle."""
    (_, calibration, plan, scans), outcomes, kill = flown
    rows = []
    for share in BUDGETS:
        budget_nj = int(share * costs.always_nj * missions.SCANS)
        best = missions.oracle(scans, costs, budget_nj)
        flights = {"governor": _field(calibration, costs, plan, budget_nj).fly(scans, outcomes)}
        flights["no plan"] = _field(calibration, costs, [], budget_nj).fly(scans, outcomes)
        row: dict[str, Any] = {"budget": share, "ceiling": missions.ceiling(scans, costs, budget_nj) / best}
        if kill:
            kills = random.Random(1).sample(range(missions.SCANS), KILLS)
            flights["killed"] = _field(calibration, costs, plan, budget_nj, kills, 1).fly(scans, outcomes)
            row["restarts"] = flights["killed"].restarts
        flights |= {name: peer(calibration, costs, scans, budget_nj) for name, peer in policies.PEERS.items()}
        for name, flight in flights.items():
            row[name] = missions.expected(scans, flight.trees, flight.network) / best
            row[f"{name} overspent_nj"] = max(0, flight.spent_nj - budget_nj)
        rows.append(row)
    return rows


def _field(
    calibration: Any, costs: Costs, plan: Any, budget_nj: int, kills: Sequence[int] = (), seed: int = 0
) -> policies.Field:
    return policies.Field(calibration, costs, plan, missions.SCANS, budget_nj, kills, seed)


def table(runs: int) -> list[dict[str, Any]]:
    """Means over the runs: a row for each set of costs, process and budget."""
    rows = []
    for process in (*missions.PROCESSES, missions.WRONG_PLAN):
        flown: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in COSTS}
        for number, seed in enumerate(EVALUATION[:runs]):
            mission = missions.mission(process, seed, PLAN_MISSIONS)
            outcomes = mission[0].outcomes(mission[3])
            for name, costs in COSTS.items():
                flown[name].append(fly(costs, (mission, outcomes, number < KILLED_RUNS)))
        for name, runs_of in flown.items():
            for cells in zip(*runs_of, strict=True):
                rows.append(_mean_row(name, process, cells))
                print(_line(rows[-1]), file=sys.stderr, flush=True)
    return rows


def _mean_row(costs: str, process: str, cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One row of the table: means, and of the governor the standard error of the mean and the lowest run."""
    share, n = cells[0]["budget"], len(cells)
    row: dict[str, Any] = {"costs": costs, "process": process, "budget": share, "runs": n}
    for key in _COLUMNS:
        row[key] = round(statistics.fmean(c[key] for c in cells if key in c), 4)
    row["governor_lowest"] = round(min(c["governor"] for c in cells), 4)
    row["governor_error"] = (
        round(statistics.stdev(c["governor"] for c in cells) / n**0.5, 4) if n > 1 else 0.0
    )
    row["bound"] = round(bounds.bound(process, COSTS[costs], share), 4)
    for key in ("governor", "no plan", "killed"):
        row[f"{key} overspent_nj"] = max(c.get(f"{key} overspent_nj", 0) for c in cells)
    row["restarts"] = min(c["restarts"] for c in cells if "restarts" in c)
    return row


def decision_instructions(
    names: Sequence[str] = tuple(COSTS), budgets: Sequence[float] = (0.01, 0.10)
) -> list[dict[str, Any]]:
    """aarch64 instructions of one decision, in a mission of 48 hours, under QEMU: many scans less few."""
    guest = Guest([ROOT])
    warm = ["-m", "tests.bench.count_decisions", "10", "0.1", "1", "1", "1", "decide"]
    guest.run(warm, timeout_s=300)  # Python compiles what it imports, once
    rows = []
    for name in names:
        costs = COSTS[name]
        for share in budgets:
            counted = []
            for scans in (
                2_000,
                29_000,
            ):  # one whole slot of the mission's 32: its end, and all that is due in it
                arguments = ["-m", "tests.bench.count_decisions", str(scans), str(share), *map(str, costs)]
                for loop in ("decide", "empty"):
                    done = guest.run([*arguments, loop], count=True, timeout_s=300)
                    if done.status or done.counts is None:
                        raise HardwareUnavailable(f"guest: the governor ended with {done.stderr[-300:]}")
                    counted.append(done.counts.exit.instructions)
            each = ((counted[2] - counted[3]) - (counted[0] - counted[1])) / (29_000 - 2_000)
            rows.append({"costs": name, "budget": share, "instructions": round(each)})
    return rows


def demo_mission() -> dict[str, Any]:
    """`edge-runtime plan` on the demo: Zero 2 W and RF Explorer on one battery of 2,500 mAh, five sweeps a second."""
    parser = console.Parser(prog="plan")
    plan.add_arguments(parser)
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as folder:
        bundle = build_demo(Path(folder), targets=["host", "aarch64"])
        words = ["--bundle", str(bundle), "--battery", "lipo", "--rate", "5", "--hours", "24"]
        return plan.plan(parser.parse_args(words))


def mission_goals(planned: dict[str, Any]) -> list[dict[str, Any]]:
    """Modelled from the profiles' ranges; the range of each figure is in its name."""
    life = planned["life_ratio_to_always_without_model"]["as planned"]
    governed, always = planned["ways"][0], planned["ways"][2]
    kept = governed["signals_caught"] / always["signals_caught"]
    share = planned["model_share_at_rate"][1]
    span = f"{life['low']:.2f} to {life['high']:.2f} over the profiles' ranges"
    return [
        _goal(
            f"battery life, modelled ({span})",
            round(life["nominal"], 3),
            "times",
            1.5,
            life["nominal"] >= 1.5,
        ),
        _goal(
            "2 s signals caught",
            governed["signals_caught"],
            "share",
            0.95,
            governed["signals_caught"] >= 0.9499,
        ),
        _goal("detections, of always-on's", round(kept, 4), "share", 0.95, kept >= 0.9499),
        _goal(
            "the model's share of the battery at 5 scans a second, at most",
            share,
            "share",
            0.01,
            share <= 0.01,
        ),
    ]


def goals(rows: Sequence[dict[str, Any]], decisions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line for each goal of the policy's table."""
    out = []
    for name in COSTS:
        for share, goal in GOALS.items():
            for row in rows:
                if (row["costs"], row["budget"]) == (name, share) and row["process"] in missions.PROCESSES:
                    title = f"{row['process']}, budget {share:.0%}, {name} costs: of the oracle"
                    line = _goal(title, row["governor"], "share", goal, row["governor"] >= goal)
                    out.append(line | {"standard_error": row["governor_error"], "bound": row["bound"]})
    restarts = min(row["restarts"] for row in rows)
    for key, title in (
        ("governor", "every run"),
        ("no plan", "every run without a plan"),
        ("killed", f"{restarts} or more kills and restarts a run"),
    ):
        worst = max(row[f"{key} overspent_nj"] for row in rows)
        out.append(_goal(f"overspent, {title}", worst, "nJ", 0, worst == 0))
    for row in decisions:
        title = f"a decision, budget {row['budget']:.0%}, {row['costs']} costs"
        n = row["instructions"]
        out.append(_goal(title, n, "aarch64 instructions", MAX_INSTRUCTIONS, n <= MAX_INSTRUCTIONS))
    return out


def _goal(name: str, value: float, unit: str, goal: float, met: bool) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "goal": goal, "met": met}


def _line(row: dict[str, Any]) -> str:
    shares = "".join(f"{row[k]:13.3f}" for k in _COLUMNS[1:])
    mean = f"{row['governor']:9.4f} +-{row['governor_error']:.4f} (bound {row['bound']:.3f})"
    return f"{row['costs']:10}{row['process']:12}{row['budget']:4.0%}{mean}{shares}"


def main() -> int:
    """Print the document or the table."""
    parser = console.Parser(prog="bench_governor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--runs", type=int, default=40, help="runs a process (%(default)s)")
    parser.add_argument(
        "--learnt-runs", type=int, default=8, help="devices a process that learn their own plan (%(default)s)"
    )
    parser.set_defaults(run=_run)
    return console.main(parser)


def _run(args: argparse.Namespace) -> int:
    rows = table(args.runs)
    learnt = learnt_plans.rows(EVALUATION[: args.learnt_runs], COSTS, tuple(GOALS))
    try:
        decisions, why_not = decision_instructions(), None
    except HardwareUnavailable as e:
        decisions, why_not = [], str(e)
    planned = demo_mission()
    document = {
        "goals": goals(rows, decisions) + mission_goals(planned),
        "rows": rows,
        "learnt": learnt,
        "decisions": decisions,
        "decisions_unavailable": why_not,
        "demo_mission": planned,
        "machine": {"machine": platform.machine(), "python": platform.python_version()},
    }
    if args.json:
        console.print_json(document)
        return 0
    for goal in document["goals"]:
        error = f" +- {goal['standard_error']}, bound {goal['bound']}" if "bound" in goal else ""
        met = "met " if goal["met"] else "MISS"
        print(f"{met} {goal['name']}: {goal['value']}{error} {goal['unit']} ({goal['goal']})")
    print("\n".join(learnt_plans.lines(learnt)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
