"""The pipeline file: contract, features, screen, novelty, calibration, decision; read and checked.

The same structure is read from a TOML file and from a bundle's manifest (`to_dict`, `from_dict`), so a bundle
holds its pipeline as declared. Every error is one line: the file, the key, what to do.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compile.kernels.catalogue import KERNELS, Param, Value
from edge_runtime.errors import BadInput
from edge_runtime.resample import MODES
from edge_runtime.scan import Axis

MAX_POINTS = 4096
MAX_FEATURES = 256
RESAMPLE = ("forbid", *MODES)
MAX_BINS = 2048
"""Bins of the histogram that percentiles are read from: two bytes each on the device's stack."""


@dataclass(frozen=True, slots=True)
class Contract:
    """What a scan must be. Powers in hundredths of a dBm; `axis_tolerance_hz` holds for every frequency.

    power_step_cdbm: the grid of percentiles and of the floor, counted from power_min_cdbm: they are exact
        where the scanner's own step is a multiple of it, and rounded down to it elsewhere.
    resample: what becomes of a scan on other frequencies: "forbid" refuses it, "nearest" and "peak" choose among
        its own values as edge_runtime/resample.py says, where it covers the contract's frequencies.
    """

    points: int
    start_hz: int
    step_hz: int
    power_min_cdbm: int
    power_max_cdbm: int
    power_step_cdbm: int
    max_age_ms: int
    axis_tolerance_hz: int
    resample: str

    @property
    def axis(self) -> Axis:
        """The frequencies of the points."""
        return Axis(self.start_hz, self.step_hz, self.points)

    @property
    def bins(self) -> int:
        """Levels of the power grid."""
        return (self.power_max_cdbm - self.power_min_cdbm) // self.power_step_cdbm + 1


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of the matrix: a kernel with all its parameters."""

    name: str
    kernel: str
    params: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Screen:
    """Answers `answer` without the model where `feature` is under a threshold that loses at most `max_lost`
    of the active scans, and every guard is where signal-free scans have it (`guard_share` of them)."""

    feature: str
    answer: str
    max_lost: float
    guards: tuple[str, ...]
    guard_share: float


@dataclass(frozen=True, slots=True)
class Novelty:
    """UNKNOWN where a scan is farther from the class than all but `false_alarm` of that class's own."""

    false_alarm: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Margin to confidence by a monotone table of at most `steps` steps, each of `min_scans` or more."""

    steps: int
    min_scans: int


@dataclass(frozen=True, slots=True)
class Decision:
    """UNKNOWN (ambiguous) where the confidence or the margin is below these."""

    min_confidence: float
    min_margin: float


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A checked pipeline. `screen` and `novelty` are None where the file declares none."""

    contract: Contract
    floor_permille: int
    features: tuple[Feature, ...]
    screen: Screen | None
    novelty: Novelty | None
    calibration: Calibration
    decision: Decision

    @property
    def feature_names(self) -> list[str]:
        """Names of the columns, in order."""
        return [f.name for f in self.features]

    def column(self, name: str) -> int:
        """The column of the feature of that name."""
        return self.feature_names.index(name)

    @classmethod
    def load(cls, path: Path) -> Pipeline:
        """Read a pipeline file. Raises BadInput where it is missing, no TOML, or not a pipeline."""
        try:
            with path.open("rb") as file:
                data = tomllib.load(file)
        except OSError as e:
            raise BadInput(
                f"pipeline {path}: {e.strerror}; give a TOML file such as compile/demo/pipeline.toml"
            ) from e
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
            raise BadInput(f"pipeline {path}: not TOML ({e}); mend that line") from e
        return cls.from_dict(data, str(path))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "in the bundle") -> Pipeline:
        """A pipeline from its data; `where` names it in errors. Raises BadInput."""
        top = _Table(data, f"pipeline {where}")
        contract = _contract(top.table("contract"))
        floor = top.table("floor", optional=True)
        pipeline = cls(
            contract=contract,
            floor_permille=floor.whole("permille", 0, 1000, default=500),
            features=_features(top),
            screen=_screen(top.table("screen")) if "screen" in data else None,
            novelty=_novelty(top.table("novelty")) if "novelty" in data else None,
            calibration=_calibration(top.table("calibration", optional=True)),
            decision=_decision(top.table("decision", optional=True)),
        )
        floor.done()
        top.done()
        _check_screen(pipeline, top)
        return pipeline

    def to_dict(self) -> dict[str, Any]:
        """The pipeline as JSON can hold it; `from_dict` of it is this pipeline again."""
        out: dict[str, Any] = {"contract": asdict(self.contract), "floor": {"permille": self.floor_permille}}
        out["features"] = [{"name": f.name, "kernel": f.kernel, **f.params} for f in self.features]
        for name in ("screen", "novelty", "calibration", "decision"):
            section = getattr(self, name)
            if section is not None:
                out[name] = asdict(section)
        if self.screen is not None:
            out["screen"]["guards"] = list(self.screen.guards)
        return out


class _Table:
    """A TOML table being read: each key is taken once, and what is left over is an error."""

    def __init__(self, data: object, where: str) -> None:
        if not isinstance(data, Mapping):
            raise BadInput(
                f"{where}: must be a table of keys; write it as [name] with one key = value a line"
            )
        self.data = dict(data)
        self.where = where

    def fail(self, key: str, what: str) -> BadInput:
        return BadInput(f"{self.where}: {key}: {what}")

    def table(self, key: str, *, optional: bool = False) -> _Table:
        if key not in self.data and not optional:
            raise BadInput(f"{self.where}: [{key}] is missing; declare it as in compile/demo/pipeline.toml")
        return _Table(self.data.pop(key, {}), f"{self.where}: [{key}]")

    def take(self, key: str, default: object) -> object:
        if key not in self.data and default is None:
            raise self.fail(key, "is missing; give it a value")
        return self.data.pop(key, default)

    def whole(self, key: str, low: int, high: int, default: int | None = None) -> int:
        value = self.take(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.fail(key, f"is {value!r}; give a whole number {low} to {high}")
        return value

    def real(self, key: str, low: float, high: float, default: float | None = None) -> float:
        value = self.take(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.fail(key, f"is {value!r}; give a number {low:g} to {high:g}")
        return float(value)

    def word(self, key: str, choices: Sequence[str] | None = None, default: str | None = None) -> str:
        value = self.take(key, default)
        if not isinstance(value, str) or not value:
            raise self.fail(key, f"is {value!r}; give a name in quotes")
        if choices is not None and value not in choices:
            raise self.fail(key, f"is {value!r}; choose of {', '.join(choices)}")
        return value

    def done(self) -> None:
        for key in self.data:
            raise self.fail(str(key), "is no key of this table; remove it or correct its name")


def _contract(t: _Table) -> Contract:
    low = t.whole("power_min_cdbm", -32768, 32767)
    high = t.whole("power_max_cdbm", -32768, 32767)
    if low >= high:
        raise t.fail("power_max_cdbm", f"is {high}; give more than power_min_cdbm, {low}")
    contract = Contract(
        points=t.whole("points", 1, MAX_POINTS),
        start_hz=t.whole("start_hz", 0, 10**12),
        step_hz=t.whole("step_hz", 1, 10**10),
        power_min_cdbm=low,
        power_max_cdbm=high,
        power_step_cdbm=t.whole("power_step_cdbm", 1, 1000, default=50),
        max_age_ms=t.whole("max_age_ms", 1, 86_400_000),
        axis_tolerance_hz=t.whole("axis_tolerance_hz", 0, 10**10, default=0),
        resample=t.word("resample", RESAMPLE, default=RESAMPLE[0]),
    )
    if contract.bins > MAX_BINS:
        coarse = -(-(high - low) // (MAX_BINS - 1))
        raise t.fail(
            "power_step_cdbm", f"gives {contract.bins} levels, more than {MAX_BINS}; give {coarse} or more"
        )
    t.done()
    return contract


def _features(top: _Table) -> tuple[Feature, ...]:
    rows = top.take("features", [])
    if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_FEATURES:
        raise top.fail("[[features]]", f"must be 1 to {MAX_FEATURES} tables; declare one for each feature")
    features: list[Feature] = []
    for number, row in enumerate(rows, 1):
        feature = _feature(_Table(row, f"{top.where}: [[features]] {number}"))
        if feature.name in [f.name for f in features]:
            raise top.fail(f"[[features]] {number}", f"name {feature.name!r} is used twice; give it another")
        features.append(feature)
    return tuple(features)


def _feature(t: _Table) -> Feature:
    name = t.word("name")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise t.fail("name", f"is {name!r}; use lower-case letters, digits and _")
    t.where = f"{t.where} ({name})"
    kernel = t.word("kernel")
    if kernel not in KERNELS:
        raise BadInput(
            f"{t.where}: unknown feature kernel {kernel!r}: choose of {', '.join(sorted(KERNELS))}"
        )
    params = {key: _param(t, key, spec) for key, spec in KERNELS[kernel].params.items()}
    t.done()
    if "from" in params and int(params["from"]) > int(params["to"]):
        raise t.fail("to", f"is {params['to']}; give at least from, {params['from']}")
    return Feature(name, kernel, params)


def _param(t: _Table, key: str, spec: Param) -> Value:
    if spec.choices:
        return t.word(key, spec.choices, str(spec.default) if spec.default is not None else None)
    return t.whole(key, spec.low, spec.high, int(spec.default) if spec.default is not None else None)


def _screen(t: _Table) -> Screen:
    guards = t.take("guards", [])
    if not isinstance(guards, list) or not all(isinstance(g, str) for g in guards):
        raise t.fail("guards", f"is {guards!r}; give a list of names of features")
    screen = Screen(
        feature=t.word("feature"),
        answer=t.word("answer"),
        max_lost=t.real("max_lost", 0, 0.5),
        guards=tuple(guards),
        guard_share=t.real("guard_share", 0.5, 1, default=0.999),
    )
    t.done()
    return screen


def _check_screen(pipeline: Pipeline, top: _Table) -> None:
    if pipeline.screen is None:
        return
    for name in (pipeline.screen.feature, *pipeline.screen.guards):
        if name not in pipeline.feature_names:
            raise top.fail(
                "[screen]", f"names feature {name!r}, which [[features]] does not declare; declare it there"
            )


def _novelty(t: _Table) -> Novelty:
    novelty = Novelty(false_alarm=t.real("false_alarm", 0, 0.5))
    t.done()
    return novelty


def _calibration(t: _Table) -> Calibration:
    calibration = Calibration(t.whole("steps", 1, 64, default=16), t.whole("min_scans", 1, 10000, default=40))
    t.done()
    return calibration


def _decision(t: _Table) -> Decision:
    decision = Decision(
        t.real("min_confidence", 0, 1, default=0.0), t.real("min_margin", 0, 1e9, default=0.0)
    )
    t.done()
    return decision
