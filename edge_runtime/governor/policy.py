"""Scan by scan: what is worth its energy. The hot path is a comparison with a threshold that each block sets anew.

    if governor.dense or governor.wants_screen():            look at this scan at all?
        ...the screen gives `score`
        governor.note(score)
        if score >= governor.bar() and governor.pays_trees():    is it worth the trees?
            ...the trees give `margin`
            if margin <= governor.network_upto and governor.pays_network():    and the network?
                ...
            if governor.learning:
                governor.learn(score, margin, ...)           what they found: feeds the ladder's chances

Each yes is paid for at the rung's declared cost before it runs; `ledger.correct` charges what a meter says beyond
that. Thresholds belong to a price of energy (ladder.py), the price follows the forecast of what is still to come
(pricing.py, forecast.py), and nothing starts that the account does not cover (ledger.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, repeat

from edge_runtime.governor.forecast import Histogram, Past
from edge_runtime.governor.ladder import Ladder
from edge_runtime.governor.ledger import Ledger
from edge_runtime.governor.pricing import BLOCK, Pricing
from edge_runtime.verdict import Rung

PROBE_SHARE = 512
"""Of the budget, 1/512 goes to random probes: scans that climb to the trees whatever their score, so that what
never changes (a signal that was there before the first scan) is met all the same."""
_AT_ONCE = 64
"""The trees and the network are paid for so many at a time while there is plenty."""
_REMEMBER_TRIALS = 64
"""What was learnt is remembered when it is so many trials more, and at each slot's end."""
_LEARN_ALL = 512
"""After so many trials only one block in _LEARN_ONE_IN learns: the chances are known well enough by then."""
_LEARN_ONE_IN = 64


class Governor:
    """Decides for one mission.

    pasts: the spending plan: past missions of the same length (see forecast.Past); may be empty.
    duration_us: the mission's length; scan_us: time between scans, as expected.
    clock_us: the mission's clock, 0 at its start.
    seed: of the random probes.
    memory: the payload that `remember` got last before a restart. remember: is given what was learnt, now and then.
    mark: names the mission and its plan; another's memory gives only what it knows of the ladder.
    hear: is given each slot that is over and its scans by score bin.

    dense: every scan of the running block is screened and paid for; no need to ask `wants_screen`.
    note(score), bar(): for each screened scan, first hand in the screen's score, 0 to 255, then ask for the bar:
        a score that reaches it is worth the trees, and any score is where the scan is a probe.
    pays_trees(), pays_network(): pay for the rung; False where the account does not cover it.
        These four are methods of built-in objects, called at a third of the cost of a Python function.
    network_upto: the highest margin, 0 (the trees are undecided) to 255, that is worth the network.
    ample: all scans of the block are worth the trees, whatever the screen says: no need to ask it first.
    learning: whether `learn` wants to hear what the trees and the network found.
    """

    __slots__ = (
        "_blocks", "_clock_us", "_duration_us", "_hear", "_learnt", "_ledger", "_limit", "_look_in", "_network_nj",
        "_pricing", "_probe_gap", "_probe_in", "_remember", "_remembered", "_scores", "_screen_nj", "_seed",
        "_trees_nj", "ample", "bar", "dense", "ladder", "learning", "network_upto", "note", "pays_network",
        "pays_trees",
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
        memory: bytes | None = None,
        remember: Callable[[bytes], None] = lambda _payload: None,
        mark: int = 0,
        hear: Callable[[int, Histogram], None] = lambda _slot, _counts: None,
    ) -> None:
        self.ladder = ladder
        self._ledger = ledger
        self._clock_us = clock_us
        self._screen_nj, self._trees_nj, self._network_nj = ladder.costs
        self._pricing = Pricing(ladder, ledger, pasts, duration_us, scan_us, clock_us(), memory, mark)
        self._remember, self._hear = remember, hear
        self._remembered = self._pricing.trials
        self._scores = bytearray()
        self._learnt: list[tuple[int, int, bool, bool | None]] = []
        self._blocks = 0
        self._look_in = 0
        self._limit = Rung.NETWORK
        self._seed = seed
        self._duration_us = duration_us
        self._probe_gap = self._gap(scan_us)
        self._probe_in = self._random(self._probe_gap)
        self.learning = True
        self.network_upto = -1
        self.dense = self.ample = False
        self._pay_screens(self._pricing.block + 1)
        self.note = self._scores.append
        self.bar = chain.from_iterable(self._blocks_of_bars()).__next__
        self.pays_trees = chain.from_iterable(self._paid(self._trees_nj)).__next__
        self.pays_network = chain.from_iterable(self._paid(self._network_nj)).__next__

    def wants_screen(self) -> bool:
        """Whether this scan is worth the screen. Ask it first, once a scan, unless `dense` is True."""
        if self._look_in:
            self._look_in -= 1
            return False
        if not self._ledger.pay(self._screen_nj):
            self._look_in = BLOCK  # nothing to spend: no use asking the account scan by scan
            return False
        if self._pricing.every > 1:
            self._look_in = self._random(2 * self._pricing.every - 1) - 1
        return True

    def learn(self, score: int, margin: int, trees_changed: bool, network_changed: bool | None) -> None:
        """The trees ran: did they change the answer, and (None where it was not asked) did the network?"""
        self._learnt.append((score, margin, trees_changed, network_changed))

    def close(self) -> None:
        """Tell what the running slot has heard so far. Call it when the loop ends in order; nothing may follow."""
        self._pricing.stop()
        self._hear(*self._pricing.heard(self._scores))

    def expect(self, scan_us: int) -> None:
        """Scans turn out to be so far apart: from the next block on the price reckons with that."""
        self._pricing.expect(scan_us, self._clock_us())
        self._probe_gap = self._gap(scan_us)

    def _gap(self, scan_us: int) -> int:
        """Scans between two probes at most; half of it on average."""
        scans = self._duration_us // max(1, scan_us)
        return 2 * max(1, self._trees_nj * PROBE_SHARE * scans // max(1, self._ledger.budget_nj))

    def limit(self, rung: Rung) -> None:
        """Climb no higher than `rung` from the next block on: how a low battery steps the ladder down."""
        self._limit = rung

    @property
    def trust_in_plan(self) -> float:
        """How far the plan is believed, 0 to 1."""
        return self._pricing.trust_in_plan

    @property
    def level(self) -> float:
        """The price level in force, 0 (nothing is worth its energy) to LEVELS - 1."""
        return self._pricing.level

    @property
    def every(self) -> int:
        """One scan in this many is screened."""
        return self._pricing.every

    def _blocks_of_bars(self) -> Iterator[list[int]]:
        yield self._bars()
        while True:
            self._begin_block()
            yield self._bars()

    def _begin_block(self) -> None:
        now_us = self._clock_us()
        pricing = self._pricing
        if pricing.take_in(self._scores):
            self._scores.clear()
            pricing.learn(self._learnt)
            self._learnt.clear()
        slot_over = pricing.update(now_us)
        if slot_over:
            self._hear(*pricing.heard(self._scores))
        if slot_over or pricing.trials - self._remembered >= _REMEMBER_TRIALS:
            self._remembered = pricing.trials
            self._remember(pricing.memory)
        pricing.set_thresholds()
        self._pay_screens(pricing.block)
        self._blocks += 1
        self.learning = pricing.trials < _LEARN_ALL or self._blocks % _LEARN_ONE_IN == 0

    def _pay_screens(self, screens: int) -> None:
        """Where every scan of the block is screened, its screens are paid together, before they run.

        They are paid one scan ahead: it is the first scan of a new block, screened already, that runs into it.
        """
        self.dense = self._pricing.every == 1 and self._ledger.pay(screens * self._screen_nj)

    def _bars(self) -> list[int]:
        """The bar for each scan that will be screened in the block, 0 where a probe is due."""
        pricing = self._pricing
        self.network_upto = pricing.network_upto if self._limit >= Rung.NETWORK else -1
        looks = max(1, pricing.block // pricing.every)
        if self._limit < Rung.TREES:
            self.ample = False
            return [256] * looks
        bars = [pricing.trees_from] * looks
        self.ample = self.dense and pricing.trees_from == 0
        self._probe_in -= looks * pricing.every
        if self._probe_in <= 0:
            bars[self._random(looks) - 1] = 0
            self._probe_in = self._random(self._probe_gap)
        return bars

    def _paid(self, nj: int) -> Iterator[Iterable[bool]]:
        """One True for each run of a rung that is paid for, or one False."""
        ledger, batch_nj = self._ledger, _AT_ONCE * nj
        while True:
            if ledger.unspent_nj > batch_nj << 10 and ledger.pay(batch_nj):
                yield repeat(True, _AT_ONCE)
            else:
                yield (ledger.pay(nj),)

    def _random(self, below: int) -> int:
        """1 to `below`, from a linear congruential generator (Numerical Recipes, ranqd1)."""
        self._seed = (self._seed * 1664525 + 1013904223) & 0xFFFFFFFF
        return 1 + (self._seed >> 8) % max(1, below)
