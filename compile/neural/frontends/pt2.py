"""A program that torch.export made: the form that the front end reads, and how it is found in a .pt2 file.

A .pt2 archive is a zip: models/model.json is the program, data/weights/model_weights_config.json says where each
parameter's raw bytes lie. Both are read without torch. Source: torch/export/pt2_archive (constants.py) and
torch/_export/serde/schema.yaml, as torch 2.13 writes them; older archives hold pickles, which only torch opens.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compile.neural.graph import Array
from edge_runtime.errors import BadInput

_DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f2", 7: "<f4", 8: "<f8", 12: "?"}


@dataclass(frozen=True, slots=True)
class Ref:
    """A tensor by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Node:
    """One call. operator: its name without namespace and overload. arguments: by name; tensors are Refs.

    outputs: names of the tensors that it makes.
    """

    name: str
    operator: str
    arguments: Mapping[str, Any]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """Calls in order. constants: parameters and buffers by their names in the calls. A dynamic dimension is -1."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    input_shape: tuple[int, ...]
    constants: Mapping[str, Array]
    nodes: tuple[Node, ...]


class Older(Exception):
    """The archive is of a layout that only torch itself opens."""


def read(path: Path) -> Program:
    """The program of a .pt2 file. Raises Older, and BadInput where the file is damaged or none."""
    try:
        with zipfile.ZipFile(path) as z:
            return _Archive(z).program()
    except OSError as e:
        raise BadInput(f"{path}: {e.strerror or e}; give a .pt2 file") from e
    except (
        zipfile.BadZipFile,
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        AttributeError,
        OverflowError,
    ) as e:
        raise BadInput(
            f"{path}: is no archive of torch.export.save, or a damaged one ({type(e).__name__}); save it again"
        ) from e
    except (NotImplementedError, RuntimeError, EOFError, zipfile.zlib.error) as e:  # type: ignore[attr-defined]
        raise BadInput(f"{path}: cannot be unpacked ({type(e).__name__}); save it again") from e


class _Archive:
    def __init__(self, z: zipfile.ZipFile) -> None:
        self._z = z
        names = z.namelist()
        models = [n for n in names if n.endswith("/models/model.json")]
        if not models:
            if any("serialized_exported_program" in n for n in names):
                raise Older
            raise KeyError("models/model.json")
        self._root = models[0].removesuffix("models/model.json")
        self._model = json.loads(z.read(models[0]))
        if z.read(self._root + "byteorder") != b"little":
            raise ValueError("byte order")

    def program(self) -> Program:
        module = self._model["graph_module"]
        graph, signature = module["graph"], module["signature"]
        inputs = [s["user_input"]["arg"] for s in signature["input_specs"] if "user_input" in s]
        outputs = [s["user_output"]["arg"] for s in signature["output_specs"] if "user_output" in s]
        names = tuple(_tensor_name(a) for a in inputs)
        sizes = graph["tensor_values"][names[0]]["sizes"] if len(names) == 1 else []
        return Program(
            names,
            tuple(_tensor_name(a) for a in outputs),
            tuple(s.get("as_int", -1) for s in sizes),
            self._constants(signature),
            tuple(map(_node, graph["nodes"])),
        )

    def _constants(self, signature: Mapping[str, Any]) -> dict[str, Array]:
        places = self._config("weights") | self._config("constants")
        found = {}
        for spec in signature["input_specs"]:
            for kind, key in (
                ("parameter", "parameter_name"),
                ("buffer", "buffer_name"),
                ("tensor_constant", "tensor_constant_name"),
            ):
                if kind in spec and spec[kind][key] in places:
                    found[spec[kind]["arg"]["name"]] = self._array(*places[spec[kind][key]])
        return found

    def _config(self, kind: str) -> dict[str, tuple[str, Mapping[str, Any]]]:
        folder = f"{self._root}data/{kind}/"
        config = json.loads(self._z.read(f"{folder}model_{kind}_config.json"))["config"]
        return {name: (folder + entry["path_name"], entry) for name, entry in config.items()}

    def _array(self, path: str, entry: Mapping[str, Any]) -> Array:
        if entry["use_pickle"]:
            raise Older
        meta = entry["tensor_meta"]
        kind = _DTYPES.get(meta["dtype"])
        if kind is None:
            raise ValueError("type of a weight")
        flat = np.frombuffer(self._z.read(path), kind)
        shape, strides = ([int(v["as_int"]) for v in meta[key]] for key in ("sizes", "strides"))
        first = int(meta["storage_offset"]["as_int"])
        last = first + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        if min([first, *shape, *strides]) < 0 or (0 not in shape and last >= len(flat)):
            raise ValueError("a weight beyond its bytes")
        steps = [s * flat.itemsize for s in strides]
        return np.array(np.lib.stride_tricks.as_strided(flat[first:], shape, steps))


def _tensor_name(argument: Mapping[str, Any]) -> str:
    return str(argument["as_tensor"]["name"])


def _node(node: Mapping[str, Any]) -> Node:
    outputs = tuple(o["as_tensor"]["name"] for o in node["outputs"] if "as_tensor" in o)
    operator = str(node["target"]).split("::")[-1].removeprefix("torch.ops.").split(".")
    arguments = {a["name"]: _value(a["arg"]) for a in node["inputs"]}
    return Node(node["name"] or outputs[0], operator[min(1, len(operator) - 1)], arguments, outputs)


def _value(argument: Mapping[str, Any]) -> Any:
    (kind, value), *_ = argument.items()
    if kind == "as_none":
        return None
    return Ref(value["name"]) if kind == "as_tensor" else value
