"""What it costs to make scans of bytes: this project's decoders beside the instruments' own libraries.

Parsing: the same sweeps in memory, a frame a read, in CPU time of one core (the best of five runs, taken in
turns) and in instructions on aarch64 (QEMU user mode, the difference of a short and a long run). Latency: from
just before a sweep's last bytes are handed to a pseudo-terminal at the pace of 500,000 baud, to its Scan; what
else the machine does is in it (see `load`).
Damage: every bit flipped, byte cut and byte doubled of 20 frames a protocol; which damaged frames passed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edge_runtime import console
from edge_runtime.energy_ci import userland
from edge_runtime.energy_ci.guest import Guest
from edge_runtime.errors import EdgeError, HardwareUnavailable
from edge_runtime.scan import Scan
from edge_runtime.scanners.rf_explorer import RFExplorer
from edge_runtime.source import Source
from tests.bench.bench_loop import goal
from tests.bench.parse_frames import READERS
from tests.rig_run import AXIS, clock_us
from tests.scanner_streams import STREAMS
from tests.test_scanner_proofs import mutate

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "scripts/constraints.txt"
PEERS = {"RFExplorer": "ours-rf-explorer", "tsapython": "ours-tinysa"}
RUNS, FRAMES = 5, 20_000
GUEST_FRAMES = (200, 1200)
LATENCY_SWEEPS = 1000
GOAL_TIMES, GOAL_P99_MS = 20, 5.0


def parse_us() -> dict[str, float]:
    """Microseconds of CPU a frame, by reader."""
    best = dict.fromkeys(READERS, float("inf"))
    crcs: dict[str, set[int]] = {}
    for _ in range(RUNS):
        for reader in READERS:
            command = [sys.executable, "-m", "tests.bench.parse_frames", reader, str(FRAMES)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            told = json.loads(done.stdout)
            best[reader] = min(best[reader], 1e6 * told["cpu_s"] / told["n"])
            crcs.setdefault(READERS[reader][0], set()).add(told["crc"])
    if any(len(found) != 1 for found in crcs.values()):
        raise EdgeError("bench_scanners: the readers disagree on a sweep's powers")
    return best


def instructions() -> dict[str, float]:
    """Instructions a frame on aarch64, by reader."""
    with tempfile.TemporaryDirectory(prefix="edge-peers-") as name:
        for peer in PEERS:
            spec = find_spec(peer)
            if spec is None or spec.origin is None:
                raise HardwareUnavailable(f"bench_scanners: {peer} is not installed; pip install {peer}")
            shutil.copytree(Path(spec.origin).parent, Path(name, peer))
        wheels = userland.wheels(("pyserial",), userland.ARM64, CONSTRAINTS)
        guest = Guest([ROOT, wheels, Path(name)], userland.ARM64)
        return {reader: _counted(guest, reader) for reader in READERS}


def _counted(guest: Guest, reader: str) -> float:
    totals = []
    few, many = GUEST_FRAMES
    for count in (few, few, many):  # the first run only has Python compile what it imports
        done = guest.run(["-m", "tests.bench.parse_frames", reader, str(count)], count=True, timeout_s=300)
        if done.status or done.counts is None:
            raise EdgeError(f"bench_scanners: {reader} ended with {done.status}: {done.stderr[-300:]!r}")
        totals.append(done.counts.exit.instructions)
    return (totals[2] - totals[1]) / (many - few)


RIG = """
import sys
from tests.rig_run import recording, running
from edge_runtime.rig.rf_explorer import RFExplorerEmulator
with running(RFExplorerEmulator, recording(%d, plain=True), 50) as rig:
    print(rig.port, flush=True)
    sys.stdin.read()
    for row in rig.log:
        print(row[0])
"""


def latencies_us() -> list[int]:
    """Microseconds from a sweep's last bytes to its Scan, in order of size."""
    command = [sys.executable, "-c", RIG % LATENCY_SWEEPS]
    with subprocess.Popen(
        command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        arrived = []
        with Source(process.stdout.readline().strip(), RFExplorer(AXIS), clock_us) as source:
            for item in source:
                if type(item) is Scan:
                    arrived.append(clock_us())
                    if len(arrived) == LATENCY_SWEEPS:
                        break
        told, _ = process.communicate()
    left = [int(line) for line in told.splitlines()]
    return sorted(there - gone for there, gone in zip(arrived, left, strict=True))


def damage() -> Iterator[dict[str, Any]]:
    """A row a protocol: how many damaged streams, and how many of them gave a wrong value."""
    for stream in STREAMS:
        tried, wrong = mutate(stream)
        yield {
            "protocol": stream.name,
            "checksum": stream.checked,
            "damaged_streams": tried,
            "passed_with_a_wrong_value": wrong,
            "share": wrong / tried,
        }


def run() -> dict[str, Any]:
    """The benchmark's document: goals, rows, machine."""
    cpu, late = parse_us(), latencies_us()
    try:
        counted: dict[str, float] = instructions()
        why = ""
    except HardwareUnavailable as e:
        counted, why = {}, str(e)
    goals = [
        goal(f"times the throughput of {peer}", cpu[peer] / cpu[own], "times", GOAL_TIMES, least=True)
        for peer, own in PEERS.items()
    ]
    goals += [
        goal(
            f"times fewer instructions than {peer}",
            counted[peer] / counted[own],
            "times",
            GOAL_TIMES,
            least=True,
        )
        for peer, own in PEERS.items()
        if counted
    ]
    p99_ms = late[int(0.99 * len(late))] / 1000
    goals.append(goal("last byte to Scan, p99", p99_ms, "ms", GOAL_P99_MS, least=False))
    rows = [
        {
            "reader": reader,
            "cpu_us_per_frame": us,
            "frames_per_second": 1e6 / us,
            "aarch64_instructions_per_frame": counted.get(reader),
        }
        for reader, us in cpu.items()
    ]
    return {
        "goals": goals,
        "rows": rows,
        "latency_ms": {name: late[int(q * len(late))] / 1000 for name, q in (("p50", 0.5), ("p99", 0.99))}
        | {"max": late[-1] / 1000},
        "damage": list(damage()),
        "machine": {
            "host": platform.machine(),
            "python": platform.python_version(),
            "load": os.getloadavg()[0],
            "cpus": os.cpu_count(),
            "instructions": why or "aarch64 under QEMU user mode",
        },
    }


def table(document: dict[str, Any]) -> str:
    """The document for people."""
    lines = [f"{'reader':<20}{'us a frame':>12}{'frames a second':>18}{'aarch64 instructions':>24}"]
    for r in document["rows"]:
        count = r["aarch64_instructions_per_frame"]
        shown = "-" if count is None else f"{count:,.0f}"
        lines.append(
            f"{r['reader']:<20}{r['cpu_us_per_frame']:>12.2f}{r['frames_per_second']:>18,.0f}{shown:>24}"
        )
    lines += ["", f"{'protocol':<20}{'damaged streams':>18}{'wrong value passed':>22}"]
    lines += [
        f"{r['protocol']:<20}{r['damaged_streams']:>18,}{r['passed_with_a_wrong_value']:>15,} ({r['share']:.1%})"
        for r in document["damage"]
    ]
    lines.append("")
    for g in document["goals"]:
        sign = "met" if g["met"] else "MISSED"
        lines.append(f"{g['name']:<44}{g['value']:>10,.2f} {g['unit']:<8} goal {g['goal']:>6,}  {sign}")
    return "\n".join(lines)


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description="Parsing sweeps, beside the instruments' own libraries.")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args()
    began = time.monotonic()
    try:
        document = run()
    except EdgeError as e:
        print(f"bench_scanners: {e}", file=sys.stderr)
        return e.exit_code
    document["seconds"] = time.monotonic() - began
    if args.json:
        console.print_json(document)
    else:
        print(table(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
