"""The policy against the oracle, its bounds, kills, and what a decision costs."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy.optimize import linprog

from edge_runtime.errors import HardwareUnavailable
from edge_runtime.governor import Costs
from tests.bench import missions, policies
from tests.bench.bench_governor import COSTS, decision_instructions


def test_the_oracle_is_the_linear_program() -> None:
    """On small missions the oracle equals a general solver of the relaxed multiple-choice knapsack."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        n = 12
        scans = missions.Scans(
            np.zeros(n, np.int64), np.zeros(n, np.int64), rng.random(n), rng.random(n) * rng.random(n)
        )
        costs = Costs(*map(int, rng.integers(1, 50, 3)))
        budget = int(rng.integers(10, n * costs.always_nj))
        gains = np.stack([scans.trees, scans.trees + scans.network], 1).ravel()
        prices = np.tile([costs.screen_nj + costs.trees_nj, costs.always_nj], n)
        one_each = np.kron(np.eye(n), [1, 1])
        solved = linprog(-gains, A_ub=np.vstack([prices, one_each]), b_ub=[budget, *[1] * n], bounds=(0, 1))
        assert missions.oracle(scans, costs, budget) == pytest.approx(-solved.fun, rel=1e-7)


@pytest.mark.parametrize(("process", "floor"), [("iid", 0.97), ("late", 0.96), ("switch", 0.92)])
def test_near_the_oracle(process: str, floor: float) -> None:
    """Two missions of each kind, a tenth of always-on; the bench flies all kinds, often."""
    costs, shares = COSTS["reference"], []
    for seed in (0, 1):
        world, calibration, plan, scans = missions.mission(process, seed, 24)
        budget_nj = costs.always_nj * missions.SCANS // 10
        field = policies.Field(calibration, costs, plan, missions.SCANS, budget_nj)
        flight = field.fly(scans, world.outcomes(scans))
        assert flight.spent_nj <= budget_nj
        best = missions.oracle(scans, costs, budget_nj)
        shares.append(missions.expected(scans, flight.trees, flight.network) / best)
        peers = [peer(calibration, costs, scans, budget_nj) for peer in policies.PEERS.values()]
        assert shares[-1] > max(missions.expected(scans, p.trees, p.network) / best for p in peers)
    assert sum(shares) / len(shares) >= floor


def test_two_hundred_kills_overspend_nothing() -> None:
    """Kills within inferences and within records: the journal never lets the mission overspend."""
    costs = COSTS["reference"]
    world, calibration, plan, scans = missions.mission("bursty", 5, 4)
    budget_nj = costs.always_nj * missions.SCANS // 10
    kills = random.Random(5).sample(range(missions.SCANS), 200)
    flight = policies.Field(calibration, costs, plan, missions.SCANS, budget_nj, kills, 5).fly(
        scans, world.outcomes(scans)
    )
    assert flight.restarts >= 150
    assert 0.8 * budget_nj < flight.spent_nj <= budget_nj


def test_a_decision_costs_at_most_two_thousand_instructions() -> None:
    """On aarch64, in a mission of 48 hours, at the demo's costs and a budget of 10 %: nearly every scan climbs."""
    try:
        rows = decision_instructions(["counted"], [0.10])
    except HardwareUnavailable as e:
        pytest.skip(str(e))
    for row in rows:
        assert 0 < row["instructions"] <= 2000, row
