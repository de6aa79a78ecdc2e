"""`edge-runtime run --budget ...`: the device loop's engine under a budget, its account in the run's journal."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from edge_runtime import journal
from edge_runtime.bundle import Bundle
from edge_runtime.engines import Engine
from edge_runtime.errors import BadInput
from edge_runtime.governor.budget import Budget
from edge_runtime.governor.engine import GovernedEngine, Screening, governed
from edge_runtime.governor.ledger import Ledger, last_entry
from edge_runtime.governor.memory import remembered
from edge_runtime.journal import JournalWriter, Kind
from edge_runtime.mission_clock import MissionClock
from edge_runtime.planning.work import scored, work
from edge_runtime.power.figures import capacity_j
from edge_runtime.power.modelled import loop_work
from hw_profiles import Mission


def budget_of(text: str, hours: float | None, mission: Mission, rest_mw: float, name: str = "") -> Budget:
    """The budget in a user's words, on the safe side of the battery's range: the same for `plan` and `run`.

    rest_mw: what the device takes without inference, at most. name: tells apart missions of the same words.
    """
    return Budget.parse(
        text,
        hours,
        battery_j=capacity_j(mission.battery).low,
        battery_v=mission.battery.mean_v.range.middle,
        efficiency=mission.battery.converter_efficiency.range.middle,
        rest_mw=rest_mw,
        name=name,
    )


def recorded(directory: Path) -> list[bytes]:
    """The BUDGET payloads that a journal holds, oldest first; none where there is no journal yet."""
    if not directory.is_dir() or not journal.segments(directory):
        return []
    return [frame.payload for frame in journal.read(directory) if frame.kind == Kind.BUDGET]


class Governing:
    """A run's budget: what the command line asks for, and the journal's account of it so far.

    rest_mw: as for `budget_of`. scan_us: from scan to scan, as the duty has it.
    """

    def __init__(
        self,
        args: Namespace,
        bundle: Bundle,
        mission: Mission,
        clock: MissionClock,
        *,
        rest_mw: float,
        scan_us: int,
    ) -> None:
        name = "" if clock.speed == 1 else f"speed {clock.speed:g}"
        self.budget = budget_of(args.budget, args.hours, mission, rest_mw, name)
        self._earlier, self._learnt = recorded(args.journal), remembered(args.journal)
        self._bundle, self._clock, self._scan_us = bundle, clock, scan_us
        self._costs = work(bundle, mission.board, loop_work()).governed_costs
        self._ledger: Ledger | None = None
        self._under: GovernedEngine | None = None

    def lines(self) -> Iterator[str]:
        """What would be kept, for people."""
        budget = self.budget
        entry = last_entry(self._earlier, budget.mission)
        spent = f", of which the journal has {entry.ceiling_nj / 1e9:.4g} J as spent" if entry else ""
        yield (
            f"budget     {budget.text} = {budget.energy_nj / 1e9:.4g} J for inference in "
            f"{budget.duration_us / 3.6e9:g} h{spent}"
        )

    def engine(self, engine: Engine, writer: JournalWriter, stack: ExitStack) -> GovernedEngine:
        """The engine, asked no more often than the budget allows; the account is closed with `stack`.

        Raises BadInput where the engine has no screen to go by.
        """
        if not isinstance(engine, Screening):
            raise BadInput(
                "budget: the bundle's model does not run here, and the baseline costs nothing; drop it"
            )

        def record(payload: bytes) -> None:
            writer.append(Kind.BUDGET, payload)
            writer.sync()

        self._under, self._ledger = governed(
            engine,
            self.budget,
            scored(self._bundle.manifest),
            self._costs,
            scan_us=self._scan_us,
            clock_us=self._clock.us,
            unix_us=lambda: time.time_ns() // 1000,
            record=record,
            recorded=self._earlier,
            speed=self._clock.speed,
            memory=self._learnt,
            remember=partial(writer.append, Kind.LEARNT),
        )
        stack.callback(self._ledger.close)
        return self._under

    def expect(self, scan_us: int) -> None:
        """Scans turn out to be so far apart."""
        if self._under:
            self._under.governor.expect(scan_us)

    def spent(self) -> dict[str, Any]:
        """The account as it stands, as JSON values."""
        assert self._ledger is not None
        nj = self.budget.energy_nj
        return {"text": self.budget.text, "joules": nj / 1e9, "spent_j": self._ledger.spent_nj / 1e9}
