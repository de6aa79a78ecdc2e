"""Everything wrong that can be given for a network, and the one line that says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compile.build import build
from compile.cli import main
from compile.neural.flatbuffer import write
from compile.neural.frontends.builder import Builder
from compile.neural.graph import Graph, Kind, Op, Options, Tensor
from compile.neural.load import load
from compile.neural.network import Rows, prepare
from compile.neural.quantise import ScanInput
from compile.neural.reader import read
from compile.neural.rows import load_rows
from compile.toolchain import build as compile_c
from edge_runtime.engines import tflite
from edge_runtime.errors import BadInput, CheckFailed
from tests.neural.networks import calibration, quantised

assert compile_c  # the toolchain is what every accepted network ends in


def small() -> Graph:
    """A float network: one convolution, one dense layer."""
    rng = np.random.default_rng(0)
    b = Builder("small")
    x = b.conv(b.input((16, 1)), rng.normal(0, 1, (4, 1, 3, 1)), None, "conv")
    x = b.global_average(b.activation(x, "relu", "relu"), "mean")
    return b.finish(b.dense(x, rng.normal(0, 1, (3, 4)), None, "dense"))


@pytest.fixture(scope="module")
def int8_file() -> bytes:
    return write(quantised(small(), 0))


def _damage(blob: bytearray, data: st.DataObject) -> None:
    """Bits flipped, words overwritten by what breaks readers, or the end cut off."""
    if data.draw(st.integers(0, 4)) == 0:
        del blob[data.draw(st.integers(0, len(blob) - 1)) :]
    for _ in range(data.draw(st.integers(0, 4))):
        if len(blob) < 8:
            return
        at = data.draw(st.integers(0, len(blob) - 1))
        if data.draw(st.booleans()):
            blob[at] ^= 1 << data.draw(st.integers(0, 7))
        else:
            word = data.draw(st.sampled_from([0, 1, 2, 3, 5, 255, 65536, 2**31 - 1, 2**31, 2**32 - 1]))
            at = min(at // 4 * 4, len(blob) // 4 * 4 - 4)
            blob[at : at + 4] = word.to_bytes(4, "little")


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(st.data())
def test_a_damaged_file_is_refused_in_one_line_or_computed(int8_file: bytes, data: st.DataObject) -> None:
    blob = bytearray(int8_file)
    _damage(blob, data)
    try:
        network = prepare(read(bytes(blob)))
        x = network.graph.tensors[network.graph.input]
        assert network.raw(np.zeros((1, x.size), x.dtype)).shape[0] == 1
        assert network.sources
    except BadInput as e:
        message = str(e)
    else:
        return
    assert "\n" not in message


def test_every_truncation_is_refused(int8_file: bytes) -> None:
    for size in range(0, len(int8_file) - 16, 7):
        with pytest.raises(BadInput, match=r"truncated or damaged|is no \.tflite file"):
            read(int8_file[:size], "x.tflite")


def changed(**tensor: Any) -> bytes:
    """The small network's file with its input tensor changed."""
    g = quantised(small(), 0)
    g.tensors[g.input] = replace(g.tensors[g.input], **tensor)
    return write(g)


def test_a_float_file_needs_data(tmp_path: Path) -> None:
    path = tmp_path / "float.tflite"
    path.write_bytes(write(small()))
    with pytest.raises(BadInput, match="is a float network; give --data"):
        build(path, targets=["host"])
    rows = calibration(small(), 1, 40)
    assert prepare(path, Rows(rows[::2], rows[1::2]), gate=0.5).agreement is not None


def test_a_dynamic_shape_is_refused() -> None:
    with pytest.raises(BadInput, match="has the dynamic shape"):
        read(changed(shape=(1, 1, -1, 1)), "x.tflite")


def test_an_operator_that_is_not_supported_is_named_with_the_nearest() -> None:
    g = quantised(small(), 0)
    at = next(n for n, op in enumerate(g.ops) if op.kind is Kind.MEAN)
    g.ops[at] = replace(g.ops[at], kind=98)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"layer 'mean' is the operator LEAKY_RELU.*nearest that is: RELU"):
        read(write(g), "x.tflite")


def test_an_unquantised_layer_in_an_int8_network_is_named() -> None:
    g = quantised(small(), 0)
    last = g.ops[-1]
    g.tensors[last.output].dtype = "float32"
    with pytest.raises(BadInput, match=r"layer 'dense': reshapes int8\[1, 3\] to float32"):
        prepare(g)


@pytest.mark.parametrize("rows", [np.zeros((4, 15)), np.zeros((4, 16, 2)), np.zeros((0, 16))])
def test_data_of_another_shape_is_refused(rows: Any) -> None:
    with pytest.raises(BadInput, match="data: "):
        prepare(small(), Rows(rows, rows))


def test_data_that_is_not_finite_is_refused() -> None:
    rows = np.full((8, 16), np.nan)
    with pytest.raises(BadInput, match="not finite"):
        prepare(small(), Rows(rows, rows))


def test_a_quantisation_that_disagrees_is_refused() -> None:
    rng = np.random.default_rng(3)
    b = Builder("coarse")
    wide = np.concatenate([rng.normal(0, 1e-3, (4, 8)), np.full((1, 8), 100.0)])
    x = b.dense(b.input((8,)), wide, None, "wide")
    graph = b.finish(b.dense(x, np.array([[1.0, -1, 1, -1, 0], [-1.0, 1, -1, 1, 0]]), None, "out"))
    rows = rng.normal(0, 1, (200, 8))
    with pytest.raises(CheckFailed, match=r"decides as the float network on .* the gate is 99 %"):
        prepare(graph, Rows(rows[::2], rows[1::2]))


def test_a_scan_scale_that_cannot_be_fed_is_refused() -> None:
    rows = np.zeros((8, 16), np.int16)
    with pytest.raises(BadInput, match="give the gain and offset that the network was trained with"):
        prepare(small(), Rows(rows, rows), scan=ScanInput(gain=0.01, offset=500.0))


def test_data_without_features(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", other=np.zeros(3))
    with pytest.raises(BadInput, match="holds no `features`, only other"):
        load_rows(tmp_path / "d.npz")
    (tmp_path / "e.npz").write_bytes(b"nothing")
    with pytest.raises(BadInput, match=r"cannot be read as \.npz"):
        load_rows(tmp_path / "e.npz")


def test_the_command_line_exits_with_2_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, blob in {"a.tflite": b"nothing", "b.keras": b"nothing", "c.onnx": b"nothing"}.items():
        path = tmp_path / name
        path.write_bytes(blob)
        assert main(["build", str(path), "-o", str(tmp_path / "x.edge")]) == 2
        err = capsys.readouterr().err.strip().splitlines()[-1]
        assert name in err
    assert main(["build", str(tmp_path / "missing.tflite"), "-o", str(tmp_path / "x.edge")]) == 2


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(BadInput, match="is no network that can be read"):
        load(object())


def test_a_network_that_computes_nothing_is_refused() -> None:
    one = np.ones(1, np.float32)
    g = Graph([Tensor("x", (1, 4), "int8", None, one), Tensor("y", (4, 1), "int8", None, one)], [], 0, 1)
    g.ops = [Op(Kind.RESHAPE, (0,), 1, Options(), "flat")]
    with pytest.raises(BadInput, match="no layer that computes"):
        _ = prepare(g).sources


def test_numpy_2_beside_tflite_runtime_is_said_early(
    monkeypatch: pytest.MonkeyPatch, int8_file: bytes
) -> None:
    real = tflite.metadata.version
    monkeypatch.setattr(tflite.metadata, "version", lambda name: "2.1.0" if name == "numpy" else real(name))
    with pytest.raises(BadInput, match=r"cannot work beside numpy 2\.1\.0; pip install 'numpy<2'"):
        tflite.InterpretedNetwork(int8_file, "tflite-runtime")


def test_an_interpreter_that_is_missing_or_unknown(int8_file: bytes) -> None:
    with pytest.raises(BadInput, match="unknown; choose of tflite-runtime, ai-edge-litert"):
        tflite.open_interpreter(int8_file, "onnxruntime")
    with pytest.raises(BadInput, match="tflite-runtime: cannot run this network"):
        tflite.open_interpreter(b"nothing at all", "tflite-runtime")
