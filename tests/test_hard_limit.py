"""The hard limit of the whole stack in the loop: whatever is heard, whenever it stops, however the battery stands.

The demo's artifact runs for real; every call of it is paid for at its declared cost, by the journal's own records.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime import journal
from edge_runtime.bundle import Bundle
from edge_runtime.engines.compiled import CompiledEngine
from edge_runtime.governor import Budget, Costs, Past
from edge_runtime.governor.engine import GovernedEngine, governed
from edge_runtime.governor.forecast import SLOTS
from edge_runtime.governor.ledger import Entry
from edge_runtime.journal import JournalWriter, Kind
from edge_runtime.planning.work import calibration
from edge_runtime.reasons import Reason
from edge_runtime.recording import Recording
from edge_runtime.saving import StepDown
from edge_runtime.verdict import Answer, Rung, Verdict
from tests.conftest import powers

DURATION_US = 3_600_000_000


class Killed(Exception):
    """The process ends here."""


class Counting(CompiledEngine):
    """The artifact, with what its calls cost added up as its manifest would."""

    costs = Costs(0, 0, 0)
    spent_nj = 0

    def screen(self, power_cdbm: bytes) -> Verdict:
        Counting.spent_nj += self.costs.screen_nj
        return super().screen(power_cdbm)

    def infer(self, power_cdbm: bytes) -> Answer:
        answer = super().infer(power_cdbm)
        climbed = answer[3] in (Rung.TREES, Rung.NETWORK)
        Counting.spent_nj += self.costs.screen_nj + self.costs.trees_nj * climbed
        return answer


class Device:
    """Processes that come and go over one journal. torn: the next record is cut short by a kill.

    plan: the histograms by slot of the spending plan's missions.
    """

    def __init__(
        self, bundle: Bundle, folder: Path, budget: Budget, costs: Costs, plan: Sequence[list[list[int]]] = ()
    ) -> None:
        self.pasts = [Past(slots) for slots in plan]
        self.bundle, self.folder, self.budget, self.costs = bundle, folder, budget, costs
        self.now_us = 0
        self.torn = False
        self.engine: StepDown
        self.start()

    def start(self) -> None:
        """A new process: reads what the journal holds, and writes on."""
        self.torn = False
        payloads = self.accounts()
        writer = JournalWriter(self.folder)

        def record(payload: bytes) -> None:
            if self.torn:
                self.torn = False
                raise Killed
            writer.append(Kind.BUDGET, payload)

        plain, began_us = Counting.of(self.bundle), self.now_us
        under, self.ledger = governed(
            plain,
            self.budget,
            calibration(self.bundle.manifest),
            self.costs,
            scan_us=100_000,
            clock_us=lambda: self.now_us - began_us,
            unix_us=lambda: self.now_us,
            record=record,
            recorded=payloads,
            pasts=self.pasts,
        )
        self.governed: GovernedEngine = under
        self.engine = StepDown(plain, under, plain)

    def accounts(self) -> list[bytes]:
        """The account's records, oldest first."""
        if not journal.segments(self.folder):
            return []
        return [f.payload for f in journal.read(self.folder) if f.kind == Kind.BUDGET]


scan = st.tuples(st.just("scan"), st.integers(0, 10_000), st.integers(1, 60))
rest = st.tuples(st.just("rest"), st.integers(0, DURATION_US // 50), st.just(0))
step = st.tuples(st.just("step"), st.sampled_from([0, 1, 2, 3]), st.just(0))
pace = st.tuples(st.just("pace"), st.integers(1_000, 10**9), st.just(0))
kill = st.tuples(st.sampled_from(["kill", "tear", "end"]), st.just(0), st.just(0))


def test_never_overspent_by_the_stack(demo_bundle: Bundle, demo_recording: Recording) -> None:
    """Budgets of so many climbs, any plan; scans, pauses, a battery's steps both ways, other rates, kills, torn
    records."""
    bins = len(calibration(demo_bundle.manifest).trees_seen)
    slot = st.lists(st.one_of(st.just(0), st.integers(0, 0xFFFF)), min_size=bins, max_size=bins)
    plans = st.lists(st.lists(slot, min_size=SLOTS, max_size=SLOTS), max_size=3)

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(
        declared=st.tuples(st.integers(0, 10**6), st.integers(1, 10**7)),
        climbs=st.integers(0, 30),
        plan=plans,
        events=st.lists(st.one_of(scan, scan, scan, rest, step, pace, kill, kill), min_size=20, max_size=60),
    )
    def never(
        declared: tuple[int, int],
        climbs: int,
        plan: list[list[list[int]]],
        events: list[tuple[str, int, int]],
    ) -> None:
        costs = Costs(*declared, 0)
        budget = Budget(climbs * sum(declared), DURATION_US, 1, "test")
        with tempfile.TemporaryDirectory(prefix="edge-limit-") as folder:
            fly(Device(demo_bundle, Path(folder), budget, costs, plan), demo_recording, events)

    never()


def fly(device: Device, recording: Recording, events: list[tuple[str, int, int]]) -> None:
    """All events in order; at no moment is more spent than the budget, nor than the journal says at the end."""
    Counting.costs, Counting.spent_nj = device.costs, 0
    for what, at, count in events:
        try:
            carry_out(device, recording, what, at, count)
        except Killed:
            device.start()
        assert Counting.spent_nj <= device.budget.energy_nj
    ceilings = [Entry.unpack(p).ceiling_nj for p in device.accounts()]
    assert Counting.spent_nj <= max(ceilings, default=0) <= device.budget.energy_nj


def carry_out(device: Device, recording: Recording, what: str, at: int, count: int) -> None:
    """One event; Killed where the process does not survive it."""
    if what == "scan":
        for n in range(count):
            device.now_us += 100_000
            device.engine.infer(powers(recording.rows[(at + 7 * n) % len(recording.rows)]))
    elif what == "rest":
        device.now_us = min(device.now_us + at, DURATION_US - 10**7)
    elif what == "step":
        device.engine.limit(Rung(at))
    elif what == "pace":
        device.governed.governor.expect(at)
    elif what == "tear":
        device.torn = True
    elif what == "end":
        device.ledger.close()
        raise Killed
    else:
        raise Killed


def test_the_steps_of_a_low_battery(demo_bundle: Bundle, demo_recording: Recording) -> None:
    """With and without a budget: at once, and back; nothing runs beyond the step, and the reason is the battery's.

    Under a budget what climbs was screened before, and the artifact screens it again.
    """
    folder = Path(tempfile.mkdtemp(prefix="edge-limit-"))
    Counting.costs, sweeps = Costs(1, 100, 0), [powers(row) for row in demo_recording.rows[:60]]
    plain = Counting.of(demo_bundle)
    try:
        device = Device(demo_bundle, folder, Budget(10**12, DURATION_US, 1, "test"), Counting.costs)
        for engine in (device.engine, StepDown(plain, None, None)):
            for rung, most_nj in ((Rung.SCREEN, 1), (Rung.NONE, 0), (Rung.TREES, 102), (Rung.NETWORK, 102)):
                engine.limit(rung)
                for sweep in sweeps:
                    Counting.spent_nj = 0
                    answer = engine.infer(sweep)
                    assert Counting.spent_nj <= most_nj
                    if rung > Rung.SCREEN:
                        assert answer == plain.infer(sweep)
                    elif answer[3] != Rung.SCREEN:
                        assert Verdict._make(answer).reason == Reason.LOW_BATTERY
    finally:
        shutil.rmtree(folder)
