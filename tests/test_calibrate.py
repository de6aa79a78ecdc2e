"""What fitting promises: few bursts lost, limits that hold, confidences that mean what they say, faults caught."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compile.calibrate import calibration_error, confidence_table, fit
from compile.decide import FittedPipeline, decide, screened
from compile.features import Int16, compute, features_to_npz
from compile.novelty import conformal_limit, fit_novelty
from compile.pipeline import Calibration, Novelty, Pipeline
from edge_runtime.errors import BadInput
from edge_runtime.reasons import Reason
from edge_runtime.recording import Origin, Recording, Split
from edge_runtime.verdict import UNKNOWN, Rung
from tests.faults import FAULTS

DEMO = Path(__file__).parent.parent / "compile" / "demo"
QUICK = settings(max_examples=60, deadline=None, derandomize=True, database=None)


class Trained(NamedTuple):
    """The shipped recordings, a small model of them, and the fitted pipeline."""

    pipeline: Pipeline
    power: Int16
    features: np.ndarray[Any, np.dtype[np.float32]]
    labels: np.ndarray[Any, np.dtype[np.int16]]
    split: np.ndarray[Any, np.dtype[np.uint8]]
    origin: np.ndarray[Any, np.dtype[np.uint8]]
    classes: list[str]
    booster: Any
    scores: np.ndarray[Any, np.dtype[np.float64]]
    fitted: FittedPipeline


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    pipeline = Pipeline.load(DEMO / "pipeline.toml")
    path = tmp_path_factory.mktemp("features") / "d.npz"
    features_to_npz(Recording.open(DEMO / "recordings.scans"), pipeline, path)
    with np.load(path) as d:
        features, labels, split = d["features"], d["label"], d["split"]
        power, origin, classes = d["power_cdbm"], d["origin"], [str(c) for c in d["classes"]]
    train = split == Split.TRAIN
    params = {"objective": "multiclass", "num_class": len(classes), "num_leaves": 15, "verbose": -1}
    params |= {
        "feature_fraction": 0.5,
        "bagging_fraction": 0.7,
        "bagging_freq": 1,
        "num_threads": 1,
        "seed": 1,
    }
    booster = lightgbm.train(params, lightgbm.Dataset(features[train], labels[train]), 40)
    scores = np.asarray(booster.predict(features, raw_score=True))
    fitted = fit(pipeline, features, labels, split, scores, classes=classes)
    return Trained(pipeline, power, features, labels, split, origin, classes, booster, scores, fitted)


def test_the_screen_loses_no_more_bursts_than_declared(trained: Trained) -> None:
    t = trained
    assert t.pipeline.screen is not None
    assert t.fitted.screen is not None
    answered = screened(t.pipeline, t.fitted.screen, t.features.astype(np.int32))
    active = np.isin(t.split, [Split.TRAIN, Split.CALIBRATION]) & (t.labels != t.fitted.screen.label)
    assert np.mean(answered[active]) <= t.pipeline.screen.max_lost
    quiet = (t.split == Split.TEST) & (t.labels == t.fitted.screen.label)
    assert np.mean(answered[quiet]) > 0.3


def test_confidence_means_what_it_says_on_held_out_scans(trained: Trained) -> None:
    assert trained.fitted.report["test_calibration_error"] < 0.04
    assert list(trained.fitted.confidence_q16) == sorted(trained.fitted.confidence_q16)
    assert max(trained.fitted.confidence_q16) < 65536


def test_the_report_counts_what_the_verdicts_say(trained: Trained) -> None:
    t = trained
    verdicts = decide(t.fitted, t.features.astype(np.int32), t.scores)
    test = t.split == Split.TEST
    answered = verdicts["label"] != UNKNOWN
    report = t.fitted.report
    assert report["test_scans"] == test.sum()
    assert report["test_answered"] == pytest.approx(np.mean(answered[test]), abs=1e-6)
    right = verdicts["label"][test & answered] == t.labels[test & answered]
    assert report["test_right_when_answered"] == pytest.approx(np.mean(right), abs=1e-6)
    assert report["test_by_screen"] == pytest.approx(np.mean(verdicts["rung"][test] == Rung.SCREEN), abs=1e-6)
    foreign = (t.split == Split.UNKNOWN) & (t.labels == UNKNOWN)
    assert report["unknown_scans"] == foreign.sum()
    assert report["unknown_caught"] == pytest.approx(np.mean(~answered[foreign]), abs=1e-6)


def test_novelty_catches_faults(trained: Trained) -> None:
    """At 5 % false alarms, without the screen. Measured on the shipped recordings; the bounds leave some room."""
    t = trained
    pipeline = replace(t.pipeline, screen=None, novelty=Novelty(0.05))
    fitted = fit(pipeline, t.features, t.labels, t.split, t.scores, classes=t.classes)
    known = (t.split == Split.TEST) & (t.origin != Origin.RECORDED)

    def novel(power: Int16) -> float:
        alive = power.max(axis=1) != power.min(axis=1)  # the contract refuses the others: caught as well
        features = compute(pipeline, power[alive])
        scores = np.asarray(t.booster.predict(features.astype(np.float32), raw_score=True))
        found = decide(fitted, features, scores)["reason"] == Reason.NOVEL
        return float((np.sum(found) + np.sum(~alive)) / len(power))

    assert novel(t.power[known]) < 0.10
    caught = {name: novel(fault(t.power[known])) for name, fault in FAULTS.items()}
    print({name: round(share, 3) for name, share in caught.items()})
    assert min(caught[name] for name in ("comb", "noise", "impulses", "ripple")) > 0.8
    assert np.mean(list(caught.values())) > 0.8


def test_fitting_twice_gives_the_same_numbers(trained: Trained) -> None:
    t = trained
    again = fit(t.pipeline, t.features, t.labels, t.split, t.scores, classes=t.classes)
    assert again.to_dict() == t.fitted.to_dict()


@given(st.data(), st.integers(1, 12), st.integers(1, 30))
@QUICK
def test_confidence_is_monotone_and_never_certain(data: st.DataObject, steps: int, least: int) -> None:
    # Few different margins, so that equal ones must share a step.
    margin = np.array(data.draw(st.lists(st.integers(0, 9), max_size=120)), np.float64)
    right = np.array(data.draw(st.lists(st.booleans(), min_size=len(margin), max_size=len(margin))), bool)
    margins, chance = confidence_table(Calibration(steps, least), margin, right)
    assert len(chance) == len(margins) + 1 <= max(steps, 1)
    assert list(chance) == sorted(set(chance)) or len(chance) == 1
    assert list(margins) == sorted(set(margins))
    step = np.searchsorted(np.array(margins), margin, side="right")
    for k, q16 in enumerate(chance):
        own = right[step == k]
        assert 0 < q16 < 65536
        assert q16 == (int(own.sum()) + 1) * 65536 // (len(own) + 2)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=200), st.sampled_from([0.0, 0.01, 0.05, 0.3]))
@QUICK
def test_few_held_out_scores_exceed_the_limit(scores: list[int], false_alarm: float) -> None:
    limit = conformal_limit(np.array(scores), false_alarm)
    assert sum(s > limit for s in scores) <= false_alarm * len(scores)
    assert limit == 1 or limit in scores


def test_novelty_sees_a_broken_relation() -> None:
    """Two features that move together: each value is usual, the pair is not. A plain z-score would miss it."""
    rng = np.random.default_rng(0)
    common = rng.normal(0, 1000, 4000)
    features = np.rint(np.stack([common, common + rng.normal(0, 50, 4000)], axis=1)).astype(np.int32)
    group, held_out = np.zeros(4000, np.int64), np.arange(4000) >= 3000
    tables = fit_novelty(features, group, ~held_out, held_out, 1, 0.01)
    probe = np.array([[0, 0], [900, 900], [900, -900], [9000, 9000]], np.int32)
    assert (tables.ratio_q8(probe, np.zeros(4, np.int64)) > 256).tolist() == [False, False, True, True]


@given(st.integers(1, 40), st.integers(0, 3))
@QUICK
def test_novelty_stays_within_its_words(count: int, degenerate: int) -> None:
    """Constant, huge and linearly dependent features: tables fit their C types, and no sum passes 2^30."""
    rng = np.random.default_rng(count)
    features = rng.integers(-(1 << 24), 1 << 24, (60, count)).astype(np.int32)
    features[:, : min(degenerate, count)] = 7
    if count > 4:
        features[:, 4] = features[:, 3]
    group, train = np.arange(60) % 2, np.arange(60) < 40
    f = fit_novelty(features, group, train, ~train, 2, 0.1)
    mix = np.array(f.mix, np.int64)
    assert np.abs(mix).max() <= 0x7FFF
    assert np.abs(mix).sum(axis=1).max() * 2047 < 1 << 30
    assert np.abs(np.array(f.mean_q4)).max() <= 0x8000
    assert 0 <= np.array(f.inverse_q12).min() <= np.array(f.inverse_q12).max() <= 0x7FFF
    assert min(f.limit_q4) >= 1


@pytest.mark.parametrize(
    ("confidence", "right", "error"),
    [
        ([0.9] * 10, [True] * 9 + [False], 0.0),
        ([0.9] * 10, [True] * 10, 0.1),
        ([1.0, 0.0], [False, True], 1.0),
    ],
)
def test_calibration_error_by_hand(confidence: list[float], right: list[bool], error: float) -> None:
    assert calibration_error(np.array(confidence), np.array(right)) == pytest.approx(error)


def test_what_does_not_fit_has_its_line(trained: Trained) -> None:
    t = trained
    with pytest.raises(
        BadInput, match=r"features \(\d+, 3\) for \d+ declared; compute them with this pipeline"
    ):
        fit(t.pipeline, t.features[:, :3], t.labels, t.split, t.scores, classes=t.classes)
    with pytest.raises(BadInput, match=r"raw scores for 2 classes; give the classes of the model"):
        fit(t.pipeline, t.features, t.labels, t.split, t.scores, classes=t.classes[:2])
    with pytest.raises(BadInput, match=r"no scan in split CALIBRATION; derive the recordings with one"):
        fit(t.pipeline, t.features, t.labels, np.zeros_like(t.split), t.scores, classes=t.classes)
    other = [c if c != "nothing" else "silence" for c in t.classes]
    with pytest.raises(BadInput, match=r"\[screen\] answer 'nothing' is no class; choose of .*silence"):
        fit(t.pipeline, t.features, t.labels, t.split, t.scores, classes=other)
