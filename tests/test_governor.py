"""The governor's hard limit: it holds whatever comes."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import BadInput
from edge_runtime.governor import (
    Calibration,
    Costs,
    Governor,
    Ladder,
    Ledger,
    Past,
    last_entry,
    resumed_us,
)
from edge_runtime.governor.forecast import SLOTS
from edge_runtime.governor.ledger import Entry
from edge_runtime.governor.policy import BLOCK
from tests.governor_parts import DURATION_US, trials


class Killed(Exception):
    """The process ends here."""


# The hard limit


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    budget_nj=st.integers(0, 10**12),
    declared=st.tuples(st.integers(0, 10**8), st.integers(1, 10**9), st.integers(0, 10**10)),
    events=st.lists(
        st.tuples(
            st.integers(0, 255), st.integers(0, 255), st.integers(0, 10**7), st.sampled_from("gggggkt")
        ),
        max_size=300,
    ),
    burst_256=st.integers(0, 256),
    with_plan=st.booleans(),
)
def test_never_overspent_whatever_comes(
    budget_nj: int,
    declared: tuple[int, int, int],
    events: list[tuple[int, int, int, str]],
    burst_256: int,
    with_plan: bool,
) -> None:
    """Arbitrary costs, scores, gaps in time, kills within an inference (k) and within a record (t)."""
    costs, journal = Costs(*declared), []
    now_us, torn, spent_nj = 0, False, 0
    calibration = Calibration.count(trials(80))
    bins = len(calibration.trees_seen)
    pasts = [Past([[3] * bins] * SLOTS)] if with_plan else []

    def record(payload: bytes) -> None:
        nonlocal torn
        if torn:
            torn = False
            raise Killed
        journal.append(payload)

    def start() -> Governor:
        ledger = Ledger(
            budget_nj,
            DURATION_US,
            record,
            lambda: now_us,
            worst_nj=max(1, costs.always_nj),
            burst_256=burst_256,
            restored=last_entry(journal, 0),
        )
        return Governor(
            Ladder(calibration, costs),
            ledger,
            pasts,
            duration_us=DURATION_US,
            scan_us=10**5,
            clock_us=lambda: now_us,
        )

    governor = start()
    for score, margin, gap_us, event in events:
        now_us += gap_us
        torn = torn or event == "t"
        try:
            if governor.dense or governor.wants_screen():
                spent_nj += costs.screen_nj
                governor.note(score)
                if score >= governor.bar() and governor.pays_trees():
                    spent_nj += costs.trees_nj
                    if margin <= governor.network_upto and governor.pays_network():
                        spent_nj += costs.network_nj
                    governor.learn(score, margin, bool(score & 1), None)
            if event == "k":
                raise Killed
        except Killed:
            torn = False
            governor = start()
        assert spent_nj <= budget_nj
    assert spent_nj <= last_ceiling(journal)


def last_ceiling(journal: list[bytes]) -> int:
    """What the journal says may have been spent."""
    return max((Entry.unpack(p).ceiling_nj for p in journal), default=0)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    budget_nj=st.integers(1, 10**9),
    runs=st.lists(st.tuples(st.integers(1, 10**7), st.integers(0, 10**8)), max_size=200),
)
def test_undeclared_costs_overspend_by_one_inference_at_most(
    budget_nj: int, runs: list[tuple[int, int]]
) -> None:
    """Inferences that use what they like: the account stops at the one that crosses the limit."""
    ledger = Ledger(budget_nj, DURATION_US, lambda _p: None, lambda: 0, worst_nj=1)
    spent_nj = dearest_nj = 0
    for declared_nj, used_nj in runs:
        if ledger.pay(declared_nj):
            ledger.correct(used_nj - declared_nj)
            spent_nj += used_nj
            dearest_nj = max(dearest_nj, used_nj)
    assert spent_nj <= budget_nj + dearest_nj
    assert ledger.spent_nj == spent_nj


@pytest.mark.parametrize(
    "screens", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, BLOCK + 2, 2 * BLOCK, 2 * BLOCK + 1, 500]
)
def test_screens_are_paid_before_they_run(screens: int) -> None:
    """A budget of so many screens and nothing else: no more run, and at most a block's is paid for and does not."""
    ledger = Ledger(screens * 1000, DURATION_US, lambda _p: None, lambda: 0, worst_nj=1000)
    ladder = Ladder(Calibration.count(trials()), Costs(1000, 10**9, 0))
    governor = Governor(ladder, ledger, [], duration_us=DURATION_US, scan_us=10**5, clock_us=lambda: 0)
    ran = 0
    for _ in range(5000):
        if governor.dense or governor.wants_screen():
            ran += 1
            governor.note(0)
            governor.bar()
    assert ran <= screens
    assert ledger.spent_nj - (BLOCK + 1) * 1000 <= ran * 1000 <= ledger.spent_nj


def test_no_drift_over_ten_million_decisions() -> None:
    """After ten million charges of odd amounts the account equals exact arithmetic, and the records say so."""
    records: list[bytes] = []
    budget_nj = 3 * 10**14
    ledger = Ledger(budget_nj, DURATION_US, records.append, lambda: 0, worst_nj=10**7)
    amounts = [7_919 * (k % 1009) + 1 for k in range(1009)]
    pay = ledger.pay
    rounds = 10_000_000 // len(amounts)
    for _ in range(rounds):
        for nj in amounts:
            pay(nj)
    exact = Fraction(sum(amounts)) * rounds
    assert ledger.spent_nj == exact
    ledger.close()
    assert Entry.unpack(records[-1]).ceiling_nj == exact


def test_a_clean_end_gives_the_lease_back() -> None:
    """Two hundred orderly restarts waste nothing; a kill wastes one lease at most."""
    journal: list[bytes] = []
    for _ in range(200):
        ledger = Ledger(
            10**9, DURATION_US, journal.append, lambda: 0, worst_nj=1000, restored=last_entry(journal, 0)
        )
        assert ledger.pay(1000)
        ledger.close()
    assert last_entry(journal, 0) is not None
    assert Entry.unpack(journal[-1]).ceiling_nj == 200 * 1000
    Ledger(10**9, DURATION_US, journal.append, lambda: 0, worst_nj=1000, restored=last_entry(journal, 0)).pay(
        1000
    )
    assert Entry.unpack(journal[-1]).ceiling_nj <= 200 * 1000 + 10**9 // 1024


def test_the_bucket_lets_no_hour_spend_the_mission() -> None:
    """With a burst share of one half, half is free at once and the rest comes with time."""
    now_us = 0
    ledger = Ledger(1000, 1000, lambda _p: None, lambda: now_us, worst_nj=1, burst_256=128)
    spent = []
    for now_us in range(0, 1001, 100):  # noqa: B007 - the ledger's clock reads it
        while ledger.pay(1):
            pass
        spent.append(ledger.spent_nj)
    assert spent == [500 + t // 2 for t in range(0, 1001, 100)]


def test_the_account_is_of_one_mission() -> None:
    """Another mission's records are not its own; another budget for the same mission is refused."""
    journal: list[bytes] = []
    Ledger(1000, DURATION_US, journal.append, lambda: 5, worst_nj=10, mission=7).pay(10)
    assert last_entry(journal, 8) is None
    entry = last_entry(journal, 7)
    assert entry is not None
    assert entry.ceiling_nj == 10
    with pytest.raises(BadInput, match="same --budget"):
        Ledger(2000, DURATION_US, journal.append, lambda: 5, worst_nj=10, mission=7, restored=entry)
    with pytest.raises(BadInput, match="unknown version"):
        Entry.unpack(b"\x09" + journal[0][1:])


def test_time_goes_on_while_the_device_is_off() -> None:
    """An hour off is an hour of the mission; a clock that fell back is not believed."""
    entry = Entry(256, 0, 1, 1, 5_000_000, 1_000_000_000)
    assert resumed_us(entry, 1_000_000_000 + 3_600_000_000) == 5_000_000 + 3_600_000_000
    assert resumed_us(entry, 0) == 5_000_000
    assert resumed_us(None, 123) == 0
