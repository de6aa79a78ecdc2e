"""Compact trees as their splits in preorder, the smaller subtree of each first. A split is

    bits  0 ..      the threshold's number (see packed.rotated)
    next bit        whether the first subtree is the right one
    the rest        how many splits the first subtree has, and one; 0 where a halfword behind has how many, and
                    how many halfwords those take

so that a walk which counts what is left of its subtree needs no further links, and ends where nothing is left.
Leaves lie in the order of the walk, packed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compile.emit import c_compact_text, c_text, turns
from compile.emit.packed import Plan, Walk, filled, rotated
from compile.emit.turns import Turn
from compile.forest import Forest, Ints

_SPLIT_BITS, _LEAST_SIZE_BITS = 16, 2
_WIDE_NUMBER_BITS = 24
"""Of a 32-bit split, for models with more thresholds or larger trees."""


@dataclass(frozen=True, slots=True)
class _Format:
    """How a split is laid out: its C type, the bits of a number, and the most splits that its size can say."""

    ctype: str
    number_bits: int
    largest: int

    @property
    def wide(self) -> bool:
        return self.ctype == "uint32_t"


def _narrow(total: int) -> _Format | None:
    bits = max((total - 1).bit_length(), 6)
    size_bits = _SPLIT_BITS - 1 - bits
    return _Format("uint16_t", bits, (1 << size_bits) - 2) if size_bits >= _LEAST_SIZE_BITS else None


_WIDE = _Format("uint32_t", _WIDE_NUMBER_BITS, (1 << 31 - _WIDE_NUMBER_BITS) - 2)


@dataclass(frozen=True, slots=True)
class _Stream:
    """Trees in their order: the words of the splits, each tree's leaves in walking order, splits and words."""

    order: list[int]
    words: list[list[int]]
    leaves: list[list[int]]

    @property
    def alike(self) -> int | None:
        """The splits of a tree, where all have as many."""
        sizes = {len(e) for e in self.leaves}
        return sizes.pop() - 1 if len(sizes) == 1 else None

    @property
    def lengths(self) -> list[tuple[int, int]]:
        """Splits and words of each tree."""
        return [(len(e) - 1, len(w)) for w, e in zip(self.words, self.leaves, strict=True)]


def walk(plan: Plan, *, thumb: bool) -> Walk:
    """The layout's tables and code; thumb: with assembly, where it fits."""
    form = _narrow(plan.total)
    stream = None if form is None else _stream(plan, form)
    if form is None or stream is None or max(map(max, stream.lengths)) > 255:
        form = _WIDE
        stream = _stream(plan, form)
    leaves = np.concatenate([plan.bits(t, e) for t, e in zip(stream.order, stream.leaves, strict=True)])
    packed = np.packbits(leaves, bitorder="little").tolist()
    text = _splits(stream, form) + plan.parts_c()
    text += c_text.array("uint8_t", "edge_leaves", [*packed, 0, 0, 0, 0], 32)
    size = sum(map(len, stream.words)) * (4 if form.wide else 2) + len(packed) + len(stream.order)
    most = plan.most_turns(int(plan.forest.tree_depths().sum()))
    if thumb and plan.is_short and not form.wide:
        files = {"walk.S": _walk_s(form, stream.alike)}
        return Walk(text + c_compact_text.ASSEMBLED, _CALL, files, size, most)
    return Walk(text + _walk_c(plan, form, stream.alike), "edge_add_trees(bits, sum)", {}, size, most)


def _walk_s(form: _Format, alike: int | None) -> str:
    values = {
        "BITS": form.number_bits,
        "SPLITS_LEFT": "ldrb r4, [r9], #1           @ splits left" if alike is None else f"movs r4, #{alike}",
        "SPLITS_AGAIN": "ldrb r2, [r9, #-1]" if alike is None else f"movs r2, #{alike}",
    }
    return filled(c_compact_text.WALK_S, values)


def _stream(plan: Plan, form: _Format) -> _Stream:
    walker = _Walker(plan.forest, plan.number, form)
    made = [walker.tree(int(plan.forest.roots[tree])) for tree in plan.order]
    return _Stream(plan.order, [w for w, _ in made], [e for _, e in made])


class _Walker:
    def __init__(self, forest: Forest, number: Ints, form: _Format) -> None:
        self.number: list[int] = number.tolist()
        self.left: list[int] = forest.left.tolist()
        self.right: list[int] = forest.right.tolist()
        self.form = form
        self.splits = [int(n >= 0) for n in self.number]
        for node in range(len(self.number) - 1, -1, -1):  # children come after their parents
            if self.splits[node]:
                self.splits[node] += self.splits[self.left[node]] + self.splits[self.right[node]]

    def tree(self, root: int) -> tuple[list[int], list[int]]:
        """A tree's words, and its leaves. Iterative: a forest's trees can be deeper than Python's stack."""
        words: list[int] = []
        leaves: list[int] = []
        # A task is a node to write, or (place of a count, where its words began) to fill in.
        tasks: list[int | tuple[int, int]] = [root]
        while tasks:
            task = tasks.pop()
            if isinstance(task, tuple):
                place, began = task
                self._count(words, place, len(words) - began)
                continue
            if self.number[task] < 0:
                leaves.append(task)
                continue
            first, second = self.left[task], self.right[task]
            left_first = self.splits[first] <= self.splits[second]
            if not left_first:
                first, second = second, first
            long = self.splits[first] > self.form.largest
            size = 0 if long else self.splits[first] + 1
            words.append(rotated(self.number[task]) | ((not left_first) | size << 1) << self.form.number_bits)
            tasks.append(second)
            if long:
                place = len(words)
                words += [self.splits[first], 0] if self.form.wide else [self.splits[first]]
                tasks.append((place, len(words)))
            tasks.append(first)
        return words, leaves

    def _count(self, words: list[int], place: int, used: int) -> None:
        if self.form.wide:
            words[place + 1] = used
        else:
            words[place] |= used << 8


def _splits(stream: _Stream, form: _Format) -> str:
    texts: list[str] = []
    for tree, words in zip(stream.order, stream.words, strict=True):
        texts += [f"/* tree {tree} */ {words[0]}", *map(str, words[1:])] if words else []
    alike = stream.alike
    lengths = [v for pair in stream.lengths for v in (pair if alike is None else pair[1:])]
    kind = "uint32_t" if form.wide else "uint8_t"
    return c_text.array(form.ctype, "edge_splits", texts, 24) + c_text.array(kind, "edge_lengths", lengths)


def _walk_c(plan: Plan, form: _Format, alike: int | None) -> str:
    outputs = plan.forest.leaf_values.shape[1]
    if plan.forest.tree_output[0] < 0:
        step, total, done = f"width * {outputs}", "", ""
        add = f"for (uint32_t o = 0; o < {outputs}; o++) {{\n                {turns.c(Turn.OUTPUT)}\n"
        add += "                sum[o] += edge_leaf(leaf + o * width, width);\n            }"
    else:
        step, total, done = "width", "int32_t total = 0;", c_compact_text.ADD_PART
        add = "total += edge_leaf(leaf, width);"
    values = {
        "SPLITS": "*length++" if alike is None else alike,
        "SPLIT": form.ctype,
        "LENGTH": "uint32_t" if form.wide else "uint8_t",
        "NUMBER": f"{(1 << form.number_bits) - 1:#x}",
        "BITS": form.number_bits,
        "LONG": _LONG_WIDE if form.wide else _LONG,
        "STEP": step,
        "TOTAL": total,
        "ADD": add,
        "DONE": done,
    }
    return c_compact_text.LEAF + filled(c_compact_text.WALK_C, values)


_CALL = (
    "edge_add_trees(bits, sum, edge_splits, edge_lengths, edge_leaves, edge_parts,\n"
    "                   edge_parts + sizeof edge_parts / sizeof *edge_parts)"
)
_LONG = "first = (*next & 0xFF) + 1;\n                    skip = (*next++ >> 8) + 1;"
_LONG_WIDE = "first = next[0] + 1;\n                    skip = next[1] + 1;\n                    next += 2;"
