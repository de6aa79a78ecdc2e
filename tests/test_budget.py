"""Budgets in a user's words."""

from __future__ import annotations

import pytest

from edge_runtime.errors import BadInput
from edge_runtime.governor import Budget


@pytest.mark.parametrize(
    ("text", "hours", "joules"),
    [
        ("1%", 10, 100),
        ("20 mAh", 10, 20 * 3.6 * 3.5 * 0.9),
        ("50J", 1, 50),
        ("0.5Wh", 1, 1800),
        ("1d", None, 10_000 - 8640),
    ],
)
def test_budgets_in_words(text: str, hours: float | None, joules: float) -> None:
    """Each form, at a battery of 10 kJ at the rail, 3.5 V, and a device that takes 100 mW besides."""
    budget = Budget.parse(text, hours, battery_j=10_000, battery_v=3.5, efficiency=0.9, rest_mw=100)
    assert budget.energy_nj == pytest.approx(joules * 1e9, rel=1e-9)
    assert budget.duration_us == (hours or 24) * 3_600_000_000
    held = Budget.parse(
        text, hours, battery_j=10_000, battery_v=3.5, efficiency=0.9, rest_mw=100, reserve=0.25
    )
    assert held.energy_nj == pytest.approx(0.75 * budget.energy_nj)
    assert held.mission != budget.mission


@pytest.mark.parametrize(
    ("text", "hours", "hint"),
    [
        ("lots", 1, "write 1%"),
        ("1%", None, "--hours"),
        ("200%", 1, "ask for less"),
        ("100h", None, "27.8 h"),
        ("-5J", 1, "write"),
    ],
)
def test_budgets_that_cannot_be(text: str, hours: float | None, hint: str) -> None:
    """One line that says what to do."""
    with pytest.raises(BadInput, match=hint):
        Budget.parse(text, hours, battery_j=10_000, battery_v=3.5, rest_mw=100)
