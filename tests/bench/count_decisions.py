"""Runs so many decisions of a 48-hour mission, or the same loop without them, for an instruction counter.

    python -m tests.bench.count_decisions SCANS BUDGET_SHARE SCREEN_NJ TREES_NJ NETWORK_NJ decide|empty

Standard library only: it runs in the arm64 guest. Scores are those of the missions' model (tests/bench/missions.py).
"""

from __future__ import annotations

import random
import sys

from edge_runtime.governor.forecast import SLOTS, Past
from edge_runtime.governor.ladder import Calibration, Costs, Ladder, Trial
from edge_runtime.governor.ledger import Ledger
from edge_runtime.governor.policy import Governor

SCAN_US = 200_000
MISSION_SCANS = 48 * 3600 * 5
PASTS = 32


def trial(rng: random.Random) -> Trial:
    """One scan and what the rungs would find in it."""
    p = rng.betavariate(0.6, 2) if rng.random() < 0.5 else rng.betavariate(0.3, 20)
    network = min(0.25 * p * rng.gammavariate(0.7, 1 / 0.7), 0.9)
    score, margin = min(255, int(256 * p**0.4)), 255 - min(255, int(256 * network**0.4))
    return Trial(score, margin, rng.random() < 0.7 * p, rng.random() < network)


def past(rng: random.Random, score_bin: bytes) -> Past:
    """A past mission of the same length."""
    counts = [0] * (max(score_bin) + 1)
    for _ in range(200):
        counts[score_bin[trial(rng).score]] += MISSION_SCANS // SLOTS // 200
    return Past([counts] * SLOTS)


def main(scans: int, share: float, costs: Costs, decide: bool) -> None:
    """The loop; both forms do the same but for the decisions."""
    rng = random.Random(1)
    calibration = Calibration.count([trial(rng) for _ in range(1000)])
    pasts = [past(rng, calibration.score_bin) for _ in range(PASTS)]
    now_us, duration_us = 0, MISSION_SCANS * SCAN_US
    ledger = Ledger(
        int(share * costs.always_nj * MISSION_SCANS),
        duration_us,
        lambda _payload: None,
        lambda: now_us,
        worst_nj=costs.always_nj,
    )
    governor = Governor(
        Ladder(calibration, costs),
        ledger,
        pasts,
        duration_us=duration_us,
        scan_us=SCAN_US,
        clock_us=lambda: now_us,
    )
    trials = [trial(rng) for _ in range(2000)]
    note, bar, pays_trees, pays_network = (
        governor.note,
        governor.bar,
        governor.pays_trees,
        governor.pays_network,
    )
    for n in range(scans):
        now_us += SCAN_US
        score, margin, trees_changed, network_changed = trials[n % 2000]
        if decide and (governor.dense or governor.wants_screen()):
            note(score)
            if score >= bar() and pays_trees():
                further = margin <= governor.network_upto and pays_network()
                if governor.learning:
                    governor.learn(score, margin, trees_changed, network_changed if further else None)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), Costs(*map(int, sys.argv[3:6])), sys.argv[6] == "decide")
