"""Small networks: the emitted C beside the interpreters, on the host's clock and in counted instructions.

Two networks: the demo's 1-D CNN over a sweep, and an MLP 64-64-32-4. Every backend runs alone in a process (some of
them crash in one another's company), fed the same row. Microseconds are the fastest of five blocks on this machine;
instructions are user-space ones on aarch64: of the interpreters' real wheels under QEMU between two marks, of the
emitted C on an emulated Cortex-A53. The wheels are counted twice, as a Cortex-A53 and as a CPU with dot-product
instructions, which they use and the emitted C does not; goals are held against the lower count. No board is involved.
"""

from __future__ import annotations

import argparse
import importlib.util
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
from compile.neural import emit
from compile.neural.frontends.builder import Builder
from compile.neural.graph import Graph
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

PEER = Path(__file__).with_name("network_peer.py")
ONNX = HERE / "network.onnx"
A53, DOTPROD = "cortex-a53", "max"
REPEATS_HOST, REPEATS_GUEST = 200, 5
BACKENDS = {
    "tflite-runtime": "tflite_runtime",
    "ai-edge-litert": "ai_edge_litert",
    "ai-edge-litert-delegate": "ai_edge_litert",
    "tflite-micro": "tflite_micro",
    "onnxruntime": "onnxruntime",
    "compiled": "",
}
"""Backend -> the module it needs. Those with wheels for aarch64 that take int8 are counted there too."""
COUNTED = {"tflite-runtime": "tflite-runtime", "ai-edge-litert": "ai-edge-litert"}


@dataclass(frozen=True)
class Subject:
    """One network and the row that every backend answers."""

    name: str
    network: Network
    row: bytes
    goal: float
    onnx: Path | None


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
    rows = np.random.default_rng(1).normal(0, 1, (400, 64)).astype(np.float32)
    dense = prepare(mlp(), Rows(rows[::2], rows[1::2]), gate=0.9)
    return [
        Subject("CNN", cnn(m), m.power_cdbm[0].tobytes(), 0.6, ONNX),
        Subject("MLP", dense, dense.inputs(rows[:1]).tobytes(), 0.5, None),
    ]


class Runs:
    """Runs backends on the host and, counted, in an arm64 guest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._guests: dict[str, Guest] = {}

    def files(self, s: Subject, backend: str) -> tuple[Path, Path]:
        """The backend's model and the row, as files."""
        row, model = self.folder / f"{s.name}.row", self.folder / f"{s.name}.{backend}"
        row.write_bytes(s.row)
        if backend == "compiled":
            model.write_bytes(build(s.network.sources, target("host")))
        elif backend == "onnxruntime" and s.onnx is not None:
            model.write_bytes(s.onnx.read_bytes())
        else:
            model.write_bytes(s.network.tflite)
        return model, row

    def here(self, s: Subject, backend: str) -> dict[str, Any]:
        """{"start_ms", "us"}, or {"unavailable": why}."""
        module = BACKENDS.get(backend, "")
        if module and importlib.util.find_spec(module) is None:
            return {"unavailable": f"{module} is not installed"}
        if backend == "onnxruntime" and s.onnx is None:
            return {"unavailable": "no ONNX form of this network"}
        command = [sys.executable, str(PEER), backend, *map(str, self.files(s, backend)), str(REPEATS_HOST)]
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
            wheels = userland.wheels([package, "numpy"], userland.ARM64, CONSTRAINTS)
            self._guests[package] = Guest([ROOT, wheels])
        command = [str(PEER), backend, *map(str, self.files(s, backend)), str(REPEATS_GUEST)]
        done = self._guests[package].run(command, count=True, environment={"QEMU_CPU": cpu})
        if done.status or done.counts is None:
            raise EdgeError(f"{backend} in the guest ended with {done.status}")
        return done.counts.between(1, 2) / REPEATS_GUEST


def emitted(s: Subject, name: str) -> dict[str, float]:
    """The emitted C on one target: instructions, stack and flash."""
    t = TARGETS[name]
    artifact = build(s.network.sources, t)
    call = Machine(t, artifact, count=True).call("edge_network", s.row, Out(64))
    linked = elf.parse(image(artifact, t) if name.startswith("cortex") else artifact)
    return {
        "instructions": call.instructions,
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
    """The benchmark's document: goals, rows, machine."""
    goals, rows = [], []
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as name:
        folder = Path(name)
        runs = Runs(folder)
        for s in subjects(matrix(folder)):
            ours = {t: emitted(s, t) for t in ("aarch64", "armv7", "cortex-m4")}
            counts: dict[str, dict[str, float]] = {"compiled": {A53: ours["aarch64"]["instructions"]}}
            for backend, package in COUNTED.items():
                try:
                    counts[backend] = {cpu: runs.counted(s, backend, package, cpu) for cpu in (A53, DOTPROD)}
                except EdgeError as e:
                    print(f"bench_neural: {backend} on aarch64 under QEMU: {e}", file=sys.stderr)
            for backend in BACKENDS:
                row = {"network": s.name, "backend": backend, **runs.here(s, backend)}
                row["aarch64_instructions"] = counts.get(backend)
                if backend == "compiled":
                    row |= {"arena_bytes": emit.arena_bytes(s.network.plan), "targets": ours}
                else:
                    row["flash_bytes"] = len(s.network.tflite)
                rows.append(row)
            if "tflite-runtime" in counts:
                least = min(counts["tflite-runtime"].values())
                ratio = counts["compiled"][A53] / least
                goals.append(
                    goal(
                        f"{s.name}: emitted C over tflite-runtime, aarch64",
                        ratio,
                        "ratio",
                        s.goal,
                        least=False,
                    )
                )
                whole = runs.counted(s, "device", "tflite-runtime", DOTPROD)
                path = whole / counts["tflite-runtime"][DOTPROD]
                goals.append(
                    goal(f"{s.name}: device path over its own invoke", path, "ratio", 1.15, least=False)
                )
        seconds, mib, same = build_cost(folder)
    goals += [
        goal("CNN: ONNX to .tflite", seconds, "s", 2, least=False),
        goal("CNN: peak memory of the build", mib, "MiB", 300, least=False),
        goal("CNN: two builds are the same bytes", float(same), "", 1, least=True),
    ]
    machine = {
        "counted_on": "aarch64: wheels under QEMU user mode, the emitted C on an emulated Cortex-A53",
        "host": platform.machine(),
        "python": platform.python_version(),
    }
    return {"goals": goals, "rows": rows, "machine": machine}


def table(document: dict[str, Any]) -> str:
    """The document for people."""
    lines = [
        f"{'network':<9}{'backend':<26}{'host us':>10}{'start ms':>10}{'insns on A53':>14}{'with dotprod':>14}"
    ]
    for r in document["rows"]:
        counted = r.get("aarch64_instructions")
        if "unavailable" in r:
            lines.append(f"{r['network']:<9}{r['backend']:<26}not measured: {r['unavailable']}")
            continue
        count = "".join(f"{(counted or {}).get(cpu, 0):>14,.0f}" for cpu in (A53, DOTPROD)).replace(
            " 0", " -"
        )
        lines.append(f"{r['network']:<9}{r['backend']:<26}{r['us']:>10.1f}{r['start_ms']:>10.1f}{count}")
        for name, t in r.get("targets", {}).items():
            lines.append(
                f"{'':<9}  {name:<24}{t['instructions']:>12,} insns, {t['flash_bytes']:,} bytes of flash, "
                f"{t['stack_bytes']:,} of stack"
            )
    lines.append("")
    for g in document["goals"]:
        sign = "met" if g["met"] else "MISSED"
        lines.append(f"{g['name']:<48} {g['value']:>9.3f} {g['unit']:<6} goal {g['goal']:>6}  {sign}")
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
