"""`edge-runtime run --meter`: the loop with a meter beside it, as a user runs it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.power.field import lines
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
    low, high = summary["energy_j_interval"]
    assert 0 < low < high < 1
    counted = meter["counted"]
    assert counted["screen"] == pytest.approx(300, abs=2)  # until the last window's end, which is the run's
    assert counted["serial"] == pytest.approx(300 * 0.261, rel=0.1)
    assert counted["journal"] >= 300 * 0.065
    assert set(meter["stages"]) >= {"idle", "screen", "trees", "serial", "journal"}
    assert not any(row["resolved"] for row in meter["stages"].values())
    text = list(lines(meter))
    assert text[0].endswith("(EMULATED, no hardware)")
    assert text[1].endswith(" s of a core")
    assert "from 72 windows on" in text[2]
    assert 0 < meter["own_cpu_s"] < 2


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
