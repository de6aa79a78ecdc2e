"""Compact trees of few levels, all filled up: no links, a split is 12 bits.

A tree of D levels is 2 bytes of root, then 3 bytes for each pair of siblings, the right one's number in the low
12 bits and the left one's above (see packed.rotated), then its 2**D leaves, packed; the next tree follows. Place 1
is the root; the children of place p are 2p (right) and 2p + 1 (left), at byte 3p - 1. Where a tree ends early, its
leaf is repeated below splits that do not matter.

    add.w r4, r5, r5, lsl #1
    ldr r2, [r1, r4]            the pair
    it cs
    lsrcs r2, r2, #12           the last test's bit is the carry: the left one
    adc.w r5, r5, r5
    ubfx r3, r2, #5, #7
    ldr.w r3, [r0, r3, lsl #2]
    rors r3, r2                 leaves the carry as it is where the lowest byte is 0: no split has such a number
"""

from __future__ import annotations

import numpy as np

from compile.emit import c_compact_text, c_text
from compile.emit.packed import Plan, Walk, filled, rotated

_NUMBERS, _LEVELS = 1 << 12, range(3, 8)
"""Leaves of three levels and more fill whole bytes, whatever their width."""


def is_free(number: int) -> bool:
    """Whether a split may have the number: see above."""
    return rotated(number) & 255 != 0


def size(plan: Plan) -> float:
    """Bytes of the trees; infinite where they do not fit."""
    levels = _levels(plan)
    if levels not in _LEVELS or not plan.is_short or plan.total + plan.total // 128 + 1 > _NUMBERS:
        return float("inf")
    leaves = int(plan.width.sum()) * (1 << levels) // 8
    return leaves + plan.forest.n_trees * _split_bytes(levels)


def _split_bytes(levels: int) -> int:
    return 3 * (1 << levels - 1) - 1


def _levels(plan: Plan) -> int:
    return int(plan.forest.tree_depths().max())


def walk(plan: Plan, *, thumb: bool) -> Walk:
    """The layout's tables and code; thumb: with assembly."""
    levels = _levels(plan)
    data: list[str] = []
    for tree in plan.order:
        made = _tree(plan, tree, levels)
        data += [f"/* tree {tree} */ {made[0]}", *map(str, made[1:])]
    text = plan.parts_c() + c_text.array("uint8_t", "edge_trees", [*data, 0, 0, 0, 0], 32)
    values = {"LEVELS": levels, "BYTES": _split_bytes(levels), "LEAVES": 1 << levels}
    most = plan.most_turns(levels * plan.forest.n_trees)
    if thumb:
        step = "".join(c_compact_text.HEAP_STEP_S for _ in range(levels - 1))
        files = {"walk.S": filled(c_compact_text.HEAP_S, {"STEPS": step, **values})}
        return Walk(text + c_compact_text.HEAP_ASSEMBLED, _CALL, files, len(data), most)
    c = text + filled(c_compact_text.HEAP_C, values)
    return Walk(c, "edge_add_trees(bits, sum)", {}, len(data), most)


def _tree(plan: Plan, tree: int, levels: int) -> list[int]:
    forest = plan.forest
    places = [0, int(forest.roots[tree])]
    for place in range(1, 1 << levels):
        node = places[place]
        is_leaf = plan.number[node] < 0
        places += [node, node] if is_leaf else [int(forest.right[node]), int(forest.left[node])]
    numbers = [rotated(max(int(plan.number[node]), 0)) for node in places[: 1 << levels]]
    splits = [numbers[1] & 255, numbers[1] >> 8]
    for place in range(2, 1 << levels, 2):
        pair = numbers[place] | numbers[place + 1] << 12
        splits += [pair & 255, pair >> 8 & 255, pair >> 16]
    packed = np.packbits(plan.bits(tree, places[1 << levels :]), bitorder="little")
    return splits + [int(v) for v in packed]


_CALL = (
    "edge_add_trees(bits, sum, edge_trees, edge_parts,\n"
    "                   edge_parts + sizeof edge_parts / sizeof *edge_parts)"
)
