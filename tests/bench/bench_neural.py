"""Small networks: the emitted C beside the interpreters, on the host's clock and in counted instructions.

Two networks: the demo's 1-D CNN over a sweep, and an MLP 64-64-32-4. Every backend runs alone in a process (some of
them crash in one another's company), fed the same row. Peers are installed into environments of their own at first
need; what one cannot do stands as a note in the trial's own words. Then 2,000 inputs prove the bits on every target.

Microseconds are the fastest of forty blocks on this machine; instructions are user-space ones: of the interpreters'
real aarch64 wheels under QEMU between two marks, of C on an emulated Cortex-A53, Cortex-M4F, others. The wheels are
counted twice, as a Cortex-A53 and as a CPU with dot-product instructions, which they use and the emitted C does not;
goals are held against the lower count. No board is involved.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compile import elf
from compile.demo.run import HERE, PIPELINE, RECORDINGS
from compile.emulate import Machine, Out
from compile.features import features_to_npz
from compile.matrix import Matrix
from compile.neural import cost, emit
from compile.neural.frontends.builder import Builder
from compile.neural.graph import Array, Graph
from compile.neural.network import Network, Rows, prepare
from compile.neural.quantise import ScanInput
from compile.pipeline import Pipeline
from compile.targets import TARGETS, target
from compile.toolchain import build, image
from edge_runtime.energy_ci import userland
from edge_runtime.energy_ci.guest import Guest
from edge_runtime.errors import EdgeError
from edge_runtime.recording import Recording, Split
from tests.bench.bench_loop import CONSTRAINTS, ROOT, goal
from tests.bench.neural_peers import COUNTED, Emlearn, Peers, emlearn_on_convolutions, onnx
from tests.bench.neural_proof import SCANS, proofs

PEER = Path(__file__).with_name("network_peer.py")
ONNX = HERE / "network.onnx"
A53, DOTPROD = "cortex-a53", "max"
REPEATS_HOST, REPEATS_GUEST = 50, 5
BACKENDS = {
    "tflite-runtime": "tflite_runtime",
    "ai-edge-litert": "ai_edge_litert",
    "ai-edge-litert-delegate": "ai_edge_litert",
    "tflite-micro": "tflite_micro",
    "onnxruntime": "onnxruntime",
    "emlearn": "emlearn",
    "compiled": "",
}
"""Backend -> the module it needs."""
OURS = ("", "tflite_runtime")  # modules of this project's own environment
TARGETS_SHOWN = ("x86_64", "aarch64", "armv7", "cortex-m4", "cortex-m0")


@dataclass(frozen=True)
class Subject:
    """One network and the row that every backend answers."""

    name: str
    network: Network
    inputs: Array
    goal: float
    onnx: bytes
    graph: Graph | None

    @property
    def row(self) -> bytes:
        """One input."""
        return bytes(self.inputs[0].tobytes())


def mlp() -> Graph:
    """64-64-32-4 with random weights: 6,372 parameters."""
    rng = np.random.default_rng(20261124)
    b = Builder("mlp")
    x = b.input((64,))
    for n in (64, 32):
        w = rng.normal(0, np.sqrt(2 / b.shape(x)[1]), (n, b.shape(x)[1]))
        x = b.activation(b.dense(x, w, rng.normal(0, 0.1, n), f"dense{n}"), "relu", f"relu{n}")
    return b.finish(b.activation(b.dense(x, rng.normal(0, 0.3, (4, 32)), None, "out"), "softmax", "softmax"))


def matrix(folder: Path) -> Matrix:
    """The demo's scans."""
    path = folder / "demo.npz"
    features_to_npz(Recording.open(RECORDINGS), Pipeline.load(PIPELINE), path)
    return Matrix.load(path)


def cnn(m: Matrix) -> Network:
    """The demo's network, quantised."""
    rows = Rows(m.power_cdbm[m.split == Split.CALIBRATION], m.power_cdbm[m.split == Split.TEST])
    return prepare(ONNX, rows, scan=ScanInput())


def subjects(m: Matrix) -> list[Subject]:
    """What is measured."""
    rows = np.random.default_rng(1).normal(0, 1, (SCANS, 64)).astype(np.float32)
    dense, convolution = prepare(mlp(), Rows(rows[::2], rows[1::2]), gate=0.9), cnn(m)
    scans = convolution.inputs(m.power_cdbm[m.sample(SCANS)])
    return [
        Subject("CNN", convolution, scans, 0.6, ONNX.read_bytes(), None),
        Subject("MLP", dense, dense.inputs(rows), 0.5, onnx(mlp()), mlp()),
    ]


class Runs:
    """Runs backends on the host and, counted, in an arm64 guest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.peers = Peers()
        self._guests: dict[str, Guest] = {}
        self._emlearn: Emlearn | None = None

    def emlearn(self, s: Subject) -> Emlearn | str:
        """emlearn's C of a network, or why there is none: for a CNN what it says to such a layer."""
        if s.graph is None:
            return emlearn_on_convolutions(self.peers)
        if self._emlearn is None:
            self._emlearn = Emlearn(self.peers, s.graph, self.folder)
        return self._emlearn.note or self._emlearn

    def files(self, s: Subject, backend: str) -> tuple[Path, Path]:
        """The backend's model and the row, as files. Raises EdgeError."""
        row, model = self.folder / f"{s.name}.row", self.folder / f"{s.name}.{backend}"
        row.write_bytes(s.row)
        if backend == "compiled":
            model.write_bytes(build(s.network.sources, target("host")))
        elif backend == "emlearn":
            made = self.emlearn(s)
            if isinstance(made, str):
                raise EdgeError(made)
            model = made.library()
        else:
            model.write_bytes(s.onnx if backend == "onnxruntime" else s.network.tflite)
        return model, row

    def here(self, s: Subject, backend: str) -> dict[str, Any]:
        """{"start_ms", "us", "memory_kib"}, or {"unavailable": why}."""
        module = BACKENDS[backend]
        python = Path(sys.executable) if module in OURS else self.peers.python(module)
        if python is None:
            return {"unavailable": self.peers.missing[module]}
        try:
            command = [str(python), str(PEER), backend, *map(str, self.files(s, backend)), str(REPEATS_HOST)]
        except EdgeError as e:
            return {"unavailable": str(e)}
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return {"unavailable": f"ended with {done.returncode}: {last}"}
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return found

    def counted(self, s: Subject, backend: str, package: str, cpu: str) -> float:
        """Instructions of one inference on an aarch64 CPU. Raises EdgeError where it does not run there."""
        if package not in self._guests:
            pinned = None if "==" in package else CONSTRAINTS
            wheels = userland.wheels([package, "numpy<2"], userland.ARM64, pinned)
            self._guests[package] = Guest([ROOT, wheels])
        command = [str(PEER), backend, *map(str, self.files(s, backend)), str(REPEATS_GUEST)]
        guest, environment = self._guests[package], {"QEMU_CPU": cpu}
        done = guest.run(command, environment=environment, timeout_s=300)
        if done.status:
            last = (done.stderr.strip().splitlines() or [f"status {done.status}"])[-1]
            raise EdgeError(f"{package} on aarch64: {last}")
        counts = guest.run(command, count=True, environment=environment, timeout_s=300).counts
        if counts is None:
            raise EdgeError(f"{package} on aarch64: nothing was counted")
        return counts.between(1, 2) / REPEATS_GUEST

    def on_aarch64(self, s: Subject, backend: str) -> tuple[dict[str, float] | None, str]:
        """Instructions by CPU of the first version that runs there, and what the others said."""
        said = []
        for package in COUNTED.get(backend, ()):
            try:
                found = {cpu: self.counted(s, backend, package, cpu) for cpu in (A53, DOTPROD)}
            except EdgeError as e:
                said.append(str(e))
                continue
            return found, "; ".join([*said, f"counted: {package}"] if said else said)
        return None, "; ".join(said)


def emitted(s: Subject, name: str) -> dict[str, float]:
    """The emitted C on one target: instructions, stack and flash."""
    t = TARGETS[name]
    artifact = build(s.network.sources, t)
    call = Machine(t, artifact, count=True).call("edge_network", s.row, Out(64))
    linked = elf.parse(image(artifact, t) if name.startswith("cortex") else artifact)
    macs = sum(cost.macs(step) for step in s.network.plan.steps)
    return {
        "instructions": call.instructions,
        "instructions_per_mac": round(call.instructions / macs, 3),
        "stack_bytes": call.stack_bytes,
        "flash_bytes": linked.text_bytes + linked.rodata_bytes,
    }


_BUILD = """
import resource, sys, time
from pathlib import Path
import numpy as np
from compile.neural.network import Rows, prepare
from compile.neural.quantise import ScanInput
with np.load(sys.argv[2]) as z:
    rows = Rows(z["power_cdbm"][z["split"] == 1], z["power_cdbm"][z["split"] == 2])
begun = time.perf_counter()
network = prepare(Path(sys.argv[1]), rows, scan=ScanInput())
seconds = time.perf_counter() - begun
Path(sys.argv[3]).write_bytes(network.tflite)
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def build_cost(folder: Path) -> tuple[float, float, bool]:
    """(seconds, MiB, whether two builds gave the same bytes) of ONNX to .tflite with agreement on every test scan."""
    figures, files = [], []
    for n in range(2):
        out = folder / f"built{n}.tflite"
        command = [sys.executable, "-c", _BUILD, str(ONNX), str(folder / "demo.npz"), str(out)]
        done = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
        )
        figures.append(tuple(map(float, done.stdout.split())))
        files.append(out.read_bytes())
    return min(f[0] for f in figures), max(f[1] for f in figures), files[0] == files[1]


def run() -> dict[str, Any]:
    """The benchmark's document: goals, rows, proofs, machine."""
    goals: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    proven: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as name:
        folder = Path(name)
        runs = Runs(folder)
        for s in subjects(matrix(folder)):
            rows += [row_of(runs, s, backend) for backend in BACKENDS]
            goals += ratios(runs, s, rows)
            proven += proofs(s.name, s.network, s.inputs)
        seconds, mib, same = build_cost(folder)
    for p in proven:
        name = f"{p['network']}: the same bits, {p['runs_on']}"
        goals.append(goal(name, p["equal"], "rows", p["rows"], least=True))
    goals += [
        goal("CNN: ONNX to .tflite", seconds, "s", 2, least=False),
        goal("CNN: peak memory of the build", mib, "MiB", 300, least=False),
        goal("CNN: two builds are the same bytes", float(same), "", 1, least=True),
    ]
    machine = {
        "counted_on": "aarch64: wheels under QEMU user mode, C on an emulated Cortex-A53; Cortex-M4F: Unicorn",
        "host": platform.machine(),
        "python": platform.python_version(),
    }
    return {"goals": goals, "rows": rows, "proofs": proven, "machine": machine}


def row_of(runs: Runs, s: Subject, backend: str) -> dict[str, Any]:
    """One line of the table: what a backend does with a network."""
    row: dict[str, Any] = {"network": s.name, "backend": backend, **runs.here(s, backend)}
    notes = []
    if backend == "compiled":
        ours = {t: emitted(s, t) for t in TARGETS_SHOWN}
        row["aarch64_instructions"] = {A53: ours["aarch64"]["instructions"]}
        row |= {"arena_bytes": emit.arena_bytes(s.network.plan), "targets": ours}
    elif backend == "emlearn":
        made = runs.emlearn(s)
        if not isinstance(made, str):
            values = np.frombuffer(s.row, np.int8) / 64
            row["targets"] = {t: made.counted(t, values) for t in ("aarch64", "cortex-m4")}
            row["aarch64_instructions"] = {A53: row["targets"]["aarch64"]["instructions"]}
            notes = ["float32; its softmax's exp and log are not counted", made.fixed_point]
    else:
        row["aarch64_instructions"], note = runs.on_aarch64(s, backend)
        row["flash_bytes"] = len(s.onnx if backend == "onnxruntime" else s.network.tflite)
        notes = [note, "float32" if backend == "onnxruntime" else ""]
    return row | {"note": "; ".join(filter(None, notes))}


def ratios(runs: Runs, s: Subject, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The goals against tflite-runtime on aarch64; none where it was not counted."""
    by = {r["backend"]: r.get("aarch64_instructions") for r in rows if r["network"] == s.name}
    reference = by["tflite-runtime"]
    if reference is None:
        return []
    ratio = by["compiled"][A53] / min(reference.values())
    path = runs.counted(s, "device", "tflite-runtime", DOTPROD) / reference[DOTPROD]
    return [
        goal(f"{s.name}: emitted C over tflite-runtime, aarch64", ratio, "ratio", s.goal, least=False),
        goal(f"{s.name}: device path over its own invoke", path, "ratio", 1.15, least=False),
    ]


def table(document: dict[str, Any]) -> str:
    """The document for people."""
    head = ("host us", 9), ("start ms", 10), ("memory KiB", 12), ("insns on A53", 14), ("with dotprod", 14)
    lines = [f"{'network':<9}{'backend':<26}" + "".join(f"{text:>{width}}" for text, width in head)]
    for r in document["rows"]:
        figures = [r.get("us"), r.get("start_ms"), r.get("memory_kib")]
        figures += [(r.get("aarch64_instructions") or {}).get(cpu) for cpu in (A53, DOTPROD)]
        shown = "".join(
            f"{'-' if v is None else f'{v:,.{1 if n < 2 else 0}f}':>{width}}"
            for n, (v, (_, width)) in enumerate(zip(figures, head, strict=True))
        )
        lines.append(f"{r['network']:<9}{r['backend']:<26}{shown}")
        lines += [f"{'':<11}{text}" for text in (r.get("unavailable"), r.get("note")) if text]
        for name, t in r.get("targets", {}).items():
            each = (
                f", {t['instructions_per_mac']} a multiply-accumulate" if "instructions_per_mac" in t else ""
            )
            lines.append(
                f"{'':<11}{name:<12}{t['instructions']:>12,} insns{each}, {t['flash_bytes']:,} bytes of flash, "
                f"{t['stack_bytes']:,} of stack"
            )
    lines.append("")
    for g in document["goals"]:
        sign = "met" if g["met"] else "MISSED"
        lines.append(f"{g['name']:<52} {g['value']:>9.3f} {g['unit']:<6} goal {g['goal']:>6}  {sign}")
    return "\n".join(lines)


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description="Small networks beside the interpreters.")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args()
    try:
        document = run()
    except EdgeError as e:
        print(f"bench_neural: {e}", file=sys.stderr)
        return e.exit_code
    print(json.dumps(document, indent=2) if args.json else table(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
