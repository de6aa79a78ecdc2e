"""How often the quantised network decides as the float one, over all, per class and per slice; and the gate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.neural.graph import Array
from compile.neural.quantise import decisions
from edge_runtime.errors import BadInput, CheckFailed

GATE = 0.99
"""The share of held-out rows on which the quantised network must decide as the float one."""


def check_gate(gate: float) -> None:
    """Raise BadInput where a gate is no share."""
    if not 0 <= gate <= 1:
        raise BadInput(f"agreement {gate:g}: is a share of decisions; give a number from 0 to 1")


def measure(
    reference: Array, quantised: Array, slices: Mapping[str, NDArray[np.bool_]] | None = None
) -> dict[str, Any]:
    """Agreement of two n x outputs arrays: the share of equal decisions, and the largest and mean difference.

    per_class: by the float network's own decision. slices: name -> rows; those without rows are left out.
    """
    want, got = decisions(reference), decisions(quantised)
    same = want == got
    classes = {str(k): _share(same[want == k]) for k in np.unique(want).tolist()}
    difference = np.abs(reference - quantised)
    return {
        "decisions": _share(same),
        "per_class": classes,
        "per_slice": {name: _share(same[rows]) for name, rows in (slices or {}).items() if rows.any()},
        "difference_mean": float(difference.mean()),
        "difference_largest": float(difference.max()),
    }


def _share(same: NDArray[np.bool_]) -> dict[str, float | int]:
    return {"value": round(float(same.mean()), 6), "rows": len(same)}


def check(report: Mapping[str, Any], gate: float = GATE) -> None:
    """Raise CheckFailed where the quantised network decides otherwise too often."""
    share = report["decisions"]["value"]
    if share < gate:
        rows = [(f"class {k}", v) for k, v in report["per_class"].items()] + list(report["per_slice"].items())
        name, worst = min(rows, key=lambda item: (item[1]["value"], -item[1]["rows"]))
        raise CheckFailed(
            f"quantisation: decides as the float network on {100 * share:.2f} % of {report['decisions']['rows']} "
            f"held-out rows, the gate is {100 * gate:g} % (worst {name}: {100 * worst['value']:.1f} %); "
            f"give more calibration data, train with less extreme weights, or accept it with --agreement {share:.4f}"
        )


def lines(report: Mapping[str, Any], classes: Sequence[str] = ()) -> Iterator[str]:
    """The report for people: all held-out rows, then each class and slice."""
    all_of = report["decisions"]
    yield (
        f"agreement with the float network: {100 * all_of['value']:.2f} % of {all_of['rows']} held-out decisions, "
        f"gate {100 * report['gate']:g} %; outputs differ by {report['difference_mean']:.4f} on average, at most "
        f"{report['difference_largest']:.4f}"
    )
    named = {int(k): v for k, v in report["per_class"].items()}
    by_class = [(f"float network: {classes[k] if k < len(classes) else k}", v) for k, v in named.items()]
    for name, share in [*by_class, *report["per_slice"].items()]:
        yield f"  {name:<40}{100 * share['value']:>7.2f} % of {share['rows']}"
