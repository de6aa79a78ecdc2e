"""Parity: an artifact answers the same bits on every target, on the host, and by the model's own library.

The host's artifact runs natively and is the reference; the others run on their emulated CPUs. Compared are return
values and whole output buffers, byte for byte, of every entry point. A target whose leaves are in fixed point
answers other raw scores than the reference: its own forest and the arithmetic of `decide` say which.

The first rows are called one by one, in buffers that end where mapped memory ends; all of them in batches.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from compile import elf
from compile.batch import Answers
from compile.decide import FittedPipeline, decide
from compile.emulate import PAINT, Call, Machine, Out
from compile.forest import Forest
from compile.targets import TARGETS, target
from edge_runtime.engines.compiled import load_library
from edge_runtime.errors import BadInput, CheckFailed
from edge_runtime.verdict import VERDICT_STRUCT

SCAN_ENTRY_POINTS = (
    "edge_features",
    "edge_screen",
    "edge_screen_score",
    "edge_infer",
    "edge_infer_unscreened",
)
MODEL_ENTRY_POINT = "edge_model_scores"
GUARDED = 16
"""Rows of each entry point that are called one by one."""

Bytes = NDArray[np.uint8]


class Oracle(NamedTuple):
    """What a target should answer where that is another model than the reference's: its forest, its pipeline."""

    forest: Forest
    fitted: FittedPipeline | None


@dataclass(frozen=True)
class Inputs:
    """What artifacts are run on.

    power_cdbm: int16, (scans, points); no scans for a model without a pipeline.
    features: float32, (rows, n_features), for the model alone.
    n_outputs: how many raw scores the model has.
    raw_scores: float64, (rows, n_outputs): what the model's own library answers for `features`, or None.
    oracles: by target, where one computes another forest than `raw_scores` are of.
    """

    power_cdbm: NDArray[np.int16]
    features: NDArray[np.float32]
    n_outputs: int
    raw_scores: NDArray[np.float64] | None = None
    oracles: Mapping[str, Oracle] = field(default_factory=dict)

    @property
    def scans(self) -> tuple[bytes, ...]:
        """Every scan as the entry points take it."""
        return tuple(row.tobytes() for row in self.power_cdbm.astype("<i2", copy=False))

    @property
    def rows(self) -> tuple[bytes, ...]:
        """Every row of features as the model takes it."""
        return tuple(row.tobytes() for row in self.features.astype("<f4", copy=False))


class Difference(NamedTuple):
    """One input on which two runs disagree."""

    target: str
    entry_point: str
    row: int  # of the inputs; beyond them, of the broken ones that verification adds
    text: str  # the input, and both answers with their bits


class Parity(NamedTuple):
    """How much was compared, and equal, for one target."""

    target: str
    calls: int
    oracle_rows: int
    decisions: int = 0  # rows of the data on which its leaves in fixed point decide as the model does
    otherwise: int = 0  # and rows, of other data than it was built with, on which they do not


class ParityFailed(CheckFailed):
    """Two runs disagree; `differences` holds every place (up to a hundred)."""

    def __init__(self, differences: list[Difference], count: int) -> None:
        first = differences[0]
        self.differences = differences
        super().__init__(
            f"parity: {count} differences; first: {first.target}: {first.entry_point}, row {first.row}: "
            f"{first.text}"
        )


class Runner(Protocol):
    """What calls an artifact's functions: an emulated Machine, or this machine."""

    def batch(self, symbol: str, rows: Bytes, output_bytes: int, points: int | None = None) -> Answers:
        """Call an exported function for every row, uint8 (n, bytes), as (row, [points,] output)."""


class Native:
    """An artifact run by this machine's own CPU, called as `Machine` is; it counts and measures nothing."""

    def __init__(self, artifact: bytes, name: str) -> None:
        """Load a shared library for this machine. Raises BadInput where it cannot be."""
        self._library = load_library(artifact, name)

    def batch(self, symbol: str, rows: Bytes, output_bytes: int, points: int | None = None) -> Answers:
        """Call an exported function for every row."""
        function = self._library[symbol]
        rows = np.ascontiguousarray(rows)
        outputs = np.full((len(rows), output_bytes), PAINT[0], np.uint8)
        values = np.empty(len(rows), np.int32)
        between = () if points is None else (ctypes.c_uint32(points),)
        address, step, to = rows.ctypes.data, rows.strides[0], outputs.ctypes.data
        for k in range(len(rows)):
            values[k] = function(
                ctypes.c_void_p(address + k * step), *between, ctypes.c_void_p(to + k * output_bytes)
            )
        return Answers(values, outputs)


def check(artifacts: Mapping[str, bytes], inputs: Inputs) -> list[Parity]:
    """Prove parity of all artifacts (target's name -> ELF) on `inputs`; one row a target.

    The reference is the host's artifact, run natively, or where there is none the first artifact, emulated, among
    those without an oracle of their own. Raises ParityFailed on any difference.
    """
    if not artifacts:
        raise BadInput("parity: no artifact to check; name a target in --targets")
    oracle_rows = 0 if inputs.raw_scores is None else len(inputs.raw_scores)
    if oracle_rows not in (0, len(inputs.features)):
        raise BadInput(f"parity: raw scores for {oracle_rows} of {len(inputs.features)} rows; give one a row")
    host = target("host").name
    plain = [name for name in artifacts if name not in inputs.oracles] or list(artifacts)
    name = host if host in plain else plain[0]
    sets = list(_sets(elf.parse(artifacts[name], what=name).exports, inputs))
    reference = _runner(name, artifacts[name], host)
    expected = [_run(reference, of) for of in sets]
    differences = list(_against_library(name, sets, expected, inputs))

    def compare(other: str) -> list[Difference]:
        oracle = inputs.oracles.get(other)
        wanted = expected if oracle is None else _by_oracle(sets, expected, oracle)
        return list(
            _differences(other, artifacts[other], sets, wanted, name if oracle is None else "the model", host)
        )

    with ThreadPoolExecutor(
        max_workers=os.cpu_count()
    ) as pool:  # emulation lets go of the interpreter's lock
        found = list(pool.map(compare, artifacts))
    differences += [difference for of in found for difference in of]
    if differences:
        raise ParityFailed(differences[:100], len(differences))
    calls = sum(len(of.rows) for of in sets)
    return [Parity(other, calls, oracle_rows) for other in artifacts]


class _Set(NamedTuple):
    """Rows of one length for one entry point. first: the number of the first."""

    symbol: str
    first: int
    rows: Bytes
    output_bytes: int
    points: int | None


def _sets(entry_points: Mapping[str, int], inputs: Inputs) -> Iterator[_Set]:
    """Everything to compare."""
    sizes = {"edge_features": 4 * inputs.features.shape[1], "edge_screen_score": 4}
    for symbol in SCAN_ENTRY_POINTS:
        if symbol in entry_points and len(inputs.power_cdbm):
            size = sizes.get(symbol, VERDICT_STRUCT.size)
            count, points = inputs.power_cdbm.shape
            yield _Set(symbol, 0, _bytes(inputs.power_cdbm.astype("<i2", copy=False)), size, points)
            for k, scan in enumerate(_broken_scans(points), count):
                yield _Set(symbol, k, np.frombuffer(scan, np.uint8).reshape(1, -1), size, len(scan) // 2)
    if MODEL_ENTRY_POINT in entry_points:
        rows = np.concatenate(
            [inputs.features.astype("<f4", copy=False), _odd_rows(inputs.features.shape[1])]
        )
        yield _Set(MODEL_ENTRY_POINT, 0, _bytes(rows), 8 * inputs.n_outputs, None)


def _bytes(rows: NDArray[Any]) -> Bytes:
    return np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)


def _runner(name: str, artifact: bytes, host: str) -> Runner:
    return Native(artifact, name) if name == host else Machine(TARGETS[name], artifact)


def _run(runner: Runner, of: _Set) -> Answers:
    return runner.batch(of.symbol, of.rows, of.output_bytes, of.points)


def _differences(
    name: str, artifact: bytes, sets: list[_Set], wanted: list[Answers], by: str, host: str
) -> Iterator[Difference]:
    """Where an artifact answers anything else. The emulated CPU comes first: it survives what the code may do."""
    machine = Machine(TARGETS[name], artifact)
    for of, want in zip(sets, wanted, strict=True):
        points = () if of.points is None else (of.points,)
        for k, row in enumerate(of.rows[:GUARDED]):
            got = machine.call(of.symbol, row.tobytes(), *points, Out(of.output_bytes))
            if (got.value, got.outputs[0]) != (want.values[k], want.outputs[k].tobytes()):
                yield Difference(name, of.symbol, of.first + k, _disagreement(of, k, got, want, by))
    runner: Runner = Native(artifact, name) if name == host else machine
    for of, want in zip(sets, wanted, strict=True):
        yield from _compared(name, of, _run(runner, of), want, by, GUARDED)


def _compared(
    name: str, of: _Set, got: Answers, want: Answers, by: str, first: int = 0
) -> Iterator[Difference]:
    """Rows from `first` on that differ."""
    rows = min(len(got.values), len(want.values))
    other = (got.values[:rows] != want.values[:rows]) | (got.outputs[:rows] != want.outputs[:rows]).any(1)
    for k in (np.nonzero(other[first:])[0] + first).tolist():
        mine = Call(int(got.values[k]), 0, (got.outputs[k].tobytes(),), 0)
        yield Difference(name, of.symbol, of.first + k, _disagreement(of, k, mine, want, by))


def _broken_scans(points: int) -> Iterator[bytes]:
    """Scans that break any contract: a stuck front end, out of range, another number of points."""
    for level in (-9_000, -32_768, 32_767, 0):
        yield np.full(points, level, "<i2").tobytes()
    yield (np.arange(points) * 65_535 // max(points - 1, 1) - 32_768).astype("<i2").tobytes()
    for other in (points - 1, points + 1, 0):
        yield np.full(other, -9_000, "<i2").tobytes()


ODD = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 3.4028235e38, 16_777_216.0], "<f4")


def _odd_rows(width: int) -> NDArray[np.float32]:
    """Features at the edges of a float: missing, infinite, signed zero, subnormal, largest."""
    return np.repeat(ODD[:, None], width, axis=1)


def _against_library(
    name: str, sets: list[_Set], answers: list[Answers], inputs: Inputs
) -> Iterator[Difference]:
    if inputs.raw_scores is None or name in inputs.oracles:
        return
    wanted = _scores(inputs.raw_scores)
    for of, got in zip(sets, answers, strict=True):
        if of.symbol == MODEL_ENTRY_POINT:
            yield from _compared(name, of, got, wanted, "the model's library")


def _scores(raw: NDArray[np.float64]) -> Answers:
    return Answers(np.zeros(len(raw), np.int32), _bytes(raw.astype("<f8", copy=False)))


def _by_oracle(sets: list[_Set], reference: list[Answers], oracle: Oracle) -> list[Answers]:
    """What a target should answer by its own forest; what does not ask the forest is as the reference has it."""
    features = {
        (of.first, of.points): answers
        for of, answers in zip(sets, reference, strict=True)
        if of.symbol == "edge_features"
    }
    wanted = []
    for of, answers in zip(sets, reference, strict=True):
        if of.symbol == MODEL_ENTRY_POINT:
            answers = _scores(oracle.forest.raw_scores(of.rows.view("<f4")))  # noqa: PLW2901
        elif of.symbol in ("edge_infer", "edge_infer_unscreened") and oracle.fitted is not None:
            fitted = oracle.fitted if of.symbol == "edge_infer" else replace(oracle.fitted, screen=None)
            answers = _verdicts(fitted, oracle.forest, features[of.first, of.points], answers)  # noqa: PLW2901
        wanted.append(answers)
    return wanted


def _verdicts(fitted: FittedPipeline, forest: Forest, features: Answers, reference: Answers) -> Answers:
    """The verdicts on scans that keep the contract; on others the reference's."""
    kept = features.values == 0
    outputs = reference.outputs.copy()
    if kept.any():
        x = np.ascontiguousarray(features.outputs[kept]).view("<i4")
        outputs[kept] = _bytes(decide(fitted, x, forest.raw_scores(x.astype(np.float32))))
    return Answers(reference.values, outputs)


_NUMBERS = {MODEL_ENTRY_POINT: "<f8", "edge_features": "<i4", "edge_screen_score": "<i4"}


def _disagreement(of: _Set, row: int, got: Call, want: Answers, by: str) -> str:
    """The input's values, then both answers with their bits."""
    values = np.frombuffer(of.rows[row].tobytes(), "<f4" if of.symbol == MODEL_ENTRY_POINT else "<i2")
    shown = ", ".join(f"{v:.9g}" for v in values[:64]) + (", ..." if len(values) > 64 else "")
    if got.value != want.values[row]:
        return f"returns {got.value}, by {by} {want.values[row]}, on [{shown}]"
    mine, theirs = got.outputs[0], want.outputs[row].tobytes()
    kind = np.dtype(_NUMBERS.get(of.symbol, "V8"))
    step = kind.itemsize
    at = next(k for k in range(0, len(mine), step) if mine[k : k + step] != theirs[k : k + step])
    both = []
    for data in (mine, theirs):
        word = data[at : at + step]
        number = f"{np.frombuffer(word, kind)[0]!r} " if of.symbol in _NUMBERS else ""
        both.append(f"{number}(bits 0x{word[::-1].hex()})")
    return f"output {at // step} is {both[0]}, by {by} {both[1]}, on [{shown}]"
