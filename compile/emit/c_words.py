"""C that fills thermometer words in memory, for rows and models that the assembly does not take itself.

`edge_words_f32` and `edge_words_i32` fill a block: the words, then the ranks of the slots that are compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compile.emit import c_ranks, c_text, turns
from compile.emit.turns import Most, Turn
from compile.emit.words import SETS_PER_WORD, Words
from compile.ranks import Ranks


def words_c(ranks: Ranks, words: Words, compared: Sequence[int], kinds: Sequence[str]) -> str:
    """C source of the functions of those kinds, for columns of a slot each; `compared`: slots whose ranks are
    stored, in this order.
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


def most_turns(ranks: Ranks, words: Words) -> Most:
    """The most turns of the loops of `words_c` in one call."""
    return turns.together(c_ranks.most_turns(ranks), {Turn.WORD: len(words.words)})


def _tables(ranks: Ranks, words: Words) -> str:
    data: list[int] = []
    at: list[int] = []
    sets: list[str] = []
    slots = [words.columns[w.column].slots[0] for w in words.words]
    for slot, word in zip(slots, words.words, strict=True):
        if slot < len(ranks.numeric):
            at.append(len(data))
            data += word.shifts(len(ranks.numeric[slot].keys)).tolist()
        else:
            at.append(len(sets))
            rows = ranks.categorical[slot - len(ranks.numeric)].rows[:, word.members]
            weights = np.uint64(1) << np.arange(SETS_PER_WORD, dtype=np.uint64)[: rows.shape[1]]
            sets += [f"{int(v):#x}u" for v in (rows * weights).sum(1, dtype=np.uint64)]
    text = c_text.array("uint8_t", "edge_shifts", data, 32)
    if ranks.categorical:
        text += c_text.array("uint64_t", "edge_set_words", sets, 4)
    text += c_text.array(c_text.unsigned(max(slots, default=0)), "edge_word_slot", slots)
    return text + c_text.array(c_text.unsigned(max(at, default=0)), "edge_word_at", at)


def _fill(ranks: Ranks, words: Words, compared: Sequence[int]) -> str:
    stored = "".join(
        f"    ((uint16_t *)(words + {len(words.words)}))[{i}] = (uint16_t)q[{slot}];\n"
        for i, slot in enumerate(compared)
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
        {turns.c(Turn.WORD)}
        uint32_t slot = edge_word_slot[w];
        {lookup}
    }}
{stored}}}
"""
