"""The price of energy over a mission, and the thresholds that follow from it: all that is not done scan by scan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import add

from edge_runtime.governor.forecast import MIXTURE_BITS, SLOTS, Forecast, Histogram, Past, dot, mean
from edge_runtime.governor.ladder import LEVELS, Ladder
from edge_runtime.governor.ledger import Ledger
from edge_runtime.governor.memory import Memory

BLOCK = 192
"""Thresholds hold for this many scans."""
_SHORT_BLOCK = 96
"""The same where screening is dear: its density follows what was heard last."""
_COUNT_SCANS = 512
"""Scores are counted so many at a time: that costs as much as some ten decisions."""
MAX_EVERY = 4096
"""At the least one scan in this many is screened."""
_SPARSE = 4
"""Where screening does not earn its own energy, this many times fewer scans are screened, to notice when it would."""
_RESOLVES = 32
"""How often in a mission the price is solved for anew, and towards its end each eighth of what is left of it."""
_REFRESH_TRIALS = 64
"""The ladder's tables are made anew when so many trials were learnt and a quarter more than were known before."""
_DEAR_SCREENING = 6
"""Screening is dear where all of it would take more than a sixth of the budget."""
_TELLING = 8
"""Scans are telling that would be worth the trees at a price so many levels lower, two octaves."""


class Pricing:
    """The price in force, and what it means for the screen, the trees and the network.

    every: one scan in this many is screened.
    block: the thresholds hold for this many scans.
    trees_from: the lowest score that is worth the trees; 256 where none is.
    network_upto: the highest margin that is worth the network; -1 where none is.
    trials: how often the field has told what the trees found.
    mark: names the mission and its plan to `memory`.
    """

    __slots__ = (
        "_ahead",
        "_bins",
        "_counts_for",
        "_cut_256",
        "_dear",
        "_duration_us",
        "_earned",
        "_every",
        "_followed",
        "_forecast",
        "_fraction",
        "_is_telling",
        "_ladder",
        "_ledger",
        "_level_256",
        "_look_costs",
        "_mark",
        "_mixture",
        "_over",
        "_refreshed",
        "_scan_us",
        "_scenarios",
        "_screened_16",
        "_seen",
        "_slot",
        "_slot_ends_us",
        "_solved_us",
        "_telling_earns",
        "_usually_telling",
        "block",
        "every",
        "network_upto",
        "trees_from",
        "trials",
    )  # fmt: skip

    def __init__(
        self,
        ladder: Ladder,
        ledger: Ledger,
        pasts: Sequence[Past],
        duration_us: int,
        scan_us: int,
        now_us: int,
        memory: bytes | None = None,
        mark: int = 0,
    ) -> None:
        self._mark = mark
        self._ladder = ladder
        self._ledger = ledger
        self._duration_us = duration_us
        self._scan_us = max(1, scan_us)
        self._bins = range(ladder.bins)
        self._seen: Histogram = [0] * ladder.bins
        self._over = (0, self._seen)
        self._ahead: Histogram = [0] * ladder.bins
        """Scans told with the slot before, and counted after its end."""
        self.trials = self._refreshed = 0
        self._earned = -1
        self._fraction = 0
        self._every = self.every = self._counts_for = 1
        self._followed = 0
        self._screened_16 = 1 << 16
        """Of the scans that `_every` gives, the share that is screened, in 1/65536."""
        self._find_dear(now_us)
        self._level_256 = LEVELS // 2 << 8
        self._begin_slot(now_us)
        self._forecast = Forecast(ladder, pasts, self._slot)
        if memory is not None:
            self._resume(memory, len(self._forecast.state[2]))
        self._solve(now_us)
        self._thin_out(now_us)
        self.set_thresholds()

    def _resume(self, memory: bytes, experts: int) -> None:
        calibration = self._ladder.calibration
        known = Memory.unpack(memory, calibration, experts, self._mark)
        if known is None:
            return
        self.trials = self._refreshed = max(0, sum(known.trees_seen) - sum(calibration.trees_seen))
        calibration.resume(*known[:4])
        self._ladder.refresh()
        if known.weights:
            self._forecast.resume(*known[4:])

    @property
    def memory(self) -> bytes:
        """What a restart should not lose (memory.py)."""
        c = self._ladder.calibration
        counts = c.trees_seen, c.trees_changed, c.network_seen, c.network_changed
        return Memory(*counts, *self._forecast.state).pack(c, self._mark)

    def _find_dear(self, now_us: int) -> None:
        scans = max(0, self._duration_us - now_us) // self._scan_us
        self._dear = self._is_dear(scans, self._ledger.unspent_nj)
        self._followed = 0
        self.block = _SHORT_BLOCK if self._dear else BLOCK

    def _is_dear(self, scans: int, energy_nj: int) -> bool:
        return scans * self._ladder.costs.screen_nj * _DEAR_SCREENING > energy_nj

    @property
    def trust_in_plan(self) -> float:
        """The weight of the plan's past missions, 0 to 1, for people."""
        return self._forecast.trust_in_plan

    def expect(self, scan_us: int, now_us: int) -> None:
        """Scans turn out to be so far apart: solve for the price anew."""
        self._scan_us = max(1, scan_us)
        self._find_dear(now_us)
        self._solve(now_us)
        self._thin_out(now_us)

    @property
    def level(self) -> float:
        """The price level in force, 0 (nothing is worth its energy) to LEVELS - 1."""
        return self._level_256 / 256

    def take_in(self, scores: bytearray) -> bool:
        """Look at the scores of the scans screened since the last count; True where they were counted."""
        if self._dear and len(scores) > self._followed:
            self._follow(bytes(scores[self._followed :]))
            self._followed = len(scores)
        if len(scores) < _COUNT_SCANS // self.every and self.every == self._counts_for:
            return False
        self._count(bytes(scores), self._counts_for)
        self._counts_for = self.every
        self._followed = 0
        return True

    def _count(self, scores: bytes, every: int) -> None:
        binned = scores.translate(self._ladder.calibration.score_bin)
        new = [binned.count(index) for index in self._bins]
        self._seen = list(map(add, self._seen, new if every == 1 else [n * every for n in new]))
        if not self._dear:
            self._weigh_screening(new, len(scores))

    def stop(self) -> None:
        """The mission pauses or ends here, within the running slot."""
        self._over = self._slot, self._seen

    def heard(self, scores: bytearray) -> tuple[int, Histogram]:
        """The slot that ended last and its scans by score bin; `scores`: of its scans that are not counted yet."""
        slot, counts = self._over
        binned = bytes(scores).translate(self._ladder.calibration.score_bin)
        before, self._ahead = self._ahead, [binned.count(index) * self._counts_for for index in self._bins]
        return slot, [n + a - b for n, a, b in zip(counts, self._ahead, before, strict=True)]

    def learn(self, trials: Iterable[tuple[int, int, bool, bool | None]]) -> None:
        """Add what the trees and the network found to the calibration's counts."""
        for trial in trials:
            self._ladder.calibration.add(*trial)
            self.trials += 1

    def update(self, now_us: int) -> bool:
        """Move the price with time: at a slot's end judge the experts, in between solve anew now and then.

        True at a slot's end: the time to remember what was learnt.
        """
        if now_us >= self._slot_ends_us:
            self._over = self._slot, self._seen
            self._begin_slot(now_us)
            self._forecast.judge(self._seen, self._level_256 >> 8, self._slot)
            self._seen = [0] * len(self._seen)
            self._refresh()
            self._solve(now_us)
            self._thin_out(now_us)
            return True
        if now_us - self._solved_us >= min(self._duration_us // _RESOLVES, self._duration_us - now_us >> 3):
            self._solve(now_us)
        return False

    def set_thresholds(self) -> None:
        """A cut between two bins of the score is shared in time: a fraction of the calls takes one bin more."""
        self._fraction += self._cut_256 & 255
        bins = (self._cut_256 >> 8) + (self._fraction >> 8)
        self._fraction &= 255
        self.trees_from = self._ladder.scores_of[bins - 1] if bins else 256

    def _begin_slot(self, now_us: int) -> None:
        self._slot = min(max(0, now_us) * SLOTS // self._duration_us, SLOTS - 1)
        last = self._slot == SLOTS - 1
        self._slot_ends_us = 1 << 63 if last else (self._slot + 1) * self._duration_us // SLOTS

    def _refresh(self) -> None:
        learnt = self.trials - self._refreshed
        if learnt >= _REFRESH_TRIALS and 4 * learnt >= self._refreshed:
            self._refreshed = self.trials
            self._ladder.refresh()

    def _solve(self, now_us: int) -> None:
        """Find the price anew."""
        self._solved_us = now_us
        ahead_us = (self._slot + 1) * self._duration_us - now_us * SLOTS
        ahead_256 = min(256, max(0, (ahead_us << 8) // self._duration_us))
        self._scenarios = self._forecast.scenarios(self._seen, ahead_256)
        self._mixture = mean(self._scenarios)
        self._level_256 = self._level_at(now_us)
        self._apply()

    def _apply(self) -> None:
        """What follows from the price: the cut between scores, the network's margin, what a look must earn.

        Between two levels of the scale the cut lies where that share of the scans between theirs is above it: a
        higher score is never worth less, whatever the few trials of its bin say, so to take the best of those scans
        beats taking all of them part of the time.
        """
        ladder, mixture = self._ladder, self._mixture
        level, part = self._level_256 >> 8, self._level_256 & 255
        above = min(level + 1, LEVELS - 1)
        cut, last = len(ladder.spend[level]), len(ladder.spend[above])
        wanted = sum(mixture[cut:last]) * part >> 8
        while cut < last and wanted >= mixture[cut]:
            wanted -= mixture[cut]
            cut += 1
        self._cut_256 = (cut << 8) + ((wanted << 8) // mixture[cut] if cut < last else 0)
        low, high = ladder.network_upto[level], ladder.network_upto[above]
        self.network_upto = low + ((high - low) * part >> 8)
        self._look_costs = ladder.price[level] * ladder.costs.screen_nj >> 24
        if self._dear:
            bins = len(ladder.spend[min(level + _TELLING, LEVELS - 1)])
            lowest = ladder.scores_of[bins - 1] if bins else 256
            self._is_telling = bytes(lowest) + b"\1" * (256 - lowest)
            telling = max(1, sum(mixture[:bins]))
            self._usually_telling = telling << 16 >> MIXTURE_BITS
            self._telling_earns = (dot(mixture, ladder.surplus[level]) << 8) // telling

    def _level_at(self, now_us: int) -> int:
        """The price level, in 1/256, that the scenarios ask for."""
        allowance = self._allowance(self._every, now_us)
        return self._forecast.level_256(self._scenarios, allowance) if allowance else 0

    def _allowance(self, every: int, now_us: int) -> int:
        """Energy for 2**MIXTURE_BITS screened scans, where one in `every` is, in 1/65536 of a whole climb."""
        scans = max(0, self._duration_us - now_us) // (self._scan_us * every)
        screens_nj = self._ladder.costs.screen_nj * scans * self._screened_16 >> 16
        budget_nj = max(0, self._ledger.unspent_nj - screens_nj)
        return (budget_nj << (16 + MIXTURE_BITS)) // (max(1, scans) * self._ladder.costs.always_nj)

    def _thin_out(self, now_us: int) -> None:
        """Where screening is dear beside what is left: screen as few scans as find the most worth in all."""
        scans = max(0, self._duration_us - now_us) // self._scan_us
        if self._every == 1 and not self._is_dear(scans, self._ledger.unspent_nj):
            return
        before, best, every = self._every, 0, 1
        screened_16, self._screened_16 = self._screened_16, 1 << 16
        while every <= MAX_EVERY:
            level_256 = self._forecast.level_of(self._mixture, self._allowance(every, now_us))
            worth = self._worth(self._mixture, level_256) // every
            # A sixteenth more, or the estimate's own noise would thin the screening out.
            if worth > best + (best >> 4):
                best, self._every = worth, every
            every *= 2
        if self._every != before:
            self._screened_16 = 1 << 16
            self._level_256 = self._level_at(now_us)
            self._apply()
        else:
            self._screened_16 = screened_16
        self.every = self._every

    def _worth(self, mixture: Histogram, level_256: int) -> int:
        """What 2**MIXTURE_BITS scans of the mixture are expected to find at a level, in 1/65536."""
        level, part = level_256 >> 8, level_256 & 255
        below = dot(mixture, self._ladder.worth[level])
        above = dot(mixture, self._ladder.worth[min(level + 1, LEVELS - 1)])
        return below + ((above - below) * part >> 8)

    def _weigh_screening(self, new: Histogram, looks: int) -> None:
        """Screen sparsely where what screening finds is worth less than an eighth of its own energy."""
        earned = (dot(new, self._ladder.surplus[self._level_256 >> 8]) << 8) // looks
        self._earned = earned if self._earned < 0 else (self._earned + earned) >> 1
        self.every = self._every * (_SPARSE if self._earned < self._look_costs >> 3 else 1)
        self._screened_16 = (self._every << 16) // self.every

    def _follow(self, scores: bytes) -> None:
        """Screening is dear: screen more densely while what was heard last pays for it, more sparsely where not.

        Signals come in bursts. A look earns what a telling scan earns by the forecast, as often as the last block's
        scans were telling (with eight scans as usual added, for a block has few).
        """
        telling = scores.translate(self._is_telling).count(1)
        telling_16 = ((telling << 16) + 8 * self._usually_telling) // (len(scores) + 8)
        earns = self._telling_earns * telling_16 >> 16
        self._screened_16 += ((self._every << 16) // self.every - self._screened_16) >> 6
        if earns < self._look_costs:
            self.every = self._every * _SPARSE
        elif earns > 2 * self._look_costs:
            self.every = max(1, self._every // _SPARSE)
        else:
            self.every = self._every
