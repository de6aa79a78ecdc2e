"""manifest["ladder"]: what the governor's rungs were worth on the calibration scans, as counts.

Counts and not rates: learning on the device goes on from them (a rate of so many trials is a Beta distribution of
that weight), and a device that starts need not bin a thousand trials first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from compile.decide import FittedPipeline, Float64, decide, screen_scores
from compile.matrix import Matrix
from edge_runtime.engines.compiled import SCORE_ASK
from edge_runtime.governor.ladder import MIN_TRIALS, Calibration, Trial, margin_score
from edge_runtime.recording import Split
from edge_runtime.verdict import UNKNOWN


def ladder(fitted: FittedPipeline, matrix: Matrix, raw_scores: Float64) -> dict[str, Any] | None:
    """The counts, or None where there are too few scans that training never saw.

    raw_scores: (n, outputs) of all of the matrix. The trees "change the answer" where they find a class other than
    the screen's: without them a scan is that, or goes unanswered. The network's counts follow with the network
    (`with_network`).
    """
    held_out = (matrix.split == Split.CALIBRATION) & (matrix.label >= 0)
    if np.sum(held_out) < MIN_TRIALS or not fitted.classes:
        return None
    features = matrix.features[held_out].astype(np.int32)
    verdicts = decide(replace(fitted, screen=None), features, raw_scores[held_out])
    dull = UNKNOWN if fitted.screen is None else fitted.screen.label
    found = ~np.isin(verdicts["label"], (UNKNOWN, dull))
    margins = map(margin_score, verdicts["margin"].tolist())
    rows = zip(screen_scores(fitted, features).tolist(), margins, found.tolist(), strict=True)
    return Calibration.count([Trial(*row, None) for row in rows], ask=SCORE_ASK).to_dict()


def with_network(counts: dict[str, Any], margins: Float64, changed: Sequence[bool]) -> dict[str, Any]:
    """The same counts, and how often the network changes the trees' answer to the right one, by their margin.

    margins, changed: of the held-out scans that the trees answered, whether or not the bundle's bound would ask it.
    """
    c = Calibration.from_dict(counts)
    c.network_seen, c.network_changed = [0] * len(c.network_seen), [0] * len(c.network_seen)
    for margin, right in zip(margins.tolist(), changed, strict=True):
        at = c.margin_bin[margin_score(margin)]
        c.network_seen[at] += 1
        c.network_changed[at] += bool(right)
    return c.to_dict()
