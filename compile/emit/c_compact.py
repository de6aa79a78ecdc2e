"""Trees in the least flash: 16 bits a split, leaves of as few bits as the decisions bear, C that walks them.

Every threshold has a number; the row is first turned into a set of bits, whether it goes left at each. A tree
is its splits in preorder, the smaller subtree of each first, and a split is

    bits  0 ..      the threshold's number, its low five bits one up: a rotation by them leaves the bit as the sign
    next bit        whether the first subtree is the right one
    the rest        how many splits the first subtree has, and one; 0 where a halfword behind has how many, and
                    how many halfwords those take

so that a walk which counts what is left of its subtree needs no further links, and ends where nothing is left.
Trees are ordered by output and by the width of their leaves, which lie in the order of the walk, packed, above
their tree's smallest (that is in the base: one leaf of each tree is always added). Thresholds are sorted keys
(see `edge_float_key`), their low three bytes each, and a run for each value of the top byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compile.emit import c_compact_text, c_ranks, c_table, c_text
from compile.emit.columns import MISSING, columns_of
from compile.forest import ZERO_KEY, Forest, Ints
from compile.quantise import Fixed
from compile.ranks import CategorySlot, NumericSlot, Ranks

_SPLIT_BITS, _LEAST_SIZE_BITS = 16, 2
_WIDE_NUMBER_BITS = 24
"""Of a 32-bit split, for models with more thresholds or larger trees."""


@dataclass(frozen=True, slots=True)
class _Column:
    """A numeric feature's thresholds in order. In a mixed one those that send NaN left come before equal ones."""

    slot: NumericSlot
    nan_left: NDArray[np.bool_]
    first: int

    @property
    def mixed(self) -> bool:
        return self.slot.nan_rank == MISSING


@dataclass(frozen=True, slots=True)
class _Bits:
    """What a row is turned into: numbers of all thresholds, then of all sets, a slot's from a whole word on."""

    columns: list[_Column]
    categorical: tuple[CategorySlot, ...]
    number: Ints  # (nodes,), -1 at a leaf
    total: int


def _bits_of(ranks: Ranks) -> _Bits:
    merged = columns_of(ranks).ranks
    forest = ranks.forest
    number = np.full(len(forest.feature), -1, np.int32)
    columns = []
    first = 0
    for i, slot in enumerate(merged.numeric):
        nodes = np.nonzero(merged.slot == i)[0]
        # Twice the key, and one more where NaN goes right, where both kinds are to be told apart.
        code = 2 * forest.threshold_key[nodes].astype(np.int64)
        if slot.nan_rank == MISSING:
            code += ~forest.nan_left[nodes]
        codes, places = np.unique(code, return_inverse=True)
        number[nodes] = first + places
        keys = (codes >> 1).astype(np.int32)
        whole = NumericSlot(slot.feature, keys, slot.nan_rank, slot.zero_missing, np.zeros(len(keys)))
        columns.append(_Column(whole, codes & 1 == 0, first))
        first += len(keys)
    for i, chosen in enumerate(merged.categorical, len(merged.numeric)):
        first = (first + 31) // 32 * 32
        nodes = np.nonzero(merged.slot == i)[0]
        number[nodes] = first + merged.rank[nodes]
        first += chosen.rows.shape[1]
    return _Bits(columns, merged.categorical, number, max(first, 1))


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


def compact(
    ranks: Ranks, quantised: Fixed, kinds: Sequence[str], *, thumb: bool
) -> tuple[str, dict[str, str]]:
    """C source of the model, and assembly for Thumb-2 where that is asked for and fits.

    `ranks` are those of `quantised.integers`.
    """
    forest = ranks.forest
    bits = _bits_of(ranks)
    low, width = _spans(forest)
    order = sorted(range(forest.n_trees), key=lambda t: (int(forest.tree_output[t]), int(width[t])))
    form = _narrow(bits.total)
    stream = None if form is None else _stream(forest, bits.number, order, form)
    if form is None or stream is None or max(map(max, stream.lengths)) > 255:
        form = _WIDE
        stream = _stream(forest, bits.number, order, form)
    parts = [c_compact_text.SMALL, f"enum {{ EDGE_BITS = {bits.total} }};\n"]
    for kind in kinds:
        parts.append(_bits_c(forest, bits, kind))
    parts += [_splits(stream, form), _leaves(forest, stream, low, width), c_table.SCALED]
    thumb = thumb and not form.wide and _is_short(forest) and forest.tree_output[0] >= 0
    parts.append(_walk(forest, quantised.shift, form, low, stream.alike, thumb=thumb))
    for kind in kinds:
        ctype = "float" if kind == "f32" else "int32_t"
        head = "EDGE_SMALL " + (
            "int edge_model_scores" if kind == "f32" else "static __attribute__((unused)) void edge_trees_i32"
        )
        done = "    return 0;\n" if kind == "f32" else ""
        parts.append(
            f"{head}(const {ctype} *features, double *raw_scores)\n{{\n"
            f"    uint32_t bits[(EDGE_BITS + 31) / 32];\n"
            "    for (volatile uint32_t *at = bits; at < bits + (EDGE_BITS + 31) / 32; at++)\n"
            "        *at = 0; /* volatile, or it is a call of memset */\n"
            f"    edge_bits_{kind}(features, bits);\n    edge_walk(bits, raw_scores);\n{done}}}\n"
        )
    return "\n".join(parts), {"walk.S": _walk_s(form, stream.alike)} if thumb else {}


def _walk_s(form: _Format, alike: int | None) -> str:
    values = {
        "BITS": form.number_bits,
        "SPLITS_LEFT": "ldrb r4, [r9], #1           @ splits left" if alike is None else f"movs r4, #{alike}",
        "SPLITS_AGAIN": "ldrb r2, [r9, #-1]" if alike is None else f"movs r2, #{alike}",
    }
    return _filled(c_compact_text.WALK_S, values)


def _filled(text: str, values: Mapping[str, object]) -> str:
    for name, value in values.items():
        text = text.replace(name, str(value))
    return text


def _spans(forest: Forest) -> tuple[Ints, Ints]:
    """The smallest leaf value of each tree, and the bits that its largest takes above that."""
    whole = forest.leaf_values.astype(np.int64)
    lows, widths = [], []
    for tree in range(forest.n_trees):
        leaf = forest.leaf[forest.roots[tree] : forest.roots[tree + 1]]
        values = whole[leaf[leaf >= 0]]
        lows.append(int(values.min()))
        widths.append((int(values.max()) - lows[-1]).bit_length())
    if forest.tree_output[0] < 0:  # all outputs in one sum's loop: one width, and nothing to tell trees by
        low = int(whole.min())
        lows, widths = [low] * len(lows), [(int(whole.max()) - low).bit_length()] * len(lows)
    return np.array(lows, np.int32), np.array(widths, np.int32)


def _stream(forest: Forest, number: Ints, order: Sequence[int], form: _Format) -> _Stream:
    walker = _Walker(forest, number, form)
    made = [walker.tree(int(forest.roots[tree])) for tree in order]
    return _Stream(list(order), [w for w, _ in made], [e for _, e in made])


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
            number = self.number[task]
            number = number & ~31 | number + 1 & 31
            words.append(number | ((not left_first) | size << 1) << self.form.number_bits)
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


def _leaves(forest: Forest, stream: _Stream, low: Ints, width: Ints) -> str:
    """Leaves above their tree's smallest, little end first, and the parts of trees with one output and width."""
    parts: dict[tuple[int, int], int] = {}
    data: list[NDArray[np.bool_]] = []
    for tree, leaves in zip(stream.order, stream.leaves, strict=True):
        bits = int(width[tree])
        key = int(forest.tree_output[tree]), bits
        parts[key] = parts.get(key, 0) + 1
        values = forest.leaf_values[forest.leaf[np.array(leaves, np.int64)]].astype(np.int64).ravel()
        data.append((((values - low[tree])[:, None] >> np.arange(bits)) & 1).astype(bool).ravel())
    packed = np.packbits(np.concatenate(data), bitorder="little").tolist()
    rows = [f"{{{count}, {max(out, 0)}, {bits}}}" for (out, bits), count in parts.items()]
    size = "uint16_t" if _is_short(forest) else "uint32_t"
    members = f"{size} trees; {'uint8_t' if _is_short(forest) else size} output; uint8_t width;"
    return (
        f"static const struct {{ {members} }} edge_parts[{len(rows)}] = {{\n    {', '.join(rows)}}};\n"
        + c_text.array("uint8_t", "edge_leaves", [*packed, 0, 0, 0, 0], 32)
    )


def _is_short(forest: Forest) -> bool:
    return forest.n_trees < 1 << 16 and forest.n_outputs <= 256


def _bits_c(forest: Forest, bits: _Bits, kind: str) -> str:
    """`edge_bits_<kind>`: the row as bits."""
    ctype = "float" if kind == "f32" else "int32_t"
    # The float function always comes first, and brings along what both use.
    text = c_ranks.KEY + c_compact_text.SET if kind == "f32" else ""
    body = ""
    if bits.columns:
        text += _runs(forest, bits.columns, kind)
        mixed = any(c.mixed for c in bits.columns)
        body += (
            c_compact_text.SEARCH_BODY.replace("MIXED", c_compact_text.MIXED if mixed else "")
            .replace("KIND", kind)
            .replace("KEY", "edge_float_key(x[s->feature])" if kind == "f32" else "x[s->feature]")
            .replace("MISSING", _missing(bits.columns, kind))
        )
    at = (sum(len(c.slot.keys) for c in bits.columns) + 31) // 32
    for number, chosen in enumerate(bits.categorical):
        words = (chosen.rows.shape[1] + 31) // 32
        slot = len(bits.columns) + number
        code = c_ranks.code_c(slot, chosen, forest.code_rule, kind)
        code = code.replace(f"q[{slot}] = (edge_rank)", "code = (uint32_t)")
        if kind == "f32":
            text += c_text.array("uint32_t", f"edge_sets{number}", list(_set_words(chosen.rows, words)), 8)
        body += f"    {{\n        uint32_t code;\n{code}"
        body += f"        for (uint32_t w = 0; w < {words}; w++)\n"
        body += f"            bits[{at} + w] = edge_sets{number}[code * {words} + w];\n    }}\n"
        at += words
    return (
        text
        + f"\nEDGE_SMALL static void edge_bits_{kind}(const {ctype} *x, uint32_t *bits)\n{{\n{body or _NOTHING}}}\n"
    )


_NOTHING = "    (void)x;\n    (void)bits;\n"


def _set_words(rows: NDArray[np.bool_], words: int) -> Iterator[str]:
    padded = np.zeros((rows.shape[0], 32 * words), bool)
    padded[:, : rows.shape[1]] = rows
    for row in padded.reshape(-1, 32):
        yield f"{sum(1 << int(i) for i in row.nonzero()[0]):#x}u"


def _missing(columns: Sequence[_Column], kind: str) -> str:
    zero = any(c.slot.zero_missing for c in columns)
    if kind == "i32":
        return "s->zero && !key" if zero else "0"
    return "edge_is_nan(key)" + (f" || (s->zero && key <= {ZERO_KEY} && key >= -{ZERO_KEY})" if zero else "")


def _runs(forest: Forest, columns: Sequence[_Column], kind: str) -> str:
    """Tables of the sorted thresholds: top bytes as runs, low three bytes."""
    tops: list[int] = []
    ends: list[int] = []
    low: list[int] = []
    slots = []
    mixed = any(c.mixed for c in columns)
    zero = any(c.slot.zero_missing for c in columns)
    for column in columns:
        slot = column.slot
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
        flags = ([f"{int(slot.zero_missing)}"] if zero else []) + ([f"{int(column.mixed)}"] if mixed else [])
        members = [slot.feature, len(keys), max(slot.nan_rank, 0), len(tops) - begin, *flags]
        slots.append(f"{{{', '.join(map(str, members))}}}")
    size = c_text.unsigned(max(len(c.slot.keys) for c in columns) or 1)
    feature = c_text.unsigned(forest.n_features)
    struct = f"{feature} feature; {size} count, missing; uint16_t runs;"
    struct = struct if len(tops) > 255 else struct.replace("uint16_t", "uint8_t")
    struct += (" uint8_t zero;" if zero else "") + (" uint8_t mixed;" if mixed else "")
    packed = np.packbits(np.concatenate([c.nan_left for c in columns]), bitorder="little").tolist()
    return (
        c_text.array("int8_t", f"edge_tops_{kind}", tops, 32)
        + c_text.array(size, f"edge_ends_{kind}", ends, 32)
        + c_text.array("uint8_t", f"edge_low_{kind}", [*low, 0], 32)
        + (c_text.array("uint8_t", f"edge_nan_left_{kind}", packed, 32) if mixed else "")
        + f"static const struct {{ {struct} }} edge_slots_{kind}[{len(slots)}] = {{\n    "
        + ",\n    ".join(slots)
        + "};\n"
    )


def _walk(forest: Forest, shift: int, form: _Format, low: Ints, alike: int | None, *, thumb: bool) -> str:
    outputs = forest.leaf_values.shape[1]
    base = forest.base.astype(np.int64)
    if forest.tree_output[0] < 0:
        base += int(low.sum(dtype=np.int64))
        step, total, done = f"width * {outputs}", "", ""
        add = f"for (uint32_t o = 0; o < {outputs}; o++)\n"
        add += "                sum[o] += edge_leaf(leaf + o * width, width);"
    else:
        base += np.bincount(forest.tree_output, low, forest.n_outputs).astype(np.int64)
        step, total, done = "width", "int32_t total = 0;", "sum[edge_parts[part].output] += total;"
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
    finish = {
        "OUTPUTS": forest.n_outputs,
        "BASE": ", ".join(map(str, base)),
        "CALL": _CALL if thumb else "edge_add_trees(bits, sum)",
        "FINISH": c_table.finish_c(forest, shift),
    }
    walk = c_compact_text.ASSEMBLED if thumb else c_compact_text.LEAF + _filled(c_compact_text.WALK_C, values)
    return walk + _filled(c_compact_text.FINISH, finish)


_CALL = (
    "edge_add_trees(bits, sum, edge_splits, edge_lengths, edge_leaves, edge_parts,\n"
    "                   edge_parts + sizeof edge_parts / sizeof *edge_parts)"
)
_LONG = "first = (*next & 0xFF) + 1;\n                    skip = (*next++ >> 8) + 1;"
_LONG_WIDE = "first = next[0] + 1;\n                    skip = next[1] + 1;\n                    next += 2;"
