"""The rows of an .npz for a network alone: its features, which are held out, and what is known of each."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compile.neural.graph import Array
from compile.neural.network import Rows
from edge_runtime.errors import BadInput
from edge_runtime.recording import Origin, Split


def load_rows(path: Path) -> NDArray[np.float32]:
    """The `features` of an .npz, n x k. Raises BadInput where there are none."""
    return _features(_arrays(path), path)


def load_split(path: Path) -> Rows:
    """The rows to calibrate on and those held out, with slices.

    Optional in the .npz, all of n: `split` (recording.Split: its calibration and test rows are taken; without it
    every other row is held out), `label` (whole numbers, -1 for none; `classes` may name them), `origin`
    (recording.Origin), `slice` (strings, any grouping of the rows). Agreement is reported for each value of the last
    three. Raises BadInput where one of them does not fit.
    """
    arrays = _arrays(path)
    rows = _features(arrays, path)
    for name in ("split", "label", "origin", "slice"):
        if name in arrays and arrays[name].shape != (len(rows),):
            raise BadInput(
                f"data {path}: {name} is {arrays[name].shape} for {len(rows)} features; give one a row"
            )
        if name in arrays and arrays[name].dtype.kind not in ("U" if name == "slice" else "iu"):
            raise BadInput(
                f"data {path}: {name} is {arrays[name].dtype}; give strings to slice, else whole numbers"
            )
    calibration = np.arange(len(rows)) % 2 == 0
    held_out = ~calibration
    if "split" in arrays:
        split = arrays["split"]
        calibration, held_out = split == Split.CALIBRATION, split == Split.TEST
        if not calibration.any() or not held_out.any():
            raise BadInput(
                f"data {path}: has no row to calibrate or to test on; give both splits, or no `split`"
            )
    slices = {name: chosen[held_out] for name, chosen in _slices(arrays)}
    return Rows(rows[calibration], rows[held_out], slices)


def _slices(arrays: dict[str, Array]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    classes = arrays["classes"].tolist() if "classes" in arrays else []
    label = arrays.get("label", np.empty(0, np.int16))
    for k in np.unique(label[label >= 0]).tolist():
        yield f"class {classes[k] if k < len(classes) else k}", label == k
    origin = arrays.get("origin", np.empty(0, np.uint8))
    for k in np.unique(origin).tolist():
        known = k in Origin.__members__.values()
        yield f"origin {Origin(k).name.lower() if known else k}", origin == k
    for name in np.unique(arrays.get("slice", np.empty(0, "U1"))).tolist():
        yield f"slice {name}", arrays["slice"] == name


def _arrays(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as z:
            if "features" not in z.files:
                raise BadInput(
                    f"data {path}: holds no `features`, only {', '.join(z.files)}; give n x inputs"
                )
            wanted = ("features", "split", "label", "classes", "origin", "slice")
            return {name: z[name] for name in wanted if name in z.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as e:
        raise BadInput(f"data {path}: cannot be read as .npz ({e}); write it with numpy.savez") from e


def _features(arrays: dict[str, Array], path: Path) -> NDArray[np.float32]:
    given = arrays["features"]
    if given.dtype.kind not in "fiub":
        raise BadInput(f"data {path}: features are {given.dtype}; give numbers")
    if given.ndim < 2 or len(given) < 2:
        raise BadInput(f"data {path}: features are {given.shape}; give two rows or more")
    return np.asarray(given.reshape(len(given), -1), np.float32)
