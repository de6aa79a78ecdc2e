"""PyTorch programs from torch.export: an ExportedProgram, or the .pt2 file that torch.export.save wrote.

torch is the user's own and is not imported (but for archives of old layouts). Operators are read by name.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from compile.neural.frontends import pt2
from compile.neural.frontends.builder import Pads
from compile.neural.frontends.channels_first import ChannelsFirst
from compile.neural.graph import Array, Graph, Kind
from edge_runtime.errors import BadInput

_NEAREST = {
    "leaky_relu": "torch.nn.ReLU",
    "gelu": "torch.nn.ReLU",
    "silu": "torch.nn.ReLU",
    "elu": "torch.nn.ReLU",
    "hardswish": "torch.nn.ReLU6",
    "lstm": "torch.nn.Conv1d over the time axis",
    "gru": "torch.nn.Conv1d over the time axis",
    "layer_norm": "torch.nn.BatchNorm1d",
    "group_norm": "torch.nn.BatchNorm1d",
    "conv_transpose1d": "torch.nn.Conv1d",
    "cat": "an addition",
    "mul": "torch.nn.BatchNorm1d",
    "convolution": "a program without run_decompositions()",
    "addmm": "a program without run_decompositions()",
    "permute": "a module whose layers keep their axes",
    "transpose": "a module whose layers keep their axes",
}


def takes(model: object) -> bool:
    """Whether this front end is the one for a model object."""
    return type(model).__name__ == "ExportedProgram"


def read_file(path: Path) -> Graph:
    """The float graph of a .pt2 file. Raises BadInput where it is none, or so old that it takes torch to open."""
    try:
        return _Reader(pt2.read(path), str(path)).graph()
    except pt2.Older:
        pass
    try:
        import torch  # noqa: PLC0415 (only old archives need it)
    except ImportError as e:
        raise BadInput(
            f"{path}: was saved by an old torch, or with pickled weights; save it with torch 2.9 or later, "
            "export to ONNX, or pip install torch"
        ) from e
    try:
        program = torch.export.load(path)
    except Exception as e:
        raise BadInput(f"{path}: torch.export cannot open it ({type(e).__name__}); save it again") from e
    return read(program, str(path))


def read(program: Any, where: str = "model") -> Graph:
    """The float graph of an ExportedProgram of a module in evaluation mode."""
    return _Reader(_program(program), where).graph()


def _program(live: Any) -> pt2.Program:
    """An ExportedProgram in the form that a .pt2 file is read to."""
    signature = live.graph_signature
    state = {**dict(live.state_dict), **dict(live.constants)}
    named = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    named |= dict(getattr(signature, "inputs_to_lifted_tensor_constants", {}))
    constants = {n: np.asarray(state[v].detach().cpu().numpy()) for n, v in named.items() if v in state}
    inputs, nodes = tuple(signature.user_inputs), []
    shape: tuple[int, ...] = ()
    for node in live.graph.nodes:
        if node.op == "placeholder" and node.name in inputs:
            shape = tuple(d if isinstance(d, int) else -1 for d in node.meta["val"].shape)
        elif node.op == "call_function":
            nodes.append(_call(node))
    return pt2.Program(inputs, tuple(signature.user_outputs), shape, constants, tuple(nodes))


def _call(node: Any) -> pt2.Node:
    if getattr(node.target, "__name__", "") == "getitem":
        source, index = node.args
        return pt2.Node(node.name, "getitem", {"self": pt2.Ref(source.name), "index": index}, (node.name,))
    schema = [a.name for a in node.target._schema.arguments]
    given = dict(zip(schema, node.args, strict=False)) | dict(node.kwargs)
    arguments = {k: pt2.Ref(v.name) if hasattr(v, "op") else v for k, v in given.items()}
    operator = str(node.target).removeprefix("aten.").split(".")[0]
    return pt2.Node(node.name, operator, arguments, (node.name,))


class _Reader:
    def __init__(self, program: pt2.Program, where: str) -> None:
        self.where, self.program, self.layers = where, program, ChannelsFirst(where)
        self.constants = program.constants
        self.values: dict[str, int] = {}

    def graph(self) -> Graph:
        p = self.program
        if len(p.inputs) != 1 or len(p.outputs) != 1:
            raise BadInput(
                f"{self.where}: takes {len(p.inputs)} inputs and gives {len(p.outputs)} outputs; "
                f"export a module with one of each"
            )
        self.values[p.inputs[0]] = self.layers.input(list(p.input_shape))
        for node in p.nodes:
            if node.operator == "getitem" and node.arguments["index"] != 0:
                continue  # of (values, indices) only the values are followed
            method = _OPERATORS.get(node.operator)
            if method is None:
                nearest = _NEAREST.get(node.operator, "Conv1d, Linear, ReLU and pooling")
                raise self.layers.b.refuse(node.name, node.operator, nearest)
            self.values[node.outputs[0]] = method(self, node.name, dict(node.arguments))
        if p.outputs[0] not in self.values:
            raise BadInput(
                f"{self.where}: its output {p.outputs[0]!r} is a constant; export the module again"
            )
        return self.layers.b.finish(self.layers.ordered(self.values[p.outputs[0]], p.outputs[0]))

    def x(self, a: dict[str, Any], key: str = "input") -> int:
        value = a.get(key, a.get("self"))
        name = value.name if isinstance(value, pt2.Ref) else "?"
        if name not in self.values:
            raise self.layers.b.refuse(name, "a layer on constants", "a computed input")
        return self.values[name]

    def constant(self, a: dict[str, Any], key: str) -> Array | None:
        value = a.get(key)
        if value is None:
            return None
        if not isinstance(value, pt2.Ref) or value.name not in self.constants:
            raise self.layers.b.refuse(getattr(value, "name", key), "computed weights", "constant weights")
        return self.constants[value.name]

    def needed(self, a: dict[str, Any], key: str) -> Array:
        value = self.constant(a, key)
        if value is None:
            raise self.layers.b.refuse(key, "a layer without it", "a layer with parameters")
        return value


def _margins(padding: Any, rank: int) -> Pads:
    p = [padding] * rank if isinstance(padding, int) else list(padding)
    p = p * rank if len(p) < rank else p
    return ((0, 0), (p[0], p[0])) if rank == 1 else ((p[0], p[0]), (p[1], p[1]))


def _conv(rank: int) -> Callable[[_Reader, str, dict[str, Any]], int]:
    def conv(r: _Reader, name: str, a: dict[str, Any]) -> int:
        w, padding = r.needed(a, "weight"), a.get("padding", 0)
        stride, dilation = a.get("stride", 1), a.get("dilation", 1)
        if isinstance(padding, str):
            spans = [(k - 1) * d for k, d in zip(w.shape[2:], _list(dilation, rank), strict=True)]
            sides = [(s // 2, s - s // 2) if padding == "same" else (0, 0) for s in spans]
            pads: Pads = ((0, 0), sides[0]) if rank == 1 else (sides[0], sides[1])
        else:
            pads = _margins(padding, rank)
        return r.layers.conv(
            r.x(a), w, r.constant(a, "bias"), name, stride=_list(stride, rank), pads=pads,
            dilation=_list(dilation, rank), groups=a.get("groups", 1),
        )  # fmt: skip

    return conv


def _list(value: Any, rank: int) -> list[int]:
    return [value] * rank if isinstance(value, int) else (list(value) * rank)[:rank]


def _linear(r: _Reader, name: str, a: dict[str, Any]) -> int:
    return r.layers.dense(r.x(a), r.needed(a, "weight"), r.constant(a, "bias"), name)


def _batch_norm(r: _Reader, name: str, a: dict[str, Any]) -> int:
    if a.get("training"):
        raise r.layers.b.refuse(name, "batch norm in training mode", "module.eval() before torch.export")
    mean, var = r.needed(a, "running_mean"), r.needed(a, "running_var")
    gamma, beta = r.constant(a, "weight"), r.constant(a, "bias")
    return r.layers.batch_norm(r.x(a), gamma, beta, mean, var, a.get("eps", 1e-5), name)


def _unary(kind: Kind) -> Callable[[_Reader, str, dict[str, Any]], int]:
    return lambda r, name, a: r.layers.unary(r.x(a), kind, name)


def _hardtanh(r: _Reader, name: str, a: dict[str, Any]) -> int:
    ends = a.get("min_val", -1), a.get("max_val", 1)
    if ends != (0, 6):
        raise r.layers.b.refuse(name, f"hardtanh to {ends}", "torch.nn.ReLU6")
    return r.layers.unary(r.x(a), Kind.RELU6, name)


def _pool(kind: Kind, rank: int) -> Callable[[_Reader, str, dict[str, Any]], int]:
    def pool(r: _Reader, name: str, a: dict[str, Any]) -> int:
        if a.get("ceil_mode") or _list(a.get("dilation", 1), rank) != [1] * rank or a.get("divisor_override"):
            raise r.layers.b.refuse(name, "pooling with ceil_mode, dilation or a divisor", "plain pooling")
        size = _list(a["kernel_size"], rank)
        stride = _list(a.get("stride") or size, rank)
        counted = bool(a.get("count_include_pad", True))
        return r.layers.pool(
            r.x(a), kind, size, stride, _margins(a.get("padding", 0), rank), name, count_margins=counted
        )

    return pool


def _adaptive(rank: int) -> Callable[[_Reader, str, dict[str, Any]], int]:
    def pool(r: _Reader, name: str, a: dict[str, Any]) -> int:
        size = _list(a["output_size"], rank)
        if size == [1] * rank:
            return r.layers.global_average(r.x(a), name, keep=True)
        return r.layers.adaptive_average(r.x(a), size, name)

    return pool


def _adaptive_max(rank: int) -> Callable[[_Reader, str, dict[str, Any]], int]:
    def pool(r: _Reader, name: str, a: dict[str, Any]) -> int:
        if _list(a["output_size"], rank) != [1] * rank:
            raise r.layers.b.refuse(name, "adaptive maximum to several positions", "MaxPool1d")
        return r.layers.global_max(r.x(a), name)

    return pool


def _mean(r: _Reader, name: str, a: dict[str, Any]) -> int:
    x = r.x(a)
    positions = list(range(2, 2 + r.layers.rank(x)))
    axes = sorted(d % len(r.layers.shape(x)) for d in (a.get("dim") or []))
    if axes != positions:
        raise r.layers.b.refuse(name, f"mean over axes {axes}", "mean over all positions")
    return r.layers.global_average(x, name, keep=bool(a.get("keepdim", False)))


def _flatten(r: _Reader, name: str, a: dict[str, Any]) -> int:
    x = r.x(a)
    if a.get("start_dim", 0) != 1 or a.get("end_dim", -1) not in (-1, len(r.layers.shape(x)) - 1):
        raise r.layers.b.refuse(name, "flatten of some axes", "torch.nn.Flatten()")
    return r.layers.flatten(x, name)


def _view(r: _Reader, name: str, a: dict[str, Any]) -> int:
    return r.layers.reshape(r.x(a), list(a.get("size") or a["shape"]), name)


def _squeeze(r: _Reader, name: str, a: dict[str, Any]) -> int:
    x = r.x(a)
    dims = list(r.layers.shape(x))
    axes = a.get("dim", [i for i, d in enumerate(dims) if d == 1 and i])
    chosen = {d % len(dims) for d in ([axes] if isinstance(axes, int) else axes)}
    return r.layers.reshape(x, [d for i, d in enumerate(dims) if i not in chosen or d != 1], name)


def _unsqueeze(r: _Reader, name: str, a: dict[str, Any]) -> int:
    x = r.x(a)
    dims, axis = list(r.layers.shape(x)), int(a["dim"])
    dims.insert(axis if axis >= 0 else len(dims) + 1 + axis, 1)
    return r.layers.reshape(x, dims, name)


def _add(r: _Reader, name: str, a: dict[str, Any]) -> int:
    if a.get("alpha", 1) != 1 or not isinstance(a["other"], pt2.Ref):
        raise r.layers.b.refuse(name, "addition of a number or with alpha", "addition of two tensors")
    return r.layers.add(r.x(a, "self"), r.x(a, "other"), name)


def _same(r: _Reader, name: str, a: dict[str, Any]) -> int:
    return r.x(a)


_OPERATORS: dict[str, Callable[[_Reader, str, dict[str, Any]], int]] = {
    "conv1d": _conv(1),
    "conv2d": _conv(2),
    "linear": _linear,
    "batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "relu": _unary(Kind.RELU),
    "relu_": _unary(Kind.RELU),
    "relu6": _unary(Kind.RELU6),
    "hardtanh": _hardtanh,
    "hardtanh_": _hardtanh,
    "sigmoid": _unary(Kind.LOGISTIC),
    "tanh": _unary(Kind.TANH),
    "softmax": lambda r, n, a: r.layers.softmax(r.x(a), int(a["dim"]), n),
    "max_pool1d": _pool(Kind.MAX_POOL_2D, 1),
    "max_pool2d": _pool(Kind.MAX_POOL_2D, 2),
    "avg_pool1d": _pool(Kind.AVERAGE_POOL_2D, 1),
    "avg_pool2d": _pool(Kind.AVERAGE_POOL_2D, 2),
    "adaptive_avg_pool1d": _adaptive(1),
    "adaptive_avg_pool2d": _adaptive(2),
    "adaptive_max_pool1d": _adaptive_max(1),
    "adaptive_max_pool2d": _adaptive_max(2),
    "mean": _mean,
    "flatten": _flatten,
    "view": _view,
    "reshape": _view,
    "squeeze": _squeeze,
    "unsqueeze": _unsqueeze,
    "add": _add,
    "add_": _add,
    "dropout": _same,
    "feature_dropout": _same,
    "getitem": _same,
    "clone": _same,
    "contiguous": _same,
}
