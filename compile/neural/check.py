"""What a graph read from a file must hold before anything is computed or emitted from it: shapes, order, scales.

Interpreters compute shapes anew; here the file's own are what buffers are sized by, so each is held against what its
operator gives (TFLite 2.14, the operators' Prepare functions). A file that fails is damaged or made for a feature
that is not supported; the message names the layer.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from compile.neural.graph import Graph, Kind, Op, Tensor, window
from edge_runtime.errors import BadInput

_LARGEST = 1 << 24  # elements of a tensor; a device's memory ends long before
_STEPS = 1e-30, 1e30
"""Scales outside are damage: products of three must stay normal float32 numbers."""
_ENDS = {Kind.SOFTMAX: (1 / 256, -128), Kind.LOGISTIC: (1 / 256, -128), Kind.TANH: (1 / 128, 0)}
_KEEP_SCALE = (Kind.AVERAGE_POOL_2D, Kind.MAX_POOL_2D, Kind.PAD)


def check(graph: Graph, where: str) -> None:
    """Raise BadInput where the graph cannot be computed as it is declared."""
    for t in graph.tensors:
        _check_tensor(t, where)
    known = {graph.input}
    if graph.tensors[graph.input].data is not None:
        raise BadInput(f"{where}: its input is a constant; export the model again")
    for op in graph.ops:
        _check_flow(graph, op, known, where)
        known.add(op.output)
        problem = _PROBLEMS[op.kind](graph, op) or _scales(graph, op)
        if problem:
            raise BadInput(f"{where}: layer {op.source!r} ({op.kind.name}) {problem}")
    if graph.output not in known:
        raise BadInput(f"{where}: no layer computes its output; export the model again")


def _check_tensor(t: Tensor, where: str) -> None:
    if any(d <= 0 for d in t.shape) or t.size > _LARGEST:
        raise BadInput(
            f"{where}: tensor {t.name!r} has the shape {list(t.shape)}; give one of 1 to {_LARGEST:,} values"
        )
    if t.scale is None:
        return
    if not all(_STEPS[0] < float(s) < _STEPS[1] for s in t.scale) or not -(2**15) <= t.zero_point < 2**15:
        raise BadInput(f"{where}: tensor {t.name!r} has a scale or zero point out of range; export it again")
    if t.dtype == "int8" and not -128 <= t.zero_point <= 127:
        raise BadInput(
            f"{where}: tensor {t.name!r} has the zero point {t.zero_point}, which int8 cannot hold"
        )


def _check_flow(graph: Graph, op: Op, known: set[int], where: str) -> None:
    """Computed inputs come from before, and nothing is computed twice."""
    source, out = op.inputs[0], op.output
    if source < 0 or out < 0 or out in known or graph.tensors[out].data is not None:
        raise BadInput(f"{where}: layer {op.source!r} ({op.kind.name}) has no input or no output of its own")
    for i in op.inputs:
        if i >= 0 and i not in known and graph.tensors[i].data is None:
            name = graph.tensors[i].name
            raise BadInput(
                f"{where}: layer {op.source!r} reads {name!r} before it is computed; export the model again"
            )
    for i in (source, out):
        t = graph.tensors[i]
        if t.data is None and (len(t.shape) < 2 or t.shape[0] != 1):
            raise BadInput(
                f"{where}: layer {op.source!r} works on {list(t.shape)}; export the model with a batch of 1"
            )


def _ends(graph: Graph, op: Op) -> tuple[Tensor, Tensor]:
    return graph.tensors[op.inputs[0]], graph.tensors[op.output]


def _gives(out: Tensor, shape: tuple[int, ...]) -> str:
    return (
        ""
        if out.shape == shape
        else f"gives {list(shape)}, declared are {list(out.shape)}; export the model again"
    )


def _weights(graph: Graph, op: Op, rank: int, outputs_at: int) -> str:
    """Weights of `rank` axes whose outputs lie along one of them, a bias and a scale for each."""
    w = graph.tensors[op.inputs[1]] if len(op.inputs) > 1 and op.inputs[1] >= 0 else None
    if w is None or w.data is None:
        return "has no constant weights, the only ones that are supported; export the model again"
    if len(w.shape) != rank:
        return f"has weights of {len(w.shape)} axes; a layer of this kind has {rank}"
    count = w.shape[outputs_at]
    if len(op.inputs) > 2 and op.inputs[2] >= 0 and graph.tensors[op.inputs[2]].shape != (count,):
        return f"has {list(graph.tensors[op.inputs[2]].shape)} biases for {count} outputs; export the model again"
    if w.scale is not None and len(w.scale) not in (1, count):
        return f"has {len(w.scale)} scales for {count} outputs; quantise it per channel or per tensor"
    if w.scale is not None and len(w.scale) > 1 and w.axis != outputs_at:
        return f"has a scale for each of axis {w.axis}; quantise it per output channel"
    return ""


def _windowed(graph: Graph, op: Op) -> str:
    o = op.options
    convolves, whole = (
        op.kind in (Kind.CONV_2D, Kind.DEPTHWISE_CONV_2D),
        len(op.inputs) > 2 and op.inputs[2] >= 0,
    )
    if convolves and not whole and graph.tensors[op.inputs[0]].dtype == "int8":
        return "has no bias, without which tflite-runtime refuses it or crashes; export it with one"
    if len(graph.tensors[op.inputs[0]].shape) != 4:
        return "does not work on height, width and channels; export the model again"
    if min(*o.stride, *o.dilation, *o.filter) < 1:
        return f"has the stride {o.stride}, dilation {o.dilation}, window {o.filter}; they are 1 or more"
    g = window(graph, op)
    if max(g.filter) * max(g.dilation) > _LARGEST or min(g.out_height, g.out_width) < 1:
        return "has a window larger than its input; export the model again"
    return ""


def _conv(graph: Graph, op: Op) -> str:
    problem = _weights(graph, op, 4, 0) or _windowed(graph, op)
    if problem:
        return problem
    g, w = window(graph, op), graph.tensors[op.inputs[1]]
    if w.shape[3] != g.channels:
        return "is a grouped convolution; use a depthwise one or no groups"
    return _gives(graph.tensors[op.output], (1, g.out_height, g.out_width, w.shape[0]))


def _depthwise(graph: Graph, op: Op) -> str:
    problem = _weights(graph, op, 4, 3) or _windowed(graph, op)
    if problem:
        return problem
    g, w = window(graph, op), graph.tensors[op.inputs[1]]
    if w.shape[0] != 1 or w.shape[3] % g.channels:
        return f"has weights {list(w.shape)} for {g.channels} channels; export the model again"
    declared, found = op.options.depth_multiplier, w.shape[3] // g.channels
    if declared not in (0, found):
        return f"declares {declared} outputs a channel; its weights have {found}"
    return _gives(graph.tensors[op.output], (1, g.out_height, g.out_width, w.shape[3]))


def _dense(graph: Graph, op: Op) -> str:
    problem = _weights(graph, op, 2, 0)
    if problem:
        return problem
    x, y = _ends(graph, op)
    outputs, inputs = graph.tensors[op.inputs[1]].shape
    if x.size % inputs or y.size != x.size // inputs * outputs:
        return f"takes {inputs} and gives {outputs}, between {list(x.shape)} and {list(y.shape)}; export it again"
    return ""


def _pool(graph: Graph, op: Op) -> str:
    problem = _windowed(graph, op)
    if problem:
        return problem
    g = window(graph, op)
    return _gives(graph.tensors[op.output], (1, g.out_height, g.out_width, g.channels))


def _mean(graph: Graph, op: Op) -> str:
    x, y = _ends(graph, op)
    if len(op.inputs) < 2 or graph.tensors[op.inputs[1]].data is None:
        return "has no constant axes; export the model again"
    if len(x.shape) < 3 or y.size != x.shape[-1]:
        return f"brings {list(x.shape)} to {list(y.shape)}; average over all positions of a channel"
    return ""


def _pad(graph: Graph, op: Op) -> str:
    x, y = _ends(graph, op)
    amounts = graph.tensors[op.inputs[1]] if len(op.inputs) > 1 and op.inputs[1] >= 0 else None
    if amounts is None or amounts.data is None or amounts.shape != (len(x.shape), 2):
        return "has no constant amounts; export the model again"
    given = amounts.data.astype(np.int64)
    if (given < 0).any() or (given > _LARGEST).any():
        return "pads by less than nothing, or without end; export the model again"
    return _gives(y, tuple(int(n + a.sum()) for n, a in zip(x.shape, given, strict=True)))


def _add(graph: Graph, op: Op) -> str:
    if len(op.inputs) != 2 or op.inputs[1] < 0:
        return "adds other than two; export the model again"
    a, b, y = (graph.tensors[i] for i in (*op.inputs, op.output))
    if a.shape != b.shape or a.data is not None or b.data is not None:
        return f"adds {list(a.shape)} and {list(b.shape)}; only equal computed shapes can be added"
    return _gives(y, a.shape)


def _same_size(graph: Graph, op: Op) -> str:
    x, y = _ends(graph, op)
    return "" if x.size == y.size else f"makes {list(y.shape)} of {list(x.shape)}; export the model again"


def _scales(graph: Graph, op: Op) -> str:
    """Scales that an operator fixes, where it is quantised."""
    x, y = _ends(graph, op)
    if x.dtype != "int8" or y.dtype != "int8" or x.scale is None or y.scale is None:
        return ""
    if op.kind in _KEEP_SCALE and (x.scale[0], x.zero_point) != (y.scale[0], y.zero_point):
        return "has another scale behind it than before it; export the model again"
    if op.kind in _ENDS and (float(y.scale[0]), y.zero_point) != _ENDS[op.kind]:
        return (
            f"must end at scale {_ENDS[op.kind][0]:g}, zero point {_ENDS[op.kind][1]}; export the model again"
        )
    return ""


_PROBLEMS: dict[Kind, Callable[[Graph, Op], str]] = {
    Kind.CONV_2D: _conv,
    Kind.DEPTHWISE_CONV_2D: _depthwise,
    Kind.FULLY_CONNECTED: _dense,
    Kind.AVERAGE_POOL_2D: _pool,
    Kind.MAX_POOL_2D: _pool,
    Kind.MEAN: _mean,
    Kind.PAD: _pad,
    Kind.ADD: _add,
    **dict.fromkeys(
        (
            Kind.RESHAPE, Kind.SQUEEZE, Kind.EXPAND_DIMS, Kind.SOFTMAX, Kind.LOGISTIC, Kind.TANH, Kind.RELU,
            Kind.RELU6, Kind.QUANTIZE, Kind.DEQUANTIZE,
        ),
        _same_size,
    ),
}  # fmt: skip
