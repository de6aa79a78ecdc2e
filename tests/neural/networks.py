"""Random networks of every layer type, and single operators whose results are full of ties."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st

from compile.neural.fold import fold
from compile.neural.frontends.builder import Builder
from compile.neural.graph import Activation, Array, Graph, Kind, Op, Options, Padding, Tensor, window
from compile.neural.quantise import quantise

SEEDS = st.integers(0, 2**32 - 1)
ROWS = 6


class Drawn:
    """A float network that grows a layer at a time, with weights from a seeded generator."""

    def __init__(self, seed: int, shape: tuple[int, ...]) -> None:
        self.rng = np.random.default_rng(seed)
        self.b = Builder("random")
        self.x = self.b.input(shape)
        self.layer = 0

    def name(self) -> str:
        self.layer += 1
        return f"layer{self.layer}"

    def weights(self, *shape: int) -> Array:
        taps = int(np.prod(shape[1:])) if len(shape) > 1 else 16
        return self.rng.normal(0, 1.5 / np.sqrt(taps), shape)

    def shape(self) -> tuple[int, ...]:
        return self.b.shape(self.x)


@st.composite
def float_networks(draw: st.DrawFn) -> Graph:
    """A network over a vector, a signal or an image, of one to six layers of any kind."""
    rank = draw(st.sampled_from([0, 1, 1, 2]))
    if rank == 0:
        shape: tuple[int, ...] = (draw(st.integers(1, 40)),)
    elif rank == 1:
        shape = draw(st.integers(6, 40)), draw(st.integers(1, 9))
    else:
        shape = draw(st.integers(3, 9)), draw(st.integers(3, 9)), draw(st.integers(1, 9))
    d = Drawn(draw(SEEDS), shape)
    for _ in range(draw(st.integers(1, 5))):
        if len(d.shape()) == 4:
            _position_layer(draw, d)
        else:
            _dense(draw, d)
    if len(d.shape()) == 4:
        _to_vector(draw, d)
    if draw(st.booleans()):
        _dense(draw, d)
    if d.layer == 0 or all(op.kind is Kind.RESHAPE for op in d.b.graph.ops):
        _dense(draw, d)
    if draw(st.booleans()):
        d.x = d.b.activation(d.x, draw(st.sampled_from(["softmax", "sigmoid", "tanh"])), d.name())
    return d.b.finish(d.x)


def _activate(draw: st.DrawFn, d: Drawn) -> None:
    kind = draw(st.sampled_from([None, "relu", "relu", "relu6", "tanh", "sigmoid"]))
    d.x = d.b.activation(d.x, kind, d.name())


def _dense(draw: st.DrawFn, d: Drawn) -> None:
    out = draw(st.integers(1, 20))
    d.x = d.b.dense(d.x, d.weights(out, d.shape()[1]), d.weights(out), d.name())
    if draw(st.booleans()):
        _batch_norm(d)
    _activate(draw, d)


def _batch_norm(d: Drawn) -> None:
    c, r = d.shape()[-1], d.rng
    moments = r.normal(0, 0.3, c), r.uniform(0.5, 2, c)
    d.x = d.b.batch_norm(d.x, r.uniform(0.5, 1.5, c), r.normal(0, 0.3, c), *moments, 1e-3, d.name())


def _size(draw: st.DrawFn, d: Drawn) -> tuple[int, int]:
    _, h, w, _ = d.shape()
    return draw(st.integers(1, min(h, 4))), draw(st.integers(1, min(w, 7)))


def _pair(draw: st.DrawFn) -> tuple[int, int]:
    return draw(st.integers(1, 2)), draw(st.integers(1, 3))


def _position_layer(draw: st.DrawFn, d: Drawn) -> None:
    kind = draw(st.sampled_from(["conv", "conv", "depthwise", "pool", "residual", "pad", "batch_norm"]))
    c, name = d.shape()[3], d.name()
    padding = draw(st.sampled_from(list(Padding)))
    if kind == "pool":
        pool = draw(st.sampled_from([Kind.MAX_POOL_2D, Kind.AVERAGE_POOL_2D]))
        d.x = d.b.pool(d.x, pool, _size(draw, d), _pair(draw), name, padding)
    elif kind == "pad":
        sides = draw(st.tuples(*[st.integers(0, 2)] * 4))
        d.x = d.b.pad(d.x, (sides[:2], sides[2:]), name)
    elif kind == "residual":
        other = d.b.conv(d.x, d.weights(c, 1, 3, c), d.weights(c), name, pads=Padding.SAME)
        d.x = d.b.add(d.x, other, d.name())
    elif kind == "batch_norm":
        _batch_norm(d)
    elif kind == "depthwise":
        h, w = _size(draw, d)
        times = draw(st.integers(1, 2))
        kernel = d.weights(1, h, w, c * times)
        stride = _pair(draw)
        d.x = d.b.conv(d.x, kernel, d.weights(c * times), name, stride=stride, pads=padding, depthwise=True)
    else:
        h, w = _size(draw, d)
        out = draw(st.integers(1, 18))
        kernel = d.weights(out, h, w, c)
        o: dict[str, Any] = {"stride": _pair(draw), "pads": padding}
        if padding is Padding.SAME and draw(st.booleans()):
            o = {"dilation": (draw(st.integers(1, 2)), draw(st.integers(1, 2))), "pads": padding}
        d.x = d.b.conv(d.x, kernel, d.weights(out), name, **o)
    if kind != "pad":
        _activate(draw, d)


def _to_vector(draw: st.DrawFn, d: Drawn) -> None:
    way = draw(st.sampled_from(["average", "maximum", "flatten"]))
    if way == "flatten":
        d.x = d.b.reshape(d.x, (1, int(np.prod(d.shape()))), d.name())
    else:
        d.x = d.b.global_average(d.x, d.name()) if way == "average" else d.b.global_max(d.x, d.name())


def calibration(graph: Graph, seed: int, rows: int = 24) -> Array:
    """Real inputs for a float network."""
    shape = graph.tensors[graph.input].shape[1:]
    return np.random.default_rng(seed).normal(0, 1, (rows, *shape)).astype(np.float32)


def quantised(graph: Graph, seed: int) -> Graph:
    """The network in int8, from random calibration data."""
    return quantise(fold(graph), calibration(graph, seed), percentiles=[100.0])[0]


def random_inputs(graph: Graph, seed: int, rows: int = ROWS) -> Array:
    """Rows of the network's own integer type over its whole range."""
    t = graph.tensors[graph.input]
    low, high = (-128, 128) if t.dtype == "int8" else (-12_750, 1)
    return np.random.default_rng(seed).integers(low, high, (rows, *t.shape[1:])).astype(t.dtype)


def _activation(name: str, shape: tuple[int, ...], zero_point: int) -> Tensor:
    return Tensor(name, shape, "int8", None, np.ones(1, np.float32), zero_point)


def tie(kind: Kind, shape: tuple[int, ...], w: Array, options: Options, factor: float = 0.3) -> Graph:
    """One layer without ReLU whose factor is just under a half: every other result is a tie."""
    count = w.shape[3] if kind is Kind.DEPTHWISE_CONV_2D else w.shape[0]
    scales = np.full(1 if kind is Kind.FULLY_CONNECTED else count, factor, np.float32)
    bias = (np.arange(count, dtype=np.int32) * 7) % 41 - 20
    axis = 3 if kind is Kind.DEPTHWISE_CONV_2D else 0
    g = Graph(
        [
            _activation("x", shape, 3),
            Tensor("w", w.shape, "int8", w.astype(np.int8), scales, 0, axis),
            Tensor("b", bias.shape, "int32", bias, scales),
            _activation("y", (1, 1, 1, count), -5),
        ],
        [Op(kind, (0, 1, 2), 3, options, "tie")],
        0,
        3,
    )
    if kind is Kind.FULLY_CONNECTED:
        g.tensors[3].shape = (shape[0], count)
    else:
        geometry = window(g, g.ops[0])
        g.tensors[3].shape = (1, geometry.out_height, geometry.out_width, count)
    return g


def ties() -> Iterator[tuple[str, Graph]]:
    """Layers in the shapes at which some kernel of tflite-runtime changes: its vector width, its one-column case."""
    rng = np.random.default_rng(20261124)

    def small(*shape: int) -> Array:
        return rng.integers(-2, 3, shape)

    for n in (1, 3, 4, 5, 8, 17):
        for k in (3, 7, 8, 17, 64):
            yield f"dense {n} of {k}", tie(Kind.FULLY_CONNECTED, (1, k), small(n, k), Options())
    for c, n, k in ((1, 8, 5), (3, 4, 3), (8, 8, 1), (16, 7, 3), (8, 2, 3)):
        o = Options(padding=Padding.SAME)
        yield f"conv {n} of {c}, window {k}", tie(Kind.CONV_2D, (1, 4, 7, c), small(n, k, k, c), o)
    yield "conv, one position", tie(Kind.CONV_2D, (1, 3, 3, 8), small(8, 3, 3, 8), Options())
    yield "conv, one position, few", tie(Kind.CONV_2D, (1, 1, 1, 6), small(8, 1, 1, 6), Options())
    for c, times in ((1, 1), (1, 3), (4, 2), (5, 2), (7, 1), (8, 1), (9, 3), (12, 1), (16, 1), (3, 8)):
        for k in ((1, 3), (3, 3)):
            o = Options(padding=Padding.SAME, depth_multiplier=times)
            w = small(1, *k, c * times)
            yield f"depthwise {c} x {times}, window {k}", tie(Kind.DEPTHWISE_CONV_2D, (1, 4, 7, c), w, o)


def extreme(kind: Kind, shape: tuple[int, ...], w: Array, options: Options) -> Graph:
    """A layer with all weights at an end of their range."""
    g = tie(kind, shape, w, options, factor=0.0009)
    g.ops[0] = Op(kind, (0, 1, 2), 3, options, "extreme")
    return g


def relu(options: Options) -> Options:
    """The options with a fused ReLU."""
    return Options(
        activation=Activation.RELU,
        padding=options.padding,
        stride=options.stride,
        depth_multiplier=options.depth_multiplier,
    )
