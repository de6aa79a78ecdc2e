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

from compile.emit import c_ranks, c_table, c_text
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
    parts.append(c_text.array(word, "edge_splits", stream.words, 24))
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
        + _LEAF
    )


_LEAF = """
static inline int32_t edge_leaf(uint32_t i)
{
    uint32_t bit = i * EDGE_LEAF_BITS;
    const uint8_t *at = edge_leaves + (bit >> 3);
    uint32_t value;
    __builtin_memcpy(&value, at, 4); /* targets are little-endian */
    return (int32_t)(value >> (bit & 7) & ((1u << EDGE_LEAF_BITS) - 1)) + EDGE_LEAF_LOW;
}
"""


def _bits_c(ranks: Ranks, kind: str) -> str:
    """`edge_bits_<kind>`: the row as bits."""
    ctype = "float" if kind == "f32" else "int32_t"
    # The float function always comes first, and brings along what both use.
    text = c_ranks.KEY + _SET if kind == "f32" else ""
    body = ""
    if ranks.numeric:
        text += _runs(ranks, kind)
        body += (
            _SEARCH_BODY.replace("KIND", kind)
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


_SET = """
/* Set the bits from .. to - 1. */
static inline void edge_set(uint32_t *bits, uint32_t from, uint32_t to)
{
    if (from >= to)
        return;
    uint32_t *last = bits + ((to - 1) >> 5);
    uint32_t mask = ~0u << (from & 31);
    for (bits += from >> 5; bits < last; bits++) {
        *bits |= mask;
        mask = ~0u;
    }
    *last |= mask & ~0u >> (-to & 31);
}

"""

_SEARCH_BODY = """\
    for (uint32_t i = 0; i < sizeof edge_slots_KIND / sizeof *edge_slots_KIND; i++) {
        __typeof__(&edge_slots_KIND[0]) s = edge_slots_KIND + i;
        int32_t key = KEY;
        int32_t top = key >> 24;
        uint32_t below = 0, end = 0;
        const int8_t *run = edge_tops_KIND + s->run; /* ends with 127, which only NaN's bits come to */
        while (*run < top)
            run++;
        if (run > edge_tops_KIND + s->run)
            below = edge_ends_KIND[run - edge_tops_KIND - 1];
        end = *run == top ? edge_ends_KIND[run - edge_tops_KIND] : below;
        while (below < end) {
            uint32_t middle = (below + end) >> 1;
            const uint8_t *at = edge_low_KIND + 3 * (s->first + middle);
            uint32_t low;
            __builtin_memcpy(&low, at, 4);
            if ((low & 0xFFFFFFu) < ((uint32_t)key & 0xFFFFFFu))
                below = middle + 1;
            else
                end = middle;
        }
        if (MISSING)
            below = s->missing;
        edge_set(bits, s->first + below, s->first + (uint32_t)s->count);
    }
"""


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
    walk = _WIDE if wide else _NARROW
    text = walk.replace("OUTPUTS", str(forest.n_outputs)).replace("TREES", str(forest.n_trees))
    text = text.replace("BASE", ", ".join(str(int(v)) for v in forest.base)).replace("ADD", add)
    text = text.replace("COUNTER", "    uint32_t output = 0;\n" if cycle and outputs[0] >= 0 else "")
    return table + text.replace("FINISH", c_table.finish_c(forest, quantised.shift))


_NARROW = """\
/* By kind and side: words on in the low half, leaves on in the high half; bit 31 a leaf, bit 30 a skip. */
#define EDGE_LEAF 0x80000000u
#define EDGE_SKIP 0x40000000u
static const uint32_t edge_steps[12] = {
    EDGE_LEAF | 0x10000, EDGE_LEAF, 0x10001, EDGE_LEAF, EDGE_LEAF, 0x10001,
    0x20002, 1, 1, 0x20002, EDGE_SKIP | 1, 2};

static void edge_walk(const uint32_t *bits, double *raw_scores)
{
    int32_t sum[OUTPUTS] = {BASE};
    const uint16_t *at = edge_splits;
    uint32_t first = 0;
COUNTER    for (uint32_t tree = 0; tree < TREES; tree++) {
        uint32_t lengths = edge_lengths[tree];
        uint32_t place = lengths & 0xFF ? 0 : EDGE_LEAF;
        while (!(place & EDGE_LEAF)) {
            uint32_t split = at[place & 0xFFFF];
            uint32_t word = bits[split >> 5 & 0xFF];
            word = word >> (split & 31) | word << (-split & 31); /* a rotation, of which bit 0 is left */
            place += edge_steps[split >> 13 << 1 | (word & 1)];
            if (place & EDGE_SKIP) {
                uint32_t skip = at[place & 0xFFFF];
                place += (skip & 0xFF) + (skip >> 8 << 16) + 1 - EDGE_SKIP;
            }
        }
        uint32_t leaf = first + (place >> 16 & 0x3FFF);
        ADD
        at += lengths & 0xFF;
        first += lengths >> 8;
    }
FINISH}
"""

_WIDE = """\
/* By kind and side: bit 0-1 words on, bit 2-3 leaves on, bit 4 a leaf, bit 5 skip as the next word says. */
static const uint8_t edge_steps[12] = {
    0x14, 0x10, 0x05, 0x10, 0x10, 0x05, 0x0A, 0x01, 0x01, 0x0A, 0x22, 0x03};

static void edge_walk(const uint32_t *bits, double *raw_scores)
{
    int32_t sum[OUTPUTS] = {BASE};
    const uint32_t *splits = edge_splits;
    uint32_t first = 0;
COUNTER    for (uint32_t tree = 0; tree < TREES; tree++) {
        const uint32_t *at = splits;
        uint32_t leaf = first;
        uint32_t step = edge_splits_of[tree] ? 0 : 0x10;
        while (!(step & 0x10)) {
            uint32_t split = *at;
            uint32_t number = split & 0x1FFFFFFF;
            step = edge_steps[split >> 29 << 1 | (bits[number >> 5] >> (number & 31) & 1)];
            if (step & 0x20) {
                leaf += at[2];
                at += at[1];
            }
            at += step & 3;
            leaf += step >> 2 & 3;
        }
        ADD
        splits += edge_splits_of[tree];
        first += edge_leaves_of[tree];
    }
FINISH}
"""
