"""Float parity: what a front end read computes what the training framework computed."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import subprocess
import sys
import warnings
import zipfile
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from compile.neural import run_float
from compile.neural.flatbuffer import write
from compile.neural.fold import fold
from compile.neural.frontends import keras, onnx, protobuf, sklearn
from compile.neural.frontends.builder import Builder
from compile.neural.graph import Array, Graph, Kind
from compile.neural.load import load
from edge_runtime.errors import BadInput
from tests.bench.bench_neural import mlp
from tests.bench.neural_peers import onnx as onnx_of
from tests.conftest import ROOT

MODELS = Path(__file__).parent / "models"
CHANNELS_LAST = {2: (0, 1), 3: (0, 2, 1), 4: (0, 2, 3, 1)}
TOLERANCE = 2e-6
TORCH = ["residual", "image", "vector", "dilated"]


def _answers(name: str) -> tuple[Array, Array]:
    with np.load(MODELS / "answers.npz") as z:
        return z[f"{name}_x"], z[f"{name}_y"]


def _same(graph: Graph, x: Array, y: Array) -> None:
    for g in (graph, fold(graph)):
        np.testing.assert_allclose(run_float.run(g, x).reshape(y.shape), y, atol=TOLERANCE)


@pytest.mark.parametrize("exporter", ["script", "dynamo"])
@pytest.mark.parametrize("name", TORCH)
def test_onnx_answers_as_torch(name: str, exporter: str) -> None:
    x, y = _answers(f"torch_{name}")
    _same(load(MODELS / f"torch_{name}_{exporter}.onnx"), x.transpose(CHANNELS_LAST[x.ndim]), y)


@pytest.mark.parametrize("name", ["signal", "image"])
def test_keras_archives_answer_as_keras(name: str) -> None:
    _same(load(MODELS / f"keras_{name}.keras"), *_answers(f"keras_{name}"))


def test_folding_leaves_no_batch_norm_behind_a_convolution() -> None:
    graph = fold(load(MODELS / "torch_residual_script.onnx"))
    kinds = [op.kind for op in graph.ops]
    assert Kind.BATCH_NORM not in kinds
    assert Kind.RELU not in kinds


def _fit(model: Any, x: Array, y: Array) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a few steps do: what is learned does not matter here
        model.fit(x, y)


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
@pytest.mark.parametrize("classes", [2, 4])
def test_scikit_learn_classifiers(activation: Any, classes: int) -> None:
    rng = np.random.default_rng(classes)
    x = rng.normal(0, 1, (120, 7)) * [1, 10, 100, 1, 1, 0.1, 1] + 3
    y = np.arange(120) % classes
    mlp = MLPClassifier((9, 5), activation=activation, max_iter=3, random_state=0)
    model = make_pipeline(StandardScaler(), mlp)
    _fit(model, x, y)
    want = model.predict_proba(x)
    got = run_float.run(load(model), x)
    np.testing.assert_allclose(got, want if classes > 2 else want[:, 1:], atol=2e-5)


def test_scikit_learn_regressor() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(0, 1, (80, 5)), rng.normal(0, 1, (80, 2))
    model = MLPRegressor(hidden_layer_sizes=(6,), max_iter=3, random_state=0)
    _fit(model, x, y)
    np.testing.assert_allclose(run_float.run(load(model), x), model.predict(x), atol=TOLERANCE)


def test_scikit_learn_models_that_are_refused() -> None:
    with pytest.raises(BadInput, match="not fitted; call fit"):
        sklearn.read(MLPClassifier())
    x, y = np.eye(4), np.arange(4) % 2
    model = make_pipeline(MinMaxScaler(), MLPClassifier((2,), max_iter=1))
    _fit(model, x, y)
    with pytest.raises(BadInput, match="MinMaxScaler before the network; the nearest that is supported"):
        sklearn.read(model)


@pytest.mark.parametrize("name", TORCH)
def test_a_program_of_torch_export_answers_as_torch(name: str) -> None:
    """The .pt2 archive, without torch."""
    x, y = _answers(f"torch_{name}")
    _same(load(MODELS / f"torch_{name}.pt2"), x.transpose(CHANNELS_LAST[x.ndim]), y)
    assert "torch" not in sys.modules or importlib.util.find_spec("torch") is not None


def test_torch_itself() -> None:
    """Live modules, programs, archives and both ONNX exporters, where torch is installed."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip(
            "torch is not installed: it is too large for every test run; what it exported is tested above"
        )
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("torch_live.py"))],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(metadata.version("torch").split("+")[0])


def _pt2_with(tmp_path: Path, change: Any) -> Path:
    """An archive with its program changed."""
    path = tmp_path / "changed.pt2"
    with zipfile.ZipFile(MODELS / "torch_dilated.pt2") as z, zipfile.ZipFile(path, "w") as out:
        for name in z.namelist():
            data = z.read(name)
            if name.endswith("models/model.json"):
                model = json.loads(data)
                change(model["graph_module"])
                data = json.dumps(model).encode()
            out.writestr(name, data)
    return path


def test_a_torch_operator_that_is_not_supported_is_named(tmp_path: Path) -> None:
    def change(module: dict[str, Any]) -> None:
        node = next(n for n in module["graph"]["nodes"] if "relu" in n["target"])
        node["target"] = "torch.ops.aten.gelu.default"

    with pytest.raises(BadInput, match=r"layer 'relu' \(gelu\).*nearest that is: torch\.nn\.ReLU"):
        load(_pt2_with(tmp_path, change))


def test_a_torch_program_of_dynamic_shape_is_refused(tmp_path: Path) -> None:
    def change(module: dict[str, Any]) -> None:
        name = module["signature"]["input_specs"][-1]["user_input"]["arg"]["as_tensor"]["name"]
        module["graph"]["tensor_values"][name]["sizes"][2] = {"as_expr": {"expr_str": "s0"}}

    with pytest.raises(BadInput, match="dynamic"):
        load(_pt2_with(tmp_path, change))


def test_an_old_archive_is_refused_with_the_cure(tmp_path: Path) -> None:
    path = tmp_path / "old.pt2"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("serialized_exported_program.json", "{}")
    with pytest.raises(BadInput, match=r"old torch.*2\.9 or later|torch\.export cannot open it"):
        load(path)
    path.write_bytes(b"nothing")
    with pytest.raises(BadInput, match=r"is no archive of torch\.export\.save"):
        load(path)


def _keras_with(tmp_path: Path, change: Any) -> Path:
    """The signal's archive with its configuration changed."""
    with zipfile.ZipFile(MODELS / "keras_signal.keras") as z:
        config, weights = json.loads(z.read("config.json")), z.read("model.weights.h5")
    change(config["config"]["layers"])
    path = tmp_path / "changed.keras"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("config.json", json.dumps(config))
        z.writestr("model.weights.h5", weights)
    return path


def test_a_keras_layer_that_is_not_supported_is_named(tmp_path: Path) -> None:
    def change(layers: list[dict[str, Any]]) -> None:
        layers[3]["class_name"] = "LSTM"
        layers[3]["config"]["name"] = "memory"

    with pytest.raises(
        BadInput, match=r"layer 'memory' \(LSTM\).*nearest that is: Conv1D over the time axis"
    ):
        keras.read(_keras_with(tmp_path, change))


def test_a_keras_model_of_dynamic_shape_is_refused(tmp_path: Path) -> None:
    def change(layers: list[dict[str, Any]]) -> None:
        layers[0]["config"]["batch_shape"] = [None, None, 1]

    with pytest.raises(BadInput, match="dynamic"):
        keras.read(_keras_with(tmp_path, change))


def test_what_is_no_keras_archive(tmp_path: Path) -> None:
    path = tmp_path / "x.keras"
    path.write_bytes(b"nothing")
    with pytest.raises(BadInput, match=r"is no \.keras archive"):
        keras.read(path)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.sampled_from(sorted([*MODELS.glob("*.onnx"), *MODELS.glob("*.pt2"), *MODELS.glob("*.keras")])),
    st.data(),
)
def test_a_damaged_model_is_refused_and_never_crashes(
    tmp_path_factory: Any, path: Path, data: st.DataObject
) -> None:
    blob = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del blob[data.draw(st.integers(0, len(blob) - 1)) :]
    else:
        for _ in range(3):
            blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    broken = tmp_path_factory.mktemp("broken") / f"broken{path.suffix}"
    broken.write_bytes(blob)
    try:
        graph = load(broken)
    except BadInput as e:
        message = str(e)
    else:
        assert graph.ops
        return
    assert "\n" not in message


def _field(number: int, payload: bytes) -> bytes:
    assert len(payload) < 128
    return bytes([number << 3 | 2, len(payload)]) + payload


def test_an_onnx_operator_that_is_not_supported_is_named(tmp_path: Path) -> None:
    dim = _field(1, b"\x08\x01")
    value = _field(1, b"x") + _field(2, _field(1, b"\x08\x01" + _field(2, dim + _field(1, b"\x08\x04"))))
    node = _field(1, b"x") + _field(2, b"y") + _field(3, b"gate") + _field(4, b"HardSwish")
    graph = _field(1, node) + _field(11, value) + _field(12, _field(1, b"y"))
    path = tmp_path / "x.onnx"
    path.write_bytes(_field(7, graph))
    with pytest.raises(BadInput, match=r"layer 'gate' \(HardSwish\).*nearest that is: Clip\(0, 6\)"):
        onnx.read(path)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5), st.floats(width=32, allow_nan=False))
def test_protobuf_numbers(numbers: list[int], real: float) -> None:
    def varint(v: int) -> bytes:
        v &= 2**64 - 1
        out = bytearray()
        while v > 127:
            out.append(v & 127 | 128)
            v >>= 7
        return bytes([*out, v])

    packed = b"".join(map(varint, numbers))
    message = protobuf.Message(
        bytes([1 << 3 | 2]) + varint(len(packed)) + packed
        + b"".join(bytes([2 << 3]) + varint(v) for v in numbers)
        + bytes([3 << 3 | 5]) + struct.pack("<f", real)
    )  # fmt: skip
    assert message.integers(1) == message.integers(2) == numbers
    assert message.floats(3) == [real]


def test_a_float_tflite_with_weights_in_int8_and_no_bias(tmp_path: Path) -> None:
    """As converters store "weight-only" models, and layers whose bias is all zeros."""
    b = Builder("hybrid")
    rng = np.random.default_rng(0)
    x = b.conv(b.input((16, 2)), rng.integers(-127, 128, (3, 1, 3, 2)) * 0.25, None, "conv")
    g = b.finish(b.dense(b.global_average(x, "mean"), rng.integers(-127, 128, (2, 3)) * 0.5, None, "dense"))
    rows = rng.normal(0, 1, (5, 16, 2)).astype(np.float32)
    want = run_float.run(g, rows)
    for n, op in enumerate(g.ops):
        if op.kind in (Kind.CONV_2D, Kind.FULLY_CONNECTED):
            w, step = g.tensors[op.inputs[1]], 0.25 if op.kind is Kind.CONV_2D else 0.5
            w.data, w.dtype, w.scale = (
                (g.data(op.inputs[1]) / step).astype(np.int8),
                "int8",
                np.array([step], np.float32),
            )
            g.ops[n] = replace(op, inputs=(*op.inputs[:2], -1))
    path = tmp_path / "hybrid.tflite"
    path.write_bytes(write(g))
    np.testing.assert_allclose(run_float.run(fold(load(path)), rows), want, rtol=1e-5)


def test_the_benchmark_s_onnx_file_is_its_mlp(tmp_path: Path) -> None:
    """The file that onnxruntime is timed on, written by hand, is the network that the others are timed on."""
    graph = mlp()
    path = tmp_path / "mlp.onnx"
    path.write_bytes(onnx_of(graph))
    x = np.random.default_rng(2).normal(0, 1, (5, 64)).astype(np.float32)
    np.testing.assert_array_equal(run_float.run(load(path), x), run_float.run(graph, x))
