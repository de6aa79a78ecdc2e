"""C that fills thermometer words in memory, for rows and models that the assembly does not take itself.

`edge_words_f32` and `edge_words_i32` fill a block: the words, then the ranks of the slots that are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from compile.emit import c_ranks, c_text
from compile.emit.words import SETS_PER_WORD, Words
from compile.ranks import Ranks


def words_c(ranks: Ranks, words: Words, compared: Mapping[int, int], kinds: Sequence[str]) -> str:
    """C source of the functions of those kinds; `compared` maps slots whose ranks are stored, in this order,
    to what is added to them.
    """
    parts = [
        c_ranks.ranks_c(ranks, integer="i32" in kinds, single="f32" in kinds),
        _tables(ranks, words),
        _fill(ranks, words, compared),
    ]
    for kind, ctype in (("f32", "float"), ("i32", "int32_t")):
        if kind in kinds:
            head = f"void edge_words_{kind}(const {ctype} *x, uint64_t *words)"
            parts.append(
                f"{head};\n{head}\n{{\n    edge_rank q[EDGE_SLOTS];\n"
                f"    edge_ranks_{kind}(x, q);\n    edge_fill(q, words);\n}}\n"
            )
    return "\n".join(parts)


def _tables(ranks: Ranks, words: Words) -> str:
    data: list[int] = []
    at: list[int] = []
    sets: list[str] = []
    for word in words.words:
        if word.slot < len(ranks.numeric):
            at.append(len(data))
            data += word.shifts(len(ranks.numeric[word.slot].keys)).tolist()
        else:
            at.append(len(sets))
            rows = ranks.categorical[word.slot - len(ranks.numeric)].rows[:, word.members]
            weights = np.uint64(1) << np.arange(SETS_PER_WORD, dtype=np.uint64)[: rows.shape[1]]
            sets += [f"{int(v):#x}u" for v in (rows * weights).sum(1, dtype=np.uint64)]
    slots = [w.slot for w in words.words]
    text = c_text.array("uint8_t", "edge_shifts", data, 32)
    if ranks.categorical:
        text += c_text.array("uint64_t", "edge_set_words", sets, 4)
    text += c_text.array(c_text.unsigned(max(slots, default=0)), "edge_word_slot", slots)
    return text + c_text.array(c_text.unsigned(max(at, default=0)), "edge_word_at", at)


def _fill(ranks: Ranks, words: Words, compared: Mapping[int, int]) -> str:
    stored = "".join(
        f"    ((uint16_t *)(words + {len(words.words)}))[{i}] = (uint16_t)(q[{slot}] + {base}u);\n"
        for i, (slot, base) in enumerate(compared.items())
    )
    lookup = "words[w] = ~(uint64_t)0 << edge_shifts[edge_word_at[w] + q[slot]];"
    if ranks.categorical:
        lookup = """words[w] = slot < EDGE_NUMERIC
            ? ~(uint64_t)0 << edge_shifts[edge_word_at[w] + q[slot]]
            : edge_set_words[edge_word_at[w] + q[slot]];"""
    return f"""\
static __attribute__((noinline)) void edge_fill(const edge_rank *q, uint64_t *words)
{{
    for (uint32_t w = 0; w < {len(words.words)}; w++) {{
        uint32_t slot = edge_word_slot[w];
        {lookup}
    }}
{stored}}}
"""
