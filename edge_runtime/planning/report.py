"""A plan for people: its table, its goals, its plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edge_runtime.planning import svg
from edge_runtime.planning.work import PARTS


def lines(document: Mapping[str, Any]) -> Iterator[str]:
    """The plan for people."""
    yield f"{document['board']}, {document['scanner']}, {document['battery']}"
    yield (
        f"budget     {document['budget']['text']} = {document['budget']['joules']:.4g} J for inference in "
        f"{document['hours']:g} h"
    )
    rest = document["duty"]
    yield (
        f"duty       a sweep of {rest['sweep_s']} s every {rest['period_s']} s; signals caught {rest['caught']:.1%}"
    )
    for why in rest["why"]:
        yield f"           {why}"
    yield ""
    yield f"{'way':<22}{'life, hours':>18}{'power, mW':>18}{'model':>24}{'caught':>8}"
    for row in document["ways"]:
        yield (
            f"{row['way']:<22}{_span(row['life_h']):>18}{_span(row['total_mw']):>18}"
            f"{_span([100 * (x or 0) for x in row['model_share']]) + ' %':>24}{row['signals_caught']:>8.1%}"
        )
    yield ""
    yield f"{'part, mW':<22}" + "".join(f"{row['way']:>22}" for row in document["ways"])
    for part in PARTS:
        yield f"{part:<22}" + "".join(f"{_span(row['parts_mw'][part]):>22}" for row in document["ways"])
    yield ""
    yield f"{'saved by, mW':<30}{'nominal':>12}{'range':>20}{'of it all':>12}"
    for row in document["levers"]:
        if row["saved_mw"] is None:
            yield f"{row['lever']:<30}{'unknown':>12}"
            continue
        share = "" if row["share"] is None else f"{row['share']:.1%}"
        span = "{:.3g} to {:.3g}".format(*row["interval_mw"])
        yield f"{row['lever']:<30}{row['saved_mw']:>12.3g}{span:>20}{share:>12}"
    yield ""
    yield "life over that of 'always, no model':"
    for name, ends in document["life_ratio_to_always_without_model"].items():
        if ends["low"] is None:
            yield f"  {name}: unknown, as a power in the profiles is"
        else:
            yield f"  {name}: {ends['nominal']:.2f} ({ends['low']:.2f} to {ends['high']:.2f})"
    yield ""
    for row in document["goals"]:
        value = "unknown" if row["value"] is None else f"{row['value']:.4g}"
        yield f"{'met   ' if row['met'] else 'missed'}  {row['name']}: {value} (goal {row['goal']})"
    yield ""
    yield f"carried out by: edge-runtime run {document['run_with']}"
    governor = document["governor"]
    yield f"({document['basis']}; arrivals {governor['arrivals']}; spending plan {governor['plan']})"


def _span(ends: Sequence[float | None]) -> str:
    low, high = ends
    if high is None:
        return "unknown" if not low else f"{low:.3g} or more"
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def plot(document: Mapping[str, Any]) -> str:
    """The ways as stacked bars of mean power; unknown parts are left out and said so."""
    bars = []
    for row in document["ways"]:
        known = {part: sum(ends) / 2 for part, ends in row["parts_mw"].items() if None not in ends}
        unknown = [part for part, ends in row["parts_mw"].items() if None in ends]
        note = f"{_span(row['life_h'])} h" + (f" ({', '.join(unknown)} unknown)" if unknown else "")
        bars.append((row["way"], note, known))
    return svg.stacked_bars(f"{document['board']}: mean power and battery life", "mW", bars)
