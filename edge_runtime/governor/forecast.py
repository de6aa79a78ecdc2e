"""What is still to come, from experts who are believed as far as they were right.

Each past mission of the spending plan is an expert; so are "it goes on as it was so far" and "as it was lately",
which need no plan and begin with what the bundle's calibration scans were like. Each names a scenario, and each
scenario the price at which what is left of the budget just suffices; the price in force is their mean, weighted by
belief: what a joule kept back is worth on average over what may come. (The price of the mean scenario would spend
too early whatever only some of them need later.) Weights follow from how well each expert foresaw the slots that are
over, and a fixed share lets a written-off expert come back (Herbster and Warmuth, Machine
Learning 32, 1998). A plan that is right rules; one that turns out wrong fades within some slots.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import add, mul, neg
from typing import NamedTuple

from edge_runtime.governor.ladder import LEVELS, QUARTER_OCTAVES, Ladder

Histogram = list[int]
"""Scans by score bin, the most telling first."""

SLOTS = 32
"""A mission is planned and judged in this many equal slots."""
UNIT = 1 << 20
"""The sum of all weights."""
MIXTURE_BITS = 13
"""The shares of a mixture add up to 2**13, so that its products with the ladder's tables stay below 2**30."""
_PAST_BITS = 16
"""A past mission counts 2**16 scans, whatever it had: products with the ladder's tables stay short."""
_TOP = (LEVELS - 1) << 8
_PRICES = [(QUARTER_OCTAVES[k & 3] << 14) >> (k >> 2) for k in range(LEVELS)]
"""The price of each level, against level 0's at 2**30."""
_TELLING = 16
"""Experts are judged at a price so many levels lower than that in force: four octaves."""
_ASKED = 16
"""So many past missions are asked at a time, the others at the next times."""
_NEGLIGIBLE_BITS = 7
"""Experts with less than 1/128 of the weight of the best are not asked."""
_SHARE_BITS = 9
"""1/512 of every weight is shared out again each slot."""
_WITHOUT_PLAN_BITS = 6
"""1/64 of the prior weight is for the experts that need no plan."""
_EXP = (
    65536, 57835, 51039, 45042, 39750, 35079, 30957, 27320, 24109, 21276, 18776, 16570, 14623, 12905, 11388, 10050,
    8869, 7827, 6907, 6096, 5380, 4747, 4190, 3697, 3263, 2879, 2541, 2243, 1979, 1747, 1541, 1360, 1200,
)  # fmt: skip
"""exp(-k/8) in 1/65536."""


class Scenario(NamedTuple):
    """One expert's word: its number and weight; the scans to come by score bin, in any unit, and their sum."""

    expert: int
    weight: int
    counts: Sequence[int]
    total: int


def dot(a: Sequence[int], b: Sequence[int]) -> int:
    """The sum of products over the length of the shorter."""
    return sum(map(mul, a, b))


def _plus(a: Iterable[int], b: Iterable[int]) -> Histogram:
    return list(map(add, a, b))


class Past:
    """A past mission: scans by score bin in each of SLOTS slots.

    share[slot][n]: the share of the slot's scans that lies in the first n bins, the most telling ones.
    """

    __slots__ = ("_after", "_bins", "_during", "share")

    def __init__(self, slots: Sequence[Sequence[int]]) -> None:
        self._bins = len(slots[0])
        total = max(1, sum(map(sum, slots)))
        # Each packed into one integer (a bin a lane of 64 bits): to weigh and to add them takes two operations.
        self._during = [_pack([((n << _PAST_BITS) + (total >> 1)) // total for n in slot]) for slot in slots]
        self._after = [*accumulate(reversed(self._during[1:]), initial=0)][::-1]
        self.share = [[_share(n, sum(slot)) for n in accumulate(slot, initial=0)] for slot in slots]

    def ahead(self, slot: int, ahead_256: int) -> Sequence[int]:
        """Scans by bin, in a unit of its own, in what is ahead of a slot (in 1/256 of it) and in those behind it."""
        lanes = (self._after[slot] << 4) + self._during[slot] * (ahead_256 >> 4)
        return struct.unpack(f"<{self._bins}Q", lanes.to_bytes(8 * self._bins, "little"))


def _pack(histogram: Sequence[int]) -> int:
    return int.from_bytes(struct.pack(f"<{len(histogram)}Q", *histogram), "little")


class Forecast:
    """The experts and their weights.

    pasts: the spending plan: past missions of the same length; may be empty.
    slot: the slot in which the forecast begins, above 0 after a restart.
    """

    __slots__ = ("_ladder", "_lately", "_levels", "_pasts", "_prior", "_slot", "_so_far", "_turn", "_weights")

    def __init__(self, ladder: Ladder, pasts: Sequence[Past], slot: int = 0) -> None:
        self._ladder = ladder
        self._pasts = pasts
        self._so_far: Histogram = [sum(row) for row in ladder.calibration.joint]
        self._lately: Histogram = list(self._so_far)
        self._slot = slot
        self._turn = 0
        free = UNIT >> _WITHOUT_PLAN_BITS if pasts else UNIT
        self._prior = [(UNIT - free) // len(pasts)] * len(pasts) if pasts else []
        self._prior += [free // 2] * 2
        self._weights = list(self._prior)
        self._levels = [LEVELS // 3] * (len(self._prior) + 1)
        """Where each expert's price was when it was asked last, and that of a mixture."""

    @property
    def state(self) -> tuple[list[int], list[int], list[int]]:
        """The mission's scans by bin so far and lately, and the weights: what a restart should not lose."""
        return self._so_far, self._lately, self._weights

    def resume(self, so_far: list[int], lately: list[int], weights: list[int]) -> None:
        """Continue from a state."""
        self._so_far, self._lately, self._weights = so_far, lately, weights

    @property
    def trust_in_plan(self) -> float:
        """The weight of the plan's past missions, 0 to 1, for people."""
        return sum(self._weights[: len(self._pasts)]) / UNIT

    def judge(self, seen: Histogram, level: int, next_slot: int) -> None:
        """The running slot is over and held `seen`; `next_slot` begins: weigh the experts."""
        if self._pasts and any(seen):
            self._reweigh(self._losses(seen, level))
        self._so_far = _plus(self._so_far, seen)
        self._lately = [(a >> 1) + 64 * b for a, b in zip(self._lately, seen, strict=True)]
        self._slot = next_slot

    def _losses(self, seen: Histogram, level: int) -> list[int]:
        """How wrong each expert is about the running slot, an index of _EXP.

        They are judged by the share of scans that they foresaw as worth the trees, at a price sixteen times
        lower than that in use: there enough scans count that chance does not decide.
        """
        slot = self._slot
        n = len(self._ladder.spend[min(level + _TELLING, LEVELS - 1)])
        scans = sum(seen)
        actual = _share(sum(seen[:n]), scans)
        foreseen = [p.share[slot][n] for p in self._pasts]
        beside = slot - 1 if slot else 1
        steps = sorted(abs(f - p.share[beside][n]) for f, p in zip(foreseen, self._pasts, strict=True))
        step = steps[len(steps) // 2]
        foreseen += [_share(sum(h[:n]), sum(h)) for h in (self._so_far, self._lately)]
        middle = sum(map(mul, foreseen, self._weights)) // UNIT
        # What is normal: as far as a past mission differs from itself a slot earlier, an eighth of the slot's own
        # size, and what chance does to so few scans. Not as far as past missions differ from each other: that is
        # what is to be told.
        normal = step * step + ((middle * middle + actual * actual) >> 5) + (middle << 16) // scans + 1
        worst = len(_EXP) - 1
        return [min(worst, 2 * (f - actual) ** 2 // normal) for f in foreseen]

    def _reweigh(self, losses: Sequence[int]) -> None:
        weights = [w * _EXP[loss] >> 16 for w, loss in zip(self._weights, losses, strict=True)]
        total = max(1, sum(weights))
        keep = UNIT - (UNIT >> _SHARE_BITS)
        self._weights = [
            w * keep // total + (p >> _SHARE_BITS) for w, p in zip(weights, self._prior, strict=True)
        ]

    def scenarios(self, seen: Histogram, ahead_256: int) -> list[Scenario]:
        """What each expert worth asking says is to come.

        seen: the running slot's scans by bin; ahead_256: how much of the slot is still ahead, in 1/256.
        """
        weights = self._weights
        floor = max(weights) >> _NEGLIGIBLE_BITS
        own = (_plus(self._so_far, seen), _plus(self._lately, seen))
        first = len(self._pasts)
        believed = [expert for expert in range(first) if weights[expert] > floor]
        stride = -(-len(believed) // _ASKED) or 1
        self._turn += 1
        return [
            Scenario(expert, weights[expert], counts, sum(counts))
            for expert in believed[self._turn % stride :: stride]
            if any(counts := self._pasts[expert].ahead(self._slot, ahead_256))
        ] + [
            Scenario(expert, max(1, weights[expert]), counts, max(1, sum(counts)))
            for expert, counts in enumerate(own, first)
        ]

    def level_256(self, scenarios: Iterable[Scenario], allowance: int) -> int:
        """The level, in 1/256, whose price is the mean of those at which each scenario uses up `allowance`.

        allowance: energy for 2**MIXTURE_BITS scans, in 1/65536 of a whole climb.
        """
        price = total = 0
        for scenario in scenarios:
            price += scenario.weight * _price(
                self._solve(scenario, allowance * scenario.total >> MIXTURE_BITS)
            )
            total += scenario.weight
        return _level_256(price // total)

    def level_of(self, mixture: Histogram, allowance: int) -> int:
        """The level, in 1/256, at which one mixture, as `mean` gives it, uses up `allowance`."""
        return self._solve(Scenario(-1, 1, mixture, 1 << MIXTURE_BITS), allowance)

    def _solve(self, scenario: Scenario, allowance: int) -> int:
        """The level at which the scenario costs `allowance`: a search from where it was, then a line."""
        spend, counts = self._ladder.spend, scenario.counts
        low = self._levels[scenario.expert]
        below = dot(counts, spend[low])
        step = 1
        high, above = LEVELS, 0
        while low and below > allowance:
            high, above = low, below
            low = max(0, low - step)
            below = dot(counts, spend[low])
            step *= 2
        while high - low > 1:
            middle = min((low + high) >> 1, low + step) if high == LEVELS else (low + high) >> 1
            at = dot(counts, spend[middle])
            if at > allowance:
                high, above = middle, at
            else:
                low, below = middle, at
                step *= 2
        self._levels[scenario.expert] = low
        if high == LEVELS:
            return _TOP
        # At level 0 a network that is nearly free may still seem worth it; nothing is above that level.
        return (low << 8) + (max(0, allowance - below) << 8) // max(1, above - below)


def mean(scenarios: Sequence[Scenario]) -> Histogram:
    """The mean scenario, as shares of 2**MIXTURE_BITS."""
    summed = [0] * len(scenarios[0].counts)
    for scenario in scenarios:
        factor = (scenario.weight << 16) // scenario.total
        summed = [m + factor * x for m, x in zip(summed, scenario.counts, strict=True)]
    total = max(1, sum(summed))
    return [(x << MIXTURE_BITS) // total for x in summed]


def _price(level_256: int) -> int:
    level, part = level_256 >> 8, level_256 & 255
    below = _PRICES[min(level + 1, LEVELS - 1)]
    return _PRICES[level] - ((_PRICES[level] - below) * part >> 8)


def _level_256(price: int) -> int:
    """The inverse of `_price`."""
    above = max(0, bisect_left(_PRICES, -price, key=neg) - 1)
    if above == LEVELS - 1:
        return _TOP
    gap = _PRICES[above] - _PRICES[above + 1]
    return (above << 8) + ((_PRICES[above] - price) << 8) // gap


def _share(part: int, whole: int) -> int:
    """In 1/32768: squares and sums of such shares stay small integers."""
    return (part << 15) // max(1, whole)
