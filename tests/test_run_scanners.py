"""`edge-runtime run` with every emulator on a pty, every file format, and a journal again: equal verdicts.

What cannot sweep the demo's 250 kHz gets a small bundle for its own axis, or scans are resampled where declared.
"""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightgbm
import pytest

from compile.build import build
from compile.features import compute, features_to_npz, power_of
from compile.pipeline import Pipeline
from edge_runtime.bundle import Bundle, pack
from edge_runtime.recording import Origin, Recording, Row, Split
from edge_runtime.rig.rf_explorer import sweep_frame
from edge_runtime.scan import Axis, Scan
from edge_runtime.scanners import framed
from tests.conftest import RECORDINGS, ROOT, cli, loop_command, process
from tests.scanner_streams import STREAMS, powers_of

COUNT = 12
Codes = Sequence[bytes]


def _powers(codes: bytes) -> bytes:
    return b"".join((-50 * code).to_bytes(2, "little", signed=True) for code in codes)


def _text(axis: Axis, rows: Codes) -> bytes:
    high = axis.start_hz + axis.step_hz * axis.points
    head = f"2026-11-24, 10:00:00, {axis.start_hz}, {high}, {axis.step_hz}, 8, "
    return "".join(head + ", ".join(f"{-code / 2:.1f}" for code in row) + "\n" for row in rows).encode()


def _soapy(axis: Axis, rows: Codes) -> bytes:
    high = float(axis.start_hz + axis.step_hz * axis.points)
    head = struct.pack("<BdddddQQ2x", 2, 0, 0, axis.start_hz, high, axis.step_hz, 8, 4 * axis.points)
    return b"".join(b"SDRFF" + head + struct.pack(f"<{len(r)}f", *(-c / 2 for c in r)) for r in rows)


def _tinysa(_: Axis, rows: Codes) -> bytes:
    points = (b"".join(struct.pack("<BH", 0x78, 32 * 174 - 16 * c) for c in row) for row in rows)
    return b"".join(b"{" + body + b"}" for body in points)


def _framed(axis: Axis, rows: Codes) -> bytes:
    head = framed.AXIS.pack(axis.start_hz, axis.step_hz, axis.points)
    return b"".join(framed.frame(framed.SWEEP, k, 0, head + _powers(row)) for k, row in enumerate(rows))


def _rf_explorer(axis: Axis, rows: Codes) -> bytes:
    line = b"#C2-F:%07d,%07d,0000,-120,%04d,0,000,0240000,0960000,0100000,00003,0000,000\r\n"
    return line % (axis.start_hz // 1000, axis.step_hz, axis.points) + b"".join(map(sweep_frame, rows))


FORMATS: dict[str, Callable[[Axis, Codes], bytes]] = {
    "rtl-power": _text,
    "soapy-binary": _soapy,
    "tinysa-ultra": _tinysa,
    "framed": _framed,
    "rf-explorer": _rf_explorer,
}


def ran(
    bundle: Path, folder: Path, port: object, scanner: str, *options: object
) -> tuple[list[str], dict[str, Any]]:
    """The labels that the loop answered, and its summary."""
    folder.mkdir(exist_ok=True)
    command = loop_command(bundle, str(port), folder, "--scanner", scanner, "--json", *options)
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    lines = (folder / "verdicts.jsonl").read_text().splitlines()
    return [json.loads(line)["label"] for line in lines], json.loads(done.stdout)


def answers(bundle: Path, folder: Path, port: object, scanner: str, *options: object) -> list[str]:
    """The labels that the loop answered."""
    return ran(bundle, folder, port, scanner, *options)[0]


def expected(bundle: Bundle, codes: Codes) -> list[str]:
    """What the bundle answers without a port."""
    return [bundle.label_name(bundle.infer(Scan(_powers(row), bundle.axis, 0)).label) for row in codes]


@pytest.mark.parametrize("name", ["tinysa-ultra", "framed"])
def test_emulators(
    name: str, demo_path: Path, demo_bundle: Bundle, demo_recording: Recording, tmp_path: Path
) -> None:
    codes = [row.codes for row in demo_recording.rows[:COUNT]]
    with process(cli("rig", name, "--recording", RECORDINGS, "--rate", 40)) as rig:
        assert rig.stdout is not None
        port = rig.stdout.readline().strip()
        assert answers(demo_path, tmp_path / "run", port, name, "--scans", COUNT) == expected(
            demo_bundle, codes
        )


@pytest.mark.parametrize("name", FORMATS)
def test_files(
    name: str, demo_path: Path, demo_bundle: Bundle, demo_recording: Recording, tmp_path: Path
) -> None:
    codes = [row.codes for row in demo_recording.rows[:: len(demo_recording.rows) // COUNT]]
    path = tmp_path / "recorded"
    path.write_bytes(FORMATS[name](demo_bundle.axis, codes))
    assert answers(demo_path, tmp_path / "run", path, name) == expected(demo_bundle, codes)


def test_a_journal_again(
    demo_path: Path, demo_bundle: Bundle, demo_recording: Recording, tmp_path: Path
) -> None:
    codes = [row.codes for row in demo_recording.rows]
    path = tmp_path / "recorded"
    path.write_bytes(_rf_explorer(demo_bundle.axis, codes[:: len(codes) // 100]))
    first = answers(demo_path, tmp_path / "run", path, "rf-explorer")
    kept = [label for label in first if label == "UNKNOWN"]
    assert kept
    assert answers(demo_path, tmp_path / "again", tmp_path / "run" / "journal", "journal") == kept


# Another axis than the bundle's


def declaring(bundle: Bundle, mode: str, path: Path) -> Path:
    """The same bundle with a contract that declares how scans are resampled."""
    contract = bundle.manifest["contract"] | {"resample": mode}
    entries = {name: bundle.entry(name) for name in bundle.entries}
    path.write_bytes(pack(bundle.manifest | {"contract": contract}, entries))
    return path


def onto(have: Axis, want: Axis, row: bytes, mode: str) -> bytes:
    """The codes for `want` of a sweep on `have`, point by point; a lower code is a higher power."""
    out = []
    for k in range(want.points):
        place = want.start_hz + k * want.step_hz
        away = [have.start_hz + i * have.step_hz - place for i in range(have.points)]
        near = [row[i] for i, hz in enumerate(away) if -want.step_hz <= 2 * hz < want.step_hz]
        nearest = row[min(range(have.points), key=lambda i: (abs(away[i]), -i))]
        out.append(min(near) if mode == "peak" and near else nearest)
    return bytes(out)


OTHERS = {
    "finer": (lambda want: Axis(want.start_hz - 1000, 400, 640), "POINTS"),
    "coarser": (lambda want: Axis(want.start_hz - 3000, 2500, 110), "POINTS"),
    "shifted": (lambda want: Axis(want.start_hz - 2500, 1000, 256), "AXIS"),
}


@pytest.mark.parametrize(
    ("other", "mode", "name"),
    [
        ("finer", "peak", "framed"),
        ("coarser", "nearest", "rtl-power"),
        ("shifted", "nearest", "soapy-binary"),
    ],
)
def test_another_axis_is_answered_where_the_contract_declares_it_and_refused_where_not(
    other: str,
    mode: str,
    name: str,
    demo_path: Path,
    demo_bundle: Bundle,
    demo_recording: Recording,
    tmp_path: Path,
) -> None:
    make, reason = OTHERS[other]
    want, have = demo_bundle.axis, make(demo_bundle.axis)
    own = [row.codes for row in demo_recording.rows[:: len(demo_recording.rows) // COUNT]]
    swept = [onto(want, have, row, "nearest") for row in own]
    path = tmp_path / "recorded"
    path.write_bytes(FORMATS[name](have, swept))
    bundle = declaring(demo_bundle, mode, tmp_path / "declared.edge")
    labels, summary = ran(bundle, tmp_path / "declared", path, name)
    assert labels == expected(demo_bundle, [onto(have, want, row, mode) for row in swept])
    assert len(set(labels)) > 1
    assert (summary["events"]["RESAMPLED"], summary["refused"].get(reason)) == (1, None)
    labels, summary = ran(demo_path, tmp_path / "refused", path, name)
    assert set(labels) == {"UNKNOWN"}
    assert summary["refused"] == {reason: len(swept)}
    assert "RESAMPLED" not in summary["events"]


def test_an_axis_within_the_tolerance_is_taken_as_it_is(
    demo_bundle: Bundle, demo_recording: Recording, tmp_path: Path
) -> None:
    codes = [row.codes for row in demo_recording.rows[:COUNT]]
    axis = demo_bundle.axis
    path = tmp_path / "recorded"
    path.write_bytes(_rf_explorer(Axis(axis.start_hz, axis.step_hz + 3, axis.points), codes))
    bundle = declaring(demo_bundle, "peak", tmp_path / "declared.edge")
    labels, summary = ran(bundle, tmp_path / "run", path, "rf-explorer")
    assert labels == expected(demo_bundle, codes)
    assert "RESAMPLED" not in summary["events"]


# Scanners that cannot sweep the demo's axis: a small bundle for theirs

LEVELS = """
[contract]
points = {points}
start_hz = {start_hz}
step_hz = {step_hz}
axis_tolerance_hz = {tolerance_hz}
power_min_cdbm = -15_000
power_max_cdbm = 1_000
max_age_ms = 10_000

[[features]]
name = "strongest"
kernel = "peak"
reference = "none"
"""


def small_bundle(folder: Path, axis: Axis, tolerance_hz: int, between_cdbm: int) -> Path:
    """A bundle on any axis that tells sweeps whose strongest point is under a level from those above it."""
    declared = folder / "levels.toml"
    declared.write_text(
        LEVELS.format(
            points=axis.points, start_hz=axis.start_hz, step_hz=axis.step_hz, tolerance_hz=tolerance_hz
        )
    )
    rows = []
    for k in range(240):
        code = 1 + k * 37 % 255
        codes = bytes(code - (i == k % axis.points) for i in range(axis.points))  # never all equal
        label = int(-50 * min(codes) > between_cdbm)
        split = Split.CALIBRATION if k % 4 else Split.TRAIN
        rows.append(Row(label, 0, split, Origin.REMIX, 1000, codes))
    captures = [{"name": "none", "sha256": "", "label": "weak", "session": "s"}]
    recording = Recording(axis, ["weak", "strong"], captures, rows)
    pipeline = Pipeline.load(declared)
    features_to_npz(recording, pipeline, folder / "levels.npz")
    model = lightgbm.train(
        {"objective": "binary", "min_data_in_leaf": 1, "verbose": -1, "num_threads": 1},
        lightgbm.Dataset(compute(pipeline, power_of(recording)), [row.label for row in rows]),
        num_boost_round=30,
    )
    path = folder / "levels.edge"
    build(model, pipeline=declared, data=folder / "levels.npz", targets=["host"]).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "between_cdbm"),
    [("hackrf-sweep", -2800), ("hackrf-binary", -2600), ("ath-spectral", -8770), ("uniden", -4400)],
)
def test_what_sweeps_an_axis_of_its_own(name: str, between_cdbm: int, tmp_path: Path) -> None:
    path, scans = recorded(name, tmp_path)
    tolerance_hz = 6_500_000 if name == "uniden" else 0  # it hops by a megahertz: seven channels, not twelve
    bundle = small_bundle(tmp_path, scans[0].axis, tolerance_hz, between_cdbm)
    labels, summary = ran(bundle, tmp_path / "run", path, name)
    own = Bundle.open(bundle)
    answered = 7 if name == "uniden" else COUNT
    wanted = [own.label_name(own.infer(scan._replace(axis=own.axis)).label) for scan in scans[:answered]]
    assert labels[:answered] == wanted
    assert set(wanted) == {"weak", "strong"}
    assert summary["refused"] == ({"AXIS": COUNT - answered} if answered < COUNT else {})


def test_one_channel_is_refused_where_the_bundle_wants_a_sweep(demo_path: Path, tmp_path: Path) -> None:
    path, scans = recorded("uniden", tmp_path)
    labels, summary = ran(demo_path, tmp_path / "run", path, "uniden")
    assert labels == ["UNKNOWN"] * len(scans)
    assert summary["refused"] == {"POINTS": len(scans)}


def recorded(name: str, folder: Path) -> tuple[Path, list[Scan]]:
    """A file of a protocol's stream under test, and the scans in it."""
    stream = next(s for s in STREAMS if s.name == name)
    frames = stream.frames(COUNT)
    data = stream.opening + b"".join(frame for frame, _ in frames)
    decoder = stream.make()
    scans = [e for e in [*decoder.feed(data, 0), *decoder.end(0)] if type(e) is Scan]
    assert powers_of(scans) == [power for _, power in frames]
    path = folder / "recorded"
    path.write_bytes(data)
    return path, scans
