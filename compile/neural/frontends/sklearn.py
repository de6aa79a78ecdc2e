"""scikit-learn's MLPClassifier and MLPRegressor, alone or behind a StandardScaler in a Pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np

from compile.neural.frontends.builder import Builder
from compile.neural.graph import Graph
from edge_runtime.errors import BadInput

NAMES = ("MLPClassifier", "MLPRegressor")


def takes(model: object) -> bool:
    """Whether this front end is the one for a model object."""
    return type(model).__name__ in NAMES or (
        type(model).__name__ == "Pipeline" and type(_steps(model)[-1]).__name__ in NAMES
    )


def _steps(pipeline: Any) -> list[Any]:
    return [step for _, step in pipeline.steps]


def read(model: Any, where: str = "model") -> Graph:
    """The float graph of a fitted model: probabilities (one for two classes) of a classifier, else values."""
    *before, mlp = _steps(model) if type(model).__name__ == "Pipeline" else [model]
    if type(mlp).__name__ not in NAMES:
        raise BadInput(f"{where}: a {type(mlp).__name__}; the nearest that is supported: MLPClassifier")
    if not hasattr(mlp, "coefs_"):
        raise BadInput(f"{where}: the {type(mlp).__name__} is not fitted; call fit before building")
    b = Builder(where)
    x = b.input((mlp.coefs_[0].shape[0],))
    first = [w.T.astype(np.float64) for w in mlp.coefs_]
    bias = [v.astype(np.float64) for v in mlp.intercepts_]
    for step in reversed(before):
        first[0], bias[0] = _through(step, first[0], bias[0], where)
    last = len(first) - 1
    for n, (w, v) in enumerate(zip(first, bias, strict=True)):
        x = b.dense(x, w, v, f"dense{n}")
        kind = mlp.out_activation_ if n == last else mlp.activation
        x = b.activation(x, kind, f"activation{n}")
    return b.finish(x)


def _through(step: Any, w: Any, b: Any, where: str) -> tuple[Any, Any]:
    """The first layer for inputs that the scaler before it has not seen: w (x - mean) / scale + b."""
    if type(step).__name__ != "StandardScaler":
        raise BadInput(
            f"{where}: a {type(step).__name__} before the network; the nearest that is supported: StandardScaler"
        )
    if step.scale_ is not None:
        w = w / step.scale_
    return w, b if step.mean_ is None else b - w @ step.mean_
