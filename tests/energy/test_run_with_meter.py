"""`edge-runtime run --meter`: the loop with a meter beside it, as a user runs it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RunLoop, loop_command, rig


def test_a_run_beside_an_emulated_meter(run_loop: RunLoop) -> None:
    with rig() as port:
        summary: dict[str, Any] = run_loop(port, 300, "--meter", "ina219", "--emulated")
    meter = summary["meter"]
    assert meter["meter"] == "ina219"
    assert meter["emulated"]
    assert "EMULATED" in meter["domain"]
    assert meter["lost"] is None
    assert meter["energy_j"] > 0
    assert summary["energy_source"] == "modelled"


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--meter", "shunty"], 2, "meter 'shunty': unknown; choose of rapl, ina219"),
        (
            ["--meter", "ina219", "--i2c", "77"],
            3,
            "meter ina219: unavailable, because there is no /dev/i2c-77",
        ),
        (["--meter", "ina219", "--calibration", "/nonesuch"], 2, "make one with edge-runtime calibrate"),
    ],
)
def test_a_meter_that_is_not_there(
    demo_path: Path, tmp_path: Path, options: list[str], code: int, says: str
) -> None:
    with rig() as port:
        command = loop_command(demo_path, port, tmp_path, "--scans", "1", *options)
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
