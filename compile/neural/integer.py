"""The steps of a lowered network: integers only. What the numpy executor runs and the C emitter writes.

`src` and `dst` are tensor indices after aliases (RESHAPE and its like) are resolved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compile.neural.graph import Kind, Tensor, Window

I8 = NDArray[np.int8]
I32 = NDArray[np.int32]
F32 = NDArray[np.float32]


@dataclass(slots=True)
class Step:
    """One step: reads buffers `src`, writes buffer `dst` (tensor indices after aliases are resolved)."""

    src: tuple[int, ...]
    dst: int
    source: str
    kind: Kind


@dataclass(slots=True)
class Product(Step):
    """Sums of products: CONV_2D (with its window) and FULLY_CONNECTED (window None).

    weights: out x taps, taps in the order height, width, channel. bias: the input's zero point is folded in.
    ties_up: so many leading channels round a half upwards, the others away from zero.
    rows: how many input rows a dense layer has.
    """

    window: Window | None
    weights: I8
    bias: I32
    mult: I32
    shift: I32
    zero_in: int
    zero_out: int
    low: int
    high: int
    ties_up: int
    rows: int = 1


@dataclass(slots=True)
class Depthwise(Step):
    """DEPTHWISE_CONV_2D. weights: taps x out; bias as in Product."""

    window: Window
    multiplicity: int
    weights: I8
    bias: I32
    mult: I32
    shift: I32
    zero_in: int
    zero_out: int
    low: int
    high: int
    ties_up: int


@dataclass(slots=True)
class Pool(Step):
    """AVERAGE_POOL_2D and MAX_POOL_2D."""

    window: Window
    low: int
    high: int


@dataclass(slots=True)
class Mean(Step):
    """MEAN over height and width: positions x channels to channels; `count` positions.

    The sum of x, less `offset`, is rescaled; `zero_out` is added.
    """

    count: int
    channels: int
    mult: int
    shift: int
    offset: int
    zero_out: int


@dataclass(slots=True)
class Add(Step):
    """ADD of two tensors of one shape: both are raised by 20 bits, brought to one scale, summed, rescaled."""

    size: int
    zero_a: int
    zero_b: int
    mult: tuple[int, int, int]
    shift: tuple[int, int, int]
    zero_out: int
    low: int
    high: int


@dataclass(slots=True)
class Table(Step):
    """A function of one byte: LOGISTIC, TANH, RELU, RELU6. table: index x + 128."""

    size: int
    table: I8


@dataclass(slots=True)
class Softmax(Step):
    """SOFTMAX over the last axis by a table of exp in float32: entry d + 255 is exp(scale * beta * d), d <= 0."""

    rows: int
    depth: int
    table: F32


@dataclass(slots=True)
class Pad(Step):
    """PAD of height, width and channels with the zero point."""

    shape: tuple[int, int, int]
    before: tuple[int, int, int]
    after: tuple[int, int, int]
    zero: int


@dataclass(slots=True)
class Requantise(Step):
    """QUANTIZE to int8 from int16 (`wide`) or int8."""

    size: int
    wide: bool
    zero_in: int
    zero_out: int
    mult: int
    shift: int
    ties_up: int


@dataclass(slots=True)
class Quantise(Step):
    """QUANTIZE from float32 to int8: x / scale, halves away from zero."""

    size: int
    scale: float
    zero: int


@dataclass(slots=True)
class Dequantise(Step):
    """DEQUANTIZE from int8 to float32."""

    size: int
    scale: float
    zero: int


@dataclass(slots=True)
class Plan:
    """The steps of a network.

    output: the buffer that the last step writes. answer: what its steps mean, which a RESHAPE may have renamed.
    """

    steps: list[Step]
    tensors: list[Tensor]
    input: int
    output: int
    answer: Tensor
