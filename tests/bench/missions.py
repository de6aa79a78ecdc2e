"""Missions for the governor: arrivals, what each rung would find, scores that are no probabilities, and the oracle.

The model is that of the reference simulation: scans come with a chance p that they hold something, the trees find
0.70 of it, the network a quarter more on average. What the policies see of p is a score, p bent by an unknown power;
of the network's gain they see a margin, bent by another, and that only after the trees ran. Which bending it is
changes from run to run, and only the outcomes of a calibration set of 2,000 labelled scans tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.governor.forecast import SLOTS, Past
from edge_runtime.governor.ladder import Calibration, Costs, Trial

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SCANS = 20_000
CALIBRATION_SCANS = 2_000
PROCESSES = ("iid", "diurnal", "bursty", "late", "early", "switch")
WRONG_PLAN = "wrong plan"
"""The switch, met with a plan made of missions without one: history says that the beginning goes on."""

ACTIVE, QUIET = (0.6, 2.0), (0.3, 20.0)
"""Chances of active and of quiet scans: parameters of their beta distributions."""
SWITCH_LOW, SWITCH_HIGH = 0.15, 1.0
"""Rates of active scans before and after the switch, in either order."""


@dataclass(frozen=True, slots=True)
class Scans:
    """Scans in order. trees, network: the chance that the rung changes the answer to the right one."""

    score: Ints
    margin: Ints
    trees: Floats
    network: Floats


class World:
    """One run's hidden truth: its rates, and how scores bend."""

    def __init__(self, process: str, seed: int) -> None:
        self.process = process
        self.rng = np.random.default_rng([seed, sum(map(ord, process))])
        self._score_power, self._margin_power = self.rng.uniform(0.25, 0.6, 2)

    def rates(self) -> Floats:
        """How often a scan is an active one, for each scan of a mission drawn anew."""
        t = np.arange(SCANS) / SCANS
        if self.process == "iid":
            return np.full(SCANS, 0.5)
        if self.process == "diurnal":
            return 0.5 * (1 + np.sin(2 * np.pi * 4 * t))
        if self.process == "bursty":
            return np.where(np.cumsum(self.rng.random(SCANS) < 0.005) % 2 == 1, 1.0, 0.1)
        if self.process == "late":
            return np.where(t < 0.7, 0.15, 1.0)
        if self.process == "early":
            return np.where(t < 0.3, 1.0, 0.15)
        at, up = self.rng.uniform(0.2, 0.8), self.rng.random() < 0.5
        return np.where((t < at) == up, SWITCH_LOW, SWITCH_HIGH)

    def scans(self, rates: Floats) -> Scans:
        """Scans at these rates."""
        n, rng = len(rates), self.rng
        p = np.where(rng.random(n) < rates, rng.beta(*ACTIVE, n), rng.beta(*QUIET, n))
        network = np.minimum(0.25 * p * rng.gamma(0.7, 1 / 0.7, n), 0.9)
        score = np.minimum(255, 256 * p**self._score_power).astype(np.int64)
        margin = 255 - np.minimum(255, 256 * network**self._margin_power).astype(np.int64)
        return Scans(score, margin, 0.7 * p, network)

    def outcomes(self, scans: Scans) -> tuple[list[bool], list[bool]]:
        """Whether the trees, and whether the network, change the answer, drawn from their chances."""
        n = len(scans.score)
        return (self.rng.random(n) < scans.trees).tolist(), (self.rng.random(n) < scans.network).tolist()

    def calibration(self) -> Calibration:
        """What a bundle would bring along: outcomes of labelled scans at a rate that no mission has."""
        scans = self.scans(np.full(CALIBRATION_SCANS, 0.5))
        rows = zip(scans.score.tolist(), scans.margin.tolist(), *self.outcomes(scans), strict=True)
        return Calibration.count([Trial(*row) for row in rows])

    def plan(self, missions: int, score_bin: bytes, rates: Floats | None = None) -> list[Past]:
        """Past missions, drawn independently; `rates` sets them, or each has its own."""
        bins, table = max(score_bin) + 1, np.frombuffer(score_bin, np.uint8)
        pasts = []
        for _ in range(missions):
            binned = table[self.scans(self.rates() if rates is None else rates).score]
            slots = np.array_split(binned, SLOTS)
            pasts.append(Past([np.bincount(slot, minlength=bins).tolist() for slot in slots]))
        return pasts


Mission = tuple[World, Calibration, list[Past], Scans]


def mission(process: str, seed: int, plan_missions: int) -> Mission:
    """A mission to fly, and all that is known before it: calibration and plan."""
    world = World("switch" if process == WRONG_PLAN else process, seed)
    calibration = world.calibration()
    rates = world.rates()
    believed = np.full(SCANS, rates[0]) if process == WRONG_PLAN else None
    plan = world.plan(plan_missions, calibration.score_bin, believed)
    return world, calibration, plan, world.scans(rates)


def oracle(scans: Scans, costs: Costs, budget_nj: float) -> float:
    """The most that the budget could find: the linear relaxation of the multiple-choice knapsack, exactly.

    Every scan may stay at skip, or climb to the trees or the network; whoever climbs pays for the screen too. All
    chances are known, those of the future included. Per scan only the concave hull of (cost, gain) matters; taking
    its pieces in the order of gain per cost solves the relaxation (Zemel, Information Processing Letters 11, 1980).
    """
    first, second = float(costs.screen_nj + costs.trees_nj), float(costs.network_nj)
    merged = scans.network * first > scans.trees * second if second else np.zeros(len(scans.trees), bool)
    cost = np.concatenate([np.where(merged, first + second, first), np.full(np.sum(~merged), second)])
    gain = np.concatenate([scans.trees + np.where(merged, scans.network, 0), scans.network[~merged]])
    worth = cost > 0
    cost, gain = cost[worth], gain[worth]
    order = np.argsort(-gain / cost, kind="stable")
    return float(np.interp(budget_nj, *_cumulative(cost[order], gain[order])))


def ceiling(scans: Scans, costs: Costs, budget_nj: float) -> float:
    """The oracle's best if it too had to screen whatever it chooses from: a share of all scans, picked blindly."""
    best = 0.0
    for share in (0.1, 0.2, 0.35, 0.5, 0.75, 1.0):
        part = slice(0, None, 1) if share == 1 else np.random.default_rng(0).random(len(scans.trees)) < share
        chosen = Scans(scans.score[part], scans.margin[part], scans.trees[part], scans.network[part])
        left_nj = budget_nj - costs.screen_nj * len(chosen.trees)
        if left_nj > 0:
            best = max(best, oracle(chosen, Costs(0, costs.trees_nj, costs.network_nj), left_nj))
    return best


def _cumulative(cost: Floats, gain: Floats) -> tuple[Floats, Floats]:
    return np.concatenate([[0], np.cumsum(cost)]), np.concatenate([[0], np.cumsum(gain)])


def expected(scans: Scans, trees: Sequence[int], network: Sequence[int]) -> float:
    """Expected answers changed for the better by the runs of the trees and of the network on these scans."""
    return float(scans.trees[trees].sum() + scans.network[network].sum())
