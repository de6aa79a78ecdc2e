"""What the demo's model is worth, and what its accuracy does not mean: the figures of `scripts/train_demo --report`.

Everything is told from the shipped sweeps, on captures that training never saw. Sweeps of one capture resemble each
other, so intervals resample captures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile import calibrate
from compile.accuracy import RESAMPLES, SEED, share_with_interval
from compile.decide import decide
from compile.demo.train import Sweeps, fit
from compile.pipeline import Pipeline
from edge_runtime.errors import BadInput
from edge_runtime.recording import Origin, Split
from edge_runtime.verdict import UNKNOWN

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
FOLDS = 4


def figures(sweeps: Sweeps, model: str, pipeline: Pipeline, others: Sweeps | None = None) -> dict[str, Any]:
    """Every figure, ready for JSON.

    model: LightGBM's text. others: sweeps of another recording to judge it on, in place of the test split.
    Raises BadInput where the model is none, or the pipeline cannot be fitted.
    """
    scores = raw_scores(model, sweeps)
    known = np.where(sweeps.label < sweeps.classes, sweeps.label, -1)
    split = sweeps.split.astype(np.uint8)
    classes = sweeps.labels[: sweeps.classes]
    fitted = calibrate.fit(pipeline, sweeps.features, known, split, scores, classes=classes)
    judged = others or sweeps
    if others:
        scores = raw_scores(model, others)
    best = scores.argmax(axis=1)
    verdict = decide(fitted, judged.features, scores)["label"].astype(np.int64)
    parts = slices(judged)
    return {
        "classes": list(classes),
        "held_out": held_out(judged, best, verdict),
        "recall": {name: recalls(judged, best, rows) for name, rows in parts.items()},
        "confusion": {name: confusion(judged, best, rows).tolist() for name, rows in parts.items()},
        "unknown": unknown(judged, verdict),
        "background_leak": background_leak(sweeps),
        "loudness_leak": loudness_leak(sweeps),
        "by_session": by_session(sweeps),
    }


def raw_scores(model: str, sweeps: Sweeps) -> NDArray[np.float64]:
    """The model's raw scores, (n, classes). Raises BadInput where the text is no such model."""
    import lightgbm  # noqa: PLC0415 (only who trains needs it)

    if not model.startswith("tree\n"):
        raise BadInput("model: not LightGBM's text of a model; train it with scripts/train_demo")
    try:
        booster = lightgbm.Booster(model_str=model)
        return np.asarray(booster.predict(sweeps.features.astype(np.float32), raw_score=True), np.float64)
    except lightgbm.basic.LightGBMError as e:
        line = str(e).splitlines()[0]
        raise BadInput(f"model: LightGBM cannot use it ({line}); train it with scripts/train_demo") from e


def slices(sweeps: Sweeps) -> dict[str, Bools]:
    """The held-out sweeps, where there are any: in fresh noise, and as their receiver heard them."""
    test = (sweeps.split == Split.TEST) & (sweeps.label < sweeps.classes)
    recorded = sweeps.origin == Origin.RECORDED
    parts = {"remix": test & ~recorded, "recorded": test & recorded}
    return {name: rows for name, rows in parts.items() if rows.any()}


def held_out(sweeps: Sweeps, best: Ints, verdict: Ints) -> dict[str, Any]:
    """Accuracy and macro-F1 of the model, and of the verdicts, where UNKNOWN counts as wrong."""
    out: dict[str, Any] = {}
    for name, rows in slices(sweeps).items():
        label, capture = sweeps.label[rows], sweeps.capture[rows]
        out[name] = {
            "accuracy": share_with_interval(best[rows] == label, capture),
            "macro_f1": f1_with_interval(label, best[rows], capture),
            "verdicts": share_with_interval(verdict[rows] == label, capture),
            "answered": round(float(np.mean(verdict[rows] != UNKNOWN)), 4),
        }
    return out


def macro_f1(label: Ints, found: Ints) -> float:
    """Mean of the F1 of the labels that occur."""
    scores = []
    for k in np.unique(label):
        hits = np.sum((label == k) & (found == k))
        scores.append(2 * hits / (np.sum(label == k) + np.sum(found == k)))
    return float(np.mean(scores))


def f1_with_interval(label: Ints, found: Ints, capture: Ints) -> dict[str, Any]:
    """Macro-F1 and its 95 % interval over resampled captures."""
    rng = np.random.default_rng(SEED)
    members = [np.flatnonzero(capture == c) for c in np.unique(capture)]
    draws = []
    for _ in range(RESAMPLES // 4):
        rows = np.concatenate([members[k] for k in rng.integers(len(members), size=len(members))])
        draws.append(macro_f1(label[rows], found[rows]))
    low, high = np.percentile(draws, [2.5, 97.5])
    value = round(macro_f1(label, found), 4)
    return {"value": value, "interval_95": [round(float(low), 4), round(float(high), 4)]}


def recalls(sweeps: Sweeps, best: Ints, rows: Bools) -> dict[str, dict[str, Any]]:
    """By class: the share found, with the number of sweeps and captures behind it."""
    out = {}
    for k, name in enumerate(sweeps.labels[: sweeps.classes]):
        own = rows & (sweeps.label == k)
        if own.any():
            captures = len(np.unique(sweeps.capture[own]))
            share = round(float(np.mean(best[own] == k)), 4)
            out[name] = {"recall": share, "scans": int(own.sum()), "captures": captures}
    return out


def confusion(sweeps: Sweeps, best: Ints, rows: Bools) -> Ints:
    """Sweeps by true class (row) and answered class (column)."""
    size = sweeps.classes
    return np.bincount(sweeps.label[rows] * size + best[rows], minlength=size * size).reshape(size, size)


def unknown(sweeps: Sweeps, verdict: Ints) -> dict[str, Any]:
    """How often kinds that are no class were answered UNKNOWN, and how often sweeps of a class were."""
    strange = (sweeps.split == Split.UNKNOWN) & (sweeps.label >= sweeps.classes)
    by_kind = {}
    for k in np.unique(sweeps.label[strange]):
        own = strange & (sweeps.label == k)
        by_kind[sweeps.labels[k]] = {
            "caught": round(float(np.mean(verdict[own] == UNKNOWN)), 4),
            "scans": int(own.sum()),
        }
    false = {
        name: round(float(np.mean(verdict[rows] == UNKNOWN)), 4) for name, rows in slices(sweeps).items()
    }
    caught = (
        share_with_interval(verdict[strange] == UNKNOWN, sweeps.capture[strange]) if strange.any() else None
    )
    return {"caught": caught, "by_kind": by_kind, "false_alarms": false}


def folds(group: Ints, kind: Ints, count: int = FOLDS) -> Ints:
    """A fold for every row, (n,): groups stay whole, and each kind's groups are dealt in turn."""
    fold = np.zeros(len(group), np.int64)
    for k in np.unique(kind):
        for turn, g in enumerate(np.unique(group[kind == k])):
            fold[group == g] = turn % count
    return fold


def out_of_fold(features: NDArray[np.int32], kind: Ints, fold: Ints) -> Ints:
    """The kind told for every row by a model that saw the other folds only."""
    found = np.full(len(kind), -1)
    for k in np.unique(fold):
        own = fold == k
        values = np.unique(kind[~own])
        if len(values) > 1:
            found[own] = values[fit(features[~own], kind[~own]).predict(features[own]).argmax(axis=1)]
    return found


def _compare(features: NDArray[np.int32], kind: Ints, fold: Ints, capture: Ints) -> dict[str, Any]:
    """How often the kind is told out of fold, beside the share of the most frequent kind."""
    told = share_with_interval(out_of_fold(features, kind, fold) == kind, capture)
    return {"told": told, "majority": round(float(np.bincount(kind).max() / len(kind)), 4)}


def background_leak(sweeps: Sweeps) -> dict[str, Any]:
    """Can the kind of device be told from sweeps that hold no burst? By capture; at the majority, it cannot."""
    nothing = (sweeps.label < sweeps.classes) & (sweeps.label != sweeps.kind)
    out = {}
    for name, origin in (("in fresh noise", Origin.QUIET), ("as recorded", Origin.RECORDED)):
        rows = nothing & (sweeps.origin == origin)
        kind, capture = sweeps.kind[rows], sweeps.capture[rows]
        out[name] = _compare(sweeps.features[rows], kind, folds(capture, kind), capture)
    return out


def loudness_leak(sweeps: Sweeps) -> dict[str, Any]:
    """How well the class of a remixed burst is told by its loudness alone: what strong receivers give away."""
    rows = (sweeps.origin == Origin.REMIX) & (sweeps.label < sweeps.classes)
    kind, capture = sweeps.kind[rows], sweeps.capture[rows]
    column = sweeps.feature_names.index("peak_over_floor")
    return _compare(sweeps.features[rows][:, [column]], kind, folds(capture, kind), capture)


def by_session(sweeps: Sweeps) -> dict[str, Any]:
    """Kinds recorded in more than one session, told across captures and across sessions: remixed bursts."""
    burst = sweeps.origin == Origin.REMIX
    sessions = {k: len(np.unique(sweeps.session[burst & (sweeps.kind == k)])) for k in np.unique(sweeps.kind)}
    several = [k for k, count in sessions.items() if count > 1]
    rows = burst & np.isin(sweeps.kind, several)
    if len(several) < 2:
        return {"kinds": [sweeps.labels[k] for k in several]}
    kind, capture, session = sweeps.kind[rows], sweeps.capture[rows], sweeps.session[rows]
    features = sweeps.features[rows]
    return {
        "kinds": [sweeps.labels[k] for k in several],
        "across captures": _compare(features, kind, folds(capture, kind), capture),
        "across sessions": _compare(features, kind, folds(session, kind, len(several)), capture),
    }


def lines(figures: dict[str, Any]) -> Iterator[str]:
    """The figures for people."""
    for name, f in figures["held_out"].items():
        scans = f"{f['accuracy']['scans']} sweeps of {f['accuracy']['captures']} captures"
        yield f"{name}: accuracy {_interval(f['accuracy'])}, macro-F1 {_interval(f['macro_f1'])} on {scans}"
        yield f"  as verdicts {_interval(f['verdicts'])}, {100 * f['answered']:.1f} % answered"
        for kind, r in figures["recall"][name].items():
            yield f"  {kind:24} recall {r['recall']:.3f}  {r['scans']:4} sweeps of {r['captures']} captures"
    u = figures["unknown"]
    if u["caught"]:
        yield f"kinds that are no class: answered UNKNOWN {_interval(u['caught'])}"
    for kind, r in u["by_kind"].items():
        yield f"  {kind:24} caught {r['caught']:.3f}  {r['scans']:4} sweeps"
    for name, share in u["false_alarms"].items():
        yield f"  held-out classes answered UNKNOWN, {name}: {share:.3f}"
    leaks = {f"device told from signal-free sweeps {k}": v for k, v in figures["background_leak"].items()}
    leaks["class told from a remixed burst's loudness alone"] = figures["loudness_leak"]
    session = figures["by_session"]
    for key in ("across captures", "across sessions"):
        if key in session:
            leaks[f"{len(session['kinds'])} kinds of several sessions, told {key}"] = session[key]
    for what, leak in leaks.items():
        yield f"{what}: {_interval(leak['told'])}, majority {leak['majority']:.3f}"


def _interval(share: dict[str, Any]) -> str:
    low, high = share["interval_95"]
    return f"{share['value']:.3f} ({low:.3f} to {high:.3f})"


def plot(figures: dict[str, Any], path: Path) -> None:
    """Draw the confusion matrices of the held-out sweeps. Raises BadInput where the file cannot be written."""
    import matplotlib as mpl  # noqa: PLC0415 (only for --plot)

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    names = figures["classes"]
    figure, axes = pyplot.subplots(
        1, max(1, len(figures["confusion"])), figsize=(14, 6.5), layout="constrained", squeeze=False
    )
    for axis, (name, counts) in zip(axes[0], figures["confusion"].items(), strict=False):
        table = np.array(counts)
        share = table / np.maximum(1, table.sum(axis=1, keepdims=True))
        axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(table):
            if count:
                colour = "white" if share[row, column] > 0.5 else "black"
                axis.text(column, row, count, ha="center", va="center", color=colour)
        axis.set_title(f"held-out captures, {name}")
        axis.set_xticks(range(len(names)), names, rotation=60, ha="right")
        axis.set_yticks(range(len(names)), names)
        axis.set_xlabel("answered")
        axis.set_ylabel("true")
    try:
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as e:
        raise BadInput(f"plot {path}: {e}; give a .png in a folder that can be written") from e
    finally:
        pyplot.close(figure)
