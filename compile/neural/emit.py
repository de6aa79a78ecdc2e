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

from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.neural import integer
from compile.neural.arena import Arena
from compile.neural.layers import Layer, c_float, c_floats, c_paren, layer, saturates, shifts_left, wide_sums
from edge_runtime.errors import BadInput

InputSteps = tuple[NDArray[np.float32], NDArray[np.float32]]

_C_TYPES = {"int8": "int8_t", "int16": "int16_t", "float32": "float"}
_STEP = "/* step "
_PRODUCTS = ("rescale", "window", "product", "product_neon", "product_dsp", "product_sse2", "product_plain")
_NEEDS: dict[str, tuple[str, ...]] = {
    "convolution": _PRODUCTS,
    "depthwise": _PRODUCTS,
    "depthwise_any": _PRODUCTS,
    "products_any": _PRODUCTS,
    "pool": ("window", "rescale"),
    "mean": ("rescale",),
    "add": ("rescale",),
    "softmax": ("rescale",),
    "pad": ("window",),
    "requantise": ("rescale",),
    "quantise": ("rescale",),
}


@lru_cache(maxsize=1)
def _kernel_texts() -> dict[str, str]:
    folder = files("compile.neural") / "c"
    return {
        f.name.removesuffix(".h"): f.read_text("utf-8") for f in folder.iterdir() if f.name.endswith(".h")
    }


def emit(plan: integer.Plan, steps: InputSteps | None = None) -> dict[str, str]:
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
    kernels = [texts[k] for k in _PRODUCTS if k in wanted]
    kernels += [texts[k] for k in sorted(wanted - set(_PRODUCTS))]
    constants = [made.constants for made in layers if made.constants]
    facts = {
        "EDGE_LEFT_SHIFTS": any(map(shifts_left, plan.steps)),
        "EDGE_WIDE_SUMS": any(map(wide_sums, plan.steps)),
        "EDGE_SATURATES": all(map(saturates, plan.steps)),
    }
    defines = "".join(f"#define {name} {int(value)}\n" for name, value in facts.items())
    source = "\n".join(['#include "edge_network.h"\n', defines, *kernels, *constants, *body])
    return {"edge_network.h": header, "edge_network.c": source}


PREFIX = "edge_network_prefix"


def emit_prefixes(plan: integer.Plan) -> dict[str, str]:
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


def arena_bytes(plan: integer.Plan) -> int:
    """Working memory of the emitted function, on its stack."""
    layers = [layer(n, step) for n, step in enumerate(plan.steps)]
    return _arena(plan, layers).size


def _header(plan: integer.Plan, scores: bool) -> str:
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


def _arena(plan: integer.Plan, layers: list[Layer]) -> Arena:
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


def _staged(plan: integer.Plan, layers: list[Layer]) -> bool:
    """Whether a kernel may read a few bytes past the caller's input, which must then be copied first."""
    return any(la.over_reads and plan.input in st.src for la, st in zip(layers, plan.steps, strict=True))


def _function(plan: integer.Plan, layers: list[Layer]) -> str:
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


def _scores(plan: integer.Plan, steps: InputSteps) -> str:
    x, y = plan.tensors[plan.input], plan.answer
    rows = []
    one = len(steps[0]) == 1
    if not one:
        rows += [c_floats(f"input_{name}", values) for name, values in zip("ab", steps, strict=True)]
    rows += [
        '__attribute__((visibility("default")))',
        "int edge_model_scores(const float *features, double *raw_scores) {",
        f"    {_C_TYPES[y.dtype]} out[{y.size}];",
    ]
    if x.dtype == "float32":
        rows.append("    int code = edge_network(features, out);")
    else:
        low, high = (-128, 127) if x.dtype == "int8" else (-32768, 32767)
        a, b = (c_float(float(v[0])) for v in steps) if one else ("input_a[i]", "input_b[i]")
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
    value = (
        "out[i]" if y.dtype == "float32" else f"{float(y.step).hex()} * (out[i] - {c_paren(y.zero_point)})"
    )
    rows += [
        f"    for (int32_t i = 0; i < {y.size}; i++) raw_scores[i] = {value};",
        "    return code;",
        "}",
        "",
    ]
    return "\n".join(rows)
