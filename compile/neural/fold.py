"""A float graph made smaller before quantisation: batch norms into weights, activations into their operator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from compile.neural.graph import Activation, Array, Graph, Kind, Op, Options, Tensor

_LINEAR = (Kind.CONV_2D, Kind.DEPTHWISE_CONV_2D, Kind.FULLY_CONNECTED)
_FUSES = (*_LINEAR, Kind.ADD)
_ACTIVATIONS = {Kind.RELU: Activation.RELU, Kind.RELU6: Activation.RELU6}


def fold(graph: Graph) -> Graph:
    """The same function with fewer operators; the given graph is not touched."""
    g = graph.copy()
    _complete(g)
    _batch_norms(g)
    _activations(g)
    return g


def _complete(g: Graph) -> None:
    """Float weights, and a bias, for every layer: a converter may store weights in int8 and leave out zero biases."""
    for n, op in enumerate(g.ops):
        if op.kind not in _LINEAR:
            continue
        w = g.tensors[op.inputs[1]]
        weights, bias = op.inputs[1], op.inputs[2] if len(op.inputs) > 2 else -1
        if w.scale is not None and w.dtype == "int8":
            shape = [1] * len(w.shape)
            shape[w.axis] = -1
            real = g.data(weights) * (w.scale.reshape(shape) if len(w.scale) > 1 else w.scale)
            weights = g.constant(w.name, real.astype(np.float32))
        if bias < 0:
            count = w.shape[3] if op.kind is Kind.DEPTHWISE_CONV_2D else w.shape[0]
            bias = g.constant(f"{op.source}/zero", np.zeros(count, np.float32))
        g.ops[n] = replace(op, inputs=(op.inputs[0], weights, bias))


def _producer(g: Graph, tensor: int) -> int:
    """Position of the operator that computes a tensor nobody else reads; -1 where there is none."""
    if tensor == g.output or sum(1 for _ in g.consumers(tensor)) != 1:
        return -1
    return next((n for n, op in enumerate(g.ops) if op.output == tensor), -1)


def _batch_norms(g: Graph) -> None:
    for op in [o for o in g.ops if o.kind is Kind.BATCH_NORM]:
        at = _producer(g, op.inputs[0])
        gain, shift = g.data(op.inputs[1]).astype(np.float64), g.data(op.inputs[2]).astype(np.float64)
        linear = at >= 0 and g.ops[at].kind in _LINEAR and g.ops[at].options.activation is Activation.NONE
        if linear:
            g.ops[at] = replace(_scaled(g, g.ops[at], gain, shift), output=op.output)
            g.ops.remove(op)
        else:
            n = g.ops.index(op)
            g.ops[n : n + 1] = _as_depthwise(g, op, gain, shift)


def _scaled(g: Graph, op: Op, gain: Array, shift: Array) -> Op:
    w, b = g.data(op.inputs[1]).astype(np.float64), g.data(op.inputs[2]).astype(np.float64)
    out_first = op.kind is not Kind.DEPTHWISE_CONV_2D
    w = w * (gain.reshape(-1, *[1] * (w.ndim - 1)) if out_first else gain)
    names = (g.tensors[op.inputs[1]].name, g.tensors[op.inputs[2]].name)
    weights = g.constant(names[0], w.astype(np.float32))
    bias = g.constant(names[1], (b * gain + shift).astype(np.float32))
    return replace(op, inputs=(op.inputs[0], weights, bias))


def _as_depthwise(g: Graph, op: Op, gain: Array, shift: Array) -> list[Op]:
    """A batch norm that follows no layer it could be folded into: a 1 x 1 depthwise convolution."""
    shape = g.tensors[op.output].shape
    ins = (
        g.constant(op.source + "/w", gain.reshape(1, 1, 1, -1).astype(np.float32)),
        g.constant(op.source + "/b", shift.astype(np.float32)),
    )
    if len(shape) == 4:
        return [Op(Kind.DEPTHWISE_CONV_2D, (op.inputs[0], *ins), op.output, Options(), op.source)]
    wide = (1, 1, 1, shape[-1])
    before, after = g.add(Tensor(op.source + "/in", wide)), g.add(Tensor(op.source + "/out", wide))
    sizes = (np.array(wide, np.int32), np.array(shape, np.int32))
    to, back = (g.constant(f"{op.source}/shape{n}", s) for n, s in enumerate(sizes))
    return [
        Op(Kind.RESHAPE, (op.inputs[0], to), before, Options(), op.source),
        Op(Kind.DEPTHWISE_CONV_2D, (before, *ins), after, Options(), op.source),
        Op(Kind.RESHAPE, (after, back), op.output, Options(), op.source),
    ]


def _activations(g: Graph) -> None:
    for op in [o for o in g.ops if o.kind in _ACTIVATIONS]:
        at = _producer(g, op.inputs[0])
        if at < 0 or g.ops[at].kind not in _FUSES or g.ops[at].options.activation is not Activation.NONE:
            continue
        options = replace(g.ops[at].options, activation=_ACTIVATIONS[op.kind])
        g.ops[at] = replace(g.ops[at], output=op.output, options=options)
        g.ops.remove(op)
