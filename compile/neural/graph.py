"""The intermediate form: a list of operators over tensors, in float32 before quantisation and in int8 after.

Operators are named and laid out as in the TFLite schema (schema.fbs, operator semantics of version 2.14): activations
are batch x height x width x channels, a 1-D signal has height 1, convolution weights are out x height x width x in,
depthwise weights 1 x height x width x out, dense weights out x in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import BadInput

Array = NDArray[Any]


class Kind(IntEnum):
    """Operators, numbered as in the schema's BuiltinOperator; BATCH_NORM exists only before folding."""

    ADD = 0
    AVERAGE_POOL_2D = 1
    CONV_2D = 3
    DEPTHWISE_CONV_2D = 4
    DEQUANTIZE = 6
    FULLY_CONNECTED = 9
    LOGISTIC = 14
    MAX_POOL_2D = 17
    RELU = 19
    RELU6 = 21
    RESHAPE = 22
    SOFTMAX = 25
    TANH = 28
    PAD = 34
    MEAN = 40
    SQUEEZE = 43
    EXPAND_DIMS = 70
    QUANTIZE = 114
    BATCH_NORM = 1000


class Activation(IntEnum):
    """Activations that an operator may carry, numbered as in the schema's ActivationFunctionType."""

    NONE = 0
    RELU = 1
    RELU_N1_TO_1 = 2
    RELU6 = 3


class Padding(IntEnum):
    """The schema's Padding."""

    SAME = 0
    VALID = 1


@dataclass(slots=True)
class Tensor:
    """One tensor.

    dtype: float32, int8, int16 or int32.
    data: its values where it is constant.
    scale: one float32, or one a channel along `axis`; None where the tensor is not quantised.
    zero_point: of activations; weights are symmetric (0).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    data: Array | None = None
    scale: NDArray[np.float32] | None = None
    zero_point: int = 0
    axis: int = 0

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def step(self) -> float:
        """The one scale of an activation, as the float32 that the file holds."""
        if self.scale is None or len(self.scale) != 1:
            raise BadInput(f"tensor {self.name!r}: has no single scale; quantise the whole model to int8")
        return float(self.scale[0])


@dataclass(frozen=True, slots=True)
class Options:
    """What an operator declares; each reads the fields that concern it. Pairs are (height, width)."""

    activation: Activation = Activation.NONE
    padding: Padding = Padding.VALID
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    filter: tuple[int, int] = (1, 1)
    depth_multiplier: int = 1
    beta: float = 1.0
    keep_dims: bool = False
    epsilon: float = 0.0


@dataclass(frozen=True, slots=True)
class Op:
    """One operator: indices of its tensors, its options, and the name it had in the source model."""

    kind: Kind
    inputs: tuple[int, ...]
    output: int
    options: Options = field(default_factory=Options)
    source: str = ""


@dataclass(slots=True)
class Graph:
    """A network with one input and one output; operators in the order of execution.

    gain, offset: where they are set, the input is a feature vector and the network takes
        `features * gain + offset`, so that features of all sizes share one int8 scale.
    """

    tensors: list[Tensor]
    ops: list[Op]
    input: int
    output: int
    description: str = ""
    gain: NDArray[np.float32] | None = None
    offset: NDArray[np.float32] | None = None

    def add(self, tensor: Tensor) -> int:
        """Append a tensor; gives its index."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(self, name: str, data: Array) -> int:
        """Append a constant of the array's own type."""
        return self.add(Tensor(name, tuple(data.shape), str(data.dtype), np.ascontiguousarray(data)))

    def data(self, index: int) -> Array:
        """Values of a constant. Raises BadInput where the tensor is computed."""
        tensor = self.tensors[index]
        if tensor.data is None:
            raise BadInput(
                f"tensor {tensor.name!r}: is computed where a constant is needed; fix it before exporting the model"
            )
        return tensor.data

    def copy(self) -> Graph:
        """A graph whose tensors and lists may be changed without touching this one; constants are shared."""
        tensors = [replace(t) for t in self.tensors]
        return replace(self, tensors=tensors, ops=list(self.ops))

    def consumers(self, index: int) -> Iterator[Op]:
        """The operators that read a tensor."""
        return (op for op in self.ops if index in op.inputs)

    def dump(self) -> str:
        """The graph as text, a line an operator: for people and for tests."""
        rows = []
        for op in self.ops:
            ins = ", ".join(_brief(self.tensors[i]) for i in op.inputs if i >= 0)
            rows.append(f"{op.kind.name:18} {ins} -> {_brief(self.tensors[op.output])}")
        return "\n".join(rows)


def _brief(t: Tensor) -> str:
    mark = "" if t.data is None else "="
    return f"{mark}{t.dtype}{list(t.shape)}"


def window_output(size: int, window: int, stride: int, dilation: int, padding: Padding) -> int:
    """Output length of a sliding window along one axis (TFLite's ComputeOutSize)."""
    span = (window - 1) * dilation + 1
    if padding is Padding.SAME:
        return (size + stride - 1) // stride
    return (size + stride - span) // stride


def window_padding(size: int, window: int, stride: int, dilation: int, output: int) -> tuple[int, int]:
    """Zeros before and after along one axis (TFLite's ComputePadding: an odd one after)."""
    span = (window - 1) * dilation + 1
    total = max((output - 1) * stride + span - size, 0)
    return total // 2, total - total // 2


@dataclass(frozen=True, slots=True)
class Window:
    """Geometry of a sliding window over one batch x height x width x channels tensor."""

    height: int
    width: int
    channels: int
    out_height: int
    out_width: int
    filter: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    top: int
    bottom: int
    left: int
    right: int


def window(graph: Graph, op: Op) -> Window:
    """The geometry of a convolution or pooling operator."""
    _, h, w, c = graph.tensors[op.inputs[0]].shape
    o = op.options
    convolves = op.kind in (Kind.CONV_2D, Kind.DEPTHWISE_CONV_2D)
    size = graph.tensors[op.inputs[1]].shape[1:3] if convolves else o.filter
    oh = window_output(h, size[0], o.stride[0], o.dilation[0], o.padding)
    ow = window_output(w, size[1], o.stride[1], o.dilation[1], o.padding)
    top, bottom = window_padding(h, size[0], o.stride[0], o.dilation[0], oh)
    left, right = window_padding(w, size[1], o.stride[1], o.dilation[1], ow)
    return Window(h, w, c, oh, ow, (size[0], size[1]), o.stride, o.dilation, top, bottom, left, right)
