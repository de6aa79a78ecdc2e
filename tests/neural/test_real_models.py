"""The reference networks of MLPerf Tiny, where they are at hand (EDGE_MLPERF_TINY): they are not shipped."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from compile.cli import main
from compile.neural.bundle import check_raw
from compile.neural.graph import Graph
from compile.neural.load import is_quantised, load
from compile.neural.lower import Machine, lower
from compile.neural.network import prepare
from compile.neural.run_int8 import run
from compile.targets import TARGETS
from compile.toolchain import build
from edge_runtime.bundle import Bundle
from edge_runtime.energy_ci import userland
from edge_runtime.errors import BadInput
from tests.conftest import ROOT
from tests.neural.networks import random_inputs
from tests.neural.test_arithmetic import HERE, answers, ask_guest

FOLDER = Path(os.environ.get("EDGE_MLPERF_TINY", ROOT.parent / "shared/data/mlperf_tiny"))
FILES = sorted(FOLDER.glob("*.tflite"))
WHY = f"no MLPerf Tiny models in {FOLDER.name}; set EDGE_MLPERF_TINY"
INT8 = [f for f in FILES if "float32" not in f.name]

pytestmark = pytest.mark.skipif(not FILES, reason=WHY)


def rows_for(graph: Graph, count: int) -> np.ndarray:
    return random_inputs(graph, 9, count)


@pytest.mark.parametrize("path", INT8, ids=lambda p: p.stem)
def test_this_machine_s_tflite_runtime(path: Path) -> None:
    graph = load(path)
    rows = rows_for(graph, 20)
    want = answers(path.read_bytes(), rows)
    np.testing.assert_array_equal(run(lower(graph, HERE), rows).reshape(want.shape), want)


def test_arm_s_tflite_runtime(tmp_path: Path) -> None:
    graphs = [load(path) for path in INT8]
    rows = [rows_for(graph, 8) for graph in graphs]
    cases = [(p.read_bytes(), r) for p, r in zip(INT8, rows, strict=True)]
    for graph, given, want in zip(graphs, rows, ask_guest(userland.ARM64, cases, tmp_path), strict=True):
        np.testing.assert_array_equal(run(lower(graph, Machine.ARM), given).reshape(want.shape), want)


@pytest.mark.parametrize("path", INT8, ids=lambda p: p.stem)
@pytest.mark.parametrize("target", ["aarch64", "armv7", "cortex-m4"])
def test_emitted_code(path: Path, target: str) -> None:
    network = prepare(path)
    artifact = build(network.sources, TARGETS[target])
    assert check_raw(network.graph, {target: artifact}, rows_for(network.graph, 2)) == 2


@pytest.mark.parametrize("path", INT8, ids=lambda p: p.stem)
def test_build_inspect_and_verify(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, data = tmp_path / "b.edge", tmp_path / "d.npz"
    assert main(["build", str(path), "--targets", "host,aarch64", "-o", str(out)]) == 0
    assert Bundle.open(out).entry("network.tflite") == path.read_bytes()
    t = load(path).tensors[load(path).input]
    features = (rows_for(load(path), 4).astype(np.float64) - t.zero_point) * t.step
    np.savez(data, features=features.reshape(4, -1).astype(np.float32))
    assert main(["verify", str(out), "--data", str(data)]) == 0
    capsys.readouterr()
    assert main(["inspect", str(out), "--json"]) == 0
    section = json.loads(capsys.readouterr().out)["network"]
    assert section["macs"] > 200_000
    assert section["instructions"]["aarch64"] < 2 * section["macs"]
    assert sum(row["flash_bytes"] for row in section["layers"]) > 0.8 * path.stat().st_size / 2
    assert main(["inspect", str(out)]) == 0
    assert "multiply-accumulates, arena" in capsys.readouterr().out


@pytest.mark.parametrize("path", [f for f in FILES if "float32" in f.name], ids=lambda p: p.stem)
def test_a_float_one_is_refused(path: Path) -> None:
    assert not is_quantised(load(path))
    with pytest.raises(BadInput, match="is a float network; give --data"):
        prepare(path)
