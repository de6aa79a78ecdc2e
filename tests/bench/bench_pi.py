"""A bundle's energy on a real Raspberry Pi: over SSH, by a meter on the board, to a result file and a page.

What is needed there: Python 3.11 and an SSH login; the runtime is copied into a folder of its own and removed
again. Everything that is measured runs on the board (edge_runtime/power/lab.py).
"""

from __future__ import annotations

import argparse
import html
import importlib.util
import io
import json
import shlex
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compile.demo.run import RECORDINGS
from compile.targets import HOST, target
from edge_runtime import console
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BadInput, HardwareUnavailable
from edge_runtime.power import lab
from edge_runtime.power.bench_arguments import add_bench_arguments, positive
from edge_runtime.power.fit import LEAST_WINDOWS
from edge_runtime.power.meters import NAMES
from tests.bench import lab_kernels

ROOT = Path(__file__).parents[2]
PURE_PYTHON = ("serial", "smbus2")
"""What the device needs of others; both are pure Python, so that they can travel along."""
PASSED_ON = (
    "meter",
    "windows",
    "seconds",
    "session_windows",
    "i2c",
    "address",
    "shunt",
    "max_amps",
    "profile",
)


class Remote:
    """A host behind `ssh`: commands run there, their output comes back."""

    def __init__(self, host: str, ssh: Sequence[str]) -> None:
        if host.startswith("-"):
            raise BadInput(f"host {host!r}: not a host; give user@name")
        self._command = [*ssh, host]
        self.host = host

    def run(self, script: str, data: bytes = b"", timeout_s: float = 600) -> str:
        """Run a shell script there. Raises HardwareUnavailable with its last line where it fails."""
        try:
            done = subprocess.run(
                [*self._command, script], input=data, capture_output=True, check=False, timeout=timeout_s
            )
        except FileNotFoundError as e:
            raise BadInput(f"bench_pi: no {self._command[0]}; apt-get install openssh-client") from e
        except subprocess.TimeoutExpired as e:
            raise HardwareUnavailable(f"{self.host}: did not end in {timeout_s:.0f} s") from e
        if done.returncode:
            last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no word"])[-1]
            raise HardwareUnavailable(f"{self.host}: {last}")
        return done.stdout.decode()


def package(bundle: Path, recording: Path, calibration: Path | None, more: Mapping[str, bytes]) -> bytes:
    """The runtime, what it needs, and the work, as a tar file. more: files of the work, by name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name in ("edge_runtime", "hw_profiles"):
            tar.add(ROOT / name, name, filter=_no_bytecode)
        for name in PURE_PYTHON:
            spec = importlib.util.find_spec(name)
            if spec is not None and spec.origin is not None:
                tar.add(Path(spec.origin).parent, name, filter=_no_bytecode)
        tar.add(bundle, "work/bundle.edge")
        tar.add(recording, "work/recording.scans")
        if calibration is not None:
            tar.add(calibration, "work/calibration.json")
        for name, data in more.items():
            member = tarfile.TarInfo(f"work/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _no_bytecode(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    member.uid = member.gid = 0
    return None if "__pycache__" in member.name else member


def session(args: argparse.Namespace) -> dict[str, Any]:
    """Copy, measure there, bring the document back, tidy up."""
    Bundle.open(args.bundle)  # a broken one is told before anything travels
    if 0 < args.session_windows < LEAST_WINDOWS:
        raise BadInput(
            f"bench_pi: {args.session_windows} session windows are too few to fit; take {LEAST_WINDOWS} or more"
        )
    remote = Remote(args.host, shlex.split(args.ssh))
    python = shlex.quote(args.python)
    version = remote.run(f"{python} -c 'import sys; print(sys.version_info >= (3, 11))'", timeout_s=60)
    if version.strip() != "True":
        raise HardwareUnavailable(
            f"{args.host}: {args.python} is older than 3.11; name another with --python"
        )
    kernels = _kernels(args, remote) if args.session_windows else {}
    folder = remote.run("mktemp -d", timeout_s=60).strip()
    if not folder.startswith("/"):  # it is removed again in the end: nothing else must ever stand here
        raise HardwareUnavailable(f"{args.host}: mktemp -d gave {folder!r} and no folder")
    place = shlex.quote(folder)
    try:
        remote.run(f"tar -xz -C {place}", package(args.bundle, args.recording, args.calibration, kernels))
        command = [args.python, "-m", "edge_runtime.power.lab", *_lab_arguments(args)]
        seconds = (2 * args.windows + args.session_windows) * (args.seconds + 1) + 120
        document: dict[str, Any] = json.loads(
            remote.run(f"cd {place} && PYTHONPATH=. {shlex.join(command)}", timeout_s=seconds)
        )
    finally:
        remote.run(f"rm -rf {place}", timeout_s=60)
    return {"host": args.host, "date": time.strftime("%Y-%m-%d %H:%M:%S"), **document}


def _kernels(args: argparse.Namespace, remote: Remote) -> dict[str, bytes]:
    """The session's workloads for the machine there, with what they execute."""
    machine = remote.run("uname -m", timeout_s=60).strip()
    if machine != lab_kernels.COUNTED_ON and not args.emulated:
        raise HardwareUnavailable(
            f"{args.host}: is {machine}; --session-windows needs {lab_kernels.COUNTED_ON}, a 64-bit system, "
            "for its instructions are counted"
        )
    return lab_kernels.files(target(HOST.get(machine, machine)))


def session_lines(document: dict[str, Any]) -> str:
    """The session as `edge-runtime fit` reads it: what it is, then a window a line."""
    before, after = document["before"], document["after"]
    about = {
        "source": document["source"],
        "board": before["board"],
        "meter": f"{document['meter']}: {document['domain']}",
        "meter_error": document["meter_error"],
        "date": document["date"],
        "conditions": f"governor {before['governor']}, {before['celsius']} to {after['celsius']} C, "
        f"throttled {after['throttled']}",
        "doubts": document["doubts"],
    }
    return "".join(json.dumps(line) + "\n" for line in ({"about": about}, *document["session"]))


def _lab_arguments(args: argparse.Namespace) -> list[str]:
    options = ["--bundle", "work/bundle.edge", "--recording", "work/recording.scans"]
    for name in PASSED_ON:
        value = getattr(args, name)
        if value is not None:
            options += [f"--{name.replace('_', '-')}", str(value)]
    if args.calibration is not None:
        options += ["--calibration", "work/calibration.json"]
    return [*options, *(["--emulated"] if args.emulated else [])]


WIDTH, HEIGHT, LEFT, BOTTOM = 640, 260, 60, 30


def plot(windows: Sequence[dict[str, Any]]) -> str:
    """Mean power of every window in turn, idle and at work, as SVG."""
    values = [window[side]["watts"] for window in windows for side in ("idle", "work")]
    top = 1.1 * max(values)
    step = (WIDTH - LEFT) / len(values)
    bars = []
    for k, watts in enumerate(values):
        height = (HEIGHT - BOTTOM) * watts / top
        shade = "#bbb" if k % 2 == 0 else "#36c"
        bars.append(
            f'<rect x="{LEFT + k * step + 2:.1f}" y="{HEIGHT - BOTTOM - height:.1f}" width="{step - 4:.1f}" '
            f'height="{height:.1f}" fill="{shade}"><title>{watts:.4f} W</title></rect>'
        )
    ticks = [
        f'<text x="{LEFT - 6}" y="{(HEIGHT - BOTTOM) * (1 - f) + 4:.1f}" text-anchor="end">{top * f:.2f} W</text>'
        for f in (0.25, 0.5, 0.75)
    ]
    foot = f'<text x="{LEFT}" y="{HEIGHT - 8}">windows in turn: grey without, blue with inference</text>'
    body = "".join([*bars, *ticks, foot])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-size="12" font-family="sans-serif">{body}</svg>'
    )


def page(document: dict[str, Any]) -> str:
    """The result for people: figures, doubts, plot."""
    rows = [f"<tr><th>{html.escape(k)}<td>{html.escape(v)}" for k, v in facts(document)]
    doubts = "".join(f"<li>{html.escape(d)}" for d in document["doubts"]) or "<li>none"
    return (
        f'<!doctype html><meta charset="utf-8"><title>{html.escape(document["host"])}</title>'
        "<style>body{font-family:sans-serif;max-width:45em;margin:2em auto}th{text-align:left}</style>"
        f"<h1>Energy an inference, {document['source']}</h1><table>{''.join(rows)}</table>"
        f"<h2>Doubts</h2><ul>{doubts}</ul>{plot(document['windows'])}\n"
    )


def facts(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and value of what was found, for page and terminal."""

    def figure(name: str) -> str:
        low, high = document[f"{name}_interval"]
        return (
            f"{document[name]:.4g} uJ (95 %: {low:.4g} to {high:.4g}), median of {len(document['windows'])}"
        )

    return [
        ("board", f"{document['before']['board']} at {document['host']}, {document['date']}"),
        ("meter", f"{document['meter']} ({document['source']}): {document['domain']}"),
        ("above idle, an inference", figure("uj_per_inference_above_idle")),
        ("the same, mean by pairs", document["by_pairs"]["text"]),
        ("gross, an inference", figure("uj_per_inference_gross")),
        ("time an inference", f"{document['us_per_inference']:.4g} us"),
        ("idle", f"{document['idle_w']:.4g} W"),
        ("bundle", document["bundle"]),
    ]


def report(document: dict[str, Any]) -> dict[str, Any]:
    """The document that every benchmark prints with --json."""
    shortest = min(w[side]["seconds"] for w in document["windows"] for side in ("idle", "work"))
    windows, doubts = len(document["windows"]), len(document["doubts"])
    goals = [
        ("windows a side", windows, "", lab.LEAST_WINDOWS, windows >= lab.LEAST_WINDOWS),
        ("shortest window", shortest, "s", lab.LEAST_S, shortest >= lab.LEAST_S),
        ("doubts", doubts, "", 0, doubts == 0),
    ]
    return {
        "goals": [dict(zip(("name", "value", "unit", "goal", "met"), goal, strict=True)) for goal in goals],
        "rows": document["windows"],
        "machine": document["before"]["board"],
        "result": {k: v for k, v in document.items() if k != "windows"},
    }


def parser() -> console.Parser:
    """The command line."""
    top = console.Parser(prog="scripts/bench_pi", description=__doc__)
    top.add_argument("host", help="as ssh takes it: pi@raspberrypi.local")
    top.add_argument("--bundle", type=Path, required=True, help="the .edge file")
    top.add_argument("--recording", type=Path, default=RECORDINGS, help="sweeps to infer on (the demo's)")
    top.add_argument("--ssh", default="ssh -o BatchMode=yes", help="how to get there (%(default)s)")
    top.add_argument("--python", default="python3", help="the Python there (%(default)s)")
    top.add_argument("--meter", default="ina219", choices=NAMES, help="on the board (%(default)s)")
    top.add_argument("--windows", type=int, default=lab.LEAST_WINDOWS, help="a side (%(default)s)")
    top.add_argument("--seconds", type=positive, default=lab.LEAST_S, help="a window (%(default)s)")
    top.add_argument(
        "--session-windows",
        type=int,
        default=0,
        metavar="N",
        help="also record N windows for edge-runtime fit (30 or more; 60 are better)",
    )
    add_bench_arguments(top)
    top.add_argument("--output", type=Path, default=Path("build/bench_pi"), help="folder (%(default)s)")
    top.add_argument("--json", action="store_true", help="print one JSON document")
    top.set_defaults(run=run)
    return top


def run(args: argparse.Namespace) -> int:
    """Measure, write the result file and the page, tell what was found."""
    document = session(args)
    name = "".join(c if c.isalnum() else "-" for c in f"{args.host} {document['date']}")
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        (args.output / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        (args.output / f"{name}.html").write_text(page(document), encoding="utf-8")
        if document["session"]:
            (args.output / f"{name}.session.jsonl").write_text(session_lines(document), encoding="utf-8")
    except OSError as e:
        raise BadInput(f"{args.output}: {e.strerror}; choose a writable --output") from e
    if args.json:
        console.print_json(report(document))
        return 0
    for key, value in facts(document):
        print(f"{key:<26} {value}")
    for doubt in document["doubts"]:
        print(f"doubt: {doubt}", file=sys.stderr)
    print(f"written to {args.output / name}.json and .html")
    if document["session"]:
        print(f"next: edge-runtime fit {args.output / name}.session.jsonl --profile NAME --name YOURS")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code."""
    return console.main(parser(), arguments)


if __name__ == "__main__":
    sys.exit(main())
