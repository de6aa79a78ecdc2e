"""A graph written as a .tflite file, with numpy and flatbuffers only. Equal graphs give equal bytes.

Field numbers are those of the TFLite schema (schema.fbs version 3). Operator versions are the lowest that carry int8,
so that tflite-runtime 2.14 takes the file (it refuses a dense layer of version 12, which per-channel weights need).
"""

from __future__ import annotations

from collections.abc import Sequence

import flatbuffers
import numpy as np

from compile.neural.graph import Array, Graph, Kind, Op, Options, Tensor

IDENTIFIER = b"TFL3"
DTYPES = {"float32": 0, "int32": 2, "int16": 7, "int8": 9}
_OPTIONS_TYPE = {
    Kind.CONV_2D: 1,
    Kind.DEPTHWISE_CONV_2D: 2,
    Kind.AVERAGE_POOL_2D: 5,
    Kind.MAX_POOL_2D: 5,
    Kind.FULLY_CONNECTED: 8,
    Kind.SOFTMAX: 9,
    Kind.ADD: 11,
    Kind.RESHAPE: 17,
    Kind.MEAN: 27,
}
_VERSION_INT8 = {
    Kind.CONV_2D: 3,
    Kind.DEPTHWISE_CONV_2D: 3,
    Kind.FULLY_CONNECTED: 4,
    Kind.RESHAPE: 1,
    Kind.EXPAND_DIMS: 1,
    Kind.SQUEEZE: 1,
    Kind.DEQUANTIZE: 2,
}
_ALIGN = 16  # interpreters map the constants in place


class _Writer:
    """A flatbuffers Builder with the handful of shapes that the schema uses."""

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1 << 16)

    def vector(self, values: Sequence[int] | Sequence[float] | Array, dtype: str) -> int:
        return int(self.builder.CreateNumpyVector(np.ascontiguousarray(values, dtype)))

    def offsets(self, offsets: Sequence[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def blob(self, data: bytes) -> int:
        b = self.builder
        b.StartVector(1, len(data), _ALIGN)
        b.head = int(b.head) - len(data)
        b.Bytes[b.head : b.head + len(data)] = data
        return int(b.EndVector())

    def table(self, *fields: tuple[int, str, float] | tuple[int, str, float, float]) -> int:
        """A table of (field number, type, value, default); a value that equals its default is left out."""
        b = self.builder
        put = {
            "offset": b.PrependUOffsetTRelativeSlot,
            "i32": b.PrependInt32Slot,
            "u32": b.PrependUint32Slot,
            "i8": b.PrependInt8Slot,
            "u8": b.PrependUint8Slot,
            "bool": b.PrependBoolSlot,
            "f32": b.PrependFloat32Slot,
        }
        b.StartObject(max((f[0] for f in fields), default=-1) + 1)
        for slot, kind, value, *default in fields:
            put[kind](slot, value, default[0] if default else 0)
        return int(b.EndObject())


def write(graph: Graph) -> bytes:
    """The bytes of a .tflite file."""
    w = _Writer()
    blobs: list[bytes] = [b""]  # buffer 0 is empty by convention: "no data"
    tensors = [_tensor(w, t, blobs) for t in graph.tensors]
    codes: list[tuple[Kind, int]] = []
    ops = [_op(w, graph, op, codes) for op in graph.ops]
    lists = w.offsets(tensors), w.offsets(ops)
    ins, outs = w.vector([graph.input], "<i4"), w.vector([graph.output], "<i4")
    name = w.builder.CreateString("main")
    subgraph = w.table(
        (0, "offset", lists[0]),
        (1, "offset", ins),
        (2, "offset", outs),
        (3, "offset", lists[1]),
        (4, "offset", name),
    )
    subgraphs = w.offsets([subgraph])
    opcodes = w.offsets(
        [
            w.table((0, "i8", min(kind, 127)), (2, "i32", version, 1), (3, "i32", kind))
            for kind, version in codes
        ]
    )
    buffers = w.offsets([w.table((0, "offset", w.blob(b))) if b else w.table() for b in blobs])
    description = w.builder.CreateString(graph.description)
    model = w.table(
        (0, "u32", 3),
        (1, "offset", opcodes),
        (2, "offset", subgraphs),
        (3, "offset", description),
        (4, "offset", buffers),
    )
    w.builder.Finish(model, file_identifier=IDENTIFIER)
    return bytes(w.builder.Output())


def _tensor(w: _Writer, t: Tensor, blobs: list[bytes]) -> int:
    buffer = 0
    if t.data is not None:
        buffer = len(blobs)
        blobs.append(np.ascontiguousarray(t.data, np.dtype(t.dtype).newbyteorder("<")).tobytes())
    fields: list[tuple[int, str, float]] = []
    if t.scale is not None:
        scale = w.vector(t.scale, "<f4")
        zero = w.vector([t.zero_point] * len(t.scale), "<i8")
        fields = [(4, "offset", w.table((2, "offset", scale), (3, "offset", zero), (6, "i32", t.axis)))]
    name, shape = w.builder.CreateString(t.name), w.vector(t.shape, "<i4")
    return w.table(
        (0, "offset", shape), (1, "i8", DTYPES[t.dtype]), (2, "u32", buffer), (3, "offset", name), *fields
    )


def _op(w: _Writer, graph: Graph, op: Op, codes: list[tuple[Kind, int]]) -> int:
    quantised = graph.tensors[op.inputs[0]].dtype != "float32"
    code = (op.kind, _VERSION_INT8.get(op.kind, 2) if quantised else 1)
    if code not in codes:
        codes.append(code)
    fields: list[tuple[int, str, float]] = [(0, "u32", codes.index(code))]
    if op.kind in _OPTIONS_TYPE:
        options = _options(w, op.kind, op.options, graph.tensors[op.output].shape)
        fields += [(3, "u8", _OPTIONS_TYPE[op.kind]), (4, "offset", options)]
    ins, outs = w.vector(op.inputs, "<i4"), w.vector([op.output], "<i4")
    return w.table(*fields, (1, "offset", ins), (2, "offset", outs))


def _options(  # noqa: PLR0911 (a return an operator)
    w: _Writer, kind: Kind, o: Options, output_shape: tuple[int, ...]
) -> int:
    act, window = o.activation, ((0, "i8", o.padding), (1, "i32", o.stride[1]), (2, "i32", o.stride[0]))
    dilation = o.dilation[1], o.dilation[0]
    if kind is Kind.CONV_2D:
        return w.table(*window, (3, "i8", act), (4, "i32", dilation[0], 1), (5, "i32", dilation[1], 1))
    if kind is Kind.DEPTHWISE_CONV_2D:
        depth = (3, "i32", o.depth_multiplier)
        return w.table(*window, depth, (4, "i8", act), (5, "i32", dilation[0], 1), (6, "i32", dilation[1], 1))
    if kind in (Kind.AVERAGE_POOL_2D, Kind.MAX_POOL_2D):
        return w.table(*window, (3, "i32", o.filter[1]), (4, "i32", o.filter[0]), (5, "i8", act))
    if kind is Kind.SOFTMAX:
        return w.table((0, "f32", o.beta))
    if kind is Kind.RESHAPE:
        return w.table((0, "offset", w.vector(output_shape, "<i4")))
    if kind is Kind.MEAN:
        return w.table((0, "bool", o.keep_dims))
    return w.table((0, "i8", act))  # FULLY_CONNECTED, ADD
