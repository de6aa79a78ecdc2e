"""scikit-learn's forests and gradient boosting to a Forest. They come as objects: no safe file holds them.

Semantics: features are float32, thresholds float64, `x <= t` (sklearn/tree/_tree.pyx); gradient boosting
starts its float64 sums at the initial estimator's answer (`_raw_predict` in sklearn/ensemble/_gb.py).
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np
import treelite.sklearn

from compile.forest import Floats, Forest
from compile.frontends.treelite import convert
from edge_runtime.errors import BadInput


def load(estimator: Any) -> tuple[Any, Forest]:
    """A Treelite model and a Forest of an estimator. Raises BadInput, or TreeliteError.

    Raw scores: `decision_function` (or `predict` of a regressor) for gradient boosting, `predict_proba` or
    `predict` for forests, the mean path length for an isolation forest.
    """
    model = import_model(estimator)
    boosted = type(estimator).__name__.startswith("GradientBoosting")
    forest = convert(model, source="sklearn", base_first=boosted, feature_names=feature_names(estimator))
    if type(estimator).__name__ == "IsolationForest":  # Treelite keeps the ratio in float32
        post = dataclasses.replace(forest.post, ratio_c=_path_length(estimator.max_samples_))
        forest = dataclasses.replace(forest, post=post)
    if type(estimator).__name__ in {"RandomForestClassifier", "ExtraTreesClassifier"}:
        forest = dataclasses.replace(forest, leaf_values=_leaf_shares(estimator, forest))
    return model, forest


def _leaf_shares(estimator: Any, forest: Forest) -> Floats:
    """The classes' shares in the leaves as the estimator has them; Treelite divides them by their sum again."""
    values = forest.leaf_values.copy()
    for number, member in enumerate(estimator.estimators_):
        tree = member.tree_
        stack = [(0, int(forest.roots[number]))]
        while stack:
            theirs, ours = stack.pop()
            if forest.feature[ours] < 0:
                values[forest.leaf[ours]] = tree.value[theirs].ravel()
            else:
                stack.append((int(tree.children_left[theirs]), int(forest.left[ours])))
                stack.append((int(tree.children_right[theirs]), int(forest.right[ours])))
    return values


def _path_length(samples: int) -> float:
    """Mean path length of an unsuccessful search in a tree of that many samples (`_average_path_length`)."""
    if samples <= 2:
        return float(samples == 2)
    return float(2 * (np.log(samples - 1) + np.euler_gamma) - 2 * (samples - 1) / samples)


def import_model(estimator: Any) -> Any:
    """Treelite's model of a fitted estimator. Raises BadInput that says what is not supported."""
    name = type(estimator).__name__
    try:
        with warnings.catch_warnings():
            # Treelite casts categories to int64, also the NaN among them, which it then does not use.
            warnings.simplefilter("ignore", RuntimeWarning)
            return treelite.sklearn.import_model(estimator)
    except (NotImplementedError, AssertionError) as e:
        raise BadInput(f"model {name}: {e or 'a form that Treelite does not read'}; train it without") from e
    except AttributeError as e:
        raise BadInput(f"model {name}: not fitted ({e}); call fit first") from e


def feature_names(estimator: Any) -> list[str] | None:
    """Names of the columns it was fitted on, where it knows them."""
    names = getattr(estimator, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]
