"""From features and raw scores to verdicts, in exact arithmetic: `edge_infer` must equal it bit for bit.

Fitting (calibrate.py) sets its limits with these functions, reports are made with them, and the emitted C
(emit/decide.py) is compared with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compile.novelty import FittedNovelty
from compile.pipeline import Pipeline
from edge_runtime.engines.compiled import SCORE_ASK
from edge_runtime.reasons import Reason
from edge_runtime.verdict import UNKNOWN, Rung

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Verdicts = npt.NDArray[np.void]

VERDICT = np.dtype(
    [
        ("label", "<i4"),
        ("best", "<i4"),
        ("reason", "<u4"),
        ("rung", "<u4"),
        ("confidence_q16", "<u4"),
        ("novelty_q8", "<u4"),
        ("margin", "<f8"),
    ]
)
"""`edge_verdict` as numpy sees it."""


@dataclass(frozen=True, slots=True)
class FittedScreen:
    """The screen's numbers: it answers `label` where feature < threshold and every guard is in its range.

    quiet_span, loud_span: so far under and over the threshold the score runs to its ends, 0 and 255.
    """

    threshold: int
    guards: tuple[tuple[int, int], ...]
    label: int
    confidence_q16: int
    quiet_span: int = 1
    loud_span: int = 1

    @property
    def quiet_factor(self) -> int:
        """Score steps a unit of the feature under the threshold, 16 fractional bits."""
        return ((SCORE_ASK - 1) << 16) // self.quiet_span

    @property
    def loud_factor(self) -> int:
        """The same over the threshold."""
        return ((SCORE_ASK - 1) << 16) // self.loud_span


@dataclass(frozen=True, slots=True)
class FittedPipeline:
    """A pipeline with all its numbers: what the artifact's tables hold.

    outputs: raw scores of the model. classes: names; empty for a regression.
    binary_threshold: with one output, class 1 is answered above it (0 for margins, 0.5 for probabilities).
    margins, confidence_q16: confidence_q16[k] holds from margins[k - 1] on; one more confidence than margins.
    report: what was measured on each split, by the functions here.
    """

    pipeline: Pipeline
    classes: tuple[str, ...]
    outputs: int
    binary_threshold: float
    screen: FittedScreen | None
    novelty: FittedNovelty | None
    margins: tuple[float, ...]
    confidence_q16: tuple[int, ...]
    min_confidence_q16: int
    min_margin: float
    report: Mapping[str, float | int]

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it, every float that decides as a hexadecimal string: nothing is lost."""
        return {
            "pipeline": self.pipeline.to_dict(),
            "classes": list(self.classes),
            "outputs": self.outputs,
            "binary_threshold": self.binary_threshold.hex(),
            "screen": None if self.screen is None else asdict(self.screen),
            "novelty": None if self.novelty is None else asdict(self.novelty),
            "margins": [m.hex() for m in self.margins],
            "confidence_q16": list(self.confidence_q16),
            "min_confidence_q16": self.min_confidence_q16,
            "min_margin": self.min_margin.hex(),
            "report": dict(self.report),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FittedPipeline:
        """The fitted pipeline that `to_dict` wrote."""
        screen, novelty = data["screen"], data["novelty"]
        return cls(
            pipeline=Pipeline.from_dict(data["pipeline"]),
            classes=tuple(data["classes"]),
            outputs=data["outputs"],
            binary_threshold=float.fromhex(data["binary_threshold"]),
            screen=screen
            and FittedScreen(
                screen["threshold"],
                tuple((low, high) for low, high in screen["guards"]),
                screen["label"],
                screen["confidence_q16"],
                screen.get("quiet_span", 1),
                screen.get("loud_span", 1),
            ),
            novelty=novelty and FittedNovelty(**{key: _tuples(value) for key, value in novelty.items()}),
            margins=tuple(float.fromhex(m) for m in data["margins"]),
            confidence_q16=tuple(data["confidence_q16"]),
            min_confidence_q16=data["min_confidence_q16"],
            min_margin=float.fromhex(data["min_margin"]),
            report=data["report"],
        )


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def screen_scores(fitted: FittedPipeline, features: Int32) -> Int64:
    """What `edge_screen_score` says of scans that keep the contract: (n,), 0 to 255, SCORE_ASK and more unanswered.

    A scan under the threshold whose guards are broken gets SCORE_ASK: the screen knows nothing of its kind.
    """
    declared, numbers = fitted.pipeline.screen, fitted.screen
    if declared is None or numbers is None:
        return np.full(len(features), 255, np.int64)
    over = features[:, fitted.pipeline.column(declared.feature)].astype(np.int64) - numbers.threshold
    loud = SCORE_ASK + (np.clip(over, 0, numbers.loud_span) * numbers.loud_factor >> 16)
    quiet = SCORE_ASK - 1 - (np.clip(-over, 0, numbers.quiet_span) * numbers.quiet_factor >> 16)
    return np.where(screened(fitted.pipeline, numbers, features), quiet, loud)


def decide(fitted: FittedPipeline, features: Int32, raw_scores: Float64) -> Verdicts:
    """The verdicts (n,) of scans that keep the contract: features (n, k), raw_scores (n, outputs)."""
    out = np.zeros(len(features), VERDICT)
    best, margin = best_and_margin(fitted.classes, raw_scores, fitted.binary_threshold)
    out["best"], out["margin"], out["rung"] = best, margin, Rung.TREES
    out["label"] = best
    if fitted.classes:
        out["confidence_q16"] = confidence_q16(fitted, margin)
        unsure = (out["confidence_q16"] < fitted.min_confidence_q16) | ~(margin >= fitted.min_margin)
        out["reason"][unsure] = Reason.AMBIGUOUS
    if fitted.novelty is not None:
        group = np.maximum(best, 0)
        out["novelty_q8"] = fitted.novelty.ratio_q8(features, group)
        out["reason"][out["novelty_q8"] > 256] = Reason.NOVEL
    out["label"][out["reason"] != Reason.OK] = UNKNOWN
    if fitted.screen is not None:
        by_screen = screened(fitted.pipeline, fitted.screen, features)
        answer = (
            fitted.screen.label,
            fitted.screen.label,
            Reason.OK,
            Rung.SCREEN,
            fitted.screen.confidence_q16,
            0,
            0.0,
        )
        out[by_screen] = np.array(answer, VERDICT)
    return out


def best_and_margin(classes: tuple[str, ...], raw_scores: Float64, threshold: float) -> tuple[Int64, Float64]:
    """The best class (the first of equals) and by how much it is best.

    One output and classes: class 1 above the threshold, else class 0; the margin is the distance from it.
    No classes: best is UNKNOWN, the margin is the first score itself.
    """
    rows = len(raw_scores)
    first = raw_scores[:, 0]
    if not classes:
        return np.full(rows, UNKNOWN, np.int64), first.copy()
    if raw_scores.shape[1] == 1:
        above = first > threshold
        with np.errstate(invalid="ignore"):
            return above.astype(np.int64), np.where(above, first - threshold, threshold - first)
    best, top, second = np.zeros(rows, np.int64), first.copy(), np.full(rows, -np.inf)
    for k in range(1, raw_scores.shape[1]):
        score = raw_scores[:, k]
        wins = score > top
        second = np.where(wins, top, np.where(score > second, score, second))
        best, top = np.where(wins, k, best), np.where(wins, score, top)
    with np.errstate(invalid="ignore"):
        return best, top - second


def confidence_q16(fitted: FittedPipeline, margin: Float64) -> Int64:
    """The calibrated chance that the best class is right: a step table over the margin, NaN lowest."""
    step = np.searchsorted(np.array(fitted.margins, np.float64), margin, side="right")
    step = np.where(np.isnan(margin), 0, step)
    return np.array(fitted.confidence_q16, np.int64)[step]


def screened(pipeline: Pipeline, fitted: FittedScreen, features: Int32) -> Bools:
    """Which scans the screen answers."""
    assert pipeline.screen is not None, "a fitted screen has a declaration"
    answered: Bools = features[:, pipeline.column(pipeline.screen.feature)] < fitted.threshold
    for name, (low, high) in zip(pipeline.screen.guards, fitted.guards, strict=True):
        value = features[:, pipeline.column(name)]
        answered &= (value >= low) & (value <= high)
    return answered
