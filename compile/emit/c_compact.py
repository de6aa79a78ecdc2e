"""Trees in the least flash: numbered thresholds, leaves of as few bits as the decisions bear, a small walk.

Every threshold has a number; the row is first turned into a set of bits, whether it goes left at each. What the
splits look like is the layout's: c_preorder for any trees, c_heap for those of few and equal levels, whichever
takes less. Thresholds are sorted keys (see `edge_float_key`): a run for each value of the top byte, and of each key
the three bytes below, less those that are zero in all of a slot's. Of x <= t and x + 1 <= t + 1 the one with more
such zeros is asked: thresholds of x < t, which are one below a float of few bits, have them in t + 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compile.emit import c_compact_text, c_heap, c_preorder, c_ranks, c_table, c_text, turns
from compile.emit.columns import MISSING, columns_of
from compile.emit.packed import filled, plan
from compile.emit.turns import Most, Turn
from compile.forest import ZERO_KEY, Forest, Ints
from compile.quantise import Fixed
from compile.ranks import CategorySlot, NumericSlot, Ranks


@dataclass(frozen=True, slots=True)
class _Column:
    """A numeric feature's thresholds in order. In a mixed one those that send NaN left come before equal ones."""

    slot: NumericSlot
    nan_left: NDArray[np.bool_]
    first: int

    @property
    def mixed(self) -> bool:
        return self.slot.nan_rank == MISSING


def _numbers(first: int, count: int, is_free: Callable[[int], bool]) -> list[int]:
    numbers: list[int] = []
    while len(numbers) < count:
        if is_free(first):
            numbers.append(first)
        first += 1
    return numbers


@dataclass(frozen=True, slots=True)
class _Bits:
    """What a row is turned into: numbers of all thresholds, then of all sets, a slot's from a whole word on."""

    columns: list[_Column]
    categorical: tuple[CategorySlot, ...]
    number: Ints  # (nodes,), -1 at a leaf
    total: int
    raised: int  # what is added to float32 features and their thresholds


def _bits_of(ranks: Ranks, is_free: Callable[[int], bool] = lambda _number: True) -> _Bits:
    """Numbers for a forest's thresholds. One that is not free to be a split's goes to a copy of a threshold."""
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
        taken = np.array(_numbers(first, len(codes), is_free), np.int32)
        number[nodes] = taken[places]
        original = np.searchsorted(taken, np.arange(first, taken[-1] + 1))
        codes = codes[original]
        keys = (codes >> 1).astype(np.int32)
        nan_rank = slot.nan_rank if slot.nan_rank == MISSING else int((original < slot.nan_rank).sum())
        whole = NumericSlot(slot.feature, keys, nan_rank, slot.zero_missing, np.zeros(len(keys)))
        columns.append(_Column(whole, codes & 1 == 0, first))
        first += len(keys)
    for i, chosen in enumerate(merged.categorical, len(merged.numeric)):
        first = (first + 31) // 32 * 32
        nodes = np.nonzero(merged.slot == i)[0]
        number[nodes] = first + merged.rank[nodes]
        first += chosen.rows.shape[1]
    sizes = [sum(_low_bytes(k) * len(k) for c in columns for k in _keys(c.slot, r)[:1]) for r in (0, 1)]
    return _Bits(columns, merged.categorical, number, max(first, 1), int(sizes[1] < sizes[0]))


def compact(
    ranks: Ranks, quantised: Fixed, kinds: Sequence[str], *, thumb: bool
) -> tuple[str, dict[str, str], Most]:
    """C source of the model, assembly for Thumb-2 where that is asked for and fits, the most turns of their loops.

    `ranks` are those of `quantised.integers`.
    """
    forest = ranks.forest
    bits = _bits_of(ranks)
    planned = plan(forest, quantised.step, bits.number, bits.total)
    walk = c_preorder.walk(planned, thumb=thumb)
    if c_heap.size(planned) < walk.size:
        bits = _bits_of(ranks, c_heap.is_free)
        planned = plan(forest, quantised.step, bits.number, bits.total)
        walk = c_heap.walk(planned, thumb=thumb)
    finish = {
        "OUTPUTS": forest.n_outputs,
        "BASE": ", ".join(map(str, planned.base)),
        "CALL": walk.call,
        "FINISH": c_table.small_finish_c(forest, quantised.shift),
    }
    parts = [c_compact_text.SMALL, f"enum {{ EDGE_BITS = {bits.total} }};\n"]
    parts += [_bits_c(forest, bits, kind) for kind in kinds]
    parts += [walk.c, c_table.SCALED, filled(c_compact_text.FINISH, finish)]
    parts += [filled(c_compact_text.ENTRIES[kind], {"KIND": kind}) for kind in kinds]
    return "\n".join(parts), walk.files, turns.together(_most_turns(bits, forest.n_outputs), walk.turns)


def _most_turns(bits: _Bits, outputs: int) -> Most:
    """The most turns in one call of the loops around the walk."""
    most = dict.fromkeys((Turn.RUN, Turn.HALVING, Turn.WORD, Turn.MISSING), 0)
    most |= {Turn.CLEAR: (bits.total + 31) // 32, Turn.SLOT: len(bits.columns), Turn.OUTPUT: outputs}
    for column in bits.columns:
        count = len(column.slot.keys)
        runs = [np.unique(k >> 24, return_counts=True)[1] for k in _keys(column.slot, bits.raised)]
        most[Turn.RUN] += max(map(len, runs))
        most[Turn.HALVING] += max(int(r.max()).bit_length() for r in runs)
        most[Turn.WORD] += (column.first + count - 1 >> 5) - (column.first >> 5)
        most[Turn.MISSING] += count * column.mixed
    most[Turn.WORD] += sum((chosen.rows.shape[1] + 31) // 32 for chosen in bits.categorical)
    return most


def _keys(slot: NumericSlot, raised: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The thresholds for float32 features, and for integer ones."""
    return slot.keys.astype(np.int64) + raised, slot.integer_thresholds().astype(np.int64)


def _low_bytes(keys: NDArray[np.int64]) -> int:
    """How many of the three bytes below the top one are stored: those above zeros that all keys end in."""
    return 1 + next((i for i in (2, 1) if (keys >> 8 * (2 - i) & 0xFF).any()), 0)


def _bits_c(forest: Forest, bits: _Bits, kind: str) -> str:
    """`edge_bits_<kind>`: the row as bits."""
    ctype = "float" if kind == "f32" else "int32_t"
    # The float function always comes first, and brings along what both use.
    text = c_ranks.KEY + c_compact_text.SET if kind == "f32" else ""
    body = ""
    if bits.columns:
        tables, feature, stride = _runs(forest, bits, kind)
        text += tables
        mixed = any(c.mixed for c in bits.columns)
        body += (
            c_compact_text.SEARCH_BODY.replace("MIXED", c_compact_text.MIXED if mixed else "")
            .replace("KIND", kind)
            .replace("KEY", f"edge_float_key(x[{feature}])" if kind == "f32" else f"x[{feature}]")
            .replace("SOUGHT", "(int32_t)((uint32_t)key + 1)" if bits.raised and kind == "f32" else "key")
            .replace("STRIDE", stride)
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
        body += f"        for (uint32_t w = 0; w < {words}; w++) {{\n            {turns.c(Turn.WORD)}\n"
        body += f"            bits[{at} + w] = edge_sets{number}[code * {words} + w];\n        }}\n    }}\n"
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


def _runs(forest: Forest, bits: _Bits, kind: str) -> tuple[str, str, str]:
    """Tables of the sorted thresholds: top bytes as runs, low bytes; C of a slot's feature and its low bytes."""
    columns = bits.columns
    tops: list[int] = []
    ends: list[int] = []
    low: list[int] = []
    all_keys = [_keys(c.slot, bits.raised)[kind != "f32"] for c in columns]
    first_runs = []
    for keys in all_keys:
        first_runs.append(len(tops))
        for top in np.unique(keys >> 24):
            tops.append(int(top))
            ends.append(int((keys >> 24 <= top).sum()))
        for key in keys.tolist():
            low += [key >> shift & 255 for shift in (0, 8, 16)[3 - _low_bytes(keys) :]]
        tops.append(127)
        ends.append(len(keys))
    size = c_text.unsigned(max(len(c.slot.keys) for c in columns) or 1)
    runs = np.diff([*first_runs, len(tops)]).tolist()
    strides = [_low_bytes(keys) for keys in all_keys]
    members = {
        f"{c_text.unsigned(forest.n_features)} feature": [c.slot.feature for c in columns],
        f"{size} count": [len(c.slot.keys) for c in columns],
        f"{size} missing": [max(c.slot.nan_rank, 0) for c in columns],
        f"{c_text.unsigned(len(tops))} runs": runs,
        "uint8_t zero": [int(c.slot.zero_missing) for c in columns],
        "uint8_t mixed": [int(c.mixed) for c in columns],
        "uint8_t bytes": strides,
    }
    feature, *_, zero, mixed, stride = members
    is_feature = members[feature] != list(range(len(columns)))
    kept = {
        feature: is_feature,
        zero: any(members[zero]),
        mixed: any(members[mixed]),
        stride: min(strides) < 3,
    }
    members = {name: values for name, values in members.items() if kept.get(name, True)}
    packed = np.packbits(np.concatenate([c.nan_left for c in columns]), bitorder="little").tolist()
    slots = (f"{{{', '.join(map(str, row))}}}" for row in zip(*members.values(), strict=True))
    tables = (
        c_text.array("int8_t", f"edge_tops_{kind}", tops, 32)
        + c_text.array(size, f"edge_ends_{kind}", ends, 32)
        + c_text.array("uint8_t", f"edge_low_{kind}", [*low, 0, 0, 0], 32)
        + (c_text.array("uint8_t", f"edge_nan_left_{kind}", packed, 32) if kept[mixed] else "")
        + f"static const struct {{ {'; '.join(members)}; }} edge_slots_{kind}[{len(columns)}] = {{\n    "
        + ",\n    ".join(slots)
        + "};\n"
    )
    return tables, "s->feature" if is_feature else "i", "s->bytes" if kept[stride] else "3"
