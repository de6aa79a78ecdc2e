"""What each rung of the ladder is worth and costs, at every price of energy, as integer tables.

The ladder is skip, screen, trees, network. A rung is worth climbing where the chance that it changes the answer
exceeds its energy times the price of energy. The chances are counted on the bundle's calibration scans and made
monotone (pool adjacent violators; Barlow et al. 1972), so a raw score need not be a probability: at each price
the ladder is two thresholds, one on the screen's score and one on the trees' margin.

Prices form a geometric scale of LEVELS steps of 2**(1/4), level 0 the highest: there nothing is worth its energy.
Everything is integers: chances in 1/65536, energies in nanojoules. The tables of one ladder take about 60 KB.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from edge_runtime.errors import BadInput

ONE = 1 << 16
"""Certainty, and the unit of a chance."""
LEVELS = 49
SCORE_BINS = 32
MARGIN_BINS = 24
_PRICE_SHIFT = 32
_QUARTER_OCTAVES = (65536, 55109, 46341, 38968)
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
    """

    score: int
    margin: int
    trees_changed: bool
    network_changed: bool


@dataclass(slots=True)
class Calibration:
    """Counts of how often the next rung changed the answer, in bins that are finest where a change is likeliest.

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
    def count(cls, trials: Sequence[Trial]) -> Calibration:
        """Raises BadInput where there are fewer than 64 trials."""
        if len(trials) < 64:
            raise BadInput(f"calibration: {len(trials)} trials; the governor needs 64 or more labelled scans")
        c = cls.empty(
            _bins(sorted((t.score for t in trials), reverse=True), SCORE_BINS),
            _bins(sorted(t.margin for t in trials), MARGIN_BINS),
        )
        for t in trials:
            c.joint[c.score_bin[t.score]][c.margin_bin[t.margin]] += 1
            c.add(*t)
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

    @classmethod
    def empty(cls, score_bin: bytes, margin_bin: bytes) -> Calibration:
        """No counts yet, in the given bins."""
        s, m = max(score_bin) + 1, max(margin_bin) + 1
        return cls(
            score_bin, margin_bin, [0] * s, [0] * s, [0] * m, [0] * m, [[0] * m for _ in range(s)]
        )


def _bins(values: Sequence[int], bins: int) -> bytes:
    """The bin of each value 0..255; `values` begin with the most telling.

    What is worth its energy is rare and lies at the telling end, so each bin there holds 3/4 as many values as
    its neighbour on the dull side, and never fewer than 8.
    """
    cut, cuts = 8 * len(values), []
    while len(cuts) < bins - 1 and cut >= 64:
        cuts.append(cut // 8 - 1)
        cut = cut * 3 // 4
    edges = sorted({values[c] for c in cuts} - {0})
    return bytes(bisect_right(edges, v) for v in range(256))


def monotone(seen: Sequence[int], changed: Sequence[int], *, rising: bool) -> list[int]:
    """Chances in 1/65536 by bin, made monotone by pooling neighbours, then drawn as a line between pools.

    A bin without trials leans on its neighbours. Half a trial of "no change" is added to each pool, so that a
    pool of few trials is never certain.
    """
    order = range(len(seen)) if rising else range(len(seen) - 1, -1, -1)
    pools: list[tuple[int, int, int]] = []  # changed, seen, bins
    for i in order:
        pool = (changed[i], seen[i], 1)
        while pools and pools[-1][0] * pool[1] >= pool[0] * pools[-1][1]:
            last = pools.pop()
            pool = (last[0] + pool[0], last[1] + pool[1], last[2] + pool[2])
        pools.append(pool)
    values = _line([(2 * c * ONE // (2 * s + 1), n) for c, s, n in pools])
    return values if rising else values[::-1]


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

    trees_from[level]: the lowest score 0..256 at which the trees are worth their energy.
    network_upto[level]: the highest margin -1..255 at which the network is.
    spend_nj[level][bin]: expected energy above the screen, by the score's bin.
    worth[level][bin]: expected chance of changed answers, in 1/65536.
    surplus[level][bin]: the same less the price of that energy.
    price[level]: what energy must earn, chance in 1/65536 per nanojoule, times 2**32.
    """

    def __init__(self, calibration: Calibration, costs: Costs) -> None:
        if min(costs) < 0 or costs.trees_nj <= 0:
            raise BadInput(f"governor: rungs cost {tuple(costs)} nJ; each must be positive")
        self.calibration = calibration
        self.costs = costs
        self.refresh()

    def refresh(self) -> None:
        """Make the tables anew from the calibration's counts, which grow with what is learnt in the field."""
        c = self.calibration
        self.trees = monotone(c.trees_seen, c.trees_changed, rising=True)
        self.network = monotone(c.network_seen, c.network_changed, rising=False)
        overall = [sum(column) for column in zip(*c.joint, strict=True)]
        self._shares = [_shares(row, overall) for row in c.joint]
        top = (ONE << _PRICE_SHIFT) // self.costs.trees_nj
        self.price = [(top * _QUARTER_OCTAVES[k & 3]) >> (16 + (k >> 2)) for k in range(LEVELS)]
        self.trees_from: list[int] = []
        self.network_upto: list[int] = []
        self.spend_nj: list[list[int]] = []
        self.worth: list[list[int]] = []
        self.surplus: list[list[int]] = []
        for price in self.price:
            self._add_level(price)

    def _add_level(self, price: int) -> None:
        trees_price = price * self.costs.trees_nj >> _PRICE_SHIFT
        network_price = price * self.costs.network_nj >> _PRICE_SHIFT
        climbs = [chance > network_price for chance in self.network] if self.costs.network_nj else []
        spend, worth, surplus = [], [], []
        for chance, shares in zip(self.trees, self._shares, strict=True):
            up = [(s, v) for s, v, climb in zip(shares, self.network, climbs, strict=False) if climb]
            further = sum(s for s, _ in up)
            gain = chance + (sum(s * v for s, v in up) >> 16)
            earns = gain - trees_price - (further * network_price >> 16)
            pays = earns > 0
            surplus.append(earns if pays else 0)
            worth.append(gain if pays else 0)
            spend.append(self.costs.trees_nj + (further * self.costs.network_nj >> 16) if pays else 0)
        self.spend_nj.append(spend)
        self.worth.append(worth)
        self.surplus.append(surplus)
        self.trees_from.append(_first(self.calibration.score_bin, [e > 0 for e in surplus]))
        stops = _first(self.calibration.margin_bin, [not climb for climb in climbs]) if climbs else 0
        self.network_upto.append(stops - 1)


def _shares(row: Sequence[int], overall: Sequence[int]) -> list[int]:
    """How a score bin's scans spread over the margin bins, in 1/65536; thin rows lean on all bins together."""
    total = sum(overall)
    weighed = [n * total + 4 * o for n, o in zip(row, overall, strict=True)]
    whole = sum(weighed)
    return [ONE * w // whole if whole else 0 for w in weighed]


def _first(bins: bytes, wanted: Iterable[bool]) -> int:
    """The lowest value 0..255 whose bin is wanted, or 256."""
    flags = list(wanted)
    return next((value for value in range(256) if flags[bins[value]]), 256)
