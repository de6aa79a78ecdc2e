"""A float graph run in numpy, many inputs at once: the reference that a quantised network is measured against."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.neural.graph import Activation, Array, Graph, Kind, Op, window
from edge_runtime.errors import BadInput

F32 = NDArray[np.float32]
_BATCH = 128  # keeps the intermediate values of a batch within a few megabytes


def run(graph: Graph, x: Array) -> F32:
    """Outputs for a batch: x is n x (the input's shape without its batch), or n x its size."""
    rows = shaped(graph, x)
    return np.concatenate(
        [values(graph, rows[i : i + _BATCH])[graph.output] for i in range(0, len(rows), _BATCH)]
    )


def shaped(graph: Graph, x: Array) -> F32:
    """A batch in the input's shape. Raises BadInput where its width is another."""
    shape = graph.tensors[graph.input].shape[1:]
    if len(x) == 0 or np.prod(x.shape[1:]) != np.prod(shape):
        raise BadInput(
            f"data: {list(x.shape[1:])} values a row in {len(x)} rows; the network takes {list(shape)}; "
            f"give data of the network's own input"
        )
    return np.ascontiguousarray(x, np.float32).reshape(len(x), *shape)


def values(graph: Graph, x: F32) -> dict[int, F32]:
    """Every computed tensor of a batch in the input's shape."""
    found = {graph.input: x}
    for op in graph.ops:
        ins = [found[i] for i in op.inputs if i in found]
        shape = graph.tensors[op.output].shape[1:]
        if op.kind not in _RUN:
            raise BadInput(
                f"layer {op.source!r}: {op.kind.name} in a float network; export it without quantisation"
            )
        out = _RUN[op.kind](graph, op, *ins).reshape(len(x), *shape)
        found[op.output] = _activate(out, op.options.activation).astype(np.float32, copy=False)
    return found


def _activate(x: Array, a: Activation) -> Array:
    if a is Activation.NONE:
        return x
    low = -1.0 if a is Activation.RELU_N1_TO_1 else 0.0
    high = {Activation.RELU: np.inf, Activation.RELU6: 6.0, Activation.RELU_N1_TO_1: 1.0}[a]
    return np.clip(x, low, high)


def _taps(g: Graph, op: Op, x: Array, fill: float) -> list[Array]:
    """The shifted views of a padded batch, tap by tap; each n x out_height x out_width x channels."""
    w = window(g, op)
    margins = (0, 0), (w.top, w.bottom), (w.left, w.right), (0, 0)
    padded = np.pad(x, margins, constant_values=fill)
    last = (w.out_height - 1) * w.stride[0] + 1, (w.out_width - 1) * w.stride[1] + 1
    corners = [(i * w.dilation[0], j * w.dilation[1]) for i in range(w.filter[0]) for j in range(w.filter[1])]
    return [padded[:, i : i + last[0] : w.stride[0], j : j + last[1] : w.stride[1]] for i, j in corners]


def _conv(g: Graph, op: Op, x: Array) -> Array:
    w = g.data(op.inputs[1])
    out = np.concatenate(_taps(g, op, x, 0.0), axis=-1) @ w.reshape(w.shape[0], -1).T
    return np.asarray(out + g.data(op.inputs[2]))


def _depthwise(g: Graph, op: Op, x: Array) -> Array:
    w = g.data(op.inputs[1]).reshape(-1, g.data(op.inputs[1]).shape[3])
    times = op.options.depth_multiplier
    taps = _taps(g, op, x, 0.0)
    total = sum(np.repeat(t, times, -1) * k for t, k in zip(taps, w, strict=True))
    return np.asarray(total + g.data(op.inputs[2]))


def _dense(g: Graph, op: Op, x: Array) -> Array:
    return np.asarray(x @ g.data(op.inputs[1]).T + g.data(op.inputs[2]))


def _max_pool(g: Graph, op: Op, x: Array) -> Array:
    return np.asarray(np.max(np.stack(_taps(g, op, x, -np.inf)), axis=0))


def _average_pool(g: Graph, op: Op, x: Array) -> Array:
    total = np.asarray(sum(_taps(g, op, x, 0.0)))
    return np.asarray(total / sum(_taps(g, op, np.ones_like(x[:1]), 0.0)))


def _softmax(g: Graph, op: Op, x: Array) -> Array:
    e = np.exp(op.options.beta * (x - x.max(-1, keepdims=True)))
    return np.asarray(e / e.sum(-1, keepdims=True))


def _pad(g: Graph, op: Op, x: Array) -> Array:
    return np.pad(x, [tuple(a) for a in g.data(op.inputs[1]).tolist()])


def _scale(g: Graph, op: Op, x: Array) -> Array:
    return np.asarray(x * g.data(op.inputs[1]) + g.data(op.inputs[2]))


_RUN: dict[Kind, Any] = {
    Kind.CONV_2D: _conv,
    Kind.DEPTHWISE_CONV_2D: _depthwise,
    Kind.FULLY_CONNECTED: _dense,
    Kind.MAX_POOL_2D: _max_pool,
    Kind.AVERAGE_POOL_2D: _average_pool,
    Kind.MEAN: lambda g, op, x: x.mean(tuple(range(1, x.ndim - 1))),
    Kind.ADD: lambda g, op, a, b=None: a + (a if b is None else b),
    Kind.RELU: lambda g, op, x: np.maximum(x, 0),
    Kind.RELU6: lambda g, op, x: np.clip(x, 0, 6),
    Kind.LOGISTIC: lambda g, op, x: 1 / (1 + np.exp(-x.astype(np.float64))),
    Kind.TANH: lambda g, op, x: np.tanh(x),
    Kind.SOFTMAX: _softmax,
    Kind.RESHAPE: lambda g, op, x: x,
    Kind.SQUEEZE: lambda g, op, x: x,
    Kind.EXPAND_DIMS: lambda g, op, x: x,
    Kind.PAD: _pad,
    Kind.BATCH_NORM: _scale,
}
