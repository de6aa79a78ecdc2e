"""Our own code in bench_trees: every mode on every target, counted, timed, proven against the training library."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile import cost, elf, frontends
from compile.build import build as build_bundle
from compile.emit.trees import MODES, TreeCode, emit
from compile.emulate import Machine, Out
from compile.forest import Forest
from compile.modes import alone
from compile.quantise import decide, fixed
from compile.targets import TARGETS, target
from compile.toolchain import build, image
from compile.verify import Inputs, Native
from tests.bench import trees_models
from tests.bench.trees_contenders import COUNTED_ROWS, Row, nanoseconds
from tests.tree_mutations import caught_by_verify

EMULATED_ROWS = 2000
MUTANTS = {"aarch64": 34, "armv7": 33, "x86_64": 33}
"""Of each front end's model, by the target whose code is changed."""


class Proof:
    """Rows that differ, counted over the targets of one model."""

    def __init__(self) -> None:
        self.bits: dict[str, int] = {}
        self.decisions: dict[str, int] = {}
        self.rows: dict[str, int] = {}

    def add(
        self, mode: str, name: str, got: NDArray[np.float64], want: NDArray[np.float64], raw: Any
    ) -> None:
        """Compare raw scores with what the mode's forest says, and decisions with the library's."""
        place = f"{mode}, {name}"
        self.rows[place] = len(got)
        self.bits[place] = int((got != want[: len(got)]).any(1).sum())
        self.decisions[place] = int((decide(got) != decide(raw[: len(got)])).sum())

    def goals(self, model: str) -> Iterator[dict[str, Any]]:
        """A line for each mode and target."""
        for place, rows in self.rows.items():
            exact = place.startswith("exact")
            wrong = self.bits[place] + (0 if exact else self.decisions[place])
            what = "with another bit" if exact else "decided otherwise"
            yield goal(f"{model}: {place}, of {rows:,} rows {what}", wrong, "rows", 0, less=True)


def ours(model: trees_models.Model, rows: int, goals: list[dict[str, Any]]) -> Iterator[Row]:
    """Our code in every mode on every target, proven on the way."""
    x, _, _ = trees_models.data(rows, 7)
    raw = np.asarray(model.raw(x), np.float64).reshape(rows, -1)
    forest = frontends.load(model.source).forest
    kept = fixed(forest, x, raw)
    proof = Proof()
    for mode in MODES:
        want = raw if mode == "exact" else kept.forest.raw_scores(x)
        for name in TARGETS:
            started = time.process_time()
            code = emit(
                forest, target(name), mode=mode, integer=False, quantised=None if mode == "exact" else kept
            )
            artifact = build(alone(forest, code), target(name))
            row = Row(model.name, mode, name, build_s=time.process_time() - started, note=code.style)
            if mode != "exact":
                row.note += f", raw scores within {kept.worst_error:.2g}"
            _count(row, artifact, code, x)
            got = _run(artifact, name, x if name == "x86_64" else x[:EMULATED_ROWS], raw.shape[1])
            proof.add(mode, name, got, want, raw)
            if name == "x86_64":
                row.nanoseconds = nanoseconds(artifact, x)
                inputs = Inputs(np.zeros((0, 0), np.int16), x[:256], raw.shape[1])
                row.mispredicted = cost.host_branches(artifact, target(name), inputs).get("mispredicted")
            yield row
    goals += proof.goals(model.name)


def _count(row: Row, artifact: bytes, code: TreeCode, x: NDArray[np.float32]) -> None:
    """Fill in instructions, their bound, and bytes."""
    on = target(row.target)
    machine = Machine(on, artifact, count=True)
    out = Out(8 * code.forest.n_outputs)
    counted = [machine.call("edge_model_scores", r.tobytes(), out).instructions for r in x[:COUNTED_ROWS]]
    row.instructions, row.worst_instructions = float(np.mean(counted)), max(counted)
    row.bound = cost.bound(artifact, on, code)["instructions"]
    linked = elf.parse(image(artifact, on) if row.target.startswith("cortex") else artifact, what=row.target)
    row.bytes = linked.text_bytes + linked.rodata_bytes


def _run(artifact: bytes, name: str, x: NDArray[np.float32], outputs: int) -> NDArray[np.float64]:
    """Raw scores of rows: on this machine, or on the emulated CPU."""
    runner = Native(artifact, name) if name == "x86_64" else Machine(target(name), artifact)
    rows = np.ascontiguousarray(x).view(np.uint8)
    return np.ascontiguousarray(runner.batch("edge_model_scores", rows, 8 * outputs).outputs).view(np.float64)


def mutation_checks(folder: Path) -> Iterator[dict[str, Any]]:
    """Per front end, 100 bundles with one wrong threshold, leaf or child in their code: how many verify refuses."""
    for name, source in trees_models.small(folder):
        forest: Forest = frontends.load(source).forest
        caught = total = 0
        for on, number in MUTANTS.items():
            bundle = build_bundle(source, targets=[on], mode="exact")
            for what, why in caught_by_verify(bundle, forest, number):
                total += 1
                caught += bool(why)
                if not why:
                    print(f"not caught: {name}, {on}: {what}", file=sys.stderr)
        yield goal(f"{name}: mutants that verify refuses, of {total}", caught, "mutants", total, less=False)


def goal(name: str, value: float, unit: str, limit: float, *, less: bool) -> dict[str, Any]:
    """One line of the document."""
    met = value <= limit if less else value >= limit
    return {"name": name, "value": round(value, 3), "unit": unit, "goal": limit, "met": bool(met)}
