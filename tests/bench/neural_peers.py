"""The other runtimes of bench_neural: environments, their form of the MLP, emlearn's C; what failed, as it failed.

Peers live in environments of their own under the cache, so that none changes what this project runs on. A peer that
cannot be had or run gives a note with the trial's own last line, never a figure.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from compile import elf
from compile.emulate import Machine, Out
from compile.neural.graph import Array, Graph, Kind
from compile.targets import TARGETS, Form, Target
from compile.toolchain import build, image
from edge_runtime.cache import cache_dir
from edge_runtime.errors import EdgeError

REQUIREMENTS = {
    "ai_edge_litert": "ai-edge-litert==2.3.0",
    "onnxruntime": "onnxruntime==1.32.0",
    "tflite_micro": "tflite-micro",
    "emlearn": "emlearn==0.23.2",
}
COUNTED = {
    "tflite-runtime": ("tflite-runtime",),
    "ai-edge-litert": ("ai-edge-litert==2.3.0", "ai-edge-litert==2.1.6"),
    "onnxruntime": ("onnxruntime==1.32.0", "onnxruntime==1.23.2"),
    "tflite-micro": ("tflite-micro",),
}
"""Backends with what to try on aarch64, in turn: QEMU 7.2 ends the newest of two with a segmentation fault."""


@dataclass
class Peers:
    """Pythons by the module they are for, and why one has none."""

    pythons: dict[str, Path] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def python(self, module: str) -> Path | None:
        """The interpreter of an environment with `module`, made at first need."""
        if module not in self.pythons and module not in self.missing:
            folder = cache_dir("bench-neural") / module
            python = folder / "bin/python"
            trial = python if python.exists() else self._make(folder, module)
            if trial is not None and _last_line([str(trial), "-c", f"import {module}"], module, self.missing):
                self.pythons[module] = trial
        return self.pythons.get(module)

    def _make(self, folder: Path, module: str) -> Path | None:
        if not _last_line([sys.executable, "-m", "venv", str(folder)], module, self.missing):
            return None
        python = folder / "bin/python"
        install = [
            str(python),
            "-m",
            "pip",
            "install",
            "-q",
            "--only-binary=:all:",
            REQUIREMENTS[module],
            "numpy<2",
        ]
        return python if _last_line(install, module, self.missing) else None


def _last_line(command: Sequence[str], name: str, notes: dict[str, str]) -> bool:
    """Run; where it fails its last line becomes the note."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr + done.stdout).strip().splitlines() or [f"ended with {done.returncode}"]
        notes[name] = f"{Path(command[0]).name} {' '.join(command[1:4])}: {said[-1]}"
    return done.returncode == 0


def layers(graph: Graph) -> list[tuple[Array, Array]]:
    """(weights outputs x inputs, biases) of a float MLP."""
    return [
        (graph.data(op.inputs[1]), graph.data(op.inputs[2]))
        for op in graph.ops
        if op.kind is Kind.FULLY_CONNECTED
    ]


def onnx(graph: Graph) -> bytes:
    """The MLP (ReLU between layers, softmax at the end) as an ONNX file, written by hand: Gemm, Relu, Softmax."""
    nodes, constants, x = b"", b"", "x"
    made = layers(graph)
    for n, (w, b) in enumerate(made):
        constants += _message(5, _tensor(f"w{n}", w)) + _message(5, _tensor(f"b{n}", b))
        transposed = _text(1, "transB") + _number(3, 1) + _number(20, 2)
        nodes += _message(1, _node("Gemm", [x, f"w{n}", f"b{n}"], f"g{n}") + _message(5, transposed))
        last = n == len(made) - 1
        x = "y" if last else f"r{n}"
        nodes += _message(1, _node("Softmax" if last else "Relu", [f"g{n}"], x))
    ends = _message(11, _value("x", made[0][0].shape[1])) + _message(12, _value("y", made[-1][0].shape[0]))
    body = nodes + _text(2, "mlp") + constants + ends
    return _number(1, 8) + _message(7, body) + _message(8, _number(2, 13))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _number(field_number: int, value: int) -> bytes:
    return _varint(field_number << 3) + _varint(value)


def _message(field_number: int, payload: bytes) -> bytes:
    return _varint(field_number << 3 | 2) + _varint(len(payload)) + payload


def _text(field_number: int, text: str) -> bytes:
    return _message(field_number, text.encode())


def _tensor(name: str, data: Array) -> bytes:
    dims = b"".join(_number(1, d) for d in data.shape)
    return dims + _number(2, 1) + _text(8, name) + _message(9, data.astype("<f4").tobytes())


def _node(kind: str, inputs: Sequence[str], output: str) -> bytes:
    return b"".join(_text(1, i) for i in inputs) + _text(2, output) + _text(3, output) + _text(4, kind)


def _value(name: str, size: int) -> bytes:
    dims = b"".join(_message(1, _number(1, d)) for d in (1, size))
    return _text(1, name) + _message(2, _message(1, _number(1, 1) + _message(2, dims)))


_EMLEARN = """
import sys
import numpy as np
from emlearn import net
with np.load(sys.argv[1]) as z:
    n = len(z.files) // 2
    weights, biases = [z[f"w{i}"].T for i in range(n)], [z[f"b{i}"] for i in range(n)]
kinds = ["relu"] * (n - 1) + ["softmax"]
if sys.argv[2] == "fixed-point":
    print(net.c_generate_net_inline(kinds, weights, biases, prefix="mlp", use_fixedpoint=True))
else:
    print(net.c_generate_net_loadable(kinds, weights, biases, "mlp"))
"""
_ENTRY = """
__attribute__((visibility("default"))) int edge_network(const float *x, float *y) {
    float one[64], two[64];
    EmlNet net = {3, mlp_layers, one, two, 64};
    return eml_net_predict_proba(&net, x, 64, y, 4);
}
"""
_LIBC = {
    "stdio.h": "#define printf(...) 0\n#define fprintf(...) 0\n#define stderr 0\n",
    "stdlib.h": "",
    "string.h": "",
    "math.h": '#define NAN __builtin_nanf("")\n#define INFINITY __builtin_inff()\n#define fabsf __builtin_fabsf\n'
    + "".join(f"static inline float {f}(float x) {{ return x; }}\n" for f in ("expf", "logf", "tanhf")),
}
"""What a freestanding target lacks. exp and log are the identity: the four of the softmax are not counted."""
_AARCH64 = Target("aarch64", "aarch64-freestanding", "cortex_a53", Form.FREESTANDING, "aarch64")


_CONVOLUTION = """
import emlearn
class Conv1D: pass
class Sequential: layers = [Conv1D()]
emlearn.convert(Sequential(), method="loadable")
"""


def emlearn_on_convolutions(peers: Peers) -> str:
    """What emlearn says to a Keras model with a convolution."""
    python = peers.python("emlearn")
    if python is None:
        return peers.missing["emlearn"]
    done = subprocess.run([str(python), "-c", _CONVOLUTION], capture_output=True, text=True, check=False)
    return f"emlearn: {(done.stderr.strip().splitlines() or ['takes it, though it did not'])[-1]}"


class Emlearn:
    """The MLP as emlearn's C, in float; its fixed-point form is tried too."""

    def __init__(self, peers: Peers, graph: Graph, folder: Path) -> None:
        self.note, self.fixed_point = "", ""
        self._folder, self._text = folder, ""
        python = peers.python("emlearn")
        if python is None:
            self.note = peers.missing["emlearn"]
            return
        arrays = {
            f"{k}{n}": v for n, pair in enumerate(layers(graph)) for k, v in zip("wb", pair, strict=True)
        }
        np.savez(folder / "mlp.npz", **arrays)  # type: ignore[arg-type]
        given = [str(python), "-c", _EMLEARN, str(folder / "mlp.npz")]
        done = subprocess.run([*given, "float"], capture_output=True, text=True, check=False)
        if done.returncode:
            self.note = f"emlearn: {done.stderr.strip().splitlines()[-1]}"
            return
        # Its own predict functions and static buffers go: ours keeps the buffers on the stack, as all here do.
        self._text = done.stdout.split("static EmlNet mlp =")[0].replace(
            "static float mlp_buf", "extern float mlp_buf"
        )
        fixed = subprocess.run([*given, "fixed-point"], capture_output=True, text=True, check=False)
        if fixed.returncode:
            self.fixed_point = f"its fixed-point form: {fixed.stderr.strip().splitlines()[-1]}"
        where = "import emlearn, pathlib; print(pathlib.Path(emlearn.__file__).parent)"
        found = subprocess.run([str(python), "-c", where], capture_output=True, text=True, check=True)
        self._headers = {f.name: f.read_text() for f in Path(found.stdout.strip()).glob("eml_*.h")}

    def library(self) -> Path:
        """A shared library for this machine, with its libm. Raises EdgeError."""
        for name, text in self._headers.items():
            (self._folder / name).write_text(text)
        source, out = self._folder / "emlearn.c", self._folder / "emlearn.so"
        source.write_text(self._text + _ENTRY)
        command = [
            sys.executable,
            "-m",
            "ziglang",
            "cc",
            "-O2",
            "-shared",
            "-fPIC",
            "-w",
            f"-I{self._folder}",
        ]
        done = subprocess.run(
            [*command, str(source), "-o", str(out), "-lm"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise EdgeError(f"emlearn's C: {done.stderr.strip().splitlines()[0]}")
        return out

    def counted(self, name: str, row: Array) -> dict[str, float]:
        """Instructions, stack and flash on aarch64 or cortex-m4. Raises EdgeError."""
        target = _AARCH64 if name == "aarch64" else TARGETS[name]
        sources = {"emlearn.c": self._text + _ENTRY} | self._headers | _LIBC
        artifact = build(sources, target, extra_flags=["-I.", "-w", "-Wno-error"])
        call = Machine(target, artifact, count=True).call(
            "edge_network", row.astype("<f4").tobytes(), Out(16)
        )
        answer = struct.unpack("<4f", call.outputs[0])
        if not all(np.isfinite(answer)):
            raise EdgeError(f"emlearn's C answers {answer}")
        linked = elf.parse(image(artifact, target))
        return {
            "instructions": call.instructions,
            "stack_bytes": call.stack_bytes,
            "flash_bytes": linked.text_bytes + linked.rodata_bytes,
        }
