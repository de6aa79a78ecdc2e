"""What is in a bundle, as lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edge_runtime.bundle import Bundle


def describe(bundle: Bundle) -> Iterator[str]:
    """The pipeline, the cost per target, the accuracy and the sources of a bundle."""
    manifest = bundle.manifest
    model = manifest["model"]
    yield f"bundle    {bundle.origin}, {len(bundle.data):,} bytes, sha256 {bundle.sha256}"
    yield (
        f"model     {model['kind']}, {model['trees']} trees, {model['leaves']} leaves, "
        f"{model['n_features']} features, {model['n_outputs']} raw scores"
    )
    if manifest.get("pipeline"):
        yield from _pipeline(manifest)
    yield ""
    yield from cost_table(manifest["artifacts"])
    if accuracy := manifest.get("accuracy"):
        yield ""
        yield from _accuracy(accuracy)
    if captures := manifest.get("recordings"):
        yield ""
        yield f"trained and calibrated on {len(captures)} recordings (--json lists them with their hashes)"
    yield "built with " + ", ".join(f"{name} {version}" for name, version in manifest["tools"].items())


def _pipeline(manifest: dict[str, Any]) -> Iterator[str]:
    contract = manifest["contract"]
    last_hz = contract["start_hz"] + contract["step_hz"] * (contract["points"] - 1)
    yield (
        f"contract  {contract['points']} points, "
        f"{contract['start_hz'] / 1e6:.3f} to {last_hz / 1e6:.3f} MHz, no older than {contract['max_age_ms']} ms"
    )
    yield f"classes   {', '.join(manifest['classes'])}"
    yield f"features  {', '.join(f['name'] for f in manifest['pipeline']['features'])}"


def cost_table(artifacts: dict[str, Any]) -> Iterator[str]:
    """One line a target: instructions per inference, worst case, bytes, stack."""
    yield f"{'target':<12}{'insns mean':>12}{'insns max':>12}{'code B':>10}{'tables B':>10}{'stack B':>9}"
    for name, artifact in artifacts.items():
        cost = artifact["cost"]
        figures = (
            cost["instructions_mean"],
            cost["instructions_max"],
            cost["text_bytes"],
            cost["rodata_bytes"],
            cost["stack_bytes"],
        )
        widths = (12, 12, 10, 10, 9)
        yield f"{name:<12}" + "".join(
            f"{'-' if f is None else format(f, ',.0f'):>{w}}" for f, w in zip(figures, widths, strict=True)
        )


def _accuracy(accuracy: dict[str, Any]) -> Iterator[str]:
    for name, figure in accuracy.items():
        if isinstance(figure, dict) and "value" in figure:
            low, high = figure["interval_95"]
            yield (
                f"{name:<28} {figure['value']:.3f}  (95 %: {low:.3f} to {high:.3f}, "
                f"{figure['scans']} scans of {figure['captures']} recordings)"
            )
