"""Bad input on the command line: one line that says what, where and what to do; the right exit code; nothing left."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from compile.demo.run import MODEL, PIPELINE, RECORDINGS
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BadInput
from edge_runtime.scan import Axis, Scan
from tests.conftest import ROOT, cli

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}

RUN = ("run", "--bundle", "{bundle}", "--port", "{pty}")

CASES = [
    # edge-runtime
    (("run", "--bundle", "{tmp}/no.edge", "--port", "x"), 2, "no.edge: No such file"),
    (("run", "--bundle", "{hurt}", "--port", "x"), 2, "damaged: its bytes do not match its digest"),
    (("run", "--bundle", "{text}", "--port", "x"), 2, "not an .edge file"),
    ((*RUN, "--scanner", "sonar"), 2, "'sonar': unknown; choose of"),
    ((*RUN, "--profile", "abacus"), 2, "'abacus': unknown; choose of"),
    ((*RUN, "--battery", "potato"), 2, "'potato': unknown; choose of"),
    ((*RUN[:4], "{tmp}/ttyNONE"), 3, "ttyNONE: No such file"),
    ((*RUN, "--journal", "{text}/journal"), 2, "journal: Not a directory; choose a writable --journal"),
    ((*RUN, "--verdicts", "{tmp}"), 2, "Is a directory; choose another file"),
    ((*RUN, "--scans", "many"), 2, "'many' is no whole number above zero; see edge-runtime run --help"),
    (("run",), 2, "the following arguments are required: --bundle, --port"),
    (("dance",), 2, "invalid choice: 'dance'"),
    (("rig", "sonar", "--recording", "{scans}"), 2, "rig sonar: unknown"),
    (("rig", "rf-explorer", "--recording", "{text}"), 2, "not a .scans file"),
    (("rig", "rf-explorer", "--recording", "{tmp}/no.scans"), 2, "no.scans: No such file"),
    (
        (*RUN[:4], "{tmp}/log?speed=x", "--scanner", "journal"),
        2,
        "log?speed=x: 'speed=x' is no speed of 0 to 1,000,000; give ?speed=1 for the recorded times",
    ),
    ((*RUN[:4], "{tmp}/log?speed=", "--scanner", "journal"), 2, "log?speed=: 'speed=' is no speed"),
    ((*RUN[:4], "{tmp}/log?fast=2", "--scanner", "journal"), 2, "'fast=2' is no speed"),
    ((*RUN[:4], "{tmp}/log?speed=-1", "--scanner", "journal"), 2, "'speed=-1' is no speed"),
    ((*RUN[:4], "{tmp}/log?speed=nan", "--scanner", "journal"), 2, "'speed=nan' is no speed"),
    ((*RUN, "--scanner", "journal?speed=x"), 2, "speed goes with the folder; give --scanner journal --port"),
    ((*RUN, "--scanner", "rf-explorer?speed=2"), 2, "'rf-explorer?speed=2': unknown; choose of"),
    (("journal", "verify", "{tmp}/none"), 2, "no *.edgej in it"),
    (("journal", "show", "{text}"), 2, "no *.edgej in it"),
]

COMPILE_CASES = [
    (("build", "{tmp}/no.txt", "-o", "{out}"), 2, "no.txt: No such file"),
    (("build", "{text}", "-o", "{out}"), 2, "not a model that is known"),
    (("build", "{model}", "--targets", "vax", "-o", "{out}"), 2, "target 'vax': unknown; choose of host"),
    (("build", "{model}", "--pipeline", "{pipeline}", "-o", "{out}"), 2, "give --data D.npz"),
    (("build", "{model}", "--pipeline", "{strange}", "--data", "{npz}", "-o", "{out}"), 2, "'telepathy'"),
    (("build", "{model}", "--pipeline", "{text}", "--data", "{npz}", "-o", "{out}"), 2, "not TOML"),
    (("build", "{model}", "--data", "{text}", "-o", "{out}"), 2, "not such a matrix"),
    (("build", "{model}", "--data", "{tmp}/no.npz", "-o", "{out}"), 2, "no.npz: No such file"),
    (("build", "{model}", "--targets", "host", "-o", "{tmp}/no/where.edge"), 2, "cannot be written"),
    (("build", "{model}", "--targets", "host", "-o", "{tmp}"), 2, "Is a directory"),
    (("features", "{text}", "--pipeline", "{pipeline}", "-o", "{out}"), 2, "not a .scans file"),
    (("features", "{scans}", "--pipeline", "{strange}", "-o", "{out}"), 2, "'telepathy'"),
    (("features", "{scans}", "--pipeline", "{narrow}", "-o", "{out}"), 2, "axis"),
    (("inspect", "{hurt}"), 2, "damaged"),
    (("verify", "{bundle}", "--data", "{text}"), 2, "not such a matrix"),
    (("extract", "{bundle}", "--target", "cortex-m4", "-o", "{out}"), 2, "holds nothing for cortex-m4, only"),
]


@pytest.fixture(scope="session")
def places(demo_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files that the cases name: good ones, and each kind of bad one."""
    folder = tmp_path_factory.mktemp("bad")
    data = bytearray(demo_path.read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "hurt.edge").write_bytes(data)
    (folder / "text").write_text("= not anything =\n")
    declared = PIPELINE.read_text()
    (folder / "strange.toml").write_text(declared + '\n[[features]]\nname = "esp"\nkernel = "telepathy"\n')
    (folder / "narrow.toml").write_text(declared.replace("points = 256", "points = 255"))
    np.savez(folder / "other.npz", features=np.zeros((3, 2)))
    return {
        "tmp": folder,
        "out": folder / "out",
        "bundle": demo_path,
        "hurt": folder / "hurt.edge",
        "text": folder / "text",
        "strange": folder / "strange.toml",
        "narrow": folder / "narrow.toml",
        "npz": demo_path.with_name("demo.npz"),
        "model": MODEL,
        "pipeline": PIPELINE,
        "scans": RECORDINGS,
        "pty": Path("/dev/ptmx"),
    }


def _check(module: str, words: tuple[str, ...], places: dict[str, Path], code: int, message: str) -> None:
    before = sorted(p.name for p in places["tmp"].iterdir())
    command = cli(*(word.format(**places) for word in words), module=module)
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=places["tmp"], env=ENVIRONMENT, check=False
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith("edge-")]
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert len(errors) == 1
    assert message in errors[0]
    assert sorted(p.name for p in places["tmp"].iterdir()) == before, "something was left behind"


@pytest.mark.parametrize(("words", "code", "message"), CASES)
def test_edge_runtime(places: dict[str, Path], words: tuple[str, ...], code: int, message: str) -> None:
    _check("edge_runtime.cli", words, places, code, message)


@pytest.mark.parametrize(("words", "code", "message"), COMPILE_CASES)
def test_edge_compile(places: dict[str, Path], words: tuple[str, ...], code: int, message: str) -> None:
    _check("compile.cli", words, places, code, message)


def test_a_scan_of_another_shape_is_refused_from_python(demo_bundle: Bundle) -> None:
    axis = Axis(demo_bundle.axis.start_hz, demo_bundle.axis.step_hz, 255)
    with pytest.raises(BadInput, match=r"scan: covers .*points=255.*; configure it so"):
        demo_bundle.infer(Scan(bytes(510), axis, 0))
    with pytest.raises(BadInput, match=r"features: 3 given, the model takes \d+"):
        demo_bundle.scores([1.0, 2.0, 3.0])
