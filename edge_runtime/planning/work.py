"""Energy of a scan by part, and what the ladder's rungs cost, from a bundle and a board's profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from edge_runtime.bundle import Bundle, Manifest
from edge_runtime.engines.compiled import SCORE_ASK
from edge_runtime.errors import BadInput
from edge_runtime.governor.ladder import Calibration, Costs, Trial
from edge_runtime.power.interval import Interval, exactly
from edge_runtime.power.modelled import LoopWork, instruction_pj, wake_uj
from hw_profiles.schema import Board

PORT_INSTRUCTIONS = 2_000.0
JOURNAL_INSTRUCTIONS = 4_000.0
"""Of the loop's instructions, what reads a frame and what writes a record (DESIGN.md, figures to beat)."""


REST_INSTRUCTIONS = 48_000.0
"""Of a rest between two sweeps: to hold the scanner, wait, and have it go on (tests/energy, test_rest_...)."""
REST_WAKEUPS = 1.0
PARTS = ("board idle", "scanner", "port", "loop", "rests", "journal", "screen", "trees", "network")
HOST = PARTS[2:6]
"""What the computer spends on scans whatever the model; the last three are the model's."""


class Ran(NamedTuple):
    """How many scans came, after how many the scanner rested, how often each rung ran; or how often a second."""

    scans: float
    rests: float
    screened: float
    trees: float
    network: float


@dataclass(frozen=True, slots=True)
class Work:
    """Energy at the board's rail, microjoules: a scan's by part, a rung's over the rung beneath."""

    port_uj: Interval
    journal_uj: Interval
    loop_uj: Interval
    rest_uj: Interval
    screen_uj: Interval
    trees_uj: Interval
    network_uj: Interval

    def parts_uj(self, ran: Ran) -> dict[str, Interval]:
        """Energy of these scans by part, without the board's idle power and the scanner's."""
        host = (self.port_uj, self.loop_uj, self.rest_uj, self.journal_uj)
        each = (*host, self.screen_uj, self.trees_uj, self.network_uj)
        counts = (ran.scans, ran.scans, ran.rests, ran.scans, ran.screened, ran.trees, ran.network)
        return {part: uj.scaled(n) for part, uj, n in zip(PARTS[2:], each, counts, strict=True)}

    @property
    def costs(self) -> Costs:
        """What the governor pays for: the upper ends, so that the account errs on the safe side."""
        rungs = (self.screen_uj, self.trees_uj, self.network_uj)
        screen, trees, network = (max(0, round(rung.high * 1000)) for rung in rungs)
        return Costs(screen, max(1, trees), network)

    @property
    def governed_costs(self) -> Costs:
        """The same for the loop, whose second rung is the whole engine, the network that may follow included."""
        screen, trees, network = self.costs
        return Costs(screen, trees + network, 0)


def work(bundle: Bundle, board: Board, loop: LoopWork) -> Work:
    """What one scan costs. A rung that the bundle lacks costs nothing; BadInput where none was counted."""
    uj = instruction_pj(board).scaled(1e-6)
    screen, trees, network = _instructions(bundle.manifest, board.target)
    rest = Interval(
        *(max(0.0, end - PORT_INSTRUCTIONS - JOURNAL_INSTRUCTIONS) for end in _ends(loop.instructions))
    )
    return Work(
        exactly(PORT_INSTRUCTIONS) * uj + loop.wakeups * wake_uj(board),
        exactly(JOURNAL_INSTRUCTIONS) * uj,
        rest * uj,
        exactly(REST_INSTRUCTIONS) * uj + exactly(REST_WAKEUPS) * wake_uj(board),
        exactly(screen) * uj,
        exactly(trees) * uj,
        exactly(network) * uj,
    )


def _ends(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


def _instructions(manifest: Manifest, target: str) -> tuple[float, float, float]:
    """Counted instructions of screen, trees and network, each over the rung beneath."""
    cost = manifest["artifacts"].get(target, {}).get("cost") or {}
    by_rung: dict[str, float] = dict(cost.get("instructions_by_rung", {}))
    if not by_rung:
        raise BadInput(
            f"bundle: nobody has counted its rungs on {target}; build it with --data and --targets host,{target}"
        )
    screen = by_rung.get("SCREEN", 0.0)
    trees = by_rung.get("TREES", 0.0)
    network = (manifest.get("network") or {}).get("instructions", {}).get(target, 0.0)
    return screen, max(0.0, trees - screen), network


def scored(manifest: Manifest) -> Calibration:
    """The same for an engine whose screen tells its score."""
    ladder = manifest.get("ladder")
    if not ladder:
        return calibration(manifest)
    c = Calibration.from_dict(ladder)
    if not any(c.network_seen):  # nobody counted: believed to change every fourth answer
        c.network_seen, c.network_changed = [4] * len(c.network_seen), [1] * len(c.network_seen)
    return c


def calibration(manifest: Manifest) -> Calibration:
    """How often the next rung changed the answer, of a screen that says yes or no: its scores are 255 and 0.

    Counted when the bundle was built (manifest["ladder"]), else a cautious belief: the screen is right nineteen
    times in twenty where it answers, and the trees change the answer every second time where it does not; what the
    field shows soon outweighs 200 such trials.
    """
    if manifest.get("ladder"):
        return scored(manifest).yes_or_no(SCORE_ASK)
    quiet = [Trial(0, 128, n % 20 == 0, n % 4 == 0) for n in range(100)]
    loud = [Trial(255, 128, n % 2 == 0, n % 4 == 0) for n in range(100)]
    return Calibration.count(quiet + loud)
