"""Networks through the command line: a report a person can judge by, costs that add up, one line for bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compile.cli import main
from compile.neural import run_float
from compile.neural.flatbuffer import write
from compile.neural.fold import fold
from compile.neural.frontends.builder import Builder
from compile.neural.graph import Array, Graph, Kind
from compile.neural.network import Rows, prepare
from compile.neural.quantise import decisions
from edge_runtime.bundle import Bundle
from edge_runtime.cache import cache_dir
from edge_runtime.recording import Origin, Split
from tests.conftest import ROOT
from tests.neural.networks import calibration, quantised
from tests.neural.test_bad_networks import changed, small

MODELS = Path(__file__).parent / "models"
ROWS = 160


def close() -> Graph:
    """As `small`, with answers so alike that quantising decides some rows otherwise."""
    rng = np.random.default_rng(0)
    b = Builder("close")
    x = b.conv(b.input((16, 1)), rng.normal(0, 1, (4, 1, 3, 1)), None, "conv")
    x = b.global_average(b.activation(x, "relu", "relu"), "mean")
    return b.finish(b.dense(x, rng.normal(1, 0.03, (3, 4)), None, "dense"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of the small network with all that may be known of them."""
    path = tmp_path_factory.mktemp("rows") / "d.npz"
    n = np.arange(ROWS)
    np.savez(
        path,
        features=calibration(small(), 1, ROWS).reshape(ROWS, -1),
        split=np.where(n % 4 == 0, Split.CALIBRATION, Split.TEST).astype(np.uint8),
        label=(n % 3 - 1).astype(np.int16),
        classes=np.array(["nothing", "sensor"]),
        origin=np.where(n % 2, Origin.REMIX, Origin.RECORDED).astype(np.uint8),
        slice=np.where(n < 80, "attic", "cellar"),
    )
    return path


@pytest.fixture(scope="module")
def built(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The network, built as a user does."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "m.tflite").write_bytes(write(close()))
    arguments = [
        "build",
        str(folder / "m.tflite"),
        "--data",
        str(data),
        "--targets",
        "host,aarch64,cortex-m4",
    ]
    assert main([*arguments, "--agreement", "0.5", "-o", str(folder / "b.edge")]) == 0
    return Bundle.open(folder / "b.edge")


def inspect(bundle: Bundle, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["inspect", bundle.origin, *options]) == 0
    return capsys.readouterr().out


def test_agreement_by_class_and_by_slice(
    built: Bundle, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every share as numpy finds it from the two networks' answers."""
    report = json.loads(inspect(built, capsys, "--json"))["network"]["agreement"]
    with np.load(data) as z:
        held = z["split"] == Split.TEST
        x, rows = (
            z["features"].astype(np.float32),
            {name: z[name][held] for name in ("label", "origin", "slice")},
        )
    network = prepare(close(), Rows(x[~held], x[held]), gate=0.0)
    want = decisions(run_float.run(fold(close()), x[held]).reshape(held.sum(), -1))
    same = want == decisions(network.outputs(x[held]))
    slices = {
        "class nothing": rows["label"] == 0,
        "class sensor": rows["label"] == 1,
        "origin recorded": rows["origin"] == Origin.RECORDED,
        "origin remix": rows["origin"] == Origin.REMIX,
        "slice attic": rows["slice"] == "attic",
        "slice cellar": rows["slice"] == "cellar",
    }
    expected = {
        k: {"value": round(float(same[v].mean()), 6), "rows": int(v.sum())} for k, v in slices.items()
    }
    assert report["per_slice"] == expected
    classes = {str(k): want == k for k in np.unique(want)}
    assert {k: v["rows"] for k, v in report["per_class"].items()} == {k: v.sum() for k, v in classes.items()}
    assert {k: v["value"] for k, v in report["per_class"].items()} == {
        k: round(float(same[v].mean()), 6) for k, v in classes.items()
    }
    assert report["gate"] == 0.5
    text = inspect(built, capsys)
    assert "held-out decisions, gate 50 %" in text
    for name, share in expected.items():
        assert f"  {name:<40}{100 * share['value']:>7.2f} % of {share['rows']}" in text
    assert all(f"float network: {k} " in text for k in classes)
    assert 0 < same.mean() < 1  # equal everywhere, shares would prove nothing


def test_costs_of_layers_add_up(built: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    """Multiply-accumulates and bytes by hand; instructions of the layers are those of the whole, counted alone."""
    section = json.loads(inspect(built, capsys, "--json"))["network"]
    rows = {row["layer"]: row for row in section["layers"]}
    conv, dense = rows["conv"], rows["dense"]
    assert (conv["macs"], dense["macs"]) == (14 * 4 * 3, 4 * 3)
    assert section["macs"] == sum(row["macs"] for row in section["layers"])
    # Taps in eights, outputs in fours, twelve bytes an output for bias, multiplier and shift.
    assert conv["flash_bytes"] == 4 * 8 + 4 * 12
    assert dense["flash_bytes"] == 4 * 8 + 4 * 12
    assert conv["arena_bytes"] == 14 * 4 + 4 * 8  # its output, and room for two widened windows
    assert section["counted_on"] == "aarch64"
    whole = section["instructions"]["aarch64"]
    assert sum(row["instructions"] for row in section["layers"]) == pytest.approx(whole, rel=0.05)
    assert all(row["instructions"] > row["macs"] / 16 for row in section["layers"])
    assert max(row["arena_bytes"] for row in section["layers"]) <= section["arena_bytes"] + 64
    text = inspect(built, capsys)
    for name, row in rows.items():
        line = next(line for line in text.splitlines() if line.startswith(name))
        shown = [int(v.replace(",", "")) for v in line.split()[2:]]
        assert shown == [row[k] for k in ("macs", "instructions", "flash_bytes", "arena_bytes")]


def test_verify_passes_and_catches_another_network(
    built: Bundle, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", built.origin, "--data", str(data), "--rows", "40"]) == 0
    assert "cortex-m4: " in capsys.readouterr().out
    np.savez(tmp_path / "narrow.npz", features=np.zeros((4, 15)))
    assert main(["verify", built.origin, "--data", str(tmp_path / "narrow.npz")]) == 2
    assert "15 features a row; the network takes 16" in capsys.readouterr().err


def coarse() -> tuple[Graph, Array]:
    """A network that eight bits cannot hold: its first layer's weights span five orders of magnitude."""
    rng = np.random.default_rng(3)
    b = Builder("coarse")
    wide = np.concatenate([rng.normal(0, 1e-3, (4, 8)), np.full((1, 8), 100.0)])
    x = b.dense(b.input((8,)), wide, None, "wide")
    graph = b.finish(b.dense(x, np.array([[1.0, -1, 1, -1, 0], [-1.0, 1, -1, 1, 0]]), None, "out"))
    return graph, rng.normal(0, 1, (200, 8)).astype(np.float32)


def test_the_gate_refuses_and_is_overridden_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph, rows = coarse()
    model, out = tmp_path / "coarse.tflite", tmp_path / "x.edge"
    model.write_bytes(write(graph))
    np.savez(tmp_path / "d.npz", features=rows)
    arguments = ["build", str(model), "--data", str(tmp_path / "d.npz"), "--targets", "host", "-o", str(out)]
    assert main(arguments) == 1
    (line,) = [k for k in capsys.readouterr().err.splitlines() if "edge-compile:" in k]
    assert "the gate is 99 %" in line
    assert "accept it with --agreement 0." in line
    assert not out.exists()
    accepted = line.split("--agreement ")[1]
    assert main([*arguments, "--agreement", accepted]) == 0
    assert Bundle.open(out).manifest["network"]["agreement"]["gate"] == float(accepted)
    assert main([*arguments, "--agreement", "99"]) == 2
    assert "give a number from 0 to 1" in capsys.readouterr().err


def _int8() -> bytes:
    return write(quantised(small(), 0))


def _unsupported() -> bytes:
    g = quantised(small(), 0)
    at = next(n for n, op in enumerate(g.ops) if op.kind is Kind.MEAN)
    g.ops[at] = replace(g.ops[at], kind=98)  # type: ignore[arg-type]
    return write(g)


def _half_quantised() -> bytes:
    g = quantised(small(), 0)
    at = next(n for n, op in enumerate(g.ops) if op.kind is Kind.CONV_2D)
    g.tensors[g.ops[at].output].dtype = "float32"
    return write(g)


BAD: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "float, no data": ("m.tflite", lambda: write(small()), "is a float network; give --data"),
    "truncated": ("m.tflite", lambda: _int8()[:900], "is truncated or damaged"),
    "empty": ("m.tflite", lambda: b"", "is no .tflite file"),
    "another file": ("m.tflite", lambda: b"nothing at all", "is no .tflite file"),
    "unsupported operator": ("m.tflite", _unsupported, "the operator LEAKY_RELU"),
    "dynamic shape": ("m.tflite", lambda: changed(shape=(1, 1, -1, 1)), "dynamic shape"),
    "half quantised": ("m.tflite", _half_quantised, "computes in"),
    "keras": ("m.keras", lambda: b"nothing", "is no .keras archive"),
    "onnx": ("m.onnx", lambda: b"nothing", "is no ONNX model"),
    "pt2": ("m.pt2", lambda: b"nothing", "is no archive of torch.export.save"),
    "onnx, no data": ("m.onnx", (MODELS / "torch_vector_script.onnx").read_bytes, "takes calibration data"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_model_is_one_line_and_exit_2(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, content, message = BAD[name]
    (tmp_path / file).write_bytes(content())
    assert main(["build", str(tmp_path / file), "--targets", "host", "-o", str(tmp_path / "x.edge")]) == 2
    err = capsys.readouterr().err.splitlines()
    assert [line for line in err if line.startswith("edge-compile: ")] == err[-1:]
    assert message in err[-1]
    assert not (tmp_path / "x.edge").exists()


BAD_DATA: dict[str, tuple[dict[str, Any], str]] = {
    "too narrow": ({"features": np.zeros((8, 15))}, "[15] values a row"),
    "one axis": ({"features": np.zeros(16)}, "give two rows or more"),
    "no features": ({"other": np.zeros((8, 16))}, "holds no `features`"),
    "texts": ({"features": np.full((8, 16), "x")}, "give numbers"),
    "not finite": ({"features": np.full((8, 16), np.inf)}, "not finite"),
    "labels of another length": ({"features": np.zeros((8, 16)), "label": np.zeros(7, int)}, "label is (7,)"),
    "slices that are numbers": (
        {"features": np.zeros((8, 16)), "slice": np.zeros(8)},
        "give strings to slice",
    ),
    "one split": ({"features": np.zeros((8, 16)), "split": np.zeros(8, np.uint8)}, "give both splits"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_calibration_data_is_one_line_and_exit_2(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays, message = BAD_DATA[name]
    (tmp_path / "m.tflite").write_bytes(write(small()))
    np.savez(tmp_path / "d.npz", **arrays)
    arguments = ["build", str(tmp_path / "m.tflite"), "--data", str(tmp_path / "d.npz"), "--targets", "host"]
    assert main([*arguments, "-o", str(tmp_path / "x.edge")]) == 2
    err = capsys.readouterr().err.splitlines()
    assert err[-1].startswith("edge-compile: data")
    assert message in err[-1]


PROGRAM = """
import sys
from argparse import Namespace
from edge_runtime import console
from edge_runtime.engines.tflite import open_interpreter
import numpy
assert int(numpy.__version__.split(".")[0]) >= 2, numpy.__version__
if sys.argv[2] == "bare":
    from tflite_runtime.interpreter import Interpreter
    Interpreter(sys.argv[1])
parser = console.Parser(prog="edge-runtime")
parser.set_defaults(run=lambda _: open_interpreter(open(sys.argv[1], "rb").read(), "tflite-runtime") and 0)
sys.exit(console.main(parser, []))
"""


def _numpy_2() -> Path:
    """A folder with the real numpy 2 and nothing else."""
    folder = cache_dir("numpy-2")
    if not (folder / "numpy").is_dir():
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--target",
            str(folder),
            "numpy==2.2.6",
        ]
        environment = {k: v for k, v in os.environ.items() if k != "PIP_CONSTRAINT"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            pytest.skip(f"numpy 2 cannot be had: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return folder


def test_numpy_2_beside_tflite_runtime_is_one_line_and_exit_2(tmp_path: Path) -> None:
    """The real two side by side: alone they fail late and at length, here at once with the cure."""
    (tmp_path / "m.tflite").write_bytes(_int8())
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(_numpy_2()), str(ROOT)])}

    def run(how: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "m.tflite"), how]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    assert "NumPy" in run("bare").stderr or run("bare").returncode < 0
    done = run("early")
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert "tflite-runtime: cannot work beside numpy 2.2.6; pip install 'numpy<2'" in line
