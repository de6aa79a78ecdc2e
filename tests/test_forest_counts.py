"""Counts from data: every split has its children's, every root has all rows."""

from __future__ import annotations

import numpy as np

from compile import frontends
from compile.demo.run import MODEL


def test_counts_are_those_of_the_rows_given() -> None:
    forest = frontends.load(MODEL).forest
    rows = np.random.default_rng(0).normal(0, 2000, (500, forest.n_features)).astype(np.float32)
    counted = forest.counted(rows)
    splits = np.nonzero(forest.feature >= 0)[0]
    children = counted.count[forest.left[splits]] + counted.count[forest.right[splits]]
    np.testing.assert_array_equal(counted.count[splits], children)
    leaves_of_tree = np.diff(forest.roots) // 2 + 1
    np.testing.assert_array_equal(counted.count[forest.roots[:-1]], len(rows) + leaves_of_tree / 2)
    np.testing.assert_array_equal(counted.raw_scores(rows), forest.raw_scores(rows))
