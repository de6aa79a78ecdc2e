"""The training matrix: what it holds, that it is the same bytes twice, and what cannot be made into one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compile.features import compute, features_to_npz, power_of
from compile.pipeline import Pipeline
from edge_runtime.errors import BadInput
from edge_runtime.recording import Capture, Origin, Recording, Row, Split
from edge_runtime.scan import Axis
from tests.test_pipeline_file import SMALL, write


def recording(axis: Axis) -> Recording:
    captures = [
        Capture(name="one", sha256="1" * 64, label="a", session="s2"),
        Capture(name="two", sha256="2" * 64, label="b", session="s1"),
    ]
    rng = np.random.default_rng(0)
    rows = [
        Row(k % 3, k % 2, (Split.TRAIN, Split.TRAIN, Split.UNKNOWN)[k % 3], Origin.REMIX, 5, codes.tobytes())
        for k, codes in enumerate(rng.integers(100, 240, (9, axis.points), dtype=np.uint8))
    ]
    return Recording(axis, ["a", "b", "foreign"], captures, rows)


AXIS = Axis(433_000_000, 1_000, 16)


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return Pipeline.load(write(tmp_path, SMALL))


def test_the_matrix_holds_the_scans_and_their_features(tmp_path: Path, pipeline: Pipeline) -> None:
    source, out = recording(AXIS), tmp_path / "d.npz"
    features_to_npz(source, pipeline, out)
    with np.load(out) as d:
        assert d["power_cdbm"].dtype == np.int16
        assert (d["power_cdbm"][4] == [-50 * code for code in source.rows[4].codes]).all()
        assert d["features"].dtype == np.float32
        assert (d["features"] == compute(pipeline, power_of(source))).all()
        assert d["feature_names"].tolist() == ["crest", "skirt"]
        assert d["classes"].tolist() == ["a", "b"]
        assert d["label"].tolist() == [0, 1, -1] * 3
        assert d["split"].tolist() == [0, 0, 3] * 3
        assert d["capture"].tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
        assert d["sessions"][d["session"]].tolist() == ["s2", "s1"] * 4 + ["s2"]
        assert d["captures"].tolist() == ["one", "two"]


def test_two_matrices_are_the_same_bytes(tmp_path: Path, pipeline: Pipeline) -> None:
    for name in ("a.npz", "b.npz"):
        features_to_npz(recording(AXIS), pipeline, tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize(
    "axis", [Axis(433_000_001, 1_000, 16), Axis(433_000_000, 1_001, 16), Axis(433_000_000, 1_000, 17)]
)
def test_another_axis_is_refused(tmp_path: Path, pipeline: Pipeline, axis: Axis) -> None:
    with pytest.raises(BadInput, match=r"the recording's axis is Axis\(.*mend \[contract\]"):
        features_to_npz(recording(axis), pipeline, tmp_path / "d.npz")
    assert not (tmp_path / "d.npz").exists()


def test_nothing_half_written(tmp_path: Path, pipeline: Pipeline) -> None:
    with pytest.raises(BadInput, match=r"features .*nowhere/d\.npz: cannot be written \(No such file"):
        features_to_npz(recording(AXIS), pipeline, tmp_path / "nowhere" / "d.npz")
    (tmp_path / "d.npz").mkdir()
    with pytest.raises(BadInput, match="cannot be written"):
        features_to_npz(recording(AXIS), pipeline, tmp_path / "d.npz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.npz", "p.toml"]
