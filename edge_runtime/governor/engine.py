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

from edge_runtime.engines.compiled import SCORE_ASK
from edge_runtime.governor.budget import Budget
from edge_runtime.governor.forecast import Histogram, Past
from edge_runtime.governor.ladder import Calibration, Costs, Ladder
from edge_runtime.governor.ledger import BURST_256, Entry, Ledger, last_entry, resumed_us
from edge_runtime.governor.policy import Governor
from edge_runtime.reasons import Reason
from edge_runtime.scanners.codes import Expander
from edge_runtime.verdict import UNKNOWN, Answer, Rung, Verdict

OVER_BUDGET = Verdict(UNKNOWN, UNKNOWN, Reason.OVER_BUDGET, Rung.NONE, 0, 0, 0.0)
"""What a scan gets that was not worth its energy."""
LOW_BATTERY = OVER_BUDGET._replace(reason=Reason.LOW_BATTERY)
"""What a scan gets that a low battery leaves unanswered."""


@runtime_checkable
class Screening(Protocol):
    """An engine whose screen can be asked alone (engines.compiled.CompiledEngine)."""

    def screen(self, power_cdbm: bytes) -> Verdict:
        """Rung SCREEN, or NONE where the screen has no answer."""
        ...

    def screen_score(self, power_cdbm: bytes) -> int:
        """0 to 255, below SCORE_ASK where `screen` has an answer; -1 where it refuses the scan."""
        ...

    def infer_unscreened(self, power_cdbm: bytes) -> Answer:
        """The trees' answer, whatever the screen says."""
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
        self._score, self._unscreened = engine.screen_score, engine.infer_unscreened
        self.expander = engine.expander
        self.governor = governor
        self._ledger = ledger
        self._trees_nj = governor.ladder.costs.trees_nj
        self._last = UNKNOWN
        self._nothing: Verdict | None = None
        """What the screen says where it answers: always the same."""
        self._usual = usual_scores(governor.ladder.calibration)

    def infer(self, power_cdbm: bytes) -> Verdict:
        """The verdict on a sweep, of the rung that the budget allows."""
        governor = self.governor
        if governor.ample:
            return self._ask_model_first(power_cdbm)
        if not (governor.dense or governor.wants_screen()):
            return OVER_BUDGET
        score = self._score(power_cdbm)
        if score < 0:
            return self._screen(power_cdbm)
        governor.note(score)
        if score < governor.bar() or not governor.pays_trees():
            return self._screened(power_cdbm) if score < SCORE_ASK else OVER_BUDGET
        if score < SCORE_ASK:
            return self._look_closer(score, power_cdbm)
        verdict = Verdict._make(self._infer(power_cdbm))
        if governor.learning:
            governor.learn(score, 255, verdict.label != self._last, None)
        self._last = verdict.label
        return verdict

    def screen_only(self, power_cdbm: bytes) -> Verdict:
        """The verdict on a sweep where nothing may climb beyond the screen; paid for as ever."""
        governor = self.governor
        if not (governor.dense or governor.wants_screen()):
            return LOW_BATTERY
        score = self._score(power_cdbm)
        if score < 0:
            return self._screen(power_cdbm)
        governor.note(score)
        governor.bar()
        return self._screened(power_cdbm) if score < SCORE_ASK else LOW_BATTERY

    def climb_with(self, infer: Callable[[bytes], Answer]) -> None:
        """Have `infer` answer what climbs beyond the screen."""
        self._infer = infer

    def _screened(self, power_cdbm: bytes) -> Verdict:
        if self._nothing is None:
            self._nothing = self._screen(power_cdbm)
        return self._nothing

    def _look_closer(self, score: int, power_cdbm: bytes) -> Verdict:
        """The screen has an answer, and the trees are asked all the same: theirs counts where they have one."""
        nothing = self._screened(power_cdbm)
        verdict = Verdict._make(self._unscreened(power_cdbm))
        found = verdict.label not in (UNKNOWN, nothing.label)
        if self.governor.learning:
            self.governor.learn(score, 255, found, None)
        if found:
            self._last = verdict.label
        return verdict if found else nothing

    def _ask_model_first(self, power_cdbm: bytes) -> Verdict:
        """Every scan is worth the trees: one call, in which the artifact's own screen spares the quiet ones.

        That call tells no score: the forecast is given the usual one of the kind, and the ladder learns nothing.
        """
        governor = self.governor
        quiet_score, loud_score = self._usual
        if not governor.pays_trees():
            governor.note(quiet_score)
            governor.bar()
            return OVER_BUDGET
        verdict = Verdict._make(self._infer(power_cdbm))
        quiet = verdict.rung != Rung.TREES
        governor.note(quiet_score if quiet else loud_score)
        governor.bar()
        if quiet:
            self._ledger.correct(-self._trees_nj)
        else:
            self._last = verdict.label
        return verdict


def usual_scores(calibration: Calibration) -> tuple[int, int]:
    """The middle scores of the calibration's scans that the screen answers, and of those that it does not."""
    counts = [sum(row) for row in calibration.joint]
    scores = [calibration.score_bin.index(b) for b in range(len(counts))]
    usual = []
    for kind, default in ((range(SCORE_ASK), 0), (range(SCORE_ASK, 256), 255)):
        of_kind = [(s, n) for s, n in zip(scores, counts, strict=True) if s in kind]
        half, middle = sum(n for _, n in of_kind) // 2, default
        for score, n in of_kind:
            middle = score
            half -= n
            if half < 0:
                break
        usual.append(middle)
    return usual[0], usual[1]


def under_way(
    recorded: Iterable[bytes], budget: Budget, unix_us: int, speed: float = 1
) -> tuple[Entry | None, int]:
    """The account of the budget's mission and how much of it is over; None and 0 where a mission begins anew."""
    entry = last_entry(recorded, budget.mission)
    over_us = resumed_us(entry, unix_us, speed)
    return (entry, over_us) if over_us < budget.duration_us else (None, 0)


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
    memory: bytes | None = None,
    remember: Callable[[bytes], None] = lambda _payload: None,
    mark: int = 0,
    hear: Callable[[int, Histogram], None] = lambda _slot, _counts: None,
) -> tuple[GovernedEngine, Ledger]:
    """The engine under a budget, and its account, continued where the journal left it.

    costs: of the rungs; the trees' are charged with a second screen, as the artifact screens again.
    record: writes a BUDGET payload to the journal and forces it to the disk. recorded: the BUDGET payloads that
    the journal holds, oldest first. speed: of the mission's clock between two runs. memory, remember, mark, hear:
    as the Governor has them, for the journal's LEARNT and HEARD records. A mission whose time is over begins anew,
    with what the last one learnt about the ladder.
    """
    entry, over_us = under_way(recorded, budget, unix_us(), speed)
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
        ladder,
        ledger,
        pasts,
        duration_us=budget.duration_us,
        scan_us=scan_us,
        clock_us=mission_us,
        memory=memory,
        remember=remember,
        mark=mark,
        hear=hear,
    )
    return GovernedEngine(engine, governor, ledger), ledger
