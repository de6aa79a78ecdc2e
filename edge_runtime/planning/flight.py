"""A mission flown on a simulated clock: the real governor, or a simpler policy, over given arrivals."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_runtime.errors import BadInput
from edge_runtime.governor import Budget, Calibration, Costs, Governor, Ladder, Ledger, Past
from edge_runtime.governor.ledger import BURST_256
from edge_runtime.planning.arrivals import QUIET, Arrival

POLICIES = "governor, always, screen, never, every:N, bucket"


@dataclass(slots=True)
class Flight:
    """What a policy did: runs of each rung, and of the answers that a rung would have changed, how many it got."""

    scans: int = 0
    screened: int = 0
    trees: int = 0
    network: int = 0
    changes: int = 0
    got: int = 0

    @property
    def missed(self) -> int:
        """Answers that would have changed and did not."""
        return self.changes - self.got

    def spent_nj(self, costs: Costs) -> int:
        """At the rungs' costs."""
        return self.screened * costs.screen_nj + self.trees * costs.trees_nj + self.network * costs.network_nj


Choose = Callable[[Arrival], int]
"""How many rungs a scan climbs: 0 none, 1 screen, 2 trees, 3 network."""


def fly(
    policy: str,
    arrivals: Sequence[Arrival],
    budget: Budget,
    calibration: Calibration,
    costs: Costs,
    pasts: Sequence[Past] = (),
) -> Flight:
    """Fly all arrivals under a policy (one of POLICIES). Raises BadInput where there is none of that name.

    pasts: the governor's spending plan, counted in the calibration's bins. Where costs give the network a price of
    its own, the policy decides on it; where not, it follows the trees as in the loop, which is paid for with them.
    """
    choose = _policy(policy, arrivals, budget, calibration, costs, pasts)
    top = 3 if costs.network_nj else 2
    flight = Flight()
    for arrival in arrivals:
        rungs = choose(arrival)
        flight.scans += 1
        flight.screened += rungs >= 1
        flight.trees += rungs >= 2
        flight.network += rungs >= 3 or (rungs == top == 2 and arrival.asks_network)
        if arrival.trees_change or (arrival.network_changes and top == 3):
            flight.changes += 1
            flight.got += rungs >= (2 if arrival.trees_change else 3)
    return flight


def _policy(
    name: str,
    arrivals: Sequence[Arrival],
    budget: Budget,
    calibration: Calibration,
    costs: Costs,
    pasts: Sequence[Past],
) -> Choose:
    top = 3 if costs.network_nj else 2
    if name == "governor":
        return _governor(arrivals, budget, calibration, costs, pasts)
    if name == "always":
        return lambda _: top
    if name == "screen":
        return lambda arrival: top if arrival.score else 1
    if name == "never":
        return lambda _: 0
    if name == "bucket":
        return _bucket(len(arrivals), budget, costs, top)
    if every := re.fullmatch(r"every:([1-9][0-9]*)", name):
        return _every(int(every[1]), top)
    raise BadInput(f"policy {name!r}: unknown; choose of {POLICIES}")


def _every(n: int, top: int) -> Choose:
    count = -1

    def choose(_: Arrival) -> int:
        nonlocal count
        count += 1
        return 0 if count % n else top

    return choose


def _bucket(scans: int, budget: Budget, costs: Costs, top: int) -> Choose:
    level = cap = max(budget.energy_nj // 50, costs.always_nj)
    left = budget.energy_nj

    def choose(arrival: Arrival) -> int:
        nonlocal level, left
        level = min(cap, level + budget.energy_nj // scans, left)
        prices = (0, costs.screen_nj, costs.screen_nj + costs.trees_nj, costs.always_nj)
        wanted = top if arrival.score else 1
        rungs = max(r for r in range(wanted + 1) if prices[r] <= level or r == 0)
        level -= prices[rungs]
        left -= prices[rungs]
        return rungs

    return choose


def _governor(
    arrivals: Sequence[Arrival],
    budget: Budget,
    calibration: Calibration,
    costs: Costs,
    pasts: Sequence[Past],
) -> Choose:
    now_us = 0
    ledger = Ledger(
        budget.energy_nj,
        budget.duration_us,
        lambda _payload: None,
        lambda: now_us,
        worst_nj=costs.always_nj,
        burst_256=BURST_256,
    )
    span_us = max(1, arrivals[-1].captured_us) if arrivals else 1
    governor = Governor(
        Ladder(calibration, costs),
        ledger,
        pasts,
        duration_us=budget.duration_us,
        scan_us=max(1, span_us // max(1, len(arrivals) - 1)),
        clock_us=lambda: now_us,
    )

    def choose(arrival: Arrival) -> int:
        nonlocal now_us
        now_us = arrival.captured_us
        ample = governor.ample
        if not (governor.dense or governor.wants_screen()):
            return 0
        governor.note(arrival.score)
        if not (arrival.score >= governor.bar() and governor.pays_trees()):
            return 1
        if ample and arrival.score == QUIET:  # the artifact's own screen spares it
            ledger.correct(-costs.trees_nj)
            return 1
        further = costs.network_nj > 0 and arrival.margin <= governor.network_upto and governor.pays_network()
        if governor.learning:
            network = arrival.network_changes if further else None
            governor.learn(arrival.score, arrival.margin, arrival.trees_change, network)
        return 3 if further else 2

    return choose
