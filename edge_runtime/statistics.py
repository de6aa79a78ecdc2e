"""What the loop has seen, in fixed memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from edge_runtime.reasons import Reason
from edge_runtime.verdict import UNKNOWN, Rung

_FRACTION_BITS = 5
_EXACT_BITS = _FRACTION_BITS + 1  # values of so few bits have a bucket each
_OK = int(Reason.OK)
_REFUSED = (int(Rung.NONE), int(Rung.LAST_GOOD))


class Histogram:
    """Counts of non-negative integers in buckets at most 1/32 wide, relative to their value.

    Quantiles are a bucket's upper edge, so they are never told too low; the maximum is exact.
    """

    def __init__(self) -> None:
        self._buckets = [0] * (64 << _FRACTION_BITS)
        self.max = 0

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self._buckets)

    def add(self, value: int) -> None:
        """Count one value."""
        shift = value.bit_length() - _EXACT_BITS
        self._buckets[value if shift <= 0 else (shift << _FRACTION_BITS) + (value >> shift)] += 1
        if value > self.max:
            self.max = value

    def quantile(self, q: float) -> int:
        """The smallest bucket edge that at least a share `q` of the values does not exceed; 0 where empty."""
        wanted = q * self.count
        seen = 0
        for index, count in enumerate(self._buckets):
            seen += count
            if count and seen >= wanted:
                return min(_upper_edge(index), self.max)
        return self.max


def _upper_edge(index: int) -> int:
    # Inverse of the index in `add`: below 2 * 32 the bucket is the value; above, the index is
    # (shift << 5) + mantissa with the mantissa in 32 .. 63.
    shift = (index >> _FRACTION_BITS) - 1
    if shift <= 0:
        return index
    mantissa = index - (shift << _FRACTION_BITS)
    return ((mantissa + 1) << shift) - 1


class Statistics:
    """Counters of one run.

    labels: answers by label, UNKNOWN (-1) last. refused: scans by the reason they got no answer of their own.
    unknown: UNKNOWN answers by reason. rungs: verdicts by rung, one count for each.
    happened: port and decoder events by reason.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes
        self.scans = 0
        self.labels = [0] * (len(classes) + 1)
        self.refused: defaultdict[int, int] = defaultdict(int)
        self.unknown: defaultdict[int, int] = defaultdict(int)
        self.rungs = [0] * len(Rung)
        self.happened: defaultdict[int, int] = defaultdict(int)
        self.latency_us = Histogram()

    def count(self, label: int, reason: int, rung: int, latency_us: int) -> None:
        """Count one verdict."""
        self.scans += 1
        self.rungs[rung] += 1
        self.latency_us.add(latency_us)
        if reason == _OK:
            self.labels[label] += 1
        elif rung in _REFUSED:
            self.refused[reason] += 1
        else:
            self.labels[label] += 1
            if label == UNKNOWN:
                self.unknown[reason] += 1

    @property
    def class_counts(self) -> dict[str, int]:
        """Answers by class name, UNKNOWN among them."""
        return dict(zip([*self.classes, "UNKNOWN"], self.labels, strict=True))

    @property
    def unknown_rate(self) -> float:
        """The share of answered scans whose answer is UNKNOWN."""
        answered = sum(self.labels)
        return self.labels[-1] / answered if answered else 0.0
