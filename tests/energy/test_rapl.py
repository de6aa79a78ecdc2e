"""RAPL through an unmodified pyRAPL over a fake powercap tree: in process, and in a mount namespace."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import HardwareUnavailable
from edge_runtime.power.rapl import MAX_PACKAGE_W, Counter, RaplMeter, import_pyrapl
from edge_runtime.rig.powercap import DRAM_RANGE_UJ, RANGE_UJ, PowercapTree, in_namespace, redirected

if import_pyrapl() is None:
    pytest.skip("needs pyRAPL, the peer: pip install 'edge-runtime[rapl]'", allow_module_level=True)

NEAR_WRAP = RANGE_UJ - 3_000_000
ROOT = Path(__file__).parents[2]


class Clock:
    now_us = 0

    def __call__(self) -> int:
        return self.now_us


@contextlib.contextmanager
def rig(root: Path, **shape: Any) -> Iterator[tuple[PowercapTree, RaplMeter, Clock, Any]]:
    tree, clock = PowercapTree(root, **shape), Clock()
    with redirected(import_pyrapl(), root) as pyrapl, RaplMeter(clock, sysfs=root, keep_up=False) as meter:
        assert isinstance(meter, RaplMeter)
        yield tree, meter, clock, pyrapl
    tree.close()


@pytest.mark.parametrize("sockets", [1, 2])
@pytest.mark.parametrize("dram", [False, True])
def test_energy_through_a_wrap(tmp_path: Path, sockets: int, dram: bool) -> None:
    with rig(tmp_path, sockets=sockets, dram=dram, start_uj=NEAR_WRAP) as (tree, meter, clock, pyrapl):
        pyrapl.setup()
        beside = pyrapl.Measurement("beside")
        beside.begin()
        truth_uj = 0
        for step in range(8):
            for socket in range(sockets):
                tree.spend(1_000_000 + step, socket=socket)
                truth_uj += 1_000_000 + step
                if dram:
                    tree.spend(300_000, socket=socket, dram=True)
                    truth_uj += 300_000
            clock.now_us += 1_000_000
            reading = meter.read()
            assert reading.energy_j * 1e6 == pytest.approx(truth_uj, abs=1)
            assert reading.at_us == clock.now_us
            assert 0 < reading.uncertainty_j < 0.01
        beside.end()
        # The peer, on the very same counters, lost it: this was a wrap.
        assert beside.result.pkg is None or min(beside.result.pkg) < 0
        assert ("with DRAM" in meter.domain) == dram


@pytest.mark.parametrize("dram", [False, True])
def test_dies_of_one_package_are_summed(tmp_path: Path, dram: bool) -> None:
    with rig(tmp_path, dies=2, dram=dram, start_uj=NEAR_WRAP) as (tree, meter, clock, pyrapl):
        with pytest.raises(pyrapl.PyRAPLCantRecordEnergyConsumption):
            pyrapl.setup()
        for die in (0, 1):
            tree.spend(5_000_000, die=die)
        clock.now_us += 1_000_000
        assert meter.read().energy_j == pytest.approx(10)
        assert "multi-die" in meter.domain


def test_eight_threads_see_one_rising_truth(tmp_path: Path) -> None:
    with rig(tmp_path, sockets=2, dram=True, start_uj=NEAR_WRAP) as (tree, meter, clock, _):
        seen: list[list[float]] = [[] for _ in range(8)]
        stop = threading.Event()

        def reader(mine: list[float]) -> None:
            while not stop.is_set():
                mine.append(meter.read().energy_j)

        threads = [threading.Thread(target=reader, args=(mine,)) for mine in seen]
        for thread in threads:
            thread.start()
        for _ in range(400):
            clock.now_us += 1_000
            tree.spend(10_000, socket=0)
            tree.spend(7_000, socket=1)
            tree.spend(1_000, socket=1, dram=True)
            time.sleep(0.0005)  # lets the readers in, between and within the writes
        stop.set()
        for thread in threads:
            thread.join()
        assert meter.read().energy_j == pytest.approx(400 * 18_000 * 1e-6, abs=1e-6)
        for mine in seen:
            assert len(mine) > 3
            assert mine == sorted(mine)


STEPS = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 10**9)), max_size=30)
RANGES = st.sampled_from([RANGE_UJ, DRAM_RANGE_UJ, 1_000_000])


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    RANGES, st.integers(0, 2**40), st.lists(st.tuples(st.floats(0, 1), st.integers(1, 10**9)), max_size=30)
)
def test_counter_holds_the_truth(range_uj: int, start: int, steps: list[tuple[float, int]]) -> None:
    """Whatever is spent below MAX_PACKAGE_W, sampled however seldom: truth within [total, total + doubt]."""
    raw, at_us, truth = start % range_uj, 0, 0
    counter = Counter(range_uj, raw, at_us)
    for load, wait_us in steps:
        spent = int(load * MAX_PACKAGE_W * wait_us)
        truth, raw, at_us = truth + spent, (raw + spent) % range_uj, at_us + wait_us
        counter.update(raw, at_us, at_us)
        assert counter.total_uj <= truth <= counter.total_uj + counter.doubt_uj + 1e-3 * len(steps)


def test_counter_is_exact_when_sampled_in_time() -> None:
    counter = Counter(RANGE_UJ, 0, 0)
    half_us = int(RANGE_UJ / MAX_PACKAGE_W / 2)
    for k in range(1, 50):
        counter.update(k * 100_000_000_000 % RANGE_UJ, k * half_us, k * half_us)
    assert counter.total_uj == 49 * 100_000_000_000
    assert counter.doubt_uj == 0


def test_a_reset_is_not_taken_for_a_wrap() -> None:
    counter = Counter(RANGE_UJ, 9_000_000, 0)
    counter.update(100, 1_000_000, 1_000_000)  # a wrap would mean 262 kJ in a second
    assert counter.total_uj == 0
    assert counter.doubt_uj >= MAX_PACKAGE_W * 1e6
    counter.update(5_000_100, 2_000_000, 2_000_000)
    assert counter.total_uj == 5_000_000


def test_the_thread_keeps_up(tmp_path: Path) -> None:
    """A counter that wraps every few milliseconds of virtual time, never read by us, loses nothing."""
    tree = PowercapTree(tmp_path, range_uj=10_000_000)
    clock, moved = Clock(), threading.Event()
    with redirected(import_pyrapl(), tmp_path), RaplMeter(clock, sysfs=tmp_path) as meter:
        assert isinstance(meter, RaplMeter)
        assert meter.keep_up_s == pytest.approx(0.005)
        sample = meter._sample

        def sampled() -> int:
            moved.set()
            return sample()

        meter._sample = sampled  # type: ignore[method-assign]
        for _ in range(20):
            tree.spend(4_000_000)
            clock.now_us += 4_500
            moved.clear()
            assert moved.wait(5)
        assert meter.read().energy_j == pytest.approx(80)
    tree.close()
    assert not any(t.name == "rapl" for t in threading.enumerate())
    with pytest.raises(HardwareUnavailable, match="because it was closed"):
        meter.read()


def test_no_powercap_is_unavailable(tmp_path: Path) -> None:
    meter = RaplMeter(sysfs=tmp_path)
    with pytest.raises(HardwareUnavailable, match="meter rapl: unavailable, because there is no /sys/class"):
        meter.read()
    meter.close()


def test_without_pyrapl_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = PowercapTree(tmp_path)
    monkeypatch.setitem(sys.modules, "pyRAPL", None)
    with RaplMeter(sysfs=tmp_path) as meter:
        assert meter.unavailable is not None
        assert "edge-runtime[rapl]" in meter.unavailable
    tree.close()


def test_a_missing_socket_is_unavailable(tmp_path: Path) -> None:
    tree = PowercapTree(tmp_path, sockets=2)
    shutil.rmtree(tmp_path / "class/powercap/intel-rapl/intel-rapl:1")
    with redirected(import_pyrapl(), tmp_path), RaplMeter(sysfs=tmp_path) as meter:
        assert (
            meter.unavailable
            == "pyRAPL finds no counter for every socket (PyRAPLCantRecordEnergyConsumption)"
        )
    tree.close()


def test_importing_pyrapl_leaves_the_root_logger_alone() -> None:
    code = (
        "import logging; from edge_runtime.power.rapl import import_pyrapl as i; assert i();"
        "r = logging.getLogger(); assert not r.handlers and r.manager.disable == 0"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


# The program that runs in the namespace: nothing in it is redirected, pyRAPL reads the real paths.
IN_NAMESPACE = """
import json, os, sys
from edge_runtime.power.rapl import RaplMeter, import_pyrapl
import_pyrapl()
if sys.argv[1] == "nobody": os.setuid(65534)
meter = RaplMeter()
if meter.unavailable: print(json.dumps({"unavailable": meter.unavailable})); sys.exit()
import pyRAPL
pyRAPL.setup()
beside = pyRAPL.Measurement("beside"); beside.begin()
print("ready", flush=True)
for line in sys.stdin:
    print(meter.read().energy_j, flush=True)
beside.end()
print(json.dumps({"beside": beside.result.pkg, "domain": meter.domain}))
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace over /sys needs root")


def spawn(tree: PowercapTree, user: str) -> subprocess.Popen[str]:
    command = in_namespace(tree.root, [sys.executable, "-c", IN_NAMESPACE, user])
    return subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@needs_root
@pytest.mark.parametrize("sockets", [1, 2])
def test_in_a_mount_namespace(tmp_path: Path, sockets: int) -> None:
    tree = PowercapTree(tmp_path, sockets=sockets, dram=True, start_uj=NEAR_WRAP)
    with spawn(tree, "root") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        ready = process.stdout.readline()
        assert ready == "ready\n", process.stderr.read()
        truth = 0.0
        for _ in range(5):
            for socket in range(sockets):
                tree.spend(1_000_000, socket=socket)
                tree.spend(200_000, socket=socket, dram=True)
                truth += 1.2
            process.stdin.write("read\n")
            process.stdin.flush()
            assert float(process.stdout.readline()) == pytest.approx(truth)
        process.stdin.close()
        end = json.loads(process.stdout.readline())
        assert end["beside"] is None or min(end["beside"]) < 0
        assert f"{sockets} x86 package" in end["domain"]
    tree.close()


@needs_root
def test_in_a_mount_namespace_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    tree = PowercapTree(tmp_path, sockets=2)
    tree.forbid()
    with spawn(tree, "nobody") as process:
        out, err = process.communicate(timeout=60)
        assert err == ""
        assert "energy_uj is not readable; run as root, or: chmod a+r" in json.loads(out)["unavailable"]
    tree.close()
