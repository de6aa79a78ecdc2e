"""The governor and its peers, each flying one mission: which scans climb how far, and what that cost."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edge_runtime.governor.forecast import Histogram, Past
from edge_runtime.governor.ladder import ONE, Calibration, Costs, Ladder, monotone
from edge_runtime.governor.ledger import Ledger, last_entry
from edge_runtime.governor.policy import Governor
from tests.bench.missions import Scans

SCAN_US = 200_000
"""Five scans a second."""


@dataclass
class Flight:
    """What a policy did. spent_nj: all that was used, also by what a kill cut short."""

    trees: list[int] = field(default_factory=list)
    network: list[int] = field(default_factory=list)
    spent_nj: int = 0
    restarts: int = 0


class Killed(Exception):
    """The process ends here, in the middle of whatever it does."""


class Field:
    """A mission in the field with the governor: a journal that survives, a process that may not."""

    def __init__(
        self,
        calibration: Calibration,
        costs: Costs,
        plan: Sequence[Past],
        scans: int,
        budget_nj: int,
        kills: Sequence[int] = (),
        seed: int = 0,
        hear: Callable[[int, Histogram], None] = lambda _slot, _counts: None,
    ) -> None:
        self._hear = hear
        self._known = (calibration, costs, plan)
        self._scans = scans
        self._budget_nj = budget_nj
        self._kills = set(kills)
        self._rng = random.Random(seed)
        self._at = 0
        self._journal: list[bytes] = []
        self._torn = False

    def fly(self, scans: Scans, outcomes: tuple[Sequence[bool], Sequence[bool]]) -> Flight:
        """All scans, with as many restarts as there are kills."""
        flight = Flight()
        while self._at < self._scans:
            try:
                governor, ledger = self._start()
                self._run(governor, scans, outcomes, flight)
                governor.close()
                ledger.close()
            except Killed:
                flight.restarts += 1
        return flight

    def _start(self) -> tuple[Governor, Ledger]:
        calibration, costs, plan = self._known
        copy = Calibration(
            calibration.score_bin,
            calibration.margin_bin,
            list(calibration.trees_seen),
            list(calibration.trees_changed),
            list(calibration.network_seen),
            list(calibration.network_changed),
            [list(row) for row in calibration.joint],
        )
        duration_us = self._scans * SCAN_US
        ledger = Ledger(
            self._budget_nj,
            duration_us,
            self._record,
            self._clock_us,
            worst_nj=costs.always_nj,
            restored=last_entry(self._journal, 0),
        )
        governor = Governor(
            Ladder(copy, costs),
            ledger,
            plan,
            duration_us=duration_us,
            scan_us=SCAN_US,
            clock_us=self._clock_us,
            hear=self._hear,
        )
        return governor, ledger

    def _clock_us(self) -> int:
        return self._at * SCAN_US

    def _record(self, payload: bytes) -> None:
        if self._torn:  # the kill came within the write: the frame is not whole, the journal does not have it
            self._torn = False
            raise Killed
        self._journal.append(payload)

    def _run(
        self,
        governor: Governor,
        scans: Scans,
        outcomes: tuple[Sequence[bool], Sequence[bool]],
        flight: Flight,
    ) -> None:
        _, costs, _ = self._known
        scores, margins = scans.score.tolist(), scans.margin.tolist()
        trees_found, network_found = outcomes
        while self._at < self._scans:
            t = self._at
            self._at += 1
            if t in self._kills:
                self._kills.remove(t)
                if self._rng.random() < 0.5:
                    self._torn = True  # dies at the next record instead
                else:
                    self._die_within(governor, scores[t], costs, flight)
            if not (governor.dense or governor.wants_screen()):
                continue
            flight.spent_nj += costs.screen_nj
            governor.note(scores[t])
            if scores[t] >= governor.bar() and governor.pays_trees():
                flight.trees.append(t)
                flight.spent_nj += costs.trees_nj
                further = margins[t] <= governor.network_upto and governor.pays_network()
                if further:
                    flight.network.append(t)
                    flight.spent_nj += costs.network_nj
                if governor.learning:
                    governor.learn(
                        scores[t], margins[t], trees_found[t], network_found[t] if further else None
                    )

    def _die_within(self, governor: Governor, score: int, costs: Costs, flight: Flight) -> None:
        """Killed within an inference: its energy is gone, and no record tells of it."""
        if governor.dense or governor.wants_screen():
            flight.spent_nj += costs.screen_nj
            governor.note(score)
            if score >= governor.bar() and governor.pays_trees():
                flight.spent_nj += costs.trees_nj
                if governor.pays_network():
                    flight.spent_nj += costs.network_nj
        raise Killed


def token_bucket(calibration: Calibration, costs: Costs, scans: Scans, budget_nj: int) -> Flight:
    """Energy trickles in evenly; a scan whose calibrated chance is 0.05 or more takes the most that it covers.

    The bucket holds 2 % of the budget, as in the reference simulation.
    """
    chance = monotone(calibration.trees_seen, calibration.trees_changed)
    flight, rate = Flight(), budget_nj / len(scans.score)
    cap = level = budget_nj * 0.02
    cut = ONE * 0.7 * 0.05
    for t, score in enumerate(scans.score.tolist()):
        level = min(cap, level + rate)
        if level < costs.screen_nj:
            continue
        level -= costs.screen_nj
        flight.spent_nj += costs.screen_nj
        if chance[calibration.score_bin[score]] < cut or level < costs.trees_nj:
            continue
        level -= costs.trees_nj
        flight.trees.append(t)
        flight.spent_nj += costs.trees_nj
        if level >= costs.network_nj:
            level -= costs.network_nj
            flight.network.append(t)
            flight.spent_nj += costs.network_nj
    return flight


def fixed_duty(calibration: Calibration, costs: Costs, scans: Scans, budget_nj: int) -> Flight:
    """Every n-th scan climbs the whole ladder."""
    del calibration
    flight, due, rate = Flight(), 0.0, budget_nj / len(scans.score)
    for t in range(len(scans.score)):
        due += rate
        if due >= costs.always_nj:
            due -= costs.always_nj
            flight.trees.append(t)
            flight.network.append(t)
            flight.spent_nj += costs.always_nj
    return flight


def plain_dual(calibration: Calibration, costs: Costs, scans: Scans, budget_nj: int) -> Flight:
    """Dual mirror descent without a plan (arXiv 2011.10124): the price follows spending less an even share.

    Entropic mirror map, step 1 / sqrt(T) on the log of the price, calibrated chances.
    """
    trees = [c / ONE for c in monotone(calibration.trees_seen, calibration.trees_changed)]
    network = [c / ONE for c in monotone(calibration.network_seen, calibration.network_changed)]
    flight, left, n = Flight(), float(budget_nj), len(scans.score)
    rate, step = budget_nj / n, n**-0.5
    price = 0.1 / costs.trees_nj
    for t, (score, margin) in enumerate(zip(scans.score.tolist(), scans.margin.tolist(), strict=True)):
        used = 0
        if left >= costs.always_nj:
            used = costs.screen_nj
            if trees[calibration.score_bin[score]] > price * costs.trees_nj:
                used += costs.trees_nj
                flight.trees.append(t)
                if network[calibration.margin_bin[margin]] > price * costs.network_nj:
                    used += costs.network_nj
                    flight.network.append(t)
        left -= used
        flight.spent_nj += used
        price *= 1 + step * max(-1.0, min(1.0, (used - rate) / rate))
    return flight


PEERS = {"token bucket": token_bucket, "fixed duty": fixed_duty, "plain dual": plain_dual}
