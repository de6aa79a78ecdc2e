"""XGBoost's JSON and UBJ models (also of a Booster) to a Forest.

XGBoost sums float32, from the base score on. It keeps the base score as a probability or mean and transforms
it in float32 (`ProbToMargin` in its objectives); Treelite does so in float64, so it is done again here.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import math
from typing import Any

import numpy as np
from treelite.frontend import from_xgboost_json, from_xgboost_ubjson

from compile.forest import CodeRule, Floats, Forest
from compile.frontends import ubjson
from compile.frontends.treelite import convert
from edge_runtime.errors import BadInput


def raw_bytes(model: Any) -> bytes:
    """UBJ of a Booster, or of an estimator, cut at its best iteration as its predict does."""
    if hasattr(model, "get_booster"):
        booster = model.get_booster()
        best = getattr(model, "best_iteration", None) if booster.attr("best_iteration") else None
        model = booster if best is None else booster[: best + 1]
    return bytes(model.save_raw(raw_format="ubj"))


def load(data: bytes) -> tuple[Any, Forest]:
    """A Treelite model and a Forest from a model's bytes. Raises BadInput, or TreeliteError."""
    try:
        is_json = data[1:2] in {b'"', b" ", b"\n", b"\r", b"\t"}
        document = json.loads(data) if is_json else ubjson.loads(data)
        learner = document["learner"]
        objective = str(learner["objective"]["name"])
        names = learner.get("feature_names") or None
    except (ValueError, KeyError, TypeError) as e:
        raise BadInput(f"model: JSON, but no XGBoost model ({e}); save it with Booster.save_model") from e
    model = from_xgboost_json(data) if is_json else from_xgboost_ubjson(data)
    header = model.get_header_accessor()
    base = np.asarray(header.get_field("base_scores"), np.float64)
    forest = convert(
        model,
        source="xgboost",
        base=_margins(base, objective),
        base_first=True,
        code_rule=CodeRule.FLOOR,
        feature_names=names,
    )
    return model, forest


LOGIT = ("binary:logistic", "reg:logistic")
LOG = ("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft")


def _margins(base: Floats, objective: str) -> Floats:
    """Treelite's base margins, brought to the float32 that XGBoost computes from the same base score."""
    if objective in LOGIT:
        return np.array([_logit_single(m) for m in base])
    if objective in LOG:
        return np.array([_log_single(np.float32(math.exp(m))) for m in base])
    return base.astype(np.float32).astype(np.float64)


def _logit_single(margin: float) -> float:
    # The base score was a float32 probability: undo Treelite's logit, round, and take XGBoost's.
    probability = np.float32(1 / (1 + math.exp(-margin)))
    odds = np.float32(1) / probability - np.float32(1)
    return -_log_single(odds)


def _log_single(x: np.float32) -> float:
    """The C library's logf, which is what XGBoost calls; it is not always the nearest float32."""
    name = ctypes.util.find_library("m")
    if name is None:
        return float(np.float32(math.log(x)))
    logf = ctypes.CDLL(name).logf
    logf.argtypes, logf.restype = [ctypes.c_float], ctypes.c_float
    return float(logf(float(x)))
