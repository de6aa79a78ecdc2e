"""How often verdicts are right, with intervals that respect where the scans come from.

Scans of one recording resemble each other, so the interval is a bootstrap over recordings, not over scans (the
cluster bootstrap: Field and Welsh, J. R. Statist. Soc. B 69, 2007).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.matrix import Matrix
from edge_runtime.recording import Origin, Split
from edge_runtime.verdict import UNKNOWN

RESAMPLES = 2000
SEED = 20261124
MIN_CLUSTERS = 5
"""Fewer recordings than this resample to hardly anything but themselves: no interval is told."""


def share_with_interval(hit: NDArray[np.bool_], cluster: NDArray[np.integer[Any]]) -> dict[str, Any]:
    """The share of `hit`, (n,), and its 95 % interval over resampled clusters, (n,); as the manifest has it.

    The interval is None where there are fewer than MIN_CLUSTERS clusters.
    """
    names, index = np.unique(cluster, return_inverse=True)
    hits = np.bincount(index, weights=hit, minlength=len(names))
    sizes = np.bincount(index, minlength=len(names))
    draws = np.random.default_rng(SEED).integers(len(names), size=(RESAMPLES, len(names)))
    shares = hits[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    low, high = np.percentile(shares, [2.5, 97.5])
    enough = len(names) >= MIN_CLUSTERS
    return {
        "value": round(float(hit.mean()), 6),
        "interval_95": [round(float(low), 6), round(float(high), 6)] if enough else None,
        "scans": len(hit),
        "captures": len(names),
    }


def measure(matrix: Matrix, label: NDArray[np.integer[Any]]) -> dict[str, Any]:
    """Accuracy of verdicts' labels, (n,), on scans that neither training nor calibration saw, by slice.

    UNKNOWN counts as wrong for a class, and as right for a kind that is none.
    """
    test = (matrix.split == Split.TEST) & (matrix.label >= 0)
    slices = {
        "test": test,
        "test, bursts in fresh noise": test & (matrix.origin == Origin.REMIX),
        "test, as recorded": test & (matrix.origin == Origin.RECORDED),
        "test, nothing there": test & (matrix.origin == Origin.QUIET),
        **{f"test, {name}": test & (matrix.label == k) for k, name in enumerate(matrix.classes)},
    }
    found = {
        name: share_with_interval(label[rows] == matrix.label[rows], matrix.capture[rows])
        for name, rows in slices.items()
        if rows.any()
    }
    strange = matrix.split == Split.UNKNOWN
    if strange.any():
        found["no class, answered UNKNOWN"] = share_with_interval(
            label[strange] == UNKNOWN, matrix.capture[strange]
        )
    return found
