"""The C of a pipeline: `edge_features`, and with a fitted pipeline `edge_infer` and `edge_screen`.

    power_cdbm --edge_check--> struct edge_work --edge_screen_features--> screen: an answer, or on
        --edge_more_features--> int32 features --edge_trees_i32--> raw scores --edge_decide--> edge_verdict

`struct edge_work` holds what features share; each of its members is computed once, by the first of the two
feature functions that needs it. All functions but the exported ones are static; rungs stay separate, so that
a ladder or a cascade can call them one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from compile.kernels.catalogue import FLOOR, KERNELS, MEAN, SQUARE, Need, Term
from compile.pipeline import Contract, Pipeline

_ORDER = ("percentile", "floor", "mean", "square", "skirt", "lobe", "second")


def features_c(pipeline: Pipeline) -> str:
    """The C that computes the features: needs `edge_model.h` and the kernels' headers included before it.

    Exports `int edge_features(const int16_t *power_cdbm, uint32_t points, int32_t *features)`: 0, or
    the reason why the scan breaks the contract (then `features` is not written). And `edge_powers`, the way from
    a scanner's codes to `power_cdbm`.
    """
    terms = {f.name: KERNELS[f.kernel].term(f.params) for f in pipeline.features}
    early = screen_features(pipeline)
    first = _closure(need for name in early for need in terms[name].needs)
    everything = _closure(need for term in terms.values() for need in term.needs)
    later = [need for need in everything if need not in first]
    late = [name for name in pipeline.feature_names if name not in early]
    parts = [
        _work(pipeline, everything),
        _check(pipeline.contract),
        _stage("edge_screen_features", pipeline, first, early, terms),
        _stage("edge_more_features", pipeline, later, late, terms),
        _EXPORT,
    ]
    return "\n".join(parts)


def screen_features(pipeline: Pipeline) -> list[str]:
    """Names of the features that the screen looks at, in the pipeline's order."""
    if pipeline.screen is None:
        return []
    wanted = {pipeline.screen.feature, *pipeline.screen.guards}
    return [name for name in pipeline.feature_names if name in wanted]


def _closure(needs: Iterable[Need]) -> list[Need]:
    """The needs and what they need, each once, in the order of computation."""
    found = set(needs)
    if any(need.stage == "lobe" for need in found):
        found.add(FLOOR)
    if SQUARE in found:
        found.add(MEAN)
    return sorted(found, key=lambda need: (_ORDER.index(need.stage), need.key))


def rank(permille: int, points: int) -> int:
    """The order statistic that a percentile is: 0 = the smallest (numpy's method "lower")."""
    return permille * (points - 1) // 1000


class Reciprocal(NamedTuple):
    """`(d * factor + addend) >> shift` is `d // step`."""

    factor: int
    addend: int
    shift: int


def reciprocal(step: int, highest: int) -> Reciprocal:
    """Division by `step` without a divide, which Cortex-M0 lacks: exact for d in 0 .. highest < 2^16, in 32 bits.

    The factor is 2^shift / step rounded up, or, where that needs too many bits, rounded down and d taken one
    higher: Granlund and Montgomery (1994), Robison, "N-Bit Unsigned Division via N-Bit Multiply-Add" (2005).
    """
    most = highest // step
    for shift in range(32):
        up, down = -(-(1 << shift) // step), (1 << shift) // step
        excess, lack = up * step - (1 << shift), (1 << shift) - down * step
        if highest * excess < 1 << shift and highest * up < 1 << 32:
            return Reciprocal(up, 0, shift)
        if most * lack <= down and (highest + 1) * down < 1 << 32:
            return Reciprocal(down, down, shift)
    raise AssertionError(f"no reciprocal of {step} up to {highest}")


def _work(pipeline: Pipeline, needs: Sequence[Need]) -> str:
    members = ["    struct edge_sweep s;"]
    for stage, key in needs:
        if stage == "percentile":
            members.append(f"    int32_t percentile_{key[0]};")
        elif stage == "skirt":
            members.append(f"    uint16_t left_{key[0]}, right_{key[0]};")
        elif stage == "lobe":
            members.append(f"    struct edge_lobe lobe_{key[0]}_{key[1]};")
        elif stage == "second":
            members.append(f"    uint32_t second_{key[0]};")
    return "\n".join(["struct edge_work {", *members, "};", ""])


def _check(contract: Contract) -> str:
    return f"""\
/* The contract: points, range, a front end that is alive. */
static inline int edge_check(struct edge_work *w, const int16_t *power_cdbm, uint32_t points)
{{
    if (points != EDGE_SCAN_POINTS)
        return EDGE_POINTS;
    w->s.power = power_cdbm;
    edge_extremes(&w->s);
    if (w->s.minimum < {contract.power_min_cdbm} || w->s.peak > {contract.power_max_cdbm})
        return EDGE_RANGE;
    if (EDGE_SCAN_POINTS > 1 && w->s.minimum == w->s.peak)
        return EDGE_STUCK;
    return EDGE_OK;
}}
"""


def _stage(
    function: str, pipeline: Pipeline, needs: Sequence[Need], names: Sequence[str], terms: Mapping[str, Term]
) -> str:
    lines = [f"static inline void {function}(struct edge_work *w, int32_t *features)", "{"]
    lines += _shared(pipeline, needs)
    for name in names:
        lines.append(f"    features[{pipeline.column(name)}] = {terms[name].value}; /* {name} */")
    if not names:
        lines += ["    (void)w;", "    (void)features;"]
    return "\n".join([*lines, "}", ""])


def _shared(pipeline: Pipeline, needs: Sequence[Need]) -> list[str]:
    lines = _percentiles(pipeline, [n for n in needs if n.stage in ("percentile", "floor")])
    if MEAN in needs:
        lines.append("    edge_mean(&w->s);")
    if SQUARE in needs:
        lines.append("    edge_square(&w->s);")
    lines += _skirts([n.key[0] for n in needs if n.stage == "skirt"])
    for stage, key in needs:
        if stage == "lobe":
            lines.append(
                f"    w->lobe_{key[0]}_{key[1]} = edge_lobe(&w->s, {key[0]}, w->s.floor + {key[1]});"
            )
        elif stage == "second":
            lines.append(f"    w->second_{key[0]} = edge_second(&w->s, {key[0]});")
    return lines


def _percentiles(pipeline: Pipeline, needs: Sequence[Need]) -> list[str]:
    if not needs:
        return []
    c = pipeline.contract
    member = {need: "s.floor" if need == FLOOR else f"percentile_{need.key[0]}" for need in needs}
    rank_of = {n: rank(pipeline.floor_permille if n == FLOOR else n.key[0], c.points) for n in needs}
    ranks = sorted(set(rank_of.values()))
    grid = f"{c.power_min_cdbm}, {c.power_step_cdbm}u"
    divide = reciprocal(c.power_step_cdbm, c.power_max_cdbm - c.power_min_cdbm)
    return [
        f"    static const uint16_t ranks[] = {{{', '.join(map(str, ranks))}}};",
        f"    const struct edge_bins bins = {{{grid}, {divide.factor}u, {divide.addend}u, {divide.shift}u}};",
        f"    int32_t levels[{len(ranks)}];",
        f"    uint16_t counts[{c.bins}];",
        f"    edge_percentiles(&w->s, &bins, counts, ranks, {len(ranks)}, levels);",
        *(f"    w->{member[need]} = levels[{ranks.index(rank_of[need])}];" for need in needs),
    ]


def _skirts(drops: Sequence[int]) -> list[str]:
    if not drops:
        return []
    count = len(drops)
    lines = [
        f"    static const uint16_t drops[] = {{{', '.join(map(str, drops))}}};",
        f"    uint16_t left[{count}], right[{count}];",
        f"    edge_skirts(&w->s, drops, {count}, left, right);",
    ]
    for k, drop in enumerate(drops):
        lines.append(f"    w->left_{drop} = left[{k}], w->right_{drop} = right[{k}];")
    return lines


_EXPORT = """\
EDGE_API int edge_features(const int16_t *power_cdbm, uint32_t points, int32_t *features)
{
    struct edge_work w;
    int reason = edge_check(&w, power_cdbm, points);
    if (reason != EDGE_OK)
        return reason;
    edge_screen_features(&w, features);
    edge_more_features(&w, features);
    return EDGE_OK;
}

EDGE_API void edge_powers(const uint8_t *codes, const edge_coding *coding, int16_t *power_cdbm)
{
    int32_t scale_cdb = coding->scale_cdb, offset_cdbm = coding->offset_cdbm;
    for (uint32_t i = 0, points = coding->points; i < points; i++)
        power_cdbm[i] = edge_level(offset_cdbm + scale_cdb * codes[i]);
}
"""
