"""Trees in the least flash: 16 bits a split, leaves of as few bits as the decisions bear, C that walks them.

Every threshold has a number; the row is first turned into a set of bits, whether it goes left at each. A tree
is its splits in preorder, each a threshold's number and a kind that says where its children are, so that only
a split between two larger subtrees needs a further halfword:

    kind 0  two leaves               1  left leaf, then the right subtree    2  right leaf, then the left subtree
         3  left is one split, then right        4  right is one split, then left
         5  a halfword to skip (splits and skips, leaves), left subtree, right subtree

Leaves lie in the order of the walk, packed. Thresholds are sorted keys (see `edge_float_key`), their low three
bytes each, and a run for each value of the top byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from compile.emit import c_compact_text, c_ranks, c_table, c_text
from compile.forest import ZERO_KEY, Ints
from compile.quantise import Fixed
from compile.ranks import Ranks

TWO_LEAVES, LEFT_LEAF, RIGHT_LEAF, LEFT_SPLIT, RIGHT_SPLIT, SKIP = range(6)
NUMBER_BITS = 13
"""Bits of a threshold's number in a 16-bit split; models with more thresholds take 32 bits a split."""


@dataclass(frozen=True, slots=True)
class _Stream:
    """All trees: the words of the splits, the leaves in walking order, and each tree's lengths."""

    words: list[int]
    leaves: list[int]
    lengths: list[tuple[int, int]]


def compact_c(ranks: Ranks, quantised: Fixed, kinds: Sequence[str]) -> str:
    """C source of the model; `ranks` are those of `quantised.integers`."""
    forest = ranks.forest
    numbers = _numbers(ranks)
    total = _bit_count(ranks)
    wide = total > 1 << NUMBER_BITS
    stream = _stream(ranks, numbers, wide)
    wide = wide or any(splits > 255 or leaves > 255 for splits, leaves in stream.lengths)
    if wide:
        stream = _stream(ranks, numbers, True)
    parts = [f"enum {{ EDGE_BITS = {total} }};\n"]
    for kind in kinds:
        parts.append(_bits_c(ranks, kind))
    word = "uint32_t" if wide else "uint16_t"
    splits: list[object] = list(stream.words)
    start = 0
    for tree, (length, _) in enumerate(stream.lengths):
        if length:
            splits[start] = f"/* tree {tree} */ {splits[start]}"
        start += length
    parts.append(c_text.array(word, "edge_splits", splits, 24))
    parts.append(_lengths(stream, wide))
    values = forest.leaf_values[forest.leaf[np.array(stream.leaves, np.int64)]].astype(np.int64)
    parts += [_packed(values.ravel()), c_table.SCALED, _walk(ranks, quantised, wide)]
    for kind in kinds:
        ctype = "float" if kind == "f32" else "int32_t"
        head = (
            "int edge_model_scores" if kind == "f32" else "static __attribute__((unused)) void edge_trees_i32"
        )
        done = "    return 0;\n" if kind == "f32" else ""
        parts.append(
            f"{head}(const {ctype} *features, double *raw_scores)\n{{\n"
            f"    uint32_t bits[(EDGE_BITS + 31) / 32] = {{0}};\n"
            f"    edge_bits_{kind}(features, bits);\n    edge_walk(bits, raw_scores);\n{done}}}\n"
        )
    return "\n".join(parts)


def _bit_count(ranks: Ranks) -> int:
    numeric = sum(len(s.keys) for s in ranks.numeric)
    sets = sum(32 * ((c.rows.shape[1] + 31) // 32) for c in ranks.categorical)
    return max((numeric + 31) // 32 * 32 + sets if sets else numeric, 1)


def _numbers(ranks: Ranks) -> Ints:
    """Each split's number: its place among all thresholds, sets of categorical slots behind, word by word."""
    starts = np.cumsum([0] + [len(s.keys) for s in ranks.numeric])
    first = [int(v) for v in starts[:-1]]
    at = (int(starts[-1]) + 31) // 32 * 32
    for chosen in ranks.categorical:
        first.append(at)
        at += 32 * ((chosen.rows.shape[1] + 31) // 32)
    return np.where(ranks.slot >= 0, np.array([*first, 0])[ranks.slot] + ranks.rank, -1).astype(np.int32)


def _stream(ranks: Ranks, numbers: Ints, wide: bool) -> _Stream:
    walker = _Walker(ranks, numbers, wide)
    lengths = []
    for root in ranks.forest.roots[:-1].tolist():
        before = len(walker.words), len(walker.leaves)
        walker.tree(root)
        lengths.append((len(walker.words) - before[0], len(walker.leaves) - before[1]))
    return _Stream(walker.words, walker.leaves, lengths)


class _Walker:
    def __init__(self, ranks: Ranks, numbers: Ints, wide: bool) -> None:
        forest = ranks.forest
        self.number: list[int] = numbers.tolist()
        self.left: list[int] = forest.left.tolist()
        self.right: list[int] = forest.right.tolist()
        self.words: list[int] = []
        self.leaves: list[int] = []
        self.wide = wide
        self.shift = 29 if wide else NUMBER_BITS

    def tree(self, root: int) -> None:
        """Append a tree. Iterative: a forest's trees can be deeper than Python's stack."""
        # A task is a node to write, or (place of a skip, words and leaves then) to fill in.
        tasks: list[int | tuple[int, int]] = [root]
        while tasks:
            task = tasks.pop()
            if isinstance(task, tuple):
                place, leaves = task
                splits = len(self.words) - place - 1
                skipped = len(self.leaves) - leaves
                if self.wide:
                    self.words[place - 1 : place + 1] = splits + 1, skipped
                else:
                    self.words[place] = splits | skipped << 8
                continue
            if self.number[task] < 0:
                self.leaves.append(task)
                continue
            kind, order = self._kind(task)
            self.words.append(self.number[task] | kind << self.shift)
            if kind == SKIP:
                self.words += [0, 0] if self.wide else [0]
                tasks += [order[1], (len(self.words) - 1, len(self.leaves)), order[0]]
            else:
                tasks += [order[1], order[0]]

    def _kind(self, node: int) -> tuple[int, tuple[int, int]]:
        left, right = self.left[node], self.right[node]
        left_leaf, right_leaf = self.number[left] < 0, self.number[right] < 0
        if left_leaf:
            return (TWO_LEAVES if right_leaf else LEFT_LEAF), (left, right)
        if right_leaf:
            return RIGHT_LEAF, (right, left)
        if self._is_single(left):
            return LEFT_SPLIT, (left, right)
        if self._is_single(right):
            return RIGHT_SPLIT, (right, left)
        return SKIP, (left, right)

    def _is_single(self, node: int) -> bool:
        return self.number[self.left[node]] < 0 and self.number[self.right[node]] < 0


def _lengths(stream: _Stream, wide: bool) -> str:
    if wide:
        splits, leaves = zip(*stream.lengths, strict=True)
        return c_text.array("uint32_t", "edge_splits_of", splits) + c_text.array(
            "uint32_t", "edge_leaves_of", leaves
        )
    return c_text.array(
        "uint16_t", "edge_lengths", [splits | leaves << 8 for splits, leaves in stream.lengths]
    )


def _packed(values: np.ndarray) -> str:  # type: ignore[type-arg]
    """Leaves above the smallest one, in as many bits as the largest takes, little end first."""
    low, high = int(values.min()), int(values.max())
    bits = max((high - low).bit_length(), 1)
    shifts = np.arange(bits)
    flat = ((values[:, None] - low) >> shifts & 1).astype(np.uint8).ravel()
    data = np.packbits(flat, bitorder="little").tolist()
    return (
        f"enum {{ EDGE_LEAF_BITS = {bits}, EDGE_LEAF_LOW = {low} }};\n\n"
        + c_text.array("uint8_t", "edge_leaves", [*data, 0, 0, 0, 0], 32)
        + c_compact_text.LEAF
    )


def _bits_c(ranks: Ranks, kind: str) -> str:
    """`edge_bits_<kind>`: the row as bits."""
    ctype = "float" if kind == "f32" else "int32_t"
    # The float function always comes first, and brings along what both use.
    text = c_ranks.KEY + c_compact_text.SET if kind == "f32" else ""
    body = ""
    if ranks.numeric:
        text += _runs(ranks, kind)
        body += (
            c_compact_text.SEARCH_BODY.replace("KIND", kind)
            .replace("KEY", _key(kind))
            .replace("MISSING", _missing(ranks, kind))
        )
    at = (sum(len(s.keys) for s in ranks.numeric) + 31) // 32
    for number, chosen in enumerate(ranks.categorical):
        words = (chosen.rows.shape[1] + 31) // 32
        slot = len(ranks.numeric) + number
        code = c_ranks.code_c(slot, chosen, ranks.forest.code_rule, kind)
        code = code.replace(f"q[{slot}] = (edge_rank)", "code = (uint32_t)")
        if kind == "f32":
            text += c_text.array("uint32_t", f"edge_sets{number}", list(_set_words(chosen.rows, words)), 8)
        body += f"    {{\n        uint32_t code;\n{code}"
        body += f"        for (uint32_t w = 0; w < {words}; w++)\n"
        body += f"            bits[{at} + w] = edge_sets{number}[code * {words} + w];\n    }}\n"
        at += words
    return (
        text + f"\nstatic void edge_bits_{kind}(const {ctype} *x, uint32_t *bits)\n{{\n{body or _NOTHING}}}\n"
    )


_NOTHING = "    (void)x;\n    (void)bits;\n"


def _set_words(rows: np.ndarray, words: int) -> Iterator[str]:  # type: ignore[type-arg]
    padded = np.zeros((rows.shape[0], 32 * words), bool)
    padded[:, : rows.shape[1]] = rows
    for row in padded.reshape(-1, 32):
        yield f"{sum(1 << int(i) for i in row.nonzero()[0]):#x}u"


def _key(kind: str) -> str:
    return "edge_float_key(x[s->feature])" if kind == "f32" else "x[s->feature]"


def _missing(ranks: Ranks, kind: str) -> str:
    zero = any(s.zero_missing for s in ranks.numeric)
    if kind == "i32":
        return "s->zero && !key" if zero else "0"
    return "edge_is_nan(key)" + (f" || (s->zero && key <= {ZERO_KEY} && key >= -{ZERO_KEY})" if zero else "")


def _runs(ranks: Ranks, kind: str) -> str:
    """Tables of the sorted thresholds: top bytes as runs, low three bytes."""
    tops: list[int] = []
    ends: list[int] = []
    low: list[int] = []
    slots = []
    first = 0
    for slot in ranks.numeric:
        keys = (slot.keys if kind == "f32" else slot.integer_thresholds()).astype(np.int64)
        begin = len(tops)
        for top in np.unique(keys >> 24):
            tops.append(int(top))
            ends.append(int((keys >> 24 <= top).sum()))
        for key in keys:
            value = int(key) & 0xFFFFFF
            low += [value & 255, value >> 8 & 255, value >> 16]
        tops.append(127)
        ends.append(len(keys))
        zero = int(slot.zero_missing)
        slots.append(f"{{{first}, {begin}, {slot.feature}, {len(keys)}, {slot.nan_rank}, {zero}}}")
        first += len(keys)
    size = c_text.unsigned(max(len(s.keys) for s in ranks.numeric))
    where = c_text.unsigned(max(first, len(tops)))
    feature = c_text.unsigned(ranks.forest.n_features)
    struct = f"{where} first, run; {feature} feature; {size} count, missing; uint8_t zero;"
    return (
        c_text.array("int8_t", f"edge_tops_{kind}", tops, 32)
        + c_text.array(size, f"edge_ends_{kind}", ends, 32)
        + c_text.array("uint8_t", f"edge_low_{kind}", [*low, 0], 32)
        + f"static const struct {{ {struct} }} edge_slots_{kind}[{len(slots)}] = {{\n    "
        + ",\n    ".join(slots)
        + "};\n"
    )


def _walk(ranks: Ranks, quantised: Fixed, wide: bool) -> str:
    forest = ranks.forest
    width = forest.leaf_values.shape[1]
    outputs = forest.tree_output
    cycle = c_table.cycle_of(outputs)
    table = ""
    if outputs[0] < 0:
        add = f"for (uint32_t o = 0; o < {width}; o++)\n            sum[o] += edge_leaf(leaf * {width} + o);"
    elif cycle:
        add = f"sum[output] += edge_leaf(leaf);\n        output = output + 1 == {cycle} ? 0 : output + 1;"
    else:
        add = "sum[edge_outputs[tree]] += edge_leaf(leaf);"
        table = c_text.array(c_text.unsigned(forest.n_outputs), "edge_outputs", outputs.tolist())
    walk = c_compact_text.WIDE if wide else c_compact_text.NARROW
    text = walk.replace("OUTPUTS", str(forest.n_outputs)).replace("TREES", str(forest.n_trees))
    text = text.replace("BASE", ", ".join(str(int(v)) for v in forest.base)).replace("ADD", add)
    text = text.replace("COUNTER", "    uint32_t output = 0;\n" if cycle and outputs[0] >= 0 else "")
    return table + text.replace("FINISH", c_table.finish_c(forest, quantised.shift))
