"""The gate itself: regressions that were put in on purpose must fail it, each told as what it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hw_profiles
from edge_runtime.energy_ci import gate
from edge_runtime.energy_ci.gate import Answer, Row, Work, judge
from edge_runtime.energy_ci.guest import Guest
from edge_runtime.errors import BadInput
from edge_runtime.pytest_energy import tolerance_of

ROOT = Path(__file__).parents[2]
BASELINE = ROOT / "tests/energy/baseline.json"

CONFTEST = """
from pathlib import Path
import pytest
from edge_runtime.energy_ci import userland
from edge_runtime.energy_ci.guest import Guest
@pytest.fixture(scope="session")
def energy_guest():
    wheels = userland.wheels(["pyserial"], userland.ARM64, Path({root!r}, "scripts/constraints.txt"))
    return Guest([Path({mutated!r}), Path({root!r}), wheels])
"""
TEST = """
def test_{name}(energy, tmp_path):
    energy.count("tests.energy.device_work:{name}", *{arguments}, setup="tests.energy.device_work:{setup}",
                 name="test_{entry}", wakeups={wakeups})
"""


def run_gate(
    folder: Path, test: str, *options: str, mutated: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """pytest, as a user runs it, over one test in a folder of its own."""
    (folder / "conftest.py").write_text(CONFTEST.format(root=str(ROOT), mutated=str(mutated or folder)))
    (folder / "test_it.py").write_text(test)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "edge_runtime.pytest_energy",
        "--rootdir",
        ".",
        *options,
    ]
    return subprocess.run(
        [*command, "test_it.py"], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def mutate(folder: Path, module: str, old: str, new: str) -> Path:
    """The package with one thing wrong in it: that module anew, every other from the checkout."""
    path = Path("edge_runtime", module)
    for package in path.parents:
        if package != Path():
            (folder / package).mkdir(parents=True, exist_ok=True)
            future = "from __future__ import annotations\n"
            init = (ROOT / package / "__init__.py").read_text().replace(future, "")
            more = f"__path__.append({str(ROOT / package)!r})\n"
            (folder / package / "__init__.py").write_text(future + more + init)
    text = (ROOT / path).read_text()
    assert text.count(old) == 1, f"{module} no longer holds {old!r}: choose another place for this regression"
    (folder / path).write_text(text.replace(old, new))
    return folder


REGRESSIONS = {
    "a busy-wait": (
        TEST.format(name="wait", arguments="[]", setup="make_port", entry="wait_for_a_scan", wakeups=1),
        "port.py",
        "        ready = self._poll(timeout_ms)\n",
        "        import time\n"
        "        end = time.monotonic() + timeout_ms / 1000\n"
        "        ready = []\n"
        "        while not ready and time.monotonic() < end:\n"
        "            ready = self._poll(0)\n",
        "instructions",
    ),
    "a lost early return": (
        TEST.format(
            name="refuse", arguments="[str(tmp_path)]", setup="make_loop", entry="refuse_a_scan", wakeups=0
        ),
        "loop.py",
        "            return _none(_STALE)\n",
        "            _none(_STALE)\n",
        "inferences 0 to 1",
    ),
    "a fast path that is never taken": (
        TEST.format(name="decode", arguments="[]", setup="make_decoder", entry="decode_a_sweep", wakeups=0),
        "scanners/rf_explorer.py",
        "        if data and size == whole and not self._lost and ",
        "        if data and size == whole and self._lost and ",
        "instructions",
    ),
}


@pytest.mark.parametrize("what", REGRESSIONS)
def test_a_seeded_regression_fails_the_gate(what: str, tmp_path: Path, energy_guest: Guest) -> None:
    """Real source of the device, mutated, against the baseline that the project itself keeps."""
    del energy_guest  # where there is none, this is skipped with the reason
    test, module, old, new, says = REGRESSIONS[what]
    mutated = mutate(tmp_path / "mutated", module, old, new)
    report = tmp_path / "report.md"
    done = run_gate(
        tmp_path, test, f"--energy-baseline={BASELINE}", f"--energy-report={report}", mutated=mutated
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "energy rose: test_" in done.stdout
    assert says in done.stdout
    assert f"| **{Answer.FAIL.value}** | **" in report.read_text()


TWICE = """
from compile.features import feature_sources
from tests.energy.test_device_energy import demo_pipeline, features_work
CALL = "    edge_more_features(&w, features);\\n"
def test_it(energy):
    pipeline = demo_pipeline()
    sources = feature_sources(pipeline)
    assert sources["edge_model.c"].count(CALL) == 1
    sources["edge_model.c"] = sources["edge_model.c"].replace(CALL, CALL * {times})
    energy.record(features_work(sources, len(pipeline.features)), "test_features")
"""


@pytest.mark.parametrize("times", [1, 2])
def test_a_feature_computed_twice_fails_the_gate(times: int, tmp_path: Path) -> None:
    """The C of the demo's pipeline, as it is and with one call too many, on the emulated aarch64."""
    report = tmp_path / "report.md"
    done = run_gate(
        tmp_path, TWICE.format(times=times), f"--energy-baseline={BASELINE}", f"--energy-report={report}"
    )
    assert done.returncode == times - 1, done.stdout + done.stderr
    assert ("energy rose: test_features: instructions " in done.stdout) == (times == 2)
    assert (f"| **{Answer.FAIL.value}** | **instructions" in report.read_text()) == (times == 2)


def test_the_same_work_passes_and_is_reported(tmp_path: Path, energy_guest: Guest) -> None:
    del energy_guest
    test = TEST.format(name="decode", arguments="[]", setup="make_decoder", entry="decode", wakeups=0)
    baseline, report = tmp_path / "baseline.json", tmp_path / "report.md"
    missing = run_gate(tmp_path, test, f"--energy-baseline={baseline}")
    assert missing.returncode == 4
    assert "missing; make it with pytest --energy-update" in missing.stderr
    options = (f"--energy-baseline={baseline}", "--energy-profile=4b")
    assert run_gate(tmp_path, test, *options, "--energy-update").returncode == 0
    assert list(json.loads(baseline.read_text())["work"]) == ["test_decode"]
    done = run_gate(tmp_path, test, *options, f"--energy-report={report}")
    assert done.returncode == 0, done.stdout
    assert "energy (modelled for Raspberry Pi 4 Model B)" in done.stdout
    assert "| test_decode | " in report.read_text()
    assert "**" not in report.read_text()


def test_workers_of_xdist_hand_their_rows_over(tmp_path: Path) -> None:
    """A baseline kept, and a rise found, with the tests spread over two processes."""
    test = (
        "import pytest\n"
        "from edge_runtime.energy_ci.gate import Work\n"
        "@pytest.mark.parametrize('k', range(4))\n"
        "def test_it(energy, k):\n"
        "    energy.record(Work(100_000 + RISE * k, 1, 0))\n"
    )
    options = ("--energy-baseline=b.json", "-n2", "-p", "xdist")
    assert run_gate(tmp_path, "RISE = 100\n" + test, *options, "--energy-update").returncode == 0
    kept = gate.load_baseline(tmp_path / "b.json")
    assert {name: work.instructions for name, work in kept.items()} == {
        f"test_it[{k}]": 100_000 + 100 * k for k in range(4)
    }
    done = run_gate(tmp_path, "RISE = 1000\n" + test, *options)
    assert "2 failed, 2 passed" in done.stdout  # the first is within one percent
    assert done.stdout.count("instructions 100,") >= 2


PROGRAM = """
.globl _start
_start: mov x1, #1000
1:  subs x1, x1, #1
    b.ne 1b
    mov x0, #0
    mov x8, #93
    svc #0
"""


def test_a_whole_program_is_counted(tmp_path: Path, energy_guest: Guest) -> None:
    del energy_guest
    (tmp_path / "p.S").write_text(PROGRAM)
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-gnu", "-nostdlib", "-static"]
    subprocess.run([*compiler, "-o", "p", "p.S"], cwd=tmp_path, check=True)
    test = (
        "def test_p(energy):\n"
        f"    assert energy.count_command({str(tmp_path / 'p')!r}).instructions == 1 + 2000 + 3\n"
        "def test_python(energy):\n"
        "    assert energy.count_python('-c', 'pass').instructions > 1e6\n"
    )
    done = run_gate(tmp_path, test)
    assert done.returncode == 0, done.stdout


MEASURED = """
import itertools
import pytest
from edge_runtime.power.base import Meter, Reading, Source
from edge_runtime.rig.load import VirtualClock
CLOCK = VirtualClock()
class Bench(Meter):
    name, source, domain, joules = "bench", Source.MEASURED, "a virtual board", 0.0
    noise = itertools.cycle([0.97, 1.02, 1.0, 0.99, 1.03, 1.01, 0.98])
    def read(self):
        return Reading(self.joules, 0.0, 5.0, CLOCK.us())
METER = Bench()
@pytest.fixture(scope="session")
def energy_meter():
    return lambda: METER
def work(joules):
    def call():
        CLOCK.sleep(0.5)
        METER.joules += joules * next(METER.noise)
    return call
def test_same(energy):
    energy.compare(work(1.0), work(1.0), seconds=20, clock=lambda: CLOCK.seconds)
def test_dearer(energy):
    energy.compare(work(1.0), work(1.1), seconds=20, clock=lambda: CLOCK.seconds)
def test_who_knows(energy):
    energy.compare(work(1.0), work(1.05), seconds=3, clock=lambda: CLOCK.seconds)
"""


def test_measured_mode_has_three_answers(tmp_path: Path) -> None:
    done = run_gate(tmp_path, MEASURED, "--energy-tolerance=5%", "-rs")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 1 passed, 1 skipped" in done.stdout
    assert "test_dearer: fail: new / old = 1.1" in done.stdout
    assert "test_who_knows: inconclusive: new / old =" in done.stdout
    assert "(95 %), bench" in done.stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--energy-tolerance=lots"], "energy tolerance 'lots': not a share"),
        (["--energy-update"], "--energy-update: which file?"),
        (["--energy-profile=zx81"], "board profile 'zx81': unknown"),
        (["--energy-baseline=bad.json"], "bad.json: not a baseline"),
    ],
)
def test_bad_options_are_one_line(tmp_path: Path, options: list[str], says: str) -> None:
    (tmp_path / "bad.json").write_text('{"format": 9}')
    done = run_gate(tmp_path, "def test_it(): pass", *options)
    assert done.returncode == 4
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("text", "value"), [("1%", 0.01), ("0.5%", 0.005), ("0", 0), ("0.02", 0.02)])
def test_tolerance(text: str, value: float) -> None:
    assert tolerance_of(text) == pytest.approx(value)


def test_rows_tell_what_rose() -> None:
    before = Work(100_000, 1, 2)
    assert Row("x", Work(100_900, 1, 2), before, 0.01).answer is Answer.PASS
    assert Row("x", Work(2_299, 0, 0), Work(2_000, 0, 0), 0.01).answer is Answer.PASS
    assert Row("x", Work(2_300, 0, 0), Work(2_000, 0, 0), 0.01).answer is Answer.FAIL
    risen = Row("x", Work(101_100, 2, 3), before, 0.01)
    assert risen.risen == ("instructions", "inferences", "wakeups")
    assert risen.why == (
        "instructions 100,000 to 101,100 (+1.1 %); inferences 1 to 2 (+100.0 %); wakeups 2 to 3 (+50.0 %)"
    )
    assert "to keep the gain" in Row("x", Work(90_000, 1, 2), before, 0.01).why
    new = Row("x", before, None, 0.01)
    assert new.answer is Answer.FAIL
    cells = gate.table([risen, new], hw_profiles.mission("zero2w"))
    assert len({len(row) for row in cells}) == 1
    assert "x" in gate.as_text(cells)


def test_judge_is_right_as_often_as_it_says() -> None:
    """Under noise of 2 % a window: a rise of 10 % is never passed, no rise seldom failed."""
    rng = np.random.default_rng(5)
    same = [judge(list(1 + rng.normal(0, 0.02, 7)), 0.01)[0] for _ in range(200)]
    risen = [judge(list(1.1 + rng.normal(0, 0.02, 7)), 0.01)[0] for _ in range(200)]
    assert same.count(Answer.FAIL) < 20
    assert Answer.INCONCLUSIVE in same
    assert risen.count(Answer.FAIL) == 200
    with pytest.raises(ValueError, match="at least five"):
        judge([1.0] * 4, 0.01)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 1, "work": {"a": {"x": 1}}}', '{"format": 1, "work": 3}']
)
def test_a_baseline_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "b.json"
    path.write_text(text)
    with pytest.raises(BadInput, match=r"b\.json: not a baseline"):
        gate.load_baseline(path)
