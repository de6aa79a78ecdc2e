"""A quantised graph lowered to integer steps (see integer).

Every real number of the graph becomes a multiplier and a shift here, computed in the precision that TFLite uses at
the same place (some factors are products of float32, some of float64): the output's last bit depends on it.

So it does on which way TFLite rounds a half after a shift, and that depends on its kernel, thus on the machine: the
wheels of tflite-runtime 2.14 were asked, operator by operator, on x86-64, aarch64 (Cortex-A53, A72, with and without
dot products) and armv7. aarch64 and armv7 agree everywhere. x86-64 differs from them by one step where a result below
the zero point is a tie; no tie is below it behind a ReLU. Networks quantised here have no such tie (see ties.py).
"""

from __future__ import annotations

from enum import Enum

import numpy as np
from numpy.typing import NDArray

from compile.neural import fixedpoint
from compile.neural.graph import Activation, Graph, Kind, Op, Tensor, window
from compile.neural.integer import (
    Add,
    Depthwise,
    Dequantise,
    Mean,
    Pad,
    Plan,
    Pool,
    Product,
    Quantise,
    Requantise,
    Softmax,
    Step,
    Table,
)
from edge_runtime.errors import BadInput

I32 = NDArray[np.int32]
F32 = NDArray[np.float32]


class Machine(Enum):
    """Whose tflite-runtime is followed where they differ."""

    ARM = "arm"
    X86 = "x86"


def lower(graph: Graph, machine: Machine = Machine.ARM) -> Plan:
    """The integer steps of a quantised graph, as `machine`'s tflite-runtime computes them.

    Raises BadInput where an operator is not full int8.
    """
    alias = list(range(len(graph.tensors)))
    steps: list[Step] = []
    for op in graph.ops:
        src = alias[op.inputs[0]]
        if graph.tensors[op.inputs[0]].data is not None:
            raise BadInput(f"layer {op.source!r}: computes on a constant; fold it before exporting the model")
        if op.kind in (Kind.RESHAPE, Kind.SQUEEZE, Kind.EXPAND_DIMS):
            ends = graph.tensors[op.inputs[0]], graph.tensors[op.output]
            if ends[0].dtype != ends[1].dtype or ends[0].size != ends[1].size:
                raise BadInput(
                    f"layer {op.source!r}: reshapes {_shown(ends[0])} to {_shown(ends[1])}; export it again"
                )
            alias[op.output] = src
            continue
        _check_types(graph, op)
        steps.append(_LOWER[op.kind](graph, op, Step((src,), op.output, op.source, op.kind)))
        _set_ties(steps[-1], machine)
        if op.kind is Kind.ADD:
            steps[-1].src = (src, alias[op.inputs[1]])
    answer = graph.tensors[graph.output]
    return Plan(steps, graph.tensors, graph.input, alias[graph.output], answer)


def _shown(t: Tensor) -> str:
    return f"{t.dtype}{list(t.shape)}"


def _set_ties(step: Step, machine: Machine) -> None:
    if isinstance(step, Product):
        count, taps = step.weights.shape
        positions = step.rows if step.window is None else step.window.out_height * step.window.out_width
        vector = positions == 1 and count >= 4 and taps >= 8  # ARM's matrix-by-vector kernel
        step.ties_up = count if machine is Machine.X86 or vector else 0
    elif isinstance(step, Depthwise):
        # ARM's kernel takes eight channels at a time; its scalar tail rounds otherwise.
        step.ties_up = 0 if machine is Machine.X86 else len(step.bias) // 8 * 8
    elif isinstance(step, Requantise) and not step.wide:
        step.ties_up = 0 if machine is Machine.X86 else step.size // 16 * 16


def _check_types(graph: Graph, op: Op) -> None:
    ends = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    allowed = {
        Kind.QUANTIZE: (("float32", "int8"), ("int16", "int8"), ("int8", "int8")),
        Kind.DEQUANTIZE: (("int8", "float32"),),
    }.get(op.kind, (("int8", "int8"),))
    got = ends[0].dtype, ends[1].dtype
    if got not in allowed or (op.kind is Kind.ADD and graph.tensors[op.inputs[1]].dtype != "int8"):
        raise BadInput(
            f"layer {op.source!r} ({op.kind.name}): computes in {got[0]}; give a model quantised to full int8, "
            f"or the float model with --data so that it is quantised here"
        )


def _clamp(t: Tensor, activation: Activation) -> tuple[int, int]:
    """The output range of a fused activation, in the tensor's own steps."""

    def at(value: float) -> int:
        return t.zero_point + int(
            fixedpoint.round_away(np.array(np.float32(value) / np.float32(t.step), np.float32))
        )

    low = {Activation.NONE: -128, Activation.RELU_N1_TO_1: at(-1.0)}.get(activation, at(0.0))
    high = {Activation.RELU6: at(6.0), Activation.RELU_N1_TO_1: at(1.0)}.get(activation, 127)
    return max(-128, low), min(127, high)


def _fold(bias: NDArray[np.int64], sums: NDArray[np.int64], zero: int) -> I32:
    return (bias - zero * sums).astype(np.int32)


def _bias(graph: Graph, op: Op, count: int) -> NDArray[np.int64]:
    if len(op.inputs) < 3 or op.inputs[2] < 0:
        return np.zeros(count, np.int64)
    return graph.data(op.inputs[2]).astype(np.int64)


def _factors(graph: Graph, op: Op, count: int) -> NDArray[np.float64]:
    x, w, y = graph.tensors[op.inputs[0]], graph.tensors[op.inputs[1]], graph.tensors[op.output]
    if w.scale is None:
        raise BadInput(
            f"layer {op.source!r}: has weights without a scale; give a model quantised to full int8"
        )
    scales = np.broadcast_to(w.scale.astype(np.float64), (count,))
    return x.step * scales / y.step


def _conv(graph: Graph, op: Op, s: Step) -> Step:
    geometry = window(graph, op)
    raw = graph.data(op.inputs[1])
    if raw.shape[3] != geometry.channels:
        raise BadInput(f"layer {op.source!r}: is a grouped convolution; use a depthwise one or no groups")
    w = raw.reshape(raw.shape[0], -1)
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    mult, shift = fixedpoint.multipliers(_factors(graph, op, len(w)))
    bias = _fold(_bias(graph, op, len(w)), w.astype(np.int64).sum(1), x.zero_point)
    low, high = _clamp(y, op.options.activation)
    return Product(
        s.src,
        s.dst,
        s.source,
        s.kind,
        geometry,
        w,
        bias,
        mult,
        shift,
        x.zero_point,
        y.zero_point,
        low,
        high,
        0,
    )


def _dense(graph: Graph, op: Op, s: Step) -> Step:
    w = graph.data(op.inputs[1])
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    scale = graph.tensors[op.inputs[1]].scale
    if scale is None or len(scale) != 1:
        raise BadInput(f"layer {op.source!r}: dense weights need one scale; quantise them per tensor")
    # TFLite multiplies these two scales in float32, unlike a convolution's.
    factor = float(np.float32(x.step) * scale[0]) / y.step
    mult, shift = fixedpoint.multipliers(np.full(len(w), factor))
    bias = _fold(_bias(graph, op, len(w)), w.astype(np.int64).sum(1), x.zero_point)
    low, high = _clamp(y, op.options.activation)
    step = Product(
        s.src, s.dst, s.source, s.kind, None, w, bias, mult, shift, x.zero_point, y.zero_point, low, high, 0
    )
    step.rows = x.size // w.shape[1]
    return step


def _depthwise(graph: Graph, op: Op, s: Step) -> Step:
    raw = graph.data(op.inputs[1])
    w = raw.reshape(-1, raw.shape[3])
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    mult, shift = fixedpoint.multipliers(_factors(graph, op, w.shape[1]))
    bias = _fold(_bias(graph, op, w.shape[1]), w.astype(np.int64).sum(0), x.zero_point)
    low, high = _clamp(y, op.options.activation)
    times = w.shape[1] // x.shape[3]
    geometry = window(graph, op)
    return Depthwise(
        s.src,
        s.dst,
        s.source,
        s.kind,
        geometry,
        times,
        w,
        bias,
        mult,
        shift,
        x.zero_point,
        y.zero_point,
        low,
        high,
        0,
    )


def _pool(graph: Graph, op: Op, s: Step) -> Step:
    low, high = _clamp(graph.tensors[op.output], op.options.activation)
    return Pool(s.src, s.dst, s.source, s.kind, window(graph, op), low, high)


def _mean(graph: Graph, op: Op, s: Step) -> Step:
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    axes = sorted(int(a) % len(x.shape) for a in graph.data(op.inputs[1]).reshape(-1))
    if axes != list(range(1, len(x.shape) - 1)):
        raise BadInput(
            f"layer {op.source!r}: averages over axes {axes}; average over all positions of a channel"
        )
    count = x.size // x.shape[-1]
    if op.options.keep_dims and len(x.shape) == 4:
        return _mean_kept(s, x, y, count)
    mult, shift = fixedpoint.multiplier(x.step / y.step)
    # As TFLite folds the division into the multiplier: as many spare bits as fit, then an integer division.
    spare = min(count.bit_length() - 1, 32, 31 + shift)
    mult = (mult << spare) // count
    offset = x.zero_point * count
    return Mean(s.src, s.dst, s.source, s.kind, count, x.shape[-1], mult, shift - spare, offset, y.zero_point)


def _mean_kept(s: Step, x: Tensor, y: Tensor, count: int) -> Step:
    """The kernel for outputs that keep their axes: one factor in float32, the zero point rescaled on its own."""
    scale_in, scale_out = np.float32(x.step), np.float32(y.step)
    mult, shift = fixedpoint.multiplier(float(scale_in / (np.float32(count) * scale_out)))
    zero = fixedpoint.round_away(np.array(np.float32(x.zero_point) * scale_in / scale_out, np.float32))
    bias = y.zero_point - int(zero)
    return Mean(s.src, s.dst, s.source, s.kind, count, x.shape[-1], mult, shift, 0, bias)


def _add(graph: Graph, op: Op, s: Step) -> Step:
    a, b, y = (graph.tensors[i] for i in (*op.inputs, op.output))
    if a.shape != b.shape or b.data is not None:
        raise BadInput(
            f"layer {op.source!r}: adds {a.shape} and {b.shape}; only equal computed shapes can be added"
        )
    twice = 2.0 * max(a.step, b.step)
    pairs = [fixedpoint.multiplier(f) for f in (a.step / twice, b.step / twice, twice / ((1 << 20) * y.step))]
    mult, shift = (pairs[0][0], pairs[1][0], pairs[2][0]), (pairs[0][1], pairs[1][1], pairs[2][1])
    low, high = _clamp(y, op.options.activation)
    return Add(
        s.src,
        s.dst,
        s.source,
        s.kind,
        a.size,
        a.zero_point,
        b.zero_point,
        mult,
        shift,
        y.zero_point,
        low,
        high,
    )


def _logistic(x: F32) -> F32:
    """1 / (1 + exp(-x)), each step rounded to float32: near a half of an output step it matters."""
    with np.errstate(over="ignore"):
        e = np.exp(-x.astype(np.float64)).astype(np.float32)
    return np.asarray(np.float32(1) / (np.float32(1) + e), np.float32)


def _table(graph: Graph, op: Op, s: Step) -> Step:
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    codes = np.arange(-128, 128)
    if op.kind in (Kind.LOGISTIC, Kind.TANH):
        real = np.float32(x.step) * (codes - x.zero_point).astype(np.float32)
        f = np.tanh(real.astype(np.float64)).astype(np.float32) if op.kind is Kind.TANH else _logistic(real)
        steps = fixedpoint.round_away(f * (np.float32(1) / np.float32(y.step)))
        out = steps.astype(np.int64) + y.zero_point
        low, high = -128, 127
    else:
        # ReluPrepare divides in float32.
        mult, shift = fixedpoint.multiplier(float(np.float32(x.step) / np.float32(y.step)))
        out = fixedpoint.rescale((codes - x.zero_point).astype(np.int64), mult, shift) + y.zero_point
        low, high = _clamp(y, Activation.RELU6 if op.kind is Kind.RELU6 else Activation.RELU)
    return Table(s.src, s.dst, s.source, s.kind, x.size, np.clip(out, low, high).astype(np.int8))


def _softmax(graph: Graph, op: Op, s: Step) -> Step:
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    if y.zero_point != -128 or y.step != 1 / 256:
        raise BadInput(
            f"layer {op.source!r}: softmax must end at scale 1/256, zero point -128; export it again"
        )
    scale = np.float32(-x.step) * np.float32(op.options.beta)
    distance = scale * np.arange(256, dtype=np.float32)
    table = np.exp(distance.astype(np.float64)).astype(np.float32)[::-1]
    return Softmax(
        s.src, s.dst, s.source, s.kind, x.size // x.shape[-1], x.shape[-1], np.ascontiguousarray(table)
    )


def _pad(graph: Graph, op: Op, s: Step) -> Step:
    x = graph.tensors[op.inputs[0]]
    amounts = graph.data(op.inputs[1]).astype(int).tolist()
    if len(x.shape) != 4 or amounts[0] != [0, 0]:
        raise BadInput(f"layer {op.source!r}: pads {amounts}; only height, width and channels can be padded")
    before, after = tuple(a[0] for a in amounts[1:]), tuple(a[1] for a in amounts[1:])
    return Pad(
        s.src, s.dst, s.source, s.kind, x.shape[1:], before, after, graph.tensors[op.output].zero_point
    )


def _quantise(graph: Graph, op: Op, s: Step) -> Step:
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    if x.dtype == "float32":
        return Quantise(s.src, s.dst, s.source, s.kind, x.size, y.step, y.zero_point)
    mult, shift = fixedpoint.multiplier(x.step / y.step)
    return Requantise(
        s.src, s.dst, s.source, s.kind, x.size, x.dtype == "int16", x.zero_point, y.zero_point, mult, shift, 0
    )


def _dequantise(graph: Graph, op: Op, s: Step) -> Step:
    x = graph.tensors[op.inputs[0]]
    return Dequantise(s.src, s.dst, s.source, s.kind, x.size, x.step, x.zero_point)


_LOWER = {
    Kind.CONV_2D: _conv,
    Kind.FULLY_CONNECTED: _dense,
    Kind.DEPTHWISE_CONV_2D: _depthwise,
    Kind.AVERAGE_POOL_2D: _pool,
    Kind.MAX_POOL_2D: _pool,
    Kind.MEAN: _mean,
    Kind.ADD: _add,
    Kind.LOGISTIC: _table,
    Kind.TANH: _table,
    Kind.RELU: _table,
    Kind.RELU6: _table,
    Kind.SOFTMAX: _softmax,
    Kind.PAD: _pad,
    Kind.QUANTIZE: _quantise,
    Kind.DEQUANTIZE: _dequantise,
}
