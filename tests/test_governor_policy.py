"""The policy against the oracle, its bounds, kills, and what a decision costs."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy.optimize import linprog

from edge_runtime.errors import HardwareUnavailable
from edge_runtime.governor import Costs
from tests.bench import bounds, learnt_plans, missions, policies
from tests.bench.bench_governor import COSTS, DEVELOPMENT, decision_instructions


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


@pytest.mark.parametrize(
    ("process", "share", "floor"),
    [
        ("iid", 0.1, 0.98),
        ("late", 0.1, 0.97),
        ("switch", 0.1, 0.93),
        ("iid", 0.01, 0.89),
        ("bursty", 0.01, 0.88),
    ],
)
def test_near_the_oracle(process: str, share: float, floor: float) -> None:
    """Two missions of each kind, of the development seeds; the bench flies all kinds, often, on others."""
    costs, shares = COSTS["reference"], []
    for seed in DEVELOPMENT[:2]:
        world, calibration, plan, scans = missions.mission(process, seed, 24)
        budget_nj = int(share * costs.always_nj * missions.SCANS)
        field = policies.Field(calibration, costs, plan, missions.SCANS, budget_nj)
        flight = field.fly(scans, world.outcomes(scans))
        assert flight.spent_nj <= budget_nj
        best = missions.oracle(scans, costs, budget_nj)
        shares.append(missions.expected(scans, flight.trees, flight.network) / best)
        peers = [peer(calibration, costs, scans, budget_nj) for peer in policies.PEERS.values()]
        assert shares[-1] > max(missions.expected(scans, p.trees, p.network) / best for p in peers)
    assert floor <= sum(shares) / len(shares) <= bounds.bound(process, costs, share) + 0.01


def test_without_a_plan_the_calibration_gives_the_first_price() -> None:
    """The first minutes of a first mission do not burn a budget of 1 %."""
    costs = COSTS["reference"]
    world, calibration, _, scans = missions.mission("iid", 0, 1)
    budget_nj = costs.always_nj * missions.SCANS // 100
    flight = policies.Field(calibration, costs, [], missions.SCANS, budget_nj).fly(
        scans, world.outcomes(scans)
    )
    found = missions.expected(scans, flight.trees, flight.network)
    assert found >= 0.87 * missions.oracle(scans, costs, budget_nj)
    early = sum(t < missions.SCANS // 20 for t in flight.trees)
    assert early < len(flight.trees) // 10


def test_the_bounds_know_less_than_the_oracle_and_more_than_the_field() -> None:
    """In order: whoever does not foresee the switch, whoever does, the oracle; more budget never finds less."""
    costs = COSTS["reference"]
    foreseen, unforeseen = [], []
    for share in (0.01, 0.1):
        budget_nj = share * costs.always_nj * missions.SCANS
        ratios = []
        for seed in range(12):
            world = missions.World("switch", seed)
            rates = world.rates()
            best = missions.oracle(world.scans(rates), costs, budget_nj)
            ratios.append(bounds.informed(rates, costs, budget_nj) / best)
        foreseen.append(float(np.mean(ratios)))
        unforeseen.append(bounds.switch_unforeseen(costs, share))
    assert all(0.8 < u < f + 0.005 for u, f in zip(unforeseen, foreseen, strict=True))
    assert foreseen[0] < 0.96  # a tenth of that budget goes into screens, which the oracle does not need
    assert unforeseen[1] < 0.99  # and not to know when costs a per cent
    rates = np.full(missions.SCANS, 0.5)
    found = [bounds.informed(rates, costs, nj) for nj in np.geomspace(1e8, 1e12, 20)]
    assert found == sorted(found)


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
    """On aarch64, over a slot of a 48-hour mission and all that is due in it, where nearly every scan climbs."""
    try:
        rows = decision_instructions(["counted"], [0.10])
    except HardwareUnavailable as e:
        pytest.skip(str(e))
    for row in rows:
        assert 0 < row["instructions"] <= 2000, row


def test_a_device_learns_its_plan_by_itself() -> None:
    """Where signals come late, one mission flown and journaled gives the next most of what a plan is worth."""
    none, one, four = learnt_plans.shares("late", 7, COSTS["reference"], 0.10, (0, 1, 4))
    assert none < 0.85
    assert min(one, four) > 0.95
