"""A .tflite file read into a graph, and what keeps it from running said in one line. No interpreter is needed.

The flatbuffer is walked by hand (a page of code) rather than through generated classes: every offset is checked, so
a truncated or damaged file is an error here and never a crash later.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from compile.neural.check import check
from compile.neural.flatbuffer import DTYPES, IDENTIFIER
from compile.neural.graph import Activation, Array, Graph, Kind, Op, Options, Padding, Tensor
from edge_runtime.errors import BadInput

_TYPE_NAMES = {number: name for name, number in DTYPES.items()}
_OTHER_TYPES = {
    1: "float16", 3: "uint8", 4: "int64", 5: "string", 6: "bool", 8: "complex64", 10: "float64", 12: "uint64",
    15: "uint32", 16: "uint16", 17: "int4", 18: "bfloat16",
}  # fmt: skip
_CUSTOM = 32
_NEAREST = {
    2: ("CONCATENATION", "a residual ADD"),
    5: ("DEPTH_TO_SPACE", "RESHAPE"),
    12: ("L2_POOL_2D", "AVERAGE_POOL_2D"),
    16: ("LSTM", "CONV_2D over the time axis"),
    20: ("RELU_N1_TO_1", "RELU6, or this one fused into a layer"),
    49: ("SPLIT", "a model of one branch"),
    53: ("CAST", "QUANTIZE"),
    60: ("PADV2", "PAD"),
    65: ("SLICE", "a selection made before the network"),
    100: ("MIRROR_PAD", "PAD"),
    _CUSTOM: ("", "one of the built-in operators"),
    18: ("MUL", "batch normalisation folded into the layer before it"),
    41: ("SUB", "ADD"),
    44: ("UNIDIRECTIONAL_SEQUENCE_LSTM", "CONV_2D over the time axis"),
    45: ("STRIDED_SLICE", "a model with a fixed batch of 1"),
    77: ("SHAPE", "a model with a fixed input shape"),
    82: ("REDUCE_MAX", "MAX_POOL_2D over the whole axis"),
    98: ("LEAKY_RELU", "RELU"),
    117: ("HARD_SWISH", "RELU6"),
    22: ("RESHAPE", "RESHAPE"),
    54: ("PRELU", "RELU"),
    67: ("TRANSPOSE_CONV", "CONV_2D"),
    39: ("TRANSPOSE", "a model exported channels-last"),
    83: ("PACK", "a model with a fixed input shape"),
    97: ("RESIZE_NEAREST_NEIGHBOR", "CONV_2D with a stride"),
    111: ("ELU", "RELU"),
}


class _Malformed(Exception):
    """An offset that points outside the file."""


class _Table:
    """One table of a flatbuffer: fields by number, each read with its bounds checked."""

    def __init__(self, buf: bytes, at: int) -> None:
        self.buf, self.at = buf, at
        vtable = at - _get("<i", buf, at)
        self.fields = _get("<H", buf, vtable) // 2 - 2
        self.vtable = vtable

    def _field(self, number: int) -> int:
        if number >= self.fields:
            return 0
        offset: int = _get("<H", self.buf, self.vtable + 4 + 2 * number)
        return self.at + offset if offset else 0

    def number(self, field: int, code: str, default: float = 0) -> int:
        at = self._field(field)
        return int(_get(code, self.buf, at)) if at else int(default)

    def real(self, field: int, default: float) -> float:
        at = self._field(field)
        return float(_get("<f", self.buf, at)) if at else default

    def table(self, field: int) -> _Table | None:
        at = self._field(field)
        return _Table(self.buf, at + _get("<I", self.buf, at)) if at else None

    def vector(self, field: int, dtype: str) -> Array:
        at = self._field(field)
        if not at:
            return np.empty(0, dtype)
        start = at + _get("<I", self.buf, at)
        count = _get("<I", self.buf, start)
        if start + 4 + count * np.dtype(dtype).itemsize > len(self.buf):
            raise _Malformed
        return np.frombuffer(self.buf, dtype, count, start + 4)

    def tables(self, field: int) -> list[_Table]:
        at = self._field(field)
        if not at:
            return []
        start = at + _get("<I", self.buf, at)
        offsets = self.vector(field, "<u4")
        return [_Table(self.buf, start + 4 + 4 * i + int(o)) for i, o in enumerate(offsets)]

    def text(self, field: int) -> str:
        return bytes(self.vector(field, "u1")).decode("utf-8", "replace")


def _get(code: str, buf: bytes, at: int) -> int:
    if at < 0:
        raise _Malformed
    try:
        return struct.unpack_from(code, buf, at)[0]  # type: ignore[no-any-return]
    except struct.error as e:
        raise _Malformed from e


def read_file(path: Path) -> Graph:
    """The graph of a .tflite file. Raises BadInput where it cannot be read or run as int8."""
    try:
        data = path.read_bytes()
    except OSError as e:
        raise BadInput(f"{path}: {e.strerror}; give a .tflite file") from e
    return read(data, str(path))


def read(data: bytes, where: str = "model.tflite") -> Graph:
    """The graph of a .tflite file's bytes; `where` names it in messages.

    Raises BadInput: truncated or damaged; an operator or type that is not supported; a dynamic shape.
    """
    if data[4:8] != IDENTIFIER:
        raise BadInput(f"{where}: is no .tflite file (its identifier is not TFL3); export the model again")
    try:
        return _model(_Table(data, _get("<I", data, 0)), where)
    except (_Malformed, OverflowError, IndexError, MemoryError) as e:
        raise BadInput(
            f"{where}: is truncated or damaged ({len(data)} bytes); copy or export it again"
        ) from e


def _model(model: _Table, where: str) -> Graph:
    subgraphs = model.tables(2)
    if len(subgraphs) != 1:
        raise BadInput(f"{where}: has {len(subgraphs)} subgraphs; export a model without control flow")
    codes = [(max(c.number(3, "<i"), c.number(0, "<b")), c.text(1)) for c in model.tables(1)]
    buffers = model.tables(4)
    sub = subgraphs[0]
    tensors = [_tensor(t, buffers, where) for t in sub.tables(0)]
    ins, outs = sub.vector(1, "<i4"), sub.vector(2, "<i4")
    if len(ins) != 1 or len(outs) != 1:
        raise BadInput(
            f"{where}: has {len(ins)} inputs and {len(outs)} outputs; export a model with one of each"
        )
    ops = [_op(o, codes, tensors, where) for o in sub.tables(3)]
    if not ops:
        raise BadInput(f"{where}: has no operator; export the model again")
    for index in (int(ins[0]), int(outs[0])):
        if not 0 <= index < len(tensors):
            raise _Malformed
    graph = Graph(tensors, ops, int(ins[0]), int(outs[0]), model.text(3))
    check(graph, where)
    return graph


def _tensor(t: _Table, buffers: list[_Table], where: str) -> Tensor:
    name, number = t.text(3), t.number(1, "<b")
    shape, signature = t.vector(0, "<i4"), t.vector(7, "<i4")
    dtype = _TYPE_NAMES.get(number)
    if dtype is None:
        kind = _OTHER_TYPES.get(number, f"type {number}")
        raise BadInput(f"{where}: tensor {name!r} is {kind}; quantise the model to int8")
    if any(int(d) < 0 for d in (*shape[1:], *signature[1:])) or any(int(d) < 0 for d in shape):
        raise BadInput(
            f"{where}: tensor {name!r} has the dynamic shape {list(map(int, signature))}; export a fixed one"
        )
    dims = tuple(int(d) for d in shape)
    buffer = buffers[t.number(2, "<I")]
    blob = buffer.vector(0, "u1")
    if buffer.number(1, "<Q") > 1 or buffer.number(2, "<Q") > 1:
        raise BadInput(
            f"{where}: keeps the values of {name!r} behind the model; export it under 2 GB, in one piece"
        )
    if t.table(6) is not None:
        raise BadInput(f"{where}: tensor {name!r} is sparse; export the model with dense weights")
    data = _constant(blob, dtype, dims) if len(blob) else None
    scale, zero_point, axis = None, 0, 0
    q = t.table(4)
    if q is not None and len(q.vector(2, "<f4")):
        scale = q.vector(2, "<f4").astype(np.float32)
        zeros = q.vector(3, "<i8")
        axis = q.number(6, "<i")
        zero_point = int(zeros[0]) if len(zeros) else 0
        if data is not None and dtype == "int8" and zeros.any():
            raise BadInput(f"{where}: weights {name!r} have a zero point; quantise them symmetrically")
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise BadInput(f"{where}: tensor {name!r} has a scale that is not positive; export it again")
    return Tensor(name, dims, dtype, data, scale, zero_point, axis)


def _constant(blob: Array, dtype: str, shape: tuple[int, ...]) -> Array:
    expected = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if len(blob) != expected:
        raise _Malformed
    return np.frombuffer(blob.tobytes(), np.dtype(dtype).newbyteorder("<")).reshape(shape).astype(dtype)


def _op(o: _Table, codes: list[tuple[int, str]], tensors: list[Tensor], where: str) -> Op:
    code, custom = codes[o.number(0, "<I")]
    ins = tuple(int(i) for i in o.vector(1, "<i4"))
    outs = [int(i) for i in o.vector(2, "<i4")]
    if not ins or len(outs) != 1 or not all(-1 <= i < len(tensors) for i in (*ins, *outs)):
        raise _Malformed
    name = tensors[outs[0]].name.split(";")[0]  # converters join the names of all that was fused
    if code not in Kind.__members__.values() or code == Kind.BATCH_NORM:
        known, instead = _NEAREST.get(code, (f"number {code}", "one of the supported operators"))
        if code == _CUSTOM:
            known = "custom one " + "".join(k if k.isprintable() else "?" for k in custom)
        raise BadInput(
            f"{where}: layer {name!r} is the operator {known}, which is not supported; "
            f"the nearest that is: {instead}"
        )
    kind = Kind(code)
    options = _options(kind, o.table(4), f"{where}: layer {name!r}")
    return Op(kind, ins, outs[0], options, name)


def _options(kind: Kind, t: _Table | None, where: str) -> Options:  # noqa: PLR0911 (a return an operator)
    if t is None:
        return Options()
    if kind in (Kind.CONV_2D, Kind.DEPTHWISE_CONV_2D):
        depthwise = kind is Kind.DEPTHWISE_CONV_2D
        at = 4 if depthwise else 3
        return Options(
            activation=_activation(t.number(at, "<b"), where),
            padding=_padding(t.number(0, "<b"), where),
            stride=(t.number(2, "<i"), t.number(1, "<i")),
            dilation=(t.number(at + 2, "<i", 1), t.number(at + 1, "<i", 1)),
            depth_multiplier=t.number(3, "<i") if depthwise else 1,
        )
    if kind in (Kind.AVERAGE_POOL_2D, Kind.MAX_POOL_2D):
        return Options(
            activation=_activation(t.number(5, "<b"), where),
            padding=_padding(t.number(0, "<b"), where),
            stride=(t.number(2, "<i"), t.number(1, "<i")),
            filter=(t.number(4, "<i"), t.number(3, "<i")),
        )
    if kind is Kind.SOFTMAX:
        return Options(beta=t.real(0, 0.0))
    if kind is Kind.MEAN:
        return Options(keep_dims=bool(t.number(0, "<B")))
    if kind is Kind.FULLY_CONNECTED and t.number(1, "<b"):
        raise BadInput(f"{where} has shuffled weights; export it with the default weight format")
    if kind in (Kind.FULLY_CONNECTED, Kind.ADD):
        return Options(activation=_activation(t.number(0, "<b"), where))
    return Options()


def _padding(number: int, where: str) -> Padding:
    if number not in Padding.__members__.values():
        raise BadInput(f"{where} has the padding {number}; the nearest that is supported: SAME or VALID")
    return Padding(number)


def _activation(number: int, where: str) -> Activation:
    if number not in Activation.__members__.values():
        raise BadInput(f"{where} has the fused activation {number}; the nearest that is supported: RELU")
    return Activation(number)
