"""Trees as tables, walked by a small C loop: exact on every target, and quick to compile whatever the size.

Each tree's splits are numbered from 0 in preorder, its leaves follow them; a node is

    { slot, rank, child[2] }        next = child[q[slot] > rank]

and a number not below the tree's count of splits is a leaf. The other emitters are tested against this one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compile.emit import c_ranks, c_text, turns
from compile.emit.turns import Most, Turn
from compile.forest import Forest, Ints
from compile.ranks import Ranks


@dataclass(frozen=True, slots=True)
class _Layout:
    """Splits and leaves of all trees in the order of the tables."""

    splits: Ints  # node numbers
    leaves: Ints  # node numbers
    children: Ints  # (splits, 2), numbers within the tree
    counts: list[int]  # splits of each tree


def table_c(ranks: Ranks) -> str:
    """C source that defines `edge_walk(const edge_rank *q, double *raw_scores)` and its tables."""
    forest = ranks.forest
    layout = _lay_out(forest)
    largest_child = int(layout.children.max(initial=0))
    slot, rank = ranks.slot[layout.splits], ranks.rank[layout.splits]
    child = c_text.unsigned(largest_child)
    rows = [
        f"{{{s}, {k}, {{{a}, {b}}}}}"
        for s, k, (a, b) in zip(slot, rank, layout.children.tolist(), strict=True)
    ]
    starts = np.cumsum([0, *layout.counts])
    for tree, (start, splits) in enumerate(zip(starts, layout.counts, strict=False)):
        if splits:
            nodes = (layout.splits[start : start + splits] - forest.roots[tree]).tolist()
            rows[start] = f"/* tree {tree}, nodes {' '.join(map(str, nodes))} */ {rows[start]}"
    types = c_text.unsigned(int(slot.max(initial=0))), c_text.unsigned(int(rank.max(initial=0)))
    parts = [
        f"typedef struct {{ {types[0]} slot; {types[1]} rank; {child} child[2]; }} edge_node;\n",
        c_text.array("edge_node", "edge_nodes", rows, 8),
        c_text.array(c_text.unsigned(max(layout.counts)), "edge_splits", layout.counts),
        _leaf_table(forest, layout),
    ]
    if ranks.categorical:
        parts.append(c_ranks.category_bits_c(ranks.categorical))
    parts.append(_walk(ranks))
    return "\n".join(parts)


def most_turns(forest: Forest) -> Most:
    """The most turns of the loops of `edge_walk` in one call."""
    outputs = forest.leaf_values.shape[1] if forest.tree_output[0] < 0 else 0
    splits = int(forest.tree_depths().sum())
    return {Turn.TREE: forest.n_trees, Turn.SPLIT: splits, Turn.OUTPUT: outputs * forest.n_trees}


def _lay_out(forest: Forest) -> _Layout:
    splits: list[int] = []
    leaves: list[int] = []
    children: list[tuple[int, int]] = []
    counts = []
    for root in forest.roots[:-1]:
        mine, ends = _preorder(forest, int(root))
        numbers = {node: i for i, node in enumerate(mine)} | {
            node: len(mine) + i for i, node in enumerate(ends)
        }
        children += [(numbers[int(forest.left[n])], numbers[int(forest.right[n])]) for n in mine]
        splits += mine
        leaves += ends
        counts.append(len(mine))
    return _Layout(
        np.array(splits, np.int32),
        np.array(leaves, np.int32),
        np.array(children, np.int64).reshape(-1, 2).astype(np.int32),
        counts,
    )


def _preorder(forest: Forest, root: int) -> tuple[list[int], list[int]]:
    splits, leaves, stack = [], [], [root]
    while stack:
        node = stack.pop()
        if forest.feature[node] < 0:
            leaves.append(node)
        else:
            splits.append(node)
            stack += [int(forest.right[node]), int(forest.left[node])]
    return splits, leaves


def _leaf_table(forest: Forest, layout: _Layout) -> str:
    ctype = "float" if forest.single else "double"
    values = forest.leaf_values[forest.leaf[layout.leaves]].ravel()
    return c_text.array(ctype, "edge_leaves", [c_text.number(v, single=forest.single) for v in values], 4)


def _walk(ranks: Ranks) -> str:
    forest = ranks.forest
    real = "float" if forest.single else "double"
    width = forest.leaf_values.shape[1]
    test = "q[at->slot] > at->rank"
    if ranks.categorical:
        test = "edge_goes_right(at, q)"
    cycle = cycle_of(forest.tree_output)
    if forest.tree_output[0] < 0:
        add = f"for (uint32_t o = 0; o < {width}; o++) {{\n            {turns.c(Turn.OUTPUT)}\n"
        add += f"            sum[o] += leaves[(node - splits) * {width} + o];\n        }}"
        table = ""
    elif cycle:
        add = "sum[0] += leaves[node - splits];"
        if cycle > 1:
            add = "sum[output] += leaves[node - splits];\n"
            add += f"        output = output + 1 == {cycle} ? 0 : output + 1;"
        table = ""
    else:
        add = "sum[edge_outputs[tree]] += leaves[node - splits];"
        table = c_text.array(c_text.unsigned(forest.n_outputs), "edge_outputs", forest.tree_output) + "\n"
    start = [c_text.number(v if forest.base_first else 0.0, single=forest.single) for v in forest.base]
    return f"""\
{table}{_GOES_RIGHT if ranks.categorical else ""}
static void edge_walk(const edge_rank *q, double *raw_scores)
{{
    {real} sum[{forest.n_outputs}] = {{{", ".join(start)}}};
    const edge_node *nodes = edge_nodes;
    const {real} *leaves = edge_leaves;
{"    uint32_t output = 0;" if cycle > 1 else ""}
    for (uint32_t tree = 0; tree < {forest.n_trees}; tree++) {{
        {turns.c(Turn.TREE)}
        uint32_t splits = edge_splits[tree];
        uint32_t node = 0;
        while (node < splits) {{
            {turns.c(Turn.SPLIT)}
            const edge_node *at = nodes + node;
            node = at->child[{test}];
        }}
        {add}
        nodes += splits;
        leaves += (splits + 1) * {width};
    }}
{finish_c(forest)}}}
"""


_GOES_RIGHT = """\
static inline uint32_t edge_goes_right(const edge_node *at, const edge_rank *q)
{
    if (at->slot < EDGE_NUMERIC)
        return q[at->slot] > at->rank;
    uint32_t i = at->slot - (uint32_t)EDGE_NUMERIC;
    const uint8_t *row = edge_category_bits + edge_category_start[i] + q[at->slot] * edge_category_stride[i];
    return !(row[at->rank >> 3] >> (at->rank & 7) & 1);
}
"""


def cycle_of(outputs: Ints) -> int:
    """n where tree t adds to output t mod n (boosters), else 0."""
    n = int(outputs.max()) + 1
    return n if n > 0 and np.array_equal(outputs, np.arange(len(outputs)) % n) else 0


SCALED = """\
/* sum * 2**-shift, exactly; no multiplication, which a core without doubles would need a library for. */
static inline double edge_scaled(int32_t sum, uint32_t shift)
{
#if defined(__ARM_FEATURE_CLZ) && !defined(__aarch64__)
    /* Without the library's conversion too: hidden one up, 31 bits behind it. */
    union { double d; uint32_t u[2]; } value = { .u = { 0, 0 } };
    if (sum) {
        uint32_t size = sum < 0 ? -(uint32_t)sum : (uint32_t)sum;
        uint32_t places = (uint32_t)__builtin_clz(size);
        size <<= places;
        value.u[0] = size << 21;
        value.u[1] = ((uint32_t)sum & 0x80000000u) + ((1053 - shift - places) << 20) + (size >> 11);
    }
#else
    union { double d; uint64_t u; } value = { (double)sum };
    if (sum)
        value.u -= (uint64_t)shift << 52;
#endif
    return value.d;
}
"""


def finish_c(forest: Forest, shift: int = 0) -> str:
    """The lines that turn `sum[]` into raw scores; with a shift, sums are integers (see SCALED)."""
    bases = [c_text.number(b) if not forest.base_first and b else "" for b in forest.base.tolist()]
    return "".join(
        f"    raw_scores[{o}] = {_raw_score(forest, str(o), shift, b)};\n" for o, b in enumerate(bases)
    )


def small_finish_c(forest: Forest, shift: int) -> str:
    """The same in less flash, for sums that are integers: one loop, marked OUTPUT."""
    table = ""
    if late := not forest.base_first and bool(forest.base.any()):
        # None of these sums is -0, which adding 0 would change.
        table = c_text.array("double", "base", map(c_text.number, forest.base.tolist()), 4)
    value = _raw_score(forest, "o", shift, "base[o]" if late else "")
    head = f"for (uint32_t o = 0; o < {forest.n_outputs}; o++) {{\n        {turns.c(Turn.OUTPUT)}"
    return f"{table}    {head}\n        raw_scores[o] = {value};\n    }}\n"


def _raw_score(forest: Forest, output: str, shift: int, base: str) -> str:
    """C of one raw score. base: what is added in the end, if anything."""
    single = forest.single
    value = f"sum[{output}]"
    if shift:
        value = f"edge_scaled({value}, (uint32_t)({shift}))"
    if forest.divisor != 1:
        value = f"{value} / {c_text.number(forest.divisor, single=single)}"
    if base:
        value = f"{'(float)' if single else ''}((double)({value}) + {base})"
    return f"(double)({value})" if single else value
