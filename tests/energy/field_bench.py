"""A whole device on a virtual clock: decoder, loop, journal and INA219 are the real ones, the board's energies known.

What the board takes for each thing it does is spent as current behind the emulated chip's shunt, while it does it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import hw_profiles
from edge_runtime.journal import JournalWriter
from edge_runtime.loop import Loop
from edge_runtime.power.calibration import Calibration
from edge_runtime.power.field import FieldMeter
from edge_runtime.power.ina219 import Ina219
from edge_runtime.power.interval import exactly
from edge_runtime.power.modelled import LoopWork, ModelledMeter
from edge_runtime.power.shunt import ShuntMeter
from edge_runtime.reasons import Reason
from edge_runtime.rig import ina
from edge_runtime.rig.i2c_bus import EmulatedBus
from edge_runtime.rig.load import SwitchedLoad, VirtualClock
from edge_runtime.scan import Scan
from edge_runtime.scanners.rf_explorer import RFExplorer
from edge_runtime.verdict import Answer, Rung
from tests.energy.device_work import AXIS, CONFIGURATION, SWEEP

IDLE_A, BURST_A, VOLTS = 0.12, 0.25, 5.0
TRUTH_J = {
    "screen": 1.2e-3,
    "trees": 3e-3,
    "network": 40e-3,
    "serial": 2e-3,
    "journal": 12e-3,
    "sync": 60e-3,
}
NOISE = b"\x00" * 262
"""As long as a sweep, and none: a scanner on a bad cable."""


@dataclass
class Way:
    """How a mission goes: seconds between sweeps, how often they are damaged, and whether its rates ever change."""

    every_s: tuple[float, float] = (0.1, 0.5)
    damaged: float = 0.6
    novel: float = 0.5
    syncs: float = 0.1
    drift_w: float = 0.02
    other_w: float = 0.05


@dataclass
class Board:
    """The device of one mission. spent_j: what its work really took."""

    folder: Path
    seed: int
    way: Way = field(default_factory=Way)
    spent_j: float = 0.0

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.clock = VirtualClock()
        self.load = SwitchedLoad(0.0, IDLE_A, VOLTS)
        self._idle_a, self._at_s, self._meter_due_s = IDLE_A, 0.0, 0.0
        chip = ina.Ina219(self.load, lambda: self.clock.seconds)
        driver = Ina219(EmulatedBus({0x40: chip}, self.clock.sleep), Calibration(0.1))
        timing: dict[str, Any] = {"clock_us": self.clock.us, "sleep": self.clock.sleep, "seed": self.seed}
        self.meter = ShuntMeter(driver, Calibration(0.1), name="ina219", domain="the board", **timing)
        modelled = ModelledMeter(
            hw_profiles.board("zero2w"), {}, LoopWork(exactly(40_000), exactly(2), "-"), self.clock.us
        )
        self.field = FieldMeter(self.meter, modelled, self.clock.us)
        self.journal = JournalWriter(self.folder)
        self.field.watch(self.journal)
        self.charged: list[tuple[int, int]] = []

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with the meter's thread waking in it whenever it wants to, whatever the board does.

        The board keeps its own time: what a step of the meter takes does not put off the board's work.
        """
        self._at_s += seconds
        while self._meter_due_s <= self._at_s:
            self.clock.sleep(self._meter_due_s - self.clock.seconds)
            wait_s = self.meter.step()
            self._meter_due_s = self.clock.seconds + wait_s
        self.clock.sleep(self._at_s - self.clock.seconds)

    def spend(self, joules: float) -> None:
        """Work: more current for as long as it takes."""
        self.spent_j += joules
        takes_s = joules / VOLTS / BURST_A
        self.load.switch(self._at_s, self._idle_a + BURST_A)
        self.load.switch(self._at_s + takes_s, self._idle_a)
        self.pass_time(takes_s)

    def infer(self, _power_cdbm: bytes) -> Answer:
        """An engine whose answers take known energy."""
        rung = (Rung.SCREEN, Rung.TREES, Rung.NETWORK)[int(self.rng.choice(3, p=self.mix))]
        for stage in ("screen", "trees", "network")[:rung]:
            self.spend(TRUTH_J[stage])
        novel = self.rng.random() < self.novel
        return (-1 if novel else 0), 0, int(Reason.NOVEL if novel else Reason.OK), rung, 60_000, 10, 1.0

    def _phase(self) -> int:
        """Another stretch of the mission: busier or quieter, a warmer board, another program."""
        way, rng = self.way, self.rng
        busy = rng.uniform(0, 1)
        self.mix = [1 - 0.7 * busy, 0.6 * busy, 0.1 * busy]
        self.every_s, self.bad = rng.uniform(*way.every_s), rng.uniform(0, way.damaged)
        self.novel = rng.uniform(0, way.novel)
        warm = way.drift_w * np.sin(self.clock.seconds / 200) / VOLTS
        if rng.random() < 0.02:
            self._other = way.other_w / VOLTS - getattr(self, "_other", 0.0)
        self._idle_a = IDLE_A + float(warm) + getattr(self, "_other", 0.0)
        return int(rng.integers(1, 40))

    def scans(self, minutes: float) -> Iterator[Any]:
        """What the scanner sends, decoded; with the energy that receiving and recording it take."""
        decoder = RFExplorer()
        decoder.feed(CONFIGURATION, 0)
        written, syncs = self.journal.written, self.journal.syncs
        while self.clock.seconds < minutes * 60:
            for _ in range(self._phase()):
                data = NOISE if self.rng.random() < self.bad else SWEEP
                self.field.heard(len(data))
                self.spend(TRUTH_J["serial"] * len(data) * 1e-3)
                yield from (e for e in decoder.feed(data, self.clock.us()) if type(e) is Scan)
                if self.rng.random() < self.way.syncs * self.every_s:
                    self.journal.sync()
                self.spend(TRUTH_J["journal"] * (self.journal.written - written) * 1e-3)
                self.spend(TRUTH_J["sync"] * (self.journal.syncs - syncs))
                written, syncs = self.journal.written, self.journal.syncs
                self.pass_time(self.every_s)

    def run(self, minutes: float) -> dict[str, Any]:
        """The mission; the field meter's summary."""
        contract = {"axis_tolerance_hz": 500, "max_age_ms": 1000}
        bundle: Any = SimpleNamespace(classes=("a", "b"), manifest={"contract": contract}, axis=AXIS)

        def charge(rung: int) -> Any:
            found = self.field.charge(rung)
            self.charged.append((found.source, found.energy_nj))
            return found

        engine: Any = SimpleNamespace(infer=self.infer)
        meter: Any = SimpleNamespace(charge=charge)
        Loop(bundle, engine, meter, self.journal, self.clock.us, None).run(self.scans(minutes))
        summary = self.field.finish()
        self.journal.close()
        return summary
