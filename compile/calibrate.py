"""Fit a pipeline's numbers to recordings: the screen, the limits of the known, and what a margin is worth.

Nothing here looks at the test split, except to report. Every number that the device compares with is an
integer or a float64 that came from the model, so the device needs neither exp nor log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from compile.decide import (
    VERDICT,
    Bools,
    FittedPipeline,
    FittedScreen,
    Float64,
    Int32,
    Verdicts,
    best_and_margin,
    decide,
    screened,
)
from compile.novelty import FittedNovelty, fit_novelty
from compile.pipeline import Calibration, Novelty, Pipeline
from edge_runtime.errors import BadInput
from edge_runtime.recording import Split
from edge_runtime.verdict import UNKNOWN, Rung

Labels = npt.NDArray[np.integer[Any]]
Splits = npt.NDArray[np.uint8]

ONE_Q16 = 1 << 16
MIN_NOVELTY_SCANS = 50
"""Fewer calibration scans than this and a class's limit is taken from all of its scans, screened or not."""


class _Matrix(NamedTuple):
    """The training matrix and the model's answers to it; `classes` is empty for a regression."""

    features: Int32
    labels: Labels
    split: Splits
    raw_scores: Float64
    classes: tuple[str, ...]

    def part(self, split: Split) -> Bools:
        rows: Bools = self.split == split
        return rows


def fit(
    pipeline: Pipeline,
    features: npt.NDArray[np.generic],
    labels: Labels,
    split: Splits,
    raw_scores: Float64,
    *,
    classes: Sequence[str],
    binary_threshold: float = 0.0,
) -> FittedPipeline:
    """Fit to the scans of a training matrix and the model's raw scores for all of them.

    features: (n, k), whole numbers. labels: (n,), index into classes or -1. split: (n,), recording.Split.
    raw_scores: (n, outputs) as the artifact gives them. classes: empty for a regression.
    Raises BadInput where the matrix does not fit the pipeline, or a split that is needed is empty.
    """
    m = _Matrix(features.astype(np.int32), labels, split, raw_scores, tuple(classes))
    _check(pipeline, m)
    fitted = FittedPipeline(
        pipeline=pipeline,
        classes=m.classes,
        outputs=raw_scores.shape[1],
        binary_threshold=float(binary_threshold),
        screen=_screen(pipeline, m),
        novelty=None,
        margins=(),
        confidence_q16=(ONE_Q16 // 2,),
        min_confidence_q16=round(pipeline.decision.min_confidence * ONE_Q16),
        min_margin=pipeline.decision.min_margin,
        report={},
    )
    passed = np.ones(len(m.features), bool)
    if fitted.screen is not None:
        passed = ~screened(pipeline, fitted.screen, m.features)
    if pipeline.novelty is not None:
        fitted = replace(fitted, novelty=_novelty(pipeline.novelty, m, passed))
    if classes:
        best, margin = best_and_margin(fitted.classes, raw_scores, fitted.binary_threshold)
        use = passed & m.part(Split.CALIBRATION) & (labels >= 0)
        margins, confidence = confidence_table(pipeline.calibration, margin[use], (best == labels)[use])
        fitted = replace(fitted, margins=margins, confidence_q16=confidence)
    return replace(fitted, report=report(fitted, m.features, labels, split, raw_scores))


def _check(pipeline: Pipeline, m: _Matrix) -> None:
    n, k = len(m.features), len(pipeline.features)
    if m.features.shape != (n, k) or {len(m.labels), len(m.split), len(m.raw_scores)} != {n}:
        raise BadInput(
            f"calibration: features {m.features.shape} for {k} declared; compute them with this pipeline"
        )
    outputs = m.raw_scores.shape[1]
    if outputs != len(m.classes) and (outputs, len(m.classes)) != (1, 2) and m.classes:
        raise BadInput(
            f"calibration: {outputs} raw scores for {len(m.classes)} classes; give the classes of the model"
        )
    for needed in (Split.TRAIN, Split.CALIBRATION):
        if not m.part(needed).any():
            raise BadInput(f"calibration: no scan in split {needed.name}; derive the recordings with one")


def _screen(pipeline: Pipeline, m: _Matrix) -> FittedScreen | None:
    screen = pipeline.screen
    if screen is None:
        return None
    if screen.answer not in m.classes:
        choices = ", ".join(m.classes)
        raise BadInput(f"calibration: [screen] answer {screen.answer!r} is no class; choose of {choices}")
    label = m.classes.index(screen.answer)
    known = m.part(Split.TRAIN) | m.part(Split.CALIBRATION)
    quiet, active = known & (m.labels == label), known & (m.labels != label)
    if not quiet.any() or not active.any():
        raise BadInput(
            f"calibration: [screen] needs scans with and without {screen.answer!r}; add the missing kind"
        )
    # So many active scans may lie under the threshold; it is the value of the next one.
    loudness = np.sort(m.features[active, pipeline.column(screen.feature)])
    threshold = int(loudness[min(int(screen.max_lost * len(loudness)), len(loudness) - 1)])
    tail = (1 - screen.guard_share) / 2
    guards = []
    for name in screen.guards:
        values = m.features[quiet, pipeline.column(name)]
        low, high = np.quantile(values, tail, method="lower"), np.quantile(values, 1 - tail, method="higher")
        guards.append((int(low), int(high)))
    feature = m.features[:, pipeline.column(screen.feature)]
    # The score's ends: a hundredth of the scans of either kind lie beyond.
    lowest = np.quantile(feature[quiet], 0.01, method="lower")
    highest = np.quantile(feature[active], 0.99, method="higher")
    spans = (max(1, threshold - int(lowest)), max(1, int(highest) - threshold))
    fitted = FittedScreen(threshold, tuple(guards), label, 0, *spans)
    hit = m.part(Split.CALIBRATION) & screened(pipeline, fitted, m.features)
    return replace(fitted, confidence_q16=_chance_q16(int(np.sum(m.labels[hit] == label)), int(np.sum(hit))))


def _chance_q16(right: int, scans: int) -> int:
    """Laplace's rule of succession: so few scans never say 100 %."""
    return (right + 1) * ONE_Q16 // (scans + 2)


def _novelty(novelty: Novelty, m: _Matrix, passed: Bools) -> FittedNovelty:
    """Limits from the calibration scans that the screen passes on, where there are enough of a class."""
    groups = max(len(m.classes), 1)
    group = m.labels.astype(np.int64) if m.classes else np.zeros(len(m.labels), np.int64)
    held_out = m.part(Split.CALIBRATION)
    for g in range(groups):
        own = held_out & (group == g)
        if np.sum(own & passed) >= MIN_NOVELTY_SCANS:
            held_out &= ~own | passed
    return fit_novelty(m.features, group, m.part(Split.TRAIN), held_out, groups, novelty.false_alarm)


def confidence_table(
    calibration: Calibration, margin: Float64, right: Bools
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """A monotone step table from margin to the chance to be right: equal-count bins, pooled where they fall.

    Pool adjacent violators: Ayer et al. (1955); binning before it: Zadrozny and Elkan (2002).
    """
    if len(margin) == 0:
        return (), (ONE_Q16 // 2,)
    order = np.argsort(margin, kind="stable")
    margin, right = margin[order], right[order]
    bins = max(1, min(calibration.steps, len(margin) // calibration.min_scans))
    cuts = {int(np.searchsorted(margin, margin[len(margin) * k // bins])) for k in range(1, bins)} - {0}
    blocks: list[tuple[int, int, int]] = []  # start, right, scans
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(margin)], strict=True):
        blocks.append((start, int(right[start:end].sum()), end - start))
        while len(blocks) > 1 and _chance_q16(*blocks[-2][1:]) >= _chance_q16(*blocks[-1][1:]):
            _, more_right, more_scans = blocks.pop()
            first, some_right, some_scans = blocks.pop()
            blocks.append((first, some_right + more_right, some_scans + more_scans))
    return (
        tuple(float(margin[start]) for start, _, _ in blocks[1:]),
        tuple(_chance_q16(hits, scans) for _, hits, scans in blocks),
    )


def report(
    fitted: FittedPipeline, features: Int32, labels: Labels, split: Splits, raw_scores: Float64
) -> dict[str, float | int]:
    """What the fitted pipeline does on each split: numbers for the manifest, rounded to six places."""
    verdicts = decide(fitted, features, raw_scores)
    out: dict[str, float | int] = {}
    if not fitted.classes:
        return out
    for part in (Split.CALIBRATION, Split.TEST):
        use = (split == part) & (labels >= 0)
        if use.any():
            out |= {
                f"{part.name.lower()}_{key}": value
                for key, value in measures(verdicts[use], labels[use]).items()
            }
    foreign = (split == Split.UNKNOWN) & (labels < 0)
    if foreign.any():
        out["unknown_scans"] = int(foreign.sum())
        out["unknown_caught"] = round(float(np.mean(verdicts["label"][foreign] == UNKNOWN)), 6)
    if fitted.screen is not None:
        lost = (verdicts["rung"] == Rung.SCREEN) & (labels != fitted.screen.label)
        active = labels != fitted.screen.label
        for part in (Split.TRAIN, Split.CALIBRATION, Split.TEST):
            if np.any(active & (split == part)):
                share = np.sum(lost & (split == part)) / np.sum(active & (split == part))
                out[f"{part.name.lower()}_screen_lost"] = round(float(share), 6)
    return out


def measures(verdicts: Verdicts, labels: Labels) -> dict[str, float | int]:
    """Of scans of known classes: how many, the shares answered and right, and the calibration error."""
    assert verdicts.dtype == VERDICT
    answered = verdicts["label"] != UNKNOWN
    best_right = verdicts["best"] == labels
    right = float(np.mean(best_right[answered])) if answered.any() else 0.0
    return {
        "scans": len(labels),
        "answered": round(float(np.mean(answered)), 6),
        "right_when_answered": round(right, 6),
        "best_right": round(float(np.mean(best_right)), 6),
        "by_screen": round(float(np.mean(verdicts["rung"] == Rung.SCREEN)), 6),
        "calibration_error": round(calibration_error(verdicts["confidence_q16"] / ONE_Q16, best_right), 6),
    }


def calibration_error(confidence: Float64, right: Bools, bins: int = 15) -> float:
    """Expected calibration error, `bins` equal widths: Naeini, Cooper, Hauskrecht, AAAI 2015."""
    which = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    error = 0.0
    for k in np.unique(which):
        own = which == k
        error += float(np.mean(own)) * abs(float(np.mean(confidence[own])) - float(np.mean(right[own])))
    return error
