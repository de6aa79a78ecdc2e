"""`edge-runtime run --budget ...`: the device loop's engine under a budget, its account in the run's journal."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_runtime.bundle import Bundle
from edge_runtime.engines import Engine
from edge_runtime.errors import BadInput
from edge_runtime.governor.budget import Budget
from edge_runtime.governor.engine import GovernedEngine, Screening, governed, under_way
from edge_runtime.governor.forecast import Histogram
from edge_runtime.governor.history import Ask, History, Plan, ladder_key, learnt_from, pack_heard
from edge_runtime.governor.ledger import Ledger, last_entry
from edge_runtime.journal import JournalWriter, Kind, segments
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


def asked(bundle: Bundle, budget: Budget) -> Ask:
    """What a spending plan for this budget's mission has to fit."""
    chances = scored(bundle.manifest)
    key = ladder_key(bundle.sha256, chances)
    return Ask(budget.mission, budget.duration_us, key, len(chances.trees_seen))


def examples_in(directories: Iterable[Path]) -> list[bytes]:
    """The past missions of these journals (`--plan-from`). Raises BadInput where one is none."""
    found = []
    for directory in directories:
        if not directory.is_dir() or not segments(directory):
            raise BadInput(
                f"--plan-from {directory}: no journal there; give directories that run --journal wrote"
            )
        found += History.read(directory).examples()
    return found


class Recorder:
    """What the governor writes to the journal, and what a start reads of it again (journal_tail)."""

    def __init__(self, writer: JournalWriter, history: History, serial: int) -> None:
        self._writer, self._history, self._serial = writer, history, serial

    def account(self, payload: bytes) -> None:
        """A BUDGET record: on the disk when this returns."""
        self._append(Kind.BUDGET, payload)
        self._writer.sync()

    def remember(self, payload: bytes) -> None:
        """A LEARNT record."""
        self._append(Kind.LEARNT, payload)

    def hear(self, slot: int, counts: Histogram) -> None:
        """A HEARD record, where there is anything to tell."""
        if any(counts):
            self._append(Kind.HEARD, pack_heard(self._serial, slot, counts))

    def _append(self, kind: int, payload: bytes) -> None:
        self._writer.append(kind, payload)
        self._history.note(kind, payload)

    def carry(self) -> None:
        """Repeat all that the next start asks for, and say so once it is on the disk."""
        for kind, payload in self._history.records():
            self._writer.append(kind, payload)
        self._writer.sync()
        self._writer.append(Kind.BACK, bytes(4))


def begin(
    writer: JournalWriter, history: History, ask: Ask, plan: Plan, *, anew: bool
) -> tuple[Plan, Recorder]:
    """Put on record with which plan the mission begins, or goes on; the plan as it then is."""
    plan = replace(plan, serial=plan.serial or writer.first)
    kind, payload = history.begin(ask, plan)
    recorder = Recorder(writer, history, plan.serial)
    writer.carry = recorder.carry
    if anew or history.stale:
        recorder.carry()
    else:
        writer.append(kind, payload)
    return plan, recorder


class Governing:
    """A run's budget: what the command line asks for, the journal's account of it so far, and the spending plan.

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
        self._chances = scored(bundle.manifest)
        self._clock, self._scan_us = clock, scan_us
        self._costs = work(bundle, mission.board, loop_work()).governed_costs
        self._history = History.read(args.journal)
        self._ask = asked(bundle, self.budget)
        self._earlier = list(self._history.accounts.values())
        self._anew = under_way(self._earlier, self.budget, _unix_us(), clock.speed)[0] is None
        self.plan = self._plan(args.plan_from)
        self._ledger: Ledger | None = None
        self._under: GovernedEngine | None = None

    def _plan(self, plan_from: Iterable[Path]) -> Plan:
        """As the mission began with it; for one that begins, from the missions before it, its own journal's last."""
        if not self._anew:
            return self._history.resumed(self._ask.mission) or Plan([], "none: the mission began without one")
        self._history.close_missions(_unix_us(), self._clock.speed)
        return learnt_from([*examples_in(plan_from), *self._history.pasts], self._ask)

    def lines(self) -> Iterator[str]:
        """What would be kept, for people."""
        budget = self.budget
        entry = last_entry(self._earlier, budget.mission)
        spent = f", of which the journal has {entry.ceiling_nj / 1e9:.4g} J as spent" if entry else ""
        yield (
            f"budget     {budget.text} = {budget.energy_nj / 1e9:.4g} J for inference in "
            f"{budget.duration_us / 3.6e9:g} h{spent}"
        )
        yield f"plan       {self.plan.note}"

    def engine(self, engine: Engine, writer: JournalWriter, stack: ExitStack) -> GovernedEngine:
        """The engine, asked no more often than the budget allows; the account is closed with `stack`.

        Raises BadInput where the engine has no screen to go by.
        """
        if not isinstance(engine, Screening):
            raise BadInput(
                "budget: the bundle's model does not run here, and the baseline costs nothing; drop it"
            )
        self.plan, recorder = begin(writer, self._history, self._ask, self.plan, anew=self._anew)
        self._under, self._ledger = governed(
            engine,
            self.budget,
            self._chances,
            self._costs,
            scan_us=self._scan_us,
            clock_us=self._clock.us,
            unix_us=_unix_us,
            record=recorder.account,
            recorded=self._earlier,
            pasts=self.plan.pasts,
            speed=self._clock.speed,
            memory=self._history.learnt,
            remember=recorder.remember,
            mark=self.plan.mark,
            hear=recorder.hear,
        )
        stack.callback(self._ledger.close)
        stack.callback(self._under.governor.close)
        return self._under

    def expect(self, scan_us: int) -> None:
        """Scans turn out to be so far apart."""
        if self._under:
            self._under.governor.expect(scan_us)

    def spent(self) -> dict[str, Any]:
        """The account as it stands and the plan in use, as JSON values."""
        assert self._ledger is not None
        assert self._under is not None
        nj = self.budget.energy_nj
        plan = {"missions": len(self.plan.payloads), "note": self.plan.note}
        if self.plan.payloads:
            plan["trust"] = round(self._under.governor.trust_in_plan, 3)
        return {
            "text": self.budget.text,
            "joules": nj / 1e9,
            "spent_j": self._ledger.spent_nj / 1e9,
            "plan": plan,
        }


def _unix_us() -> int:
    return time.time_ns() // 1000
