"""What is in a bundle, as lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from compile.neural.bundle import lines as network_lines
from edge_runtime.bundle import Bundle


def describe(bundle: Bundle) -> Iterator[str]:
    """The pipeline, the cost per target, the accuracy and the sources of a bundle."""
    manifest = bundle.manifest
    model = manifest["model"]
    yield f"bundle    {bundle.origin}, {len(bundle.data):,} bytes, sha256 {bundle.sha256}"
    size = f"{model['trees']} trees, {model['leaves']} leaves, " if model["trees"] else ""
    yield f"model     {model['source']}, {size}{model['n_features']} features, {model['n_outputs']} raw scores"
    if manifest["pipeline"]:
        yield from _pipeline(manifest)
    if names := _feature_names(manifest):
        yield f"features  {', '.join(names)}"
    yield ""
    yield from cost_table(manifest["artifacts"])
    for name, artifact in manifest["artifacts"].items():
        if "why_mode" in artifact:
            yield f"{name:<12}{artifact['mode']}: {artifact['why_mode']}"
    if manifest.get("network"):
        yield ""
        yield from network_lines(manifest)
    if accuracy := manifest["accuracy"]:
        yield ""
        yield from _accuracy(accuracy)
    if captures := manifest["recordings"]:
        yield ""
        yield f"trained and calibrated on {len(captures)} recordings (--json lists them with their hashes)"
    yield "built with " + ", ".join(f"{name} {version}" for name, version in manifest["tools"].items())


def _feature_names(manifest: dict[str, Any]) -> list[str]:
    """The pipeline's names where there is one: training libraries lose them in matrices."""
    if manifest["pipeline"]:
        return [feature["name"] for feature in manifest["pipeline"]["pipeline"]["features"]]
    names: list[str] = manifest["model"]["feature_names"]
    return names


def _pipeline(manifest: dict[str, Any]) -> Iterator[str]:
    contract = manifest["contract"]
    last_hz = contract["start_hz"] + contract["step_hz"] * (contract["points"] - 1)
    yield (
        f"contract  {contract['points']} points, "
        f"{contract['start_hz'] / 1e6:.3f} to {last_hz / 1e6:.3f} MHz, no older than {contract['max_age_ms']} ms"
    )
    if contract.get("resample", "forbid") != "forbid":
        yield f"resample  {contract['resample']}, where a scan covers these frequencies on another axis"
    yield f"classes   {', '.join(manifest['classes'])}"


def cost_table(artifacts: dict[str, Any]) -> Iterator[str]:
    """A line a target: instructions of the whole inference (of the model, where it stands alone), bytes, stack."""
    yield (
        f"{'target':<12}{'style':<14}{'insns mean':>12}{'largest':>12}{'model <=':>12}{'code B':>10}{'tables B':>10}"
        f"{'stack B':>9}"
    )
    for name, artifact in artifacts.items():
        cost = artifact["cost"]
        count = cost["infer"] or cost["model"] or {"mean": 0, "maximum": 0}
        figures = (
            (count["mean"], 12),
            (count["maximum"], 12),
            (cost.get("bound", {}).get("instructions"), 12),
            (cost["text_bytes"], 10),
            (cost["rodata_bytes"], 10),
            (cost["stack_bytes"], 9),
        )
        cells = (f"{'-':>{w}}" if figure is None else f"{figure:>{w},.0f}" for figure, w in figures)
        yield f"{name:<12}{artifact['style']:<14}" + "".join(cells)
        yield from _remarks(cost)


def _remarks(cost: dict[str, Any]) -> Iterator[str]:
    """What could not be had, and why; branches that a simulated predictor guessed wrong."""
    if because := cost.get("bound", {}).get("because"):
        yield f"{'':<12}no bound for the model: {because}"
    if branches := cost.get("branches"):
        if "because" in branches:
            yield f"{'':<12}mispredicted branches: unavailable, {branches['because']}"
        else:
            yield (
                f"{'':<12}of {branches['executed']:,.0f} branches a call of the model, "
                f"{branches['mispredicted']:,.0f} mispredicted (cachegrind's predictor)"
            )


def _accuracy(accuracy: dict[str, Any]) -> Iterator[str]:
    for name, figure in accuracy.items():
        told = figure["interval_95"]
        interval = f"95 %: {told[0]:.3f} to {told[1]:.3f}" if told else "too few recordings for an interval"
        yield (
            f"{name:<34} {figure['value']:.3f}  ({interval}, "
            f"{figure['scans']} scans of {figure['captures']} recordings)"
        )
