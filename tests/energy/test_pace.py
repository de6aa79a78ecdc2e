"""The pace of conversions: few looks, none late, none lost, whatever the chip's oscillator and ours do."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.power.pace import Pace


def follow(period_us: float, jitter_us: float, seed: int, conversions: int = 600) -> tuple[float, float, int]:
    """Looks a conversion, the worst lateness as a share, and conversions lost, after fifty to settle."""
    rng = random.Random(seed)
    now = began = 0.0
    pace = Pace(68_100, now)
    taken = looks = lost = 0
    late = 0.0
    while taken < conversions:
        wait = pace.wait_us(now)
        while True:
            now += wait + rng.uniform(0, jitter_us)
            looks += taken > 50
            done = int((now - began) / period_us)
            if done > taken:
                break
            wait = pace.too_early(now)
        if taken > 50:
            late = max(late, (now - began - done * period_us) / period_us)
        unseen = pace.taken(now)
        assert unseen == done - taken - 1
        lost += unseen
        taken = done
    return looks / (taken - 51), late, lost


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.floats(0.9, 1.1), st.floats(0, 500), st.integers(0, 2**32))
def test_few_looks_and_none_late(oscillator: float, jitter_us: float, seed: int) -> None:
    looks, late, lost = follow(68_100 * oscillator, jitter_us, seed)
    assert looks < 1.7
    assert late < 0.05
    assert lost == 0


def test_a_pause_is_counted() -> None:
    pace = Pace(1000, 0)
    for end in range(1000, 20_000, 1000):
        pace.too_early(end - 2)
        assert pace.taken(end + 2) == 0
    assert pace.taken(26_002) == 6
    assert pace.period_us == pytest.approx(1000, rel=0.01)


def test_a_look_out_of_turn_waits_for_its_turn() -> None:
    pace = Pace(1000, 0)
    pace.too_early(995)
    pace.taken(1001)
    assert pace.wait_us(1001) == pytest.approx(pace.too_early(1001))
    assert pace.too_early(1990) > 900 * 0.008
