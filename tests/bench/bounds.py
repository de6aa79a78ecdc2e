"""What no policy in the field could beat: it pays for screens and sees no future, however well it knows the world.

The oracle knows every scan's chances for nothing. A policy in the field pays the screen to see a scan's score and the
trees to see its margin. `informed` relaxes everything else: the policy knows the law of the world, how its scores
bend, and the rate of active scans at every moment of the mission, to come or gone. By weak duality (a price on the
budget, the cheapest price taken) nothing that screens before it chooses finds more, on average over missions.

In `switch` the moment of the switch is hidden until it comes; `switch_unforeseen` takes that knowledge away by
dynamic programming over the time and the budget left, the law of the switch known, its arrival seen at once.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, gamma

from edge_runtime.governor.ladder import Costs
from tests.bench.missions import (
    ACTIVE,
    QUIET,
    SCANS,
    SWITCH_HIGH,
    SWITCH_LOW,
    WRONG_PLAN,
    Scans,
    World,
    oracle,
)

Floats = npt.NDArray[np.float64]

_DRAWN = 60
"""Missions over whose rates, and whose oracle, a bound is averaged."""
_PRICES = np.geomspace(1e-4, 4, 200)
"""Prices of energy, per energy of the trees."""
_TIMES, _BUDGETS = 49, 1200
"""Points of time and of the budget in the dynamic programme: a step of time uses up some 15 of the budget."""


@cache
def bound(process: str, costs: Costs, share: float) -> float:
    """The bound on the mean share of the oracle, at a budget of this share of always-on; of a wrong plan, as of none.

    From missions of their own seeds, so good to about a quarter of a per cent.
    """
    if process in ("switch", WRONG_PLAN):
        return min(1.0, switch_unforeseen(costs, share))
    budget_nj = share * costs.always_nj * SCANS
    ratios = []
    for seed in range(_DRAWN):
        world = World(process, 10_000 + seed)
        rates = world.rates()
        ratios.append(informed(rates, costs, budget_nj) / oracle(world.scans(rates), costs, budget_nj))
    return min(1.0, float(np.mean(ratios)))


@cache
def surplus(costs: Costs) -> tuple[Floats, Floats]:
    """Mean surplus above the price of one screened scan, for each of _PRICES: of an active scan, of a quiet one."""
    return _surplus(costs, beta(*ACTIVE)), _surplus(costs, beta(*QUIET))


def _surplus(costs: Costs, chances: beta) -> Floats:
    """At each price the trees run where chance and prospect pay, and then the network where its gain pays."""
    p = chances.ppf((np.arange(2000) + 0.5) / 2000)
    gains = gamma(0.7, scale=1 / 0.7).ppf((np.arange(400) + 0.5) / 400)
    network = np.minimum(0.25 * p[:, None] * gains, 0.9)
    out = []
    for price in _PRICES:
        further = np.maximum(network - price * costs.network_nj / costs.trees_nj, 0).mean(1)
        out.append(np.maximum(0.7 * p + further - price, 0).mean())
    return np.array(out)


def informed(rates: Floats, costs: Costs, budget_nj: float) -> float:
    """The bound on expected changed answers of a mission with these rates, all of them known beforehand."""
    active, quiet = surplus(costs)
    screen = _PRICES * costs.screen_nj / costs.trees_nj
    total = _PRICES * budget_nj / costs.trees_nj
    for rate, scans in zip(*np.unique(np.round(rates, 3), return_counts=True), strict=True):
        total = total + scans * np.maximum(0, rate * active + (1 - rate) * quiet - screen)
    return float(total.min())


def _per_scan(rate: float, costs: Costs, spend_nj: Floats) -> Floats:
    """The bound per scan at one rate where a scan may spend so much on average."""
    active, quiet = surplus(costs)
    earns = np.maximum(0, rate * active + (1 - rate) * quiet - _PRICES * costs.screen_nj / costs.trees_nj)
    return (_PRICES * spend_nj[:, None] / costs.trees_nj + earns).min(1)


def switch_unforeseen(costs: Costs, share: float) -> float:
    """The bound on the mean share of the oracle in missions of `switch`, at a budget of this share of always-on."""
    low_high = [
        _one_way(costs, share, *pair) for pair in ((SWITCH_LOW, SWITCH_HIGH), (SWITCH_HIGH, SWITCH_LOW))
    ]
    return float(np.mean(low_high))


def _one_way(costs: Costs, share: float, before: float, after: float) -> float:
    """Backwards from the last moment at which the switch may come; what is found counts as a share of the oracle's.

    State: the budget left. At each step a part of it is spent, then the switch comes with its hazard, after which
    an even spending of the rest is best: what a scan finds is concave in what it spends.
    """
    budget_nj = share * costs.always_nj * SCANS
    left_nj = np.linspace(0, budget_nj, _BUDGETS + 1)
    times = np.linspace(0.2, 0.8, _TIMES)
    known = times[:: _TIMES // 6]
    oracles = np.interp(times, known, [_oracle(costs, budget_nj, before, after, t) for t in known])
    scans = (times[1] - times[0]) * SCANS

    def switched(step: int) -> Floats:
        rest = (1 - times[step]) * SCANS
        return rest * _per_scan(after, costs, left_nj / rest) / oracles[step]

    value = switched(len(times) - 1)
    found = scans * _per_scan(before, costs, left_nj / scans)
    for step in range(len(times) - 2, -1, -1):
        ahead = len(times) - 1 - step
        comes = 1 / ahead
        weight = float(np.mean(1 / oracles[step + 1 :]))
        after_step = comes * switched(step + 1) + (1 - comes) * value if ahead > 1 else value
        value = _best(weight * found, after_step)
    first = 0.2 * SCANS
    at_first = first * _per_scan(before, costs, left_nj / first) * float(np.mean(1 / oracles))
    return float(_best(at_first, value)[-1])


def _best(now: Floats, later: Floats) -> Floats:
    """For each budget the best split between now and later."""
    return np.array([(now[: k + 1] + later[k::-1]).max() for k in range(len(now))])


def _oracle(costs: Costs, budget_nj: float, before: float, after: float, at: float) -> float:
    """The oracle's mean over missions that switch at this moment, from large samples of both rates' scans."""
    rng = np.random.default_rng(20)
    n = 4 * SCANS
    rates = np.where(np.arange(n) / n < at, before, after)
    p = np.where(rng.random(n) < rates, rng.beta(*ACTIVE, n), rng.beta(*QUIET, n))
    network = np.minimum(0.25 * p * rng.gamma(0.7, 1 / 0.7, n), 0.9)
    unseen = np.zeros(n, np.int64)
    return oracle(Scans(unseen, unseen, 0.7 * p, network), costs, 4 * budget_nj) / 4
