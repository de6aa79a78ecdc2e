"""scikit-learn's histogram gradient boosting to a Forest.

Semantics: sklearn/ensemble/_hist_gradient_boosting/_predictor.pyx. A category that training did not see goes
where missing values go; the ordinal encoder in front takes fractions for unseen.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from compile.forest import CategorySet, CodeRule, Forest
from compile.frontends.sklearn import feature_names, import_model
from compile.frontends.treelite import MAX_CODE, convert
from edge_runtime.errors import BadInput


def load(estimator: Any) -> tuple[Any, Forest]:
    """A Treelite model and a Forest of a HistGradientBoosting estimator; raw scores of `_raw_predict`."""
    known = _known_categories(estimator)
    model = import_model(estimator)
    forest = convert(
        model,
        source="sklearn",
        base_first=True,
        code_rule=CodeRule.EXACT,
        feature_names=feature_names(estimator),
    )
    if not known:
        return model, forest
    numbers: dict[CategorySet, int] = {}
    category = forest.category.copy()
    for node in np.nonzero(category >= 0)[0]:
        left = forest.category_sets[category[node]].left
        right = known[int(forest.feature[node])] - left
        chosen = CategorySet(left, right, bool(forest.nan_left[node]))
        category[node] = numbers.setdefault(chosen, len(numbers))
    return model, dataclasses.replace(forest, category=category, category_sets=tuple(numbers))


def _known_categories(estimator: Any) -> dict[int, frozenset[int]]:
    """Categories seen in training, by feature."""
    flags = getattr(estimator, "is_categorical_", None)
    if flags is None or not flags.any():
        return {}
    encoder = estimator._preprocessor.named_transformers_["encoder"]
    known = {}
    for feature, values in zip(np.nonzero(flags)[0], encoder.categories_, strict=True):
        if values.dtype.kind not in "iufb":
            raise BadInput(f"model: feature {feature} has categories that are no numbers; number them from 0")
        codes = values.astype(np.float64)
        codes = codes[~np.isnan(codes)]
        if (codes != np.trunc(codes)).any() or (codes < 0).any() or (codes > MAX_CODE).any():
            raise BadInput(
                f"model: feature {feature} has categories other than 0 .. {MAX_CODE}; number them from 0"
            )
        known[int(feature)] = frozenset(map(int, codes))
    return known
