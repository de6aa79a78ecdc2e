"""Work of the device that the energy gate counts, imported in the emulated machine. Standard library only."""

from __future__ import annotations

import os
import tty
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hw_profiles
from edge_runtime.duty import Duty
from edge_runtime.journal import JournalWriter
from edge_runtime.loop import Loop
from edge_runtime.mission_clock import MissionClock
from edge_runtime.pacing import Paced, Pacer
from edge_runtime.port import Port
from edge_runtime.power import base
from edge_runtime.power.calibration import Calibration
from edge_runtime.power.clock import monotonic_us
from edge_runtime.power.field import FieldMeter
from edge_runtime.power.interval import exactly
from edge_runtime.power.modelled import LoopWork, ModelledMeter
from edge_runtime.scan import Axis, Scan
from edge_runtime.scanners.rf_explorer import RFExplorer
from edge_runtime.source import Source
from edge_runtime.verdict import Rung, Verdict

AXIS = Axis(433_000_000, 1000, 256)
CONFIGURATION = b"#C2-F:0433000,0001000,0000,-120,0256,0,000,0000000,0000000,0000255,00050,0000,000\r\n"
SWEEP = b"$s\x10" + bytes(range(40, 296 - 40)) + bytes(40) + b"\r\n"
NO_BUS = Calibration(0.1)


def make_decoder() -> list[Any]:
    """An RF Explorer's decoder in its steady state."""
    decoder = RFExplorer()
    decoder.feed(CONFIGURATION, 0)
    assert type(decoder.feed(SWEEP, 1)[0]) is Scan
    return [decoder]


def decode(decoder: RFExplorer) -> None:
    """One sweep, arriving whole."""
    decoder.feed(SWEEP, 2)


class Counting:
    """An engine that counts what it is asked; the answer costs next to nothing."""

    inferences = 0
    verdict = Verdict(0, 0, 0, Rung.TREES, 60_000, 10, 1.0)

    def infer(self, _power_cdbm: bytes) -> Verdict:
        self.inferences += 1
        return self.verdict


def make_loop(folder: str) -> list[Any]:
    """The device loop around that engine, with its journal and the modelled meter."""
    contract = {"axis_tolerance_hz": 500, "max_age_ms": 1000}
    bundle: Any = SimpleNamespace(classes=("a", "b"), manifest={"contract": contract}, axis=AXIS)
    meter = ModelledMeter(
        hw_profiles.board("zero2w"), {Rung.TREES: 9000}, LoopWork(exactly(1), exactly(1), "-"), lambda: 0
    )
    engine = Counting()
    journal = JournalWriter(Path(folder, "journal"))
    return [Loop(bundle, engine, meter, journal, lambda: 5_000_000, None), engine]


def answer(loop: Loop, engine: Counting) -> dict[str, int]:
    """One fresh scan, answered and journaled."""
    engine.inferences = 0
    loop.run([Scan(bytes(512), AXIS, 4_999_000)])
    return {"inferences": engine.inferences}


def refuse(loop: Loop, engine: Counting) -> dict[str, int]:
    """One scan that is too old to be worth an inference."""
    engine.inferences = 0
    loop.run([Scan(bytes(512), AXIS, 1_000)])
    return {"inferences": engine.inferences}


class Still(base.Meter):
    """A meter that costs nothing to read: only what the field's meter does itself is counted."""

    name, source, domain = "still", base.Source.MEASURED, ""

    def read(self) -> base.Reading:
        return base.Reading(1.0, 0.1, 5.0, 5_000_000)


def make_field() -> list[Any]:
    """The field's meter in the middle of a window."""
    board = hw_profiles.board("zero2w")
    modelled = ModelledMeter(board, {Rung.TREES: 9000}, LoopWork(exactly(1), exactly(1), "-"), lambda: 0)
    return [FieldMeter(Still(), modelled, lambda: 5_000_000)]


def measure(field: FieldMeter) -> None:
    """One scan: its bytes, and its charge."""
    field.heard(261)
    field.charge(2)


def make_port() -> list[Any]:
    """A port on a pseudo-terminal with nothing to say, and the terminal, so that it stays open."""
    master, slave = os.openpty()
    tty.setraw(master)
    return [Port(os.ttyname(slave), 500_000, -1), master, slave]


def wait(port: Port, _master: int, _slave: int) -> None:
    """Twenty milliseconds of silence."""
    port.receive(20)


def make_scanner() -> list[Any]:
    """A source on a pseudo-terminal, a pacer that has timed its sweeps, and the terminal's other end."""
    master, slave = os.openpty()
    tty.setraw(master)
    os.set_blocking(master, False)
    source = Source(os.ttyname(slave), RFExplorer(AXIS), monotonic_us)
    duty = Duty(0.2, 0.23, 0.95, 0.9, exactly(1), exactly(1), False, ())
    pacer = Pacer(lambda _: duty)
    for _ in range(8):
        pacer.time(200_000)
    return [source, MissionClock(monotonic_us), pacer, master, slave]


def rest(source: Source, clock: MissionClock, pacer: Pacer, master: int, _slave: int) -> None:
    """Two scans with a rest of thirty milliseconds after each: the scanner is held and goes on."""
    scans = (Scan(bytes(512), AXIS, clock.us()) for _ in range(2))
    for _ in Paced(scans, source.rest, clock, pacer):
        pass
    os.read(master, 4096)
