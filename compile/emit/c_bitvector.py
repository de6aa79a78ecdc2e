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

from compile.emit import c_table, c_text
from compile.forest import Forest
from compile.ranks import Ranks

MAX_LEAVES = 64
BLOCK = 512
"""Trees whose words are worked on at a time: 4 KiB at most."""


def fits(ranks: Ranks) -> bool:
    """Whether every tree's leaves fit into a word, and all splits are numeric."""
    return not ranks.categorical and bool(ranks.numeric) and _most_leaves(ranks.forest) <= MAX_LEAVES


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
    bits = 32 if _most_leaves(forest) <= 32 else 64
    tables = _Tables()
    for start in range(0, forest.n_trees, BLOCK):
        _block(ranks, range(start, min(start + BLOCK, forest.n_trees)), tables)
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
    width = forest.leaf_values.shape[1]
    outputs = forest.tree_output
    cycle = c_table.cycle_of(outputs)
    table, start = (
        "",
        [c_text.number(v if forest.base_first else 0.0, single=forest.single) for v in forest.base],
    )
    leaf = "edge_first_leaf[first + t] + EDGE_FIRST_BIT(left[t])"
    if outputs[0] < 0:
        add = f"""const {real} *leaf = edge_leaves + (size_t)({leaf}) * {width};
            for (uint32_t o = 0; o < {width}; o++)
                sum[o] += leaf[o];"""
    elif cycle:
        add = f"sum[output] += edge_leaves[{leaf}];\n            output = output + 1 == {cycle} ? 0 : output + 1;"
    else:
        add = f"sum[edge_outputs[first + t]] += edge_leaves[{leaf}];"
        table = c_text.array(c_text.unsigned(forest.n_outputs), "edge_outputs", outputs.tolist())
    builtin = "__builtin_ctz" if bits == 32 else "__builtin_ctzll"
    return f"""\
{table}#include <stddef.h>
#define EDGE_FIRST_BIT(word) ((uint32_t){builtin}(word))

static void edge_walk(const edge_rank *q, double *raw_scores)
{{
    {real} sum[{forest.n_outputs}] = {{{", ".join(start)}}};
    uint{bits}_t left[{min(BLOCK, forest.n_trees)}];
    const uint32_t *ends = edge_ends;
{"    uint32_t output = 0;" if cycle and outputs[0] >= 0 else ""}
    for (uint32_t first = 0; first < {forest.n_trees}; first += {BLOCK}, ends += {stride}) {{
        uint32_t trees = {forest.n_trees} - first < {BLOCK} ? {forest.n_trees} - first : {BLOCK};
        for (uint32_t t = 0; t < trees; t++)
            left[t] = ~(uint{bits}_t)0;
        for (uint32_t i = 0; i < EDGE_NUMERIC; i++) {{
            const uint32_t *end = ends + edge_rank_at[i];
            for (uint32_t entry = end[0], stop = end[q[i]]; entry < stop; entry++)
                left[edge_trees[entry]] &= edge_masks[entry];
        }}
        for (uint32_t t = 0; t < trees; t++) {{
            {add}
        }}
    }}
{c_table.finish_c(forest)}}}
"""
