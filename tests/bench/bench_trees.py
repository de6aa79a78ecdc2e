"""Trees beside the peers that compile them: instructions, bytes, nanoseconds and build time, in one run.

Every contender is compiled by the same cross compiler at -O2 and called one row at a time, floats in, doubles
out. Instructions are counted on emulated CPUs (no board); bytes are .text and .rodata; nanoseconds are medians
on this machine, mispredictions those of cachegrind's predictor. TL2cgen and m2cgen run soft doubles on a Cortex-M4F
where the model's numbers are doubles. m2cgen's probabilities are left out (exp is the identity), lleaves is for the
host only, emlearn takes random forests only. "fixed" and "compact" keep every decision on the proof's rows; "exact"
keeps every bit.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edge_runtime import console
from tests.bench import trees_models
from tests.bench.trees_contenders import CACHE, PEERS, ROOT, TARGETS, Row, peers, peers_environment
from tests.bench.trees_proof import goal, mutation_checks, ours

BUILDS = 3
"""Of each model for each target, of which the median counts."""


def main(arguments: Sequence[str]) -> int:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the proof on the host")
    parser.add_argument("--model", action="append", help="only these")
    parser.add_argument("--skip-peers", action="store_true")
    parser.add_argument(
        "--mutants", action=argparse.BooleanOptionalAction, default=True, help="the mutation check"
    )
    options = parser.parse_args(arguments)
    python = None if options.skip_peers else peers_environment()
    table: list[Row] = []
    goals: list[dict[str, Any]] = []
    for model in trees_models.train(CACHE):
        if options.model and model.name not in options.model:
            continue
        mine = list(ours(model, options.rows, goals))
        theirs = [] if python is None else list(peers(model, python))
        table += mine + theirs
        goals += compare(model.name, mine, theirs, skipped=python is None)
        goals += builds(model)
    if not options.model:
        goals += large(CACHE / "lightgbm-mc.txt")
    if options.mutants:
        goals += mutation_checks(CACHE)
    document = {
        "goals": goals,
        "rows": [{k: v for k, v in vars(r).items() if v not in (None, "")} for r in table],
        "machine": f"{platform.machine()}, {platform.processor() or 'unknown'}, Python {platform.python_version()}",
    }
    if options.json:
        console.print_json(document)
    else:
        show(document)
    return 0


def _built(model: Path, name: str, copies: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.trees_build", str(model), name, str(copies)],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def builds(model: trees_models.Model) -> Iterator[dict[str, Any]]:
    """Build time, all of a process, its imports too, in CPU seconds: the wall's depend on who else is there."""
    for name in (*TARGETS, "armv7", "cortex-m0"):
        built = [_built(model.path, name, 1) for _ in range(BUILDS)]
        seconds = statistics.median(b["cpu_s"] for b in built)
        yield goal(f"{model.name}: build for {name}, CPU", seconds, "s", 1, less=True)
        most = max(b["peak_mb"] for b in built)
        yield goal(f"{model.name}: build for {name}, memory", most, "MB", 300, less=True)


def large(model: Path) -> Iterator[dict[str, Any]]:
    """10,000 trees: the benchmark's 400, 25 times."""
    for name in TARGETS:
        built = _built(model, name, 25)
        yield goal(f"10,000 trees: build for {name}, CPU", built["cpu_s"], "s", 30, less=True)


def compare(model: str, mine: list[Row], theirs: list[Row], *, skipped: bool) -> Iterator[dict[str, Any]]:
    """The goals' ratios, a line for each; one that cannot be had says why."""

    def find(rows: list[Row], contender: str, name: str) -> Row | None:
        return next((r for r in rows if (r.contender, r.target) == (contender, name)), None)

    def ratio(what: str, mode: str, name: str, peer: str, field: str, least: float) -> dict[str, Any]:
        us, other = find(mine, mode, name), find(theirs, peer, name)
        told = f"{model}: {what} than {peer}"
        if us is None or other is None:
            refused = find(theirs, peer, "-")
            why = "peers left out" if skipped else refused.note if refused else "not for this target"
            return {"name": told, "value": None, "unit": "times", "goal": least, "met": None, "note": why}
        return goal(told, getattr(other, field) / getattr(us, field), "times", least, less=False)

    for peer, least in (("tl2cgen", 5), ("tl2cgen-quantize", 3), ("m2cgen", 3)):
        yield ratio("aarch64, exact, fewer instructions", "exact", "aarch64", peer, "instructions", least)
    yield ratio("aarch64, exact, fewer bytes", "exact", "aarch64", "tl2cgen", "bytes", 2)
    for mode in ("exact", "fixed"):
        for peer, least in (("tl2cgen", 20), ("tl2cgen-quantize", 10)):
            yield ratio(
                f"Cortex-M4F, {mode}, fewer instructions", mode, "cortex-m4", peer, "instructions", least
            )
    yield ratio("Cortex-M4F, compact, fewer bytes", "compact", "cortex-m4", "tl2cgen", "bytes", 12)
    yield ratio(
        "Cortex-M4F, compact, fewer instructions", "compact", "cortex-m4", "tl2cgen", "instructions", 3
    )
    for peer in (*PEERS, "gtil (Python)"):
        yield ratio("x86-64, one row through C, faster", "exact", "x86_64", peer, "nanoseconds", 1)


def show(document: dict[str, Any]) -> None:
    """The table and the goals, for people."""
    for row in document["rows"]:
        cells = (f"{v:,.0f}" if isinstance(v := row.get(k), float | int) else "-" for k in
                 ("instructions", "worst_instructions", "bound", "mispredicted", "bytes", "nanoseconds"))  # fmt: skip
        built = f"{row['build_s']:.2f} s" if "build_s" in row else "-"
        print(f"{row['model']:14} {row['contender']:17} {row['target']:10}", *(f"{c:>9}" for c in cells),
              f"{built:>9}  {row.get('note', '')}")  # fmt: skip
    for line in document["goals"]:
        mark = {True: "met   ", False: "missed", None: "none  "}[line["met"]]
        print(
            f"{mark} {line['name']}: {line['value']} {line['unit']} (goal {line['goal']}) {line.get('note', '')}"
        )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
