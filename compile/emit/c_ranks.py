"""C that turns features into ranks, for float32 and for integer features, without any floating point.

float32 features are compared by their bits (`edge_float_key`), so that the ranks do not depend on a target's
floating-point unit, its flushing of subnormals, or its compiler. Both functions fill `edge_rank q[]`: a rank
for each numeric slot, then a row number for each categorical one.
"""

from __future__ import annotations

from compile.emit import c_text, turns
from compile.emit.turns import Most, Turn
from compile.forest import INF_KEY, ZERO_KEY, CodeRule
from compile.ranks import CategorySlot, Ranks

_SEARCH = turns.named("""\
/* How many of n ascending thresholds lie below the key. */
static inline uint32_t edge_below(const int32_t *t, uint32_t n, int32_t key)
{
    const int32_t *at = t;
    while (n > 1) {
        EDGE_TURN(HALVING);
        uint32_t half = n >> 1;
        at = at[half - 1] < key ? at + half : at;
        n -= half;
    }
    return (uint32_t)(at - t) + (n ? *at < key : 0);
}
""")

KEY = f"""\
/* The order of float32 as an integer: -0 is 0; a NaN lies beyond the keys of the infinities. */
static inline int32_t edge_float_key(float x)
{{
    union {{ float f; uint32_t u; }} bits = {{ x }};
    return (int32_t)(bits.u >> 31 ? 0x80000000u - bits.u : bits.u);
}}

static inline int edge_is_nan(int32_t key)
{{
    return key > {INF_KEY} || key < -{INF_KEY};
}}
"""


def ranks_c(ranks: Ranks, *, integer: bool = True, single: bool = True) -> str:
    """`edge_ranks_i32` and `edge_ranks_f32`, those that are asked for, with their tables."""
    parts = [types_c(ranks)]
    if ranks.numeric:
        parts += [_SEARCH, _slot_tables(ranks)]
    if single:
        parts += [KEY, _f32(ranks)]
    if integer:
        parts.append(_i32(ranks))
    return "\n".join(parts)


def most_turns(ranks: Ranks) -> Most:
    """The most turns of the loops of `ranks_c` in one call."""
    halvings = sum((len(s.keys) - 1).bit_length() for s in ranks.numeric)
    return {Turn.SLOT: len(ranks.numeric), Turn.HALVING: halvings}


def rank_bytes(ranks: Ranks) -> int:
    """Bytes of a rank, one bit more where one can be negative (see columns)."""
    largest = ranks.largest
    return 1 if largest < (128 if any(s.nan_rank < 0 for s in ranks.numeric) else 256) else 2


def types_c(ranks: Ranks) -> str:
    """The type of a rank, and how many slots there are."""
    slots = len(ranks.numeric) + len(ranks.categorical)
    return (
        f"typedef uint{8 * rank_bytes(ranks)}_t edge_rank;\n\n"
        f"enum {{ EDGE_NUMERIC = {len(ranks.numeric)}, EDGE_SLOTS = {max(slots, 1)} }};\n"
    )


def _slot_tables(ranks: Ranks) -> str:
    starts = [0]
    for slot in ranks.numeric:
        starts.append(starts[-1] + len(slot.keys))
    keys = [c_text.int32(int(key)) for slot in ranks.numeric for key in slot.keys]
    floors = [c_text.int32(int(t)) for slot in ranks.numeric for t in slot.integer_thresholds()]
    kind = c_text.unsigned(starts[-1])
    features = [s.feature for s in ranks.numeric]
    return (
        c_text.array(kind, "edge_slot_start", starts)
        + c_text.array(c_text.unsigned(ranks.forest.n_features), "edge_slot_feature", features)
        + c_text.array("edge_rank", "edge_slot_nan", [s.nan_rank for s in ranks.numeric])
        + c_text.array("int32_t", "edge_threshold_keys", keys)
        + c_text.array("int32_t", "edge_threshold_ints", floors)
    )


def _f32(ranks: Ranks) -> str:
    body = ""
    if ranks.numeric:
        missing = "edge_is_nan(key)"
        if any(s.zero_missing for s in ranks.numeric):
            flags = ", ".join(str(int(s.zero_missing)) for s in ranks.numeric)
            body += f"    static const uint8_t zero_missing[EDGE_NUMERIC] = {{{flags}}};\n"
            missing += f" || (zero_missing[i] && key <= {ZERO_KEY} && key >= -{ZERO_KEY})"
        body += f"""\
    for (uint32_t i = 0; i < EDGE_NUMERIC; i++) {{
        {turns.c(Turn.SLOT)}
        int32_t key = edge_float_key(x[edge_slot_feature[i]]);
        uint32_t start = edge_slot_start[i];
        q[i] = (edge_rank)({missing}
            ? edge_slot_nan[i]
            : edge_below(edge_threshold_keys + start, edge_slot_start[i + 1] - start, key));
    }}
"""
    return functions_c(ranks, "f32", body)


def functions_c(ranks: Ranks, kind: str, body: str) -> str:
    """`edge_ranks_<kind>` around the body for its numeric slots, and `edge_codes_<kind>` for the others."""
    ctype = "float" if kind == "f32" else "int32_t"
    codes = ""
    for i, slot in enumerate(ranks.categorical, len(ranks.numeric)):
        codes += code_c(i, slot, ranks.forest.code_rule, kind)
    text = ""
    if codes:
        text = f"static void edge_codes_{kind}(const {ctype} *x, edge_rank *q)\n{{\n{codes}}}\n\n"
        body += f"    edge_codes_{kind}(x, q);\n"
    return text + f"static void edge_ranks_{kind}(const {ctype} *x, edge_rank *q)\n{{\n{body or _UNUSED}}}\n"


_UNUSED = "    (void)x;\n    (void)q;\n"


def code_c(i: int, slot: CategorySlot, rule: CodeRule, kind: str) -> str:
    """C that puts a categorical slot's row number into `q[i]`."""
    return _code_f32(i, slot, rule) if kind == "f32" else _code_i32(i, slot)


def _code_f32(i: int, slot: CategorySlot, rule: CodeRule) -> str:
    lowest = "v > -1.0f" if rule is CodeRule.TRUNCATE else "v >= 0.0f"
    whole = " && (float)(int32_t)v == v" if rule is CodeRule.EXACT else ""
    return f"""\
    {{
        float v = x[{slot.feature}];
        q[{i}] = (edge_rank)(v != v ? {slot.other + 1}
            : {lowest} && v < {slot.other}.0f{whole} ? (int32_t)v : {slot.other});
    }}
"""


def _i32(ranks: Ranks) -> str:
    body = ""
    if ranks.numeric:
        thresholds = "edge_threshold_ints + start, edge_slot_start[i + 1] - start"
        rank = f"edge_below({thresholds}, x[edge_slot_feature[i]])"
        if any(s.zero_missing for s in ranks.numeric):
            flags = ", ".join(str(int(s.zero_missing)) for s in ranks.numeric)
            body += f"    static const uint8_t zero_missing[EDGE_NUMERIC] = {{{flags}}};\n"
            rank = f"zero_missing[i] && !x[edge_slot_feature[i]] ? edge_slot_nan[i] : {rank}"
        body += f"""\
    for (uint32_t i = 0; i < EDGE_NUMERIC; i++) {{
        {turns.c(Turn.SLOT)}
        uint32_t start = edge_slot_start[i];
        q[i] = (edge_rank)({rank});
    }}
"""
    return functions_c(ranks, "i32", body)


def _code_i32(i: int, slot: CategorySlot) -> str:
    code = f"x[{slot.feature}]"
    return f"    q[{i}] = (edge_rank)((uint32_t){code} < {slot.other} ? {code} : {slot.other});\n"


def category_bits_c(slots: tuple[CategorySlot, ...]) -> str:
    """Rows of categorical slots as bytes, bit (set & 7) of byte (set >> 3) of a row: whether it goes left."""
    starts, strides = [], []
    data: list[int] = []
    for slot in slots:
        sets = slot.rows.shape[1]
        stride = (sets + 7) // 8
        starts.append(len(data))
        strides.append(stride)
        for row in slot.rows:
            packed = [0] * stride
            for number in row.nonzero()[0]:
                packed[number >> 3] |= 1 << (number & 7)
            data += packed
    return (
        c_text.array("uint32_t", "edge_category_start", starts)
        + c_text.array(c_text.unsigned(max(strides)), "edge_category_stride", strides)
        + c_text.array("uint8_t", "edge_category_bits", data, 32)
    )
