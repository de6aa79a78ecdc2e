"""Channels-first layers (PyTorch, ONNX) on the channels-last builder: weights turned, flattened orders remembered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compile.neural.frontends.builder import Builder, Pads, Pair
from compile.neural.graph import Array, Kind, Padding
from edge_runtime.errors import BadInput


def pair(values: Sequence[int] | int, rank: int) -> Pair:
    """(height, width) of a 1-D or 2-D setting."""
    given = [values] if isinstance(values, int) else list(values)
    if len(given) == 1:
        given = given * rank
    return (1, given[0]) if rank == 1 else (given[0], given[1])


class ChannelsFirst:
    """Layers as PyTorch and ONNX count them: batch x channels (x height) x width.

    A tensor that was flattened from several channels and positions lies in another order here; `_order` holds the
    channels-first shape it came from until a dense layer takes it.
    """

    def __init__(self, where: str) -> None:
        self.b = Builder(where)
        self._order: dict[int, tuple[int, int, int]] = {}
        self._rank: dict[int, int] = {}

    def input(self, shape: Sequence[int]) -> int:
        """shape: with the batch, channels first."""
        if any(not isinstance(d, int) or d <= 0 for d in shape[1:]):
            raise BadInput(
                f"{self.b.where}: the input shape {list(shape)} is dynamic; export the model with a fixed one"
            )
        dims = tuple(shape[1:])
        if len(dims) == 2:
            dims = dims[1], dims[0]
        elif len(dims) == 3:
            dims = dims[1], dims[2], dims[0]
        elif len(dims) != 1:
            raise BadInput(
                f"{self.b.where}: the input has {len(shape)} axes; give a vector, a signal or an image"
            )
        x = self.b.input(dims)
        self._rank[x] = len(shape) - 2
        return x

    def rank(self, x: int) -> int:
        """Positions axes of a tensor as the model sees it: 0 of a vector, 1 of a signal, 2 of an image."""
        return self._rank.get(x, 0)

    def shape(self, x: int) -> tuple[int, ...]:
        """Channels-first shape with the batch, as the model sees it."""
        s = self.b.shape(x)
        if self.rank(x) == 0:
            return s
        return (1, s[3], s[2]) if self.rank(x) == 1 else (1, s[3], s[1], s[2])

    def _keep(self, out: int, like: int) -> int:
        self._rank[out] = self.rank(like)
        if like in self._order:
            self._order[out] = self._order[like]
        return out

    def ordered(self, x: int, name: str) -> int:
        """x, where its order is the channels-last one. Raises BadInput where a flatten turned it."""
        if x in self._order:
            raise self.b.refuse(
                name, "a layer after Flatten that is no dense layer", "a dense layer after Flatten"
            )
        return x

    def conv(
        self, x: int, w: Array, b: Array | None, name: str, *, stride: Sequence[int], pads: Pads | Padding,
        dilation: Sequence[int], groups: int,
    ) -> int:  # fmt: skip
        """w: out x in / groups (x height) x width."""
        rank = w.ndim - 2
        if rank not in (1, 2):
            raise self.b.refuse(name, f"{rank}-D convolution", "1-D or 2-D convolution")
        kernel = w[:, :, None] if rank == 1 else w
        channels = self.b.shape(x)[3]
        depthwise = groups == channels and groups > 1
        if groups not in (1, channels):
            raise self.b.refuse(
                name, f"convolution in {groups} groups", "a depthwise convolution, or one group"
            )
        turned = kernel[:, 0].transpose(1, 2, 0)[None] if depthwise else kernel.transpose(0, 2, 3, 1)
        out = self.b.conv(
            self.ordered(x, name), turned, b, name,
            stride=pair(stride, rank), dilation=pair(dilation, rank), pads=pads, depthwise=depthwise,
        )  # fmt: skip
        return self._keep(out, x)

    def dense(self, x: int, w: Array, b: Array | None, name: str) -> int:
        """w: outputs x inputs."""
        if x in self._order:
            c, h, wide = self._order[x]
            w = w.reshape(-1, c, h, wide).transpose(0, 2, 3, 1).reshape(len(w), -1)
        return self.b.dense(x, w, b, name)

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
        """Over the channels."""
        return self._keep(self.b.batch_norm(self.ordered(x, name), gamma, beta, mean, var, epsilon, name), x)

    def unary(self, x: int, kind: Kind, name: str) -> int:
        """RELU, RELU6, LOGISTIC, TANH."""
        return self._keep(self.b.unary(x, kind, name), x)

    def softmax(self, x: int, axis: int, name: str) -> int:
        """Over the channels of a vector."""
        if self.rank(x) or axis not in (1, -1):
            raise self.b.refuse(name, f"softmax over axis {axis} of {self.shape(x)}", "softmax over a vector")
        return self.b.unary(self.ordered(x, name), Kind.SOFTMAX, name)

    def pool(
        self, x: int, kind: Kind, size: Sequence[int], stride: Sequence[int], pads: Pads | Padding, name: str,
        *, count_margins: bool = False,
    ) -> int:  # fmt: skip
        """MAX_POOL_2D or AVERAGE_POOL_2D."""
        rank = self.rank(x)
        sizes, strides = pair(size, rank), pair(stride, rank)
        out = self.b.pool(
            self.ordered(x, name), kind, sizes, strides, name, pads, count_margins=count_margins
        )
        return self._keep(out, x)

    def adaptive_average(self, x: int, size: Sequence[int], name: str) -> int:
        """AdaptiveAvgPool to one position, or to a divisor of the positions."""
        _, h, w, _ = self.b.shape(x)
        out = pair(size, self.rank(x))
        if h % out[0] or w % out[1]:
            raise self.b.refuse(name, f"adaptive pooling of {(h, w)} to {out}", "pooling with a fixed window")
        step = h // out[0], w // out[1]
        return self._keep(self.b.pool(self.ordered(x, name), Kind.AVERAGE_POOL_2D, step, step, name), x)

    def global_average(self, x: int, name: str, *, keep: bool) -> int:
        """Mean over all positions."""
        c = self.b.shape(x)[3]
        out = self.b.global_average(self.ordered(x, name), name)
        if not keep:
            return out
        return self._keep(self.b.reshape(out, (1, 1, 1, c), name + "/kept"), x)

    def global_max(self, x: int, name: str) -> int:
        """Maximum over all positions, which stay as axes of length 1."""
        c = self.b.shape(x)[3]
        out = self.b.global_max(self.ordered(x, name), name)
        return self._keep(self.b.reshape(out, (1, 1, 1, c), name + "/kept"), x)

    def flatten(self, x: int, name: str) -> int:
        """All axes but the batch as one."""
        if self.rank(x) == 0:
            return x
        _, h, w, c = self.b.shape(x)
        out = self.b.reshape(x, (1, h * w * c), name)
        if c > 1 and h * w > 1:
            self._order[out] = (c, h, w)
        return out

    def reshape(self, x: int, shape: Sequence[int], name: str) -> int:
        """To a vector, or axes of length 1 added or removed without moving a value."""
        total = int(np.prod(self.shape(x)))
        known = int(np.prod([d for d in shape if d > 0]))
        dims = [total // known if d < 0 else d for d in shape]
        if dims == list(self.shape(x)):
            return x
        if len(dims) == 2 and dims[0] == 1:
            return self.flatten(x, name)
        if len(dims) in (3, 4) and dims[0] == 1:
            from_vector = self.rank(x) == 0 and (dims[1] == 1 or int(np.prod(dims[2:])) == 1)
            same = [d for d in dims[1:] if d > 1] == [d for d in self.shape(x)[1:] if d > 1] and dims[
                1
            ] == self.shape(x)[1]
            if from_vector or same:
                inner = (1, 1, dims[2], dims[1]) if len(dims) == 3 else (1, dims[2], dims[3], dims[1])
                out = self.b.reshape(self.ordered(x, name), inner, name)
                self._rank[out] = len(dims) - 2
                return out
        raise self.b.refuse(name, f"reshape of {list(self.shape(x))} to {dims}", "Flatten")

    def pad(self, x: int, pads: Pads, name: str) -> int:
        """Zeros around the positions."""
        return self._keep(self.b.pad(self.ordered(x, name), pads, name), x)

    def add(self, a: int, b: int, name: str) -> int:
        """Residual addition."""
        return self._keep(self.b.add(a, b, name), a)
