"""edge_screen_score and edge_infer_unscreened against compile/decide.py, and what the engine makes of them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace

import pytest

from compile import toolchain
from compile.decide import VERDICT, FittedPipeline, decide, screen_scores
from compile.emulate import Machine, Out
from compile.features import compute, load_host
from compile.targets import TARGETS
from edge_runtime.bundle import Bundle
from edge_runtime.engines.compiled import SCORE_ASK, CompiledEngine
from edge_runtime.planning.work import calibration, scored
from edge_runtime.reasons import Reason
from edge_runtime.recording import Recording
from edge_runtime.verdict import Rung
from tests.pipelines import TRAP
from tests.test_entry_point import POINTS, artifact_sources, fitted, host, scans, stand_in
from tests.test_governed_engine import sweeps


def host_scores(f: FittedPipeline) -> list[int]:
    """The host artifact's scores."""
    library = load_host(tuple(sorted(artifact_sources(f).items())))
    score, out = ctypes.c_int32(), []
    for row in scans():
        assert library.edge_screen_score(ctypes.c_void_p(row.ctypes.data), len(row), ctypes.byref(score)) == 0
        out.append(score.value)
    return out


@pytest.mark.parametrize("shape", ["classes", "binary"])
def test_the_score_is_the_references(shape: str) -> None:
    """To the bit; below the line exactly where the screen answers, and of both kinds many."""
    f = fitted(shape)
    want = screen_scores(f, compute(f.pipeline, scans()))
    assert host_scores(f) == want.tolist()
    answered = host(f)("edge_screen", scans())["rung"] == Rung.SCREEN
    assert (want < SCORE_ASK).tolist() == answered.tolist()
    assert len(set(want[answered])) > 5
    assert len(set(want[~answered])) > 10
    assert want.min() <= 1
    assert want.max() >= 254


MUTATIONS: dict[str, Callable[[FittedPipeline], FittedPipeline]] = {
    "quiet span": lambda f: replace(f, screen=replace(f.screen, quiet_span=f.screen.quiet_span + 3)),
    "loud span": lambda f: replace(f, screen=replace(f.screen, loud_span=f.screen.loud_span + 3)),
    "threshold": lambda f: replace(f, screen=replace(f.screen, threshold=f.screen.threshold + 1)),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_changed_score_is_noticed(mutation: str) -> None:
    """The comparison sees a span or a threshold that is off by little."""
    f = fitted("classes")
    assert host_scores(MUTATIONS[mutation](f)) != screen_scores(f, compute(f.pipeline, scans())).tolist()


def test_past_the_screen_the_trees_answer() -> None:
    """The verdicts are those of a pipeline without a screen, and where the screen is silent those of edge_infer."""
    f = fitted("classes")
    features = compute(f.pipeline, scans())
    got = host(f)("edge_infer_unscreened", scans())
    assert got.tobytes() == decide(replace(f, screen=None), features, stand_in(features, f.outputs)).tobytes()
    whole = host(f)("edge_infer", scans())
    silent = whole["rung"] != Rung.SCREEN
    assert got[silent].tobytes() == whole[silent].tobytes()
    assert set(got["rung"]) == {Rung.TREES}


@pytest.mark.parametrize("name", TARGETS)
def test_the_same_on_every_target(name: str) -> None:
    """Without undefined behaviour, where the target traps it."""
    f, target = fitted("classes"), TARGETS[name]
    flags = TRAP if name == "x86_64" else []
    machine = Machine(target, toolchain.build(artifact_sources(f), target, extra_flags=flags))
    power = scans()[::60]
    features = compute(f.pipeline, power)
    verdicts = decide(replace(f, screen=None), features, stand_in(features, f.outputs))
    for row, score, verdict in zip(power, screen_scores(f, features), verdicts, strict=True):
        done = machine.call("edge_screen_score", row.tobytes(), POINTS, Out(4))
        assert done.outputs[0] == int(score).to_bytes(4, "little")
        done = machine.call("edge_infer_unscreened", row.tobytes(), POINTS, Out(VERDICT.itemsize))
        assert done.outputs[0] == verdict.tobytes()


def test_a_broken_contract_has_no_score(demo_bundle: Bundle, demo_recording: Recording) -> None:
    """The engine says -1, and the verdict of either entry says why."""
    engine = CompiledEngine.of(demo_bundle)
    broken = sweeps(demo_recording, 1)[0][:-2]
    assert engine.screen_score(broken) == -1
    assert engine.infer_unscreened(broken) == engine.infer(broken)
    assert engine.screen(broken).reason == Reason.POINTS


def test_an_artifact_without_a_score_says_yes_or_no(demo_bundle: Bundle, demo_recording: Recording) -> None:
    """Bundles that were built before there was a score go on working: 0 or 255, and the screen has the last word."""
    new, old = CompiledEngine.of(demo_bundle), CompiledEngine.of(demo_bundle)
    old._screen_score = old._unscreened = None
    heard = sweeps(demo_recording, 200)
    kinds = {(new.screen_score(s) < SCORE_ASK, old.screen_score(s)) for s in heard}
    assert kinds == {(True, 0), (False, 255)}
    assert [old.infer_unscreened(s) for s in heard] == [old.infer(s) for s in heard]
    assert old.screen_score(heard[0][:-2]) == -1


def test_the_ladder_is_counted_at_build(demo_bundle: Bundle, demo_recording: Recording) -> None:
    """Scores of real sweeps fall into several of its bins, and quiet ones change less often than loud ones."""
    ladder = demo_bundle.manifest["ladder"]
    assert sum(ladder["trees_seen"]) == sum(map(sum, ladder["joint"])) > 500
    bins = bytes.fromhex(ladder["score_bin"])
    quiet = bins[SCORE_ASK - 1]
    assert bins[SCORE_ASK] == quiet - 1
    rates = [
        sum(ladder["trees_changed"][part]) / sum(ladder["trees_seen"][part])
        for part in (slice(0, quiet), slice(quiet, None))
    ]
    assert rates[1] < 0.1
    assert rates[0] > 0.7
    engine = CompiledEngine.of(demo_bundle)
    assert len({bins[engine.screen_score(s)] for s in sweeps(demo_recording, 300)}) >= 5


def test_a_bundle_without_a_ladder_is_believed_as_before(demo_bundle: Bundle) -> None:
    """200 trials, a yes or no; and who asks for a yes or no gets two bins of any ladder."""
    manifest = {**demo_bundle.manifest, "ladder": None}
    assert scored(manifest) == calibration(manifest)
    assert sum(scored(manifest).trees_seen) == 200
    assert len(calibration(demo_bundle.manifest).trees_seen) == 2
