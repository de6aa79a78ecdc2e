"""Leaves that add to all outputs (forests of classifiers): threaded code against the forest's sums, to the bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

from compile import frontends
from compile.emit.thumb_sums import MAX_OUTPUTS, Sum
from compile.forest import Forest
from tests.test_worst_case import bound, largest
from tests.tree_models import compile_for, data

KINDS = (("aarch64", "exact"), ("aarch64", "fixed"), ("armv7", "exact"), ("armv7", "fixed"),
         ("cortex-m4", "exact"), ("cortex-m4", "fixed"))  # fmt: skip


def forest_of(classes: int, seed: int, trees: int = 12) -> Forest:
    """A model whose pure leaves are mostly zeros."""
    x, _ = data(seed, 0)
    y = np.digitize(x[:, 0] + x[:, 2], np.linspace(-1.5, 1.5, classes + 1)[1:-1])
    kind = RandomForestClassifier if seed % 2 else ExtraTreesClassifier
    made = kind(trees, max_leaf_nodes=12, random_state=seed, n_jobs=1).fit(x, y)
    forest = frontends.load(made).forest
    assert forest.leaf_values.shape[1] == classes
    return forest


def odd_leaves(forest: Forest, seed: int, *, single: bool) -> Forest:
    """Leaves of any size and sign, some of them zeros of either sign, and sums that begin at something."""
    rng = np.random.default_rng(seed)
    shape = forest.leaf_values.shape
    values = rng.normal(size=shape) * 2.0 ** rng.integers(-12, 3, shape)
    values[rng.random(shape) < 0.4] = 0.0
    values[rng.random(shape) < 0.1] = -0.0
    base = rng.normal(size=shape[1])
    if single:
        values, base = (v.astype(np.float32).astype(np.float64) for v in (values, base))
    return replace(
        forest, leaf_values=values, base=base, base_first=bool(seed % 3), single=single, divisor=7.0
    )


def check(forest: Forest, name: str, mode: str, rows: NDArray[np.float32]) -> None:
    """Bits, and the bound of the longest way."""
    compiled = compile_for(forest, name, mode)
    assert compiled.code.style == "threaded"
    expected = compiled.code.forest.raw_scores(rows)
    got = compiled.scores(rows)
    np.testing.assert_array_equal(got.view(np.int64), expected.view(np.int64), err_msg=f"{name} {mode}")
    most = bound(compiled, name)
    assert most is not None
    assert largest(name, compiled.artifact, rows, forest.n_outputs) <= most


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_every_target_adds_rows_as_the_forest_does(classes: int) -> None:
    forest = forest_of(classes, classes)
    rows, _ = data(classes + 50, 0.05, 24)
    for name, mode in KINDS:
        check(forest, name, mode, rows)


@pytest.mark.parametrize("classes", [9, 16])
def test_more_outputs_than_one_load_takes(classes: int) -> None:
    forest = forest_of(classes, 5, trees=5)
    rows, _ = data(7, 0.05, 12)
    for name in ("aarch64", "armv7", "cortex-m4"):
        check(forest, name, "exact", rows)


def test_where_registers_do_not_do_a_table_serves() -> None:
    forest = forest_of(MAX_OUTPUTS[Sum.FIXED] + 1, 5, trees=5)
    compiled = compile_for(forest, "cortex-m4", "fixed")
    rows, _ = data(7, 0.05, 12)
    assert compiled.code.style == "table"
    np.testing.assert_array_equal(compiled.scores(rows), compiled.code.forest.raw_scores(rows))


@given(
    st.integers(2, 8),
    st.integers(0, 10_000),
    st.booleans(),
    st.sampled_from(("aarch64", "armv7", "cortex-m4")),
)
@settings(
    max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
def test_odd_leaves_and_bases(classes: int, seed: int, single: bool, name: str) -> None:
    rows, _ = data(seed + 1, 0.05, 16)
    check(odd_leaves(forest_of(classes, 5, trees=6), seed, single=single), name, "exact", rows)
