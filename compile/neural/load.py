"""A network of any library to a graph: which front end takes what."""

from __future__ import annotations

from pathlib import Path

from compile.neural import reader
from compile.neural.frontends import keras, onnx, sklearn, torch
from compile.neural.graph import Graph
from edge_runtime.errors import BadInput

SUFFIXES = (".tflite", ".keras", ".onnx", ".pt2")
READABLE = "a .tflite, .keras, .onnx or .pt2 file, or a torch.export program or scikit-learn MLP"


def takes(model: object) -> bool:
    """Whether a model is a network: by its suffix or first bytes, or by the type of a live object."""
    if isinstance(model, Graph) or sklearn.takes(model) or torch.takes(model):
        return True
    if not isinstance(model, str | Path):
        return False
    path = Path(model)
    return path.suffix.lower() in SUFFIXES or _first_bytes(path)[4:8] == b"TFL3"


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as f:
            return f.read(8)
    except OSError:
        return b""


def load(model: object) -> Graph:
    """The graph of a network: float32, or int8 from a quantised .tflite. Raises BadInput."""
    if isinstance(model, Graph):
        return model
    if sklearn.takes(model):
        return sklearn.read(model)
    if torch.takes(model):
        return torch.read(model)
    if not isinstance(model, str | Path):
        raise BadInput(f"model: a {type(model).__name__} is no network that can be read; give {READABLE}")
    path = Path(model)
    readers = {".keras": keras.read, ".onnx": onnx.read, ".pt2": torch.read_file}
    return readers.get(path.suffix.lower(), reader.read_file)(path)


def is_quantised(graph: Graph) -> bool:
    """Whether a graph computes in int8 already."""
    return any(t.dtype == "int8" and t.data is None for t in graph.tensors)
