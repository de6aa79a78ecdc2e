"""A folded float graph quantised to int8: ranges from calibration, chosen by how well the result agrees.

Activations: one scale and zero point a tensor, the range always holding 0. Convolution weights: symmetric, a scale a
channel; dense weights: symmetric, one scale (per-channel dense needs operator version 12, which tflite-runtime 2.14
refuses). Biases: int32 at the product of the scales. (TFLite 8-bit quantisation specification.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compile.neural import run_float, run_int8
from compile.neural.fixedpoint import round_away
from compile.neural.graph import Array, Graph, Kind, Op, Options, Tensor
from compile.neural.lower import lower
from compile.neural.ties import untie
from edge_runtime.errors import BadInput

F32 = NDArray[np.float32]
PERCENTILES = (100.0, 99.99, 99.9)
"""How much of the calibration data a range covers; 100 is the minimum and the maximum."""

_DEAD = 1e-6  # a tensor that takes no more than this takes one value; interpreters refuse scales that small
_ROWS = 384  # calibration rows that ranges are chosen on; more change no choice on the networks tried
_FIXED = {Kind.SOFTMAX: (1 / 256, -128), Kind.LOGISTIC: (1 / 256, -128), Kind.TANH: (1 / 128, 0)}
_KEEPS = (
    Kind.MAX_POOL_2D,
    Kind.AVERAGE_POOL_2D,
    Kind.RESHAPE,
    Kind.SQUEEZE,
    Kind.EXPAND_DIMS,
    Kind.PAD,
)
_INPUT = "input"  # names the operators that only bring a sweep to the network's scale
_LINEAR = (Kind.CONV_2D, Kind.DEPTHWISE_CONV_2D, Kind.FULLY_CONNECTED)


@dataclass(frozen=True, slots=True)
class ScanInput:
    """The network sees a sweep: its input is power_cdbm * gain + offset, and it is fed int16 hundredths of a dBm."""

    gain: float = 0.01
    offset: float = 0.0
    low_cdbm: int = -12_750  # steps of 0.5 dB, what RF Explorer sends: nothing is lost on the way in

    def values(self, power_cdbm: Array) -> F32:
        """What the float network sees."""
        return (power_cdbm.astype(np.float32) * np.float32(self.gain) + np.float32(self.offset)).astype(
            np.float32
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """One candidate for the ranges, and what it gave."""

    percentile: float
    agreement: float
    error: float


def decisions(outputs: Array) -> NDArray[np.int64]:
    """The class that each row of outputs means: the largest, or for one output which side of its middle it is on."""
    if outputs.shape[1] > 1:
        return np.asarray(outputs.argmax(1), np.int64)
    return np.asarray(outputs[:, 0] >= np.float32(0.5), np.int64)


def quantise(
    graph: Graph, rows: Array, scan: ScanInput | None = None, percentiles: Sequence[float] = PERCENTILES
) -> tuple[Graph, list[Choice]]:
    """The int8 graph with the best agreement, and what every candidate gave.

    graph: folded (see fold). rows: calibration inputs; int16 hundredths of a dBm where `scan` is given.
    Raises BadInput where the rows do not fit the network.
    """
    if len(rows) == 0:
        raise BadInput("data: has no row to calibrate on; give some")
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _ROWS)).astype(int)]
    g, x, raw = _with_input(graph, rows, scan)
    if not np.isfinite(x).all():
        raise BadInput("data: holds values that are not finite; remove them before calibration")
    values = run_float.values(g, x)
    reference = values[g.output].reshape(len(x), -1)
    best: tuple[tuple[float, float], Graph] | None = None
    choices = []
    for percentile in percentiles:
        candidate = _quantised(g, values, percentile, scan)
        out = real_outputs(candidate, raw)
        agreement = float((decisions(out) == decisions(reference)).mean())
        error = float(np.abs(out - reference).mean())
        choices.append(Choice(percentile, agreement, error))
        if best is None or (agreement, -error) > best[0]:
            best = (agreement, -error), candidate
    if best is None:
        raise ValueError("no candidate for the ranges was given")
    return best[1], choices


def input_steps(graph: Graph) -> tuple[F32, F32]:
    """(a, b) in float32, one or one a feature: the integer input is `features * a + b`, halves away from zero.

    (1, 0) where the network takes real numbers and quantises them itself.
    """
    t = graph.tensors[graph.input]
    if t.dtype == "float32":
        return np.ones(1, np.float32), np.zeros(1, np.float32)
    gain = np.ones(1, np.float64) if graph.gain is None else graph.gain.astype(np.float64)
    offset = np.zeros(1, np.float64) if graph.offset is None else graph.offset.astype(np.float64)
    return (gain / t.step).astype(np.float32), (offset / t.step + t.zero_point).astype(np.float32)


def network_input(graph: Graph, rows: Array) -> Array:
    """Rows as the quantised network takes them: integers of its own type as they are, real numbers to steps."""
    t = graph.tensors[graph.input]
    shape = len(rows), *t.shape[1:]
    if rows.size != len(rows) * t.size:
        raise BadInput(f"data: {rows[0].size} values a row; the network takes {t.size}")
    if t.dtype == "float32" or rows.dtype == np.dtype(t.dtype):
        return rows.astype(t.dtype).reshape(shape)
    if t.dtype == "int16" and np.issubdtype(rows.dtype, np.integer):
        return rows.astype(np.int16).reshape(shape)
    a, b = input_steps(graph)
    v = rows.reshape(len(rows), -1).astype(np.float32) * a + b
    low, high = np.float32(np.iinfo(t.dtype).min), np.float32(np.iinfo(t.dtype).max)
    v = np.where(v > high, high, np.where(v >= low, v, low)).astype(np.float32)
    return round_away(v).astype(t.dtype).reshape(shape)


def real_outputs(graph: Graph, rows: Array) -> Array:
    """What the quantised network answers to rows, as real numbers: n x outputs."""
    t = graph.tensors[graph.output]
    out = run_int8.run(lower(graph), network_input(graph, rows)).reshape(len(rows), -1)
    if t.dtype == "float32":
        return out
    return (out.astype(np.float64) - t.zero_point) * t.step


def absorb(graph: Graph, scan: ScanInput) -> tuple[Graph, ScanInput]:
    """A batch norm on the sweep itself made part of how the sweep is read: it then costs nothing on the device."""
    first = graph.ops[0]
    if first.kind is not Kind.BATCH_NORM or first.inputs[0] != graph.input:
        return graph, scan
    gain, shift = graph.data(first.inputs[1]), graph.data(first.inputs[2])
    if len(gain) != 1 or gain[0] <= 0 or sum(1 for _ in graph.consumers(graph.input)) != 1:
        return graph, scan
    g = graph.copy()
    g.ops = [
        replace(o, inputs=tuple(g.input if i == first.output else i for i in o.inputs)) for o in g.ops[1:]
    ]
    offset = scan.offset * float(gain[0]) + float(shift[0])
    return g, replace(scan, gain=scan.gain * float(gain[0]), offset=offset)


def _with_input(graph: Graph, rows: Array, scan: ScanInput | None) -> tuple[Graph, F32, Array]:
    """The graph, its calibration inputs as it sees them, and as its quantised form takes them."""
    if scan is not None:
        return graph, run_float.shaped(graph, scan.values(rows)), rows
    first = graph.ops[0]
    features = first.kind is Kind.FULLY_CONNECTED and first.inputs[0] == graph.input
    if not features or sum(1 for _ in graph.consumers(graph.input)) != 1:
        return graph, run_float.shaped(graph, rows), rows
    g = _equalised(graph, run_float.shaped(graph, rows).reshape(len(rows), -1))
    if g.gain is None or g.offset is None:
        return g, run_float.shaped(g, rows), rows
    return g, (run_float.shaped(g, rows) * g.gain + g.offset).astype(np.float32), rows


def _equalised(graph: Graph, x: F32) -> Graph:
    """Features brought to mean 0 and deviation 1: one int8 scale then serves all. The first layer undoes it."""
    mean, deviation = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    deviation = np.where(deviation > 1e-6 * (1 + np.abs(mean)), deviation, 1.0)
    gain, offset = (1 / deviation).astype(np.float32), (-mean / deviation).astype(np.float32)
    g = graph.copy()
    first = g.ops[0]
    w, b = g.data(first.inputs[1]).astype(np.float64), g.data(first.inputs[2]).astype(np.float64)
    # x = (x' - offset) / gain
    back = w / gain.astype(np.float64)
    ins = (
        first.inputs[0],
        g.constant(g.tensors[first.inputs[1]].name, back.astype(np.float32)),
        g.constant(
            g.tensors[first.inputs[2]].name, (b - back @ offset.astype(np.float64)).astype(np.float32)
        ),
    )
    g.ops[0] = replace(first, inputs=ins)
    g.gain, g.offset = gain, offset
    return g


def _step_of(values: Array, percentile: float) -> tuple[np.float32, int]:
    """Scale and zero point of a tensor that took these values."""
    flat = values.reshape(-1)
    if percentile >= 100:
        low, high = float(flat.min()), float(flat.max())
    else:
        low, high = (float(v) for v in np.percentile(flat, [100 - percentile, percentile]))
    low, high = min(low, 0.0), max(high, 0.0)
    span = high - low if high - low > _DEAD else 1.0
    scale = np.float32(span / 255)
    return scale, int(np.clip(round(-128 - low / float(scale)), -128, 127))


def _quantised(graph: Graph, values: dict[int, F32], percentile: float, scan: ScanInput | None) -> Graph:
    g = graph.copy()
    x = g.tensors[g.input]
    if scan is None:
        _set(x, *_step_of(values[g.input], percentile))
    else:
        _scan_input(g, scan)
    for n, op in enumerate(g.ops):
        if op.source == _INPUT:
            continue
        source, out = g.tensors[op.inputs[0]], g.tensors[op.output]
        if op.kind in _LINEAR:
            g.ops[n] = replace(op, inputs=(op.inputs[0], *_weights(g, op, source)))
        if op.kind in _KEEPS:
            out.dtype, out.scale, out.zero_point = source.dtype, source.scale, source.zero_point
        elif op.kind in _FIXED:
            _set(out, np.float32(_FIXED[op.kind][0]), _FIXED[op.kind][1])
        else:
            _set(out, *_step_of(values[op.output], percentile))
    return untie(prune(g))


def _set(t: Tensor, scale: np.float32, zero_point: int) -> None:
    t.dtype, t.scale, t.zero_point = "int8", np.array([scale], np.float32), zero_point


def _scan_input(g: Graph, scan: ScanInput) -> None:
    """An int16 input in hundredths of a dBm, brought to int8 by a QUANTIZE that the interpreter runs itself.

    All powers from low_cdbm to 0 dBm fit: 127 stands for 0 dBm. Where the network was trained on another scale, the
    same steps are then named anew (a RESHAPE to the same shape, which moves bytes only): zero point where it sees 0.
    """
    seen = g.tensors[g.input]
    step_cdbm = -scan.low_cdbm / 255
    zero = 127 - scan.offset / scan.gain / step_cdbm
    if scan.gain <= 0 or not -128 <= round(zero) <= 127:
        raise BadInput(
            f"scan input: gain {scan.gain}, offset {scan.offset} see 0 outside {scan.low_cdbm} to 0 cdBm; "
            f"give the gain and offset that the network was trained with"
        )
    step = np.array([step_cdbm / 100], np.float32)
    power = g.add(Tensor("power_cdbm", seen.shape, "int16", None, np.array([0.01], np.float32)))
    in_dbm = g.add(Tensor("power", seen.shape, "int8", None, step, 127))
    shape = g.constant("input/shape", np.array(seen.shape, np.int32))
    g.ops[:0] = [
        Op(Kind.QUANTIZE, (power,), in_dbm, Options(), _INPUT),
        Op(Kind.RESHAPE, (in_dbm, shape), g.input, Options(), _INPUT),
    ]
    _set(seen, np.float32(step_cdbm * scan.gain), round(zero))
    g.input = power


def _weights(g: Graph, op: Op, source: Tensor) -> tuple[int, int]:
    w = g.data(op.inputs[1])
    axis = {Kind.CONV_2D: 0, Kind.DEPTHWISE_CONV_2D: 3}.get(op.kind)
    others = None if axis is None else tuple(i for i in range(w.ndim) if i != axis)
    most = np.atleast_1d(np.abs(w).max(axis=others))
    scale = np.maximum(most / 127, 1e-8).astype(np.float32)
    shape = [1] * w.ndim
    if axis is not None:
        shape[axis] = -1
    steps = np.clip(np.rint(w / scale.reshape(shape)), -127, 127).astype(np.int8)
    bias_scale = (np.float32(source.step) * scale).astype(np.float32)
    b = g.data(op.inputs[2]).astype(np.float64) / bias_scale.astype(np.float64)
    bias = np.clip(np.rint(b), -(2**31), 2**31 - 1).astype(np.int32)
    names = g.tensors[op.inputs[1]].name, g.tensors[op.inputs[2]].name
    return (
        g.add(Tensor(names[0], w.shape, "int8", steps, scale, 0, axis or 0)),
        g.add(Tensor(names[1], bias.shape, "int32", bias, bias_scale, 0, 0)),
    )


def prune(graph: Graph) -> Graph:
    """The graph without tensors that no operator touches, in the order of first use: equal graphs, equal bytes."""
    order: dict[int, int] = {graph.input: 0}
    for op in graph.ops:
        for i in (*op.inputs, op.output):
            if i >= 0:
                order.setdefault(i, len(order))
    g = graph.copy()
    g.tensors = [graph.tensors[i] for i in order]
    g.ops = [
        replace(op, inputs=tuple(order.get(i, -1) for i in op.inputs), output=order[op.output])
        for op in graph.ops
    ]
    g.input, g.output = order[graph.input], order[graph.output]
    return g
