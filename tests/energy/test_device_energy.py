"""The project's own energy baseline: what the device's code costs on aarch64 must not rise unseen."""

from __future__ import annotations

from pathlib import Path

import pytest

from compile.emulate import Machine, Out
from compile.features import feature_sources
from compile.pipeline import Pipeline
from compile.targets import target
from compile.toolchain import build
from edge_runtime.bundle import Bundle
from edge_runtime.energy_ci.call import count_function
from edge_runtime.energy_ci.gate import Work
from edge_runtime.energy_ci.guest import Guest
from edge_runtime.pytest_energy import Energy

WORK = "tests.energy.device_work"
ROOT = Path(__file__).parents[2]


def sweep() -> bytes:
    """A quiet floor with one burst, 256 points, hundredths of a dBm."""
    floor = [-10_500 + 50 * (k * 7 % 11) for k in range(256)]
    floor[100:110] = [-6_000 + 200 * abs(k - 5) for k in range(10)]
    return b"".join(p.to_bytes(2, "little", signed=True) for p in floor)


def features_work(sources: dict[str, str], count: int) -> Work:
    """The C kernels of the demo's pipeline, compiled for aarch64, over that sweep."""
    machine = Machine(target("aarch64"), build(sources, target("aarch64")), count=True)
    call = machine.call("edge_features", sweep(), 256, Out(4 * count))
    assert call.value == 0
    return Work(call.instructions, inferences=1)


def demo_pipeline() -> Pipeline:
    return Pipeline.load(ROOT / "compile/demo/pipeline.toml")


def test_features(energy: Energy) -> None:
    pipeline = demo_pipeline()
    energy.record(features_work(feature_sources(pipeline), len(pipeline.features)))


def test_decode_a_sweep(energy: Energy) -> None:
    energy.count(f"{WORK}:decode", setup=f"{WORK}:make_decoder")


def test_answer_a_scan(energy: Energy, tmp_path: Path) -> None:
    energy.count(f"{WORK}:answer", str(tmp_path), setup=f"{WORK}:make_loop")


def test_refuse_a_scan(energy: Energy, tmp_path: Path) -> None:
    energy.count(f"{WORK}:refuse", str(tmp_path), setup=f"{WORK}:make_loop")


def test_measure_a_scan(energy: Energy) -> None:
    """What `--meter` adds to every scan beside the meter's own sampling; without it, nothing is added."""
    energy.count(f"{WORK}:measure", setup=f"{WORK}:make_field")


def test_wait_for_a_scan(energy: Energy) -> None:
    energy.count(f"{WORK}:wait", setup=f"{WORK}:make_port", wakeups=1)


def test_rest_between_two_scans(energy: Energy) -> None:
    """What `--limit` adds to two scans."""
    energy.count(f"{WORK}:rest", setup=f"{WORK}:make_scanner", wakeups=2)


def test_counts_repeat(energy_guest: Guest, tmp_path: Path) -> None:
    """The same program repeats to a thousandth (in fact exactly); in quite another memory layout, to 4 %."""

    def count(*layouts: int) -> int:
        work = (f"{WORK}:answer", [str(tmp_path)], f"{WORK}:make_loop")
        return count_function(energy_guest, *work, layouts=layouts)[0]

    count(0)  # compiles what it imports
    one, two = count(0), count(0)
    assert one == pytest.approx(two, rel=0.001)
    assert count(50) == pytest.approx(one, rel=0.04)


def test_the_demos_artifact(energy: Energy, demo_bundle: Bundle) -> None:
    """The whole pipeline in C, features to verdict, the mean over the demo's scans as the build counted it."""
    cost = demo_bundle.manifest["artifacts"]["aarch64"]["cost"]
    energy.record(Work(round(cost["infer"]["mean"]), inferences=1))
