"""Compact and Thumb code where small random models do not go: every layout, and more slots than registers."""

from __future__ import annotations

from functools import cache

import lightgbm
import numpy as np
import pytest
import xgboost
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from treelite import Model

from compile import frontends
from compile.emit.columns import columns_of
from compile.emit.trees import emit
from compile.emulate import Machine, Out
from compile.forest import Forest, key_to_float
from compile.frontends.treelite import deserialize
from compile.modes import alone
from compile.quantise import BITS, decide, fixed
from compile.ranks import rank_forest
from compile.targets import target
from compile.toolchain import build
from tests.tree_models import compile_for

Rows = NDArray[np.float32]
FEATURES = 24


def data(seed: int, rows: int) -> tuple[Rows, NDArray[np.int64]]:
    """Rows of 24 features, three classes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, FEATURES)).astype(np.float32)
    score = x[:, 0] * x[:, 1] + np.sin(3 * x[:, 2]) + x[:, 3:].sum(1) / 4 + rng.normal(size=rows) / 2
    return x, np.digitize(score, [-0.7, 0.7]).astype(np.int64)


def hard_rows() -> Rows:
    """Rows of the data, and some with NaN, infinities and zeros of either sign."""
    x, _ = data(1, 48)
    x[16:32][np.random.default_rng(2).random((16, FEATURES)) < 0.2] = np.nan
    for row, value in zip(range(32, 38), (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-42), strict=True):
        x[row] = value
    x[40, ::2], x[40, 1::2] = np.inf, -np.inf
    x[41].view(np.uint32)[:] = 0xFFC00001  # NaN with its sign
    return x


@cache
def _lightgbm(leaves: int, rounds: int) -> Forest:
    x, y = data(0, 4000)
    parameters = {
        "objective": "binary",
        "num_leaves": leaves,
        "min_data_in_leaf": 3,
        "verbose": -1,
        "seed": 0,
    }
    return frontends.load(lightgbm.train(parameters, lightgbm.Dataset(x, y > 0), rounds)).forest


@cache
def _xgboost(depth: int) -> Forest:
    x, y = data(0, 4000)
    parameters = {"objective": "multi:softprob", "num_class": 3, "max_depth": depth, "seed": 0, "nthread": 1}
    return frontends.load(xgboost.train(parameters, xgboost.DMatrix(x, y), 6)).forest


@cache
def _hist() -> Forest:
    x, y = data(0, 2000)
    x[np.random.default_rng(3).random(x.shape) < 0.1] = np.nan
    made = HistGradientBoostingClassifier(max_iter=8, random_state=0, early_stopping=False)
    return frontends.load(made.fit(x, y)).forest


LAYOUTS = {
    "heap of 4 levels": (lambda: _xgboost(4), "edge_trees["),
    "heap of 5 levels": (lambda: _xgboost(5), "edge_trees["),
    "preorder, long sizes": (lambda: _lightgbm(200, 16), "uint16_t edge_splits["),
    "preorder, wide": (lambda: _lightgbm(300, 2), "uint32_t edge_splits["),
    "preorder, both ways of NaN": (_hist, "edge_nan_left_f32["),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["cortex-m4", "cortex-m0"])
def test_every_layout_is_the_forest(layout: str, name: str) -> None:
    make, table = LAYOUTS[layout]
    forest = make()
    compiled = compile_for(forest, name, "compact")
    assert table in compiled.code.c
    assert ("walk.S" in compiled.code.files) == (name == "cortex-m4" and "wide" not in layout)
    rows = hard_rows()
    np.testing.assert_array_equal(compiled.scores(rows), compiled.code.forest.raw_scores(rows))
    whole = np.clip(np.nan_to_num(rows), -9, 9).astype(np.int32)
    np.testing.assert_array_equal(
        compiled.integer_scores(whole), compiled.code.forest.raw_scores(whole.astype(np.float32))
    )


@pytest.mark.parametrize("mode", ["exact", "fixed"])
@pytest.mark.parametrize("name", ["cortex-m4", "armv7"])
@pytest.mark.parametrize("make", [_hist, lambda: _xgboost(4)], ids=["both ways of NaN", "float32 sums"])
def test_more_slots_than_registers_and_an_output_after_another(make: object, name: str, mode: str) -> None:
    forest: Forest = make()  # type: ignore[operator]
    assert columns_of(rank_forest(forest)).mixed == (forest.source == "sklearn")
    compiled = compile_for(forest, name, mode)
    rows = hard_rows()
    np.testing.assert_array_equal(compiled.scores(rows), compiled.code.forest.raw_scores(rows))
    whole = np.clip(np.nan_to_num(rows), -9, 9).astype(np.int32)
    np.testing.assert_array_equal(
        compiled.integer_scores(whole), compiled.code.forest.raw_scores(whole.astype(np.float32))
    )


def test_fixed_point_sums_are_taken_in_an_order_of_their_own() -> None:
    text = emit(_hist(), target("cortex-m4"), mode="fixed").files["trees.S"]
    # Labels keep the model's numbers, whatever the order.
    order = [
        int(line[3 : line.index("n")])
        for line in text.splitlines()
        if line.startswith(".Lt") and "n0:" in line
    ]
    assert sorted(order) == sorted(set(order))
    assert order != sorted(order)


def test_bits_are_chosen_by_decisions_on_rows_that_the_rounding_did_not_see() -> None:
    forest = _lightgbm(31, 20)
    x, _ = data(5, 6000)
    made = fixed(forest, x)
    raw = forest.raw_scores(x)
    np.testing.assert_array_equal(decide(made.forest.raw_scores(x)), decide(raw))
    assert BITS[0] - 1 < made.bits < 12
    other, _ = data(6, 6000)
    got, want = made.forest.raw_scores(other), forest.raw_scores(other)
    assert (decide(got) != decide(want)).mean() < 3e-3
    assert np.abs(got - want).max() <= made.worst_error
    # Every tree's leaves are whole steps apart, and of no more bits than the step was chosen for.
    whole = made.integers.leaf_values[:, 0]
    bits = []
    for tree, step in enumerate(made.step.tolist()):
        leaf = forest.leaf[forest.roots[tree] : forest.roots[tree + 1]]
        steps = (whole[leaf[leaf >= 0]] - whole[leaf[leaf >= 0]].min()) / step
        np.testing.assert_array_equal(steps, np.rint(steps))
        bits.append(int(steps.max()).bit_length())
    assert len(set(made.step.tolist())) > 1
    assert max(bits) <= made.bits + 1.5  # a sign, and the nearest whole number


FIVE = ("x86_64", "aarch64", "armv7", "cortex-m4", "cortex-m0")


@pytest.mark.parametrize("digits", [4, 64, 512], ids=lambda d: f"thresholds of 1/{d}")
def test_thresholds_of_few_bits_are_stored_without_their_zeros(digits: int) -> None:
    """x < t is asked as x <= t', whose bits are ones: one above, they are zeros. Every neighbour is on its side."""
    x, y = data(0, 3000)
    x[:, :12] = np.round(x[:, :12] * digits) / digits
    parameters = {"objective": "binary:logistic", "max_depth": 4, "tree_method": "exact", "nthread": 1}
    forest = frontends.load(xgboost.train(parameters, xgboost.DMatrix(x[:, :12], y > 0), 30)).forest
    quantised = fixed(forest, x[:, :12])
    rng = np.random.default_rng(4)
    rows = np.zeros((64, 12), np.float32)
    for feature in range(12):
        keys = np.unique(forest.threshold_key[forest.feature == feature])
        points = np.concatenate([keys - 1, keys, keys + 1, keys + 2])
        rows[:, feature] = [key_to_float(int(k)) for k in rng.choice(points, len(rows))]
    rows[0], rows[1], rows[2], rows[3] = np.nan, np.inf, -np.inf, 0.0
    rows[4].view(np.uint32)[:] = 0x7FFFFFFF  # the largest key: one more is the smallest
    for name in FIVE:
        code = emit(forest, target(name), mode="compact", quantised=quantised)
        assert "s->bytes" in code.c
        assert "sought = (int32_t)((uint32_t)key + 1)" in code.c
        machine = Machine(target(name), build(alone(forest, code), target(name)))
        got = [machine.call("edge_model_scores", row.tobytes(), Out(8)).outputs[0] for row in rows]
        want = quantised.forest.raw_scores(rows)
        np.testing.assert_array_equal(np.array([np.frombuffer(g) for g in got]), want, err_msg=name)


def test_more_alike_trees_than_a_part_counts() -> None:
    x, _ = data(0, 8)
    x_train, y = data(0, 500)
    booster = lightgbm.train({"num_leaves": 4, "verbose": -1}, lightgbm.Dataset(x_train, y > 0), 1)
    checkpoint = frontends.load(booster).checkpoint
    forest = frontends.load(Model.concatenate([deserialize(checkpoint) for _ in range(520)])).forest
    for name in FIVE:
        compiled = compile_for(forest, name, "compact")
        assert compiled.code.c.count("{255, 0, ") == 2
        np.testing.assert_array_equal(compiled.scores(x), compiled.code.forest.raw_scores(x), err_msg=name)


@pytest.mark.parametrize("mode", ["exact", "fixed", "compact"])
def test_more_than_255_thresholds_a_feature_and_few_ranges_of_them(mode: str) -> None:
    """One type holds a feature's thresholds, another the runs of their top bytes: only the second fits a byte."""
    x, y = data(0, 4000)
    made = RandomForestClassifier(120, max_leaf_nodes=64, random_state=0, n_jobs=1).fit(x, y)
    forest = frontends.load(made).forest
    ranks = rank_forest(forest)
    assert max(len(slot.keys) for slot in ranks.numeric) > 255
    for name in FIVE:
        compiled = compile_for(forest, name, mode, x)
        rows = x[:8]
        np.testing.assert_array_equal(
            compiled.scores(rows), compiled.code.forest.raw_scores(rows), err_msg=name
        )
