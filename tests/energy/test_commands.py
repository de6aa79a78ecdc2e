"""`edge-runtime meters`, `calibrate` and `fit`, as a user runs them, on emulated hardware."""

from __future__ import annotations

import io
import json
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hw_profiles
from edge_runtime import console
from edge_runtime.power import calibrate, fit, meters
from edge_runtime.power.base import Source
from edge_runtime.power.calibration import Calibration
from edge_runtime.power.ina219 import Ina219
from edge_runtime.power.meters import NAMES, Bench, open_meter
from edge_runtime.power.modelled import instruction_pj, source_of
from edge_runtime.rig import ina
from edge_runtime.rig.bench import GAIN, HOST_W, OFFSET_UV
from edge_runtime.rig.i2c_bus import EmulatedBus
from edge_runtime.rig.load import Load, VirtualClock


def command(module: ModuleType, *arguments: str) -> int:
    parser = console.Parser(prog="edge-runtime")
    module.add_arguments(parser)
    parser.set_defaults(run=module.run)
    return console.main(parser, arguments)


# --- meters ---


def test_meters_on_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever this machine has: every name is there, with a reading or with a reason."""
    assert command(meters, "--json", "--seconds", "0.1") == 0
    rows = json.loads(capsys.readouterr().out)["meters"]
    assert tuple(row["name"] for row in rows) == NAMES
    assert all(row["available"] or row["because"] for row in rows)
    modelled = rows[-1]
    assert modelled["source"] == "modelled"
    assert 0.54 <= modelled["power_w"] <= 0.70


def test_meters_on_the_emulated_bench(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert command(meters, "--json", "--emulated", "--seconds", "1.0") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["meters"]}
    for name in ("ina219", "ina226", "ina228", "ina3221"):
        assert rows[name]["source"] == "emulated"
        assert "EMULATED" in rows[name]["domain"]
        assert rows[name]["power_w"] == pytest.approx(0.744, rel=0.2)  # a second, on a busy machine
    assert all(rows[name]["available"] for name in NAMES if name != "rapl")
    if find_spec("pyRAPL") is not None:
        assert rows["rapl"]["source"] == "emulated"
        assert rows["rapl"]["power_w"] == pytest.approx(HOST_W, rel=0.2)
    else:
        assert "pip install 'edge-runtime[rapl]'" in rows["rapl"]["because"]
    assert command(meters, "--emulated", "--seconds", "0.2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(NAMES)
    assert any(" W at 5.0" in line and "(emulated)" in line for line in lines)


def test_another_chip_at_the_address_is_named() -> None:
    clock = VirtualClock()
    chips = {0x40: ina.Ina226(Load([(1, 0.1)]), lambda: clock.seconds)}
    bench = Bench(bus=EmulatedBus(chips, clock.sleep))
    for name in ("ina219", "ina228"):
        assert open_meter(name, bench).unavailable == "ina226 answers at address 0x40; give another --address"
    elsewhere = Bench(bus=EmulatedBus(chips), addresses={"ina3221": 0x41})
    assert "nothing answers at address 0x41" in str(open_meter("ina3221", elsewhere).unavailable)


def test_unknown_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Exception, match="meter 'shunty': unknown; choose of rapl, "):
        open_meter("shunty")
    assert command(meters, "--profile", "zx81") == 2
    assert "board profile 'zx81': unknown" in capsys.readouterr().err


# --- calibrate ---


def test_calibrate_finds_the_emulated_front_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "ina219.json"
    options = ["--emulated", "--yes", "--load-ohm", "10", "--load-error", "0.001", "--output", str(path)]
    assert command(calibrate, *options) == 0
    captured = capsys.readouterr()
    assert "1 of 2: disconnect" in captured.err
    assert "2 of 2: connect the known load" in captured.err
    found = Calibration.load(path)
    assert abs(found.offset_uv - OFFSET_UV) <= found.offset_error_uv
    assert abs(found.gain - GAIN) <= found.gain_error < 0.012
    assert "an emulated bench" in found.conditions
    assert captured.out.startswith("offset +60")


def test_calibrate_does_not_go_on_where_nobody_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both readings of an unattended bench would be of the same load."""
    options = ("--emulated", "--load-ohm", "10", "--output", str(tmp_path / "c.json"))
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert command(calibrate, *options) == 2
    assert "nobody is there to press Enter" in capsys.readouterr().err
    assert not (tmp_path / "c.json").exists()
    monkeypatch.setattr("sys.stdin", io.StringIO("\n\n"))
    assert command(calibrate, *options) == 0
    assert "next: edge-runtime meters --calibration" in capsys.readouterr().out


@pytest.mark.parametrize("amps", [0.1, 0.5, 2.0])
@pytest.mark.parametrize(("offset_uv", "gain"), [(0.0, 1.0), (-90.0, 0.97), (95.0, 1.03)])
def test_solve_recovers_offset_and_gain(amps: float, offset_uv: float, gain: float) -> None:
    clock = VirtualClock()
    chip = ina.Ina219(Load([(1, 0.0)]), lambda: clock.seconds, offset_uv=offset_uv, gain=gain)
    driver = Ina219(EmulatedBus({0x40: chip}, clock.sleep), Calibration(0.1), average=16)
    empty = calibrate.measure(driver, clock.sleep)
    chip.connect(Load([(1, amps)]))
    loaded = calibrate.measure(driver, clock.sleep)
    known = calibrate.known_load(None, amps, 0.001)
    found = calibrate.solve(empty, loaded, known, 0.1, driver.voltage_error)
    assert abs(found.offset_uv - offset_uv) <= found.offset_error_uv
    assert abs(found.gain - gain) <= found.gain_error + 10 / (amps * 1e5)
    assert found.amps(loaded.uv) == pytest.approx(amps, rel=1e-6)


def test_calibrate_refuses_what_makes_no_sense(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.json"
    common = ["--emulated", "--yes", "--output", str(path)]
    for options, code, says in (
        ([], 2, "give the known load"),
        (["--load-ohm", "10", "--load-amps", "1"], 2, "one of them"),
        (["--load-ohm", "0"], 2, "'0' is no number above zero"),
        (["--load-ohm", "nan"], 2, "'nan' is no number above zero"),
        (["--load-ohm", "10", "--shunt", "0"], 2, "'0' is no number above zero"),
        (["--load-ohm", "10", "--address", "0x99"], 2, "'0x99' is no address from 0x08 to 0x77"),
        (["--load-ohm", "10", "--address", "zz"], 2, "no address"),
        (["--load-amps", "0.2", "--load-error", "-1"], 2, "a share below 0.5"),
        (["--load-ohm", "5000"], 1, "take one that draws 0.01 A or more"),
        (["--load-ohm", "10", "--shunt", "0.01"], 1, "times the known current; check --shunt"),
        (["--load-ohm", "10", "--meter", "ina226", "--calibration", "/nonesuch"], 2, "make one with"),
    ):
        assert command(calibrate, *common, *options) == code
        assert says in capsys.readouterr().err
    assert command(calibrate, "--yes", "--load-ohm", "10", "--output", str(path), "--i2c", "77") == 3
    assert "there is no /dev/i2c-77" in capsys.readouterr().err
    assert not path.exists()


# --- fit ---

TRUTH = {
    "idle": 0.62,
    "busy": 0.35,
    "integer": 60e-12,
    "load_store": 170e-12,
    "branch": 90e-12,
    "floating": 0.0,
}


def session(seed: int, windows: int = 200, noise: float = 0.002) -> list[dict[str, float]]:
    """A synthetic board: idle, busy and per-class energies, 0.2 % noise a window."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(windows):
        seconds, busy = rng.uniform(8, 12), rng.uniform(0, 1)
        busy_s = seconds * busy
        ipc = rng.uniform(0.4, 1.4)
        mix = rng.dirichlet((4, 3, 2))
        counts = dict(zip(("integer", "load_store", "branch"), mix * busy_s * 1e9 * ipc, strict=True))
        energy = TRUTH["idle"] * seconds + TRUTH["busy"] * busy_s
        energy += sum(TRUTH[name] * n for name, n in counts.items())
        row = {
            "seconds": seconds,
            "busy_s": busy_s,
            "energy_j": energy * (1 + rng.normal(0, noise)),
            **counts,
        }
        rows.append({k: float(v) for k, v in row.items()})
    return rows


def test_fit_recovers_a_synthetic_board_within_its_stated_error() -> None:
    held = total = 0
    for seed in range(12):
        found = fit.fit([fit.Window(**row) for row in session(seed)])
        coefficients = {
            (TRUTH["idle"] * 1e3): found.idle_mw,
            (TRUTH["busy"] * 1e3): found.busy_core_mw,
            **{TRUTH[c] * 1e12: found.class_pj[c] for c in ("integer", "load_store", "branch")},
        }
        for truth, interval in coefficients.items():
            total += 1
            held += interval.low <= truth <= interval.high
            assert interval.middle == pytest.approx(truth, rel=0.06)
        assert found.holdout_error == pytest.approx(0.002, rel=0.5)
    assert held / total > 0.85


def test_fit_writes_a_profile_that_says_fitted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_PROFILES", str(tmp_path / "profiles"))
    path = tmp_path / "s.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in session(3)))
    conditions = '20 C, "performance" governor, INA219 no. 7'
    options = [str(path), "--profile", "zero2w", "--name", "zero-7", "--conditions", conditions]
    assert command(fit, *options, "--json") == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert document["windows"] == 200
    board = hw_profiles.board("zero-7")
    assert source_of(board) is Source.FITTED
    assert conditions in board.idle_mw.source
    assert "fitted here on 20" in board.idle_mw.source
    assert "hold-out error 0.1" in board.idle_mw.source
    assert board.load_store_pj.range.low <= 170 <= board.load_store_pj.range.high
    assert not board.floating_pj.range.known
    assert board.wake_us == hw_profiles.board("zero2w").wake_us
    # An instruction's own energy and its share of the busy time, over the session's mix.
    rows = session(3)
    n = sum(row[c] for row in rows for c in ("integer", "load_store", "branch"))
    beyond_idle = sum(row["energy_j"] - TRUTH["idle"] * row["seconds"] for row in rows)
    assert instruction_pj(board).middle == pytest.approx(beyond_idle / n * 1e12, rel=0.02)
    assert command(fit, *options) == 0
    assert "an instruction" in capsys.readouterr().out


def test_fit_without_counts_leaves_the_instruction_derived() -> None:
    """What bench_pi records on a board: idle and busy only."""
    rng = np.random.default_rng(1)
    windows = []
    for _ in range(60):
        busy_s = 10 * rng.uniform(0, 1)
        energy = (6.2 + 0.45 * busy_s) * (1 + rng.normal(0, 0.002))
        windows.append(fit.Window(seconds=10, energy_j=float(energy), busy_s=busy_s))
    found = fit.fit(windows)
    assert found.idle_mw.low <= 620 <= found.idle_mw.high
    assert found.busy_core_mw.low <= 450 <= found.busy_core_mw.high
    assert found.instruction_pj is None
    board = fit.fitted_board(hw_profiles.board("zero2w"), "x", found, "y", "2026-01-01")
    assert board.busy_core_mw.basis == "fitted"
    assert source_of(board) is Source.MODELLED
    assert instruction_pj(board).high < instruction_pj(hw_profiles.board("zero2w")).high


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("", 2, "0 windows are too few"),
        ("nonsense", 2, "each line holds"),
        ('{"seconds": 1}', 2, "line 1 is no window"),
        ('{"seconds": 1, "energy_j": -1, "busy_s": 0}', 2, "-1 is no quantity"),
        ('{"seconds": 0, "energy_j": 1, "busy_s": 0}', 2, "no time"),
        ('{"seconds": 1, "energy_j": 1, "busy_s": 0.5}\n' * 40, 1, "vary the work more"),
    ],
)
def test_fit_refuses_what_is_no_session(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, code: int, says: str
) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(text)
    assert (
        command(fit, str(path), "--name", "x", "--conditions", "y", "--output", str(tmp_path / "p")) == code
    )
    assert says in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


def test_fit_names_what_it_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(fit, str(tmp_path / "none"), "--name", "x", "--conditions", "y") == 2
    assert "No such file" in capsys.readouterr().err
    assert command(fit, "s", "--name", "../x", "--conditions", "y") == 2
    assert "take letters" in capsys.readouterr().err
