"""The demo's model: reproducible, small, without a trace of single sweeps; and its figures, against oracles."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from sklearn.metrics import f1_score

from compile import frontends
from compile.demo import report, train, train_command
from compile.demo.derive import CLASSES, NOTHING, SHIPPED
from compile.demo.run import MODEL, PIPELINE
from compile.pipeline import Pipeline
from edge_runtime.recording import Split


@pytest.fixture(scope="module")
def sweeps() -> train.Sweeps:
    return train.read(SHIPPED, PIPELINE)


@pytest.fixture(scope="module")
def figures(sweeps: train.Sweeps) -> dict[str, Any]:
    return report.figures(sweeps, MODEL.read_text(), Pipeline.load(PIPELINE))


def test_the_shipped_model_is_what_the_shipped_sweeps_train(sweeps: train.Sweeps) -> None:
    assert train.train(sweeps) == MODEL.read_text()


def test_the_test_split_has_no_part_in_training(sweeps: train.Sweeps) -> None:
    features = sweeps.features.copy()
    features[sweeps.split != Split.TRAIN] = 7
    labels = np.where(sweeps.split == Split.TRAIN, sweeps.label, 0)
    changed = train.Sweeps(
        **{n: getattr(sweeps, n) for n in sweeps.__slots__} | {"features": features, "label": labels}
    )
    assert train.train(changed) == MODEL.read_text()


def test_it_is_small() -> None:
    text = MODEL.read_text()
    leaves = [int(n) for n in re.findall(r"^num_leaves=(\d+)$", text, re.MULTILINE)]
    assert len(leaves) <= 400
    assert max(leaves) <= 15
    assert len(text) < 300_000


def test_the_text_holds_no_trace_of_a_single_sweep_and_loses_nothing() -> None:
    rng = np.random.default_rng(1)
    features = rng.integers(-3000, 3000, (600, 4)).astype(np.int32)
    label = (features[:, 0] > 0) + (features[:, 1] > 500).astype(np.int64)
    features[3, 2] = 7_654_321  # the canary: LightGBM's own text holds a feature's largest value
    booster = train.fit(features, label)
    full = booster.model_to_string()
    shipped = train.shipped_text(full)
    assert "7654321" in full.replace("e+06", "").replace(".", "")
    assert "7654321" not in shipped.replace(".", "")
    for word in ("leaf_count", "leaf_weight", "internal_", "split_gain", "parameters", "importances", "["):
        assert word in full
        assert word not in shipped
    probes = rng.integers(-4000, 4000, (2000, 4)).astype(np.float64)
    scores = booster.predict(probes, raw_score=True)
    assert (lightgbm.Booster(model_str=shipped).predict(probes, raw_score=True) == scores).all()


def test_compile_reads_the_shipped_text_as_lightgbm_does(sweeps: train.Sweeps) -> None:
    forest = frontends.load(MODEL).forest
    rows = sweeps.features[::50].astype(np.float32)
    assert list(forest.feature_names) == list(sweeps.feature_names)
    expected = lightgbm.Booster(model_str=MODEL.read_text()).predict(rows, raw_score=True)
    np.testing.assert_array_equal(forest.raw_scores(rows), expected)


def test_it_reaches_what_it_promises(figures: dict[str, Any]) -> None:
    """Regression limits; the figures themselves are printed by scripts/train_demo --report."""
    for part in ("remix", "recorded"):
        assert figures["held_out"][part]["accuracy"]["value"] >= 0.95
        assert figures["held_out"][part]["macro_f1"]["value"] >= 0.95
        assert set(figures["recall"][part]) == {*CLASSES, NOTHING}
        assert min(row["recall"] for row in figures["recall"][part].values()) >= 0.8
    assert figures["unknown"]["false_alarms"]["remix"] <= 0.1


def test_the_figures_agree_with_each_other(figures: dict[str, Any], sweeps: train.Sweeps) -> None:
    for part, rows in report.slices(sweeps).items():
        table = np.array(figures["confusion"][part])
        accuracy = figures["held_out"][part]["accuracy"]
        assert table.sum() == accuracy["scans"] == rows.sum()
        assert table.trace() / table.sum() == pytest.approx(accuracy["value"], abs=1e-6)
        low, high = accuracy["interval_95"]
        assert low < accuracy["value"] < high
        recall = [row["recall"] for row in figures["recall"][part].values()]
        np.testing.assert_allclose(recall, table.diagonal() / table.sum(axis=1), atol=1e-4)
    session = figures["by_session"]
    assert len(session["kinds"]) >= 5
    assert session["across sessions"]["told"]["value"] < session["across captures"]["told"]["value"]


def test_macro_f1_is_scikit_learns() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        label, found = rng.integers(0, 6, (2, 40))
        expected = f1_score(label, found, average="macro", labels=np.unique(label), zero_division=0)
        assert report.macro_f1(label, found) == pytest.approx(expected)


def test_folds_keep_captures_whole_and_spread_kinds() -> None:
    rng = np.random.default_rng(3)
    capture = np.sort(rng.integers(0, 30, 500))
    kind = capture % 3
    fold = report.folds(capture, kind)
    for c in np.unique(capture):
        assert len(np.unique(fold[capture == c])) == 1
    for k in range(3):
        assert set(fold[kind == k]) == set(range(report.FOLDS))


def test_the_command_reports_draws_and_judges_other_recordings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], figures: dict[str, Any]
) -> None:
    pytest.importorskip(
        "matplotlib", reason="--plot needs matplotlib, which no extra of this project installs"
    )
    plot = tmp_path / "confusion.png"
    assert train_command.main(["--json", "--held-out", str(SHIPPED), "--plot", str(plot)]) == 0
    assert json.loads(capsys.readouterr().out) == figures
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "\n".join(report.lines(figures)).count("recall") == 2 * (len(CLASSES) + 1)


@pytest.mark.parametrize(
    "options",
    [
        ("--report", "--model", "nowhere.txt"),
        ("--report", "--model", str(PIPELINE)),
        ("--recording", "nowhere.scans"),
        ("--pipeline", "nowhere.toml"),
        ("--model", "no/folder/trees.txt"),
        ("--held-out", str(PIPELINE)),
        ("--nonsense",),
    ],
)
def test_bad_input_is_one_line(options: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    assert train_command.main(options) == 2
    out, error = capfd.readouterr()
    assert out == ""
    assert error.startswith("train_demo: ")
    assert error.count("\n") == 1
