"""Where a half falls: tflite-runtime's x86 and ARM kernels round ties below the zero point differently (see lower).

`untie` makes a network for which that cannot matter: a layer without a ReLU gets a bias that lifts every result
it may have to zero or above, and a zero point of -128; a RESHAPE to the same shape, which moves bytes only, then
carries the zero point that the next layer must see. What would still fall below is clipped at -128 everywhere.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from compile.neural.graph import Graph, Kind, Op, Options, Tensor
from compile.neural.integer import Depthwise, Product
from compile.neural.lower import Machine, lower


def tied(graph: Graph) -> list[int]:
    """Output tensors of the layers whose result can differ by one step between x86's and ARM's tflite-runtime."""
    found = []
    for arm, x86 in zip(lower(graph).steps, lower(graph, Machine.X86).steps, strict=True):
        if not isinstance(arm, Product | Depthwise) or not isinstance(x86, Product | Depthwise):
            continue
        if arm.ties_up != x86.ties_up and arm.low < arm.zero_out:
            found.append(arm.dst)
    return found


def untie(graph: Graph) -> Graph:
    """A network that computes the same on every machine; the given one is not touched."""
    g = graph.copy()
    for tensor in tied(graph):
        at = next(n for n, op in enumerate(g.ops) if op.output == tensor)
        g.ops[at : at + 1] = _lifted(g, g.ops[at])
    return g


def _lifted(g: Graph, op: Op) -> list[Op]:
    out, w, b = g.tensors[op.output], g.tensors[op.inputs[1]], g.tensors[op.inputs[2]]
    steps = out.zero_point + 128
    scales = np.broadcast_to(np.asarray(w.scale, np.float64), g.data(op.inputs[2]).shape)
    factor = g.tensors[op.inputs[0]].step * scales / out.step
    lift = g.data(op.inputs[2]).astype(np.float64) + np.rint(steps / factor)
    bias = np.clip(lift, -(2**31), 2**31 - 1).astype(np.int32)
    lifted = g.add(Tensor(b.name, b.shape, "int32", bias, b.scale, 0, 0))
    raw = g.add(Tensor(out.name + "/lifted", out.shape, "int8", None, out.scale, -128))
    shape = g.constant(out.name + "/shape", np.array(out.shape, np.int32))
    return [
        replace(op, inputs=(*op.inputs[:2], lifted), output=raw),
        Op(Kind.RESHAPE, (raw, shape), op.output, Options(), op.source),
    ]
