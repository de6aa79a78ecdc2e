"""edge_infer against compile/decide.py, bit for bit, with a stand-in model whose scores are its features.

The stand-in answers exact doubles, infinities and NaN, so every branch of the decision is reached; the real
models come in their own tests.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compile import toolchain
from compile.calibrate import fit
from compile.decide import VERDICT, FittedPipeline, Float64, Verdicts, decide
from compile.emit.decide import pipeline_c
from compile.emit.header import header_h
from compile.emulate import Machine, Out
from compile.features import Int16, compute, load_host
from compile.kernels import sources
from compile.novelty import FittedNovelty
from compile.pipeline import Pipeline
from compile.targets import TARGETS
from edge_runtime.reasons import Reason
from edge_runtime.verdict import UNKNOWN, VERDICT_STRUCT, Rung
from tests.pipelines import TRAP, rows

POINTS = 64
STAND_IN = """
static void edge_trees_i32(const int32_t *features, double *raw_scores)
{
    for (int k = 0; k < EDGE_OUTPUTS; k++) {
        uint32_t odd = (uint32_t)(features[k] + 16777216) % 61u;
        raw_scores[k] = odd == 1u ? __builtin_nan("") : odd == 2u ? __builtin_inf() : odd == 3u ? -__builtin_inf()
                                                                                      : features[k] * 0.125;
    }
}
"""
FEATURES: list[dict[str, Any]] = [
    {"name": "left", "kernel": "band", "from": 1, "to": 9, "of": "mean", "side": "left"},
    {"name": "right", "kernel": "band", "from": 1, "to": 9, "of": "mean", "side": "right"},
    {"name": "rough", "kernel": "roughness"},
    {"name": "crest", "kernel": "peak", "reference": "mean"},
    {"name": "spread", "kernel": "spread", "radius": 20},
    {"name": "skew", "kernel": "skew"},
    {"name": "mean", "kernel": "mean"},
]


def stand_in(features: np.ndarray[Any, np.dtype[np.int32]], outputs: int) -> Float64:
    used = features[:, :outputs].astype(np.int64)
    scores = used * 0.125
    for odd, value in ((1, np.nan), (2, np.inf), (3, -np.inf)):
        scores[(used + 16777216) % 61 == odd] = value
    return scores


def pipeline(**sections: Any) -> Pipeline:
    contract = {"points": POINTS, "start_hz": 0, "step_hz": 1, "power_min_cdbm": -20000, "max_age_ms": 1}
    contract |= {"power_max_cdbm": 20000}
    return Pipeline.from_dict({"contract": contract, "features": FEATURES, **sections})


SCREEN = {"feature": "crest", "answer": "a", "max_lost": 0.05, "guards": ["mean"], "guard_share": 0.9}
FULL = {
    "screen": SCREEN,
    "novelty": {"false_alarm": 0.1},
    "decision": {"min_confidence": 0.4, "min_margin": 5.0},
}
FULL |= {"calibration": {"steps": 8, "min_scans": 20}}
SHAPES: dict[str, tuple[dict[str, Any], int, tuple[str, ...], float]] = {
    "classes": (FULL, 3, ("a", "b", "c"), 0.0),
    "classes, bare": ({}, 3, ("a", "b", "c"), 0.0),
    "binary": (FULL, 1, ("a", "b"), 0.0),
    "binary, probability": (FULL, 1, ("a", "b"), 0.5),
    "two outputs": (FULL, 2, ("a", "b"), 0.0),
    "regression": ({"novelty": {"false_alarm": 0.1}}, 1, (), 0.0),
}


@cache
def scans(count: int = 1200) -> Int16:
    """Noise with bursts, half of them without; levels within the contract, the extremes of int16 left out."""
    power = np.clip(rows(POINTS, count), -20000, 20000)
    power[4 : count // 2] = np.rint(np.random.default_rng(3).normal(-10_000, 300, (count // 2 - 4, POINTS)))
    return power


@cache
def fitted(shape: str) -> FittedPipeline:
    sections, outputs, classes, threshold = SHAPES[shape]
    declared = pipeline(**sections)
    features = compute(declared, scans())
    rng = np.random.default_rng(1)
    scores = stand_in(features, outputs)
    # Labels that the stand-in is mostly right about, so that the calibration has something to say.
    best = (
        np.nanargmax(np.nan_to_num(scores), axis=1) if outputs > 1 else (scores[:, 0] > threshold).astype(int)
    )
    labels = np.where(
        rng.random(len(features)) < 0.8, best, rng.integers(0, max(len(classes), 1), len(features))
    )
    split = rng.choice([0, 1, 2], len(features)).astype(np.uint8)
    return fit(declared, features, labels, split, scores, classes=classes, binary_threshold=threshold)


def artifact_sources(f: FittedPipeline) -> dict[str, str]:
    names = f.pipeline.feature_names
    source = '#include "edge_model.h"\n#include "edge_features.h"\n' + STAND_IN + pipeline_c(f)
    header = header_h(names, f.outputs, f.classes, f.pipeline)
    return {**sources(), "edge_model.h": header, "edge_model.c": source}


def host(f: FittedPipeline) -> Callable[[str, Int16], Verdicts]:
    library = load_host(tuple(sorted(artifact_sources(f).items())))

    def infer(function: str, power: Int16) -> Verdicts:
        out = np.frombuffer(b"\xa5" * VERDICT.itemsize * len(power), VERDICT).copy()
        call = getattr(library, function)
        for k, row in enumerate(power):
            at = ctypes.c_void_p(out.ctypes.data + k * VERDICT.itemsize)
            assert call(ctypes.c_void_p(row.ctypes.data), len(row), at) == out[k]["reason"] or not fatal(
                out[k]
            )
        return out

    return infer


def fatal(verdict: np.void) -> bool:
    return bool(verdict["rung"] == Rung.NONE and verdict["reason"] != Reason.OK)


def reference(f: FittedPipeline, power: Int16) -> Verdicts:
    features = compute(f.pipeline, power)
    return decide(f, features, stand_in(features, f.outputs))


@pytest.mark.parametrize("shape", SHAPES)
def test_infer_equals_the_reference(shape: str) -> None:
    f = fitted(shape)
    assert host(f)("edge_infer", scans()).tobytes() == reference(f, scans()).tobytes()


def test_every_branch_is_reached() -> None:
    seen = [reference(fitted(shape), scans()) for shape in ("classes", "binary", "two outputs")]
    for verdicts in seen:
        pairs = set(zip(verdicts["rung"].tolist(), verdicts["reason"].tolist(), strict=True))
        assert pairs >= {(Rung.SCREEN, Reason.OK), (Rung.TREES, Reason.OK)}
        assert pairs >= {(Rung.TREES, Reason.NOVEL), (Rung.TREES, Reason.AMBIGUOUS)}
    assert np.isnan(seen[0]["margin"]).any()
    assert np.isinf(seen[0]["margin"]).any()


@pytest.mark.parametrize("name", TARGETS)
def test_infer_is_the_same_on_every_target(name: str) -> None:
    for shape in ("classes", "binary"):
        f = fitted(shape)
        machine = Machine(TARGETS[name], toolchain.build(artifact_sources(f), TARGETS[name]))
        power = scans()[::60]
        for row, want in zip(power, reference(f, power), strict=True):
            done = machine.call("edge_infer", row.tobytes(), POINTS, Out(VERDICT.itemsize))
            assert done.outputs[0] == want.tobytes()
            assert done.value == 0


def test_no_undefined_behaviour() -> None:
    for shape in ("classes", "binary"):
        f, machine_of = fitted(shape), TARGETS["x86_64"]
        machine = Machine(machine_of, toolchain.build(artifact_sources(f), machine_of, extra_flags=TRAP))
        for row in scans()[::40]:
            want = reference(f, row[np.newaxis])
            done = machine.call("edge_infer", row.tobytes(), POINTS, Out(VERDICT.itemsize))
            assert done.outputs[0] == want.tobytes()


def test_a_broken_contract_writes_the_verdict_whole() -> None:
    infer = host(fitted("classes"))
    row = scans()[20].copy()
    high = row.copy()
    high[3] = 20001
    cases = [(row[:-1], Reason.POINTS), (high, Reason.RANGE), (np.full_like(row, -9000), Reason.STUCK)]
    for (power, reason), function in itertools.product(cases, ("edge_infer", "edge_screen")):
        got = infer(function, power[np.newaxis])
        assert VERDICT_STRUCT.unpack(got.tobytes()) == (UNKNOWN, UNKNOWN, reason, Rung.NONE, 0, 0, 0.0)


def test_the_screen_alone_answers_what_it_answers_in_infer() -> None:
    infer = host(fitted("classes"))
    whole, alone = infer("edge_infer", scans()), infer("edge_screen", scans())
    by_screen = whole["rung"] == Rung.SCREEN
    assert 0 < by_screen.sum() < len(whole)
    assert whole[by_screen].tobytes() == alone[by_screen].tobytes()
    none = np.array((UNKNOWN, UNKNOWN, Reason.OK, Rung.NONE, 0, 0, 0.0), VERDICT)
    assert set(alone[~by_screen].tolist()) == {none.item()}


def test_the_header_is_c_and_cpp_and_agrees_with_python(tmp_path: Path) -> None:
    f = fitted("classes")
    text = artifact_sources(f)
    text["use.c"] = '#include "edge_model.h"\n#include "edge_model.h"\n' + "".join(
        f'_Static_assert({c} == {value}, "{c}");\n'
        for c, value in [
            ("sizeof(edge_verdict)", VERDICT.itemsize),
            *[(f"offsetof(edge_verdict, {name})", VERDICT.fields[name][1]) for name in VERDICT.names],
            *[(f"EDGE_{r.name}", r.value) for r in Reason],
            *[(f"EDGE_RUNG_{r.name}", r.value) for r in Rung],
            ("EDGE_SCAN_POINTS", POINTS),
            ("EDGE_CLASSES", 3),
            ("EDGE_FEATURES", len(FEATURES)),
        ]
    ).replace("offsetof", "__builtin_offsetof")
    for name in ("x86_64", "cortex-m0"):
        toolchain.build(text, TARGETS[name], extra_flags=["-Wall", "-Wextra", "-Wpedantic", "-Werror"])
    cpp = text["edge_model.h"] + "\nint main() { edge_verdict v; return edge_infer(0, 0, &v); }\n"
    assert is_cpp(tmp_path / "right.cpp", cpp)
    assert not is_cpp(tmp_path / "wrong.cpp", cpp.replace("edge_verdict v", "edge_verdikt v"))


def is_cpp(path: Path, text: str) -> bool:
    path.write_text(text)
    flags = ["-std=c++17", "-ffreestanding", "-target", TARGETS["cortex-m4"].triple, "-c", "-o", f"{path}.o"]
    command = [sys.executable, "-m", "ziglang", "c++", *flags, str(path)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def bump(table: tuple[Any, ...], *at: int, by: float) -> tuple[Any, ...]:
    """The table with one number changed."""
    first, *rest = at
    value = bump(table[first], *rest, by=by) if rest else table[first] + by
    return (*table[:first], value, *table[first + 1 :])


def novelty(f: FittedPipeline) -> FittedNovelty:
    assert f.novelty is not None
    return f.novelty


MUTATIONS: Mapping[str, Callable[[FittedPipeline], FittedPipeline]] = {
    "screen threshold": lambda f: replace(f, screen=replace(f.screen, threshold=f.screen.threshold + 40)),
    "guard": lambda f: replace(f, screen=replace(f.screen, guards=bump(f.screen.guards, 0, 0, by=40))),
    "screen label": lambda f: replace(f, screen=replace(f.screen, label=1)),
    "screen confidence": lambda f: replace(f, screen=replace(f.screen, confidence_q16=7)),
    "margin": lambda f: replace(f, margins=bump(f.margins, 0, by=8.0)),
    "confidence": lambda f: replace(f, confidence_q16=bump(f.confidence_q16, 1, by=1)),
    "least confidence": lambda f: replace(f, min_confidence_q16=f.confidence_q16[-1]),
    "least margin": lambda f: replace(f, min_margin=f.min_margin + 10),
    **{
        f"novelty {name}": lambda f, name=name, at=at, by=by: replace(
            f, novelty=replace(novelty(f), **{name: bump(getattr(novelty(f), name), *at, by=by)})
        )
        for name, at, by in [
            ("centre", (2,), 60),
            ("inverse_q16", (2,), 60),
            ("mix", (3, 1), 400),
            ("mean_q4", (1, 0), 4),
            ("inverse_q12", (2, 1), 400),
            ("limit_q4", (1,), 3),
        ]
    },
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_changed_table_is_noticed(mutation: str) -> None:
    f = fitted("classes")
    mutant = MUTATIONS[mutation](f)
    assert mutant != f
    assert host(mutant)("edge_infer", scans()).tobytes() != reference(f, scans()).tobytes()


def test_a_fitted_pipeline_survives_the_manifest() -> None:
    for shape in SHAPES:
        f = fitted(shape)
        assert FittedPipeline.from_dict(json.loads(json.dumps(f.to_dict()))) == f


def test_a_name_cannot_leave_its_comment() -> None:
    names = ["*/ int x;", "/* ", "back\\", "new\nline", "Wetterstation 3 °C"]
    text = header_h(names, 1, names, None)
    assert "3 Wetter" not in text
    assert "4 Wetterstation 3 °C" in text
    unit = {"edge_model.h": text, "use.c": '#include "edge_model.h"\nint edge_one(void) { return 1; }\n'}
    toolchain.build(unit, TARGETS["cortex-m4"], extra_flags=["-Wall", "-Wextra", "-Wpedantic", "-Werror"])
