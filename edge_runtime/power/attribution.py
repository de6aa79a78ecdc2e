"""From a meter's joules to the energy of one stage of one inference.

A single inference is far shorter than any meter's sample, so energy is never measured inference by inference.
Over a window of time, energy = idle power x time + the sum of count x energy a stage; over many windows with
different counts, the stages' energies come apart.

What else happens on the board (drift with temperature, another program) changes slowly or in steps. Windows
are therefore taken in blocks: every block has an idle power and a trend of its own, and only what is left
speaks of the stages. Errors within a block may hang together as they like: standard errors are between blocks
(cluster-robust by jackknife, CR3; Cameron and Miller 2015, "A practitioner's guide to cluster-robust
inference"), with Student's t for the blocks' number.
"""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul
from statistics import median

from edge_runtime.power.linear import Matrix, inverse, student_t, times

BLOCK = 12
"""Windows a block: enough to leave information after its own idle and trend, short against drift."""
MIN_BLOCKS = 6
_UNUSUAL = 4.0
"""Blocks that are left with more than this times the median spread are weighed down (Huber's weights). Only
those: weights that follow every block's own residual would make the standard errors too small."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """An energy a count (or a power) with its standard error and 95 % interval, all in the same unit.

    `resolved` is False where the interval is wider than the figure: then no figure is to be named.
    """

    value: float
    error: float
    low: float
    high: float

    @property
    def resolved(self) -> bool:
        """Whether the figure may be named."""
        return math.isfinite(self.error) and self.high - self.low <= abs(self.value)

    def text(self, unit: str) -> str:
        """For people; an unresolved figure shows only what it is known to lie in."""
        if not math.isfinite(self.error):
            return "not known yet"
        if not self.resolved:
            return f"not resolved (95 %: {self.low:.3g} to {self.high:.3g} {unit})"
        return f"{self.value:.3g} {unit} (95 %: {self.low:.3g} to {self.high:.3g})"


UNRESOLVED = Estimate(math.nan, math.inf, -math.inf, math.inf)


def _estimate(value: float, error: float, freedom: int) -> Estimate:
    reach = student_t(0.975, freedom) * error
    return Estimate(value, error, value - reach, value + reach)


class Regression:
    """Running regression of window energy on counts.

    stages: names of what is counted. keep: windows remembered, the newest; a ring of `keep` x (stages + 2)
    doubles. `add` is a copy into that ring; the algebra happens when `solve` is asked.
    """

    def __init__(self, stages: Sequence[str], *, keep: int = 2400) -> None:
        self.stages = tuple(stages)
        self._width = len(self.stages) + 2
        self._ring = array("d", bytes(8 * keep * self._width))
        self._keep, self._added = keep, 0

    def add(self, seconds: float, energy_j: float, counts: Sequence[float]) -> None:
        """One window: how long, how much energy, and how often each stage ran."""
        at = self._added % self._keep * self._width
        self._ring[at : at + self._width] = array("d", (seconds, energy_j, *counts))
        self._added += 1

    @property
    def windows(self) -> int:
        """How many are remembered."""
        return min(self._added, self._keep)

    def _blocks(self) -> list[list[array[float]]]:
        first = self._added - self.windows
        rows = [
            self._ring[k % self._keep * self._width : (k % self._keep + 1) * self._width]
            for k in range(first, self._added)
        ]
        return [rows[k : k + BLOCK] for k in range(0, len(rows) - BLOCK + 1, BLOCK)]

    def solve(self) -> dict[str, Estimate]:
        """Joules a count by stage, and `idle_w`, the mean power without any of them.

        A stage that never ran, or only in step with another, is UNRESOLVED, and so are all where there are
        too few windows.
        """
        blocks = [_Block(rows) for rows in self._blocks()]
        nothing = dict.fromkeys((*self.stages, "idle_w"), UNRESOLVED)
        if len(blocks) < MIN_BLOCKS:
            return nothing
        used = _told_apart(_sum_normal(blocks))
        if not used:
            return {**nothing, "idle_w": _mean([b.idle_w([], []) for b in blocks])}
        solution = _weighted(blocks, used)
        for _ in range(2):  # a block in which another program came or went counts for less
            spreads = [b.spread(used, solution) for b in blocks]
            usual = median(spreads)
            for block, spread in zip(blocks, spreads, strict=True):
                block.weight = min(1.0, _UNUSUAL * usual / spread) if spread else 1.0
            solution = _weighted(blocks, used)
        errors = _jackknife(blocks, used, solution)
        found = {
            self.stages[k]: _estimate(value, error, len(blocks) - 1)
            for k, value, error in zip(used, solution, errors, strict=True)
        }
        return {**nothing, **found, "idle_w": _mean([b.idle_w(used, solution) for b in blocks])}


class _Block:
    """Windows with an idle power and a trend of their own, which are projected out of everything else.

    normal, right: X'X and X'y of all stages.
    """

    def __init__(self, rows: list[array[float]]) -> None:
        self._rows = rows
        self.weight = 1.0
        seconds = [row[0] for row in rows]
        middle = (len(rows) - 1) / 2
        constant = _unit(seconds)
        trend = _less([s * (k - middle) for k, s in enumerate(seconds)], [constant])
        self._base = [constant, _unit(trend)]
        columns = list(zip(*rows, strict=True))
        self._energy = _less(columns[1], self._base)
        self._counts = [_less(column, self._base) for column in columns[2:]]
        self.normal = [[_dot(a, b) for b in self._counts] for a in self._counts]
        self.right = [_dot(counts, self._energy) for counts in self._counts]

    def _left(self, used: list[int], solution: list[float]) -> list[float]:
        left = list(self._energy)
        for stage, value in zip(used, solution, strict=True):
            left = [u - value * x for u, x in zip(left, self._counts[stage], strict=True)]
        return left

    def spread(self, used: list[int], solution: list[float]) -> float:
        """Sum of squares of what the stages do not explain."""
        left = self._left(used, solution)
        return _dot(left, left)

    def score(self, used: list[int], solution: list[float]) -> list[float]:
        """X'Wu with the residuals u: the block's contribution to the error."""
        left = self._left(used, solution)
        return [self.weight * _dot(self._counts[i], left) for i in used]

    def idle_w(self, used: list[int], solution: list[float]) -> float:
        """Mean power of the block once the stages' energy is taken off."""
        stages = sum(
            value * math.fsum(row[2 + stage] for row in self._rows)
            for stage, value in zip(used, solution, strict=True)
        )
        return (math.fsum(r[1] for r in self._rows) - stages) / math.fsum(r[0] for r in self._rows)


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(map(mul, a, b), 0.0)


def _unit(vector: Sequence[float]) -> list[float]:
    length = math.sqrt(_dot(vector, vector))
    return [x / length for x in vector]


def _less(vector: Sequence[float], base: list[list[float]]) -> list[float]:
    """What is left of the vector beside an orthonormal base; exactly zero where that is rounding."""
    left = list(vector)
    for unit in base:
        along = _dot(left, unit)
        left = [x - along * u for x, u in zip(left, unit, strict=True)]
    if _dot(left, left) < 1e-20 * _dot(vector, vector):
        return [0.0] * len(left)
    return left


def _part(matrix: Matrix, used: list[int]) -> Matrix:
    return [[matrix[i][j] for j in used] for i in used]


def _sum_normal(blocks: list[_Block]) -> Matrix:
    size = range(len(blocks[0].normal))
    return [[math.fsum(b.weight * b.normal[i][j] for b in blocks) for j in size] for i in size]


def _told_apart(normal: Matrix) -> list[int]:
    """The stages whose counts vary on their own: greedily, those that do not make the matrix singular."""
    used: list[int] = []
    for stage in range(len(normal)):
        trial = [*used, stage]
        if inverse(_part(normal, trial)) is not None:
            used = trial
    return used


def _weighted(blocks: list[_Block], used: list[int]) -> list[float]:
    """Weighted least squares."""
    bread = inverse(_part(_sum_normal(blocks), used))
    assert bread is not None, "the used stages were told apart"
    right = [math.fsum(b.weight * b.right[stage] for b in blocks) for stage in used]
    return times(bread, right)


def _jackknife(blocks: list[_Block], used: list[int], solution: list[float]) -> list[float]:
    """Standard errors from what becomes of the solution when each block in turn is left out (CR3)."""
    normal = _part(_sum_normal(blocks), used)
    total = [0.0] * len(used)
    for block in blocks:
        w, own = block.weight, _part(block.normal, used)
        without = [[n - w * o for n, o in zip(*rows, strict=True)] for rows in zip(normal, own, strict=True)]
        bread = inverse(without)
        if bread is None:  # a stage that ran in this block only
            return [math.inf] * len(used)
        moved = times(bread, block.score(used, solution))
        total = [t + m * m for t, m in zip(total, moved, strict=True)]
    shrink = (len(blocks) - 1) / len(blocks)
    return [math.sqrt(shrink * t) for t in total]


def _mean(values: list[float]) -> Estimate:
    mean, freedom = math.fsum(values) / len(values), len(values) - 1
    spread = math.fsum((v - mean) ** 2 for v in values) / freedom / len(values)
    return _estimate(mean, math.sqrt(spread), freedom)


def interleaved(windows: Sequence[tuple[float, float, float]]) -> Estimate:
    """Joules a count from windows (seconds, joules, count), alternately with and without work.

    Each pair of neighbours gives one difference of power, so that drift cancels; the error is between pairs.
    Raises ValueError for fewer than four pairs.
    """
    pairs = []
    for (t0, e0, n0), (t1, e1, n1) in zip(windows[::2], windows[1::2], strict=False):
        rate = n1 / t1 - n0 / t0
        if rate == 0:
            raise ValueError("the windows of a pair must differ in their count")
        pairs.append((e1 / t1 - e0 / t0) / rate)
    if len(pairs) < 4:
        raise ValueError("at least four pairs of windows are needed")
    mean = math.fsum(pairs) / len(pairs)
    spread = math.fsum((p - mean) ** 2 for p in pairs) / (len(pairs) - 1)
    return _estimate(mean, math.sqrt(spread / len(pairs)), len(pairs) - 1)


def median_interval(values: Sequence[float], *, seed: int = 1) -> tuple[float, float]:
    """The 95 % bootstrap interval of the median (Efron's percentile method, 2,000 resamples)."""
    rng = random.Random(seed)
    medians = sorted(median(rng.choices(values, k=len(values))) for _ in range(2000))
    return medians[50], medians[-51]
