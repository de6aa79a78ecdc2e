"""The duty as `run` carries it out: a real pseudo-terminal, signals on the air at random, the board's files.

EDGE_DUTY_SPEED sets how fast the mission goes (15 unless set, 1 for the field's own time), EDGE_DUTY_SIGNALS how many
signals come (45): a run in the field's own time takes 3.4 s a signal.
"""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import pytest

from edge_runtime import journal
from edge_runtime.bundle import Bundle
from edge_runtime.journal import Kind
from edge_runtime.planning import plan
from edge_runtime.recording import Recording, Row, Split
from edge_runtime.rig.mishaps import Mishaps
from edge_runtime.rig.playlist import Playlist
from edge_runtime.rig.rf_explorer import RFExplorerEmulator
from tests.conftest import ROOT, loop_command, powers, process
from tests.test_planning import parse
from tests.test_run_scanners import declaring

SPEED = float(os.environ.get("EDGE_DUTY_SPEED", "15"))
SIGNALS = int(os.environ.get("EDGE_DUTY_SIGNALS", "45"))
LIMIT = "2s:95%"
BUDGET = ("--budget", "1%", "--hours", 24)
SWEEP_S, SIGNAL_S = 0.2, 2.0


class FastRFExplorer(RFExplorerEmulator):
    """One whose bytes are as fast as its sweeps."""

    baud = round(500_000 * SPEED)


class OnTheAir(Playlist):
    """What is heard when a sweep ends: a signal that was there all the while, else nothing.

    Each signal is another row, so that a verdict names its signal by the CRC of its powers.
    """

    def __init__(self, recording: Recording, signals: int, seed: int = 1) -> None:
        super().__init__(recording)
        rng = random.Random(seed)
        quiet = recording.labels.index("nothing")
        test = [(n, row) for n, row in enumerate(recording.rows) if row.split is Split.TEST]
        self._quiet = [entry for entry in test if entry[1].label == quiet]
        at = 40 * SWEEP_S / SPEED + 1.5  # the loop starts, and times some sweeps
        self.signals: list[tuple[float, tuple[int, Row]]] = []
        for entry in rng.sample([entry for entry in test if entry[1].label != quiet], signals):
            at += rng.uniform(0.2, 2.5) / SPEED
            self.signals.append((at, entry))
            at += SIGNAL_S / SPEED
        self.ends = at
        self.swept: set[int] = set()

    def __iter__(self) -> Iterator[tuple[int, Row]]:
        begun, k = time.monotonic(), 0
        while (now := time.monotonic() - begun) < self.ends + 0.2:
            while k < len(self.signals) and now > self.signals[k][0] + SIGNAL_S / SPEED:
                k += 1
            if k < len(self.signals) and now - SWEEP_S / SPEED >= self.signals[k][0]:
                self.swept.add(k)
                yield self.signals[k][1]
            else:
                yield random.choice(self._quiet)


@contextmanager
def on_the_air(recording: Recording, signals: int) -> Iterator[tuple[OnTheAir, str, threading.Thread]]:
    """The rig with signals on the air; its port, and what plays until the last is over."""
    air = OnTheAir(recording, signals)
    emulator = FastRFExplorer(air, SPEED / SWEEP_S, Mishaps(""))
    playing = threading.Thread(target=emulator.run)
    try:
        yield air, str(emulator.port.path), playing
    finally:
        playing.join()
        emulator.port.close()


class Flown(NamedTuple):
    """Shares of the signals that a whole sweep met, and that were answered as something; the run's own account."""

    swept: float
    answered: float
    mission: dict[str, Any]


def fly(
    recording: Recording, bundle: Path, folder: Path, signals: int, limit: str, *options: object
) -> Flown:
    """A mission with so many signals of two seconds."""
    with on_the_air(recording, signals) as (air, port, playing):
        command = loop_command(bundle, port, folder, "--json", "--speed", SPEED, "--limit", limit, *options)
        with process(command) as loop:
            playing.start()
            playing.join()
            loop.terminate()
            out, err = loop.communicate(timeout=20)
            assert loop.returncode == 0, err
    nothing = recording.labels.index("nothing")
    frames = journal.read(folder / "journal")
    records = [journal.verdict_record(f.payload) for f in frames if f.kind == Kind.VERDICT]
    heard = {record.scan_crc32 for record in records if record.label != nothing}
    answered = sum(crc32(powers(row)) in heard for _, (_, row) in air.signals)
    return Flown(len(air.swept) / signals, answered / signals, json.loads(out)["mission"])


@pytest.fixture(scope="module")
def flown(
    demo_path: Path, demo_recording: Recording, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Flown, Path]:
    """The demo mission at its limit; where its log is."""
    folder = tmp_path_factory.mktemp("flown")
    return fly(demo_recording, demo_path, folder, SIGNALS, LIMIT, *BUDGET), folder


def test_two_second_signals_are_caught(flown: tuple[Flown, Path]) -> None:
    """The limit of 95 %, within what so many signals can tell, while the scanner mostly rests."""
    swept, answered, mission = flown[0]
    print(f"\nof {SIGNALS} swept {swept:.3f}, answered {answered:.3f}; {mission}")
    assert swept >= 0.95 - 2 * math.sqrt(0.95 * 0.05 / SIGNALS)
    assert answered >= swept - 0.05
    assert mission["rested_s"] > 0.5 * mission["elapsed_s"]
    assert 1.0 < mission["duty"]["period_s"] < 1.9  # a machine that is late rests less


def test_a_looser_limit_misses(demo_path: Path, demo_recording: Recording, tmp_path: Path) -> None:
    """Rests twice as long: what the test above would look like if the limit were not kept."""
    flown = fly(demo_recording, demo_path, tmp_path, 24, "4s:95%")
    assert 0.2 < flown.swept < 0.8


class SlowRFExplorer(RFExplorerEmulator):
    """One that takes 70 ms for 256 points, and as much less for fewer."""

    def _set_points(self, points: int) -> None:
        super()._set_points(points)
        self._period = 0.07 * self._axis.points / 256


@pytest.mark.parametrize(("mode", "points"), [("peak", 129), ("forbid", 256)])
def test_fewer_points_where_the_limit_needs_them(
    mode: str, points: int, demo_bundle: Bundle, demo_recording: Recording, tmp_path: Path
) -> None:
    """Sweeps too slow for the limit: half as many points where the contract resamples, else no rest and a word."""
    bundle = declaring(demo_bundle, mode, tmp_path / "a.edge")
    emulator = SlowRFExplorer(Playlist(demo_recording, loop=True), 1 / 0.07, Mishaps(""))
    stopping = threading.Event()
    emulator._stopped = stopping.is_set
    playing = threading.Thread(target=emulator.run)
    playing.start()
    try:
        command = loop_command(
            bundle, str(emulator.port.path), tmp_path, "--limit", "110ms:90%", "--scans", 32, "--json"
        )
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=True)
    finally:
        stopping.set()
        playing.join()
        emulator.port.close()
    said = [
        json.loads(f.payload)["detail"]
        for f in journal.read(tmp_path / "journal")
        if f.kind == Kind.EVENT and b'"DUTY"' in f.payload
    ]
    mission = json.loads(done.stdout)["mission"]
    assert emulator._axis.points <= points, said  # a machine that is late asks for a quarter
    if mode == "forbid":
        assert "sweeping without a pause" in said[0]
        assert mission["rested_s"] == 0
    else:
        assert "asked for 129 points" in said[0]
        assert mission["rested_s"] > 0
    assert json.loads(done.stdout)["refused"].keys() <= {"STALE"}


def test_plan_and_run_agree(demo_path: Path, flown: tuple[Flown, Path]) -> None:
    """What `plan` says a mission takes by part, with the run's own options, is what the run accounts: to a quarter.

    A busy machine, 15 times as fast as the field, is late by as much; EDGE_DUTY_SPEED=3 shows the rest. On the order
    of scans in the run's own log, at the sweep that it timed. The run turned no switch of the board, the plan turns
    them all: their idle powers are the profile's.
    """
    (_, _, mission), folder = flown
    hours = mission["elapsed_s"] / 3600
    words = ("--bundle", demo_path, "--limit", LIMIT, "--rate", 1 / mission["duty"]["sweep_s"], *BUDGET)
    planned = plan.plan(parse(plan, *words, "--log", folder / "journal"))["ways"][0]["parts_mw"]
    assert set(mission["spent_j"]) == set(planned)
    assert planned.pop("board idle") == [300, 375]
    planned["board idle"] = [540, 700]
    predicted_j = {part: [mw * 3.6 * hours for mw in ends] for part, ends in planned.items()}
    off = {
        part: sum(joules) / sum(predicted_j[part]) - 1
        for part, joules in mission["spent_j"].items()
        if any(
            predicted_j[part]
        )  # by chance no scan of the log was worth the network: then none of its energy
    }
    print("\n" + ", ".join(f"{part} {100 * by:+.1f} %" for part, by in off.items()))
    for part, joules in mission["spent_j"].items():
        assert joules == pytest.approx(predicted_j[part], rel=0.25), part
