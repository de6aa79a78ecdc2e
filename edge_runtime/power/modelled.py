"""The meter of last resort: counted work times the profile's energy per instruction. Never a measurement.

    energy of a scan = (artifact + loop) instructions x energy per instruction + wake-ups x energy per wake-up

The artifact's instructions are counted under emulation when the bundle is built, for every rung. The loop's
are counted by `scripts/bench_loop`. What the kernel does for a scan is invisible to both and enters as
wake-ups. The board's idle power is not part of a scan's energy: it is the floor beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.power.base import Charge, Meter, Reading, Source
from edge_runtime.power.interval import UNKNOWN, Interval, exactly
from edge_runtime.verdict import Rung
from hw_profiles.schema import Board

RECTANGULAR = math.sqrt(3)
"""Half a range over this is the standard uncertainty of "somewhere in the range" (GUM, 4.3.7)."""

_MAX_NJ = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class LoopWork:
    """What the loop itself does for one scan, whatever the rung.

    instructions: user-space instructions, with `source` saying how they were counted.
    wakeups: how often the core leaves idle for one scan (a USB packet, a timer).
    """

    instructions: Interval
    wakeups: Interval
    source: str


def instruction_pj(board: Board) -> Interval:
    """Energy of one instruction at the board's rail, picojoules: fitted or published, else derived.

    Derived: power a busy core adds, over its clock and its instructions per cycle (mW / MHz = nJ a cycle).
    """
    if board.instruction_pj.range.known:
        return board.instruction_pj.range
    per_cycle_nj = board.busy_core_mw.range / board.clock_mhz.range
    return (per_cycle_nj / board.instructions_per_cycle.range).scaled(1e3)


def wake_uj(board: Board) -> Interval:
    """Energy of one wake-up from idle, microjoules (mW x us = nJ)."""
    return (board.wake_us.range * board.busy_core_mw.range).scaled(1e-3)


def source_of(board: Board) -> Source:
    """FITTED where the energy per instruction was fitted on such a board, else MODELLED."""
    return Source.FITTED if board.instruction_pj.basis == "fitted" else Source.MODELLED


@dataclass(frozen=True, slots=True)
class ScanEnergy:
    """One scan's energy at the rail by part, microjoules."""

    artifact_uj: Interval
    loop_uj: Interval
    kernel_uj: Interval

    @property
    def total_uj(self) -> Interval:
        """All of it."""
        return self.artifact_uj + self.loop_uj + self.kernel_uj


def scan_energy(board: Board, artifact_instructions: float, loop: LoopWork) -> ScanEnergy:
    """What one scan costs at the board's rail."""
    uj = instruction_pj(board).scaled(1e-6)
    return ScanEnergy(
        exactly(artifact_instructions) * uj, loop.instructions * uj, loop.wakeups * wake_uj(board)
    )


class ModelledMeter(Meter):
    """Counts scans by rung and multiplies when it is read.

    artifact_instructions: instructions of the artifact by rung, from the bundle's manifest for the target.
    clock_us: the monotonic clock. counts: scans so far by rung.

    On the hot path: `charge(rung)`, one addition and one look-up. Readings include the board's idle energy
    since the meter was opened, as a meter on the rail would.
    """

    name = "modelled"
    domain = "the whole board at its rail, from its profile and counted work; sees no hardware"

    def __init__(
        self,
        board: Board,
        artifact_instructions: Mapping[int, float],
        loop: LoopWork,
        clock_us: Callable[[], int],
    ) -> None:
        self.source = source_of(board)
        self._clock_us = clock_us
        self._opened_us = clock_us()
        self._rail_v = board.rail_v.range.middle
        self._idle_mw = board.idle_mw.range
        self._per_scan_uj = [
            scan_energy(board, artifact_instructions.get(rung, 0), loop).total_uj for rung in Rung
        ]
        self._charges = [_charge(uj, self.source, self._rail_v) for uj in self._per_scan_uj]
        self.counts = [0] * len(Rung)

    def charge(self, rung: int) -> Charge:
        """Count one scan answered at `rung`; its energy. A rung without an artifact costs the loop alone."""
        self.counts[rung] += 1
        return self._charges[rung]

    @property
    def scans_uj(self) -> Interval:
        """Energy of all scans counted so far, without idle."""
        total = exactly(0)
        for count, uj in zip(self.counts, self._per_scan_uj, strict=True):
            total = total + uj.scaled(count)
        return total

    @property
    def scans(self) -> int:
        """How many were counted."""
        return sum(self.counts)

    def read(self) -> Reading:
        """Idle power times time, plus the counted scans."""
        now = self._clock_us()
        joules = self._idle_mw.scaled((now - self._opened_us) * 1e-9) + self.scans_uj.scaled(1e-6)
        return Reading(joules.middle, joules.half_width, self._rail_v, now)


def _charge(uj: Interval, source: Source, rail_v: float) -> Charge:
    rail_mv = round(rail_v * 1e3)
    nj, sigma_nj = uj.middle * 1e3, uj.half_width * 1e3 / RECTANGULAR
    if not uj.known or nj > _MAX_NJ:
        return Charge(0, _MAX_NJ, int(Source.NONE), rail_mv)
    return Charge(round(nj), round(sigma_nj), int(source), rail_mv)


NO_LOOP = LoopWork(UNKNOWN, UNKNOWN, "not counted")
"""What to give where nobody has counted the loop: the unknown stays visible in every figure."""

LOOP_WORK = Path(__file__).with_name("loop_work.json")


def loop_work() -> LoopWork:
    """What this version's loop does for one scan, as `scripts/bench_loop --update` counted it on aarch64."""
    counted = json.loads(LOOP_WORK.read_text())
    return LoopWork(Interval(*counted["instructions"]), Interval(*counted["wakeups"]), counted["source"])
