"""LightGBM's text model (also of a Booster) to a Forest: what Treelite's import loses is read here.

Semantics: `Tree::NumericalDecision` and `Tree::CategoricalDecision` in LightGBM's tree.h, and its predictor,
which takes values not further than 1e-35 from zero for zero.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from treelite.frontend import load_lightgbm_model

from compile.forest import ZERO_KEY, CodeRule, Forest, Ints
from compile.frontends.treelite import convert
from edge_runtime.errors import BadInput

MISSING_ZERO = 1
"""Bits 2 and 3 of a node's `decision_type`: 0 none, 1 zero, 2 NaN."""


def load(text: str) -> tuple[Any, Forest]:
    """A Treelite model and a Forest from a LightGBM text model. Raises BadInput, or TreeliteError."""
    _refuse_linear(text)
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        model = load_lightgbm_model(Path(file.name))
    names = re.search(r"^feature_names=(.*)$", text, re.MULTILINE)
    forest = convert(
        model,
        source="lightgbm",
        code_rule=CodeRule.TRUNCATE,
        feature_names=names.group(1).split() if names else None,
    )
    keys = forest.threshold_key
    # Zero is flushed before the comparison: a threshold within 1e-35 of zero divides at that range's edge.
    keys = np.where((keys >= -ZERO_KEY) & (keys < 0), -ZERO_KEY - 1, keys)
    keys = np.where((keys >= 0) & (keys < ZERO_KEY), ZERO_KEY, keys).astype(np.int32)
    changes: dict[str, Any] = {"threshold_key": keys}
    if forest.divisor != 1:  # random forests: predict(raw_score=True) is the sum
        changes |= {"divisor": 1.0, "post": dataclasses.replace(forest.post, divisor=forest.divisor)}
    types = _per_tree(text, "decision_type")
    if any((kinds >> 2 & 3 == MISSING_ZERO).any() for kinds in types):
        changes |= _zero_missing(text, forest, types)
    return model, dataclasses.replace(forest, **changes)


def _refuse_linear(text: str) -> None:
    """Raises BadInput for linear leaves, at the first: the tree, and the leaf's number in LightGBM's text."""
    for tree, (linear, features) in enumerate(
        zip(_per_tree(text, "is_linear"), _per_tree(text, "num_features"), strict=True)
    ):
        if linear.any():
            leaf = int(np.argmax(features > 0)) if len(features) else 0
            raise BadInput(
                f"model: tree {tree}, leaf {leaf} is a linear function of features; train with linear_tree=false"
            )


def _per_tree(text: str, key: str) -> list[Ints]:
    """The integers of one field of every tree; an empty array for a tree without splits."""
    found = []
    for block in text.split("\nTree=")[1:]:
        line = re.search(rf"^{key}=(.*)$", block, re.MULTILINE)
        found.append(np.array(line.group(1).split() if line else [], np.int32))
    return found


def _zero_missing(text: str, forest: Forest, types: list[Ints]) -> dict[str, NDArray[np.bool_]]:
    """Nodes with `missing_type` zero, and where missing goes there, in the Forest's numbering."""
    zero, nan_left = forest.zero_missing.copy(), forest.nan_left.copy()
    lefts, rights = _per_tree(text, "left_child"), _per_tree(text, "right_child")
    for tree, kinds in enumerate(types):
        if len(kinds):
            for theirs, ours in _pairs(forest, int(forest.roots[tree]), lefts[tree], rights[tree]):
                is_numeric = not kinds[theirs] & 1
                if is_numeric and kinds[theirs] >> 2 & 3 == MISSING_ZERO:
                    zero[ours], nan_left[ours] = True, bool(kinds[theirs] & 2)
    return {"zero_missing": zero, "nan_left": nan_left}


def _pairs(forest: Forest, root: int, lefts: Ints, rights: Ints) -> Iterator[tuple[int, int]]:
    """Pairs of LightGBM's split number and our node, by walking both trees together."""
    stack = [(0, root)]
    while stack:
        theirs, ours = stack.pop()
        yield theirs, ours
        for child, node in ((lefts[theirs], forest.left[ours]), (rights[theirs], forest.right[ours])):
            if child >= 0:
                stack.append((int(child), int(node)))
