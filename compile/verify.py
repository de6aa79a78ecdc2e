"""Parity: an artifact answers the same bits on every target, on the host, and by the model's own library.

The host's artifact runs natively and is the reference; every artifact (the host's too) runs on its emulated
CPU. Compared are return values and whole output buffers, byte for byte, of every entry point.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from compile import elf
from compile.emulate import PAINT, Call, Machine, Out
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


@dataclass(frozen=True)
class Inputs:
    """What artifacts are run on.

    power_cdbm: int16, (scans, points); no scans for a model without a pipeline.
    features: float32, (rows, n_features), for the model alone.
    n_outputs: how many raw scores the model has.
    raw_scores: float64, (rows, n_outputs): what the model's own library answers for `features`, or None.
    """

    power_cdbm: NDArray[np.int16]
    features: NDArray[np.float32]
    n_outputs: int
    raw_scores: NDArray[np.float64] | None = None

    @cached_property
    def scans(self) -> tuple[bytes, ...]:
        """Every scan as the entry points take it."""
        return tuple(row.tobytes() for row in self.power_cdbm.astype("<i2", copy=False))

    @cached_property
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

    def call(self, symbol: str, *args: int | bytes | Out) -> Call:
        """Call an exported function."""


class Native:
    """An artifact run by this machine's own CPU, called as `Machine` is; it counts and measures nothing."""

    def __init__(self, artifact: bytes, name: str) -> None:
        """Load a shared library for this machine. Raises BadInput where it cannot be."""
        self._library = load_library(artifact, name)

    def call(self, symbol: str, *args: int | bytes | Out) -> Call:
        """Call an exported function."""
        buffers = [ctypes.create_string_buffer(PAINT * a.size, a.size) for a in args if isinstance(a, Out)]
        outputs = iter(buffers)
        passed: list[Any] = [
            ctypes.c_uint32(a) if isinstance(a, int) else next(outputs) if isinstance(a, Out) else a
            for a in args
        ]
        value = self._library[symbol](*passed)
        return Call(value, 0, tuple(b.raw for b in buffers), 0)


def check(artifacts: Mapping[str, bytes], inputs: Inputs) -> list[Parity]:
    """Prove parity of all artifacts (target's name -> ELF) on `inputs`; one row a target.

    The reference is the host's artifact, run natively, or where there is none the first artifact, emulated.
    Raises ParityFailed on any difference.
    """
    if not artifacts:
        raise BadInput("parity: no artifact to check; name a target in --targets")
    oracle_rows = 0 if inputs.raw_scores is None else len(inputs.raw_scores)
    if oracle_rows not in (0, len(inputs.features)):
        raise BadInput(f"parity: raw scores for {oracle_rows} of {len(inputs.features)} rows; give one a row")
    host = target("host").name
    name = host if host in artifacts else next(iter(artifacts))
    native = name == host
    reference: Runner = Native(artifacts[name], name) if native else Machine(TARGETS[name], artifacts[name])
    entry_points = elf.parse(artifacts[name], what=name).exports
    calls = list(_calls(entry_points, inputs))
    expected = [reference.call(symbol, *args) for symbol, _, args in calls]
    differences = list(_against_oracle(name, calls, expected, inputs))
    done = []
    for other, artifact in artifacts.items():
        machine = Machine(TARGETS[other], artifact)
        for (symbol, row, args), want in zip(calls, expected, strict=True):
            got = machine.call(symbol, *args)
            if (got.value, got.outputs) != (want.value, want.outputs):
                differences.append(
                    Difference(other, symbol, row, _disagreement(symbol, args, got, want, name))
                )
        done.append(Parity(other, len(calls), oracle_rows))
    if differences:
        raise ParityFailed(differences[:100], len(differences))
    return done


_Args = tuple[int | bytes | Out, ...]


def _calls(entry_points: Mapping[str, int], inputs: Inputs) -> Iterator[tuple[str, int, _Args]]:
    """Every call to compare: (entry point, row, arguments)."""
    outputs = {
        "edge_features": Out(4 * inputs.features.shape[1]),
        "edge_screen": Out(VERDICT_STRUCT.size),
        "edge_screen_score": Out(4),
        "edge_infer": Out(VERDICT_STRUCT.size),
        "edge_infer_unscreened": Out(VERDICT_STRUCT.size),
    }
    for symbol in SCAN_ENTRY_POINTS:
        if symbol in entry_points and inputs.scans:
            for row, scan in enumerate((*inputs.scans, *_broken_scans(inputs.power_cdbm.shape[1]))):
                yield symbol, row, (scan, len(scan) // 2, outputs[symbol])
    if MODEL_ENTRY_POINT in entry_points:
        for row, features in enumerate((*inputs.rows, *_odd_rows(inputs.features.shape[1]))):
            yield MODEL_ENTRY_POINT, row, (features, Out(8 * inputs.n_outputs))


def _broken_scans(points: int) -> Iterator[bytes]:
    """Scans that break any contract: a stuck front end, out of range, another number of points."""
    for level in (-9_000, -32_768, 32_767, 0):
        yield np.full(points, level, "<i2").tobytes()
    yield (np.arange(points) * 65_535 // max(points - 1, 1) - 32_768).astype("<i2").tobytes()
    for other in (points - 1, points + 1, 0):
        yield np.full(other, -9_000, "<i2").tobytes()


def _odd_rows(width: int) -> Iterator[bytes]:
    """Features at the edges of a float: missing, infinite, signed zero, subnormal, largest."""
    for value in (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 3.4028235e38, 16_777_216.0):
        yield np.full(width, value, "<f4").tobytes()


def _against_oracle(
    name: str, calls: list[tuple[str, int, _Args]], answers: list[Call], inputs: Inputs
) -> Iterator[Difference]:
    if inputs.raw_scores is None:
        return
    oracle = inputs.raw_scores.astype("<f8", copy=False)
    for (symbol, row, args), got in zip(calls, answers, strict=True):
        if symbol == MODEL_ENTRY_POINT and row < len(oracle):
            want = Call(0, 0, (oracle[row].tobytes(),), 0)
            if got.outputs != want.outputs:
                text = _disagreement(symbol, args, got, want, "the model's library")
                yield Difference(name, symbol, row, text)


_NUMBERS = {MODEL_ENTRY_POINT: "<f8", "edge_features": "<i4", "edge_screen_score": "<i4"}


def _disagreement(symbol: str, args: _Args, got: Call, want: Call, by: str) -> str:
    """The input's values, then both answers with their bits."""
    given = args[0] if isinstance(args[0], bytes) else b""
    values = np.frombuffer(given, "<f4" if symbol == MODEL_ENTRY_POINT else "<i2")
    shown = ", ".join(f"{v:.9g}" for v in values[:64]) + (", ..." if len(values) > 64 else "")
    if got.value != want.value:
        return f"returns {got.value}, by {by} {want.value}, on [{shown}]"
    mine, theirs = got.outputs[0], want.outputs[0]
    kind = np.dtype(_NUMBERS.get(symbol, "V8"))
    step = kind.itemsize
    at = next(k for k in range(0, len(mine), step) if mine[k : k + step] != theirs[k : k + step])
    both = []
    for data in (mine, theirs):
        word = data[at : at + step]
        number = f"{np.frombuffer(word, kind)[0]!r} " if symbol in _NUMBERS else ""
        both.append(f"{number}(bits 0x{word[::-1].hex()})")
    return f"output {at // step} is {both[0]}, by {by} {both[1]}, on [{shown}]"
