"""Small models of every front end, with the raw scores of their own libraries: what forests are tested against."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
import xgboost
from numpy.typing import NDArray
from sklearn import ensemble
from threadpoolctl import threadpool_limits

from compile.emit.trees import TreeCode, emit
from compile.emulate import Machine, Out
from compile.forest import Forest, key_to_float
from compile.targets import target
from compile.toolchain import build

Rows = NDArray[np.float32]
Scores = NDArray[np.float64]
HEADER = """\
#include <stdint.h>
#define EDGE_API __attribute__((visibility("default")))
EDGE_API int edge_model_scores(const float *features, double *raw_scores);
"""
INTEGER_ENTRY = """
EDGE_API void edge_trees_test(const int32_t *features, double *raw_scores)
{
    edge_trees_i32(features, raw_scores);
}
"""
FEATURES, CATEGORICAL = 6, 3
SPECIAL = np.array(
    [0.0, -0.0, 1e-45, -1e-45, 1e-36, 1e-35, -1e-35, 0.5, -0.5, -1, 3.5, 7, 13, 100, 65_536, 3e9, -3e9, 3e38],
    np.float32,
)


@dataclass(frozen=True)
class Trained:
    """A model, its library's raw scores, and what inputs that library takes."""

    model: Any
    raw: Callable[[Rows], Any]
    nan: bool = True
    infinite: bool = True

    def scores(self, rows: Rows) -> Scores:
        """The library's raw scores, float64 (rows, outputs)."""
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore")
            return np.asarray(self.raw(rows), np.float64).reshape(len(rows), -1)


def data(seed: int, nan: float, rows: int = 400) -> tuple[Rows, NDArray[np.int64]]:
    """Features (the fourth categorical, some values zero, some missing) and three classes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, FEATURES)).astype(np.float32)
    x[:, CATEGORICAL] = rng.integers(0, 12, rows)
    x[:, 1] = np.round(x[:, 1] * 2)
    y = (x[:, 0] * x[:, 1] + x[:, 2] > 0).astype(np.int64) + np.isin(x[:, CATEGORICAL], [1, 4, 5])
    y = np.minimum(y + (rng.random(rows) < 0.1), 2)
    x[rng.random(x.shape) < 0.1] = 0
    x[rng.random(x.shape) < nan] = np.nan
    return x, y


def rows_for(forest: Forest, trained: Trained, seed: int, rows: int) -> Rows:
    """Rows on and beside thresholds, special values and ordinary ones, as far as the library takes them."""
    rng = np.random.default_rng(seed)
    out, _ = data(seed + 1, 0, rows)
    for feature in range(forest.n_features):
        keys = np.unique(forest.threshold_key[(forest.feature == feature) & (forest.category < 0)])
        edges = np.concatenate([keys - 1, keys, keys + 1]) if len(keys) else np.zeros(1, np.int64)
        points = np.array([key_to_float(int(k)) for k in edges], np.float32)
        picked = rng.random(rows)
        out[:, feature] = np.where(picked < 0.5, rng.choice(points, rows), out[:, feature])
        out[:, feature] = np.where(picked > 0.85, rng.choice(SPECIAL, rows), out[:, feature])
        if trained.nan:
            out[picked > 0.95, feature] = np.nan
        if not trained.infinite:
            out[np.isinf(out[:, feature]), feature] = 0
        else:
            out[(picked > 0.82) & (picked < 0.85), feature] = rng.choice([np.inf, -np.inf])
    return out


def lightgbm_model(
    seed: int, objective: str, boosting: str, nan: float, zero: bool, categorical: bool
) -> Trained:
    """A LightGBM booster."""
    x, y = data(seed, nan)
    parameters: dict[str, Any] = {
        "objective": objective, "boosting": boosting, "zero_as_missing": zero, "verbose": -1, "seed": seed,
        "num_leaves": 12, "min_data_in_leaf": 5, "min_data_per_group": 5, "cat_smooth": 1, "num_threads": 1,
    }  # fmt: skip
    if objective == "multiclass":
        parameters["num_class"] = 3
    if boosting == "rf":
        parameters |= {"bagging_freq": 1, "bagging_fraction": 0.5}
    label = y if objective != "binary" else (y > 0)
    columns: Any = [CATEGORICAL] if categorical else []
    booster = lightgbm.train(
        parameters, lightgbm.Dataset(x.astype(np.float64), label, categorical_feature=columns), 6
    )
    return Trained(booster, lambda rows: booster.predict(rows, raw_score=True, num_threads=1))


def xgboost_model(
    seed: int, objective: str, boosting: str, nan: float, categorical: bool, base: float | None
) -> Trained:
    """An XGBoost booster."""
    x, y = data(seed, nan)
    if categorical:
        x[:, CATEGORICAL] = np.nan_to_num(x[:, CATEGORICAL])
    label = {"multi:softprob": y, "binary:logistic": y > 0, "binary:logitraw": y > 0}.get(objective, y + 1)
    types = ["c" if categorical and i == CATEGORICAL else "q" for i in range(FEATURES)]
    parameters: dict[str, Any] = {
        "objective": objective,
        "booster": boosting,
        "seed": seed,
        "max_depth": 4,
        "nthread": 1,
    }
    if objective == "multi:softprob":
        parameters["num_class"] = 3
    if base is not None:
        parameters["base_score"] = base
    if boosting == "dart":
        parameters["rate_drop"] = 0.3

    def matrix(rows: Rows, label: Any = None) -> xgboost.DMatrix:
        return xgboost.DMatrix(rows, label, feature_types=types, enable_categorical=categorical, nthread=1)

    booster = xgboost.train(parameters, matrix(x, label), 6)
    return Trained(booster, lambda rows: booster.predict(matrix(rows), output_margin=True), infinite=False)


def sklearn_model(seed: int, name: str, nan: float) -> Trained:
    """A scikit-learn ensemble, by its class's name; `HistCategorical` for one with a categorical feature."""
    accepts_nan = not name.startswith("GradientBoosting")
    x, y = data(seed, nan if accepts_nan else 0)
    options: dict[str, Any] = {"random_state": seed}
    hist = name.startswith("Hist")
    options |= {"max_iter": 5, "max_leaf_nodes": 12} if hist else {"n_estimators": 5, "max_depth": 5}
    if name == "HistCategorical":
        name, options["categorical_features"] = "HistGradientBoostingClassifier", [CATEGORICAL]
    with threadpool_limits(1):  # on a busy machine OpenMP's threads wait for each other by spinning
        made = getattr(ensemble, name)(**options).fit(x, y)
    raw = next(
        getattr(made, m) for m in ("decision_function", "predict_proba", "predict") if hasattr(made, m)
    )
    takes_infinities = hist and "categorical_features" not in options
    return Trained(made, raw, nan=hist or (accepts_nan and nan > 0), infinite=takes_infinities)


@dataclass(frozen=True)
class Compiled:
    """A model's code on its emulated target."""

    code: TreeCode
    machine: Machine
    outputs: int
    artifact: bytes

    def scores(self, rows: Rows) -> Scores:
        """Raw scores of float32 rows."""
        return self._run("edge_model_scores", [r.tobytes() for r in np.ascontiguousarray(rows, np.float32)])

    def integer_scores(self, rows: NDArray[np.int32]) -> Scores:
        """Raw scores of integer rows."""
        return self._run("edge_trees_test", [r.tobytes() for r in np.ascontiguousarray(rows, np.int32)])

    def _run(self, symbol: str, rows: list[bytes]) -> Scores:
        out = Out(8 * self.outputs)
        return np.array([np.frombuffer(self.machine.call(symbol, r, out).outputs[0]) for r in rows])


def compile_for(forest: Forest, name: str, mode: str = "exact", rows: Rows | None = None) -> Compiled:
    """Emit, build and load a forest for a target."""
    code = emit(forest, target(name), mode=mode, data=rows)
    built = artifact(code, name)
    return Compiled(code, Machine(target(name), built), forest.n_outputs, built)


def artifact(code: TreeCode, name: str) -> bytes:
    """The built model, with an entry point for integer features."""
    return build({"m.c": HEADER + code.c + INTEGER_ENTRY, **code.files}, target(name))
