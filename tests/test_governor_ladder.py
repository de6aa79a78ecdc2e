"""The ladder: its chances are what was counted, its tables follow the price; what was learnt is carried on."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.governor import Calibration, Costs, Governor, Ladder, Ledger, Past, Trial
from edge_runtime.governor.forecast import SLOTS, Forecast, mean
from edge_runtime.governor.history import History
from edge_runtime.governor.ladder import LEVELS, ONE, monotone
from edge_runtime.governor.memory import Memory
from edge_runtime.governor.policy import BLOCK
from edge_runtime.journal import JournalWriter, Kind
from edge_runtime.verdict import Rung
from tests.governor_parts import DURATION_US, small_governor, trials


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


# What a bundle and a journal carry

ROWS = st.tuples(st.integers(0, 255), st.integers(0, 255), st.booleans(), st.none() | st.booleans())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(ROWS, min_size=64, max_size=300))
def test_counts_survive_the_manifest(rows: list[tuple[int, int, bool, bool | None]]) -> None:
    """As JSON holds them, and as a yes or no: no trial is lost, none moves across the line."""
    counted = Calibration.count([Trial(*row) for row in rows], ask=128)
    assert Calibration.from_dict(counted.to_dict()) == counted
    assert counted.score_bin[127] != counted.score_bin[128]
    plain = counted.yes_or_no(128)
    assert plain.trees_seen == [sum(r[0] >= 128 for r in rows), sum(r[0] < 128 for r in rows)]
    assert plain.trees_changed == [
        sum(r[2] for r in rows if r[0] >= 128),
        sum(r[2] for r in rows if r[0] < 128),
    ]
    assert sum(map(sum, plain.joint)) == len(rows)
    assert sum(plain.network_seen) == sum(r[3] is not None for r in rows)


class Mission:
    """A thousand scans of a mission, a process at a time; what each remembers goes to the journal."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now_us = 0

    def process(self) -> Governor:
        """A new process over the same journal."""
        writer = JournalWriter(self.directory)
        ledger = Ledger(10**9, DURATION_US, lambda _p: None, lambda: self.now_us, worst_nj=5000)
        return Governor(
            Ladder(Calibration.count(trials()), Costs(10, 1000, 0)),
            ledger,
            [],
            duration_us=DURATION_US,
            scan_us=10**5,
            clock_us=lambda: self.now_us,
            memory=History.read(self.directory).learnt,
            remember=lambda payload: writer.append(Kind.LEARNT, payload),
        )

    def fly(self, governor: Governor, scans: int) -> None:
        """Every scan is loud, and the trees never change a thing."""
        for _ in range(scans):
            self.now_us += 10**5
            if governor.dense or governor.wants_screen():
                governor.note(255)
                governor.bar()
                governor.learn(255, 128, False, None)


def test_a_restart_goes_on_with_what_was_learnt(tmp_path: Path) -> None:
    """Killed twice, the ladder knows what it knew, the next process learns on, and the price does not start anew."""
    mission = Mission(tmp_path)
    first = mission.process()
    seen = sum(first.ladder.calibration.trees_seen)
    before = first.ladder.worth[-1][0]
    mission.fly(first, 3000)
    learnt = sum(first.ladder.calibration.trees_seen) - seen
    assert learnt >= 1000
    second = mission.process()
    kept = sum(second.ladder.calibration.trees_seen) - seen
    assert learnt - 512 <= kept <= learnt
    assert second.ladder.worth[-1][0] < before // 2
    assert abs(second.level - first.level) < 1
    mission.fly(second, 3000)
    third = mission.process()
    assert sum(third.ladder.calibration.trees_seen) - seen > kept


def test_a_foreign_memory_is_no_memory() -> None:
    """Of another version, bundle, or cut short: it is not believed, and it breaks nothing.

    Of another mission or plan: what the ladder learnt is kept, and the forecast begins anew.
    """
    calibration = Calibration.count(trials())
    forecast = Forecast(Ladder(calibration, Costs(1, 1000, 0)), [])
    c = calibration
    known = Memory(c.trees_seen, c.trees_changed, c.network_seen, c.network_changed, *forecast.state)
    payload = known.pack(calibration, 7)
    assert Memory.unpack(payload, calibration, 2, 7) == known
    other = Calibration.count(trials(seed=9))
    foreign = [payload[:-1], b"\x01" + payload[1:], b"", payload + b"\0"]
    assert [Memory.unpack(p, calibration, 2, 7) for p in foreign] == [None] * 4
    assert Memory.unpack(payload, other, 2, 7) is None
    for experts, mark in ((3, 7), (2, 8)):
        kept = Memory.unpack(payload, calibration, experts, mark)
        assert kept == known._replace(so_far=[], lately=[], weights=[])


# The forecast


def test_the_price_is_the_mean_over_what_may_come() -> None:
    """Two pasts, one busy later and one not: the level is between theirs, nearer to the dearer one's."""
    ladder = Ladder(Calibration.count(trials()), Costs(1, 1000, 3000))
    bins = ladder.bins
    calm, busy = [0] * (bins - 1) + [100], [100] * bins
    pasts = [Past([calm] * SLOTS), Past([calm] * (SLOTS // 2) + [busy] * (SLOTS // 2))]
    levels = []
    for chosen in ([pasts[0]], [pasts[1]], pasts):
        forecast = Forecast(ladder, chosen)
        scenarios = forecast.scenarios([0] * bins, 256)
        assert sum(mean(scenarios)) == pytest.approx(1 << 13, abs=bins)
        levels.append(forecast.level_256([s for s in scenarios if s.expert < len(chosen)], 6_000_000))
    assert levels[1] < levels[2] < levels[0]
    assert levels[2] - levels[1] < levels[0] - levels[2]
