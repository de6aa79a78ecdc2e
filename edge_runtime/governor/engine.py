"""An engine under a budget: screens, asks the governor, then the model or not.

    engine, ledger = governed(CompiledEngine.of(bundle), budget, calibration, costs, ...)
    ... Loop(bundle, engine, ...) as with any engine ...
    ledger.close()

A scan that the budget leaves unanswered gets rung NONE and reason OVER_BUDGET: the loop's own ladder of fallbacks
(last good answer with its age, then an explicit none) takes it from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

from edge_runtime.governor.budget import Budget
from edge_runtime.governor.forecast import Past
from edge_runtime.governor.ladder import Calibration, Costs, Ladder
from edge_runtime.governor.ledger import BURST_256, Ledger, last_entry, resumed_us
from edge_runtime.governor.policy import Governor
from edge_runtime.reasons import Reason
from edge_runtime.scanners.codes import Expander
from edge_runtime.verdict import UNKNOWN, Answer, Rung, Verdict

OVER_BUDGET = Verdict(UNKNOWN, UNKNOWN, Reason.OVER_BUDGET, Rung.NONE, 0, 0, 0.0)
"""What a scan gets that was not worth its energy."""
LOW_BATTERY = OVER_BUDGET._replace(reason=Reason.LOW_BATTERY)
"""What a scan gets that a low battery leaves unanswered."""
QUIET, LOUD = 0, 255
"""The scores of a screen that says yes or no."""


@runtime_checkable
class Screening(Protocol):
    """An engine whose screen can be asked alone (engines.compiled.CompiledEngine)."""

    def screen(self, power_cdbm: bytes) -> Verdict:
        """Rung SCREEN, or NONE where the screen has no answer."""
        ...

    @property
    def expander(self) -> Expander:
        """The engine's way from a scanner's codes to powers."""
        ...

    def infer(self, power_cdbm: bytes) -> Answer:
        """The whole pipeline; screens again."""
        ...


class GovernedEngine:
    """Answers as far as the governor lets it.

    A network in the bundle is beyond this engine: it climbs to the trees.
    """

    def __init__(self, engine: Screening, governor: Governor, ledger: Ledger) -> None:
        self._screen = engine.screen
        self._infer: Callable[[bytes], Answer] = engine.infer
        self.expander = engine.expander
        self.governor = governor
        self._ledger = ledger
        self._trees_nj = governor.ladder.costs.trees_nj
        self._last = UNKNOWN

    def infer(self, power_cdbm: bytes) -> Verdict:
        """The verdict on a sweep, of the rung that the budget allows."""
        governor = self.governor
        if governor.ample:
            return self._ask_model_first(power_cdbm)
        if not (governor.dense or governor.wants_screen()):
            return OVER_BUDGET
        screened = self._screen(power_cdbm)
        if screened.reason != Reason.OK:
            return screened
        answered = screened.rung == Rung.SCREEN
        score = QUIET if answered else LOUD
        governor.note(score)
        if score < governor.bar() or not governor.pays_trees():
            return screened if answered else OVER_BUDGET
        if answered:  # a probe, but the artifact lets nothing past its own screen
            self._ledger.correct(-self._trees_nj)
            return screened
        verdict = Verdict._make(self._infer(power_cdbm))
        self._learn(score, verdict)
        return verdict

    def screen_only(self, power_cdbm: bytes) -> Verdict:
        """The verdict on a sweep where nothing may climb beyond the screen; paid for as ever."""
        governor = self.governor
        if not (governor.dense or governor.wants_screen()):
            return LOW_BATTERY
        screened = self._screen(power_cdbm)
        if screened.reason != Reason.OK:
            return screened
        answered = screened.rung == Rung.SCREEN
        governor.note(QUIET if answered else LOUD)
        governor.bar()
        return screened if answered else LOW_BATTERY

    def climb_with(self, infer: Callable[[bytes], Answer]) -> None:
        """Have `infer` answer what climbs beyond the screen."""
        self._infer = infer

    def _ask_model_first(self, power_cdbm: bytes) -> Verdict:
        """Every scan is worth the trees: one call, in which the artifact's own screen spares the quiet ones."""
        governor = self.governor
        if not governor.pays_trees():
            governor.note(QUIET)
            governor.bar()
            return OVER_BUDGET
        verdict = Verdict._make(self._infer(power_cdbm))
        quiet = verdict.rung != Rung.TREES
        governor.note(QUIET if quiet else LOUD)
        governor.bar()
        if quiet:
            self._ledger.correct(-self._trees_nj)
        else:
            self._learn(LOUD, verdict)
        return verdict

    def _learn(self, score: int, verdict: Verdict) -> None:
        if self.governor.learning:
            self.governor.learn(score, 255, verdict.label != self._last, None)
        self._last = verdict.label


def governed(
    engine: Screening,
    budget: Budget,
    calibration: Calibration,
    costs: Costs,
    *,
    scan_us: int,
    clock_us: Callable[[], int],
    unix_us: Callable[[], int],
    record: Callable[[bytes], None],
    recorded: Iterable[bytes] = (),
    pasts: Sequence[Past] = (),
    burst_256: int = BURST_256,
    speed: float = 1,
) -> tuple[GovernedEngine, Ledger]:
    """The engine under a budget, and its account, continued where the journal left it.

    costs: of the rungs; the trees' are charged with a second screen, as the artifact screens again.
    record: writes a BUDGET payload to the journal and forces it to the disk. recorded: the BUDGET payloads that
    the journal holds, oldest first. speed: of the mission's clock between two runs. A mission whose time is over
    begins anew.
    """
    entry = last_entry(recorded, budget.mission)
    over_us = resumed_us(entry, unix_us(), speed)
    if over_us >= budget.duration_us:
        entry, over_us = None, 0
    began_us = clock_us() - over_us

    def mission_us() -> int:
        return clock_us() - began_us

    costs = Costs(costs.screen_nj, costs.trees_nj + costs.screen_nj, costs.network_nj)
    ledger = Ledger(
        budget.energy_nj,
        budget.duration_us,
        record,
        mission_us,
        worst_nj=costs.always_nj,
        burst_256=burst_256,
        mission=budget.mission,
        unix_us=unix_us,
        restored=entry,
    )
    ladder = Ladder(calibration, Costs(costs.screen_nj, costs.trees_nj, 0))
    governor = Governor(
        ladder, ledger, pasts, duration_us=budget.duration_us, scan_us=scan_us, clock_us=mission_us
    )
    return GovernedEngine(engine, governor, ledger), ledger
