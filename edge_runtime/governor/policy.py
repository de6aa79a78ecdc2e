"""Scan by scan: what is worth its energy. The hot path is comparisons with thresholds that each block sets anew.

    governor.wants_screen()             look at this scan at all?
    governor.wants_trees(score)         the screen gave `score`: ask the trees?
    governor.wants_network(margin)      the trees gave `margin`: ask the network?
    governor.spend(nj)                  charge what the rungs used
    governor.learn(score, margin, ...)  what the rungs found: feeds the chances that the ladder works with

Thresholds belong to a price of energy (ladder.py), the price follows the forecast of what is still to come
(forecast.py), and no rung starts that the account does not cover (ledger.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edge_runtime.governor.forecast import SLOTS, Forecast, Histogram, Past, dot
from edge_runtime.governor.ladder import LEVELS, ONE, Ladder
from edge_runtime.governor.ledger import Ledger
from edge_runtime.verdict import Rung

BLOCK = 32
"""Thresholds hold for this many scans."""
PROBE_SHARE = 256
"""Of the budget, 1/256 goes to random probes: scans that climb to the trees whatever their score, so that what
never changes (a signal that was there before the first scan) is met all the same."""
_SPARSE = 4
"""Where screening does not earn its own energy, this many times fewer scans are screened, to notice when it would."""
MAX_EVERY = 4096
_MEMORY = 16
"""Blocks over which the earnings of screening are averaged."""
_RESOLVES = 512
"""How often in a mission the price is solved for anew; solving costs as much as some fifty decisions."""


class Governor:
    """Decides for one mission.

    pasts: the spending plan: past missions of the same length (see forecast.Past); may be empty.
    duration_us: the mission's length; scan_us: time between scans, as expected.
    clock_us: the mission's clock, 0 at its start.
    seed: of the random probes.
    """

    __slots__ = (
        "_bin", "_block", "_block_left", "_clock_us", "_counted_us", "_duration_us", "_earned", "_every", "_forecast", "_fraction",
        "_ladder", "_ledger", "_level_256", "_limit", "_look_in", "_mixture", "_network_upto", "_period", "_probe_at",
        "_probe_gap", "_probe_in", "_resolve_us", "_scan_us", "_screen_nj", "_seed", "_seen", "_slot", "_solved_us",
        "_sparse", "_through_network_nj", "_through_trees_nj", "_trees_from",
    )  # fmt: skip

    def __init__(
        self,
        ladder: Ladder,
        ledger: Ledger,
        pasts: Sequence[Past],
        *,
        duration_us: int,
        scan_us: int,
        clock_us: Callable[[], int],
        seed: int = 1,
    ) -> None:
        self._ladder = ladder
        self._ledger = ledger
        self._forecast = Forecast(ladder, pasts)
        self._duration_us = duration_us
        self._scan_us = max(1, scan_us)
        self._clock_us = clock_us
        costs = ladder.costs
        self._screen_nj = costs.screen_nj
        self._through_trees_nj = costs.screen_nj + costs.trees_nj
        self._through_network_nj = costs.always_nj
        self._bin = ladder.calibration.score_bin
        self._seen: Histogram = [0] * len(ladder.trees)
        self._block = list(self._seen)
        self._block_left = BLOCK
        self._look_in = 1
        self._slot = 0
        self._every = self._sparse = self._period = 1
        self._counted_us = clock_us()
        self._earned = -1
        self._fraction = 0
        self._limit = Rung.NETWORK
        self._resolve_us = duration_us // _RESOLVES
        self._seed = seed
        scans = duration_us // self._scan_us
        self._probe_gap = 2 * max(1, costs.trees_nj * PROBE_SHARE * scans // max(1, ledger.budget_nj))
        self._probe_in = self._random(self._probe_gap)
        self._probe_at = -1
        self._solve(clock_us())
        self._thin_out(clock_us())
        self._set_thresholds()

    def wants_screen(self) -> bool:
        """Whether this scan is worth the screen. Call it once a scan, first."""
        self._block_left -= 1
        if self._block_left <= 0:
            self._settle()
        if self._look_in > 1:
            self._look_in -= 1
            return False
        if self._period > 1:
            self._look_in = self._random(2 * self._period - 1)
        return self._ledger.left_nj >= self._screen_nj or self._ledger.affords(self._screen_nj)

    def wants_trees(self, score: int) -> bool:
        """Whether the screen's score, 0 to 255, is worth the trees, or this scan is a probe."""
        self._block[self._bin[score]] += 1
        if score < self._trees_from and self._block_left > self._probe_at:
            return False
        self._probe_at = -1
        return self._ledger.affords(self._through_trees_nj)

    def wants_network(self, margin: int) -> bool:
        """Whether the trees' margin, 0 (undecided) to 255, is worth the network."""
        return margin <= self._network_upto and self._ledger.affords(self._through_network_nj)

    def spend(self, nj: int) -> None:
        """Charge the energy that the rungs of one scan used. A worse case than declared is believed from then on."""
        self._ledger.spend(nj)
        if nj > self._through_network_nj:
            self._through_network_nj = nj

    def learn(self, score: int, margin: int, trees_changed: bool, network_changed: bool | None) -> None:
        """The trees ran: did they change the answer, and (where it was asked) did the network?"""
        self._ladder.calibration.add(score, margin, trees_changed, network_changed)

    def limit(self, rung: Rung) -> None:
        """Climb no higher than `rung` from the next block on: how a low battery steps the ladder down."""
        self._limit = rung

    @property
    def trust_in_plan(self) -> float:
        """How far the plan is believed, 0 to 1."""
        return self._forecast.trust_in_plan

    @property
    def level(self) -> float:
        """The price level in use, 0 (nothing is worth its energy) to LEVELS - 1."""
        return self._level_256 / 256

    @property
    def every(self) -> int:
        """One scan in this many is screened."""
        return self._period

    def _settle(self) -> None:
        """A block is over: count it, move the price, set the thresholds of the next."""
        self._block_left = BLOCK
        now_us = self._clock_us()
        block = self._block
        if any(block):
            self._count(block, now_us)
        slot = min(now_us * SLOTS // self._duration_us, SLOTS - 1)
        if slot > self._slot:
            self._close_slot(slot, now_us)
        if now_us - self._solved_us >= self._resolve_us:
            self._solve(now_us)
        self._set_thresholds()

    def _count(self, block: Histogram, now_us: int) -> None:
        self._block = [0] * len(block)
        for index, scans in enumerate(block):
            if scans:
                self._seen[index] += scans * self._period
        since_us, self._counted_us = now_us - self._counted_us, now_us
        left_us = max(1, self._duration_us - now_us)
        self._forecast.descend(block, self._ledger.unspent_nj * since_us // left_us)
        self._weigh_screening(block)

    def _close_slot(self, slot: int, now_us: int) -> None:
        self._ladder.refresh()
        self._forecast.judge(self._seen, self._level_256 >> 8)
        self._seen = [0] * len(self._seen)
        self._slot = slot
        self._solve(now_us)
        self._thin_out(now_us)

    def _solve(self, now_us: int) -> None:
        """Find the price anew."""
        self._solved_us = now_us
        ahead_us = (self._slot + 1) * self._duration_us - now_us * SLOTS
        ahead_256 = min(256, max(0, (ahead_us << 8) // self._duration_us))
        self._mixture = self._forecast.mixture(self._seen, ahead_256)
        self._level_256 = self._level_at(self._every, now_us)

    def _level_at(self, every: int, now_us: int) -> int:
        """The price level where one scan in `every` is screened."""
        scans = max(0, self._duration_us - now_us) // (self._scan_us * every)
        budget_nj = self._ledger.unspent_nj - self._screen_nj * scans // self._sparse
        return self._forecast.level_256(self._mixture, scans, budget_nj) if budget_nj > 0 else 0

    def _thin_out(self, now_us: int) -> None:
        """Where screening is dear beside the budget: screen as few scans as find the most worth in all."""
        if self._mixture is None:
            return
        best, every = 0, 1
        while every <= MAX_EVERY:
            level_256 = self._level_at(every, now_us)
            worth = self._worth(level_256) // every
            # A sixteenth more, or the estimate's own noise would thin the screening out.
            if worth > best + (best >> 4):
                best, self._every, self._level_256 = worth, every, level_256
            every *= 2
        self._period = self._every * self._sparse

    def _worth(self, level_256: int) -> int:
        """What UNIT scans of the mixture are expected to find at a level, in 1/65536."""
        level, part = level_256 >> 8, level_256 & 255
        tables = self._ladder.worth
        below = dot(self._mixture or (), tables[level])
        return below + ((dot(self._mixture or (), tables[min(level + 1, LEVELS - 1)]) - below) * part >> 8)

    def _set_thresholds(self) -> None:
        """Levels between two steps of the scale are shared in time: a fraction of the blocks goes one higher."""
        self._fraction += self._level_256 & 255
        level = (self._level_256 >> 8) + (self._fraction >> 8)
        self._fraction &= 255
        level = min(level, LEVELS - 1)
        self._trees_from = self._ladder.trees_from[level] if self._limit >= Rung.TREES else 256
        self._network_upto = self._ladder.network_upto[level] if self._limit >= Rung.NETWORK else -1
        self._probe_in -= BLOCK
        if self._probe_in <= 0 and self._limit >= Rung.TREES:
            self._probe_at = self._random(BLOCK)
            self._probe_in = self._random(self._probe_gap)

    def _weigh_screening(self, block: Histogram) -> None:
        """Screen sparsely where what screening finds is worth less than a quarter of its own energy."""
        scans = sum(block)
        level = self._level_256 >> 8
        earned = (dot(block, self._ladder.surplus[level]) << 8) // scans
        self._earned = earned if self._earned < 0 else self._earned + (earned - self._earned) // _MEMORY
        costs = self._ladder.price[level] * self._screen_nj >> 24
        self._sparse = _SPARSE if self._earned < costs >> 2 else 1
        self._period = self._every * self._sparse

    def _random(self, below: int) -> int:
        """1 to `below`, from a linear congruential generator (Numerical Recipes, ranqd1)."""
        self._seed = (self._seed * 1664525 + 1013904223) & 0xFFFFFFFF
        return 1 + (self._seed >> 8) % max(1, below)


__all__ = ["BLOCK", "ONE", "Governor"]
