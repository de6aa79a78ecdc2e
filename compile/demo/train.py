"""The demo's trees, trained on remixed sweeps with the features that the device computes.

The shipped text holds what a prediction needs and nothing that tells of single recordings: LightGBM writes the
exact minimum and maximum of every feature, counts and weights of every leaf, and its parameters with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.features import compute, power_of
from compile.pipeline import Pipeline
from edge_runtime.errors import BadInput
from edge_runtime.recording import Recording, Split

HERE = Path(__file__).parent
ROUNDS = 40
PARAMETERS: Mapping[str, Any] = {
    "objective": "multiclass",
    "num_leaves": 15,
    "learning_rate": 0.15,
    "min_data_in_leaf": 40,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "use_missing": False,
    "seed": 1,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbose": -1,
}
"""Small leaves, bagging: what keeps trees from remembering single sweeps. Chosen by cross-validation by capture
inside the training split."""

_HEADER = ("version", "num_class", "num_tree_per_iteration", "label_index", "max_feature_idx", "objective")
_TREE = ("num_leaves", "num_cat", "split_feature", "threshold", "decision_type", "left_child", "right_child")


@dataclass(frozen=True, slots=True, eq=False)
class Sweeps:
    """A recording as arrays, a row a sweep.

    features: int32 (n, k). label: (n,), index into `labels`. kind: (n,), index into `labels` of the device that
    the capture holds, also where the sweep itself holds nothing. capture, split, origin: (n,), as in the recording.
    session: (n,), index. classes: how many of `labels` are classes; they come first.
    """

    features: NDArray[np.int32]
    label: NDArray[np.int64]
    kind: NDArray[np.int64]
    capture: NDArray[np.int64]
    session: NDArray[np.int64]
    split: NDArray[np.int64]
    origin: NDArray[np.int64]
    labels: Sequence[str]
    feature_names: Sequence[str]
    classes: int


def read(recording_file: Path, pipeline_file: Path, classes: int | None = None) -> Sweeps:
    """The sweeps of a recording with the features of a pipeline. Raises BadInput where either is not one.

    classes: how many there are; else the labels of the training split are the classes.
    """
    recording, pipeline = Recording.open(recording_file), Pipeline.load(pipeline_file)
    rows, captures = recording.rows, recording.captures
    labels = list(recording.labels)
    if classes is None:
        trained = {row.label for row in rows if row.split is Split.TRAIN}
        classes = len(trained)
        if trained != set(range(classes)) or classes < 2:
            raise BadInput(f"recording {recording_file}: no training sweeps of every class; derive it again")
    names = [*labels, *sorted({c["label"] for c in captures} - set(labels))]
    sessions = sorted({c["session"] for c in captures})
    capture = np.array([row.capture for row in rows])
    return Sweeps(
        compute(pipeline, power_of(recording)),
        np.array([row.label for row in rows]),
        np.array([names.index(c["label"]) for c in captures])[capture],
        capture,
        np.array([sessions.index(c["session"]) for c in captures])[capture],
        np.array([row.split for row in rows]),
        np.array([row.origin for row in rows]),
        names,
        pipeline.feature_names,
        classes,
    )


def fit(features: NDArray[np.int32], label: NDArray[np.int64], names: Sequence[str] | None = None) -> Any:
    """A LightGBM booster whose classes weigh the same, whatever their number of sweeps.

    features: (n, k). label: (n,), any integers; the classes are their distinct values in rising order.
    """
    import lightgbm  # noqa: PLC0415 (only who trains needs it)

    values, label = np.unique(label, return_inverse=True)
    weight = len(label) / len(values) / np.bincount(label)[label]
    data = lightgbm.Dataset(
        features.astype(np.float32), label, weight=weight, feature_name=list(names) if names else "auto"
    )
    return lightgbm.train(dict(PARAMETERS) | {"num_class": len(values)}, data, ROUNDS)


def shipped_text(text: str) -> str:
    """LightGBM's text of a model without what a prediction does not need.

    Left out: the extremes of the features, sizes, gains, counts and weights of nodes and leaves, importances,
    parameters (file paths are among them). LightGBM and Treelite load the rest.
    """
    head, *trees = text.partition("end of trees")[0].split("\nTree=")
    fields = dict(line.split("=", 1) for line in head.splitlines() if "=" in line)
    names = fields["feature_names"]
    lines = ["tree", *(f"{key}={fields[key]}" for key in _HEADER), f"feature_names={names}"]
    lines += [f"feature_infos={' '.join('none' for _ in names.split())}", ""]
    for number, tree in enumerate(trees):
        fields = dict(line.split("=", 1) for line in tree.splitlines() if "=" in line)
        kept = [f"{key}={fields[key]}" for key in (*_TREE, "leaf_value", "shrinkage") if key in fields]
        lines += [f"Tree={number}", *kept, "", ""]
    return "\n".join([*lines, "end of trees", ""])


def train(sweeps: Sweeps) -> str:
    """The text of the demo's model: trained on the training split, nothing else looked at."""
    rows = sweeps.split == Split.TRAIN
    booster = fit(sweeps.features[rows], sweeps.label[rows], sweeps.feature_names)
    return shipped_text(booster.model_to_string(num_iteration=-1))
