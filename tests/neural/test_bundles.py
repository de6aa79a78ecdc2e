"""Networks in bundles and engines: alone, and beside trees; the demo's network on real wheels of every machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compile.build import build, verify_bundle
from compile.cli import main
from compile.demo import run as demo
from compile.features import features_to_npz
from compile.inspect import describe
from compile.matrix import Matrix
from compile.neural import bundle as network_bundle
from compile.neural import cascade
from compile.neural.bundle import check_raw, graph_of
from compile.neural.load import load
from compile.neural.lower import lower
from compile.neural.network import Network, Rows, prepare
from compile.neural.quantise import ScanInput
from compile.neural.run_int8 import run
from compile.pipeline import Pipeline
from compile.targets import TARGETS
from compile.targets import target as target_named
from compile.toolchain import build as compile_c
from edge_runtime.bundle import Bundle
from edge_runtime.energy_ci import userland
from edge_runtime.engines.cascade import CascadeEngine
from edge_runtime.engines.compiled import CompiledEngine
from edge_runtime.engines.network import CompiledNetwork, open_network
from edge_runtime.engines.tflite import PACKAGES, InterpretedNetwork
from edge_runtime.errors import BadInput, CheckFailed
from edge_runtime.governor.ladder import Calibration, margin_score
from edge_runtime.planning.work import scored
from edge_runtime.recording import Recording, Split
from edge_runtime.verdict import Rung, Verdict
from tests.bench.bench_neural import mlp
from tests.conftest import ROOT
from tests.neural.networks import calibration
from tests.neural.test_arithmetic import ask_guest
from tests.neural.test_bad_networks import small

ONNX = demo.HERE / "network.onnx"
SCANS = 2000


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "demo.npz"
    features_to_npz(Recording.open(demo.RECORDINGS), Pipeline.load(demo.PIPELINE), path)
    return path


@pytest.fixture(scope="session")
def matrix(data: Path) -> Matrix:
    return Matrix.load(data)


@pytest.fixture(scope="session")
def network(matrix: Matrix) -> Network:
    calibrate, test = matrix.split == Split.CALIBRATION, matrix.split == Split.TEST
    return prepare(ONNX, Rows(matrix.power_cdbm[calibrate], matrix.power_cdbm[test]), scan=ScanInput())


@pytest.fixture(scope="session")
def scans(matrix: Matrix) -> Any:
    return matrix.power_cdbm[matrix.sample(SCANS)]


@pytest.fixture(scope="session")
def dense() -> tuple[Network, Any]:
    """An MLP, and its input for 2,000 rows."""
    rows = np.random.default_rng(1).normal(0, 1, (SCANS, 64)).astype(np.float32)
    made = prepare(mlp(), Rows(rows[::2], rows[1::2]), gate=0.9)
    return made, made.inputs(rows)


@pytest.fixture(scope="session")
def both(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The cascade, built as a user does."""
    out = tmp_path_factory.mktemp("both") / "both.edge"
    given = ["--pipeline", str(demo.PIPELINE), "--data", str(data), "--network", str(ONNX)]
    assert main(["build", str(demo.MODEL), *given, "--targets", "host", "-o", str(out)]) == 0
    return Bundle.open(out)


def test_the_demo_network_passes_its_gate_and_knows_its_classes(network: Network, matrix: Matrix) -> None:
    assert network.agreement is not None
    assert network.agreement["decisions"]["value"] >= 0.99
    assert network.machine_dependent == ()
    test = (matrix.split == Split.TEST) & (matrix.label >= 0)
    right = network.outputs(matrix.power_cdbm[test]).argmax(1) == matrix.label[test]
    assert right.mean() > 0.93


def test_two_builds_give_the_same_bytes(network: Network, matrix: Matrix) -> None:
    calibrate, test = matrix.split == Split.CALIBRATION, matrix.split == Split.TEST
    rows = Rows(matrix.power_cdbm[calibrate], matrix.power_cdbm[test])
    again = prepare(ONNX, rows, scan=ScanInput())
    assert again.tflite == network.tflite
    assert again.sources == network.sources


def test_2000_scans_on_this_machine(network: Network, scans: Any, dense: tuple[Network, Any]) -> None:
    for made, rows in ((network, scans), dense):
        interpreter = InterpretedNetwork(made.tflite, "tflite-runtime")
        want = [row.tobytes() for row in made.raw(rows)]
        assert [interpreter.run(row.tobytes()) for row in rows] == want
        artifact = compile_c(made.sources, target_named("host"))
        compiled = CompiledNetwork(artifact, "host", rows[0].nbytes, len(want[0]))
        assert [compiled.run(row.tobytes()) for row in rows] == want


@pytest.mark.parametrize("arch", [userland.ARM64, userland.ARMHF], ids=lambda a: a.name)
def test_2000_scans_on_arm(
    arch: userland.Arch, network: Network, scans: Any, dense: tuple[Network, Any], tmp_path: Path
) -> None:
    both = ((network, scans), dense)
    found = ask_guest(arch, [(made.tflite, rows) for made, rows in both], tmp_path)
    for (made, rows), got in zip(both, found, strict=True):
        np.testing.assert_array_equal(got.reshape(len(rows), -1), made.raw(rows))


@pytest.mark.parametrize("target", TARGETS)
def test_the_emitted_code_answers_2000_scans_too(
    target: str, network: Network, scans: Any, dense: tuple[Network, Any]
) -> None:
    """A Cortex-M0, whose products are all its own, gets a few scans of the CNN and all rows of the MLP."""
    count = 100 if target == "cortex-m0" else SCANS
    for made, rows in ((network, network.inputs(scans[:count])), dense):
        artifact = compile_c(made.sources, TARGETS[target])
        assert check_raw(made.graph, {target: artifact}, rows) == len(rows)


def test_a_wrong_artifact_fails_the_check(network: Network, scans: Any) -> None:
    text = network.sources["edge_network.c"]
    wrong = network.sources | {"edge_network.c": text.replace("v[i] > most[i] ?", "v[i] < most[i] ?")}
    artifact = compile_c(wrong, TARGETS["aarch64"])
    with pytest.raises(CheckFailed, match="aarch64 answers"):
        check_raw(network.graph, {"aarch64": artifact}, network.inputs(scans[:3]))


def test_a_cascade_answers_as_its_parts(both: Bundle, matrix: Matrix) -> None:
    section = both.manifest["network"]["cascade"]
    engine = CascadeEngine.of(both)
    assert engine.network.name == "compiled"
    rows = np.flatnonzero((matrix.split == Split.TEST) & (matrix.label >= 0))
    verdicts = [engine.infer(matrix.power_cdbm[n].tobytes()) for n in rows]
    asked = np.array([v.rung == Rung.NETWORK for v in verdicts])
    assert engine.asked == asked.sum()
    assert asked.mean() == pytest.approx(section["asked"], abs=1e-6)
    right = np.array([v.label for v in verdicts]) == matrix.label[rows]
    accuracy = section["accuracy"]
    assert right.mean() == pytest.approx(accuracy["cascade"]["value"], abs=1e-6)
    assert accuracy["cascade"]["value"] >= accuracy["trees"]["value"]
    cost = section["instructions"]
    assert cost["trees"] < cost["cascade"] < cost["network"]
    assert "the network is asked of" in "\n".join(describe(both))


def test_the_ladder_counts_what_the_network_changes(both: Bundle, matrix: Matrix) -> None:
    """By the device's own engines: asked after every answer of the trees, how often it mends theirs."""
    counted = Calibration.from_dict(both.manifest["ladder"])
    seen, changed = [0] * len(counted.network_seen), [0] * len(counted.network_seen)
    trees, asked = CompiledEngine.of(both), CascadeEngine.of(both)
    asked._margin_bound = float("inf")
    for n in np.flatnonzero((matrix.split == Split.CALIBRATION) & (matrix.label >= 0)):
        power, label = matrix.power_cdbm[n].tobytes(), matrix.label[n]
        first, then = Verdict._make(trees.infer(power)), asked.infer(power)
        if then.rung == Rung.NETWORK:
            at = counted.margin_bin[margin_score(first.margin)]
            seen[at] += 1
            changed[at] += then.label == label != first.label
    assert (counted.network_seen, counted.network_changed) == (seen, changed)
    assert 0 < sum(changed) < sum(seen)
    assert scored(both.manifest).network_seen == seen  # counted, so nothing is believed


def test_a_cascade_is_the_same_through_the_interpreter(both: Bundle, scans: Any) -> None:
    compiled, interpreted = CascadeEngine.of(both), CascadeEngine.of(both, "tflite-runtime")
    assert interpreted.network.name == "tflite-runtime"
    for row in scans[:300]:
        assert compiled.infer(row.tobytes()) == interpreted.infer(row.tobytes())


def test_verify_covers_the_network_of_a_cascade(both: Bundle, matrix: Matrix) -> None:
    assert {p.target for p in verify_bundle(both, matrix, 40)} == {"x86_64"} or platform.machine() != "x86_64"
    graph = graph_of(both)
    entry = next(iter(both.manifest["network"]["artifacts"].values()))
    assert check_raw(graph, {"x86_64": both.entry(entry)}, matrix.power_cdbm[:20]) == 20


def test_a_network_alone(tmp_path: Path) -> None:
    rows = calibration(small(), 1, 80).reshape(80, -1)
    np.savez(tmp_path / "d.npz", features=rows)
    bundle = build(small(), data=tmp_path / "d.npz", targets=["host", "aarch64", "cortex-m4"])
    again = build(small(), data=tmp_path / "d.npz", targets=["host", "aarch64", "cortex-m4"])
    assert bundle.data == again.data
    parities = network_bundle.verify_bundle(bundle, rows, 20)
    assert {p.oracle_rows for p in parities} == {20}
    text = "\n".join(describe(bundle))
    assert "conv" in text
    assert "CONV_2D" in text
    scores = bundle.scores(rows[0].tolist())
    network = open_network(bundle)
    graph = graph_of(bundle)
    want = run(lower(graph), np.frombuffer(bytes(16), np.int8).reshape(1, 1, 16, 1))
    assert network.run(bytes(16)) == want.tobytes()
    assert len(scores) == 3
    with pytest.raises(BadInput, match="15 bytes given, it takes 16"):
        network.run(bytes(15))


@pytest.mark.parametrize("engine", ["tflite-runtime", "compiled"])
def test_an_inference_makes_nothing_but_its_result(
    engine: str, network: Network, scans: Any, tmp_path: Path
) -> None:
    """In a process of its own, so that nothing else allocates."""
    program = """
import gc, sys, tracemalloc
from itertools import repeat
from edge_runtime.engines.network import CompiledNetwork
from edge_runtime.engines.tflite import InterpretedNetwork
model, row = (open(p, "rb").read() for p in sys.argv[2:])
compiled = sys.argv[1] == "compiled"
network = CompiledNetwork(model, "host", len(row), 8) if compiled else InterpretedNetwork(model, sys.argv[1])
run = network.run
size = sys.getsizeof(run(row))
gc.disable()
blocks = sys.getallocatedblocks()
for _ in repeat(None, 2000): run(row)
blocks = sys.getallocatedblocks() - blocks
times = repeat(None, 2000)
tracemalloc.start()
run(row)
before = tracemalloc.get_traced_memory()[0]
tracemalloc.reset_peak()
for _ in times: run(row)
print(size, blocks, tracemalloc.get_traced_memory()[1] - before)
"""
    model, row = tmp_path / "model", tmp_path / "row"
    model.write_bytes(
        network.tflite if engine != "compiled" else compile_c(network.sources, target_named("host"))
    )
    row.write_bytes(scans[0].tobytes())
    command = [sys.executable, "-c", program, engine, str(model), str(row)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    size, blocks, peak = map(int, done.stdout.split())
    assert blocks <= 2  # after 2,000 inferences: the counter's own number
    assert peak <= 64  # the result of 41 bytes, or before it the empty answer of tflite-runtime's own invoke
    assert size < 64


@pytest.mark.parametrize("package", ["tflite-runtime", "ai-edge-litert"])
def test_no_delegate_and_one_thread(package: str, network: Network) -> None:
    """What the interpreter is asked for, and what its process then has: no thread beside its own."""
    if find_spec(PACKAGES[package]) is None:
        pytest.skip(
            f"{package} is not installed: it is the other interpreter's successor, not needed beside it"
        )
    program = f"""
import os, sys
import {PACKAGES[package]}.interpreter as module
asked = []
class Interpreter(module.Interpreter):
    def __init__(self, *a, **k):
        asked.append(k)
        super().__init__(*a, **k)
module.Interpreter = Interpreter
from edge_runtime.engines.tflite import InterpretedNetwork
before = len(os.listdir("/proc/self/task"))
network = InterpretedNetwork(sys.stdin.buffer.read(), {package!r})
network.run(bytes(512))
assert len(os.listdir("/proc/self/task")) == before, "threads"
assert asked[0]["num_threads"] == 1
assert asked[0]["experimental_op_resolver_type"] == module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
assert not asked[0].get("experimental_delegates")
operators = network._interpreter._get_ops_details()
assert operators and all(o["op_name"] != "DELEGATE" for o in operators)
"""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=network.tflite,
        capture_output=True,
        cwd=ROOT,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


def test_the_bound_is_the_lowest_that_is_as_good() -> None:
    rng = np.random.default_rng(5)
    margin = rng.uniform(0, 10, 4000)
    trees = rng.random(4000) < np.clip(
        0.5 + margin / 10, 0, 1
    )  # surer, righter: as good as the network from 4 on
    network = rng.random(4000) < 0.9
    bound = cascade.fit(margin, trees, network)
    assert 2.5 < bound.margin < 5
    assert bound.share == pytest.approx((margin < bound.margin).mean())
    assert cascade.fit(margin, np.ones(4000, bool), network).margin == 0
    always = cascade.fit(margin, np.zeros(4000, bool), np.ones(4000, bool))
    assert always.share > 0.99


def test_the_demo_network_is_read_without_its_framework() -> None:
    assert "torch" not in sys.modules
    assert "onnx" not in sys.modules
    assert load(ONNX).ops
