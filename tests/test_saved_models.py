"""Every front end's saved model, and scikit-learn's live ones, to a bundle on all targets that `verify` accepts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest

import compile  # noqa: A004 - the package, whose `build` is called
from compile import frontends
from compile.check import verify_bundle
from compile.cli import main
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BadInput
from tests.tree_models import Trained, data, lightgbm_model, rows_for, sklearn_model, xgboost_model

ALL = ("host", "aarch64", "armv7", "cortex-m4", "cortex-m0")


def _checkpoint(made: Trained, path: Path) -> None:
    path.write_bytes(frontends.load(made.model).checkpoint)


def _save(made: Trained, path: Path) -> None:
    made.model.save_model(path)


SAVED: dict[str, tuple[Callable[[], Trained], Callable[[Trained, Path], None]]] = {
    "lightgbm.txt": (lambda: lightgbm_model(1, "multiclass", "gbdt", 0.1, True, True), _save),
    "lightgbm-rf.txt": (lambda: lightgbm_model(2, "binary", "rf", 0.1, False, False), _save),
    "xgboost.json": (lambda: xgboost_model(3, "binary:logistic", "gbtree", 0.1, False, 0.37), _save),
    "xgboost.ubj": (lambda: xgboost_model(4, "multi:softprob", "dart", 0.1, True, None), _save),
    "checkpoint.tl": (lambda: lightgbm_model(5, "regression", "dart", 0.0, False, False), _checkpoint),
}


@pytest.mark.parametrize("name", SAVED)
def test_a_saved_model_builds_and_verifies_on_every_target(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, save = SAVED[name]
    made = make()
    save(made, tmp_path / name)
    path = tmp_path / "b.edge"
    assert main(["build", str(tmp_path / name), "--targets", ",".join(ALL), "-o", str(path)]) == 0
    assert main(["verify", str(path)]) == 0
    assert capsys.readouterr().out.count("calls equal to the bit") == len(ALL)
    if name != "checkpoint.tl":  # that one is held to Treelite's reading, in test_trees
        _answers_as_the_library(Bundle.open(path), made)


@pytest.mark.parametrize(
    "name",
    [
        "GradientBoostingClassifier",
        "HistCategorical",
        "RandomForestClassifier",
        "ExtraTreesRegressor",
        "IsolationForest",
    ],
)
def test_a_live_scikit_learn_model_does_too(name: str) -> None:
    if name == "IsolationForest":
        model: Any = IsolationForest(n_estimators=5, random_state=0).fit(data(3, 0)[0])
        made = None
    else:
        made = sklearn_model(6, name, 0.0)
        model = made.model
    bundle = compile.build(model, targets=ALL)
    assert {p.target for p in verify_bundle(bundle, None, 50)} == set(bundle.manifest["artifacts"])
    if made is not None:
        _answers_as_the_library(bundle, made)


def _answers_as_the_library(bundle: Bundle, made: Trained) -> None:
    forest = frontends.load(made.model).forest
    rows = rows_for(forest, made, 7, 40)
    np.testing.assert_array_equal([bundle.scores(row.tolist()) for row in rows], made.scores(rows))
    for artifact in bundle.manifest["artifacts"].values():
        assert artifact["mode"] == "exact"
        bound = artifact["cost"]["bound"]
        assert bound.get("because") or artifact["cost"]["model"]["maximum"] <= bound["instructions"]


def test_the_command_line_opens_no_pickle(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(BadInput, match="is a pickle"):
        compile.build(tmp_path / "m.pkl")
