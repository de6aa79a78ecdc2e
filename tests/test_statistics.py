"""The latency histogram against sorted values."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.statistics import Histogram


@given(
    values=st.lists(st.integers(0, 1 << 40), min_size=1, max_size=80),
    q=st.sampled_from([0.0, 0.01, 0.5, 0.9, 0.99, 1.0]),
)
def test_quantiles_are_at_most_a_32nd_too_high_and_never_too_low(values: list[int], q: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    truth = sorted(values)[max(0, math.ceil(q * len(values)) - 1)]
    assert truth <= histogram.quantile(q) <= truth + truth // 32 + 1
    assert histogram.quantile(1.0) == histogram.max == max(values)


def test_an_empty_histogram_says_nothing() -> None:
    assert Histogram().quantile(0.5) == 0
