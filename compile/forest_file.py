"""A Forest in a bundle: what `verify` compares every artifact with, bit for bit.

The Treelite checkpoint beside it is for GTIL; it cannot hold everything that the libraries do (LightGBM takes
values up to 1e-35 for zero before it compares), so it is no oracle. The counts go along: the emitted code is laid out
by them, and only who knows its layout makes rows that reach every test in it (witness.py).
"""

from __future__ import annotations

import io
import json
from dataclasses import fields
from typing import Any

import numpy as np

from compile.features import npz_bytes
from compile.forest import CategorySet, CodeRule, Forest, PostTransform


def to_bytes(forest: Forest) -> bytes:
    """The file: a deterministic `.npz` of the arrays, the rest as JSON in its member `rest`."""
    arrays: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for field in fields(Forest):
        value = getattr(forest, field.name)
        (arrays if isinstance(value, np.ndarray) else rest)[field.name] = value
    rest["category_sets"] = [[sorted(c.left), sorted(c.right), c.other_left] for c in forest.category_sets]
    rest["code_rule"] = forest.code_rule.name
    rest["post"] = [getattr(forest.post, field.name) for field in fields(PostTransform)]
    rest["divisor"] = forest.divisor.hex()
    arrays["rest"] = np.frombuffer(json.dumps(rest, sort_keys=True).encode(), np.uint8)
    return npz_bytes(arrays)


def from_bytes(data: bytes) -> Forest:
    """The forest that `to_bytes` wrote."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    rest = json.loads(arrays.pop("rest").tobytes())
    return Forest(
        **arrays,
        feature_names=tuple(rest["feature_names"]),
        n_outputs=rest["n_outputs"],
        category_sets=tuple(
            CategorySet(frozenset(left), frozenset(right), other)
            for left, right, other in rest["category_sets"]
        ),
        code_rule=CodeRule[rest["code_rule"]],
        base_first=rest["base_first"],
        divisor=float.fromhex(rest["divisor"]),
        single=rest["single"],
        post=PostTransform(*rest["post"]),
        source=rest["source"],
    )
