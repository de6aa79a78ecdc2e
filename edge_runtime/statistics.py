"""What the loop has seen, in fixed memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from edge_runtime.reasons import Reason
from edge_runtime.verdict import UNKNOWN, Rung

_FRACTION_BITS = 5
_EXACT_BITS = 12
_EXACT = 1 << _EXACT_BITS
"""Values below have a bucket each: a loop's latencies in microseconds mostly do, and are counted in one step."""
_OFFSET = _EXACT - ((_EXACT_BITS - _FRACTION_BITS + 1) << _FRACTION_BITS)
_OK = int(Reason.OK)
_REFUSED = (int(Rung.NONE), int(Rung.LAST_GOOD))


class Histogram:
    """Counts of non-negative integers below 2^64: exact below 4,096, in buckets at most 1/32 wide above.

    Quantiles are a bucket's upper edge, so they are never told too low; the maximum is exact.
    buckets: the counts; those below _EXACT by their values.
    """

    def __init__(self) -> None:
        self.buckets = [0] * ((65 - _FRACTION_BITS << _FRACTION_BITS) + _OFFSET)
        self._max = 0  # of the values that have no bucket of their own

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self.buckets)

    def add(self, value: int) -> None:
        """Count one value."""
        if value < _EXACT:
            self.buckets[value] += 1
            return
        shift = value.bit_length() - _FRACTION_BITS - 1
        self.buckets[(shift << _FRACTION_BITS) + (value >> shift) + _OFFSET] += 1
        self._max = max(self._max, value)

    @property
    def max(self) -> int:
        """The largest value counted; 0 where there was none."""
        return self._max or max((value for value in range(_EXACT) if self.buckets[value]), default=0)

    def quantile(self, q: float) -> int:
        """The smallest bucket edge that at least a share `q` of the values does not exceed; 0 where empty."""
        wanted = q * self.count
        seen = 0
        for index, count in enumerate(self.buckets):
            seen += count
            if count and seen >= wanted:
                return min(_upper_edge(index), self.max)
        return self.max


def _upper_edge(index: int) -> int:
    # Inverse of the index in `add`: above the exact ones it is (shift << 5) + mantissa + _OFFSET, with the
    # mantissa in 32 .. 63.
    if index < _EXACT:
        return index
    index -= _OFFSET
    shift = (index >> _FRACTION_BITS) - 1
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
        self._exact_us = self.latency_us.buckets

    def count(self, label: int, reason: int, rung: int, latency_us: int) -> None:
        """Count one verdict."""
        self.scans += 1
        self.rungs[rung] += 1
        if latency_us < _EXACT:
            self._exact_us[latency_us] += 1  # as `add` does: a call of it costs more than what it does
        else:
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
