"""Operators as other people's converters write them: each computed as tflite-runtime does, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compile.cli import main
from compile.neural.check import check
from compile.neural.flatbuffer import write
from compile.neural.graph import Activation, Array, Graph, Kind, Op, Options, Padding, Tensor
from compile.neural.lower import lower
from compile.neural.network import prepare
from compile.neural.reader import read
from compile.neural.run_int8 import run
from edge_runtime.bundle import Bundle
from edge_runtime.engines.compiled import CompiledEngine
from edge_runtime.errors import BadInput
from tests.neural.test_arithmetic import HERE
from tests.neural.test_emitted import emulated
from tests.neural.tflite_reference import answers

Shape = tuple[int, ...]
RNG = np.random.default_rng(20261125)
SAME2 = Options(padding=Padding.SAME, stride=(2, 2), filter=(3, 3))


def act(name: str, shape: Shape, scale: float = 0.05, zero: int = -3) -> Tensor:
    """An int8 activation."""
    return Tensor(name, shape, "int8", None, np.array([scale], np.float32), zero)


def constant(name: str, data: Array, scale: float | list[float] | None = None, axis: int = 0) -> Tensor:
    """A constant, with one scale or several."""
    steps = None if scale is None else np.atleast_1d(np.array(scale, np.float32))
    return Tensor(name, data.shape, str(data.dtype), data, steps, 0, axis)


def graph(tensors: list[Tensor], *ops: tuple[Kind, tuple[int, ...], int, Options]) -> Graph:
    """The last operator gives the output, tensor 0 is the input."""
    made = [Op(kind, ins, out, o, tensors[out].name) for kind, ins, out, o in ops]
    return Graph(tensors, made, 0, ops[-1][2])


def unary(kind: Kind, y: Tensor, x: Tensor | None = None, o: Options | None = None, *more: Tensor) -> Graph:
    """One operator with one computed input."""
    tensors = [x or act("x", (1, 5, 6, 7)), y, *more]
    return graph(tensors, (kind, (0, *range(2, len(tensors))), 1, o or Options()))


def conv(scales: float | list[float], *, bias: bool, o: Options, shape: Shape = (1, 3, 4, 6)) -> Graph:
    """A convolution over 5 x 6 positions of 7 channels to 6."""
    w = RNG.integers(-127, 128, (6, 3, 3, 7)).astype(np.int8)
    tensors = [act("x", (1, 5, 6, 7)), act("y", shape, 0.3, 4), constant("w", w, scales)]
    if bias:
        tensors.append(constant("b", RNG.integers(-900, 900, 6).astype(np.int32), scales))
    return graph(tensors, (Kind.CONV_2D, (0, *range(2, len(tensors))), 1, o))


def float_ends() -> Graph:
    """Real numbers in and out, as a converter leaves a model by default."""
    inner = conv(0.01, bias=True, o=Options())
    x, y, *rest = inner.tensors
    tensors = [Tensor("in", x.shape), x, y, *rest, Tensor("out", y.shape)]
    last = len(tensors) - 1
    return graph(
        tensors,
        (Kind.QUANTIZE, (0,), 1, Options()),
        (Kind.CONV_2D, (1, 3, 4), 2, Options()),
        (Kind.DEQUANTIZE, (2,), last, Options()),
    )


def dense(*, bias: bool) -> Graph:
    w = RNG.integers(-127, 128, (5, 42)).astype(np.int8)
    tensors = [act("x", (1, 42)), act("y", (1, 5), 0.4, 7), constant("w", w, 0.02)]
    if bias:
        tensors.append(constant("b", RNG.integers(-900, 900, 5).astype(np.int32), 0.001))
    return graph(tensors, (Kind.FULLY_CONNECTED, (0, *range(2, len(tensors))), 1, Options()))


def depthwise(times: int, o: Options, shape: Shape) -> Graph:
    w = RNG.integers(-127, 128, (1, 3, 3, 7 * times)).astype(np.int8)
    scales = RNG.uniform(0.005, 0.05, 7 * times).tolist()
    b = constant("b", RNG.integers(-900, 900, 7 * times).astype(np.int32), scales)
    tensors = [act("x", (1, 5, 6, 7)), act("y", shape, 0.3, 4), constant("w", w, scales, 3), b]
    o = replace(o, depth_multiplier=times)
    return graph(tensors, (Kind.DEPTHWISE_CONV_2D, (0, 2, 3), 1, o))


def add(activation: Activation) -> Graph:
    tensors = [act("x", (1, 2, 9)), act("h", (1, 2, 9), 0.08, 20), act("y", (1, 2, 9), 0.11, -40)]
    return graph(
        tensors, (Kind.QUANTIZE, (0,), 1, Options()), (Kind.ADD, (0, 1), 2, Options(activation=activation))
    )


def expanded() -> Graph:
    axis = constant("axis", np.array(1, np.int32))
    tensors = [act("x", (1, 6, 7)), axis, act("e", (1, 1, 6, 7)), act("y", (1, 1, 6, 7), 0.1, 5)]
    return graph(tensors, (Kind.EXPAND_DIMS, (0, 1), 2, Options()), (Kind.RELU, (2,), 3, Options()))


def adding_a_constant(g: Graph) -> None:
    g.ops[1] = replace(g.ops[1], inputs=(0, g.add(constant("c", np.ones((1, 2, 9), np.int8), 0.1))))


AXES = constant("axes", np.array([1, 2], np.int32))
MARGINS = constant("amounts", np.array([[0, 0], [1, 2], [0, 3], [2, 1]], np.int32))
RIGHT: dict[str, Callable[[], Graph]] = {
    "float in and out": float_ends,
    "convolution, one scale for all": lambda: conv(0.01, bias=True, o=Options()),
    "convolution, a scale each": lambda: conv([0.01, 0.02, 0.004, 0.01, 0.03, 0.01], bias=True, o=Options()),
    "convolution, SAME by two": lambda: conv(
        0.01, bias=True, o=replace(SAME2, filter=(1, 1)), shape=(1, 3, 3, 6)
    ),
    "convolution, RELU6 fused": lambda: conv(0.01, bias=True, o=Options(activation=Activation.RELU6)),
    "convolution, -1 to 1 fused": lambda: conv(
        0.01, bias=True, o=Options(activation=Activation.RELU_N1_TO_1)
    ),
    "dense": lambda: dense(bias=True),
    "dense, no bias": lambda: dense(bias=False),
    "depthwise, two a channel": lambda: depthwise(2, Options(stride=(2, 1)), (1, 2, 4, 14)),
    "depthwise, dilated": lambda: depthwise(1, Options(padding=Padding.SAME, dilation=(2, 2)), (1, 5, 6, 7)),
    "average, SAME by two": lambda: unary(Kind.AVERAGE_POOL_2D, act("y", (1, 3, 3, 7)), o=SAME2),
    "average, RELU6 fused": lambda: unary(
        Kind.AVERAGE_POOL_2D, act("y", (1, 3, 3, 7)), o=replace(SAME2, activation=Activation.RELU6)
    ),
    "maximum, SAME by two": lambda: unary(Kind.MAX_POOL_2D, act("y", (1, 3, 3, 7)), o=SAME2),
    "mean": lambda: unary(Kind.MEAN, act("y", (1, 7), 0.03, 9), None, None, AXES),
    "mean, axes kept": lambda: unary(
        Kind.MEAN, act("y", (1, 1, 1, 7), 0.03, 9), None, Options(keep_dims=True), AXES
    ),
    "pad, channels too": lambda: unary(Kind.PAD, act("y", (1, 8, 9, 10)), None, None, MARGINS),
    "add": lambda: add(Activation.NONE),
    "add, RELU fused": lambda: add(Activation.RELU),
    "int8 to int8": lambda: unary(Kind.QUANTIZE, act("y", (1, 5, 6, 7), 0.031, 11)),
    "relu": lambda: unary(Kind.RELU, act("y", (1, 5, 6, 7), 0.031, -11)),
    "relu6": lambda: unary(Kind.RELU6, act("y", (1, 5, 6, 7), 0.024, -128)),
    "softmax, rows": lambda: unary(
        Kind.SOFTMAX, act("y", (1, 5, 6, 7), 1 / 256, -128), act("x", (1, 5, 6, 7), 0.2), Options(beta=0.5)
    ),
    "logistic": lambda: unary(Kind.LOGISTIC, act("y", (1, 5, 6, 7), 1 / 256, -128)),
    "tanh": lambda: unary(Kind.TANH, act("y", (1, 5, 6, 7), 1 / 128, 0)),
    "expanded": expanded,
}
IN_C = (
    "float in and out",
    "mean, axes kept",
    "int8 to int8",
    "softmax, rows",
    "pad, channels too",
    "squeeze and expand",
)


def rows_of(g: Graph, count: int = 40) -> Array:
    t = g.tensors[g.input]
    rng = np.random.default_rng(5)
    if t.dtype == "float32":
        return rng.normal(0, 3, (count, *t.shape[1:])).astype(np.float32)
    return rng.integers(-128, 128, (count, *t.shape[1:])).astype(np.int8)


@pytest.mark.parametrize("name", RIGHT)
def test_as_tflite_runtime(name: str) -> None:
    """The file as a stranger's: written, read back, computed by both."""
    data = write(RIGHT[name]())
    made = read(data)
    rows = rows_of(made)
    want = answers(data, rows)
    np.testing.assert_array_equal(run(lower(made, HERE), rows).reshape(want.shape), want)
    if name in IN_C:
        expected = run(lower(made), rows[:6])
        got = emulated(prepare(made).sources, "cortex-m4", rows[:6], expected[0].nbytes)
        assert list(got) == [row.tobytes() for row in expected]


def test_a_bundle_of_a_network_of_real_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a converter leaves by default: float32 at both ends."""
    path, out = tmp_path / "m.tflite", tmp_path / "b.edge"
    path.write_bytes(write(float_ends()))
    assert main(["build", str(path), "--targets", "host,cortex-m4", "-o", str(out)]) == 0
    rows = rows_of(read(path.read_bytes()))
    np.savez(tmp_path / "d.npz", features=rows.reshape(len(rows), -1))
    assert main(["verify", str(out), "--data", str(tmp_path / "d.npz")]) == 0
    assert main(["inspect", str(out)]) == 0
    assert "float32 [1, 5, 6, 7] to float32 [1, 3, 4, 6]" in capsys.readouterr().out
    want = answers(path.read_bytes(), rows[:3]).reshape(3, -1)
    engine = CompiledEngine.of(Bundle.open(out))
    got = [engine.scores(row.reshape(-1).tolist()) for row in rows[:3]]
    np.testing.assert_array_equal(np.array(got, np.float32), want)


def _tensor(index: int, **changes: Any) -> Callable[[Graph], None]:
    def change(g: Graph) -> None:
        g.tensors[index] = replace(g.tensors[index], **changes)

    return change


def _op(at: int, **changes: Any) -> Callable[[Graph], None]:
    def change(g: Graph) -> None:
        g.ops[at] = replace(g.ops[at], **changes)

    return change


def per_channel_dense(g: Graph) -> None:
    g.tensors[2].scale = np.full(5, 0.02, np.float32)


WRONG: dict[str, tuple[str, Callable[[Graph], None], str]] = {
    "per-channel dense": ("dense", per_channel_dense, "dense weights need one scale"),
    "int16 activations": (
        "dense",
        _tensor(0, dtype="int16"),
        r"layer 'y' \(FULLY_CONNECTED\): computes in int16",
    ),
    "a scale too few": (
        "convolution, a scale each",
        _tensor(2, scale=np.ones(5, np.float32)),
        "5 scales for 6",
    ),
    "scales of another axis": ("convolution, a scale each", _tensor(2, axis=3), "a scale for each of axis 3"),
    "a batch of two": ("dense", _tensor(0, shape=(2, 21)), "export the model with a batch of 1"),
    "no batch": ("relu", _tensor(1, shape=(210,)), "export the model with a batch of 1"),
    "another output shape": (
        "convolution, one scale for all",
        _tensor(1, shape=(1, 3, 5, 6)),
        "declared are",
    ),
    "a grouped convolution": (
        "convolution, one scale for all",
        _tensor(2, shape=(6, 3, 3, 1), data=np.ones((6, 3, 3, 1), np.int8)),
        "is a grouped convolution",
    ),
    "a bias too few": (
        "convolution, one scale for all",
        _tensor(3, shape=(5,), data=np.zeros(5, np.int32)),
        "5] biases for 6 outputs",
    ),
    "a stride of nothing": (
        "maximum, SAME by two",
        _op(0, options=replace(SAME2, stride=(0, 2))),
        "1 or more",
    ),
    "a window beyond its input": (
        "maximum, SAME by two",
        _op(0, options=Options(filter=(9, 9))),
        "has a window larger than its input",
    ),
    "pooling between scales": (
        "maximum, SAME by two",
        _tensor(1, scale=np.array([0.06], np.float32)),
        "has another scale behind it than before it",
    ),
    "softmax to another scale": ("softmax, rows", _tensor(1, zero_point=0), "must end at scale"),
    "logistic to another scale": ("logistic", _tensor(1, zero_point=0), "must end at scale"),
    "a mean of channels": ("mean", _tensor(1, shape=(1, 6)), "average over all positions"),
    "a mean over other axes": ("mean", _tensor(2, data=np.array([1, 3], np.int32)), "averages over axes"),
    "adding other shapes": ("add", _tensor(1, shape=(1, 1, 18)), "only equal computed shapes can be added"),
    "adding a constant": (
        "add",
        adding_a_constant,
        "only equal computed shapes",
    ),
    "a negative pad": ("pad, channels too", _tensor(2, data=-np.ones((4, 2), np.int32)), "pads by"),
    "before it is computed": ("add", lambda g: g.ops.reverse(), "before it is computed"),
    "computed twice": ("add", _op(1, output=1), "no output of its own"),
    "a scale of nothing": ("relu", _tensor(1, scale=np.array([1e-38], np.float32)), "out of range"),
    "a zero point beyond int8": ("relu", _tensor(1, zero_point=300), "the zero point 300"),
    "weights computed": ("dense", _op(0, inputs=(0, 0, 3)), "no constant weights"),
    "a convolution without a bias": (
        "convolution, a scale each",
        _op(0, inputs=(0, 2)),
        "has no bias, without which",
    ),
    "as large as no device": ("relu", _tensor(1, shape=(1, 1 << 25)), "give one of 1 to"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_refused_is_named(name: str) -> None:
    base, change, message = WRONG[name]
    g = RIGHT[base]()
    change(g)
    with pytest.raises(BadInput, match=message) as caught:
        prepare(read(write(g), "x.tflite"))
    assert "\n" not in str(caught.value)


def test_a_factor_that_shifts_everything_out_is_refused() -> None:
    g = RIGHT["dense"]()
    g.tensors[1].scale = np.array([1e-14], np.float32)
    check(g, "x")
    with pytest.raises(BadInput, match="scales: a layer's output step is"):
        prepare(g)
