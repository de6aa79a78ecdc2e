"""The same bits on 2,000 inputs: tflite-runtime's real wheels and the emitted C, on every target."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from compile.emulate import Machine, Out
from compile.neural.graph import Array
from compile.neural.network import Network
from compile.targets import TARGETS, target
from compile.toolchain import build
from edge_runtime.energy_ci import userland
from edge_runtime.energy_ci.guest import Guest
from edge_runtime.engines.network import CompiledNetwork
from edge_runtime.engines.tflite import open_interpreter
from edge_runtime.errors import EdgeError
from tests.bench.bench_loop import CONSTRAINTS

SCANS = 2000
PROGRAM = Path(__file__).parents[1] / "neural/tflite_reference.py"


def proofs(name: str, network: Network, inputs: Array) -> Iterator[dict[str, Any]]:
    """A row for each way to run the network: how many of its answers are the integer arithmetic's."""
    want = [row.tobytes() for row in network.raw(inputs)]
    rows = [row.tobytes() for row in inputs]

    def row(runs_on: str, got: list[bytes]) -> dict[str, Any]:
        equal = sum(a == b for a, b in zip(got, want, strict=True))
        return {"network": name, "runs_on": runs_on, "rows": len(want), "equal": equal}

    interpreter = open_interpreter(network.tflite, "tflite-runtime")
    yield row("tflite-runtime, this machine", [interpreter.run(r) for r in rows])
    native = CompiledNetwork(build(network.sources, target("host")), "host", len(rows[0]), len(want[0]))
    yield row("C, this machine", [native.run(r) for r in rows])
    for t in TARGETS.values():
        machine = Machine(t, build(network.sources, t))
        got = [machine.call("edge_network", r, Out(len(want[0]))).outputs[0] for r in rows]
        yield row(f"C, {t.name}", got)
    for arch, packages in (
        (userland.ARM64, ("tflite-runtime", "numpy")),
        (userland.ARMHF, ("tflite-runtime",)),
    ):
        runs_on = f"tflite-runtime, {arch.name}"
        try:
            yield row(runs_on, _in_guest(arch, packages, network.tflite, inputs))
        except EdgeError as e:
            yield {"network": name, "runs_on": runs_on, "rows": len(want), "equal": 0, "note": str(e)}


def _in_guest(arch: userland.Arch, packages: tuple[str, ...], model: bytes, inputs: Array) -> list[bytes]:
    guest = Guest([userland.wheels(packages, arch, CONSTRAINTS)], arch)
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as name:
        given, found = Path(name, "in.npz"), Path(name, "out.npz")
        np.savez(given, model0=np.frombuffer(model, np.uint8), rows0=inputs)
        done = guest.run([str(PROGRAM), str(given), str(found)], timeout_s=600)
        if done.status:
            raise EdgeError(f"the guest ended with {done.status}")
        with np.load(found) as z:
            return [row.tobytes() for row in z["out0"]]
