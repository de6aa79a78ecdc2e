"""`edge-runtime run` with every emulator on a pty, every file format, and a journal again: equal verdicts."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from edge_runtime.bundle import Bundle
from edge_runtime.recording import Recording
from edge_runtime.rig.rf_explorer import sweep_frame
from edge_runtime.scan import Axis, Scan
from edge_runtime.scanners import framed
from tests.conftest import RECORDINGS, ROOT, cli, loop_command, process

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


def answers(demo: Path, folder: Path, port: object, scanner: str, *options: object) -> list[str]:
    """The labels that the loop answered."""
    folder.mkdir(exist_ok=True)
    command = loop_command(demo, str(port), folder, "--scanner", scanner, "--json", *options)
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["label"] for line in (folder / "verdicts.jsonl").read_text().splitlines()]


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
