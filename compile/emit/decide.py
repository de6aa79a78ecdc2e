"""The C of the rungs, screen to decision; bit for bit what compile/decide.py says."""

from __future__ import annotations

from collections.abc import Sequence

from compile.decide import FittedPipeline
from compile.emit.pipeline import features_c
from compile.novelty import DISTANCE_CAP, SUM_CAP, U_CAP_Q4, FittedNovelty


def pipeline_c(fitted: FittedPipeline) -> str:
    """The C of the whole pipeline.

    It follows the model's `static void edge_trees_i32(const int32_t *features, double *raw_scores)` in the
    same file, after `edge_model.h` and `edge_features.h`.

    Exports edge_features, edge_infer, edge_infer_unscreened, edge_screen, edge_screen_score.
    """
    parts = [
        features_c(fitted.pipeline),
        _screen(fitted),
        _score(fitted),
        _best(fitted),
        _confidence(fitted),
        _novelty(fitted.novelty) if fitted.novelty is not None else "",
        _decide(fitted),
        _EXPORTS,
    ]
    return "\n".join(part for part in parts if part)


def _screen(fitted: FittedPipeline) -> str:
    lines = [
        "/* The screen: 1 where it has the answer. */",
        "static inline int edge_screen_answers(const int32_t *features, edge_verdict *out)",
        "{",
    ]
    declared, numbers = fitted.pipeline.screen, fitted.screen
    if declared is None or numbers is None:
        return "\n".join([*lines, "    (void)features, (void)out;", "    return 0;", "}", ""])
    column = fitted.pipeline.column
    lines += [f"    if (features[{column(declared.feature)}] >= ({numbers.threshold}))", "        return 0;"]
    for name, (low, high) in zip(declared.guards, numbers.guards, strict=True):
        at = f"features[{column(name)}]"
        lines += [f"    if ({at} < ({low}) || {at} > ({high})) /* {name} */", "        return 0;"]
    lines += [
        f"    out->label = {numbers.label};",
        f"    out->best = {numbers.label};",
        "    out->rung = EDGE_RUNG_SCREEN;",
        f"    out->confidence_q16 = {numbers.confidence_q16}u;",
        "    return 1;",
    ]
    return "\n".join([*lines, "}", ""])


def _score(fitted: FittedPipeline) -> str:
    """The factors' products stay within 24 bits: a span times its factor is at most 127 << 16."""
    lines = [
        "/* The screen's margin; see screen_scores in compile/decide.py. */",
        "static inline int32_t edge_score(const int32_t *features, int answered)",
        "{",
    ]
    declared, numbers = fitted.pipeline.screen, fitted.screen
    if declared is None or numbers is None:
        return "\n".join([*lines, "    (void)features, (void)answered;", "    return 255;", "}", ""])
    column = fitted.pipeline.column(declared.feature)
    lines += [
        f"    int32_t over = features[{column}] - ({numbers.threshold});",
        "    if (answered) { /* over is below 0 */",
        f"        over = over < -{numbers.quiet_span} ? {numbers.quiet_span} : -over;",
        f"        return EDGE_SCORE_ASK - 1 - ((over * {numbers.quiet_factor}) >> 16);",
        "    }",
        f"    over = over < 0 ? 0 : over > {numbers.loud_span} ? {numbers.loud_span} : over;",
        f"    return EDGE_SCORE_ASK + ((over * {numbers.loud_factor}) >> 16);",
    ]
    return "\n".join([*lines, "}", ""])


def _best(fitted: FittedPipeline) -> str:
    head = [
        "/* The best class, the first of equals, and by how much it is best. */",
        "static inline int32_t edge_best(const double *scores, double *margin)",
        "{",
    ]
    if not fitted.classes:
        body = ["    *margin = scores[0];", "    return EDGE_UNKNOWN;"]
    elif fitted.outputs == 1:
        threshold = fitted.binary_threshold.hex()
        body = [
            f"    int32_t above = scores[0] > {threshold};",
            f"    *margin = above ? scores[0] - {threshold} : {threshold} - scores[0];",
            "    return above;",
        ]
    else:
        body = [
            "    int32_t best = 0;",
            "    double top = scores[0], second = -__builtin_inf();",
            "    for (int32_t k = 1; k < EDGE_OUTPUTS; k++) {",
            "        if (scores[k] > top) {",
            "            second = top;",
            "            top = scores[k];",
            "            best = k;",
            "        } else if (scores[k] > second) {",
            "            second = scores[k];",
            "        }",
            "    }",
            "    *margin = top - second;",
            "    return best;",
        ]
    return "\n".join([*head, *body, "}", ""])


def _confidence(fitted: FittedPipeline) -> str:
    head = [
        "/* The calibrated chance that the best class is right: a step table over the margin. */",
        "static inline uint32_t edge_confidence_q16(double margin)",
        "{",
    ]
    steps = len(fitted.margins)
    if steps == 0:
        body = ["    (void)margin;", f"    return {fitted.confidence_q16[0]}u;"]
    else:
        body = [
            f"    static const double from[] = {{{', '.join(m.hex() for m in fitted.margins)}}};",
            f"    static const uint32_t chance_q16[] = {{{_numbers(fitted.confidence_q16)}}};",
            "    uint32_t step = 0;",
            f"    while (step < {steps} && margin >= from[step])",
            "        step++;",
            "    return chance_q16[step];",
        ]
    return "\n".join([*head, *body, "}", ""])


def _novelty(novelty: FittedNovelty) -> str:
    def table(kind: str, name: str, rows: Sequence[Sequence[int]]) -> list[str]:
        body = [f"    {{{_numbers(row)}}}," for row in rows]
        return [f"static const {kind} {name}[][EDGE_FEATURES] = {{", *body, "};"]

    return "\n".join(
        [
            "/* Novelty: see compile/novelty.py for what the tables hold. */",
            *table("int32_t", "edge_centre", [novelty.centre]),
            *table("uint32_t", "edge_inverse_q16", [novelty.inverse_q16]),
            *table("int16_t", "edge_mix", list(zip(*novelty.mix, strict=True))),  # by column, to vectorise
            *table("int16_t", "edge_class_mean_q4", novelty.mean_q4),
            *table("uint16_t", "edge_class_inverse_q12", novelty.inverse_q12),
            f"static const uint32_t edge_class_limit_q4[] = {{{_numbers(novelty.limit_q4)}}};",
            "",
            f"#define EDGE_U_CAP_Q4 {U_CAP_Q4}",
            f"#define EDGE_DISTANCE_CAP {DISTANCE_CAP}u",
            f"#define EDGE_MIX_SHIFT {novelty.mix_shift}",
            f"#define EDGE_SUM_CAP {SUM_CAP}",
            "",
            _NOVELTY,
        ]
    )


def _decide(fitted: FittedPipeline) -> str:
    lines = [
        "/* The model's answer, or why there is none. */",
        "static inline void edge_decide(const int32_t *features, const double *scores, edge_verdict *out)",
        "{",
        "    out->best = edge_best(scores, &out->margin);",
        "    out->rung = EDGE_RUNG_TREES;",
    ]
    if fitted.classes:
        low, narrow = fitted.min_confidence_q16, fitted.min_margin.hex()
        unsure = f"out->confidence_q16 < {low}u || !(out->margin >= {narrow})"
        lines += [
            "    out->confidence_q16 = edge_confidence_q16(out->margin);",
            f"    if ({unsure})",
            "        out->reason = EDGE_AMBIGUOUS;",
        ]
    if fitted.novelty is not None:
        group = "(uint32_t)out->best" if fitted.classes else "0"
        lines += [
            f"    out->novelty_q8 = edge_novelty_q8(features, {group});",
            "    if (out->novelty_q8 > 256u)",
            "        out->reason = EDGE_NOVEL;",
        ]
    else:
        lines.append("    (void)features;")
    lines += ["    if (out->reason == EDGE_OK)", "        out->label = out->best;", "}", ""]
    return "\n".join(lines)


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


_NOVELTY = """\
static inline void edge_standardise(const int32_t *features, int16_t *u_q4)
{
    for (uint32_t k = 0; k < EDGE_FEATURES; k++) {
        int32_t distance = features[k] - edge_centre[0][k];
        uint64_t size = edge_mul32((uint32_t)edge_abs(distance), edge_inverse_q16[0][k]) >> 12;
        int32_t held = size > EDGE_U_CAP_Q4 ? EDGE_U_CAP_Q4 : (int32_t)size;
        u_q4[k] = (int16_t)(distance < 0 ? -held : held);
    }
}

/* The largest z-score of the components against the group, over the group's limit. */
static inline uint32_t edge_novelty_q8(const int32_t *features, uint32_t group)
{
    int16_t u_q4[EDGE_FEATURES];
    int32_t sum[EDGE_FEATURES]; /* within +-EDGE_SUM_CAP */
    uint32_t worst_q4 = 0;
    edge_standardise(features, u_q4);
    for (uint32_t i = 0; i < EDGE_FEATURES; i++)
        sum[i] = 0;
    for (uint32_t j = 0; j < EDGE_FEATURES; j++)
        for (uint32_t i = 0; i < EDGE_FEATURES; i++)
            sum[i] += (int32_t)edge_mix[j][i] * u_q4[j];
    for (uint32_t i = 0; i < EDGE_FEATURES; i++) {
        uint32_t lifted = (uint32_t)(sum[i] + EDGE_SUM_CAP) >> EDGE_MIX_SHIFT; /* no shift of a negative */
        int32_t component_q4 = (int32_t)lifted - (EDGE_SUM_CAP >> EDGE_MIX_SHIFT);
        uint32_t distance = (uint32_t)edge_abs(component_q4 - edge_class_mean_q4[group][i]);
        uint32_t held = distance > EDGE_DISTANCE_CAP ? EDGE_DISTANCE_CAP : distance;
        uint32_t z_q4 = (held * edge_class_inverse_q12[group][i]) >> 12;
        worst_q4 = z_q4 > worst_q4 ? z_q4 : worst_q4;
    }
    return edge_ratio(worst_q4, edge_class_limit_q4[group], 8);
}
"""

_EXPORTS = """\
/* The contract and the screen: a reason code, or EDGE_OK and whether the screen answered. */
static inline int edge_first_rung(struct edge_work *w, const int16_t *power_cdbm, uint32_t points,
                                  int32_t *features, edge_verdict *out, int *answered)
{
    const edge_verdict none = {EDGE_UNKNOWN, EDGE_UNKNOWN, EDGE_OK, EDGE_RUNG_NONE, 0, 0, 0.0};
    *out = none;
    *answered = 0;
    out->reason = (uint32_t)edge_check(w, power_cdbm, points);
    if (out->reason == EDGE_OK) {
        edge_screen_features(w, features);
        *answered = edge_screen_answers(features, out);
    }
    return (int)out->reason;
}

EDGE_API int edge_screen(const int16_t *power_cdbm, uint32_t points, edge_verdict *out)
{
    struct edge_work w;
    int32_t features[EDGE_FEATURES];
    int answered;
    return edge_first_rung(&w, power_cdbm, points, features, out, &answered);
}

EDGE_API int edge_screen_score(const int16_t *power_cdbm, uint32_t points, int32_t *score)
{
    struct edge_work w;
    int32_t features[EDGE_FEATURES];
    edge_verdict unused;
    int answered, reason = edge_first_rung(&w, power_cdbm, points, features, &unused, &answered);
    *score = reason == EDGE_OK ? edge_score(features, answered) : 0;
    return reason;
}

/* noinline: a firmware that uses both entries holds the trees once. */
static __attribute__((noinline)) int edge_climb(const int16_t *power_cdbm, uint32_t points, edge_verdict *out,
                                                int unscreened)
{
    const edge_verdict none = {EDGE_UNKNOWN, EDGE_UNKNOWN, EDGE_OK, EDGE_RUNG_NONE, 0, 0, 0.0};
    struct edge_work w;
    int32_t features[EDGE_FEATURES];
    double scores[EDGE_OUTPUTS];
    int answered, reason = edge_first_rung(&w, power_cdbm, points, features, out, &answered);
    if (reason != EDGE_OK || (answered && !unscreened))
        return reason;
    if (answered)
        *out = none;
    edge_more_features(&w, features);
    edge_trees_i32(features, scores);
    edge_decide(features, scores, out);
    return EDGE_OK;
}

EDGE_API int edge_infer(const int16_t *power_cdbm, uint32_t points, edge_verdict *out)
{
    return edge_climb(power_cdbm, points, out, 0);
}

EDGE_API int edge_infer_unscreened(const int16_t *power_cdbm, uint32_t points, edge_verdict *out)
{
    return edge_climb(power_cdbm, points, out, 1);
}
"""
