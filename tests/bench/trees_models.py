"""The benchmark's models, trained from a fixed seed: 24 float32 features of a noisy, partly correlated kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import xgboost
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

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
    """A model: its file for all compilers, what the front end takes, and its library's raw scores."""

    name: str
    path: Path
    source: Any
    raw: Callable[[NDArray[np.float32]], Any]


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
        made.append(Model(name, path, path, lambda rows, b=booster: b.predict(rows, raw_score=True)))
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
    made.append(
        Model(
            path.stem,
            path,
            path,
            lambda rows, b=booster: b.predict(xgboost.DMatrix(rows), output_margin=True),
        )
    )
    estimator = HistGradientBoostingClassifier(
        max_iter=150, max_leaf_nodes=31, random_state=0, early_stopping=False
    )
    estimator.fit(x, binary)
    path = folder / "sklearn-hist.tl"
    path.write_bytes(frontends.load(estimator).checkpoint)
    made.append(Model(path.stem, path, estimator, estimator.decision_function))
    return made
