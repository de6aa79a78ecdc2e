"""C for AArch64 that turns features into thermometer words and ranks, for the assembly to test.

`edge_words_f32` and `edge_words_i32` fill a block of memory: the words, hottest first, then the ranks of the
slots that are also compared. Buckets of four features are found at once; each slot then looks up where its
bucket begins among its thresholds and goes up from there:

    uint32_t g = edge_start[b[3]];              b: bucket of feature 3, plus its row of the table
    while (edge_thresholds[g] < x[3]) g++;      each slot's thresholds end with +inf
    words[0] = ~0ull << edge_shifts[g];

A row with a NaN takes a slower way, by binary search.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compile.emit import buckets, c_ranks, c_text
from compile.emit.words import SETS_PER_WORD, Words
from compile.forest import key_to_float
from compile.ranks import Ranks


def words_c(ranks: Ranks, words: Words, compared: Sequence[int], *, integer: bool) -> str:
    """C source of the two functions; `compared` are the slots whose ranks are stored behind the words."""
    writer = _Writer(ranks, words, compared)
    parts = [
        _BUCKETS.replace("LAST", str(writer.count - 1)),
        c_ranks.ranks_c(ranks, integer=integer),
        writer.shifts(),
        writer.fill(),
        writer.single(),
    ]
    if integer:
        parts.append(writer.integer())
    return "\n".join(parts)


_BUCKETS = """\
#include <arm_neon.h>

#define EDGE_BUCKETS_F32(at) { \\
    float32x4_t v = vld1q_f32(x + at); \\
    ok = vandq_u32(ok, vceqq_f32(v, v)); \\
    v = vmulq_f32(vsubq_f32(v, vld1q_f32(edge_low + at)), vld1q_f32(edge_scale + at)); \\
    vst1q_u32(b + at, vaddq_u32(vminq_u32(vcvtq_u32_f32(v), vdupq_n_u32(LAST)), row)); \\
}

#define EDGE_BUCKETS_I32(at) { \\
    int32x4_t v = vqsubq_s32(vld1q_s32(x + at), vld1q_s32(edge_low_i + at)); \\
    v = vmaxq_s32(vshlq_s32(v, vld1q_s32(edge_shift_i + at)), vdupq_n_s32(0)); \\
    vst1q_u32(b + at, vaddq_u32(vreinterpretq_u32_s32(vminq_s32(v, vdupq_n_s32(LAST))), row)); \\
}
"""


class _Writer:
    def __init__(self, ranks: Ranks, words: Words, compared: Sequence[int]) -> None:
        self.ranks = ranks
        self.words = words
        self.compared = list(compared)
        self.numeric = ranks.numeric
        self.offsets = np.cumsum([0] + [len(s.keys) + 1 for s in self.numeric]).tolist()
        self.count = buckets.bucket_count(self.numeric)
        # Rows of the table of starts: a feature's first slot in its own row, further slots behind all features.
        features = ranks.forest.n_features
        self.rows: list[int] = []
        seen: set[int] = set()
        for slot in self.numeric:
            self.rows.append(slot.feature if slot.feature not in seen else features + len(self.rows))
            seen.add(slot.feature)

    def shifts(self) -> str:
        """Tables of shifts of the numeric words, and of the categorical words."""
        data: list[int] = []
        at: list[int] = []
        sets: list[str] = []
        for word in self.words.words:
            if word.slot < len(self.numeric):
                at.append(len(data))
                data += word.shifts(len(self.numeric[word.slot].keys)).tolist()
            else:
                at.append(len(sets))
                rows = self.ranks.categorical[word.slot - len(self.numeric)].rows[:, word.members]
                weights = 1 << np.arange(SETS_PER_WORD, dtype=np.uint64)[: rows.shape[1]]
                sets += [f"{int(v):#x}u" for v in (rows * weights).sum(1, dtype=np.uint64)]
        self.at = at
        slots = [w.slot for w in self.words.words]
        text = c_text.array("uint8_t", "edge_shifts", data, 32)
        if self.ranks.categorical:
            text += c_text.array("uint64_t", "edge_set_words", sets, 4)
        text += c_text.array(c_text.unsigned(max(slots, default=0)), "edge_word_slot", slots)
        return text + c_text.array("uint32_t", "edge_word_at", at)

    def fill(self) -> str:
        """`edge_fill`: words and stored ranks from ranks, for rows that take the slower way."""
        stored = "".join(
            f"    ((edge_rank *)(words + {len(self.words.words)}))[{i}] = q[{slot}];\n"
            for i, slot in enumerate(self.compared)
        )
        lookup = "words[w] = ~(uint64_t)0 << edge_shifts[edge_word_at[w] + q[slot]];"
        if self.ranks.categorical:
            lookup = f"""words[w] = slot < EDGE_NUMERIC
            ? ~(uint64_t)0 << edge_shifts[edge_word_at[w] + q[slot]]
            : edge_set_words[edge_word_at[w] + q[slot]];"""
        return f"""\
static __attribute__((noinline)) void edge_fill(const edge_rank *q, uint64_t *words)
{{
    for (uint32_t w = 0; w < {len(self.words.words)}; w++) {{
        uint32_t slot = edge_word_slot[w];
        {lookup}
    }}
{stored}}}
"""

    def single(self) -> str:
        """`edge_words_f32`."""
        slow = "    edge_rank q[EDGE_SLOTS];\n    edge_ranks_f32(x, q);\n    edge_fill(q, words);\n"
        head = "void edge_words_f32(const float *x, uint64_t *words)\n{\n"
        if not self._fast():
            return f"{head}{slow}}}\n"
        by_feature = self._by_feature()
        made = {
            f: buckets.float_buckets([self.numeric[i] for i in of], self.count)
            for f, of in by_feature.items()
        }
        features = self.ranks.forest.n_features
        low = [made[f].low if f in made else 0.0 for f in range(features)]
        scale = [made[f].scale if f in made else 0.0 for f in range(features)]
        starts = self._starts({f: m.starts for f, m in made.items()})
        thresholds = []
        for slot in self.numeric:
            thresholds += [c_text.number32(key_to_float(int(k))) for k in slot.keys] + ["__builtin_inff()"]
        find = "".join(self._slot(i, "f32") for i in range(len(self.numeric)))
        return (
            c_text.array("float", "edge_low", [c_text.number(v, single=True) for v in low])
            + c_text.array("float", "edge_scale", [c_text.number(v, single=True) for v in scale])
            + c_text.array("uint16_t", "edge_start", starts)
            + c_text.array("float", "edge_thresholds", thresholds, 8)
            + f"""
static __attribute__((noinline)) void edge_words_nan(const float *x, uint64_t *words)
{{
{slow}}}

{head}    uint32_t b[{features}];
    uint32x4_t ok = vdupq_n_u32(~0u);
    uint32x4_t row;
{self._vectors("f32")}    if (vminvq_u32(ok) == 0) {{
        edge_words_nan(x, words);
        return;
    }}
{find}{self._codes("f32")}}}
"""
        )

    def integer(self) -> str:
        """`edge_words_i32`."""
        head = "void edge_words_i32(const int32_t *x, uint64_t *words)\n{\n"
        if not self._fast():
            return f"{head}    edge_rank q[EDGE_SLOTS];\n    edge_ranks_i32(x, q);\n    edge_fill(q, words);\n}}\n"
        by_feature = self._by_feature()
        made = {
            f: buckets.integer_buckets([self.numeric[i] for i in of], self.count)
            for f, of in by_feature.items()
        }
        features = self.ranks.forest.n_features
        low = [made[f].low if f in made else 0 for f in range(features)]
        shift = [-made[f].shift if f in made else 0 for f in range(features)]
        thresholds: list[str] = []
        for slot in self.numeric:
            thresholds += [c_text.int32(int(t)) for t in slot.integer_thresholds()] + ["INT32_MAX"]
        find = "".join(self._slot(i, "i32") for i in range(len(self.numeric)))
        return (
            c_text.array("int32_t", "edge_low_i", [c_text.int32(v) for v in low])
            + c_text.array("int32_t", "edge_shift_i", shift)
            + c_text.array("uint16_t", "edge_start_i", self._starts({f: m.starts for f, m in made.items()}))
            + c_text.array("int32_t", "edge_thresholds_i", thresholds, 8)
            + f"""
{head}    uint32_t b[{features}];
    uint32x4_t row;
{self._vectors("i32")}{find}{self._codes("i32")}}}
"""
        )

    def _fast(self) -> bool:
        floats = all(buckets.has_floats(s) for s in self.numeric)
        zero = any(s.zero_missing for s in self.numeric)
        return floats and not zero and self.ranks.forest.n_features >= 4 and self.offsets[-1] <= 0xFFFF

    def _by_feature(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for i, slot in enumerate(self.numeric):
            found.setdefault(slot.feature, []).append(i)
        return found

    def _starts(self, by_feature: dict[int, tuple[np.ndarray, ...]]) -> list[int]:  # type: ignore[type-arg]
        table = np.zeros((max(self.rows, default=0) + 1, self.count), np.int64)
        for feature, slots in self._by_feature().items():
            for number, starts in zip(slots, by_feature[feature], strict=True):
                table[self.rows[number]] = starts + self.offsets[number]
        return [int(v) for v in table.ravel()]

    def _vectors(self, kind: str) -> str:
        """Buckets of four features at a time; the last four may overlap those before."""
        features = self.ranks.forest.n_features
        lines = []
        for at in [*range(0, features - 3, 4), *([features - 4] if features % 4 else [])]:
            rows = ", ".join(str((at + i) * self.count) for i in range(4))
            lines.append(f"    row = (uint32x4_t){{{rows}}};\n")
            if kind == "f32":
                lines.append(f"    EDGE_BUCKETS_F32({at})\n")
            else:
                lines.append(f"    EDGE_BUCKETS_I32({at})\n")
        return "".join(lines)

    def _slot(self, number: int, kind: str) -> str:
        slot, offset = self.numeric[number], self.offsets[number]
        table, limits = (
            ("edge_start", "edge_thresholds") if kind == "f32" else ("edge_start_i", "edge_thresholds_i")
        )
        further = (self.rows[number] - slot.feature) * self.count
        index = f"b[{slot.feature}]" + (f" + {further}" if further else "")
        lines = [f"        uint32_t g = {table}[{index}];"]
        lines.append(f"        while ({limits}[g] < x[{slot.feature}]) g++;")
        for w, word in enumerate(self.words.words):
            if word.slot == number:
                moved = self.at[w] - offset
                lines.append(f"        words[{w}] = ~(uint64_t)0 << (edge_shifts + {moved})[g];")
        for i, stored in enumerate(self.compared):
            if stored == number:
                block = f"((edge_rank *)(words + {len(self.words.words)}))"
                lines.append(f"        {block}[{i}] = (edge_rank)(g - {offset});")
        return "    {\n" + "\n".join(lines) + "\n    }\n"

    def _codes(self, kind: str) -> str:
        if not self.ranks.categorical:
            return ""
        lines = [f"    edge_rank q[EDGE_SLOTS];\n    edge_codes_{kind}(x, q);\n"]
        for w, word in enumerate(self.words.words):
            if word.slot >= len(self.numeric):
                lines.append(f"    words[{w}] = edge_set_words[{self.at[w]} + q[{word.slot}]];\n")
        return "".join(lines)
