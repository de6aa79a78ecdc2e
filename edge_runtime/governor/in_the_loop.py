"""`edge-runtime run --budget ...`: the device loop's engine under a budget, its account in the run's journal."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from edge_runtime import journal
from edge_runtime.bundle import Bundle
from edge_runtime.engines import Engine
from edge_runtime.errors import BadInput
from edge_runtime.governor.budget import Budget
from edge_runtime.governor.engine import GovernedEngine, Screening, governed
from edge_runtime.governor.ladder import Costs
from edge_runtime.governor.memory import remembered
from edge_runtime.journal import JournalWriter, Kind
from edge_runtime.planning.work import scored, work
from edge_runtime.power.figures import capacity_j
from edge_runtime.power.modelled import loop_work
from hw_profiles import Mission

__all__ = ["budget_of", "recorded", "remembered", "under_budget"]


def budget_of(args: Namespace, mission: Mission) -> Budget:
    """The budget that the command line asks for, on the safe side of the battery's and the board's ranges."""
    return Budget.parse(
        args.budget,
        args.hours,
        battery_j=capacity_j(mission.battery).low,
        battery_v=mission.battery.mean_v.range.middle,
        efficiency=mission.battery.converter_efficiency.range.middle,
        rest_mw=mission.board.idle_mw.range.high,
    )


def recorded(directory: Path) -> list[bytes]:
    """The BUDGET payloads that a journal holds, oldest first; none where there is no journal yet."""
    if not directory.is_dir() or not journal.segments(directory):
        return []
    return [frame.payload for frame in journal.read(directory) if frame.kind == Kind.BUDGET]


def under_budget(
    engine: Engine,
    bundle: Bundle,
    mission: Mission,
    budget: Budget,
    writer: JournalWriter,
    earlier: Iterable[bytes],
    clock_us: Callable[[], int],
    stack: ExitStack,
    learnt: bytes | None = None,
) -> GovernedEngine:
    """The engine, asked no more often than the budget allows; the account is closed with `stack`.

    earlier, learnt: what `recorded` and `remembered` gave before this run began.

    Raises BadInput where the engine has no screen to go by.
    """
    if not isinstance(engine, Screening):
        raise BadInput(
            "budget: the bundle's model does not run here, and the baseline costs nothing; drop it"
        )
    costs = work(bundle, mission.board, loop_work()).costs
    # The governor's second rung is the whole engine: where a network may follow the trees, its energy is set aside.
    costs = Costs(costs.screen_nj, costs.trees_nj + costs.network_nj, 0)

    def record(payload: bytes) -> None:
        writer.append(Kind.BUDGET, payload)
        writer.sync()

    under, ledger = governed(
        engine,
        budget,
        scored(bundle.manifest),
        costs,
        scan_us=round(1e6 / mission.scan_hz.middle),
        clock_us=clock_us,
        unix_us=lambda: time.time_ns() // 1000,
        record=record,
        recorded=earlier,
        memory=learnt,
        remember=partial(writer.append, Kind.LEARNT),
    )
    stack.callback(ledger.close)
    return under
