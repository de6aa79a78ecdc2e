"""Rows that a model can go wrong on: values on and beside every threshold, and those no threshold expects."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compile.forest import Forest, key_to_float

ODD = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 3e38, -3e38, 16_777_216.0], np.float32)
SEED = 20261124


def probe_rows(forest: Forest, rows: int) -> NDArray[np.float32]:
    """Rows, float32 (rows, n_features): each value a threshold, its neighbour on either side, a code, or odd."""
    rng = np.random.default_rng(SEED)
    out = np.empty((rows, forest.n_features), np.float32)
    split, numeric = forest.feature >= 0, forest.category < 0
    for feature in range(forest.n_features):
        keys = np.unique(forest.threshold_key[split & numeric & (forest.feature == feature)])
        points = np.array([key_to_float(int(k)) for k in keys], np.float32)
        codes = [
            code
            for k in np.unique(forest.category[split & ~numeric & (forest.feature == feature)])
            for code in forest.category_sets[k].left | forest.category_sets[k].right
        ]
        points = np.concatenate([points, np.array(codes, np.float32)])
        beside = [np.nextafter(points, np.float32(side)) for side in (-np.inf, np.inf)]
        choices = np.concatenate([points, *beside, points + np.float32(0.5)]) if len(points) else ODD
        odd = rng.random(rows) < 0.1
        out[:, feature] = np.where(odd, rng.choice(ODD, rows), rng.choice(choices, rows))
    return out
