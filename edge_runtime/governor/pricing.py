"""The price of energy over a mission, and the thresholds that follow from it: all that is not done scan by scan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import os
from operator import add

from edge_runtime.governor.forecast import MIXTURE_BITS, SLOTS, Forecast, Histogram, Past, dot
from edge_runtime.governor.ladder import LEVELS, Ladder
from edge_runtime.governor.ledger import Ledger

MAX_EVERY = 4096
"""At the least one scan in this many is screened."""
_SPARSE = 4
"""Where screening does not earn its own energy, this many times fewer scans are screened, to notice when it would."""
_RESOLVES = int(os.environ.get("RES","64"))
"""How often in a mission the price is solved for anew; in the last slot as often as it is asked."""
_REFRESH_TRIALS = 64
"""The ladder's tables are made anew when so many trials were learnt and a quarter more than were known before."""
_DEAR_SCREENING = 6
SH=int(os.environ.get("SH","5"))
LO=float(os.environ.get("LO","1"))
LO2=float(os.environ.get('LO2','8'))
HI=float(os.environ.get("HI","2"))
SPARSE=int(os.environ.get("SPARSE","4"))
TELL=int(os.environ.get("TELL","8"))
"""Screening is thinned out where it would take more than a sixth of what is left."""


class Pricing:
    """The price in force, and what it means for the screen, the trees and the network.

    every: one scan in this many is screened.
    trees_from: the lowest score that is worth the trees; 256 where none is.
    network_upto: the highest margin that is worth the network; -1 where none is.
    """

    __slots__ = (
        "_bins", "_counted_us", "_duration_us", "_earns", "_earned", "_costs", "_telling", "_usual", "_dear", "_duty_256", "_duty", "_every", "_forecast", "_fraction", "_ladder",
        "_learnt", "_ledger", "_level_256", "_mixture", "_scenarios", "_refreshed", "_scan_us", "_seen", "_slot",
        "_slot_ends_us", "_solved_us", "every", "network_upto", "trees_from",
    )  # fmt: skip

    def __init__(
        self,
        ladder: Ladder,
        ledger: Ledger,
        pasts: Sequence[Past],
        duration_us: int,
        scan_us: int,
        now_us: int,
    ) -> None:
        self._ladder = ladder
        self._ledger = ledger
        self._duration_us = duration_us
        self._scan_us = max(1, scan_us)
        self._bins = range(ladder.bins)
        self._seen: Histogram = [0] * ladder.bins
        self._counted_us = now_us
        self._learnt = self._refreshed = 0
        self._fraction = 0
        self._every = self.every = 1
        self._duty_256 = 256
        self._dear = duration_us // scan_us * ladder.costs.screen_nj * _DEAR_SCREENING > ledger.budget_nj
        self._earned = -1
        self._duty = 65536
        self._begin_slot(now_us)
        self._forecast = Forecast(ladder, pasts, self._slot)
        self._solve(now_us)
        self._thin_out(now_us)
        self.set_thresholds()

    @property
    def trust_in_plan(self) -> float:
        """The weight of the plan's past missions, 0 to 1, for people."""
        return self._forecast.trust_in_plan

    @property
    def level(self) -> float:
        """The price level in force, 0 (nothing is worth its energy) to LEVELS - 1."""
        return self._level_256 / 256

    def count(self, scores: bytes, now_us: int) -> None:
        """Take in the scores of the scans screened since the last count."""
        binned = scores.translate(self._ladder.calibration.score_bin)
        new = [binned.count(index) for index in self._bins]
        self._seen = list(map(add, self._seen, new if self.every == 1 else [n * self.every for n in new]))
        self._gauge(new, len(scores))

    def learn(self, trials: Iterable[tuple[int, int, bool, bool | None]]) -> None:
        """Add what the trees and the network found to the calibration's counts."""
        for trial in trials:
            self._ladder.calibration.add(*trial)
            self._learnt += 1

    def update(self, now_us: int) -> None:
        """Move the price with time: at a slot's end judge the experts, in between solve anew now and then."""
        if now_us >= self._slot_ends_us:
            self._begin_slot(now_us)
            self._forecast.judge(self._seen, self._level_256 >> 8, self._slot)
            self._seen = [0] * len(self._seen)
            self._refresh()
            self._solve(now_us)
            self._thin_out(now_us)
        elif now_us - self._solved_us >= self._duration_us // _RESOLVES or self._slot == SLOTS - 1:
            self._solve(now_us)

    def set_thresholds(self) -> None:
        """Levels between two steps of the scale are shared in time: a fraction of the calls goes one higher."""
        self._fraction += self._level_256 & 255
        level = min((self._level_256 >> 8) + (self._fraction >> 8), LEVELS - 1)
        self._fraction &= 255
        self.trees_from = self._ladder.trees_from[level]
        self.network_upto = self._ladder.network_upto[level]

    def _begin_slot(self, now_us: int) -> None:
        self._slot = min(max(0, now_us) * SLOTS // self._duration_us, SLOTS - 1)
        last = self._slot == SLOTS - 1
        self._slot_ends_us = 1 << 63 if last else (self._slot + 1) * self._duration_us // SLOTS

    def _refresh(self) -> None:
        learnt = self._learnt - self._refreshed
        if learnt >= _REFRESH_TRIALS and 4 * learnt >= self._refreshed:
            self._refreshed = self._learnt
            self._ladder.refresh()

    def _solve(self, now_us: int) -> None:
        """Find the price anew."""
        self._solved_us = now_us
        ahead_us = (self._slot + 1) * self._duration_us - now_us * SLOTS
        ahead_256 = min(256, max(0, (ahead_us << 8) // self._duration_us))
        self._scenarios = list(self._forecast.scenarios(self._seen, ahead_256, getattr(self, '_level_256', None) and self._level_256 >> 8))
        self._mixture = self._forecast.mixture(self._scenarios)
        self._level_256 = self._level_at(self._every, now_us)
        self._set_gauge()

    def _level_at(self, every: int, now_us: int) -> int:
        """The price level where one scan in `every` is screened."""
        scans = max(0, self._duration_us - now_us) // (self._scan_us * every)
        budget_nj = self._ledger.unspent_nj - (self._ladder.costs.screen_nj * scans * self._duty_256 >> 8)
        if budget_nj <= 0:
            return 0
        allowance = (budget_nj << (16 + MIXTURE_BITS)) // (max(1, scans) * self._ladder.costs.always_nj)
        return self._forecast.level_256(self._scenarios, allowance)

    def _thin_out(self, now_us: int) -> None:
        """Where screening is dear beside the budget: screen as few scans as find the most worth in all."""
        scans = max(0, self._duration_us - now_us) // self._scan_us
        if self._every == 1 and scans * self._ladder.costs.screen_nj * 6 <= self._ledger.unspent_nj:
            return
        duty = self._duty_256
        self._duty_256 = 256
        best, every = 0, 1
        while every <= MAX_EVERY:
            level_256 = self._level_at(every, now_us)
            worth = self._worth(self._mixture, level_256) // every
            # A sixteenth more, or the estimate's own noise would thin the screening out.
            if worth > best + (best >> 4):
                best, self._every, self._level_256 = worth, every, level_256
            every *= 2
        self._duty_256 = duty

    def _worth(self, mixture: Histogram, level_256: int) -> int:
        """What 2**MIXTURE_BITS scans of the mixture are expected to find at a level, in 1/65536."""
        level, part = level_256 >> 8, level_256 & 255
        below = dot(mixture, self._ladder.worth[level])
        above = dot(mixture, self._ladder.worth[min(level + 1, LEVELS - 1)])
        return below + ((above - below) * part >> 8)

    def _gauge(self, new: Histogram, looks: int) -> None:
        """Screen more densely where what was heard last pays for it, more sparsely where it does not."""
        if not self._dear:
            earned = (dot(new, self._ladder.surplus[self._level_256 >> 8]) << 8) // looks
            self._earned = earned if self._earned < 0 else (self._earned + earned) >> 1
            self.every = self._every * (SPARSE if self._earned < self._costs << SH else 1)
            self._duty_256 = 256 * self._every // self.every
            return
        heard = (sum(new[: self._telling]) << 10) + 8 * self._usual
        earns = self._earns * heard // (looks + 8) >> 10
        self._duty += ((self._every << 16) // self.every - self._duty) >> 6
        self._duty_256 = self._duty + 200 >> 8
        if earns * LO < self._costs:
            self.every = self._every * SPARSE
        elif earns > self._costs * HI:
            self.every = max(1, self._every // SPARSE)
        else:
            self.every = self._every

    def _set_gauge(self) -> None:
        """What a telling look earns, by the forecast; a look costs _costs."""
        level = self._level_256 >> 8
        ladder = self._ladder
        self._telling = len(ladder.spend[min(level + TELL, LEVELS - 1)])
        telling = sum(self._mixture[: self._telling])
        self._usual = (telling << 10 >> MIXTURE_BITS)
        self._earns = dot(self._mixture, ladder.surplus[level]) // max(1, telling)
        self._costs = max(1, ladder.price[level] * ladder.costs.screen_nj >> 32)
