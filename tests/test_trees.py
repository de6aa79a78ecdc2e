"""Every front end, against its own library, and every target's code against both: no bit may differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import lightgbm
import numpy as np
import pytest
import xgboost
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import ExtraTreesRegressor
from treelite import gtil

from compile import frontends
from compile.frontends.treelite import deserialize
from edge_runtime.errors import BadInput
from tests.tree_models import (
    Trained,
    compile_for,
    data,
    lightgbm_model,
    rows_for,
    sklearn_model,
    xgboost_model,
)

TARGETS = ("x86_64", "aarch64", "armv7", "cortex-m4", "cortex-m0")
SKLEARN = (
    "GradientBoostingClassifier", "GradientBoostingRegressor", "HistGradientBoostingClassifier",
    "HistGradientBoostingRegressor", "HistCategorical", "RandomForestClassifier", "RandomForestRegressor",
    "ExtraTreesClassifier", "ExtraTreesRegressor",
)  # fmt: skip
ROWS, EMULATED_ROWS = 400, 40

seeds = st.integers(0, 10_000)
nans = st.sampled_from([0.0, 0.1])
lightgbms = st.builds(
    lightgbm_model,
    seeds,
    st.sampled_from(["multiclass", "binary", "regression"]),
    st.sampled_from(["gbdt", "dart", "rf"]),
    nans,
    st.booleans(),
    st.booleans(),
)
xgboosts = st.builds(
    xgboost_model,
    seeds,
    st.sampled_from(
        ["multi:softprob", "binary:logistic", "binary:logitraw", "count:poisson", "reg:squarederror"]
    ),
    st.sampled_from(["gbtree", "dart"]),
    nans,
    st.booleans(),
    st.sampled_from([None, 0.37]),
)
sklearns = st.builds(sklearn_model, seeds, st.sampled_from(SKLEARN), nans)


@given(st.one_of(lightgbms, xgboosts, sklearns), st.sampled_from(TARGETS), seeds)
@settings(
    max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
def test_code_answers_as_the_library_does(trained: Trained, name: str, seed: int) -> None:
    forest = frontends.load(trained.model).forest
    rows = rows_for(forest, trained, seed, ROWS)
    expected = trained.scores(rows)
    np.testing.assert_array_equal(forest.raw_scores(rows), expected)
    compiled = compile_for(forest, name)
    np.testing.assert_array_equal(compiled.scores(rows[:EMULATED_ROWS]), expected[:EMULATED_ROWS])
    whole = np.clip(np.nan_to_num(rows[:EMULATED_ROWS]), -(2**23), 2**23).astype(np.int32)
    np.testing.assert_array_equal(compiled.integer_scores(whole), forest.raw_scores(whole.astype(np.float32)))


KINDS: tuple[Callable[[], Trained], ...] = (
    *(
        partial(lightgbm_model, 3, objective, boosting, 0.1, False, False)
        for objective in ("multiclass", "binary", "regression")
        for boosting in ("gbdt", "dart", "rf")
    ),
    *(
        partial(xgboost_model, 3, objective, booster, 0.1, False, 0.37)
        for objective in ("multi:softprob", "binary:logistic", "count:poisson")
        for booster in ("gbtree", "dart")
    ),
    *(partial(sklearn_model, 3, name, 0.0) for name in SKLEARN),
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.args[1:3])))
def test_every_kind_of_model_on_every_target(kind: Callable[[], Trained]) -> None:
    """What the random choice above may leave out: a kind of leaf that one emitter alone has wrong."""
    trained = kind()
    forest = frontends.load(trained.model).forest
    rows = rows_for(forest, trained, 3, EMULATED_ROWS)
    expected = trained.scores(rows)
    for name in TARGETS:
        np.testing.assert_array_equal(compile_for(forest, name).scores(rows), expected, err_msg=name)


@given(
    st.one_of(lightgbms, xgboosts, sklearns),
    st.sampled_from(TARGETS),
    st.sampled_from(["fixed", "compact"]),
    seeds,
)
@settings(
    max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
def test_fixed_point_is_what_it_says(trained: Trained, name: str, mode: str, seed: int) -> None:
    forest = frontends.load(trained.model).forest
    rows = rows_for(forest, trained, seed, EMULATED_ROWS)
    compiled = compile_for(forest, name, mode)
    got = compiled.scores(rows)
    np.testing.assert_array_equal(got, compiled.code.forest.raw_scores(rows))
    assert np.abs(got - forest.raw_scores(rows)).max() <= compiled.code.worst_error * (1 + 1e-6) + 1e-5
    whole = np.clip(np.nan_to_num(rows), -(2**23), 2**23).astype(np.int32)
    np.testing.assert_array_equal(
        compiled.integer_scores(whole), compiled.code.forest.raw_scores(whole.astype(np.float32))
    )


def test_isolation_forest_scores_as_the_library_does() -> None:
    from sklearn.ensemble import IsolationForest  # noqa: PLC0415 - only this test needs it

    x, _ = data(3, 0)
    made = IsolationForest(n_estimators=20, random_state=0).fit(x)
    forest = frontends.load(made).forest
    scores = -(2.0 ** (-forest.raw_scores(x)[:, 0] / forest.post.ratio_c))
    np.testing.assert_allclose(scores, made.score_samples(x), rtol=1e-13)
    np.testing.assert_array_equal(compile_for(forest, "aarch64").scores(x[:40]), forest.raw_scores(x[:40]))


def saved_models(folder: Path) -> Iterator[tuple[Path, Trained]]:
    """One file of each format."""
    made = lightgbm_model(1, "multiclass", "gbdt", 0.1, False, True)
    made.model.save_model(folder / "m.txt")
    yield folder / "m.txt", made
    made = xgboost_model(2, "binary:logistic", "dart", 0.1, True, None)
    for suffix in ("json", "ubj"):
        made.model.save_model(folder / f"m.{suffix}")
        yield folder / f"m.{suffix}", made


def test_saved_models_load_as_live_ones(tmp_path: Path) -> None:
    for path, trained in saved_models(tmp_path):
        loaded = frontends.load(path)
        rows = rows_for(loaded.forest, trained, 5, ROWS)
        np.testing.assert_array_equal(loaded.forest.raw_scores(rows), trained.scores(rows))


def test_a_checkpoint_answers_as_treelite_does(tmp_path: Path) -> None:
    for number, (path, trained) in enumerate(saved_models(tmp_path)):
        checkpoint = tmp_path / f"{number}.tl"
        checkpoint.write_bytes(frontends.load(path).checkpoint)
        forest = frontends.load(checkpoint).forest
        rows = rows_for(forest, trained, 6, ROWS)
        model = deserialize(checkpoint.read_bytes())
        theirs = gtil.predict(model, rows.astype(model.input_type), pred_margin=True, nthread=1)
        np.testing.assert_array_equal(forest.raw_scores(rows), theirs.reshape(ROWS, -1))


@pytest.mark.parametrize(
    "content", [b"", b"tree\n", b"{}", b'{"learner": 3}', b"{L", b"\x80\x04.", b"x" * 200, bytes(200)]
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="model"):
        frontends.load(path)


def test_linear_leaves_are_refused() -> None:
    x, y = data(4, 0)
    parameters = {"objective": "regression", "linear_tree": True, "verbose": -1}
    booster = lightgbm.train(parameters, lightgbm.Dataset(x.astype(np.float64), y), 3)
    with pytest.raises(BadInput, match=r"tree 0, leaf \d+ is a linear function"):
        frontends.load(booster)


def test_a_category_too_large_for_a_table_names_its_split() -> None:
    rng = np.random.default_rng(0)
    x = np.stack([rng.choice([0, 3, 70_000, 70_001], 400), rng.normal(size=400)], 1)
    y = np.isin(x[:, 0], [3, 70_000]) + 0.0
    parameters = {
        "objective": "regression",
        "verbose": -1,
        "min_data_per_group": 5,
        "cat_smooth": 1,
        "max_cat_to_onehot": 1,
    }
    booster = lightgbm.train(parameters, lightgbm.Dataset(x, y, categorical_feature=[0]), 3)
    with pytest.raises(BadInput, match=r"tree 0, node \d+ splits on category 7000"):
        frontends.load(booster)


def test_many_features_and_many_thresholds_stay_exact() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, 30)).astype(np.float32)
    made = ExtraTreesRegressor(n_estimators=4, max_features=30, random_state=0).fit(
        x, np.sin(9 * x[:, 0]) + x[:, 29] / 9
    )
    forest = frontends.load(made).forest
    assert len(np.unique(forest.threshold_key[forest.feature == 0])) > 255
    assert len(np.unique(forest.feature)) > 25
    expected = made.predict(x[:30])
    for name in TARGETS:
        np.testing.assert_array_equal(compile_for(forest, name).scores(x[:30])[:, 0], expected)


@pytest.mark.parametrize(("classes", "rounds"), [(1, 71), (3, 71), (6, 71), (17, 71), (1, 513), (3, 181)])
@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_values_of_many_trees_are_added_in_turn(library: str, classes: int, rounds: int) -> None:
    # 71 trees for each output: more than twice those whose values can wait, and some left over. More than 512 trees
    # are more than a block of bit vectors, more than 16 outputs are not added to in one turn.
    x, _ = data(6, 0.05)
    score = np.nan_to_num(x[:, 0] + x[:, 2])
    label = np.digitize(score, np.linspace(-1.5, 1.5, classes + 1)[1:-1]) if classes > 1 else score
    parameters: dict[str, object]
    if library == "lightgbm":
        parameters = {"num_leaves": 5, "min_data_in_leaf": 5, "verbose": -1, "num_threads": 1, "seed": 0}
        parameters |= (
            {"objective": "multiclass", "num_class": classes} if classes > 1 else {"objective": "l2"}
        )
        booster = lightgbm.train(parameters, lightgbm.Dataset(x.astype(np.float64), label), rounds)
        expected = booster.predict(x[:40], raw_score=True)
    else:
        parameters = {"max_depth": 2, "nthread": 1, "seed": 0, "base_score": 0.3}
        parameters |= {"objective": "multi:softprob", "num_class": classes} if classes > 1 else {}
        booster = xgboost.train(parameters, xgboost.DMatrix(x, label), rounds)
        expected = booster.predict(xgboost.DMatrix(x[:40]), output_margin=True)
    forest = frontends.load(booster).forest
    assert forest.n_trees == rounds * classes
    for name in ("x86_64", "aarch64", "armv7"):
        np.testing.assert_array_equal(
            compile_for(forest, name).scores(x[:40]), np.asarray(expected, np.float64).reshape(40, -1)
        )


@pytest.mark.parametrize("name", TARGETS)
def test_trees_without_splits_are_constants(name: str) -> None:
    x, y = data(4, 0)
    parameters = {"objective": "binary", "verbose": -1, "min_data_in_leaf": 10_000}
    booster = lightgbm.train(parameters, lightgbm.Dataset(x.astype(np.float64), y > 0), 3)
    forest = frontends.load(booster).forest
    expected = np.asarray(booster.predict(x[:3], raw_score=True)).reshape(-1, 1)
    np.testing.assert_array_equal(compile_for(forest, name).scores(x[:3]), expected)
    for mode in ("fixed", "compact"):
        compiled = compile_for(forest, name, mode)
        np.testing.assert_array_equal(compiled.scores(x[:3]), compiled.code.forest.raw_scores(x[:3]))


def test_dumps_say_what_is_compiled() -> None:
    from compile.ranks import rank_forest  # noqa: PLC0415

    forest = frontends.load(lightgbm_model(1, "binary", "gbdt", 0.1, False, True).model).forest
    lines = list(forest.dump())
    assert sum("leaf [" in line for line in lines) == len(forest.leaf_values)
    assert sum(" ? " in line for line in lines) == (forest.feature >= 0).sum()
    ranks = rank_forest(forest)
    dumped = list(ranks.dump())
    thresholds = sum(len(s.keys) for s in ranks.numeric) + sum(c.rows.shape[1] for c in ranks.categorical)
    slots = len(ranks.numeric) + len(ranks.categorical)
    assert len(dumped) == slots + thresholds
