"""What the scanner will hear: the order of things in a real log, or chance."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from edge_runtime import journal
from edge_runtime.errors import BadInput
from edge_runtime.governor.ladder import margin_score
from edge_runtime.journal import Kind, VerdictRecord, verdict_record
from edge_runtime.verdict import Rung


class Arrival(NamedTuple):
    """One scan: the screen's score, the trees' margin, and what each rung would change in the answer.

    captured_us: from the first scan on. asks_network: the network follows the trees here, as the bundle's bound on
    their margin has it; False where the trees were not asked, and nobody knows.
    """

    captured_us: int
    score: int
    margin: int
    trees_change: bool
    network_changes: bool
    asks_network: bool = False


HEARD = 255
QUIET = 0


def from_journal(directory: Path) -> tuple[list[VerdictRecord], list[Arrival]]:
    """The scans of a log. Where only the screen answered, nobody knows what the trees would have said: no change.

    A scan's trees "change the answer" where its label differs from the last scan's. Raises BadInput where the
    log holds no verdict.
    """
    records = [verdict_record(f.payload) for f in journal.read(directory) if f.kind == Kind.VERDICT]
    if not records:
        raise BadInput(f"journal {directory}: holds no verdict; give one that edge-runtime run has written")
    arrivals, last = [], None
    began_us, at_us, before_us = 0, 0, records[0].captured_us
    for record in records:
        step_us = record.captured_us - before_us
        before_us = record.captured_us
        at_us += step_us if 0 <= step_us < 3_600_000_000 else 0  # another run: its clock began anew
        climbed = record.rung in (Rung.TREES, Rung.NETWORK)
        changed = climbed and record.label != last
        margin = margin_score(record.margin)
        score = HEARD if climbed else QUIET
        asked = record.rung == Rung.NETWORK
        arrivals.append(Arrival(at_us - began_us, score, margin, changed, changed and asked, asked))
        last = record.label
    return records, arrivals


def by_chance(scans: int, scan_us: int, active: float, seed: int = 1) -> list[Arrival]:
    """Scans of which a share `active` holds something, in bursts of ten scans on average; a day differs by hour.

    Between midnight and noon twice as much comes as the mean, in the other half nothing but a tenth of it.
    """
    if not 0 <= active <= 0.5:
        raise BadInput(f"active share {active}: must be 0 to 0.5 of the scans")
    rng, arrivals, left = random.Random(seed), [], 0
    for n in range(scans):
        busy_hours = (n * scan_us // 43_200_000_000) % 2 == 0
        if left == 0 and rng.random() < active * (1.9 if busy_hours else 0.1) / 10:
            left = 1 + int(rng.expovariate(1 / 9.5))
        active_now = left > 0
        left -= active_now
        score = HEARD if rng.random() < (0.99 if active_now else 0.1) else QUIET
        changed = active_now and rng.random() < 0.7
        arrivals.append(Arrival(n * scan_us, score, rng.randrange(256), changed, active_now and not changed))
    return arrivals


def active_share(arrivals: Sequence[Arrival]) -> float:
    """Share of the scans on which climbing would have changed something."""
    return sum(a.trees_change or a.network_changes for a in arrivals) / max(1, len(arrivals))
