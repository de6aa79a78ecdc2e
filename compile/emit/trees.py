"""A Forest to the source of an artifact's model part.

What comes out defines, for the header `edge_model.h` in front of it,

    static void edge_trees_i32(const int32_t *features, double *raw_scores);   /* integer features */
    int edge_model_scores(const float *features, double *raw_scores);          /* exported */
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from compile.emit import (
    aarch64,
    aarch64_sums,
    aarch64_words,
    c_bitvector,
    c_compact,
    c_lut,
    c_ranks,
    c_table,
    c_words,
    soft_sum,
    thumb,
    thumb_sums,
    turns,
)
from compile.emit.flow import flow_of
from compile.emit.turns import Most
from compile.forest import Forest
from compile.quantise import Fixed, fixed
from compile.ranks import Ranks, rank_forest
from compile.targets import FLASH_BYTES, Target
from edge_runtime.errors import BadInput

MODES = ("exact", "fixed", "compact")


@dataclass(frozen=True, slots=True)
class TreeCode:
    """The model part of an artifact.

    c: C text to follow `edge_model.h`. files: further sources of the same build (name -> text).
    mode, style: what was chosen, and `reason`, one line, why.
    forest: what the code computes bit for bit: the model, or in the modes fixed and compact the model with its
        leaves in fixed point, whose raw scores are at most `worst_error` from the model's.
    worst_instructions: the most that `edge_model_scores` can take, proven from the code: the longest way through
        its blocks, of which each leads on only where what is known on the ways to it leaves a test open. None
        where that is to be told from the machine code.
    turns: of each kind of marked loop (see turns.py), how often one call goes through it at most, whatever the
        row. With `worst_instructions`, the loops of C that it does not count.
    """

    c: str
    mode: str
    style: str
    reason: str
    forest: Forest
    worst_error: float = 0.0
    files: Mapping[str, str] = field(default_factory=dict)
    worst_instructions: int | None = None
    turns: Most = field(default_factory=dict)


def emit(
    forest: Forest,
    target: Target,
    *,
    mode: str = "exact",
    integer: bool = True,
    data: NDArray[np.float32] | None = None,
    quantised: Fixed | None = None,
    room_bytes: int | None = None,
) -> TreeCode:
    """The model's source for a target.

    mode: "exact" (raw scores are the training library's bits), "fixed" (leaves in fixed point, the same code
    otherwise) or "compact" (fixed point and the least flash). integer: with `edge_trees_i32`. data: rows whose
    decisions must not change in fixed point; quantised: the leaves in fixed point, where they are known.
    room_bytes: flash that exact code may take on a microcontroller before it becomes a slower table; three quarters
    of a common part's where nobody says.
    Raises BadInput for an unknown mode.
    """
    if mode not in MODES:
        raise BadInput(f"mode {mode!r}: unknown; choose of {', '.join(MODES)}")
    kinds = ["f32", "i32"] if integer else ["f32"]
    if mode == "exact":
        quantised = None
    elif quantised is None:
        quantised = fixed(forest, data)
    chosen = forest if quantised is None else quantised.forest
    ranks = rank_forest(chosen)
    error = 0.0 if quantised is None else quantised.worst_error
    if mode == "compact" and quantised is not None:
        thumb2 = target.machine == "cortex-m4"
        c, files, most = c_compact.compact(rank_forest(quantised.integers), quantised, kinds, thumb=thumb2)
        return TreeCode(turns.C + c, mode, "packed", "the least flash", chosen, error, files, None, most)
    if target.machine == "aarch64" and forest.n_outputs <= aarch64_sums.MAX_OUTPUTS:
        made = _aarch64(ranks, kinds)
        if made is not None:
            c, files, longest, most = made
            reason = "branches on thermometer words in registers"
            return TreeCode(c, mode, "threaded", reason, chosen, error, files, longest, most)
    total = _thumb_sum(target, ranks, quantised, room_bytes)
    small = len(ranks.numeric) <= thumb.MAX_SLOTS and len(forest.feature) <= thumb.MAX_NODES
    if total is not None and thumb_sums.fits(forest, total) and small:
        c, files, most = _thumb(ranks, kinds, total, quantised)
        reason = "branches on ranks in registers"
        return TreeCode(turns.C + c, mode, "threaded", reason, chosen, error, files, None, most)
    if target.machine == "x86_64" and c_bitvector.fits(ranks):
        c = "\n".join(
            [c_lut.ranks_c(ranks, integer=integer), c_bitvector.bitvector_c(ranks), _entries(kinds)]
        )
        most = turns.together(c_lut.most_turns(ranks), c_bitvector.most_turns(ranks))
        reason = "bit vectors: few branches, and those predictable"
        return TreeCode(turns.C + c, mode, "bitvector", reason, chosen, error, turns=most)
    lut = c_ranks if target.machine == "cortex-m0" else c_lut
    c = "\n".join([lut.ranks_c(ranks, integer=integer), c_table.table_c(ranks), _entries(kinds)])
    most = turns.together(lut.most_turns(ranks), c_table.most_turns(ranks.forest))
    return TreeCode(turns.C + c, mode, "table", "the smallest exact code", chosen, error, turns=most)


def _aarch64(ranks: Ranks, kinds: Sequence[str]) -> tuple[str, dict[str, str], int, Most] | None:
    """The C, the assembly, its longest way and the turns of C; None where the frame would be too large."""
    flow = flow_of(ranks, aarch64.taste(ranks.forest))
    words = aarch64.words_for(flow)
    if len(words.words) > aarch64.MAX_WORDS or ranks.forest.n_features > aarch64.MAX_FEATURES:
        return None
    compared = aarch64.compared_slots(flow, words)
    c, most = "", {}
    if not aarch64_words.is_plain(ranks):
        c = turns.C + c_words.words_c(ranks, words, compared, kinds)
        most = c_words.most_turns(ranks, words)
    c += "\nvoid edge_trees_i32(const int32_t *features, double *raw_scores);\n"
    text, longest = aarch64.trees_s(flow, words, compared, integer="i32" in kinds)
    return c, {"trees.S": text}, longest, most


def _thumb_sum(
    target: Target, ranks: Ranks, quantised: Fixed | None, room_bytes: int | None
) -> thumb_sums.Sum | None:
    """What Thumb-2 code for the target would sum leaves in; None where it has no such numbers."""
    if target.machine not in {"armv7", "cortex-m4"}:
        return None
    if quantised is not None:
        return thumb_sums.Sum.FIXED
    if ranks.forest.single:
        return thumb_sums.Sum.SINGLE
    if target.machine == "armv7":
        return thumb_sums.Sum.DOUBLE
    if room_bytes is None:
        room_bytes = FLASH_BYTES[target.machine] * 3 // 4
    fits = soft_sum.flash_bytes(ranks.forest) <= room_bytes
    return thumb_sums.Sum.SOFT if fits and soft_sum.fits(ranks.forest) else None


def _thumb(
    ranks: Ranks, kinds: Sequence[str], total: thumb_sums.Sum, quantised: Fixed | None
) -> tuple[str, dict[str, str], Most]:
    if quantised is not None:
        ranks = rank_forest(quantised.integers)
    finish = c_table.finish_c(ranks.forest, quantised.shift if quantised else 0)
    c, files, most = thumb.emit(ranks, kinds, total, finish)
    return (c_table.SCALED if quantised else "") + c, files, most


def _entries(kinds: Sequence[str]) -> str:
    return "".join(_ENTRY[kind] for kind in kinds)


_ENTRY = {
    "i32": """
static __attribute__((unused)) void edge_trees_i32(const int32_t *features, double *raw_scores)
{
    edge_rank q[EDGE_SLOTS];
    edge_ranks_i32(features, q);
    edge_walk(q, raw_scores);
}
""",
    "f32": """
int edge_model_scores(const float *features, double *raw_scores)
{
    edge_rank q[EDGE_SLOTS];
    edge_ranks_f32(features, q);
    edge_walk(q, raw_scores);
    return 0;
}
""",
}
