"""What is still to come, from experts who are believed as far as they were right.

Each past mission of the spending plan is an expert; so are "it goes on as it was so far" and "as it was lately",
which need no plan. Their mixture of scans by score bin names the price at which what is left of the budget just
suffices. A last expert forecasts nothing: dual mirror descent with the entropic mirror map (Balseiro, Lu and
Mirrokni, arXiv 2011.10124), whose price moves by the share that it would have overspent; its price is blended in by
its weight. Weights follow from how well each expert foresaw the slots that are over, and a fixed share lets a
written-off expert come back (Herbster and Warmuth, Machine Learning 32, 1998). A plan that is right rules; one that
turns out wrong fades within some slots.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import add, mul

from edge_runtime.governor.ladder import LEVELS, Ladder

Histogram = list[int]
"""Scans by score bin, the most telling first."""

SLOTS = 32
"""A mission is planned and judged in this many equal slots."""
UNIT = 1 << 20
"""The sum of all weights."""
MIXTURE_BITS = 13
"""The shares of a mixture add up to 2**13, so that its products with the ladder's tables stay below 2**30."""
_TOP = (LEVELS - 1) << 8
import os
RF=int(os.environ.get("RF","128"))
TOL=int(os.environ.get("TOL","6"))
SHARP=int(os.environ.get("SHARP","2"))
PROV=int(os.environ.get("PROV","1"))
_SHARE_BITS = 9
"""1/512 of every weight is shared out again each slot."""
_WITHOUT_PLAN_BITS = 6
"""1/64 of the prior weight is for the experts that need no plan."""
_EXP = (
    65536, 57835, 51039, 45042, 39750, 35079, 30957, 27320, 24109, 21276, 18776, 16570, 14623, 12905, 11388, 10050,
    8869, 7827, 6907, 6096, 5380, 4747, 4190, 3697, 3263, 2879, 2541, 2243, 1979, 1747, 1541, 1360, 1200,
)  # fmt: skip
"""exp(-k/8) in 1/65536."""


def dot(a: Sequence[int], b: Sequence[int]) -> int:
    """The sum of products over the length of the shorter."""
    return sum(map(mul, a, b))


def _plus(a: Iterable[int], b: Iterable[int]) -> Histogram:
    return list(map(add, a, b))


class Past:
    """A past mission: scans by score bin in each of SLOTS slots.

    share[slot][n]: the share of the slot's scans that lies in the first n bins, the most telling ones.
    during, after: a slot's histogram, and that of all slots behind it, each packed into one integer (a bin a
        lane of 64 bits): weighing and adding histograms then costs two long operations instead of a loop.
    """

    __slots__ = ("after", "during", "share")

    def __init__(self, slots: Sequence[Sequence[int]]) -> None:
        self.during = [_pack(slot) for slot in slots]
        self.after = [*accumulate(reversed(self.during[1:]), initial=0)][::-1]
        self.share = [[_share(n, sum(slot)) for n in accumulate(slot, initial=0)] for slot in slots]


def _pack(histogram: Sequence[int]) -> int:
    return int.from_bytes(struct.pack(f"<{len(histogram)}Q", *histogram), "little")


def _unpack(lanes: int, bins: int) -> Sequence[int]:
    return struct.unpack(f"<{bins}Q", lanes.to_bytes(8 * bins, "little"))


class Forecast:
    """The experts and their weights.

    pasts: the spending plan: past missions of the same length; may be empty.
    slot: the slot in which the forecast begins, above 0 after a restart.
    """

    __slots__ = (
        "_ladder",
        "_lately",
        "_mirror_256",
        "_pasts",
        "_prior",
        "_slot",
        "_slots_seen",
        "_so_far",
        "_weights",
    )

    def __init__(self, ladder: Ladder, pasts: Sequence[Past], slot: int = 0) -> None:
        self._ladder = ladder
        self._pasts = pasts
        self._so_far: Histogram = [sum(row) for row in ladder.calibration.joint]
        self._lately: Histogram = list(self._so_far)
        self._slot = slot
        self._slots_seen = 0
        free = UNIT >> _WITHOUT_PLAN_BITS if pasts else UNIT
        self._prior = [(UNIT - free) // len(pasts)] * len(pasts) if pasts else []
        self._prior += [free // 2] * 2
        self._weights = list(self._prior)
        self._mirror_256 = _TOP // 3


    @property
    def trust_in_plan(self) -> float:
        """The weight of the plan's past missions, 0 to 1, for people."""
        return sum(self._weights[: len(self._pasts)]) / UNIT

    def descend(self, block: Histogram, allowance: int) -> None:
        """One step of dual mirror descent: `allowance` is an even share of what is left for this block.

        In 1/65536 of a whole climb, as the ladder's `spend`.
        """
        spend = dot(block, self._ladder.spend[self._mirror_256 >> 8])
        # A level is a quarter of an octave: 64 / 256 of a level is a factor 1.044 on the price.
        step = min(64, 24 * abs(allowance - spend) // (allowance + 1))
        moved = self._mirror_256 + (step if spend < allowance else -step)
        self._mirror_256 = min(max(moved, 0), _TOP)

    def judge(self, seen: Histogram, level: int, next_slot: int) -> None:
        """The running slot is over and held `seen`; `next_slot` begins: weigh the experts.

        They are judged by the share of scans that they foresaw as worth the trees, at a price sixteen times
        lower than that in use: there enough scans count that chance does not decide.
        """
        if self._pasts and any(seen):
            losses = self._losses(seen, level)
            self._reweigh(losses)
        self._so_far = _plus(self._so_far, seen)
        self._lately = [(a >> 1) + 64 * b for a, b in zip(self._lately, seen, strict=True)]
        self._slots_seen += 1
        self._slot = next_slot
        

    def _losses(self, seen, level):
        slot = self._slot
        n = len(self._ladder.spend[min(level + 16, LEVELS - 1)])
        actual = _share(sum(seen[:n]), sum(seen))
        foreseen = [p.share[slot][n] for p in self._pasts]
        other = slot - 1 if slot else 1
        rough = sorted(abs(f - p.share[other][n]) for f, p in zip(foreseen, self._pasts))[len(foreseen) // 2]
        foreseen += [_share(sum(h[:n]), sum(h)) for h in (self._so_far, self._lately)]
        mean = sum(f * w for f, w in zip(foreseen, self._weights)) // UNIT
        normal = 2 * (RF * rough * rough // 256 + ((mean * mean + actual * actual) >> TOL) + (mean << 15) // sum(seen)) + 1
        worst = len(_EXP) - 1
        return [min(worst, SHARP * (f - actual) ** 2 // normal) for f in foreseen]

    def _reweigh(self, losses: Sequence[int]) -> None:
        weights = [w * _EXP[loss] >> 16 for w, loss in zip(self._weights, losses, strict=True)]
        total = max(1, sum(weights))
        keep = UNIT - (UNIT >> _SHARE_BITS)
        self._weights = [
            w * keep // total + (p >> _SHARE_BITS) for w, p in zip(weights, self._prior, strict=True)
        ]

    def mixture(self, scenarios):
        mixture, total = [0] * len(self._so_far), 0
        for weight, scenario in scenarios:
            mixture = [m + weight * x for m, x in zip(mixture, scenario, strict=True)]
            total += weight
        return [x // total for x in mixture]

    def scenarios(self, seen: Histogram, ahead_256: int, level=None):
        weights = self._weights
        if PROV and level is not None and self._pasts and sum(seen) > 64:
            weights = [w * _EXP[l] >> 16 for w, l in zip(weights, self._losses(seen, level))]
        slot = self._slot
        bins = len(self._so_far)
        floor = max(weights) >> 7
        for past, weight in zip(self._pasts, weights, strict=False):
            if weight > floor:
                during, after = _unpack(past.during[slot], bins), _unpack(past.after[slot], bins)
                yield weight, _shares([a + (b * ahead_256 >> 8) for a, b in zip(after, during)])
        for past, weight in ((self._so_far, weights[-2]), (self._lately, weights[-1])):
            if weight > floor:
                yield weight, _shares(_plus(past, seen))

    def level_256(self, scenarios, allowance: int) -> int:
        """The level, in 1/256, whose price is the mean of those at which each scenario uses up `allowance`.

        allowance: energy for 2**MIXTURE_BITS scans, in 1/65536 of a whole climb.
        """
        price = total = 0
        for weight, scenario in scenarios:
            price += weight * _price(self._solve(scenario, allowance))
            total += weight
        return _level(price // total)

    def _solve(self, mixture: Histogram, allowance: int) -> int:
        """The level at which the mixture costs `allowance`: a bisection, then a line between two levels."""
        spend = self._ladder.spend
        low, high = 0, LEVELS - 1
        below, above = 0, dot(mixture, spend[high])
        if above <= allowance:
            return _TOP
        while high - low > 1:
            middle = (low + high) >> 1
            at = dot(mixture, spend[middle])
            if at > allowance:
                high, above = middle, at
            else:
                low, below = middle, at
        return (low << 8) + ((allowance - below) << 8) // max(1, above - below)


def _share(part: int, whole: int) -> int:
    """In 1/32768: squares and sums of such shares stay small integers."""
    return (part << 15) // max(1, whole)


def _shares(h):
    total = sum(h) or 1
    return [(x << MIXTURE_BITS) // total for x in h]

def _price(level_256):
    k, part = level_256 >> 8, level_256 & 255
    return _PRICES[k] + ((_PRICES[k + 1] - _PRICES[k]) * part >> 8)

def _level(price):
    lo, hi = 0, LEVELS - 1
    while hi - lo > 1:
        mid = (lo + hi) >> 1
        if _PRICES[mid] > price: lo = mid
        else: hi = mid
    return (lo << 8) + ((_PRICES[lo] - price) << 8) // (_PRICES[lo] - _PRICES[hi])

_PRICES = [int(2**(30 - k / 4)) for k in range(LEVELS + 1)]
