"""Keras 3 models, read from the .keras archive itself: its JSON for the layers, its HDF5 for the weights.

Neither Keras nor TensorFlow is imported; h5py opens the weights. Channels-last models, Sequential or Functional.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from compile.neural.frontends.builder import Builder, Pair
from compile.neural.graph import Array, Graph, Kind, Padding
from edge_runtime.errors import BadInput

_NOTHING = (
    "Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout", "Identity",
    "ActivityRegularization",
)  # fmt: skip
_NEAREST = {
    "LSTM": "Conv1D over the time axis",
    "GRU": "Conv1D over the time axis",
    "SimpleRNN": "Conv1D over the time axis",
    "Bidirectional": "Conv1D over the time axis",
    "LayerNormalization": "BatchNormalization",
    "GroupNormalization": "BatchNormalization",
    "UnitNormalization": "BatchNormalization",
    "LeakyReLU": "ReLU",
    "PReLU": "ReLU",
    "ELU": "ReLU",
    "Conv1DTranspose": "Conv1D",
    "Conv2DTranspose": "Conv2D",
    "Concatenate": "Add",
    "Multiply": "Add",
    "MultiHeadAttention": "GlobalAveragePooling1D",
    "UpSampling1D": "Conv1D",
    "Permute": "a model built channels last",
}


def read(path: Path) -> Graph:
    """The float graph of a .keras file. Raises BadInput: no such archive, or a layer that is not supported."""
    try:
        with zipfile.ZipFile(path) as z:
            config = json.loads(z.read("config.json"))
            weights = z.read("model.weights.h5")
    except (OSError, KeyError, zipfile.BadZipFile, ValueError) as e:
        raise BadInput(
            f"{path}: is no .keras archive ({e}); save the model with model.save('x.keras')"
        ) from e
    return _Reader(config, _Weights(weights, path), str(path)).graph()


class _Weights:
    """The HDF5 file's arrays, by the layer's place in the archive."""

    def __init__(self, data: bytes, path: Path) -> None:
        try:
            import h5py  # noqa: PLC0415 (only this front end needs it)
        except ImportError as e:
            raise BadInput(
                f"{path}: the weights are HDF5; pip install h5py, or export the model to ONNX"
            ) from e
        try:
            with h5py.File(io.BytesIO(data), "r") as f:
                self._arrays: dict[str, Array] = {}
                f.visititems(self._keep)
        except OSError as e:
            raise BadInput(f"{path}: its weights are damaged ({e}); save the model again") from e

    def _keep(self, name: str, item: Any) -> None:
        if hasattr(item, "shape"):
            self._arrays[name] = np.asarray(item[()], np.float32)

    def of(self, place: str) -> list[Array]:
        """The arrays under a layer's place, in the order that the layer made them."""
        pattern = re.compile(rf"(?:layers|_layer_checkpoint_dependencies)/{re.escape(place)}/vars/(\d+)$")
        found = [(int(m[1]), a) for name, a in self._arrays.items() if (m := pattern.search(name))]
        return [a for _, a in sorted(found, key=lambda pair: pair[0])]


def _snake(name: str) -> str:
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _pair(value: int | list[int], rank: int) -> Pair:
    sizes = [value] * rank if isinstance(value, int) else list(value)
    return (1, sizes[0]) if rank == 1 else (sizes[0], sizes[1])


class _Reader:
    def __init__(self, config: dict[str, Any], weights: _Weights, where: str) -> None:
        if config.get("class_name") not in ("Sequential", "Functional", "Model"):
            raise BadInput(
                f"{where}: a {config.get('class_name')} model; save a Sequential or Functional one"
            )
        self.config, self.weights, self.b = config["config"], weights, Builder(where)
        self.functional = config["class_name"] != "Sequential"

    def graph(self) -> Graph:
        outputs: dict[str, int] = {}
        used: dict[str, int] = {}
        last = -1
        for layer in self.config["layers"]:
            kind, c = layer["class_name"], layer["config"]
            place = _snake(kind)
            used[place] = used.get(place, -1) + 1
            place = f"{place}_{used[place]}" if used[place] else place
            ins = [outputs[n] for n in _inbound(layer)] if self.functional else [last]
            last = self._layer(kind, c, place, ins)
            outputs[c["name"]] = last
        if self.functional:
            named = self.config["output_layers"]
            last = outputs[named[0] if isinstance(named[0], str) else named[0][0]]
        if last < 0:
            raise BadInput(f"{self.b.where}: has no layer")
        return self.b.finish(last)

    def _layer(self, kind: str, c: dict[str, Any], place: str, ins: list[int]) -> int:
        name = c["name"]
        if kind == "InputLayer":
            return self.b.input(tuple((c.get("batch_shape") or c["batch_input_shape"])[1:]))
        if ins[0] < 0:
            shape = c.get("batch_input_shape") or self.config.get("build_input_shape")
            if not shape:
                raise BadInput(f"{self.b.where}: has no input shape; add keras.Input to the model")
            ins = [self.b.input(tuple(shape[1:]))]
        if c.get("data_format") == "channels_first":
            raise self.b.refuse(name, f"{kind} channels first", f"{kind} channels last")
        if kind in _NOTHING:
            return ins[0]
        method = self._METHODS.get(re.sub(r"\dD$", "", kind))
        if method is None:
            raise self.b.refuse(name, kind, _NEAREST.get(kind, "Dense, Conv1D, Conv2D and pooling layers"))
        rank = int(kind[-2]) if re.search(r"[12]D$", kind) else 0
        return method(self, c, self.weights.of(place) or self.weights.of(name), ins, rank)

    def _act(self, x: int, c: dict[str, Any]) -> int:
        kind = c.get("activation")
        if isinstance(kind, dict):
            kind = kind.get("config", {}).get("name") or kind.get("class_name")
        return self.b.activation(x, kind, c["name"] + "/activation")

    def _dense(self, c: dict[str, Any], w: list[Array], ins: list[int], rank: int) -> int:
        return self._act(self.b.dense(ins[0], w[0].T, _at(w, 1), c["name"]), c)

    def _window(self, c: dict[str, Any], rank: int, x: int) -> tuple[int, dict[str, Any]]:
        stride, dilation = _pair(c["strides"], rank), _pair(c.get("dilation_rate", 1), rank)
        if c["padding"] == "causal":
            reach = (_pair(c["kernel_size"], rank)[1] - 1) * dilation[1]
            return x, {"stride": stride, "dilation": dilation, "pads": ((0, 0), (reach, 0))}
        return x, {"stride": stride, "dilation": dilation, "pads": Padding[c["padding"].upper()]}

    def _conv(self, c: dict[str, Any], w: list[Array], ins: list[int], rank: int) -> int:
        if c.get("groups", 1) != 1:
            raise self.b.refuse(c["name"], "grouped convolution", "DepthwiseConv1D, or groups=1")
        x, o = self._window(c, rank, ins[0])
        kernel = w[0][None] if rank == 1 else w[0]
        return self._act(self.b.conv(x, kernel.transpose(3, 0, 1, 2), _at(w, 1), c["name"], **o), c)

    def _depthwise(self, c: dict[str, Any], w: list[Array], ins: list[int], rank: int) -> int:
        x, o = self._window(c, rank, ins[0])
        return self._act(
            self.b.conv(x, _per_channel(w[0], rank), _at(w, 1), c["name"], depthwise=True, **o), c
        )

    def _separable(self, c: dict[str, Any], w: list[Array], ins: list[int], rank: int) -> int:
        x, o = self._window(c, rank, ins[0])
        x = self.b.conv(x, _per_channel(w[0], rank), None, c["name"] + "/depthwise", depthwise=True, **o)
        point = (w[1][None] if rank == 1 else w[1]).transpose(3, 0, 1, 2)
        return self._act(self.b.conv(x, point, _at(w, 2), c["name"]), c)

    def _batch_norm(self, c: dict[str, Any], w: list[Array], ins: list[int], rank: int) -> int:
        rest = list(w)
        gamma = rest.pop(0) if c["scale"] else None
        beta = rest.pop(0) if c["center"] else None
        return self.b.batch_norm(ins[0], gamma, beta, rest[0], rest[1], c["epsilon"], c["name"])

    def _rescaling(self, c: dict[str, Any], w: list[Array], ins: list[int], rank: int) -> int:
        n = self.b.shape(ins[0])[-1]
        return self.b.scale(ins[0], np.full(n, c["scale"]), np.full(n, c["offset"]), c["name"])

    def _activation(self, c: dict[str, Any], w: list[Array], ins: list[int], rank: int) -> int:
        return self._act(ins[0], c)

    def _relu(self, c: dict[str, Any], w: list[Array], ins: list[int], rank: int) -> int:
        if c.get("negative_slope") or c.get("threshold") or c.get("max_value") not in (None, 6, 6.0):
            raise self.b.refuse(c["name"], "ReLU with a slope, threshold or other maximum", "ReLU or ReLU(6)")
        return self.b.unary(ins[0], Kind.RELU6 if c.get("max_value") else Kind.RELU, c["name"])

    def _softmax(self, c: dict[str, Any], w: list[Array], ins: list[int], rank: int) -> int:
        return self.b.unary(ins[0], Kind.SOFTMAX, c["name"])

    def _pool(self, kind: Kind) -> Callable[[dict[str, Any], list[int], int], int]:
        def pool(c: dict[str, Any], ins: list[int], rank: int) -> int:
            size = _pair(c["pool_size"], rank)
            stride = _pair(c["strides"] or c["pool_size"], rank)
            return self.b.pool(ins[0], kind, size, stride, c["name"], Padding[c["padding"].upper()])

        return pool

    def _max_pool(self, c: dict[str, Any], w: list[Array], ins: list[int], rank: int) -> int:
        return self._pool(Kind.MAX_POOL_2D)(c, ins, rank)

    def _average_pool(self, c: dict[str, Any], w: list[Array], ins: list[int], rank: int) -> int:
        return self._pool(Kind.AVERAGE_POOL_2D)(c, ins, rank)

    def _global_average(self, c: dict[str, Any], w: list[Array], ins: list[int], rank: int) -> int:
        return self.b.global_average(ins[0], c["name"])

    def _global_max(self, c: dict[str, Any], w: list[Array], ins: list[int], rank: int) -> int:
        return self.b.global_max(ins[0], c["name"])

    def _add(self, c: dict[str, Any], w: list[Array], ins: list[int], rank: int) -> int:
        x = ins[0]
        for n, other in enumerate(ins[1:]):
            x = self.b.add(x, other, c["name"] if n == len(ins) - 2 else f"{c['name']}/{n}")
        return x

    def _flatten(self, c: dict[str, Any], w: list[Array], ins: list[int], rank: int) -> int:
        return self.b.reshape(ins[0], (1, int(np.prod(self.b.shape(ins[0])))), c["name"])

    def _reshape(self, c: dict[str, Any], w: list[Array], ins: list[int], rank: int) -> int:
        shape = [int(d) for d in c["target_shape"]]
        total = int(np.prod(self.b.shape(ins[0])))
        known = int(np.prod([d for d in shape if d > 0]))
        dims = tuple(total // known if d < 0 else d for d in shape)
        return self.b.reshape(ins[0], (1, 1, *dims) if len(dims) == 2 else (1, *dims), c["name"])

    def _zero_padding(self, c: dict[str, Any], w: list[Array], ins: list[int], rank: int) -> int:
        p = c["padding"]
        both = [p, p] if isinstance(p, int) else list(p)
        if rank == 1:
            return self.b.pad(ins[0], ((0, 0), (both[0], both[1])), c["name"])
        rows = [(v, v) if isinstance(v, int) else (v[0], v[1]) for v in both]
        return self.b.pad(ins[0], (rows[0], rows[1]), c["name"])

    _METHODS: ClassVar[dict[str, Callable[[_Reader, dict[str, Any], list[Array], list[int], int], int]]] = {
        "Dense": _dense,
        "Conv": _conv,
        "DepthwiseConv": _depthwise,
        "SeparableConv": _separable,
        "BatchNormalization": _batch_norm,
        "Rescaling": _rescaling,
        "Activation": _activation,
        "ReLU": _relu,
        "Softmax": _softmax,
        "MaxPooling": _max_pool,
        "AveragePooling": _average_pool,
        "GlobalAveragePooling": _global_average,
        "GlobalMaxPooling": _global_max,
        "Add": _add,
        "Flatten": _flatten,
        "Reshape": _reshape,
        "ZeroPadding": _zero_padding,
    }


def _at(w: list[Array], n: int) -> Array | None:
    return w[n] if len(w) > n else None


def _per_channel(kernel: Array, rank: int) -> Array:
    """A depthwise kernel, (height,) width x channels x multiplier, as 1 x height x width x outputs."""
    k = kernel[None] if rank == 1 else kernel
    return k.reshape(1, k.shape[0], k.shape[1], -1)


def _inbound(layer: dict[str, Any]) -> list[str]:
    """Names of the layers whose outputs a Functional model's layer takes."""
    names: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if value.get("class_name") == "__keras_tensor__":
                names.append(value["config"]["keras_history"][0])
            else:
                for v in value.values():
                    walk(v)
        elif isinstance(value, list):
            for v in value:
                walk(v)

    walk(layer.get("inbound_nodes", []))
    return names
