"""A Forest to the source of an artifact's model part.

What comes out defines, for the header `edge_model.h` in front of it,

    static void edge_trees_i32(const int32_t *features, double *raw_scores);   /* integer features */
    int edge_model_scores(const float *features, double *raw_scores);          /* exported */
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from compile.emit import c_ranks, c_table
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


def emit(forest: Forest | Ranks, target: Target, *, mode: str = "exact") -> TreeCode:
    """The model's source for a target."""
    del target
    ranks = forest if isinstance(forest, Ranks) else rank_forest(forest)
    c = "\n".join([c_ranks.ranks_c(ranks), c_table.table_c(ranks), _ENTRIES])
    return TreeCode(c, mode, "table", "the table walk is the only style yet")


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
