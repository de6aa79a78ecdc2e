"""Trees as bit vectors: for cores that guess branches badly and do everything else well (x86-64).

A tree's leaves are bits of a word, left to right. A split whose test fails clears the bits of its left subtree;
the first bit that is left when all failed splits have done so is the leaf (Lucchese et al., QuickScorer, SIGIR
2015). Splits of a slot lie in the order of their thresholds, so those that fail are the first so many, and how
many is looked up by the rank: no test is evaluated at all, and the loops branch predictably.

Trees are taken in blocks, so that a block's words stay in the first-level cache.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from compile.emit import c_table, c_text, turns
from compile.emit.turns import Most, Turn
from compile.forest import Forest
from compile.ranks import Ranks

MAX_LEAVES = 64
UNROLLED = 2
"""Splits that fail, or trees that are added, in one turn: marks keep a compiler from unrolling a loop."""
_CLEARED = 64
"""Bytes that are cleared in one turn."""
_LONGEST_CYCLE = 16
"""Outputs that are added to in one turn at most: more would be too much code."""
BLOCK = 512
"""Trees whose words are worked on at a time: 4 KiB at most."""


def fits(ranks: Ranks) -> bool:
    """Whether every tree's leaves fit into a word, and all splits are numeric."""
    return not ranks.categorical and bool(ranks.numeric) and _most_leaves(ranks.forest) <= MAX_LEAVES


def most_turns(ranks: Ranks) -> Most:
    """The most turns of the loops of `edge_walk` in one call."""
    forest = ranks.forest
    block = _block_trees(forest)
    sizes = [min(block, forest.n_trees - first) for first in range(0, forest.n_trees, block)]
    per_clear = _per_clear(_bits(forest))
    outputs = forest.leaf_values.shape[1] if forest.tree_output[0] < 0 else 0
    return {
        Turn.PART: len(sizes),
        Turn.CLEAR: sum(-(-size // per_clear) for size in sizes),
        Turn.SLOT: len(sizes) * len(ranks.numeric),
        Turn.SPLITS: int((forest.feature >= 0).sum()) // UNROLLED,
        Turn.SPLIT: len(sizes) * len(ranks.numeric) * (UNROLLED - 1),
        Turn.TREE: sum(size // _together(forest) for size in sizes),
        Turn.OUTPUT: outputs * forest.n_trees,
    }


def _bits(forest: Forest) -> int:
    """Of a tree's word."""
    return 32 if _most_leaves(forest) <= 32 else 64


def _most_leaves(forest: Forest) -> int:
    before = np.concatenate([[0], np.cumsum(forest.feature < 0)])
    return int((before[forest.roots[1:]] - before[forest.roots[:-1]]).max())


@dataclass(slots=True)
class _Tables:
    """Everything in the order of the blocks."""

    trees: list[int] = field(default_factory=list)  # of each entry, within its block
    masks: list[int] = field(default_factory=list)
    nodes: list[str] = field(
        default_factory=list
    )  # of each entry: its tree and node, as in the forest's dump
    ends: list[int] = field(default_factory=list)  # entries that fail, by block, slot and rank
    first_leaf: list[int] = field(default_factory=list)
    leaves: list[int] = field(default_factory=list)  # node numbers


def bitvector_c(ranks: Ranks) -> str:
    """C source that defines `edge_walk(const edge_rank *q, double *raw_scores)` and its tables."""
    forest = ranks.forest
    bits = _bits(forest)
    tables = _Tables()
    block = _block_trees(forest)
    for start in range(0, forest.n_trees, block):
        _block(ranks, range(start, min(start + block, forest.n_trees)), tables)
    sizes = [len(s.keys) + 1 for s in ranks.numeric] + [0] * len(ranks.categorical)
    at = np.cumsum([0, *sizes])
    full = (1 << bits) - 1
    suffix = "u" if bits == 32 else "ull"
    masks = [f"/* {n} */ {m & full:#x}{suffix}" for n, m in zip(tables.nodes, tables.masks, strict=True)]
    parts = [
        c_text.array("uint16_t", "edge_trees", tables.trees, 24),
        c_text.array(f"uint{bits}_t", "edge_masks", masks, 8),
        c_text.array("uint32_t", "edge_ends", tables.ends, 24),
        c_text.array("uint32_t", "edge_rank_at", at[: len(ranks.numeric)].tolist()),
        c_text.array("uint32_t", "edge_first_leaf", tables.first_leaf),
        _leaves(forest, tables),
        _walk(ranks, bits, int(at[-1])),
    ]
    return "\n".join(parts)


def _block(ranks: Ranks, trees: range, tables: _Tables) -> None:
    entries: list[list[tuple[int, int, int, int]]] = [[] for _ in ranks.numeric]
    for number, tree in enumerate(trees):
        tables.first_leaf.append(len(tables.leaves))
        for node, mask in _masks(ranks, int(ranks.forest.roots[tree]), tables.leaves):
            entries[int(ranks.slot[node])].append((int(ranks.rank[node]), number, mask, node))
    for slot, of_slot in enumerate(entries):
        of_slot.sort()
        first = len(tables.trees)
        tables.trees += [tree for _, tree, _, _ in of_slot]
        tables.masks += [mask for _, _, mask, _ in of_slot]
        roots = ranks.forest.roots
        tables.nodes += [f"t{trees[tree]}n{node - roots[trees[tree]]}" for _, tree, _, node in of_slot]
        keys = np.array([rank for rank, _, _, _ in of_slot], np.int64)
        # A rank above k fails the splits at thresholds 0 .. k.
        counts = np.searchsorted(keys, np.arange(len(ranks.numeric[slot].keys) + 1), "left")
        tables.ends += (first + counts).tolist()


def _masks(ranks: Ranks, root: int, leaves: list[int]) -> list[tuple[int, int]]:
    """Each split with the bits that are left when it fails; appends the tree's leaves in order."""
    forest = ranks.forest
    first = len(leaves)
    found = []
    stack = [(root, False, 0)]
    while stack:
        node, seen, begin = stack.pop()
        if forest.feature[node] < 0:
            leaves.append(node)
        elif not seen:
            stack.append((int(forest.right[node]), False, 0))
            stack.append((node, True, len(leaves) - first))
            stack.append((int(forest.left[node]), False, 0))
        else:
            end = len(leaves) - first
            found.append((node, ~(((1 << (end - begin)) - 1) << begin)))
    return found


def _leaves(forest: Forest, tables: _Tables) -> str:
    values = forest.leaf_values[forest.leaf[np.array(tables.leaves, np.int64)]].ravel()
    ctype = "float" if forest.single else "double"
    return c_text.array(ctype, "edge_leaves", [c_text.number(v, single=forest.single) for v in values], 4)


def _walk(ranks: Ranks, bits: int, stride: int) -> str:
    forest = ranks.forest
    real = "float" if forest.single else "double"
    start = [c_text.number(v if forest.base_first else 0.0, single=forest.single) for v in forest.base]
    block, together, per_clear = _block_trees(forest), _together(forest), _per_clear(bits)
    table = ""
    if forest.tree_output[0] >= 0 and not _cycle(forest):
        table = c_text.array(c_text.unsigned(forest.n_outputs), "edge_outputs", forest.tree_output.tolist())
    fail = "".join(
        f"                left[edge_trees[entry + {k}]] &= edge_masks[entry + {k}];\n"
        for k in range(UNROLLED)
    )
    last = (forest.n_trees - 1) % block + 1
    rest = "".join(_add(forest, k) for k in range(last % together))
    return f"""\
{table}
#define EDGE_LEAF(t) (edge_first_leaf[first + (t)] + (uint32_t)__builtin_ctz{"ll" if bits == 64 else ""}(left[t]))
typedef uint{bits}_t edge_words __attribute__((vector_size({_CLEARED}), may_alias));

static void edge_walk(const edge_rank *q, double *raw_scores)
{{
    {real} sum[{forest.n_outputs}] = {{{", ".join(start)}}};
    uint{bits}_t left[{-(-block // per_clear) * per_clear}] __attribute__((aligned({_CLEARED})));
    const uint32_t *ends = edge_ends;
    for (uint32_t first = 0; first < {forest.n_trees}; first += {block}, ends += {stride}) {{
        {turns.c(Turn.PART)}
        uint32_t trees = {forest.n_trees} - first < {block} ? {forest.n_trees} - first : {block}, t = 0;
        for (; t < trees; t += {per_clear}) {{
            {turns.c(Turn.CLEAR)}
            *(edge_words *)(left + t) = ~(edge_words){{0}};
        }}
        for (uint32_t i = 0; i < EDGE_NUMERIC; i++) {{
            {turns.c(Turn.SLOT)}
            const uint32_t *end = ends + edge_rank_at[i];
            uint32_t entry = end[0], stop = end[q[i]];
            for (; stop - entry >= {UNROLLED}; entry += {UNROLLED}) {{
                {turns.c(Turn.SPLITS)}
{fail}            }}
            for (; entry < stop; entry++) {{
                {turns.c(Turn.SPLIT)}
                left[edge_trees[entry]] &= edge_masks[entry];
            }}
        }}
        for (t = 0; trees - t >= {together}; t += {together}) {{
            {turns.c(Turn.TREE)}
{"".join(_add(forest, k) for k in range(together))}        }}
        if (t < trees) {{
{rest}        }}
    }}
{c_table.finish_c(forest)}}}
"""


def _cycle(forest: Forest) -> int:
    """n where tree t adds to output t mod n and a turn is for n trees or more, else 0."""
    cycle = c_table.cycle_of(forest.tree_output) if forest.tree_output[0] >= 0 else 0
    return cycle if cycle <= _LONGEST_CYCLE else 0


def _together(forest: Forest) -> int:
    """Trees that are added in one turn, as many to each output."""
    cycle = _cycle(forest)
    return cycle * -(-UNROLLED // cycle) if cycle else 1


def _block_trees(forest: Forest) -> int:
    together = _together(forest)
    return min(BLOCK // together * together, forest.n_trees)


def _per_clear(bits: int) -> int:
    return 8 * _CLEARED // bits


def _add(forest: Forest, number: int) -> str:
    """C that adds the leaf of one of a turn's trees."""
    width = forest.leaf_values.shape[1]
    if forest.tree_output[0] < 0:
        return f"""\
            for (uint32_t o = 0; o < {width}; o++) {{
                {turns.c(Turn.OUTPUT)}
                sum[o] += edge_leaves[(uint64_t)EDGE_LEAF(t + {number}) * {width} + o];
            }}
"""
    cycle = _cycle(forest)
    output = str(number % cycle) if cycle else f"edge_outputs[first + t + {number}]"
    return f"            sum[{output}] += edge_leaves[EDGE_LEAF(t + {number})];\n"
