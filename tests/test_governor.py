"""The governor: the limit holds whatever comes, the ladder says what was counted, the price finds its way."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from edge_runtime.errors import BadInput, HardwareUnavailable
from edge_runtime.governor import (
    Budget,
    Calibration,
    Costs,
    Governor,
    Ladder,
    Ledger,
    Past,
    Trial,
    last_entry,
    resumed_us,
)
from edge_runtime.governor.forecast import SLOTS
from edge_runtime.governor.ladder import LEVELS, ONE, monotone
from edge_runtime.governor.ledger import Entry
from edge_runtime.governor.policy import BLOCK
from edge_runtime.verdict import Rung
from tests.bench import missions, policies
from tests.bench.bench_governor import COSTS, decision_instructions

DURATION_US = 1_000_000_000


class Killed(Exception):
    """The process ends here."""


def trials(n: int = 400, seed: int = 1) -> list[Trial]:
    """Calibration scans whose score and margin tell something."""
    rng = random.Random(seed)
    out = []
    for _ in range(n):
        score, margin = int(255 * rng.random() ** 3), rng.randrange(256)
        out.append(Trial(score, margin, rng.random() < score / 255, rng.random() < (255 - margin) / 512))
    return out


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
    """A budget of so many screens and nothing else: no more run, and few are lost to paying by the block."""
    ledger = Ledger(screens * 1000, DURATION_US, lambda _p: None, lambda: 0, worst_nj=1000)
    ladder = Ladder(Calibration.count(trials()), Costs(1000, 10**9, 0))
    governor = Governor(ladder, ledger, [], duration_us=DURATION_US, scan_us=10**5, clock_us=lambda: 0)
    ran = 0
    for _ in range(5000):
        if governor.dense or governor.wants_screen():
            ran += 1
            governor.note(0)
            governor.bar()
    assert screens - BLOCK <= ran <= screens


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


# The ladder


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=30))
def test_chances_fall_and_stay_chances(counts: list[tuple[int, int]]) -> None:
    """Whatever was counted, the chances fall from bin to bin and lie within 0 and certainty."""
    seen, changed = [max(c) for c in counts], [min(c) for c in counts]
    chances = monotone(seen, changed)
    assert len(chances) == len(counts)
    assert all(a >= b for a, b in pairwise(chances))
    assert all(0 <= c < ONE for c in chances)


def test_tables_follow_the_price() -> None:
    """As energy gets cheaper more is worth it, and a row's worth is what its bins' chances say."""
    ladder = Ladder(Calibration.count(trials()), Costs(10, 1000, 3000))
    assert ladder.trees_from[0] == 256
    assert ladder.network_upto[0] == -1
    assert ladder.trees_from == sorted(ladder.trees_from, reverse=True)
    assert ladder.network_upto == sorted(ladder.network_upto)
    assert [len(row) for row in ladder.spend] == sorted(len(row) for row in ladder.spend)
    chances = monotone(ladder.calibration.trees_seen, ladder.calibration.trees_changed)
    price = ladder.price[LEVELS // 2] * 1000 / 2**32
    for bin_, row in enumerate(ladder.surplus[LEVELS // 2]):
        assert row >= chances[bin_] - price - 1


def test_a_static_signal_is_probed() -> None:
    """A score that is never worth the trees is sent there now and then all the same."""
    calibration = Calibration.count(trials())
    ladder = Ladder(calibration, Costs(0, 1000, 0))
    now_us = 0
    ledger = Ledger(10**9, DURATION_US, lambda _p: None, lambda: now_us, worst_nj=1000)
    governor = Governor(ladder, ledger, [], duration_us=DURATION_US, scan_us=10_000, clock_us=lambda: now_us)
    governor.limit(Rung.TREES)
    met = []
    for now_us in range(0, DURATION_US, 10_000):
        governor.note(0)
        if governor.bar() == 0:
            met.append(now_us)
    gap = 2 * 1000 * 512 * 100_000 // 10**9
    assert met
    assert max(b - a for a, b in pairwise(met)) <= (gap + 2 * BLOCK) * 10_000


def test_a_low_battery_steps_down() -> None:
    """Under a limit no block lets anything climb higher, probes included."""
    governor, _ = small_governor()
    for rung, trees, network in ((Rung.TREES, True, False), (Rung.SCREEN, False, False)):
        governor.limit(rung)
        for _ in range(BLOCK):
            governor.note(255)
            governor.bar()
        bars = []
        for _ in range(640):
            governor.note(255)
            bars.append(governor.bar())
        assert (min(bars) <= 255) is trees
        assert (governor.network_upto >= 0) is network


def small_governor(budget_nj: int = 10**12) -> tuple[Governor, Ledger]:
    """A governor that can afford everything, and its account."""
    ledger = Ledger(budget_nj, DURATION_US, lambda _p: None, lambda: 0, worst_nj=5000)
    ladder = Ladder(Calibration.count(trials()), Costs(1, 1000, 3000))
    return Governor(ladder, ledger, [], duration_us=DURATION_US, scan_us=10**5, clock_us=lambda: 0), ledger


# The policy


def test_the_oracle_is_the_linear_program() -> None:
    """On small missions the oracle equals a general solver of the relaxed multiple-choice knapsack."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        n = 12
        scans = missions.Scans(
            np.zeros(n, np.int64), np.zeros(n, np.int64), rng.random(n), rng.random(n) * rng.random(n)
        )
        costs = Costs(*map(int, rng.integers(1, 50, 3)))
        budget = int(rng.integers(10, n * costs.always_nj))
        gains = np.stack([scans.trees, scans.trees + scans.network], 1).ravel()
        prices = np.tile([costs.screen_nj + costs.trees_nj, costs.always_nj], n)
        one_each = np.kron(np.eye(n), [1, 1])
        solved = linprog(-gains, A_ub=np.vstack([prices, one_each]), b_ub=[budget, *[1] * n], bounds=(0, 1))
        assert missions.oracle(scans, costs, budget) == pytest.approx(-solved.fun, rel=1e-7)


@pytest.mark.parametrize(("process", "floor"), [("iid", 0.97), ("late", 0.96), ("switch", 0.92)])
def test_near_the_oracle(process: str, floor: float) -> None:
    """Two missions of each kind, a tenth of always-on; the bench flies all kinds, often."""
    costs, shares = COSTS["reference"], []
    for seed in (0, 1):
        world, calibration, plan, scans = missions.mission(process, seed, 24)
        budget_nj = costs.always_nj * missions.SCANS // 10
        field = policies.Field(calibration, costs, plan, missions.SCANS, budget_nj)
        flight = field.fly(scans, world.outcomes(scans))
        assert flight.spent_nj <= budget_nj
        best = missions.oracle(scans, costs, budget_nj)
        shares.append(missions.expected(scans, flight.trees, flight.network) / best)
        peers = [peer(calibration, costs, scans, budget_nj) for peer in policies.PEERS.values()]
        assert shares[-1] > max(missions.expected(scans, p.trees, p.network) / best for p in peers)
    assert sum(shares) / len(shares) >= floor


def test_two_hundred_kills_overspend_nothing() -> None:
    """Kills within inferences and within records: the journal never lets the mission overspend."""
    costs = COSTS["reference"]
    world, calibration, plan, scans = missions.mission("bursty", 5, 4)
    budget_nj = costs.always_nj * missions.SCANS // 10
    kills = random.Random(5).sample(range(missions.SCANS), 200)
    flight = policies.Field(calibration, costs, plan, missions.SCANS, budget_nj, kills, 5).fly(
        scans, world.outcomes(scans)
    )
    assert flight.restarts >= 150
    assert 0.8 * budget_nj < flight.spent_nj <= budget_nj


def test_a_decision_costs_at_most_two_thousand_instructions() -> None:
    """On aarch64, in a mission of 48 hours, at the demo's costs and a budget of 10 %: nearly every scan climbs."""
    try:
        rows = decision_instructions(["counted"], [0.10])
    except HardwareUnavailable as e:
        pytest.skip(str(e))
    for row in rows:
        assert 0 < row["instructions"] <= 2000, row


# Budgets


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
