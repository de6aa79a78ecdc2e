"""The benchmark's models, trained from a fixed seed: 24 float32 features of a noisy, partly correlated kind."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import xgboost
from numpy.typing import NDArray
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)

from compile import frontends

FEATURES = 24
TRAINING_ROWS = 20_000


def data(rows: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Features, four classes, and two classes that are another question."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 4, rows)
    hidden = rng.normal(size=(rows, 8))
    centre = np.random.default_rng(1).normal(size=(4, FEATURES)) * 0.7
    mix = np.random.default_rng(2).normal(size=(8, FEATURES))
    x = (centre[kind] + 0.5 * (hidden @ mix) + rng.normal(size=(rows, FEATURES))).astype(np.float32)
    x[:, ::3] = np.exp(0.5 * x[:, ::3])  # powers and widths are skewed
    x[:, 1::6] = np.round(x[:, 1::6] * 4) / 4  # counts
    binary = (hidden[:, 0] * hidden[:, 1] + hidden[:, 2] + 0.3 * rng.normal(size=rows) > 0).astype(np.int64)
    return x, kind, binary


@dataclass(frozen=True)
class Model:
    """A model: its file for all compilers, what the front end takes, and its library's raw scores.

    estimator: what peers take that read scikit-learn's objects: a pickle of ours, else `path`.
    """

    name: str
    path: Path
    source: Any
    raw: Callable[[NDArray[np.float32]], Any]
    estimator: Path
    outputs: int


def train(folder: Path) -> list[Model]:
    """All models. Files are for the peers; LightGBM and XGBoost load theirs too."""
    folder.mkdir(parents=True, exist_ok=True)
    x, kind, binary = data(TRAINING_ROWS, 0)
    common = {"learning_rate": 0.1, "verbose": -1, "seed": 0, "num_threads": 2, "deterministic": True}
    made = []
    for name, parameters, label, rounds in (
        ("lightgbm-mc", {"objective": "multiclass", "num_class": 4, "num_leaves": 31}, kind, 100),
        ("lightgbm-bin", {"objective": "binary", "num_leaves": 63}, binary, 200),
    ):
        path = folder / f"{name}.txt"
        if not path.exists():
            lightgbm.train(common | parameters, lightgbm.Dataset(x, label), rounds).save_model(path)
        booster = lightgbm.Booster(model_file=str(path))
        outputs = 4 if name.endswith("mc") else 1
        raw = partial(booster.predict, raw_score=True)
        made.append(Model(name, path, path, raw, path, outputs))
    path = folder / "xgboost-mc.json"
    parameters = {
        "objective": "multi:softprob",
        "num_class": 4,
        "max_depth": 5,
        "eta": 0.1,
        "seed": 0,
        "nthread": 2,
    }
    if not path.exists():
        xgboost.train(parameters, xgboost.DMatrix(x, kind), 100).save_model(path)
    booster = xgboost.Booster(model_file=str(path))

    def margins(rows: NDArray[np.float32]) -> Any:
        return booster.predict(xgboost.DMatrix(rows), output_margin=True)

    made.append(Model(path.stem, path, path, margins, path, 4))
    hist = HistGradientBoostingClassifier(
        max_iter=150, max_leaf_nodes=31, random_state=0, early_stopping=False
    )
    made.append(_sklearn(folder, "sklearn-hist", hist.fit(x, binary), hist.decision_function, 1))
    # One job: with more, scikit-learn adds the trees in the order in which its threads end, and its bits vary.
    forest = RandomForestClassifier(100, max_leaf_nodes=64, random_state=0, n_jobs=1)
    made.append(_sklearn(folder, "sklearn-rf", forest.fit(x, kind), forest.predict_proba, 4))
    return made


def _sklearn(
    folder: Path, name: str, estimator: Any, raw: Callable[[NDArray[np.float32]], Any], outputs: int
) -> Model:
    path, pickled = folder / f"{name}.tl", folder / f"{name}.pickle"
    path.write_bytes(frontends.load(estimator).checkpoint)
    pickled.write_bytes(pickle.dumps(estimator))
    return Model(name, path, estimator, raw, pickled, outputs)


def small(folder: Path) -> Iterator[tuple[str, Any]]:
    """A smaller model of each front end, for checks that build a hundred of them: name, what the front end takes."""
    x, kind, binary = data(4000, 0)
    common = {"verbose": -1, "seed": 0, "num_threads": 2, "deterministic": True}
    booster = lightgbm.train(
        common | {"objective": "multiclass", "num_class": 4, "num_leaves": 31}, lightgbm.Dataset(x, kind), 10
    )
    booster.save_model(folder / "small.txt")
    yield "lightgbm", folder / "small.txt"
    parameters = {"objective": "binary:logistic", "max_depth": 5, "seed": 0, "nthread": 2}
    xgboost.train(parameters, xgboost.DMatrix(x, binary), 40).save_model(folder / "small.json")
    yield "xgboost", folder / "small.json"
    yield "sklearn-hist", HistGradientBoostingClassifier(max_iter=40, random_state=0).fit(x, binary)
    yield (
        "sklearn-gb",
        GradientBoostingClassifier(n_estimators=40, max_depth=4, random_state=0).fit(x, binary),
    )
    yield "sklearn-rf", RandomForestClassifier(20, max_leaf_nodes=32, random_state=0).fit(x, kind)
