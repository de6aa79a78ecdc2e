"""What each rung of the ladder is worth and costs, at every price of energy, as integer tables.

The ladder is skip, screen, trees, network. A rung is worth climbing where the chance that it changes the answer
exceeds its energy times the price of energy. The chances are counted on the bundle's calibration scans and made
monotone (pool adjacent violators; Barlow et al. 1972), so a raw score need not be a probability: at each price
the ladder is two thresholds, one on the screen's score and one on the trees' margin.

Prices form a geometric scale of LEVELS steps of 2**(1/4), level 0 the highest: there nothing is worth its energy.
Everything is integers: chances in 1/65536, energies in nanojoules. The tables of one ladder take about 60 KB.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import accumulate, repeat
from operator import mul
from typing import Any, NamedTuple

from edge_runtime.errors import BadInput

ONE = 1 << 16
"""Certainty, and the unit of a chance."""
LEVELS = 49
MIN_TRIALS = 64
SCORE_BINS = 32
MARGIN_BINS = 24
_PRICE_SHIFT = 32
QUARTER_OCTAVES = (65536, 55109, 46341, 38968)
"""2**(-k/4) for k in 0..3, in 1/65536."""


class Costs(NamedTuple):
    """Energy of one run of each rung over the rung beneath it, nanojoules."""

    screen_nj: int
    trees_nj: int
    network_nj: int

    @property
    def always_nj(self) -> int:
        """A scan that climbs the whole ladder."""
        return self.screen_nj + self.trees_nj + self.network_nj


class Trial(NamedTuple):
    """One calibration scan that climbed the whole ladder.

    score: what the screen gave, 0 (nothing there) to 255.
    margin: the trees' margin between the two best classes, 0 (undecided) to 255.
    network_changed: None where nobody asked the network.
    """

    score: int
    margin: int
    trees_changed: bool
    network_changed: bool | None = None


def margin_score(margin: float) -> int:
    """A verdict's margin as the ladder counts it, 0 to 255; not a number counts as undecided."""
    return min(255, int(margin * 64)) if margin > 0 else 0


@dataclass(slots=True)
class Calibration:
    """Counts of how often the next rung changed the answer, by bins of the score and of the margin.

    Bin 0 is the most telling: the highest scores, the lowest margins. What is worth its energy at a price is then
    the first few bins, and the tables of a price end with the last of them.

    score_bin, margin_bin: the bin of each value 0..255.
    joint: trials by score bin and margin bin.
    """

    score_bin: bytes
    margin_bin: bytes
    trees_seen: list[int]
    trees_changed: list[int]
    network_seen: list[int]
    network_changed: list[int]
    joint: list[list[int]]

    @classmethod
    def count(cls, trials: Sequence[Trial], ask: int | None = None) -> Calibration:
        """Raises BadInput where there are fewer than MIN_TRIALS trials.

        ask: no bin holds scores below it and others.
        """
        if len(trials) < MIN_TRIALS:
            raise BadInput(
                f"calibration: {len(trials)} trials; the governor needs {MIN_TRIALS} or more labelled scans"
            )
        dullness = _bins(
            sorted(255 - t.score for t in trials), SCORE_BINS, () if ask is None else (255 - ask,)
        )
        c = cls.empty(dullness[::-1], _bins(sorted(t.margin for t in trials), MARGIN_BINS))
        for t in trials:
            c.joint[c.score_bin[t.score]][c.margin_bin[t.margin]] += 1
            c.add(*t)
        return c

    @classmethod
    def empty(cls, score_bin: bytes, margin_bin: bytes) -> Calibration:
        """No counts yet, in the given bins."""
        s, m = max(score_bin) + 1, max(margin_bin) + 1
        return cls(score_bin, margin_bin, [0] * s, [0] * s, [0] * m, [0] * m, [[0] * m for _ in range(s)])

    def resume(self, *counts: list[int]) -> None:
        """Continue from counts: trees_seen, trees_changed, network_seen, network_changed."""
        self.trees_seen, self.trees_changed, self.network_seen, self.network_changed = counts

    def to_dict(self) -> dict[str, Any]:
        """As a manifest holds it."""
        return asdict(self) | {"score_bin": self.score_bin.hex(), "margin_bin": self.margin_bin.hex()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Calibration:
        """What `to_dict` wrote."""
        bins = {name: bytes.fromhex(data[name]) for name in ("score_bin", "margin_bin")}
        return cls(**deepcopy({**data, **bins}))

    def yes_or_no(self, ask: int) -> Calibration:
        """The same counts for a screen that tells only whether its score reaches `ask`; no bin may straddle it."""
        first_quiet = self.score_bin[ask - 1]
        c = Calibration.empty(bytes([1] * ask + [0] * (256 - ask)), self.margin_bin)
        for b, row in enumerate(self.joint):
            kind = b >= first_quiet
            c.trees_seen[kind] += self.trees_seen[b]
            c.trees_changed[kind] += self.trees_changed[b]
            c.joint[kind] = [a + n for a, n in zip(c.joint[kind], row, strict=True)]
        c.network_seen, c.network_changed = list(self.network_seen), list(self.network_changed)
        return c

    def add(self, score: int, margin: int, trees_changed: bool, network_changed: bool | None) -> None:
        """One more scan on which the trees ran, and the network too unless `network_changed` is None."""
        s = self.score_bin[score]
        self.trees_seen[s] += 1
        self.trees_changed[s] += trees_changed
        if network_changed is not None:
            m = self.margin_bin[margin]
            self.network_seen[m] += 1
            self.network_changed[m] += network_changed


def _bins(values: Sequence[int], bins: int, edges: Iterable[int] = ()) -> bytes:
    """The bin of each value 0..255; `values` rise, and the low ones are the most telling.

    What is worth its energy is rare and lies at the telling end, so each bin there holds 3/4 as many values as
    its neighbour on the dull side, and never fewer than 8. `edges`: values at which a bin has to end besides.
    """
    cut = 8 * len(values)
    cuts: list[int] = []
    while len(cuts) < bins - 1 and cut >= 64:
        cuts.append(cut // 8 - 1)
        cut = cut * 3 // 4
    ends = sorted({values[c] for c in cuts[1:]}.union(edges))
    return bytes(bisect_left(ends, v) for v in range(256))


def monotone(seen: Sequence[int], changed: Sequence[int]) -> list[int]:
    """Chances in 1/65536 by bin, made to fall by pooling neighbours, then drawn as a line between pools.

    A bin without trials leans on its neighbours. Half a trial of "no change" is added to each pool, so that a
    pool of few trials is never certain.
    """
    pools: list[tuple[int, int, int]] = []  # changed, seen, bins
    for pool in zip(changed, seen, repeat(1)):
        merged = pool
        while pools and pools[-1][0] * merged[1] <= merged[0] * pools[-1][1]:
            last = pools.pop()
            merged = (last[0] + merged[0], last[1] + merged[1], last[2] + merged[2])
        pools.append(merged)
    return _line([(2 * c * ONE // (2 * s + 1), n) for c, s, n in pools])


def _line(pools: Sequence[tuple[int, int]]) -> list[int]:
    """A value a bin, straight between the middles of the pools (value, bins), flat beyond the outer middles."""
    middles, at = [], 0
    for value, bins in pools:
        middles.append((2 * at + bins - 1, value))
        at += bins
    out, right = [], 0
    for x in range(0, 2 * at, 2):
        while right < len(middles) and middles[right][0] < x:
            right += 1
        if right in (0, len(middles)):
            out.append(middles[min(right, len(middles) - 1)][1])
            continue
        (x0, y0), (x1, y1) = middles[right - 1], middles[right]
        out.append(y0 + (y1 - y0) * (x - x0) // (x1 - x0))
    return out


class Ladder:
    """The tables of one mission: thresholds, expected energies and surpluses at each price level.

    Rows by level; a row holds the score bins that are worth the trees there, and ends with the last of them.

    trees_from[level]: the lowest score 0..256 at which the trees are worth their energy.
    network_upto[level]: the highest margin -1..255 at which the network is.
    spend[level][bin]: expected energy above the screen by the score's bin, in 1/65536 of the whole climb: small
        numbers, because Python's integers beyond 30 bits cost three times as much.
    worth[level][bin]: expected chance of changed answers, in 1/65536.
    surplus[level][bin]: the same less the price of that energy.
    price[level]: what energy must earn, chance in 1/65536 per nanojoule, times 2**32.
    """

    def __init__(self, calibration: Calibration, costs: Costs) -> None:
        if min(costs) < 0 or costs.trees_nj <= 0:
            raise BadInput(f"governor: rungs cost {tuple(costs)} nJ; the trees must cost something")
        self.calibration = calibration
        self.costs = costs
        self.bins = len(calibration.trees_seen)
        self.scores_of = [calibration.score_bin.index(b) for b in range(self.bins)]
        """The lowest score of each bin."""
        self._margins_of = [calibration.margin_bin.rindex(b) for b in range(len(calibration.network_seen))]
        """The highest margin of each bin."""
        self.refresh()

    def refresh(self) -> None:
        """Make the tables anew from the calibration's counts, which grow with what is learnt in the field."""
        c = self.calibration
        trees, network = monotone(c.trees_seen, c.trees_changed), monotone(c.network_seen, c.network_changed)
        overall = [sum(column) for column in zip(*c.joint, strict=True)]
        shares = [_shares(row, overall) for row in c.joint]
        further = [[0, *accumulate(row)] for row in shares]
        gains = [[0, *(g >> 16 for g in accumulate(map(mul, row, network)))] for row in shares]
        bins = list(zip(trees, further, gains, strict=True))
        top = (ONE << _PRICE_SHIFT) // self.costs.trees_nj
        self.price = [(top * QUARTER_OCTAVES[k & 3]) >> (16 + (k >> 2)) for k in range(LEVELS)]
        self.trees_from: list[int] = []
        self.network_upto: list[int] = []
        self.spend: list[list[int]] = []
        self.worth: list[list[int]] = []
        self.surplus: list[list[int]] = []
        for price in self.price:
            self._add_level(price, bins, network)

    def _add_level(
        self, price: int, bins: Sequence[tuple[int, list[int], list[int]]], network: Sequence[int]
    ) -> None:
        """bins: per score bin the trees' chance, and sums over the first margin bins of shares and of gains."""
        trees_nj, network_nj, whole_nj = self.costs.trees_nj, self.costs.network_nj, self.costs.always_nj
        trees_price, network_price = price * trees_nj >> _PRICE_SHIFT, price * network_nj >> _PRICE_SHIFT
        trees_spend, network_spend = (trees_nj << 16) // whole_nj, (network_nj << 16) // whole_nj
        up = sum(chance > network_price for chance in network) if network_nj else 0
        spend, worth, surplus = [], [], []
        for chance, further, gains in bins:
            gain = chance + gains[up]
            earns = gain - trees_price - (further[up] * network_price >> 16)
            if earns <= 0:
                break
            spend.append(trees_spend + (further[up] * network_spend >> 16))
            worth.append(gain)
            surplus.append(earns)
        self.spend.append(spend)
        self.worth.append(worth)
        self.surplus.append(surplus)
        self.trees_from.append(self.scores_of[len(spend) - 1] if spend else 256)
        self.network_upto.append(self._margins_of[up - 1] if up else -1)


def _shares(row: Sequence[int], overall: Sequence[int]) -> list[int]:
    """How a score bin's scans spread over the margin bins, in 1/65536; thin rows lean on all bins together."""
    total = sum(overall)
    weighed = [n * total + 4 * o for n, o in zip(row, overall, strict=True)]
    whole = sum(weighed)
    return [ONE * w // whole if whole else 0 for w in weighed]
