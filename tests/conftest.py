"""What tests share: the demo's bundle, a running rig, a running loop; real processes on a real pseudo-terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from compile.demo.run import RECORDINGS, build_demo
from edge_runtime.bundle import Bundle
from edge_runtime.energy_ci.guest import Guest
from edge_runtime.recording import Recording, Row
from tests.guests import arm64

__all__ = ["arm64"]  # a fixture of tests.guests

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def demo_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's bundle, built for this machine and for ARM."""
    return build_demo(tmp_path_factory.mktemp("demo"), targets=["host", "aarch64"])


@pytest.fixture(scope="session")
def demo_bundle(demo_path: Path) -> Bundle:
    """The same, opened."""
    return Bundle.open(demo_path)


@pytest.fixture(scope="session")
def demo_recording() -> Recording:
    """The shipped sweeps."""
    return Recording.open(RECORDINGS)


def cli(*arguments: object, module: str = "edge_runtime.cli") -> list[str]:
    """The command that runs one of the two programs."""
    return [sys.executable, "-m", module, *map(str, arguments)]


@contextmanager
def process(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is gone when the block ends, whatever happened in it."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = subprocess.Popen(command, text=True, cwd=ROOT, env=os.environ, **pipes)  # type: ignore[call-overload]
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


@contextmanager
def rig(*options: object, rate_hz: float = 100) -> Iterator[str]:
    """A scanner's stand-in; its port."""
    with process(
        cli("rig", "rf-explorer", "--recording", RECORDINGS, "--rate", rate_hz, *options)
    ) as running:
        assert running.stdout is not None
        yield running.stdout.readline().strip()


RunLoop = Callable[..., dict[str, object]]


@pytest.fixture
def run_loop(demo_path: Path, tmp_path: Path) -> RunLoop:
    """Runs the loop on a port until its scans are read; its summary. The journal is at tmp_path / "journal"."""

    def run(port: str, scans: int, *options: object) -> dict[str, object]:
        command = loop_command(demo_path, port, tmp_path, "--json", "--scans", scans, *options)
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        summary: dict[str, object] = json.loads(done.stdout)
        return summary

    return run


def powers(row: Row) -> bytes:
    """A recorded sweep as a Scan holds it."""
    return array("h", [-50 * code for code in row.codes]).tobytes()


def loop_command(bundle: Path, port: str, folder: Path, *options: object) -> list[str]:
    """The command that runs the loop with its journal and verdicts in `folder`."""
    places = ("--journal", folder / "journal", "--verdicts", folder / "verdicts.jsonl")
    return cli("run", "--bundle", bundle, "--port", port, *places, *options)


@pytest.fixture(scope="session")
def energy_guest(arm64: Guest) -> Guest:
    """What the energy gate counts on."""
    return arm64
