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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import mul
from statistics import median

from edge_runtime.power.linear import Matrix, inverse, student_t, times

BLOCK = 12
"""Windows a block: enough to leave information after its own idle and trend, short against drift."""
MIN_BLOCKS = 6
LEAST_WINDOWS = MIN_BLOCKS * BLOCK
OWN_SHARE = 1e-3
"""A stage of whose variation less than this is its own (3 % of its standard deviation) moves with others: what
little is left says more of the windows' edges than of the stage."""
_A_PARTNER = 0.1
"""Another stage is named as moving with it where it makes up so much of the common variation."""
_SAME_MIX = 0.05
_Z95 = 1.96
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

    def also(self, share: float) -> Estimate:
        """With the meter's own error beside it: so large a share of the figure, 95 %."""
        if not math.isfinite(self.error):
            return self
        own = share * abs(self.value)
        reach = math.hypot((self.high - self.low) / 2, own) if math.isfinite(own) else math.inf
        return Estimate(
            self.value, math.hypot(self.error, own / _Z95), self.value - reach, self.value + reach
        )

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


@dataclass(frozen=True, slots=True)
class Solution:
    """What the windows tell.

    stages: joules a count by stage. One that moves only with others is UNRESOLVED, and its energy is in theirs.
    idle_w: the mean power without any of them.
    inseparable: by stage, the others that it moves with (so that its figure, where it has one, holds their part
        too), and "idle" where its rate never changed.
    """

    stages: dict[str, Estimate]
    idle_w: Estimate
    inseparable: dict[str, tuple[str, ...]]
    moved: tuple[tuple[float, ...], ...] = ()
    used: tuple[str, ...] = ()
    alike: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def combined(self, counts: Mapping[str, float]) -> Estimate:
        """The energy of so many of each stage together, joules: better known than the sum of its parts.

        It is known even where stages move together, as long as `counts` has them in the proportion in which they
        moved, and none of them hides in idle; else UNRESOLVED.

        moved: what becomes of each `used` stage with each block left out. alike: of a stage that is not used, its
        counts for each count of those that are.
        """
        hidden = any("idle" in self.inseparable.get(stage, ()) for stage, count in counts.items() if count)
        if hidden or not self.used:
            return UNRESOLVED
        for stage, along in self.alike.items():
            wanted = counts.get(stage, 0.0)
            follows = math.fsum(share * counts.get(k, 0.0) for k, share in along.items())
            if abs(wanted - follows) > _SAME_MIX * max(abs(wanted), abs(follows)):
                return UNRESOLVED
        weights = [counts.get(stage, 0.0) for stage in self.used]
        value = math.fsum(w * self.stages[s].value for w, s in zip(weights, self.used, strict=True))
        return _estimate(value, _jackknifed(self.moved, weights), len(self.moved) - 1)


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

    def solve(self) -> Solution:
        """Joules a count by stage. All is UNRESOLVED where there are too few windows."""
        blocks = [_Block(rows) for rows in self._blocks()]
        nothing = dict.fromkeys(self.stages, UNRESOLVED)
        if len(blocks) < MIN_BLOCKS:
            return Solution(nothing, UNRESOLVED, {})
        used, alike = _told_apart(_sum_normal(blocks))
        solution = _robust(blocks, used) if used else []
        moved = _left_out(blocks, used, solution) if used else []
        found = {
            self.stages[k]: _estimate(solution[at], _jackknifed(moved, _one(at, len(used))), len(blocks) - 1)
            for at, k in enumerate(used)
        }
        names = self.stages
        return Solution(
            stages={**nothing, **found},
            idle_w=_mean([b.idle_w(used, solution) for b in blocks]),
            inseparable=self._inseparable(blocks, alike),
            moved=tuple(tuple(m) for m in moved),
            used=tuple(names[k] for k in used),
            alike={
                names[k]: {names[u]: a for u, a in along.items()}
                for k, along in alike.items()
                if any(b.counted[k] for b in blocks)
            },
        )

    def _inseparable(
        self, blocks: list[_Block], alike: dict[int, dict[int, float]]
    ) -> dict[str, tuple[str, ...]]:
        normal = _sum_normal(blocks)
        partners: dict[int, list[str]] = {k: [] for k in range(len(self.stages))}
        for stage, along in alike.items():
            for other, share in along.items():
                if share * share * normal[other][other] > _A_PARTNER**2 * normal[stage][stage]:
                    partners[stage].append(self.stages[other])
                    partners[other].append(self.stages[stage])
        for stage, names in partners.items():
            counted = math.fsum(b.counted[stage] for b in blocks)
            if counted and normal[stage][stage] < OWN_SHARE * counted:
                names.append("idle")
        return {self.stages[k]: tuple(names) for k, names in partners.items() if names}


class _Block:
    """Windows with an idle power and a trend of their own, which are projected out of everything else.

    normal, right: X'X and X'y of all stages. counted: the squares of their counts, nothing projected out.
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
        self.counted = [_dot(column, column) for column in columns[2:]]
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


def _told_apart(normal: Matrix) -> tuple[list[int], dict[int, dict[int, float]]]:
    """The stages whose counts vary on their own, taken greedily; and the others, with what they move along."""
    used: list[int] = []
    alike: dict[int, dict[int, float]] = {}
    for stage, row in enumerate(normal):
        towards = [row[k] for k in used]
        bread = inverse(_part(normal, used))
        along = times(bread, towards) if bread else []
        own = row[stage] - _dot(along, towards)
        if own > OWN_SHARE * row[stage]:
            used.append(stage)
        elif row[stage] > 0:
            alike[stage] = dict(zip(used, along, strict=True))
        else:
            alike[stage] = {}
    return used, alike


def _robust(blocks: list[_Block], used: list[int]) -> list[float]:
    """Weighted least squares in which a block counts for less where another program came or went."""
    solution = _weighted(blocks, used)
    for _ in range(2):
        spreads = [b.spread(used, solution) for b in blocks]
        usual = median(spreads)
        for block, spread in zip(blocks, spreads, strict=True):
            block.weight = min(1.0, _UNUSUAL * usual / spread) if spread else 1.0
        solution = _weighted(blocks, used)
    return solution


def _weighted(blocks: list[_Block], used: list[int]) -> list[float]:
    """Weighted least squares."""
    bread = inverse(_part(_sum_normal(blocks), used))
    assert bread is not None, "the used stages were told apart"
    right = [math.fsum(b.weight * b.right[stage] for b in blocks) for stage in used]
    return times(bread, right)


def _left_out(blocks: list[_Block], used: list[int], solution: list[float]) -> list[list[float]]:
    """By how much the solution moves when each block in turn is left out; infinitely where it hangs on that one."""
    normal = _part(_sum_normal(blocks), used)
    moved = []
    for block in blocks:
        w, own = block.weight, _part(block.normal, used)
        without = [[n - w * o for n, o in zip(*rows, strict=True)] for rows in zip(normal, own, strict=True)]
        bread = inverse(without)
        score = block.score(used, solution)
        if bread is not None:
            moved.append(times(bread, score))
            continue
        kept, lost = _told_apart(without)  # a stage that ran in this block only
        # Its part of the solution falls away with it, and that shifts the others.
        score = [s - sum(without[k][j] * solution[j] for j in lost) for k, s in enumerate(score)]
        row = [math.inf] * len(used)
        for k, value in zip(
            kept, times(inverse(_part(without, kept)) or [], [score[k] for k in kept]), strict=True
        ):
            row[k] = value
        moved.append(row)
    return moved


def _jackknifed(moved: Sequence[Sequence[float]], weights: Sequence[float]) -> float:
    """The standard error of a weighted sum of the solution (CR3)."""
    total = math.fsum(math.fsum(w * m for w, m in zip(weights, row, strict=True) if w) ** 2 for row in moved)
    return math.sqrt((len(moved) - 1) / len(moved) * total)


def _one(at: int, size: int) -> list[float]:
    return [float(k == at) for k in range(size)]


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
