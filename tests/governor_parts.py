"""What the governor's tests share: a ladder's trials, a governor that can afford everything."""

from __future__ import annotations

import random

from edge_runtime.governor import Calibration, Costs, Governor, Ladder, Ledger, Trial

DURATION_US = 1_000_000_000


def trials(n: int = 400, seed: int = 1) -> list[Trial]:
    """Calibration scans whose score and margin tell something."""
    rng = random.Random(seed)
    out = []
    for _ in range(n):
        score, margin = int(255 * rng.random() ** 3), rng.randrange(256)
        out.append(Trial(score, margin, rng.random() < score / 255, rng.random() < (255 - margin) / 512))
    return out


def small_governor(budget_nj: int = 10**12) -> tuple[Governor, Ledger]:
    """A governor that can afford everything, and its account."""
    ledger = Ledger(budget_nj, DURATION_US, lambda _p: None, lambda: 0, worst_nj=5000)
    ladder = Ladder(Calibration.count(trials()), Costs(1, 1000, 3000))
    return Governor(ladder, ledger, [], duration_us=DURATION_US, scan_us=10**5, clock_us=lambda: 0), ledger
