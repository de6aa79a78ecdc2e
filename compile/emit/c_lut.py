"""C that turns features into ranks with a table look-up instead of a search, for cores with a float unit.

The functions are those of `c_ranks`, for the same `edge_rank q[]`. A slot's bucket says where to begin among
its thresholds, which are compared as integers (`edge_float_key`) and end with one that is above everything.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from compile.emit import buckets, c_ranks, c_text, turns
from compile.emit.turns import Most, Turn
from compile.forest import ZERO_KEY
from compile.ranks import Ranks

_TRUNC = """\
/* Towards zero and saturating; NaN is 0. In C that conversion is undefined outside of the integer's range. */
static inline uint32_t edge_trunc(float u)
{
#if defined(__arm__) && defined(__ARM_FP)
    union { float f; uint32_t u; } bits;
    __asm__("vcvt.u32.f32 %0, %1" : "=t"(bits.f) : "t"(u));
    return bits.u;
#else
    return u > 0 ? (u < 65536.0f ? (uint32_t)u : 65536u) : 0u;
#endif
}
"""


def ranks_c(ranks: Ranks, *, integer: bool = True, single: bool = True) -> str:
    """`edge_ranks_f32` and `edge_ranks_i32`, those that are asked for, with their tables."""
    if not _has_buckets(ranks):
        return c_ranks.ranks_c(ranks, integer=integer, single=single)
    parts = [c_ranks.types_c(ranks)]
    if single:
        parts += [c_ranks.KEY, _TRUNC, _kind(ranks, "f32")]
    if integer:
        parts.append(_kind(ranks, "i32"))
    return "\n".join(parts)


def most_turns(ranks: Ranks) -> Most:
    """The most turns of the loops of `ranks_c` in one call."""
    if not _has_buckets(ranks):
        return c_ranks.most_turns(ranks)
    return {Turn.SLOT: len(ranks.numeric), Turn.STEP: sum(map(max, _steps(ranks)))}


def _steps(ranks: Ranks) -> Iterator[tuple[int, int]]:
    """Of each slot the most thresholds from where a bucket's search begins to where the next one's does, by kind."""
    count = buckets.bucket_count(ranks.numeric)
    for slot in ranks.numeric:
        group = [s for s in ranks.numeric if s.feature == slot.feature]
        at = next(i for i, s in enumerate(group) if s is slot)
        starts = (made(group, count).starts[at] for made in (buckets.float_buckets, buckets.integer_buckets))
        most = [int(np.diff([*of, len(slot.keys)]).max()) for of in starts]
        yield most[0], most[1]


def _has_buckets(ranks: Ranks) -> bool:
    return bool(ranks.numeric) and all(buckets.has_floats(s) for s in ranks.numeric)


def _kind(ranks: Ranks, kind: str) -> str:
    count = buckets.bucket_count(ranks.numeric)
    by_feature: dict[int, list[int]] = {}
    for i, slot in enumerate(ranks.numeric):
        by_feature.setdefault(slot.feature, []).append(i)
    slots: list[str] = [""] * len(ranks.numeric)
    starts: list[list[int]] = [[]] * len(ranks.numeric)
    limits: list[str] = []
    first = []
    for slot in ranks.numeric:
        first.append(len(limits))
        values = slot.keys if kind == "f32" else slot.integer_thresholds()
        limits += [c_text.int32(int(v)) for v in values] + ["INT32_MAX"]
    for feature, of in by_feature.items():
        group = [ranks.numeric[i] for i in of]
        if kind == "f32":
            made = buckets.float_buckets(group, count)
            where, begins = (
                f"{c_text.number(made.low, single=True)}, {c_text.number(made.scale, single=True)}",
                made.starts,
            )
        else:
            made_i = buckets.integer_buckets(group, count)
            where, begins = f"{c_text.int32(made_i.low)}, {made_i.shift}", made_i.starts
        for i, begin in zip(of, begins, strict=True):
            slot = ranks.numeric[i]
            slots[i] = f"{{{where}, {first[i]}, {feature}, {slot.nan_rank}, {int(slot.zero_missing)}}}"
            starts[i] = begin.tolist()
    start_type = c_text.unsigned(max(max(s) for s in starts))
    low, scale = ("float low, scale;", "") if kind == "f32" else ("int32_t low;", "uint32_t shift;")
    members = f"{low} {scale} uint32_t first; uint16_t feature; edge_rank missing; uint8_t zero;"
    text = (
        f"static const struct {{ {members} }}\nedge_slots_{kind}[EDGE_NUMERIC] = {{\n    "
        + ",\n    ".join(slots)
        + "};\n"
    )
    text += c_text.array("int32_t", f"edge_limits_{kind}", limits)
    text += c_text.array(start_type, f"edge_start_{kind}", [v for s in starts for v in s], 32)
    zero = any(s.zero_missing for s in ranks.numeric)
    body = turns.named(_BODY_F32 if kind == "f32" else _BODY_I32)
    zero_test = (
        f" || (s->zero && key <= {ZERO_KEY} && key >= -{ZERO_KEY})" if kind == "f32" else "s->zero && !key"
    )
    body = body.replace("ZERO", zero_test if zero else "" if kind == "f32" else "0")
    body = body.replace("LAST", f"{count - 1}u").replace("COUNT", str(count)).replace("START", start_type)
    return text + "\n" + c_ranks.functions_c(ranks, kind, body)


_BODY_F32 = """\
    const START *start = edge_start_f32;
    for (uint32_t i = 0; i < EDGE_NUMERIC; i++, start += COUNT) {
        EDGE_TURN(SLOT);
        __typeof__(&edge_slots_f32[0]) s = edge_slots_f32 + i;
        float v = x[s->feature];
        int32_t key = edge_float_key(v);
        uint32_t bucket = edge_trunc((v - s->low) * s->scale);
        const int32_t *limit = edge_limits_f32 + s->first;
        uint32_t rank = start[bucket < LAST ? bucket : LAST];
        if (edge_is_nan(key)ZERO) {
            q[i] = s->missing;
            continue;
        }
        while (limit[rank] < key) {
            EDGE_TURN(STEP);
            rank++;
        }
        q[i] = (edge_rank)rank;
    }
"""
_BODY_I32 = """\
    const START *start = edge_start_i32;
    for (uint32_t i = 0; i < EDGE_NUMERIC; i++, start += COUNT) {
        EDGE_TURN(SLOT);
        __typeof__(&edge_slots_i32[0]) s = edge_slots_i32 + i;
        int32_t key = x[s->feature];
        uint32_t bucket = key < s->low ? 0u : ((uint32_t)key - (uint32_t)s->low) >> s->shift;
        const int32_t *limit = edge_limits_i32 + s->first;
        uint32_t rank = start[bucket < LAST ? bucket : LAST];
        while (limit[rank] < key) {
            EDGE_TURN(STEP);
            rank++;
        }
        q[i] = (edge_rank)(ZERO ? s->missing : rank);
    }
"""
