"""A lowered network as one C file: no libc, no allocation, no state, the same bits on every target.

    layer 0    static const int8_t w0[] = {...};  b0, m0, s0: biases, multipliers, shifts
    ...
    int edge_network(const T *input, int8_t *output) {
        int8_t arena[N];                      buffers share the arena as their lifetimes allow
        edge_convolution(&g0, &p0, ..., arena + 0, ...);
        ...
    }

The kernels are the text of c/*.h, of which a network gets those it uses. They hold a loop for NEON (aarch64, armv7),
one for the DSP instructions of a Cortex-M4, one for SSE2, and plain C. All compute the same integers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.neural import lower
from compile.neural.arena import Arena
from compile.neural.graph import Array, Kind, Window
from edge_runtime.errors import BadInput

InputSteps = tuple[NDArray[np.float32], NDArray[np.float32]]

_C_TYPES = {"int8": "int8_t", "int16": "int16_t", "float32": "float"}
_STEP = "/* step "
_NEEDS = {
    "convolution": ("window", "rescale", "product"),
    "depthwise": ("window", "rescale", "product"),
    "depthwise_any": ("window", "rescale", "product"),
    "products_any": ("window", "rescale", "product"),
    "pool": ("window", "rescale"),
    "mean": ("rescale",),
    "add": ("rescale",),
    "softmax": ("rescale",),
    "pad": ("window",),
    "requantise": ("rescale",),
    "quantise": ("rescale",),
}
_ORDER = ("rescale", "window", "product")


@dataclass(frozen=True, slots=True)
class Layer:
    """What one step became: its constants, its calls, and its scratch buffers (name, bytes)."""

    kernels: tuple[str, ...]
    constants: str
    call: str
    scratch: tuple[tuple[str, int], ...] = ()
    over_reads: bool = False


@lru_cache(maxsize=1)
def _kernel_texts() -> dict[str, str]:
    folder = files("compile.neural") / "c"
    return {
        f.name.removesuffix(".h"): f.read_text("utf-8") for f in folder.iterdir() if f.name.endswith(".h")
    }


def emit(plan: lower.Plan, steps: InputSteps | None = None) -> dict[str, str]:
    """File name -> text: edge_network.h and edge_network.c.

    The C function is `int edge_network(const T *input, int8_t *output)`, T the network's input type. With `steps`
    (see quantise.input_steps) also `int edge_model_scores(const float *features, double *raw_scores)`.
    Raises BadInput where the plan has no step.
    """
    if not plan.steps:
        raise BadInput("model: has no layer that computes; give a network with at least one")
    layers = [layer(n, step) for n, step in enumerate(plan.steps)]
    header = _header(plan, steps is not None)
    body = [_function(plan, layers)]
    if steps is not None:
        body.append(_scores(plan, steps))
    wanted = {need for made in layers for k in made.kernels for need in (*_NEEDS.get(k, ()), k)}
    if any(made.over_reads for made in layers):
        wanted.add("window")
    texts = _kernel_texts()
    kernels = [texts[k] for k in _ORDER if k in wanted]
    kernels += [texts[k] for k in sorted(wanted - set(_ORDER))]
    constants = [made.constants for made in layers if made.constants]
    shifts = f"#define EDGE_LEFT_SHIFTS {int(any(map(_shifts_left, plan.steps)))}\n"
    source = "\n".join(['#include "edge_network.h"\n', shifts, *kernels, *constants, *body])
    return {"edge_network.h": header, "edge_network.c": source}


PREFIX = "edge_network_prefix"


def emit_prefixes(plan: lower.Plan) -> dict[str, str]:
    """The network with one more argument, how many steps to run: for counting what each costs."""
    files = emit(plan)
    text = (
        files["edge_network.c"]
        .replace("int edge_network(", f"int {PREFIX}(", 1)
        .replace("*output) {", "*output, uint32_t steps) {", 1)
    )
    for n in range(len(plan.steps)):
        text = text.replace(f"{_STEP}{n} */", f"if (steps == {n}) return 0;", 1)
    files["edge_network.h"] = "#include <stdint.h>\n"
    files["edge_network.c"] = text
    return files


def layer(n: int, step: lower.Step) -> Layer:
    """What step n becomes."""
    return _EMIT[type(step)](n, step)


def arena_bytes(plan: lower.Plan) -> int:
    """Working memory of the emitted function, on its stack."""
    layers = [layer(n, step) for n, step in enumerate(plan.steps)]
    return _arena(plan, layers).size


def _header(plan: lower.Plan, scores: bool) -> str:
    ends = plan.tensors[plan.input], plan.tensors[plan.output]
    kind = _C_TYPES[ends[0].dtype], _C_TYPES[ends[1].dtype]
    rows = [
        "#ifndef EDGE_NETWORK_H",
        "#define EDGE_NETWORK_H",
        "#include <stdint.h>",
        f"#define EDGE_NETWORK_INPUTS {ends[0].size}",
        f"#define EDGE_NETWORK_OUTPUTS {ends[1].size}",
        "#if defined(__cplusplus)",
        'extern "C" {',
        "#endif",
        "/* The network: EDGE_NETWORK_INPUTS numbers in, EDGE_NETWORK_OUTPUTS out; returns 0. */",
        f"int edge_network(const {kind[0]} *input, {kind[1]} *output);",
    ]
    if scores:
        rows += [
            "/* The same from real numbers to real numbers: quantised on the way in, scaled on the way out; 0. */",
            "int edge_model_scores(const float *features, double *raw_scores);",
        ]
    return "\n".join([*rows, "#if defined(__cplusplus)", "}", "#endif", "#endif", ""])


def _arena(plan: lower.Plan, layers: list[Layer]) -> Arena:
    arena = Arena()
    last = {i: n for n, step in enumerate(plan.steps) for i in step.src}
    if _staged(plan, layers):
        arena.need("staged", plan.tensors[plan.input].size, 0, last[plan.input])
    for n, (step, made) in enumerate(zip(plan.steps, layers, strict=True)):
        for name, size in made.scratch:
            arena.need(f"{name}{n}", size, n, n)
        if step.dst != plan.output:
            t = plan.tensors[step.dst]
            arena.need(f"t{step.dst}", t.size * np.dtype(t.dtype).itemsize, n, last.get(step.dst, n))
    arena.place()
    return arena


def _staged(plan: lower.Plan, layers: list[Layer]) -> bool:
    """Whether a kernel may read a few bytes past the caller's input, which must then be copied first."""
    return any(la.over_reads and plan.input in st.src for la, st in zip(layers, plan.steps, strict=True))


def _function(plan: lower.Plan, layers: list[Layer]) -> str:
    ends = plan.tensors[plan.input], plan.tensors[plan.output]
    arena = _arena(plan, layers)
    staged = _staged(plan, layers)
    rows = [
        '__attribute__((visibility("default")))',
        f"int edge_network(const {_C_TYPES[ends[0].dtype]} *input, {_C_TYPES[ends[1].dtype]} *output) {{",
    ]
    if arena.size:
        rows.append(f"    int8_t arena[{arena.size}] __attribute__((aligned(16)));")
    if staged:
        rows.append(f"    edge_copy(arena + {arena.at('staged')}, input, {ends[0].size});")

    def place(index: int) -> str:
        if index == plan.input:
            return f"arena + {arena.at('staged')}" if staged else "input"
        if index == plan.output:
            return "output"
        text = f"arena + {arena.at(f't{index}')}"
        dtype = plan.tensors[index].dtype
        return text if dtype == "int8" else f"({_C_TYPES[dtype]} *)({text})"

    for n, (step, made) in enumerate(zip(plan.steps, layers, strict=True)):
        names: dict[str, Any] = {f"x{i}": place(t) for i, t in enumerate(step.src)}
        names |= {name: f"arena + {arena.at(f'{name}{n}')}" for name, _ in made.scratch}
        rows.append(f"    {_STEP}{n} */")
        rows.append(f"    {made.call.format(y=place(step.dst), **names)}")
    return "\n".join([*rows, "    return 0;", "}", ""])


def _scores(plan: lower.Plan, steps: InputSteps) -> str:
    x, y = plan.tensors[plan.input], plan.answer
    rows = []
    one = len(steps[0]) == 1
    if not one:
        rows += [_floats(f"input_{name}", values) for name, values in zip("ab", steps, strict=True)]
    rows += [
        '__attribute__((visibility("default")))',
        "int edge_model_scores(const float *features, double *raw_scores) {",
        f"    {_C_TYPES[y.dtype]} out[{y.size}];",
    ]
    if x.dtype == "float32":
        rows.append("    int code = edge_network(features, out);")
    else:
        low, high = (-128, 127) if x.dtype == "int8" else (-32768, 32767)
        a, b = (_float(float(v[0])) for v in steps) if one else ("input_a[i]", "input_b[i]")
        rows += [
            f"    {_C_TYPES[x.dtype]} in[{x.size}];",
            f"    for (int32_t i = 0; i < {x.size}; i++) {{",
            f"        float v = features[i] * {a} + {b};",
            f"        v = v > {float(high)}f ? {float(high)}f : v >= {float(low)}f ? v : {float(low)}f;",
            "        int32_t whole = (int32_t)v;",
            "        float rest = v - (float)whole;",
            f"        in[i] = ({_C_TYPES[x.dtype]})(whole + (rest >= 0.5f) - (rest <= -0.5f));",
            "    }",
            "    int code = edge_network(in, out);",
        ]
    value = "out[i]" if y.dtype == "float32" else f"{float(y.step).hex()} * (out[i] - {_paren(y.zero_point)})"
    rows += [
        f"    for (int32_t i = 0; i < {y.size}; i++) raw_scores[i] = {value};",
        "    return code;",
        "}",
        "",
    ]
    return "\n".join(rows)


def _floats(name: str, values: Array) -> str:
    text = ",\n".join(_float(float(v)) for v in values)
    return f"static const float {name}[{len(values)}] = {{\n{text}}};\n"


def _paren(number: int) -> str:
    return str(number) if number >= 0 else f"({number})"


def _float(value: float) -> str:
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


def _per_output(n: int, s: lower.Product | lower.Depthwise, to: int) -> str:
    size = _round_up(len(s.bias), to)

    def wide(values: Array) -> Array:
        return np.pad(values, (0, size - len(values)))

    named = (("b", s.bias), ("m", s.mult), ("s", s.shift))
    return "".join(_array("int32_t", f"{letter}{n}", wide(v)) for letter, v in named)


def _shifts_left(step: lower.Step) -> bool:
    """Whether a vector kernel meets a factor of 1 or more in this step."""
    return bool(np.max(getattr(step, "shift", 0)) > 0)


def _product_call(n: int, s: lower.Product | lower.Depthwise, taps: int, call: str) -> str:
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


def _geometry(s: lower.Product) -> Window:
    """The window of a product; a dense layer, and a 1 x 1 convolution of every position, is one row of positions."""
    g = s.window
    if g is None:
        return Window(1, s.rows, s.weights.shape[1], 1, s.rows, (1, 1), (1, 1), (1, 1), 0, 0, 0, 0)
    if g.filter == (1, 1) and g.stride == (1, 1):
        every = g.height * g.width
        return replace(g, height=1, width=every, out_height=1, out_width=every)
    return g


def _product(n: int, s: lower.Product) -> Layer:
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
    padded, columns_at = "{padded}" if margins else "0", "{columns}" if gathered else "0"
    call = f"edge_convolution(&g{n}, &p, {s.zero_in}, {{x0}}, {padded}, {columns_at}, {{y}});"
    constants = (
        _array("int8_t", f"w{n}", pack_products(s.weights)) + _per_output(n, s, 4) + _window_constant(n, g)
    )
    over = not margins and not gathered and s.weights.shape[1] % 8 > 0
    return Layer(("convolution",), constants, _product_call(n, s, taps, call), tuple(scratch), over)


def _depthwise(n: int, s: lower.Depthwise) -> Layer:
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


def _pool(n: int, s: lower.Pool) -> Layer:
    average = int(s.kind is Kind.AVERAGE_POOL_2D)
    call = f"edge_pool(&g{n}, {average}, {s.low}, {s.high}, {{x0}}, {{y}});"
    return Layer(("pool",), _window_constant(n, s.window), call, (), s.window.channels % 8 > 0)


def _mean(n: int, s: lower.Mean) -> Layer:
    fields = f"{s.count}, {s.channels}, {s.offset}, {s.mult}, {s.shift}, {s.zero_out}"
    return Layer(("mean",), "", f"edge_mean({fields}, {{x0}}, {{y}});", (), s.channels % 8 > 0)


def _add(n: int, s: lower.Add) -> Layer:
    fields = (s.zero_a, s.zero_b, *s.mult, *s.shift, s.zero_out, s.low, s.high)
    constant = f"static const struct edge_add a{n} = {{{', '.join(map(str, fields))}}};\n"
    return Layer(("add",), constant, f"edge_add(&a{n}, {s.size}, {{x0}}, {{x1}}, {{y}});")


def _table(n: int, s: lower.Table) -> Layer:
    return Layer(
        ("table",), _array("int8_t", f"t{n}", s.table), f"edge_table(t{n}, {s.size}, {{x0}}, {{y}});"
    )


def _softmax(n: int, s: lower.Softmax) -> Layer:
    return Layer(
        ("softmax",), _floats(f"e{n}", s.table), f"edge_softmax(e{n}, {s.rows}, {s.depth}, {{x0}}, {{y}});"
    )


def _pad(n: int, s: lower.Pad) -> Layer:
    out = [a + b + c for a, b, c in zip(s.before, s.shape, s.after, strict=True)]
    fields = ", ".join(map(str, (*s.shape, *s.before, *out, s.zero)))
    return Layer(("pad",), "", f"edge_pad({fields}, {{x0}}, {{y}});")


def _requantise(n: int, s: lower.Requantise) -> Layer:
    define = f"EDGE_REQUANTISE(edge_requantise{n}, {'int16_t' if s.wide else 'int8_t'})\n"
    fields = f"{s.size}, {s.zero_in}, {s.mult}, {s.shift}, {s.zero_out}, {s.ties_up}"
    return Layer(("requantise",), define, f"edge_requantise{n}({fields}, {{x0}}, {{y}});")


def _quantise(n: int, s: lower.Quantise) -> Layer:
    return Layer(("quantise",), "", f"edge_quantise({s.size}, {_float(s.scale)}, {s.zero}, {{x0}}, {{y}});")


def _dequantise(n: int, s: lower.Dequantise) -> Layer:
    return Layer(
        ("dequantise",), "", f"edge_dequantise({s.size}, {_float(s.scale)}, {s.zero}, {{x0}}, {{y}});"
    )


_EMIT: dict[type[lower.Step], Callable[[int, Any], Layer]] = {
    lower.Product: _product,
    lower.Depthwise: _depthwise,
    lower.Pool: _pool,
    lower.Mean: _mean,
    lower.Add: _add,
    lower.Table: _table,
    lower.Softmax: _softmax,
    lower.Pad: _pad,
    lower.Requantise: _requantise,
    lower.Quantise: _quantise,
    lower.Dequantise: _dequantise,
}
