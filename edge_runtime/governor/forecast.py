"""What is still to come, from experts who are believed as far as they were right.

Each past mission of the spending plan is an expert; so is "it goes on as it was so far", which needs no plan. Their
mixture of scans by score bin names the price at which what is left of the budget just suffices. A last expert
forecasts nothing: dual mirror descent with the entropic mirror map (Balseiro, Lu and Mirrokni, arXiv 2011.10124),
whose price moves by the share that it would have overspent; its price is blended in by its weight. Weights follow
from how well each expert foresaw the slots that are over, and a fixed share lets a written-off expert come back
(Herbster and Warmuth, Machine Learning 32, 1998). A plan that is right rules; one that turns out wrong fades within
a few slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import add, mul

from edge_runtime.governor.ladder import LEVELS, Ladder

Histogram = list[int]
"""Scans by score bin."""

SLOTS = 32
"""A mission is planned and judged in this many equal slots."""
UNIT = 1 << 20
"""The sum of all weights, and of a mixture."""
_TOP = (LEVELS - 1) << 8
_SHARE_BITS = 9
"""1/512 of every weight is shared out again each slot."""
_WITHOUT_PLAN_BITS = 5
"""1/32 of the prior weight is for the experts that need no plan."""
_EXP = (
    65536, 57835, 51039, 45042, 39750, 35079, 30957, 27320, 24109, 21276, 18776, 16570, 14623, 12905, 11388, 10050,
    8869, 7827, 6907, 6096, 5380, 4747, 4190, 3697, 3263, 2879, 2541, 2243, 1979, 1747, 1541, 1360, 1200,
)  # fmt: skip
"""exp(-k/8) in 1/65536."""


def dot(a: Sequence[int], b: Sequence[int]) -> int:
    """The sum of products."""
    return sum(map(mul, a, b))


def _plus(a: Sequence[int], b: Sequence[int]) -> Histogram:
    return list(map(add, a, b))


class Past:
    """A past mission: scans by score bin in each of SLOTS slots, and from the end of each slot on."""

    __slots__ = ("after", "slots")

    def __init__(self, slots: Sequence[Sequence[int]]) -> None:
        self.slots = [list(slot) for slot in slots]
        rest = [0] * len(self.slots[0])
        self.after: list[Histogram] = []
        for slot in reversed(self.slots):
            self.after.append(rest)
            rest = _plus(rest, slot)
        self.after.reverse()


class Forecast:
    """The experts and their weights.

    pasts: the spending plan: past missions of the same length; may be empty.
    """

    __slots__ = ("_ladder", "_mirror_256", "_pasts", "_prior", "_slots_over", "_so_far", "_weights")

    def __init__(self, ladder: Ladder, pasts: Sequence[Past]) -> None:
        self._ladder = ladder
        self._pasts = pasts
        self._so_far: Histogram = [0] * len(ladder.trees)
        self._slots_over = 0
        free = UNIT >> _WITHOUT_PLAN_BITS if pasts else UNIT
        self._prior = [(UNIT - free) // len(pasts)] * len(pasts) if pasts else []
        self._prior += [free // 2, free // 2]
        self._weights = list(self._prior)
        self._mirror_256 = _TOP // 3

    @property
    def trust_in_plan(self) -> float:
        """The weight of the plan's past missions, 0 to 1, for people."""
        return sum(self._weights[: len(self._pasts)]) / UNIT

    def descend(self, block: Histogram, allowance_nj: int) -> None:
        """One step of dual mirror descent: `allowance_nj` is an even share of what is left for this block."""
        spend_nj = dot(block, self._ladder.spend_nj[self._mirror_256 >> 8])
        # A level is a quarter of an octave: 64 / 256 of a level is a factor 1.044 on the price.
        step = min(64, 24 * abs(allowance_nj - spend_nj) // (allowance_nj + 1))
        moved = self._mirror_256 + (step if spend_nj < allowance_nj else -step)
        self._mirror_256 = min(max(moved, 0), _TOP)

    def judge(self, seen: Histogram, level: int) -> None:
        """A slot is over and held `seen`: weigh the experts by what they foresaw, at the level in use."""
        slot, scans = self._slots_over, sum(seen)
        if self._pasts and scans:
            spend_nj = self._ladder.spend_nj[level]
            actual = dot(seen, spend_nj)
            foreseen = [_scaled(p.slots[slot], spend_nj, scans) for p in self._pasts]
            mean = sum(foreseen) // len(foreseen)
            spread = sum((f - mean) ** 2 for f in foreseen) // len(foreseen)
            foreseen += [_scaled(self._so_far, spend_nj, scans) if slot else mean] * 2
            # What is normal: as far as past missions differ, and an eighth of the slot's own size.
            normal = 2 * (spread + (mean * mean >> 6) + (actual * actual >> 6)) + 1
            worst = len(_EXP) - 1
            self._reweigh([min(worst, 8 * (f - actual) ** 2 // normal) for f in foreseen])
        self._so_far = _plus(self._so_far, seen)
        self._slots_over = min(slot + 1, SLOTS - 1)

    def _reweigh(self, losses: Sequence[int]) -> None:
        weights = [w * _EXP[loss] >> 16 for w, loss in zip(self._weights, losses, strict=True)]
        total = max(1, sum(weights))
        keep = UNIT - (UNIT >> _SHARE_BITS)
        self._weights = [w * keep // total + (p >> _SHARE_BITS) for w, p in zip(weights, self._prior, strict=True)]

    def mixture(self, seen: Histogram, ahead_256: int) -> Histogram | None:
        """The scans to come by score bin, as shares of UNIT; None where no expert has an opinion.

        seen: the running slot's scans by bin; ahead_256: how much of the slot is still ahead, in 1/256.
        """
        mixture = [0] * len(seen)
        slot = self._slots_over
        for past, weight in zip(self._pasts, self._weights, strict=False):
            if weight >= UNIT >> 10:
                rest = [a + (b * ahead_256 >> 8) for a, b in zip(past.after[slot], past.slots[slot], strict=True)]
                _mix(mixture, rest, weight)
        _mix(mixture, _plus(self._so_far, seen), self._weights[-2])
        total = sum(mixture)
        return [(x << 20) // total for x in mixture] if total else None

    def level_256(self, mixture: Histogram | None, scans: int, budget_nj: int) -> int:
        """The level, in 1/256, at which `scans` scans of the mixture use up `budget_nj`, the mirror's blended in."""
        if mixture is None:
            return self._mirror_256
        solved = self._solve(mixture, (max(0, budget_nj) << 20) // max(1, scans))
        return solved + (self._mirror_256 - solved) * self._weights[-1] // UNIT

    def _solve(self, mixture: Histogram, budget_nj: int) -> int:
        """The level at which the mixture costs `budget_nj`: a bisection, then a line between two levels."""
        spend_nj = self._ladder.spend_nj
        low, high = 0, LEVELS - 1
        below, above = 0, dot(mixture, spend_nj[high])
        if above <= budget_nj:
            return _TOP
        while high - low > 1:
            middle = (low + high) >> 1
            at = dot(mixture, spend_nj[middle])
            if at > budget_nj:
                high, above = middle, at
            else:
                low, below = middle, at
        return (low << 8) + ((budget_nj - below) << 8) // max(1, above - below)


def _mix(mixture: Histogram, rest: Histogram, weight: int) -> None:
    """Add the shares of `rest` times `weight`."""
    scans = sum(rest)
    if scans:
        for index, count in enumerate(rest):
            mixture[index] += (count * weight << 10) // scans


def _scaled(histogram: Histogram, spend_nj: Sequence[int], scans: int) -> int:
    return dot(histogram, spend_nj) * scans // max(1, sum(histogram))
