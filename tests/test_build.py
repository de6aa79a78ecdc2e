"""A model to a bundle and back: deterministic, exact, and refused by `verify` once a byte of code is changed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import lightgbm
import numpy as np
import pytest

from compile import forest_file, frontends
from compile.build import build, verify_bundle
from compile.demo.run import MODEL, PIPELINE, build_demo
from compile.matrix import Matrix
from edge_runtime.bundle import Bundle, pack
from edge_runtime.errors import CheckFailed, EdgeError
from tests.conftest import cli

ALL = ("host", "aarch64", "armv7", "cortex-m4", "cortex-m0")


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The demo's bundle for all targets; building it proves them equal."""
    return Bundle.open(build_demo(tmp_path_factory.mktemp("all"), ALL))


@pytest.fixture(scope="module")
def matrix(everywhere: Bundle) -> Matrix:
    return Matrix.load(Path(everywhere.origin).with_name("demo.npz"))


def test_two_builds_are_the_same_bytes(demo_path: Path, tmp_path: Path) -> None:
    assert build_demo(tmp_path, ["host", "aarch64"]).read_bytes() == demo_path.read_bytes()


def test_raw_scores_are_the_training_librarys_to_the_bit(demo_bundle: Bundle) -> None:
    booster = lightgbm.Booster(model_file=MODEL)
    rng = np.random.default_rng(3)
    rows = rng.integers(-12_000, 12_000, (300, booster.num_feature())).astype(np.float32)
    rows[rng.random(rows.shape) < 0.02] = np.nan
    expected = booster.predict(rows, raw_score=True)
    assert [demo_bundle.scores(row.tolist()) for row in rows] == expected.tolist()


def test_verify_accepts_what_was_built(everywhere: Bundle, matrix: Matrix) -> None:
    rows = verify_bundle(everywhere, matrix, 60)
    assert {r.target for r in rows} == {"x86_64", "aarch64", "armv7", "cortex-m4", "cortex-m0"}
    assert all(r.oracle_rows > 3000 and r.calls > r.oracle_rows for r in rows)


def test_a_model_alone_takes_features_and_gives_scores(tmp_path: Path) -> None:
    bundle = build(MODEL, targets=["host"])
    bundle.save(tmp_path / "alone.edge")
    booster = lightgbm.Booster(model_file=MODEL)
    row = np.arange(booster.num_feature(), dtype=np.float32)
    assert (
        Bundle.open(tmp_path / "alone.edge").scores(row.tolist())
        == booster.predict([row], raw_score=True)[0].tolist()
    )
    with pytest.raises(EdgeError, match="without a pipeline"):
        _ = bundle.axis


@pytest.mark.parametrize("mode", ["fixed", "compact"])
def test_fixed_point_keeps_every_decision_on_its_data(mode: str, demo_path: Path, tmp_path: Path) -> None:
    """Built with the same scans, verified on every target against what the fixed-point leaves add up to."""
    data = demo_path.with_name("demo.npz")
    bundle = build(MODEL, pipeline=PIPELINE, data=data, targets=["host", "aarch64", "cortex-m4"], mode=mode)
    matrix = Matrix.load(data)
    assert all(parity.oracle_rows for parity in verify_bundle(bundle, matrix, 40))
    exact = frontends.load(MODEL).forest.raw_scores(matrix.features).argmax(axis=1)
    kept = forest_file.from_bytes(bundle.entry("model.forest")).raw_scores(matrix.features).argmax(axis=1)
    assert (kept == exact).all()
    for artifact in bundle.manifest["artifacts"].values():
        assert artifact["mode"] == mode
        assert artifact["worst_error"] > 0


def test_extract_gives_a_firmware_its_source_and_header(everywhere: Bundle, tmp_path: Path) -> None:
    everywhere.save(tmp_path / "b.edge")
    command = cli(
        "extract", tmp_path / "b.edge", "--target", "cortex-m4", "-o", tmp_path / "m4", module="compile.cli"
    )
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    names = {Path(line).name for line in done.stdout.split()}
    assert {"edge_model.h", "edge_model.c", "edge_model.o"} <= names
    # A firmware's own compiler takes it as it is.
    source = tmp_path / "m4" / "edge_model.c"
    subprocess.run(
        ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-c", source, "-o", tmp_path / "x.o"], check=True
    )


def test_inspect_shows_pipeline_cost_and_accuracy(demo_path: Path) -> None:
    def out(*options: str) -> str:
        command = cli("inspect", demo_path, *options, module="compile.cli")
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    text = out()
    for word in ("256 points", "waveman", "x86_64", "as recorded", "treelite"):
        assert word in text
    manifest = json.loads(out("--json"))
    assert manifest["artifacts"]["x86_64"]["cost"]["infer"]["mean"] > 1000
    assert len(manifest["recordings"][0]["sha256"]) == 64


def test_verify_exits_1_on_a_difference(demo_bundle: Bundle, matrix: Matrix) -> None:
    """A bundle whose model is another one's: every raw score differs."""
    other = lightgbm.train(
        {"objective": "multiclass", "num_class": len(demo_bundle.classes), "verbose": -1, "num_threads": 1},
        lightgbm.Dataset(matrix.features[:500], matrix.label[:500] % len(demo_bundle.classes)),
        num_boost_round=2,
    )
    stranger = build(other, targets=["host"])
    entries = {name: demo_bundle.entry(name) for name in demo_bundle.entries}
    hurt = Bundle(
        pack(demo_bundle.manifest, entries | {"model.forest": stranger.entry("model.forest")}), "hurt.edge"
    )
    with pytest.raises(
        CheckFailed, match=r"parity: \d+ differences; first: x86_64: edge_model_scores, row 0"
    ):
        verify_bundle(hurt, matrix, 50)
