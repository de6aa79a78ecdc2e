"""What is done to forests besides compiling them: counts from data, and the file in the bundle."""

from __future__ import annotations

import numpy as np

from compile import forest_file, frontends
from compile.demo.run import MODEL
from compile.probes import probe_rows


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


def test_a_forest_in_a_bundle_answers_as_before() -> None:
    forest = frontends.load(MODEL).forest
    data = forest_file.to_bytes(forest)
    again = forest_file.from_bytes(data)
    rows = probe_rows(forest, 500)
    assert again.raw_scores(rows).tobytes() == forest.raw_scores(rows).tobytes()
    np.testing.assert_array_equal(
        again.count, forest.count
    )  # the rows of `verify` follow the code, and that them
    assert forest_file.to_bytes(again) == data
