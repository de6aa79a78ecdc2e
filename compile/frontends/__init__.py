"""Front ends: a trained model of any library, through Treelite, to one Forest.

`load` takes a file or a live object. Files are never unpickled: LightGBM's text, XGBoost's JSON and UBJ, and
Treelite's checkpoints are parsed; scikit-learn has no such format, so its models come as objects.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treelite.core import TreeliteError

from compile.forest import Forest
from compile.frontends import hist, lightgbm, sklearn, xgboost
from compile.frontends.treelite import checkpoint_of, convert, deserialize
from edge_runtime.errors import BadInput

READABLE = "a LightGBM text model, an XGBoost .json or .ubj, or a Treelite checkpoint (.tl)"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in both forms: what is compiled, and the Treelite checkpoint that GTIL can run.

    checkpoint: Treelite's serialised form, or b"" where GTIL would answer something else than the library
        (LightGBM's `zero_as_missing`, scikit-learn's categorical features).
    checkpoint_exact: whether GTIL's raw scores are the library's bit for bit; else they differ in the last
        digits: GTIL adds the base score after the trees and the library before them, and Treelite divides
        the shares of classes in a leaf by their sum.
    """

    forest: Forest
    checkpoint: bytes
    checkpoint_exact: bool


def load(model: Path | str | object) -> LoadedModel:
    """Load a model from a file, or from a library's object. Raises BadInput where it is none we can read."""
    try:
        if isinstance(model, str | Path):
            return _load_file(Path(model))
        return _load_object(model)
    except TreeliteError as e:
        raise BadInput(f"model {_name(model)}: {_first_line(e)}; give {READABLE}") from e


def _load_file(path: Path) -> LoadedModel:
    try:
        data = path.read_bytes()
    except OSError as e:
        raise BadInput(f"model {path}: {e.strerror}; give {READABLE}") from e
    if data[:5] == b"tree\n" or data[:6] == b"tree\r\n":
        return _finish(*lightgbm.load(_text(path, data)))
    if data[:1] == b"{":
        return _finish(*xgboost.load(data))
    if data[:2] in {b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"}:
        raise BadInput(f"model {path}: is a pickle, which runs code when opened; give {READABLE}")
    treelite_model = deserialize(data)
    return _finish(treelite_model, convert(treelite_model, source="treelite"))


def _load_object(model: object) -> LoadedModel:
    module = type(model).__module__.split(".")[0]
    if module == "lightgbm":
        booster: Any = getattr(model, "booster_", model)
        return _finish(*lightgbm.load(booster.model_to_string()))
    if module == "xgboost":
        return _finish(*xgboost.load(xgboost.raw_bytes(model)))
    if module == "sklearn":
        if type(model).__name__.startswith("HistGradientBoosting"):
            return _finish(*hist.load(model))
        return _finish(*sklearn.load(model))
    if module == "treelite":
        return _finish(model, convert(model, source="treelite"))
    raise BadInput(f"model {_name(model)}: not a tree ensemble that is known; give {READABLE}, or the object")


def _finish(treelite_model: Any, forest: Forest) -> LoadedModel:
    strange = bool(forest.zero_missing.any()) or (forest.source == "sklearn" and bool(forest.category_sets))
    checkpoint = b"" if strange else checkpoint_of(treelite_model)
    normalised = forest.source == "sklearn" and forest.leaf_values.shape[1] > 1
    exact = bool(checkpoint) and not normalised and (not forest.base_first or not forest.base.any())
    return LoadedModel(forest, checkpoint, exact)


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise BadInput(f"model {path}: not UTF-8 at byte {e.start}; save the LightGBM model again") from e


def _name(model: object) -> str:
    return str(model) if isinstance(model, str | Path) else type(model).__name__


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text.split("Check failed: ")[-1]


if sys.byteorder != "little":  # the arrays of Treelite are read in native order, artifacts are little-endian
    raise ImportError("compile runs on little-endian machines only")
