"""From IQ to sweeps: against closed forms, over odd captures, and refused where a user can mend it."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compile.demo import derive, remix
from compile.demo.derive import CLASSES, Source, assign_splits, quota, share_that_fits
from compile.demo.remix import ABOVE_FLOOR_DB, SHIFT_HZ, SNR_DB, burst_and_noise, find_stretches, peak_of
from compile.demo.sweeps import (
    BIN_HZ,
    NOISE_GAIN,
    POINTS,
    SAMPLE_RATE_HZ,
    SWEEP_SAMPLES,
    Iq,
    fine_frames,
    frames,
    read_iq,
    sweep,
)
from edge_runtime.errors import BadInput
from edge_runtime.recording import Capture, Origin, Recording, Split
from tests import captures

QUICK = settings(max_examples=25, deadline=None, derandomize=True, database=None)
KIND = CLASSES[0]


def decibels(ratio: float) -> float:
    return float(10 * np.log10(ratio))


def tone(amplitude: float, hz: float) -> Iq:
    return np.asarray(amplitude * np.exp(2j * np.pi * hz / SAMPLE_RATE_HZ * np.arange(SWEEP_SAMPLES)))


@QUICK
@given(st.floats(0.001, 1), st.floats(-120_000, 120_000))
def test_a_tone_has_the_power_of_the_closed_form(amplitude: float, hz: float) -> None:
    """The Hann window's response, sinc(d) / (1 - d^2) at d bins from the centre (Harris, Proc. IEEE 66, 1978)."""
    d = abs(hz / BIN_HZ - round(hz / BIN_HZ))
    expected_dbm = decibels((amplitude * np.sinc(d) / (1 - d * d)) ** 2)
    found = sweep(tone(amplitude, hz))
    assert -min(found) / 2 == pytest.approx(expected_dbm, abs=0.26)
    # Half a point, and half of one of the eight bins that make a point.
    assert abs(found.index(min(found)) - POINTS / 2 - hz * POINTS / SAMPLE_RATE_HZ) <= 0.5 + 0.5 / 8


def test_white_noise_has_the_power_of_the_closed_form() -> None:
    noise = remix.white_noise(SWEEP_SAMPLES * 4, 0.01, np.random.default_rng(1))
    assert decibels(fine_frames(noise).mean()) == pytest.approx(decibels(0.01 * NOISE_GAIN), abs=0.1)
    assert remix.noise_floor(noise) == pytest.approx(0.01, rel=0.12)


def test_powers_out_of_a_bytes_range_are_clipped() -> None:
    assert set(sweep(np.zeros(SWEEP_SAMPLES, np.complex128))) == {255}
    assert min(sweep(tone(10, 0))) == 0


@pytest.fixture(scope="module")
def capture() -> Iq:
    return read_iq(captures.cu8(captures.keyed_carrier(1)))


@QUICK
@given(st.integers(0, 2**32))
def test_a_remix_keeps_the_burst_and_buries_the_receiver(capture: Iq, seed: int) -> None:
    found = find_stretches(capture)
    burst, noise = burst_and_noise(capture, found, np.random.default_rng(seed))
    noise_power = float((np.abs(noise) ** 2).mean())
    assert decibels(noise_power / captures.FLOOR) >= 10
    # The same window, as it was: the stream's first draws choose it.
    window = remix.cut(capture, found.active, np.random.default_rng(seed))
    before, after = (frames(iq).max(axis=0) for iq in (window, burst))
    (peak, from_hz), (_, to_hz) = peak_of(before), peak_of(after)
    assert abs(to_hz - from_hz) <= SHIFT_HZ + SAMPLE_RATE_HZ / POINTS
    assert SNR_DB[0] - 0.5 <= decibels(peak / noise_power / NOISE_GAIN) <= SNR_DB[1] + 0.5
    kept = float((np.abs(burst) ** 2).sum() / (np.abs(window) ** 2).sum())
    assert 0.98 < kept < 1.001


@QUICK
@given(st.floats(-125_000, 125_000), st.integers(0, 2**32))
def test_a_move_keeps_energy_and_its_bounds(peak_hz: float, seed: int) -> None:
    iq = tone(0.5, peak_hz)
    moved = remix.moved(iq, peak_hz, np.random.default_rng(seed))
    turn = np.angle(np.vdot(iq[1:] * iq[:-1].conj(), moved[1:] * moved[:-1].conj()))
    shift_hz = turn * SAMPLE_RATE_HZ / (2 * np.pi)
    assert abs(shift_hz) <= SHIFT_HZ + 1
    assert abs(peak_hz + shift_hz) <= max(remix.EDGE_HZ, abs(peak_hz)) + 1
    assert np.vdot(moved, moved).real == pytest.approx(np.vdot(iq, iq).real)


def test_a_steady_line_and_another_transmitter_stay_behind(capture: Iq) -> None:
    """The carrier is at 30 kHz: a line 20 kHz from it is notched, a second carrier 70 kHz away is cut off."""
    n = np.arange(len(capture))
    line = 0.02 * np.exp(2j * np.pi * 50_000 / SAMPLE_RATE_HZ * n)
    other = captures.keyed_carrier(2, carrier_hz=-40_000)[: len(capture)] / 4
    found = find_stretches(capture + line + other)
    assert found.active
    assert min(abs(f - 50_000) for f in found.lines_hz) < BIN_HZ
    seen = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        burst, noise = burst_and_noise(capture + line + other, found, rng)
        power = frames(burst).max(axis=0)
        peak, peak_hz = peak_of(power)
        hz = (np.arange(POINTS) - POINTS // 2) * SAMPLE_RATE_HZ / POINTS - peak_hz
        noise_mean = float((np.abs(noise) ** 2).mean()) * NOISE_GAIN
        assert power[np.abs(hz) > 55_000].max() < noise_mean
        seen += power[np.abs(hz - 20_000) < 800].max() < peak / 1000
    assert seen == 10


def test_signal_free_stretches_hold_no_burst(capture: Iq) -> None:
    found = find_stretches(capture)
    assert found.quiet
    assert found.silent
    assert max(found.silent) + SWEEP_SAMPLES <= len(capture) // 2
    assert min(found.active) > len(capture) // 2 - SWEEP_SAMPLES
    assert decibels(found.floor / captures.FLOOR) == pytest.approx(0, abs=ABOVE_FLOOR_DB - 10)


ODD = {
    "empty": b"",
    "one byte": b"\x80",
    "short": bytes(range(256)) * 10,
    "silent": b"\x80" * 300_000,
    "all zero": bytes(300_000),
    "full scale": b"\xff" * 300_001,
    "square": b"\x00\xff" * 150_000,
    "one sweep": captures.cu8(captures.keyed_carrier(3, sweeps=2)[SWEEP_SAMPLES:]),
    "noise": captures.cu8(captures.keyed_carrier(4, sweeps=8)[: 4 * SWEEP_SAMPLES]),
    "burst only": captures.cu8(captures.keyed_carrier(5)[2 * SWEEP_SAMPLES :]),
}


def run(folder: Path, out: Path, *options: str) -> int:
    return derive.main(["--captures", str(folder), "-o", str(out), *options])


def test_odd_captures_are_taken_for_what_they_give(tmp_path: Path) -> None:
    files = {name: (KIND, data) for name, data in ODD.items()}
    files["stranger"] = ("stranger", captures.cu8(captures.keyed_carrier(6)))
    files["twin"] = ("stranger", files["stranger"][1])
    assert run(captures.folder(tmp_path / "c", files), tmp_path / "o.scans", "--test") == 0
    recording = Recording.open(tmp_path / "o.scans")
    with (tmp_path / "o.csv").open(newline="") as table:
        rows = {row["capture"]: row for row in csv.DictReader(table)}
    for name in ("empty", "one byte", "short"):
        assert "shorter than one sweep" in rows[name]["note"]
    assert {rows[name]["note"] for name in ("silent", "all zero", "full scale")} == {"no active sweep"}
    assert "no active sweep" in rows["noise"]["note"]
    assert int(rows["noise"]["background"]) + int(rows["noise"]["quiet"]) > 0
    assert int(rows["one sweep"]["remix"]) > 0
    assert int(rows["one sweep"]["recorded"]) == 1  # there is but one
    assert rows["stranger"]["split"] == "unknown"
    assert rows["twin"]["note"] == "the same as stranger"
    assert {row["split"] for row in rows.values() if row["label"] == KIND} == {"test"}
    assert len({row.codes for row in recording.rows}) == len(recording.rows)
    for row in recording.rows:
        assert len(set(row.codes)) > 1


def sweeps_of(recording: Recording, name: str) -> list[tuple[Origin, bytes]]:
    index = [c["name"] for c in recording.captures].index(name)
    return [(row.origin, row.codes) for row in recording.rows if row.capture == index]


def test_more_captures_change_nothing_for_the_others(tmp_path: Path) -> None:
    files = {f"{k}.cu8": ("stranger", captures.cu8(captures.keyed_carrier(k))) for k in (1, 2)}
    more = files | {"0.cu8": (KIND, captures.cu8(captures.keyed_carrier(9)))}
    for name, some in (("a", files), ("b", files), ("c", more)):
        assert run(captures.folder(tmp_path / name, some), tmp_path / f"{name}.scans") == 0
    assert (tmp_path / "a.scans").read_bytes() == (tmp_path / "b.scans").read_bytes()
    few, many = Recording.open(tmp_path / "a.scans"), Recording.open(tmp_path / "c.scans")
    for name in files:
        assert sweeps_of(few, name) == sweeps_of(many, name)


def sources(kinds: dict[str, int], sessions: int = 1) -> list[Source]:
    return [
        Source(
            Capture(
                name=f"{kind}{k}",
                sha256=f"{k * 7919 % 997:064x}",
                label=kind,
                session=f"{kind}/{k % sessions}",
            ),
            Path(f"{kind}{k}"),
            "",
        )
        for kind, count in kinds.items()
        for k in range(count)
    ]


@QUICK
@given(st.dictionaries(st.sampled_from([*CLASSES, "stranger"]), st.integers(1, 40)), st.integers(1, 4))
def test_splits_are_stratified(kinds: dict[str, int], sessions: int) -> None:
    made = sources(kinds, sessions)
    assign_splits(made)
    for kind, count in kinds.items():
        splits = [s.split for s in made if s.capture["label"] == kind]
        if kind not in CLASSES:
            assert set(splits) == {Split.UNKNOWN}
            continue
        assert Split.TRAIN in splits
        assert Split.UNKNOWN not in splits
        if count >= 3 * sessions:
            assert set(splits) == {Split.TRAIN, Split.CALIBRATION, Split.TEST}
        if count == 1:
            assert splits == [Split.TRAIN]


def test_a_large_set_is_thinned_to_the_limit() -> None:
    made = sources(dict.fromkeys((*CLASSES, *(f"stranger {k}" for k in range(60))), 12))
    assign_splits(made)
    sharers = Counter((s.capture["label"], s.split) for s in made)
    tables = (derive._REMIX, derive._RECORDED, derive._QUIET, derive._BACKGROUND)
    share = share_that_fits(made, sharers)
    rows = sum(
        quota(table, s.split, sharers[s.capture["label"], s.split], share) for s in made for table in tables
    )
    header = len(Recording(derive.AXIS, [], [s.capture for s in made], []).to_bytes())
    assert 0.8 * derive.LIMIT_BYTES < rows * (POINTS + 10) + header <= derive.LIMIT_BYTES
    with pytest.raises(BadInput, match=r"split captures\.csv"):
        share_that_fits(made * 40, sharers)


def _without_table(folder: Path) -> None:
    (folder / "captures.csv").unlink()


def _edit(folder: Path, old: str, new: str) -> None:
    table = folder / "captures.csv"
    table.write_text(table.read_text().replace(old, new))


BAD = {
    "no table": _without_table,
    "empty table": lambda f: (f / "captures.csv").write_text("file,label\n"),
    "binary table": lambda f: (f / "captures.csv").write_bytes(b"\xff\xfe\x00" * 9),
    "no hashes": lambda f: _edit(f, "sha256", "md5"),
    "another rate": lambda f: _edit(f, "250000", "1024000"),
    "reserved label": lambda f: _edit(f, KIND, "nothing"),
    "changed capture": lambda f: (f / "captures" / "1.cu8").write_bytes(b"\x80" * 70_000),
    "missing capture": lambda f: (f / "captures" / "1.cu8").unlink(),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = captures.folder(tmp_path / "c", {"1.cu8": (KIND, b"\x80" * 1000)})
    BAD[fault](folder)
    (tmp_path / "out").mkdir()
    assert run(folder, tmp_path / "out" / "o.scans") == 2
    error = capsys.readouterr().err
    assert error.startswith("derive_scans: capture")
    assert error.count("\n") == 1
    assert not list((tmp_path / "out").iterdir())


def test_the_script_runs_and_refuses_a_folder_that_is_not_there(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "scripts" / "derive_scans"
    captures.folder(tmp_path / "c", {"1.cu8": (KIND, b"\x80" * 1000)})
    for folder, out, code in (("c", "o.scans", 0), ("c", "none/o.scans", 2), ("nowhere", "o.scans", 2)):
        command = [sys.executable, script, "--captures", tmp_path / folder, "-o", tmp_path / out]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False)
