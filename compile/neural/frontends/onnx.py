"""ONNX files, read without the onnx package (see protobuf.py). Operators as torch.onnx and tf2onnx write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compile.neural.frontends.builder import Pads
from compile.neural.frontends.channels_first import ChannelsFirst
from compile.neural.frontends.protobuf import Malformed, Message
from compile.neural.graph import Array, Graph, Kind, Padding
from edge_runtime.errors import BadInput

_TYPES = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2", 11: "<f8"}
_NEAREST = {
    "LSTM": "Conv over the time axis",
    "GRU": "Conv over the time axis",
    "LayerNormalization": "BatchNormalization",
    "InstanceNormalization": "BatchNormalization",
    "LeakyRelu": "Relu",
    "PRelu": "Relu",
    "Elu": "Relu",
    "HardSwish": "Clip(0, 6)",
    "Erf": "Relu",
    "Gelu": "Relu",
    "ConvTranspose": "Conv",
    "Concat": "Add",
    "Mul": "BatchNormalization",
    "Transpose": "a model whose layers keep their axes",
    "Gather": "a fixed selection made before the network",
}


def read(path: Path) -> Graph:
    """The float graph of an .onnx file. Raises BadInput: damaged, weights elsewhere, or an unsupported operator."""
    try:
        data = path.read_bytes()
        graphs = Message(data).messages(7)
        if not graphs:
            raise Malformed
        return _Reader(graphs[0], str(path)).graph()
    except OSError as e:
        raise BadInput(f"{path}: {e.strerror}; give an .onnx file") from e
    except (Malformed, ValueError, IndexError) as e:
        raise BadInput(f"{path}: is no ONNX model, or a damaged one; export it again") from e


def _tensor(t: Message, where: str) -> Array:
    if t.integer(14) == 1:
        raise BadInput(f"{where}: weights lie in another file; export with the weights inside the .onnx file")
    dims, kind = t.integers(1), _TYPES.get(t.integer(2))
    if kind is None:
        raise BadInput(f"{where}: tensor {t.text(8)!r} has a type that no layer takes; export in float32")
    if t.blobs(9):
        values = np.frombuffer(t.blobs(9)[0], kind)
    else:
        values = np.array(t.floats(4) or t.integers(7) or t.integers(5), kind)
    return values.reshape(dims)


class _Node:
    """One operator: its names and its attributes."""

    def __init__(self, m: Message, where: str) -> None:
        self.inputs, self.outputs = m.texts(1), m.texts(2)
        self.kind, self.name = m.text(4), m.text(3) or (m.texts(2) or ["?"])[0]
        self._attributes = {a.text(1): a for a in m.messages(5)}
        self._where = where

    def integers(self, name: str, default: list[int]) -> list[int]:
        a = self._attributes.get(name)
        return a.integers(8) if a is not None else default

    def integer(self, name: str, default: int) -> int:
        a = self._attributes.get(name)
        return a.integer(3, default) if a is not None else default

    def real(self, name: str, default: float) -> float:
        a = self._attributes.get(name)
        return (a.floats(2) or [default])[-1] if a is not None else default

    def text(self, name: str, default: str) -> str:
        a = self._attributes.get(name)
        return a.text(4) if a is not None else default

    def tensor(self, name: str) -> Array:
        return _tensor(self._attributes[name].messages(5)[0], self._where)


class _Reader:
    def __init__(self, graph: Message, where: str) -> None:
        self.where = where
        self.nodes = [_Node(n, where) for n in graph.messages(1)]
        self.constants = {t.text(8): _tensor(t, where) for t in graph.messages(5)}
        self.inputs = [i for i in graph.messages(11) if i.text(1) not in self.constants]
        self.outputs = graph.messages(12)
        self.layers = ChannelsFirst(where)
        self.values: dict[str, int] = {}

    def graph(self) -> Graph:
        if len(self.inputs) != 1 or len(self.outputs) != 1:
            raise BadInput(
                f"{self.where}: has {len(self.inputs)} inputs and {len(self.outputs)} outputs; export one of each"
            )
        self.values[self.inputs[0].text(1)] = self.layers.input(_shape(self.inputs[0]))
        for node in self.nodes:
            self._node(node)
        name = self.outputs[0].text(1)
        if name not in self.values:
            raise BadInput(f"{self.where}: its output {name!r} is a constant; export the model again")
        out = self.layers.ordered(self.values[name], name)
        return self.layers.b.finish(out)

    def _node(self, node: _Node) -> None:
        if node.kind == "Constant":
            self.constants[node.outputs[0]] = node.tensor("value")
            return
        if node.kind in ("Identity", "Dropout", "Cast") and node.inputs[0] in self.constants:
            self.constants[node.outputs[0]] = self.constants[node.inputs[0]]
            return
        method = _OPERATORS.get(node.kind)
        computed = [i for i in node.inputs if i in self.values]
        if method is None or not computed:
            what = node.kind if computed else f"{node.kind} of constants"
            raise self.layers.b.refuse(
                node.name, what, _NEAREST.get(node.kind, "Conv, Gemm, MaxPool, Relu, Add")
            )
        self.values[node.outputs[0]] = method(self, node)

    def x(self, node: _Node, n: int = 0) -> int:
        if node.inputs[n] not in self.values:
            raise self.layers.b.refuse(node.name, f"{node.kind} of a constant", "a computed input")
        return self.values[node.inputs[n]]

    def constant(self, node: _Node, n: int) -> Array | None:
        if n >= len(node.inputs) or not node.inputs[n]:
            return None
        if node.inputs[n] not in self.constants:
            raise self.layers.b.refuse(node.name, f"{node.kind} with computed weights", "constant weights")
        return self.constants[node.inputs[n]]

    def needed(self, node: _Node, n: int) -> Array:
        value = self.constant(node, n)
        if value is None:
            raise Malformed
        return value

    def pads(self, node: _Node, size: Sequence[int]) -> Pads | Padding:
        """The margins of a window of `size`."""
        mode = node.text("auto_pad", "NOTSET")
        odd = all(k % 2 for k in size) and set(node.integers("strides", [1])) == {1}
        if mode == "SAME_UPPER" or (mode == "SAME_LOWER" and odd):
            return Padding.SAME
        if mode not in ("NOTSET", "VALID", ""):
            raise self.layers.b.refuse(node.name, f"padding {mode}", "explicit pads")
        return _margins(node.integers("pads", [0] * (2 * len(size))), len(size))


def _margins(p: list[int], rank: int) -> Pads:
    if rank == 1:
        return (0, 0), (p[0], p[1])
    return (p[0], p[2]), (p[1], p[3])


def _shape(value: Message) -> list[int]:
    tensor = value.messages(2)[0].messages(1)[0]
    return [d.integer(1, -1) for d in tensor.messages(2)[0].messages(1)]


def _conv(r: _Reader, n: _Node) -> int:
    w = r.needed(n, 1).astype(np.float32)
    rank = w.ndim - 2
    return r.layers.conv(
        r.x(n), w, r.constant(n, 2), n.name, stride=n.integers("strides", [1] * rank), pads=r.pads(n, w.shape[2:]),
        dilation=n.integers("dilations", [1] * rank), groups=n.integer("group", 1),
    )  # fmt: skip


def _gemm(r: _Reader, n: _Node) -> int:
    if n.integer("transA", 0):
        raise r.layers.b.refuse(n.name, "Gemm with transA", "Gemm")
    w = r.needed(n, 1).astype(np.float32) * np.float32(n.real("alpha", 1.0))
    bias = r.constant(n, 2)
    if bias is not None:
        bias = np.broadcast_to(
            bias * np.float32(n.real("beta", 1.0)), (w.shape[0 if n.integer("transB", 0) else 1],)
        )
    return r.layers.dense(r.x(n), w if n.integer("transB", 0) else w.T, bias, n.name)


def _matmul(r: _Reader, n: _Node) -> int:
    return r.layers.dense(r.x(n), r.needed(n, 1).astype(np.float32).T, None, n.name)


def _add(r: _Reader, n: _Node) -> int:
    if all(i in r.values for i in n.inputs):
        return r.layers.add(r.x(n, 0), r.x(n, 1), n.name)
    at = 0 if n.inputs[0] in r.values else 1
    x, value = r.x(n, at), r.needed(n, 1 - at).astype(np.float32)
    channels = r.layers.shape(x)[1]
    shift = np.broadcast_to(value.reshape(-1), (channels,))
    return r.layers.batch_norm(x, None, shift, np.zeros(channels), np.ones(channels), 0.0, n.name)


def _batch_norm(r: _Reader, n: _Node) -> int:
    gamma, beta, mean, var = (r.needed(n, i) for i in range(1, 5))
    return r.layers.batch_norm(r.x(n), gamma, beta, mean, var, n.real("epsilon", 1e-5), n.name)


def _clip(r: _Reader, n: _Node) -> int:
    low, high = r.constant(n, 1), r.constant(n, 2)
    ends = (
        n.real("min", -np.inf) if low is None else float(low),
        n.real("max", np.inf) if high is None else float(high),
    )
    kinds = {(0.0, 6.0): Kind.RELU6, (0.0, np.inf): Kind.RELU}
    if ends not in kinds:
        raise r.layers.b.refuse(n.name, f"Clip to {ends}", "Clip(0, 6)")
    return r.layers.unary(r.x(n), kinds[ends], n.name)


def _softmax(r: _Reader, n: _Node) -> int:
    return r.layers.softmax(r.x(n), n.integer("axis", -1), n.name)


def _pool(kind: Kind) -> Callable[[_Reader, _Node], int]:
    def pool(r: _Reader, n: _Node) -> int:
        size = n.integers("kernel_shape", [])
        if n.integer("ceil_mode", 0) or any(d != 1 for d in n.integers("dilations", [])):
            raise r.layers.b.refuse(n.name, "pooling with ceil_mode or dilation", "plain pooling")
        stride = n.integers("strides", [1] * len(size))
        counted = bool(n.integer("count_include_pad", 0))
        return r.layers.pool(r.x(n), kind, size, stride, r.pads(n, size), n.name, count_margins=counted)

    return pool


def _reduce(r: _Reader, n: _Node) -> tuple[int, bool]:
    """The input of a reduction over all positions, and whether their axes stay."""
    axes = n.integers("axes", []) or [int(a) for a in r.needed(n, 1)]
    x = r.x(n)
    positions = list(range(2, 2 + r.layers.rank(x)))
    if sorted(a % len(r.layers.shape(x)) for a in axes) != positions:
        raise r.layers.b.refuse(n.name, f"{n.kind} over axes {axes}", f"{n.kind} over all positions")
    return x, bool(n.integer("keepdims", 1))


def _reduce_mean(r: _Reader, n: _Node) -> int:
    x, keep = _reduce(r, n)
    return r.layers.global_average(x, n.name, keep=keep)


def _reduce_max(r: _Reader, n: _Node) -> int:
    x, keep = _reduce(r, n)
    out = r.layers.global_max(x, n.name)
    return out if keep else r.layers.flatten(out, n.name + "/flat")


def _flatten(r: _Reader, n: _Node) -> int:
    return r.layers.flatten(r.x(n), n.name)


def _reshape(r: _Reader, n: _Node) -> int:
    x = r.x(n)
    asked = [int(d) for d in r.needed(n, 1)]
    shape = [r.layers.shape(x)[i] if d == 0 else d for i, d in enumerate(asked)]
    if len(shape) == 2 and shape[0] == -1:
        shape = [1, shape[1]]
    return r.layers.reshape(x, shape, n.name)


def _squeeze(r: _Reader, n: _Node) -> int:
    x = r.x(n)
    dims = list(r.layers.shape(x))
    given = r.constant(n, 1)
    axes = n.integers("axes", []) or ([] if given is None else [int(a) for a in given])
    chosen = {a % len(dims) for a in axes} or {i for i, d in enumerate(dims) if d == 1 and i}
    return r.layers.reshape(x, [d for i, d in enumerate(dims) if i not in chosen], n.name)


def _unsqueeze(r: _Reader, n: _Node) -> int:
    x = r.x(n)
    dims = list(r.layers.shape(x))
    for a in sorted(n.integers("axes", []) or [int(a) for a in r.needed(n, 1)]):
        dims.insert(a if a >= 0 else len(dims) + 1 + a, 1)
    return r.layers.reshape(x, dims, n.name)


def _pad(r: _Reader, n: _Node) -> int:
    x = r.x(n)
    amounts = n.integers("pads", []) or [int(v) for v in r.needed(n, 1)]
    value = r.constant(n, 2)
    rank = r.layers.rank(x)
    if (
        n.text("mode", "constant") != "constant"
        or (value is not None and float(value))
        or len(amounts) != 2 * rank + 4
    ):
        raise r.layers.b.refuse(n.name, "padding with anything but zeros", "Pad with zeros")
    begin, end = amounts[: rank + 2], amounts[rank + 2 :]
    if any(begin[:2]) or any(end[:2]):
        raise r.layers.b.refuse(n.name, "padding of channels", "Pad of positions")
    return r.layers.pad(x, _margins([*begin[2:], *end[2:]], rank), n.name)


def _unary(kind: Kind) -> Callable[[_Reader, _Node], int]:
    return lambda r, n: r.layers.unary(r.x(n), kind, n.name)


_OPERATORS: dict[str, Callable[[_Reader, Any], int]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Add": _add,
    "BatchNormalization": _batch_norm,
    "Relu": _unary(Kind.RELU),
    "Sigmoid": _unary(Kind.LOGISTIC),
    "Tanh": _unary(Kind.TANH),
    "Clip": _clip,
    "Softmax": _softmax,
    "MaxPool": _pool(Kind.MAX_POOL_2D),
    "AveragePool": _pool(Kind.AVERAGE_POOL_2D),
    "GlobalAveragePool": lambda r, n: r.layers.global_average(r.x(n), n.name, keep=True),
    "GlobalMaxPool": lambda r, n: r.layers.global_max(r.x(n), n.name),
    "ReduceMean": _reduce_mean,
    "ReduceMax": _reduce_max,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Pad": _pad,
    "Identity": lambda r, n: r.x(n),
    "Dropout": lambda r, n: r.x(n),
}
