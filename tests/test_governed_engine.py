"""The demo's artifact under a budget: real code, recorded sweeps, a journal on disk, time made fast."""

from __future__ import annotations

import struct
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from edge_runtime import journal
from edge_runtime.bundle import Bundle
from edge_runtime.engines.compiled import CompiledEngine
from edge_runtime.governor import Budget, Costs, Entry
from edge_runtime.governor.engine import GovernedEngine, governed
from edge_runtime.governor.history import History
from edge_runtime.governor.ledger import Ledger
from edge_runtime.journal import JournalWriter, Kind
from edge_runtime.planning.work import scored
from edge_runtime.reasons import Reason
from edge_runtime.recording import Recording
from edge_runtime.verdict import UNKNOWN, Rung

COSTS = Costs(1_000, 10_000, 0)
SCAN_US = 200_000


def sweeps(recording: Recording, count: int) -> list[bytes]:
    """Recorded sweeps as the scanner's decoder gives them."""
    rows = [recording.rows[(7 * n) % len(recording.rows)] for n in range(count)]
    return [struct.pack(f"<{len(row.codes)}h", *(-50 * code for code in row.codes)) for row in rows]


class Field:
    """A device in the field: its clock, its journal, the artifact; processes come and go."""

    def __init__(self, bundle: Bundle, directory: Path, budget: Budget) -> None:
        self.bundle, self.directory, self.budget = bundle, directory, budget
        self.now_us = 0

    def start(self) -> tuple[GovernedEngine, Ledger, JournalWriter]:
        """A new process: the journal is read, then continued."""
        payloads = []
        if journal.segments(self.directory):
            payloads = [f.payload for f in journal.read(self.directory) if f.kind == Kind.BUDGET]
        writer = JournalWriter(self.directory)

        def record(payload: bytes) -> None:
            writer.append(Kind.BUDGET, payload)
            writer.sync()

        began_us = self.now_us
        engine, ledger = governed(
            CompiledEngine.of(self.bundle),
            self.budget,
            scored(self.bundle.manifest),
            COSTS,
            scan_us=SCAN_US,
            clock_us=lambda: self.now_us - began_us,  # a process's own clock
            unix_us=lambda: self.now_us,
            record=record,
            recorded=payloads,
            memory=History.read(self.directory).learnt,
            remember=partial(writer.append, Kind.LEARNT),
        )
        return engine, ledger, writer


def test_ample_budgets_change_no_answer(
    demo_bundle: Bundle, demo_recording: Recording, tmp_path: Path
) -> None:
    """Where the budget covers everything, each verdict is the plain engine's, to the bit."""
    plain = CompiledEngine.of(demo_bundle)
    budget = Budget(10**12, 1000 * SCAN_US, 1, "test")
    field = Field(demo_bundle, tmp_path / "j", budget)
    engine, ledger, writer = field.start()
    for sweep in sweeps(demo_recording, 600):
        field.now_us += SCAN_US
        assert engine.infer(sweep) == plain.infer(sweep)
    ledger.close()
    writer.close()


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_a_budget_is_kept_through_kills(
    share: float, demo_bundle: Bundle, demo_recording: Recording, tmp_path: Path
) -> None:
    """Two thousand sweeps, a kill every hundred, two hours of mission in a second: the rungs run are paid for."""
    plain, heard = CompiledEngine.of(demo_bundle), sweeps(demo_recording, 2000)
    budget = Budget(int(share * len(heard) * sum(COSTS)), len(heard) * SCAN_US, 1, "test")
    field, spent_nj, rungs = Field(demo_bundle, tmp_path / "j", budget), 0, Counter[int]()
    engine, _, _ = field.start()
    for n, sweep in enumerate(heard):
        if n % 100 == 99:
            engine, _, _ = field.start()  # the old one is gone with what it knew
        field.now_us += SCAN_US
        verdict = engine.infer(sweep)
        rungs[verdict.rung] += 1
        if verdict.rung == Rung.TREES:
            assert verdict == plain.infer_unscreened(sweep)
            spent_nj += COSTS.screen_nj * 2 + COSTS.trees_nj
        elif verdict.rung == Rung.SCREEN:
            assert verdict == plain.infer(sweep)
            spent_nj += COSTS.screen_nj
        else:
            assert verdict.reason == Reason.OVER_BUDGET
    assert spent_nj <= budget.energy_nj
    assert rungs[Rung.TREES] > 0
    assert rungs[Rung.NONE] > 0
    assert journal.verify(tmp_path / "j").damage == []
    known = engine.governor.ladder.calibration
    assert sum(known.trees_seen) > sum(
        scored(demo_bundle.manifest).trees_seen
    )  # the twenty processes' lessons
    ceilings = [
        Entry.unpack(f.payload).ceiling_nj for f in journal.read(tmp_path / "j") if f.kind == Kind.BUDGET
    ]
    assert max(ceilings) <= budget.energy_nj
    assert spent_nj <= ceilings[-1]


def test_probes_ask_the_trees_past_the_screen(
    demo_bundle: Bundle, demo_recording: Recording, tmp_path: Path
) -> None:
    """Where every scan is a probe: the trees run and are paid for; what they find counts, else the screen's word."""
    plain, heard = CompiledEngine.of(demo_bundle), sweeps(demo_recording, 300)
    budget = Budget(300 * sum(COSTS), 10**5 * SCAN_US, 1, "test")
    engine, ledger, writer = Field(demo_bundle, tmp_path / "j", budget).start()
    engine.governor.bar, engine.governor.pays_trees = lambda: 0, lambda: ledger.pay(1)
    engine.governor.ample = False
    asked = looked = 0
    for sweep in heard:
        before_nj = ledger.spent_nj
        engine.governor.dense, engine.governor.ample = True, False
        verdict, past = engine.infer(sweep), plain.infer_unscreened(sweep)
        asked += ledger.spent_nj - before_nj
        screened = plain.screen(sweep)
        if screened.rung == Rung.SCREEN:
            looked += 1
            found = past[0] not in (UNKNOWN, screened.label)
            assert verdict == (past if found else screened)
        else:
            assert verdict == past
    assert asked == len(heard)
    assert looked > 10
    writer.close()


def test_a_mission_that_is_over_begins_anew(demo_bundle: Bundle, tmp_path: Path) -> None:
    """Within its time a restart continues the account; after it the same words are a new mission."""
    field = Field(demo_bundle, tmp_path / "j", Budget(10**9, 1000 * SCAN_US, 1, "test"))
    _, ledger, _ = field.start()
    assert ledger.pay(10_000)
    spent_nj = ledger.ceiling_nj
    field.now_us += 500 * SCAN_US
    assert field.start()[1].ceiling_nj >= spent_nj
    field.now_us += 501 * SCAN_US
    assert field.start()[1].spent_nj < spent_nj + 10**7
    payloads = [f.payload for f in journal.read(tmp_path / "j") if f.kind == Kind.BUDGET]
    assert Entry.unpack(payloads[-1]).elapsed_us == 0


def test_broken_scans_are_refused_by_their_own_reason(
    demo_bundle: Bundle, demo_recording: Recording, tmp_path: Path
) -> None:
    """A scan of another length is no matter of the budget."""
    field = Field(demo_bundle, tmp_path / "j", Budget(2_000_000, 1000 * SCAN_US, 1, "test"))
    engine, _, _ = field.start()
    assert engine.infer(sweeps(demo_recording, 1)[0][:-2]).reason == Reason.POINTS
