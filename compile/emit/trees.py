"""A Forest to the source of an artifact's model part.

What comes out defines, for the header `edge_model.h` in front of it,

    static void edge_trees_i32(const int32_t *features, double *raw_scores);   /* integer features */
    int edge_model_scores(const float *features, double *raw_scores);          /* exported */
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from compile.emit import aarch64, aarch64_words, c_ranks, c_table, c_words
from compile.emit.flow import flow_of
from compile.forest import Forest
from compile.ranks import Ranks, rank_forest
from compile.targets import Target


@dataclass(frozen=True, slots=True)
class TreeCode:
    """The model part of an artifact.

    c: C text to follow `edge_model.h`. files: further sources of the same build (name -> text).
    mode, style: what was chosen, and `reason`, one line, why.
    """

    c: str
    mode: str
    style: str
    reason: str
    files: Mapping[str, str] = field(default_factory=dict)


def emit(forest: Forest | Ranks, target: Target, *, mode: str = "exact", integer: bool = True) -> TreeCode:
    """The model's source for a target; `integer`: with `edge_trees_i32` for integer features."""
    ranks = forest if isinstance(forest, Ranks) else rank_forest(forest)
    if target.machine == "aarch64":
        return _aarch64(ranks, integer)
    c = "\n".join([c_ranks.ranks_c(ranks), c_table.table_c(ranks), _ENTRIES])
    return TreeCode(c, mode, "table", "the table walk is the only style yet")


def _aarch64(ranks: Ranks, integer: bool) -> TreeCode:
    flow = flow_of(ranks, aarch64.TASTE)
    words = aarch64.words_for(flow)
    compared = aarch64.compared_slots(flow, words)
    bases = {slot: aarch64_words.rank_base(ranks, slot) for slot in compared}
    kinds = ["f32", "i32"] if integer else ["f32"]
    if aarch64_words.is_plain(ranks):
        kinds = ["f32"] if aarch64_words.stand_ins(ranks) is None else []
    c = c_words.words_c(ranks, words, bases, kinds) if kinds else ""
    c += "\nvoid edge_trees_i32(const int32_t *features, double *raw_scores);\n"
    files = {"trees.S": aarch64.trees_s(flow, words, compared, integer=integer)}
    return TreeCode(c, "exact", "threaded", "branches on thermometer words in registers", files)


_ENTRIES = """\
static __attribute__((unused)) void edge_trees_i32(const int32_t *features, double *raw_scores)
{
    edge_rank q[EDGE_SLOTS];
    edge_ranks_i32(features, q);
    edge_walk(q, raw_scores);
}

int edge_model_scores(const float *features, double *raw_scores)
{
    edge_rank q[EDGE_SLOTS];
    edge_ranks_f32(features, q);
    edge_walk(q, raw_scores);
    return 0;
}
"""
