"""What each step becomes in C: its constants, its call, its scratch buffers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compile.neural import integer
from compile.neural.graph import Array, Kind, Window


@dataclass(frozen=True, slots=True)
class Layer:
    """What one step became: its constants, its calls, and its scratch buffers (name, bytes)."""

    kernels: tuple[str, ...]
    constants: str
    call: str
    scratch: tuple[tuple[str, int], ...] = ()
    over_reads: bool = False


def c_paren(number: int) -> str:
    """An integer that may follow an operator."""
    return str(number) if number >= 0 else f"({number})"


def c_floats(name: str, values: Array) -> str:
    """A constant array of float32."""
    text = ",\n".join(c_float(float(v)) for v in values)
    return f"static const float {name}[{len(values)}] = {{\n{text}}};\n"


def c_float(value: float) -> str:
    """A float32 to its last bit."""
    return f"{float(np.float32(value)).hex()}f"


def _array(c_type: str, name: str, values: Array) -> str:
    flat = [str(v) for v in values.reshape(-1).tolist()]
    rows = [",".join(flat[i : i + 32]) for i in range(0, len(flat), 32)]
    return f"static const {c_type} {name}[{len(flat)}] = {{\n" + ",\n".join(rows) + "};\n"


def _window_constant(n: int, g: Window) -> str:
    fields = (
        g.height, g.width, g.channels, g.out_height, g.out_width, *g.filter, *g.stride, *g.dilation,
        g.top, g.bottom, g.left, g.right,
    )  # fmt: skip
    return f"static const struct edge_window g{n} = {{{', '.join(map(str, fields))}}};\n"


def _round_up(n: int, to: int) -> int:
    return -(-n // to) * to


def _per_output(n: int, s: integer.Product | integer.Depthwise, to: int) -> str:
    size = _round_up(len(s.bias), to)

    def wide(values: Array) -> Array:
        return np.pad(values, (0, size - len(values)))

    named = (("b", s.bias), ("m", s.mult), ("s", s.shift))
    return "".join(_array("int32_t", f"{letter}{n}", wide(v)) for letter, v in named)


def shifts_left(step: integer.Step) -> bool:
    """Whether a vector kernel meets a factor of 1 or more in this step."""
    return bool(np.max(getattr(step, "shift", 0)) > 0)


def wide_sums(step: integer.Step) -> bool:
    """Whether some sum of this step, doubled and shifted left as it is to be, may not fit 32 bits."""
    if not isinstance(step, integer.Product | integer.Depthwise):
        return False
    taps = 1 if isinstance(step, integer.Product) else 0
    most = np.abs(step.bias.astype(np.int64)) + 128 * np.abs(step.weights.astype(np.int64)).sum(taps)
    return bool((most << (1 + np.maximum(step.shift, 0).astype(np.int64)) >= 1 << 31).any())


def saturates(step: integer.Step) -> bool:
    """Whether this step's results are cut at the ends of int8 and nowhere before."""
    return not isinstance(step, integer.Product | integer.Depthwise) or (step.low, step.high) == (-128, 127)


def _product_call(n: int, s: integer.Product | integer.Depthwise, taps: int, call: str) -> str:
    # Behind a ReLU a tie below zero is clamped either way; upwards takes fewer instructions.
    up = len(s.bias) if s.low >= s.zero_out else s.ties_up
    fields = f"{len(s.bias)}, {taps}, {up}, {s.zero_out}, {s.low}, {s.high}"
    return f"{{{{ struct edge_product p = edge_product_of(w{n}, b{n}, m{n}, s{n}, {fields}); {call} }}}}"


def pack_products(w: Array) -> Array:
    """Outputs x taps, in the order that c/product.h reads: groups of four outputs, runs of 16 taps, then of 8."""
    outputs, taps = _round_up(w.shape[0], 4), _round_up(w.shape[1], 8)
    full = np.zeros((outputs, taps), np.int8)
    full[: w.shape[0], : w.shape[1]] = w
    parts = []
    for group in full.reshape(-1, 4, taps):
        whole = taps // 16 * 16
        parts.append(group[:, :whole].reshape(4, -1, 16).transpose(1, 0, 2).reshape(-1))
        parts.append(group[:, whole:].reshape(-1))
    return np.concatenate(parts)


def pack_depthwise(w: Array) -> Array:
    """Taps x channels, in the order that c/depthwise.h reads: blocks of eight channels, taps in pairs."""
    taps, channels = _round_up(w.shape[0], 2), _round_up(w.shape[1], 8)
    full = np.zeros((taps, channels), np.int8)
    full[: w.shape[0], : w.shape[1]] = w
    return full.reshape(taps, -1, 8).transpose(1, 0, 2).reshape(-1)


def _geometry(s: integer.Product) -> Window:
    """The window of a product; a dense layer, and a 1 x 1 convolution of every position, is one row of positions."""
    g = s.window
    if g is None:
        return Window(1, s.rows, s.weights.shape[1], 1, s.rows, (1, 1), (1, 1), (1, 1), 0, 0, 0, 0)
    if g.filter == (1, 1) and g.stride == (1, 1):
        every = g.height * g.width
        return replace(g, height=1, width=every, out_height=1, out_width=every)
    return g


def _product(n: int, s: integer.Product) -> Layer:
    g = _geometry(s)
    if s.weights.min() == -128:
        constants = _array("int8_t", f"w{n}", s.weights) + _per_output(n, s, 4) + _window_constant(n, g)
        call = f"edge_products_any(&g{n}, &p, {s.zero_in}, {{x0}}, {{y}});"
        return Layer(("products_any",), constants, _product_call(n, s, s.weights.shape[1], call))
    taps = _round_up(s.weights.shape[1], 8)
    margins = g.top + g.bottom + g.left + g.right > 0
    gathered = g.filter[0] > 1 or (g.dilation[1] > 1 and g.filter[1] > 1)
    scratch = []
    if margins:
        rows, columns = g.height + g.top + g.bottom, g.width + g.left + g.right
        scratch.append(("padded", rows * columns * g.channels))
    if gathered:
        scratch.append(("columns", 4 * taps))
    pairs = g.out_width > 1
    if pairs:
        scratch.append(("wide", 4 * taps))
    wide_at = "{wide}" if pairs else "0"
    padded, columns_at = "{padded}" if margins else "0", "{columns}" if gathered else "0"
    call = f"edge_convolution(&g{n}, &p, {s.zero_in}, {{x0}}, {padded}, {columns_at}, {wide_at}, {{y}});"
    constants = (
        _array("int8_t", f"w{n}", pack_products(s.weights)) + _per_output(n, s, 4) + _window_constant(n, g)
    )
    over = not margins and not gathered and s.weights.shape[1] % 8 > 0
    return Layer(("convolution",), constants, _product_call(n, s, taps, call), tuple(scratch), over)


def _depthwise(n: int, s: integer.Depthwise) -> Layer:
    g = s.window
    if s.multiplicity > 1 or s.weights.min() == -128:
        constants = _array("int8_t", f"w{n}", s.weights) + _per_output(n, s, 8) + _window_constant(n, g)
        call = f"edge_depthwise_any(&g{n}, &p, {s.zero_in}, {s.multiplicity}, {{x0}}, {{y}});"
        return Layer(("depthwise_any",), constants, _product_call(n, s, len(s.weights), call))
    taps = _round_up(len(s.weights), 2)
    rows, columns = g.height + g.top + g.bottom, g.width + g.left + g.right
    scratch = (("padded", rows * columns * g.channels), ("offsets", 4 * (len(s.weights) + 1)))
    call = f"edge_depthwise(&g{n}, &p, {s.zero_in}, {{x0}}, {{padded}}, (int32_t *)({{offsets}}), {{y}});"
    constants = (
        _array("int8_t", f"w{n}", pack_depthwise(s.weights)) + _per_output(n, s, 8) + _window_constant(n, g)
    )
    return Layer(("depthwise",), constants, _product_call(n, s, taps, call), scratch)


def _pool(n: int, s: integer.Pool) -> Layer:
    average = int(s.kind is Kind.AVERAGE_POOL_2D)
    call = f"edge_pool(&g{n}, {average}, {s.low}, {s.high}, {{x0}}, {{y}});"
    return Layer(("pool",), _window_constant(n, s.window), call, (), s.window.channels % 8 > 0)


def _mean(n: int, s: integer.Mean) -> Layer:
    fields = f"{s.count}, {s.channels}, {s.offset}, {s.mult}, {s.shift}, {s.zero_out}"
    return Layer(("mean",), "", f"edge_mean({fields}, {{x0}}, {{y}});", (), s.channels % 8 > 0)


def _add(n: int, s: integer.Add) -> Layer:
    fields = (s.zero_a, s.zero_b, *s.mult, *s.shift, s.zero_out, s.low, s.high)
    constant = f"static const struct edge_add a{n} = {{{', '.join(map(str, fields))}}};\n"
    return Layer(("add",), constant, f"edge_add(&a{n}, {s.size}, {{x0}}, {{x1}}, {{y}});")


def _table(n: int, s: integer.Table) -> Layer:
    return Layer(
        ("table",), _array("int8_t", f"t{n}", s.table), f"edge_table(t{n}, {s.size}, {{x0}}, {{y}});"
    )


def _softmax(n: int, s: integer.Softmax) -> Layer:
    return Layer(
        ("softmax",), c_floats(f"e{n}", s.table), f"edge_softmax(e{n}, {s.rows}, {s.depth}, {{x0}}, {{y}});"
    )


def _pad(n: int, s: integer.Pad) -> Layer:
    out = [a + b + c for a, b, c in zip(s.before, s.shape, s.after, strict=True)]
    fields = ", ".join(map(str, (*s.shape, *s.before, *out, s.zero)))
    return Layer(("pad",), "", f"edge_pad({fields}, {{x0}}, {{y}});")


def _requantise(n: int, s: integer.Requantise) -> Layer:
    define = f"EDGE_REQUANTISE(edge_requantise{n}, {'int16_t' if s.wide else 'int8_t'})\n"
    fields = f"{s.size}, {s.zero_in}, {s.mult}, {s.shift}, {s.zero_out}, {s.ties_up}"
    return Layer(("requantise",), define, f"edge_requantise{n}({fields}, {{x0}}, {{y}});")


def _quantise(n: int, s: integer.Quantise) -> Layer:
    return Layer(("quantise",), "", f"edge_quantise({s.size}, {c_float(s.scale)}, {s.zero}, {{x0}}, {{y}});")


def _dequantise(n: int, s: integer.Dequantise) -> Layer:
    return Layer(
        ("dequantise",), "", f"edge_dequantise({s.size}, {c_float(s.scale)}, {s.zero}, {{x0}}, {{y}});"
    )


_EMIT: dict[type[integer.Step], Callable[[int, Any], Layer]] = {
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


def layer(n: int, step: integer.Step) -> Layer:
    """What step n becomes."""
    return _EMIT[type(step)](n, step)
