"""The integer arithmetic of a lowered network in numpy, many inputs at once: what the build measures agreement with.

It computes what tflite-runtime and the emitted C compute, bit for bit; tests hold the three against each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.neural import fixedpoint, integer
from compile.neural.graph import Kind, Window
from edge_runtime.errors import BadInput

Array = NDArray[Any]
_BATCH = 128  # keeps the intermediate values of a batch within a few megabytes
_EXACT_TAPS = 1024  # |x| <= 128, |w| <= 128: so many products sum exactly in float32's 24 bits


def run(plan: integer.Plan, x: Array) -> Array:
    """Outputs for a batch of inputs: x is n x (the input's shape without its batch), in the input's own type."""
    inp = plan.tensors[plan.input]
    if x.dtype != np.dtype(inp.dtype) or x[0].size != inp.size:
        raise BadInput(
            f"input {x.dtype}{list(x.shape[1:])}: the network takes {inp.dtype}{list(inp.shape[1:])}"
        )
    rows = x.reshape(len(x), *inp.shape[1:])
    return np.concatenate([_batch(plan, rows[i : i + _BATCH]) for i in range(0, len(rows), _BATCH)])


def _batch(plan: integer.Plan, x: Array) -> Array:
    values: dict[int, Array] = {plan.input: x}
    for step in plan.steps:
        ins = [values[i].reshape(len(x), *plan.tensors[i].shape[1:]) for i in step.src]
        out = plan.tensors[step.dst]
        values[step.dst] = _RUN[type(step)](step, *ins).reshape(len(x), *out.shape[1:])
    return values[plan.output]


def _products(x: Array, w: Array) -> NDArray[np.int64]:
    """x @ w for int8 matrices, exactly, through a floating-point product that cannot round."""
    real = np.float32 if w.shape[0] <= _EXACT_TAPS else np.float64
    return np.asarray(np.rint(x.astype(real) @ w.astype(real)), np.int64)


def _finish(acc: Array, s: integer.Product | integer.Depthwise) -> Array:
    up = np.arange(len(s.bias)) < s.ties_up
    out = fixedpoint.rescale(acc + s.bias, s.mult, s.shift, up) + s.zero_out
    return np.clip(out, s.low, s.high).astype(np.int8)


def _taps(x: Array, g: Window, fill: int) -> list[list[Array]]:
    """Shifted views of a padded batch, by (row, column) of the window: n x out_height x out_width x channels."""
    padded = np.pad(x, ((0, 0), (g.top, g.bottom), (g.left, g.right), (0, 0)), constant_values=fill)
    rows, cols = g.out_height, g.out_width
    return [
        [
            padded[
                :,
                i * g.dilation[0] : i * g.dilation[0] + (rows - 1) * g.stride[0] + 1 : g.stride[0],
                j * g.dilation[1] : j * g.dilation[1] + (cols - 1) * g.stride[1] + 1 : g.stride[1],
            ]
            for j in range(g.filter[1])
        ]
        for i in range(g.filter[0])
    ]


def _product(s: integer.Product, x: Array) -> Array:
    if s.window is None:
        return _finish(_products(x.reshape(-1, s.weights.shape[1]), s.weights.T), s)
    taps = [t for row in _taps(x, s.window, s.zero_in) for t in row]
    columns = np.concatenate(taps, axis=-1).reshape(-1, s.weights.shape[1])
    return _finish(_products(columns, s.weights.T), s)


def _depthwise(s: integer.Depthwise, x: Array) -> Array:
    taps = [t for row in _taps(x, s.window, s.zero_in) for t in row]
    acc = sum(
        np.repeat(t, s.multiplicity, -1).astype(np.int64) * w for t, w in zip(taps, s.weights, strict=True)
    )
    return _finish(np.asarray(acc), s)


def _pool(s: integer.Pool, x: Array) -> Array:
    if s.kind is Kind.MAX_POOL_2D:
        taps = [t for row in _taps(x, s.window, -128) for t in row]
        return np.asarray(np.clip(np.max(np.stack(taps), axis=0), s.low, s.high), np.int8)
    total = sum(t.astype(np.int64) for row in _taps(x, s.window, 0) for t in row)
    count = sum(t.astype(np.int64) for row in _taps(np.ones_like(x[:1]), s.window, 0) for t in row)
    return np.asarray(np.clip(_divide(np.asarray(total), np.asarray(count)), s.low, s.high), np.int8)


def _divide(a: Array, n: Array | int) -> Array:
    """Integer division, halves away from zero."""
    return np.asarray(np.sign(a) * ((np.abs(a) + np.asarray(n) // 2) // n))


def _mean(s: integer.Mean, x: Array) -> Array:
    total = x.reshape(len(x), s.count, s.channels).astype(np.int64).sum(1) - s.offset
    return np.clip(fixedpoint.rescale(total, s.mult, s.shift) + s.zero_out, -128, 127).astype(np.int8)


def _add(s: integer.Add, a: Array, b: Array) -> Array:
    one = fixedpoint.rescale((a.astype(np.int64) - s.zero_a) << 20, s.mult[0], s.shift[0])
    two = fixedpoint.rescale((b.astype(np.int64) - s.zero_b) << 20, s.mult[1], s.shift[1])
    out = fixedpoint.rescale(one + two, s.mult[2], s.shift[2]) + s.zero_out
    return np.clip(out, s.low, s.high).astype(np.int8)


def _table(s: integer.Table, x: Array) -> Array:
    return np.asarray(s.table[x.astype(np.int64) + 128])


def _softmax(s: integer.Softmax, x: Array) -> Array:
    rows = x.reshape(-1, s.depth).astype(np.int64)
    exp = s.table[rows - rows.max(-1, keepdims=True) + 255]
    total = np.zeros(len(rows), np.float32)
    for k in range(s.depth):  # in this order: float32 sums are not associative
        total += exp[:, k]
    inverse = np.float32(1) / (total * np.float32(1 / 256))
    out = fixedpoint.round_away(exp * inverse[:, None]).astype(np.int64) - 128
    return np.clip(out, -128, 127).astype(np.int8)


def _pad(s: integer.Pad, x: Array) -> Array:
    amounts = [(0, 0), *zip(s.before, s.after, strict=True)]
    return np.pad(x, amounts, constant_values=s.zero)


def _requantise(s: integer.Requantise, x: Array) -> Array:
    up = np.arange(s.size).reshape(x.shape[1:]) < s.ties_up
    out = fixedpoint.rescale(x.astype(np.int64) - s.zero_in, s.mult, s.shift, up) + s.zero_out
    return np.clip(out, -128, 127).astype(np.int8)


def _quantise(s: integer.Quantise, x: Array) -> Array:
    steps = fixedpoint.round_away(x / np.float32(s.scale)).astype(np.float64)
    return np.clip(steps + s.zero, -128, 127).astype(np.int8)


def _dequantise(s: integer.Dequantise, x: Array) -> Array:
    return (np.float32(s.scale) * (x.astype(np.int32) - s.zero)).astype(np.float32)


_RUN: dict[type[integer.Step], Any] = {
    integer.Product: _product,
    integer.Depthwise: _depthwise,
    integer.Pool: _pool,
    integer.Mean: _mean,
    integer.Add: _add,
    integer.Table: _table,
    integer.Softmax: _softmax,
    integer.Pad: _pad,
    integer.Requantise: _requantise,
    integer.Quantise: _quantise,
    integer.Dequantise: _dequantise,
}
