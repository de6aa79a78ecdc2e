"""What a plan is worth that a device has learnt by itself: missions flown one after the other over one journal.

The device flies its first mission without a plan; each one writes to the journal what it heard, as far as its own
budget let it screen, and the next one's plan is read from there, by the code of `edge-runtime run`. After so many
missions a fresh device flies the evaluated mission with `--plan-from` that journal.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edge_runtime.governor.forecast import Past
from edge_runtime.governor.history import Ask, History, learnt_from
from edge_runtime.governor.in_the_loop import begin, examples_in
from edge_runtime.governor.ladder import Calibration, Costs
from edge_runtime.journal import JournalWriter
from tests.bench import missions, policies

LEARNT_FROM = (0, 1, 4, 16, 64)


class Device:
    """One device and its journal; every mission is of the same length and bundle."""

    def __init__(self, folder: Path, calibration: Calibration, costs: Costs, budget_nj: int) -> None:
        self._folder, self._calibration, self._costs, self._budget_nj = folder, calibration, costs, budget_nj
        self._ask = Ask(1, missions.SCANS * policies.SCAN_US, 1, len(calibration.trees_seen))

    def fly(self, world: missions.World) -> None:
        """One more mission, recorded."""
        scans = world.scans(world.rates())
        history = History.read(self._folder)
        history.close_missions(0)
        writer = JournalWriter(self._folder)
        plan, recorder = begin(writer, history, self._ask, learnt_from(history.pasts, self._ask), anew=True)
        flown = policies.Field(
            self._calibration,
            self._costs,
            plan.pasts,
            missions.SCANS,
            self._budget_nj,
            hear=recorder.hear,
        )
        flown.fly(scans, world.outcomes(scans))
        writer.close()

    def plan(self) -> list[Past]:
        """What another device learns with `--plan-from`; none from a journal that does not exist yet."""
        found = examples_in([self._folder]) if self._folder.exists() else []
        return learnt_from(found, self._ask).pasts


def shares(
    process: str, seed: int, costs: Costs, share: float, counts: Sequence[int] = LEARNT_FROM
) -> list[float]:
    """The evaluated mission's share of the oracle, by how many missions the plan was learnt from."""
    world = missions.World(process, seed)
    calibration = world.calibration()
    scans = world.scans(world.rates())
    outcomes = world.outcomes(scans)
    budget_nj = int(share * costs.always_nj * missions.SCANS)
    best, out = missions.oracle(scans, costs, budget_nj), []
    with tempfile.TemporaryDirectory(prefix="edge-learnt-") as name:
        device = Device(Path(name, "journal"), calibration, costs, budget_nj)
        flown = 0
        for count in counts:
            while flown < count:
                device.fly(world)
                flown += 1
            plan = device.plan()
            if len(plan) != count:
                raise AssertionError(f"{process}, seed {seed}: {count} missions gave a plan of {len(plan)}")
            flight = policies.Field(calibration, costs, plan, missions.SCANS, budget_nj).fly(scans, outcomes)
            out.append(missions.expected(scans, flight.trees, flight.network) / best)
    return out


def rows(seeds: Sequence[int], costs: dict[str, Costs], budgets: Sequence[float]) -> list[dict[str, Any]]:
    """Means over the seeds: a row for each set of costs, process and budget."""
    table = []
    for name, prices in costs.items():
        for process in missions.PROCESSES:
            for share in budgets:
                runs = [shares(process, seed, prices, share) for seed in seeds]
                row: dict[str, Any] = {"costs": name, "process": process, "budget": share, "runs": len(runs)}
                for count, of_count in zip(LEARNT_FROM, zip(*runs, strict=True), strict=True):
                    row[f"learnt from {count}"] = round(statistics.fmean(of_count), 4)
                gains = [run[-1] - run[0] for run in runs]
                row["gain"] = round(statistics.fmean(gains), 4)
                row["gain_error"] = (
                    round(statistics.stdev(gains) / len(gains) ** 0.5, 4) if len(gains) > 1 else 0.0
                )
                table.append(row)
    return table


def lines(table: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The table for people."""
    yield "of the oracle, by how many missions of its own the device learnt its plan from:"
    yield f"{'costs':10}{'process':10}{'budget':>7}" + "".join(f"{n:>8}" for n in LEARNT_FROM) + "    gain"
    for row in table:
        shares_of = "".join(f"{row[f'learnt from {n}']:8.3f}" for n in LEARNT_FROM)
        gain = f"{row['gain']:8.3f} +-{row['gain_error']:.3f}"
        yield f"{row['costs']:10}{row['process']:10}{row['budget']:7.0%}{shares_of}{gain}"
