"""Builds float graphs, channels last: what every front end calls, a method a layer.

Tensors are passed around by index. Shapes carry a batch of 1; a 1-D signal of L points is 1 x 1 x L x channels.
"""

from __future__ import annotations

import numpy as np

from compile.neural.graph import (
    Activation,
    Array,
    Graph,
    Kind,
    Op,
    Options,
    Padding,
    Tensor,
    window_output,
    window_padding,
)
from edge_runtime.errors import BadInput

Pads = tuple[tuple[int, int], tuple[int, int]]
"""Explicit margins: ((top, bottom), (left, right))."""
Pair = tuple[int, int]


class Builder:
    """A graph under construction. `where` names the model in messages."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.graph = Graph([], [], -1, -1)

    def shape(self, x: int) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self.graph.tensors[x].shape

    def refuse(self, layer: str, what: str, instead: str) -> BadInput:
        """The error for a layer that cannot be taken."""
        plain = "".join(c if c.isprintable() else "?" for c in what)
        return BadInput(
            f"{self.where}: layer {layer!r} ({plain}) is not supported; the nearest that is: {instead}"
        )

    def input(self, shape: tuple[int, ...]) -> int:
        """The network's input, shape without the batch: (n,), (length, channels) or (height, width, channels)."""
        if any(d is None or d <= 0 for d in shape):
            raise BadInput(
                f"{self.where}: the input shape {shape} is dynamic; give the model a fixed input shape"
            )
        full = (1, 1, *shape) if len(shape) == 2 else (1, *shape)
        self.graph.input = self.graph.add(Tensor("input", full))
        return self.graph.input

    def finish(self, output: int) -> Graph:
        """The finished graph."""
        self.graph.output = output
        return self.graph

    def _bias(self, name: str, bias: Array | None, count: int) -> Array:
        if bias is not None and np.shape(bias) != (count,):
            raise BadInput(f"{self.where}: layer {name!r} has {np.shape(bias)} biases for {count} outputs")
        return np.zeros(count) if bias is None else bias

    def _op(self, kind: Kind, ins: tuple[int, ...], shape: tuple[int, ...], o: Options, name: str) -> int:
        out = self.graph.add(Tensor(name, shape))
        self.graph.ops.append(Op(kind, ins, out, o, name))
        return out

    def _constant(self, name: str, data: Array) -> int:
        return self.graph.constant(name, np.ascontiguousarray(data, np.float32))

    def dense(self, x: int, w: Array, b: Array | None, name: str) -> int:
        """w: outputs x inputs."""
        if w.shape[1] != self.shape(x)[-1]:
            raise BadInput(
                f"{self.where}: layer {name!r} takes {w.shape[1]} inputs, gets {self.shape(x)[-1]}"
            )
        ins = x, self._constant(name + "/w", w), self._constant(name + "/b", self._bias(name, b, len(w)))
        return self._op(Kind.FULLY_CONNECTED, ins, (*self.shape(x)[:-1], len(w)), Options(), name)

    def conv(
        self,
        x: int,
        w: Array,
        b: Array | None,
        name: str,
        *,
        stride: Pair = (1, 1),
        dilation: Pair = (1, 1),
        pads: Pads | Padding = Padding.VALID,
        depthwise: bool = False,
    ) -> int:
        """w: out x height x width x in, or 1 x height x width x out where depthwise."""
        x, padding = self._pad_for(x, (w.shape[1], w.shape[2]), stride, dilation, pads, name)
        count = w.shape[3] if depthwise else w.shape[0]
        bias = self._bias(name, b, count)
        _, h, wide, c = self.shape(x)
        oh = window_output(h, w.shape[1], stride[0], dilation[0], padding)
        ow = window_output(wide, w.shape[2], stride[1], dilation[1], padding)
        if min(oh, ow) < 1:
            raise BadInput(f"{self.where}: layer {name!r} has a window larger than its input {(h, wide)}")
        kind = Kind.DEPTHWISE_CONV_2D if depthwise else Kind.CONV_2D
        o = Options(
            padding=padding, stride=stride, dilation=dilation, depth_multiplier=count // c if depthwise else 1
        )
        ins = x, self._constant(name + "/w", w), self._constant(name + "/b", bias)
        return self._op(kind, ins, (1, oh, ow, count), o, name)

    def pool(
        self, x: int, kind: Kind, size: Pair, stride: Pair, name: str, pads: Pads | Padding = Padding.VALID,
        *, count_margins: bool = False,
    ) -> int:  # fmt: skip
        """MAX_POOL_2D or AVERAGE_POOL_2D. count_margins: an average divides by the whole window at the edges too."""
        _, h, w, c = self.shape(x)
        explicit = pads if not isinstance(pads, Padding) else None
        if explicit is not None and any(any(p) for p in explicit):
            same = self._is_same((h, w), size, stride, (1, 1), explicit) and not count_margins
            zeros = (kind is Kind.AVERAGE_POOL_2D and count_margins) or (
                kind is Kind.MAX_POOL_2D and self._never_negative(x)
            )
            if not same and not zeros:
                raise self.refuse(name, "pooling with these margins", "pooling without padding")
            x, padding = self._pad_for(x, size, stride, (1, 1), Padding.SAME if same else explicit, name)
        else:
            padding = pads if isinstance(pads, Padding) else Padding.VALID
        _, h, w, c = self.shape(x)
        oh = window_output(h, size[0], stride[0], 1, padding)
        ow = window_output(w, size[1], stride[1], 1, padding)
        return self._op(
            kind, (x,), (1, oh, ow, c), Options(padding=padding, stride=stride, filter=size), name
        )

    def _never_negative(self, x: int) -> bool:
        kinds = {op.output: op.kind for op in self.graph.ops}
        return kinds.get(x) in (Kind.RELU, Kind.RELU6, Kind.LOGISTIC)

    @staticmethod
    def _is_same(size: Pair, window: Pair, stride: Pair, dilation: Pair, pads: Pads) -> bool:
        def one(axis: int) -> bool:
            out = window_output(size[axis], window[axis], stride[axis], dilation[axis], Padding.SAME)
            return window_padding(size[axis], window[axis], stride[axis], dilation[axis], out) == pads[axis]

        return one(0) and one(1)

    def _pad_for(
        self, x: int, window: Pair, stride: Pair, dilation: Pair, pads: Pads | Padding, name: str
    ) -> tuple[int, Padding]:
        """The input and the schema's padding: behind a PAD operator where neither SAME nor VALID fits."""
        if isinstance(pads, Padding):
            return x, pads
        if not any(any(p) for p in pads):
            return x, Padding.VALID
        _, h, w, _ = self.shape(x)
        if self._is_same((h, w), window, stride, dilation, pads):
            return x, Padding.SAME
        return self.pad(x, pads, name + "/pad"), Padding.VALID

    def pad(self, x: int, pads: Pads, name: str) -> int:
        """Zeros around height and width."""
        _, h, w, c = self.shape(x)
        amounts = np.array([(0, 0), *pads, (0, 0)], np.int32)
        ins = x, self.graph.constant(name + "/amounts", amounts)
        return self._op(Kind.PAD, ins, (1, h + sum(pads[0]), w + sum(pads[1]), c), Options(), name)

    def batch_norm(
        self,
        x: int,
        gamma: Array | None,
        beta: Array | None,
        mean: Array,
        var: Array,
        epsilon: float,
        name: str,
    ) -> int:
        """(x - mean) / sqrt(var + epsilon) * gamma + beta over the last axis, kept as a gain and a shift."""
        root = np.sqrt(var.astype(np.float64) + epsilon)
        gain = (np.ones_like(root) if gamma is None else gamma.astype(np.float64)) / root
        shift = (np.zeros_like(root) if beta is None else beta.astype(np.float64)) - mean.astype(
            np.float64
        ) * gain
        return self.scale(x, gain, shift, name)

    def scale(self, x: int, gain: Array, shift: Array, name: str) -> int:
        """x * gain + shift over the last axis."""
        ins = x, self._constant(name + "/gain", gain), self._constant(name + "/shift", shift)
        return self._op(Kind.BATCH_NORM, ins, self.shape(x), Options(), name)

    def unary(self, x: int, kind: Kind, name: str) -> int:
        """RELU, RELU6, LOGISTIC, TANH, SOFTMAX (over the last axis)."""
        return self._op(kind, (x,), self.shape(x), Options(), name)

    def activation(self, x: int, kind: str | None, name: str) -> int:
        """An activation by its common name."""
        kinds = {
            "relu": Kind.RELU,
            "relu6": Kind.RELU6,
            "sigmoid": Kind.LOGISTIC,
            "logistic": Kind.LOGISTIC,
            "tanh": Kind.TANH,
            "softmax": Kind.SOFTMAX,
        }
        if kind in (None, "linear", "identity"):
            return x
        if kind not in kinds:
            raise self.refuse(name, f"activation {kind}", "relu")
        return self.unary(x, kinds[kind], name)

    def global_average(self, x: int, name: str) -> int:
        """Mean over height and width: 1 x channels."""
        axes = self.graph.constant(name + "/axes", np.array([1, 2], np.int32))
        return self._op(Kind.MEAN, (x, axes), (1, self.shape(x)[3]), Options(), name)

    def global_max(self, x: int, name: str) -> int:
        """Maximum over height and width: 1 x channels."""
        _, h, w, c = self.shape(x)
        return self.reshape(self.pool(x, Kind.MAX_POOL_2D, (h, w), (1, 1), name), (1, c), name + "/flat")

    def reshape(self, x: int, shape: tuple[int, ...], name: str) -> int:
        """The same values in another shape."""
        if np.prod(shape) != np.prod(self.shape(x)):
            raise BadInput(f"{self.where}: layer {name!r} reshapes {self.shape(x)} to {shape}")
        if shape == self.shape(x):
            return x
        ins = x, self.graph.constant(name + "/shape", np.array(shape, np.int32))
        return self._op(Kind.RESHAPE, ins, shape, Options(), name)

    def add(self, a: int, b: int, name: str) -> int:
        """Residual addition of equal shapes."""
        if self.shape(a) != self.shape(b):
            raise self.refuse(name, f"adding {self.shape(a)} and {self.shape(b)}", "adding equal shapes")
        return self._op(Kind.ADD, (a, b), self.shape(a), Options(activation=Activation.NONE), name)
