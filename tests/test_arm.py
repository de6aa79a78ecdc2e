"""ARM for real: the unmodified device loop in an emulated arm64 user-space gives the host's verdicts, to the bit."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zlib import crc32

from compile.demo.run import RECORDINGS, held_out
from edge_runtime.energy_ci.guest import Guest
from edge_runtime.recording import Recording
from tests.conftest import ROOT, cli, loop_command, powers, rig

SCANS = 300
RATE_HZ = 50.0
OF_THE_RUN = {"sequence", "captured_us", "latency_us"}
"""What differs between two runs over the same sweeps: a busy machine may lose one, and plays it again later."""


def _on_host(bundle: Path, recording: Path, folder: Path) -> dict[str, Any]:
    with rig("--recording", recording, "--loop", rate_hz=RATE_HZ) as port:
        command = loop_command(bundle, port, folder, "--json", "--scans", SCANS)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def _on_arm(guest: Guest, bundle: Path, recording: Path, folder: Path) -> dict[str, Any]:
    with rig("--recording", recording, "--loop", rate_hz=RATE_HZ) as port:
        # The same command but for the interpreter: the device's code is what it is.
        _, *arguments = loop_command(bundle, port, folder, "--json", "--scans", SCANS)
        done = guest.run(arguments)
    assert done.status == 0, done.stderr
    assert "lower rung" not in done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def _exported(folder: Path) -> dict[int, dict[str, Any]]:
    """The journal's verdicts in full, less what is of the run, by the sweep that they answer."""
    command = cli("journal", "export", folder / "journal")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows = map(json.loads, done.stdout.splitlines())
    return {row["scan_crc32"]: {k: v for k, v in row.items() if k not in OF_THE_RUN} for row in rows}


def test_every_verdict_on_arm_is_the_host_s(arm64: Guest, demo_path: Path, tmp_path: Path) -> None:
    assert arm64.run(["-c", "import numpy"]).status == 1, "the device's environment has no numpy"
    recording = tmp_path / "played.scans"
    played = held_out(Recording.open(RECORDINGS), SCANS)
    recording.write_bytes(played.to_bytes())
    places = [tmp_path / "host", tmp_path / "arm"]
    for place in places:
        place.mkdir()
    with ThreadPoolExecutor() as pool:
        here = pool.submit(_on_host, demo_path, recording, places[0])
        there = pool.submit(_on_arm, arm64, demo_path, recording, places[1])
        summaries = [here.result(), there.result()]
    host, arm = (_exported(place) for place in places)
    assert [summary["scans"] for summary in summaries] == [SCANS, SCANS]
    both = host.keys() & arm.keys()
    assert len(both) >= 0.95 * len({crc32(powers(row)) for row in played.rows})
    assert {host[crc]["rung"] for crc in both} >= {"TREES", "SCREEN"}
    # JSON writes a float with every digit it takes to read the same bits back.
    assert {crc: arm[crc] for crc in both} == {crc: host[crc] for crc in both}
