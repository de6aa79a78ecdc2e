"""What a scan costs from the port to the log, on aarch64: this loop beside a naive one, at equal verdicts.

Both programs run unmodified in an emulated arm64 user-space (QEMU user mode, the real wheels), read the same
recorded sweeps from a scanner's stand-in on a pseudo-terminal, and are counted by a QEMU plugin that tells where
each record's write begins. What lies between an early scan's record and the last one's is what the scans between
cost, and nothing else is in it: no marks in the programs, no start-up, no end. (The end
costs up to a million instructions more or less from run to run: the summary's quantiles are searched among
latencies, which are the host's.)
The whole is run several times; the figure is the mean, with the least and the most beside it.

Counted are user-space instructions; what the kernel does for a scan is not among them. Peak memory and start-up
time are the host's, run natively: an emulator's memory would say nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import tty
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from compile.demo.run import RECORDINGS, build_demo, held_out, rig
from compile.emulate import Machine, Out
from compile.targets import TARGETS
from edge_runtime import console, render
from edge_runtime.bundle import Bundle
from edge_runtime.energy_ci import userland
from edge_runtime.energy_ci.counting import Counts
from edge_runtime.energy_ci.guest import Guest
from edge_runtime.errors import EdgeError
from edge_runtime.journal import OVERHEAD, VERDICT
from edge_runtime.power import modelled
from edge_runtime.recording import Recording
from edge_runtime.scanners.rf_explorer import REQUEST_CONFIGURATION
from edge_runtime.verdict import VERDICT_STRUCT

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "scripts/constraints.txt"
NAIVE = Path(__file__).with_name("naive_loop.py")
GOAL_INSTRUCTIONS, GOAL_TIMES_FEWER = 150_000, 30


class Work(NamedTuple):
    """One run's place: what it reads, and where it may write."""

    bundle: Path
    folder: Path
    port: str
    scans: int


@dataclass(frozen=True)
class Program:
    """One of the two loops.

    arguments: what follows `python3` for a run. verdicts: after it, the CRC-32 of each scan's powers and the
    label that was answered, in order. rate_hz: slow enough for the emulated CPU to keep up.
    scans: the first that is counted from, and the last. is_record: whether a write of so many bytes is a scan's
    record. runs: how often it is counted.
    """

    name: str
    requirements: tuple[str, ...]
    arguments: Callable[[Work], Sequence[str]]
    verdicts: Callable[[Path], list[tuple[int, str]]]
    rate_hz: float
    scans: tuple[int, int]
    is_record: Callable[[int], bool]
    runs: int


def _our_arguments(work: Work) -> Sequence[str]:
    options = ["--bundle", work.bundle, "--port", work.port, "--scans", work.scans]
    command = ["-m", "edge_runtime.cli", "run", *options, "--journal", work.folder / "journal", "--json"]
    return [str(argument) for argument in command]


def _our_verdicts(folder: Path) -> list[tuple[int, str]]:
    rows = render.journal_rows(folder / "journal")
    return [(row["scan_crc32"], row["label"]) for row in rows if row["kind"] == "VERDICT"]


def _naive_arguments(work: Work) -> Sequence[str]:
    bundle = Bundle.open(work.bundle)
    model, pipeline = work.folder / "model.tl", work.folder / "pipeline.json"
    model.write_bytes(bundle.entry("model.tl"))
    pipeline.write_text(json.dumps(bundle.manifest["pipeline"]))
    places = (NAIVE, model, pipeline, work.port, work.scans, work.folder / "log.jsonl")
    return [str(argument) for argument in places]


def _careful_arguments(work: Work) -> Sequence[str]:
    return [*_naive_arguments(work), "careful"]


def _naive_verdicts(folder: Path) -> list[tuple[int, str]]:
    """The naive log holds the CRC of the bytes on the wire; the rig's log knows which powers they are."""
    powers = {}
    for line in (folder / "rig.log").read_text().splitlines()[1:]:
        _, _, _, codes_crc32, power_crc32 = line.split("\t")
        powers[int(codes_crc32, 16)] = int(power_crc32, 16)
    rows = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [(powers[row["scan_crc32"]], row["label"]) for row in rows]


def _is_our_record(size: int) -> bool:
    return size == VERDICT.size + OVERHEAD


def _is_naive_record(size: int) -> bool:
    return size > len(REQUEST_CONFIGURATION)  # beside its log it writes but that command


OURS = Program(
    "edge-runtime", ("pyserial",), _our_arguments, _our_verdicts, 40.0, (100, 1300), _is_our_record, 2
)
_NUMPY = ("pyserial", "numpy", "scipy", "treelite")
NAIVE_LOOP = Program("naive", _NUMPY, _naive_arguments, _naive_verdicts, 15.0, (30, 130), _is_naive_record, 1)
CAREFUL = Program(
    "naive, careful", _NUMPY, _careful_arguments, _naive_verdicts, 15.0, (30, 130), _is_naive_record, 1
)
PROGRAMS = (OURS, NAIVE_LOOP, CAREFUL)


class Counted(NamedTuple):
    """One program's figures. start_up_instructions: what is not per scan, its end included.

    each: the instructions per scan of every run.
    """

    each: list[float]
    start_up_instructions: float
    verdicts: list[tuple[int, str]]

    @property
    def instructions_per_scan(self) -> float:
        """The mean of the runs."""
        return fmean(self.each)


def count(program: Program, bundle: Path, recording: Path) -> Counted:
    """Count the program on aarch64 over the first sweeps of `recording`."""
    guest = Guest([ROOT, userland.wheels(program.requirements, userland.ARM64, CONSTRAINTS)], userland.ARM64)
    first, last = program.scans
    _counted(guest, program, bundle, recording, 1)  # has Python compile what it imports
    each = []
    for _ in range(program.runs):
        counts, verdicts = _counted(guest, program, bundle, recording, last)
        at = [w.instructions for w in counts.writes if w.number is not None and program.is_record(w.number)]
        if len(at) != last:
            raise EdgeError(f"bench_loop: {program.name} wrote {len(at)} records of {last} scans")
        each.append((at[-1] - at[first - 1]) / (last - first))
    return Counted(each, counts.exit.instructions - last * each[-1], verdicts)


def _counted(
    guest: Guest, program: Program, bundle: Path, recording: Path, scans: int
) -> tuple[Counts, list[tuple[int, str]]]:
    """One run over so many scans, and what it answered."""
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as name:
        folder = Path(name)
        with rig(recording, program.rate_hz, folder / "rig.log") as port:
            work = Work(bundle, folder, port, scans)
            done = guest.run(program.arguments(work), count=True, writes=True, timeout_s=300)
        if done.status or done.counts is None:
            raise EdgeError(f"bench_loop: {program.name} ended with {done.status}: {done.stderr[-300:]!r}")
        verdicts = program.verdicts(folder)
    if len(verdicts) != scans:
        raise EdgeError(f"bench_loop: {program.name} answered {len(verdicts)} of {scans} scans")
    return done.counts, verdicts


class Native(NamedTuple):
    """A program on this machine's own CPU: exec to its first command on the port, and its peak memory."""

    start_up_ms: float
    peak_mib: float


def native(program: Program, bundle: Path, recording: Path) -> Native:
    """Start the program (the fastest of five starts), and let it answer some scans."""
    starts = [_start_up_ms(program, bundle) for _ in range(5)]
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as name:
        folder = Path(name)
        with rig(recording, 100, folder / "rig.log") as port:
            arguments = program.arguments(Work(bundle, folder, port, 100))
            process = _start(arguments)
            peak_kib = 0
            while process.poll() is None:
                peak_kib = _peak_kib(process.pid) or peak_kib
                time.sleep(0.01)
    if process.returncode:
        raise EdgeError(f"bench_loop: {program.name} ended with {process.returncode} on this machine")
    return Native(min(starts), peak_kib / 1024)


def _peak_kib(pid: int) -> int:
    """The peak of its resident memory so far; 0 where it has gone. (wait4's would count its parent's.)"""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def _start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _start_up_ms(program: Program, bundle: Path) -> float:
    master, slave = os.openpty()
    tty.setraw(slave)
    try:
        with tempfile.TemporaryDirectory(prefix="edge-bench-") as name:
            arguments = program.arguments(Work(bundle, Path(name), os.ttyname(slave), 1))
            begun = time.monotonic()
            process = _start(arguments)
            os.read(master, 1)
            elapsed = time.monotonic() - begun
            process.kill()
            process.wait()
        return 1000 * elapsed
    finally:
        os.close(master)
        os.close(slave)


def artifact_instructions(bundle: Bundle, recording: Recording, scans: range) -> float:
    """Mean instructions of edge_infer on aarch64 over these sweeps of the recording."""
    artifact = bundle.manifest["artifacts"]["aarch64"]["entry"]
    machine = Machine(TARGETS["aarch64"], bundle.entry(artifact), count=True)
    total = 0
    for k in scans:
        codes = recording.rows[k].codes
        power = b"".join((-50 * code).to_bytes(2, "little", signed=True) for code in codes)
        total += machine.call("edge_infer", power, len(codes), Out(VERDICT_STRUCT.size)).instructions
    return total / len(scans)


def run(bundle_path: Path | None = None) -> dict[str, Any]:
    """The benchmark's document: goals, rows, machine."""
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as name:
        folder = Path(name)
        path = bundle_path or build_demo(folder, targets=("host", "aarch64"), network=False)
        bundle = Bundle.open(path)
        recording = held_out(Recording.open(RECORDINGS), max(OURS.scans))
        played = folder / "played.scans"
        played.write_bytes(recording.to_bytes())
        counted = [count(p, path, played) for p in PROGRAMS]
        here = [native(p, path, played) for p in PROGRAMS]
        artifact = artifact_instructions(bundle, recording, range(*OURS.scans))
    ours, naive, careful = counted
    same = dict(ours.verdicts)
    others = [verdict for verdict in (*naive.verdicts, *careful.verdicts) if verdict[0] in same]
    differences = sum(same[crc32] != label for crc32, label in others)
    times_fewer = naive.instructions_per_scan / ours.instructions_per_scan
    return {
        "goals": [
            goal(
                "instructions per scan",
                ours.instructions_per_scan,
                "instructions",
                GOAL_INSTRUCTIONS,
                least=False,
            ),
            goal("times fewer than naive", times_fewer, "times", GOAL_TIMES_FEWER, least=True),
            goal("verdicts that differ from naive", differences, "scans", 0, least=False),
        ],
        "rows": [
            row(program, figures, on_host, figures.instructions_per_scan / ours.instructions_per_scan)
            for program, figures, on_host in zip(PROGRAMS, counted, here, strict=True)
        ],
        "verdicts_compared": len(others),
        "artifact_instructions_per_scan": artifact,
        "loop_instructions_per_scan": ours.instructions_per_scan - artifact,
        "machine": {
            "counted_on": "aarch64 under QEMU user mode",
            "host": platform.machine(),
            "python": platform.python_version(),
        },
    }


def goal(name: str, value: float, unit: str, limit: float, *, least: bool) -> dict[str, Any]:
    """One line of the goals; `least`: the value should be at least the limit, else at most."""
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "goal": limit,
        "met": value >= limit if least else value <= limit,
    }


def row(program: Program, counted: Counted, on_host: Native, times: float) -> dict[str, Any]:
    """One program's figures; `times`: its instructions per scan over ours."""
    return {
        "program": program.name,
        "instructions_per_scan": counted.instructions_per_scan,
        "instructions_per_scan_spread": [min(counted.each), max(counted.each)],
        "runs": program.runs,
        "times_ours": times,
        "start_up_instructions": counted.start_up_instructions,
        "start_up_ms_host": on_host.start_up_ms,
        "peak_mib_host": on_host.peak_mib,
        "scans_counted": program.scans[1] - program.scans[0],
    }


def update(document: dict[str, Any]) -> None:
    """Keep the loop's own instructions where the modelled meter reads them: 5 % on either side."""
    counted = document["loop_instructions_per_scan"]
    before = json.loads(modelled.LOOP_WORK.read_text()) if modelled.LOOP_WORK.exists() else {}
    kept = {
        "instructions": [round(0.95 * counted), round(1.05 * counted)],
        "wakeups": before.get("wakeups", [1, 2]),
        "source": "scripts/bench_loop: counted on aarch64 under QEMU, user space",
    }
    modelled.LOOP_WORK.write_text(json.dumps(kept, indent=2) + "\n")


def table(document: dict[str, Any]) -> str:
    """The document for people."""
    columns = (
        "program",
        "instructions_per_scan",
        "start_up_instructions",
        "start_up_ms_host",
        "peak_mib_host",
    )
    lines = ["  ".join(f"{name:>22}" for name in columns)]
    for r in document["rows"]:
        cells = [r[name] if isinstance(r[name], str) else f"{r[name]:,.1f}" for name in columns]
        lines.append("  ".join(f"{cell:>22}" for cell in cells))
    for r in document["rows"]:
        low, high = r["instructions_per_scan_spread"]
        lines.append(f"{r['program']}: {r['runs']} x {r['scans_counted']:,} scans: {low:,.1f} to {high:,.1f}")
    lines.append("")
    for g in document["goals"]:
        sign = "met" if g["met"] else "MISSED"
        lines.append(f"{g['name']:<34} {g['value']:>12,.1f} {g['unit']:<14} goal {g['goal']:>9,}  {sign}")
    lines.append(
        f"of ours, the artifact {document['artifact_instructions_per_scan']:,.0f}, "
        f"the loop {document['loop_instructions_per_scan']:,.0f}; "
        f"{document['verdicts_compared']} verdicts compared"
    )
    return "\n".join(lines)


def main() -> int:
    """Run, print, and with --update keep the loop's figure."""
    parser = argparse.ArgumentParser(description="Instructions per scan on aarch64, beside a naive loop.")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--bundle", type=Path, help="another than the demo's; needs aarch64 and this machine")
    parser.add_argument("--update", action="store_true", help="keep the loop's count for the modelled meter")
    args = parser.parse_args()
    try:
        document = run(args.bundle)
    except EdgeError as e:
        print(f"bench_loop: {e}", file=sys.stderr)
        return e.exit_code
    if args.update:
        update(document)
    if args.json:
        console.print_json(document)
    else:
        print(table(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
