"""The demo: the whole path on recordings that training never saw.

    shipped model -> bundle -> scanner on a pseudo-terminal -> edge-runtime run -> verdicts, latency, energy

Everything runs as its user would run it: the rig and the loop are processes of their own, joined by a real
pseudo-terminal. Accuracy and latency are told from outside: each verdict is tied by the CRC of its sweep to the
recording it came from, and to the moment the rig had written the sweep's last byte.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from compile.accuracy import share_with_interval
from compile.build import build
from compile.features import features_to_npz
from compile.pipeline import Pipeline
from edge_runtime import console
from edge_runtime.bundle import Bundle
from edge_runtime.errors import EdgeError
from edge_runtime.recording import Recording, Row, Split

HERE = Path(__file__).parent
NETWORK = HERE / "network.onnx"
"""Asked where the trees are unsure (see train_network.py)."""
RECORDINGS, MODEL, PIPELINE = HERE / "recordings.scans", HERE / "trees.txt", HERE / "pipeline.toml"

SEED = 20261124


class Answer(NamedTuple):
    """One verdict and the truth about it. latency_us: from the sweep's last byte to the journaled verdict."""

    row: Row
    label: str
    latency_us: int


def build_demo(
    folder: Path, targets: Sequence[str] = ("host", "aarch64", "armv7"), *, network: bool = True
) -> Path:
    """Build the shipped models into a bundle in `folder`, the trees alone or with the network; its path."""
    data = folder / "demo.npz"
    features_to_npz(Recording.open(RECORDINGS), Pipeline.load(PIPELINE), data)
    bundle = build(MODEL, pipeline=PIPELINE, data=data, targets=targets, network=NETWORK if network else None)
    bundle.save(folder / "demo.edge")
    return folder / "demo.edge"


def held_out(recording: Recording, scans: int) -> Recording:
    """About `scans` sweeps spread over all recordings that training never saw, in an order that mixes them.

    Three in four are of the model's classes, the rest of kinds that are no class.
    """
    rng = random.Random(SEED)
    picked: list[Row] = []
    for split, share in ((Split.TEST, 0.75), (Split.UNKNOWN, 0.25)):
        rows = [row for row in recording.rows if row.split is split]
        picked += rng.sample(rows, min(len(rows), math.ceil(scans * share)))
    rng.shuffle(picked)
    return replace(recording, rows=picked)


@contextmanager
def rig(recording: Path, rate_hz: float, log: Path) -> Iterator[str]:
    """A scanner's stand-in in a process of its own; its port."""
    command = [sys.executable, "-m", "edge_runtime.cli", "rig", "rf-explorer"]
    # Round and round: a busy machine may lose a sweep, and the loop should still come to its end.
    options = ["--recording", str(recording), "--rate", str(rate_hz), "--log", str(log), "--loop"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*command, *options], text=True, **pipes) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            if not port:
                raise EdgeError(f"demo: the rig ended with code {process.wait()} before it gave a port")
            yield port
        finally:
            process.terminate()


def play(bundle: Path, folder: Path, scans: int, rate_hz: float, profile: str) -> dict[str, Any]:
    """Run the loop on about `scans` held-out sweeps; its summary, with accuracy and latency."""
    recording = held_out(Recording.open(RECORDINGS), scans)
    played, log, verdicts = folder / "played.scans", folder / "rig.log", folder / "verdicts.jsonl"
    played.write_bytes(recording.to_bytes())
    scans = len(recording.rows)
    with rig(played, rate_hz, log) as port:
        command = [sys.executable, "-m", "edge_runtime.cli", "run", "--json", "--profile", profile]
        options = ["--bundle", str(bundle), "--port", port, "--scans", str(scans)]
        files = ["--journal", str(folder / "journal"), "--verdicts", str(verdicts)]
        with subprocess.Popen([*command, *options, *files], stdout=subprocess.PIPE, text=True) as loop:
            with progress_bar(scans) as advance:
                while loop.poll() is None:
                    time.sleep(0.2)
                    advance(verdicts.read_bytes().count(b"\n") if verdicts.exists() else 0)
            assert loop.stdout is not None
            said = loop.stdout.read()
        if loop.returncode:
            raise EdgeError(f"demo: the loop ended with code {loop.returncode}")
    summary: dict[str, Any] = json.loads(said)
    return summary | judge(list(join(recording, verdicts, log)), recording.labels)


def join(recording: Recording, verdicts: Path, log: Path) -> Iterator[Answer]:
    """Tie each verdict to its sweep and to the moment the rig had written the sweep's last byte."""
    sent: dict[int, list[tuple[int, Row]]] = {}
    for line in log.read_text().splitlines()[1:]:
        written_us, number, _label, _codes, powers = line.split("\t")
        sent.setdefault(int(powers, 16), []).append((int(written_us), recording.rows[int(number)]))
    for line in verdicts.read_text().splitlines():
        verdict = json.loads(line)
        journaled_us = verdict["journaled_us"]
        left_us, row = max(s for s in sent[verdict["scan_crc32"]] if s[0] <= journaled_us)
        yield Answer(row, verdict["label"], journaled_us - left_us)


def judge(answers: Sequence[Answer], labels: Sequence[str]) -> dict[str, Any]:
    """Accuracy on the classes, and how often kinds that are no class were answered UNKNOWN."""
    known = [a for a in answers if a.row.split is Split.TEST]
    strange = [a for a in answers if a.row.split is Split.UNKNOWN]
    right = np.array([a.label == labels[a.row.label] for a in known])
    answered = sum(a.label != "UNKNOWN" for a in known)
    accuracy = share_with_interval(right, np.array([a.row.capture for a in known]))
    latencies = sorted(a.latency_us for a in answers)
    return {
        "accuracy": accuracy["value"],
        "accuracy_interval_95": accuracy["interval_95"],
        "accuracy_where_answered": int(right.sum()) / answered if answered else None,
        "accuracy_scans": accuracy["scans"],
        "accuracy_recordings": accuracy["captures"],
        "unknown_kinds_scans": len(strange),
        "unknown_kinds_answered_unknown": sum(a.label == "UNKNOWN" for a in strange) / max(1, len(strange)),
        "latency_ms": {
            "p50": latencies[len(latencies) // 2] / 1000,
            "p99": latencies[math.ceil(0.99 * len(latencies)) - 1] / 1000,
            "max": latencies[-1] / 1000,
        },
    }


@contextmanager
def progress_bar(total: int) -> Iterator[Any]:
    """A bar on standard error; a plain line at the end where that is no terminal."""
    live = sys.stderr.isatty()

    def advance(done: int) -> None:
        if live:
            filled = 40 * min(done, total) // total
            print(f"\r[{'#' * filled}{'.' * (40 - filled)}] {done}/{total} scans", end="", file=sys.stderr)

    yield advance
    advance(total)
    print("" if live else f"{total} scans played", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; the process's exit code."""
    parser = console.Parser(prog="scripts/demo", description="The whole path on shipped recordings.")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON document")
    parser.add_argument("--scans", type=int, default=600, help="sweeps to play (%(default)s)")
    parser.add_argument("--rate", type=float, default=40.0, help="sweeps a second (%(default)s)")
    parser.add_argument("--profile", default="zero2w", help="the board's profile (%(default)s)")
    parser.set_defaults(run=_run)
    return console.main(parser, arguments)


def _run(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="edge-demo-") as name:
        folder = Path(name)
        print("building the bundle: features, C, three targets, parity under emulation", file=sys.stderr)
        bundle = build_demo(folder)
        summary = play(bundle, folder, args.scans, args.rate, args.profile)
        summary["cascade"] = gain(Bundle.open(bundle))
    if args.json:
        console.print_json(summary)
    else:
        print("\n".join(lines(summary)))


def gain(bundle: Bundle) -> dict[str, Any]:
    """What the network adds to the trees on all scans that neither saw."""
    cascade = bundle.manifest["network"]["cascade"]
    return {name: cascade[name] for name in ("accuracy", "instructions", "asked")}


def lines(summary: dict[str, Any]) -> Iterator[str]:
    """The result for people."""
    from edge_runtime.mission import summary_lines  # noqa: PLC0415 (not needed for --json)

    low, high = summary["accuracy_interval_95"]
    yield from summary_lines(summary)
    yield (
        f"accuracy   {summary['accuracy']:.3f} ({low:.3f} to {high:.3f}) on {summary['accuracy_scans']} sweeps of "
        f"{summary['accuracy_recordings']} recordings that training never saw"
    )
    cascade = summary["cascade"]
    for name in ("trees", "network", "cascade"):
        value, work = cascade["accuracy"][name]["value"], cascade["instructions"][name]
        yield f"{name:<10} {value:.3f} right on all held-out scans, {work:,} instructions a scan on aarch64"
    yield f"           the network was asked of {100 * cascade['asked']:.1f} % of them"
    yield (
        f"strangers  {100 * summary['unknown_kinds_answered_unknown']:.0f} % of {summary['unknown_kinds_scans']} "
        f"sweeps of kinds that are no class were answered UNKNOWN"
    )


if __name__ == "__main__":
    sys.exit(main())
