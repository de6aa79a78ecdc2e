"""The first part of the AArch64 code: features to thermometer words, without leaving the assembly.

Buckets of four features are found at once; each column then looks up where its bucket begins among its
thresholds, goes up from there, and turns its rank into words:

    umov w21, v3.s[3]                   bucket, plus the row of the feature in the table
    ldrh w21, [x25, w21, uxtw #1]       where to begin: thresholds of all columns lie in one row
    ldp s16, s17, [x20, #8]             two features
    ldr s2, [x24, x21, lsl #2]          each column's thresholds end with +inf
    fcmp s2, s17
    b.lt .Lstep3f32                     out of line: go up, one by one; or it is NaN
.Lfound3f32:
    ldrb w22, [x27, x21]                how many thresholds of the column's first word lie below
    lsl x7, x26, x22                    the word, into the register it stays in

NaN has words of its own, laid down behind the code. For models that are strange (see `is_plain`), C fills the
words in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.emit import buckets
from compile.emit.words import Column, Words
from compile.ranks import NumericSlot, Ranks

IN_PLACE = 20
"""Words 0 to 19 are made in their registers; x20 to x30 are at work, so further words go by memory."""
REGISTERS = 30
"""Words that are in registers when the trees begin."""
MAX_FEATURES = 1000
"""Their offsets fit into an `add`."""
COMPARE_REACH = 4095
"""The largest rank that `cmp` takes."""
_PAIR_REACH = 64
"""Features that a load of two reaches."""
_LEVELS = ("x27", "x28", "x29")
"""Registers with the tables of shifts: of columns' first words, second words, third words."""


def count_instructions(text: str) -> int:
    """Instructions in assembly lines: those that are neither labels nor directives."""
    lines = (line.strip() for line in text.split("\n"))
    return sum(1 for line in lines if line and not line.endswith(":") and not line.startswith("."))


def is_plain(ranks: Ranks) -> bool:
    """Whether the assembly can make the words: four features or more, thresholds that are floats, zero is a value."""
    return (
        4 <= ranks.forest.n_features <= MAX_FEATURES
        and bool(ranks.numeric)
        and not ranks.categorical
        and all(buckets.has_floats(s) and not s.zero_missing for s in ranks.numeric)
        and sum(len(s.keys) + 1 for s in ranks.numeric) <= 0xFFFF
    )


class WordsWriter:
    """Writes the stage for one model. Offsets in the frame: words_at, of the words; rank_at, of the slots'
    ranks that are stored.
    """

    def __init__(self, ranks: Ranks, words: Words, words_at: int, rank_at: dict[int, int]) -> None:
        self.ranks = ranks
        self.words = words
        self.words_at = words_at
        self.rank_at = rank_at
        self.longest_f32 = 0
        self.columns = words.columns
        self.feature = [ranks.numeric[c.slots[0]].feature for c in self.columns]
        self.of_feature = {feature: number for number, feature in enumerate(self.feature)}
        self.of_column: list[list[int]] = [[] for _ in self.columns]
        for number, word in sorted(enumerate(words.words), key=lambda w: int(w[1].members[0])):
            self.of_column[word.column].append(number)
        # In the row of thresholds those columns come first that have the most words: tables of shifts end early.
        self.row = sorted(range(len(self.columns)), key=lambda c: -len(self.of_column[c]))
        sizes = [len(self.columns[c].keys) + 1 for c in self.row]
        starts = dict(zip(self.row, np.cumsum([0, *sizes]).tolist(), strict=False))
        self.offsets: list[int] = [starts[c] for c in range(len(self.columns))]
        self.merged = [_numeric(ranks, c) for c in self.columns]
        self.count = buckets.bucket_count(self.merged)
        self.column_of = {slot: number for number, c in enumerate(self.columns) for slot in c.slots}

    def compared_rank(self, slot: int, rank: int) -> int:
        """What a slot's stored rank is compared with: a place in the row of all thresholds, if `cmp` reaches it."""
        number = self.column_of[slot]
        column = self.columns[number]
        return int(column.position[column.slots.index(slot)][rank]) + self._base(number)

    def _base(self, number: int) -> int:
        start = self.offsets[number]
        return start if start + len(self.columns[number].keys) <= COMPARE_REACH else 0

    def _fours(self) -> list[int]:
        """Where each four of features begins; the last may overlap the one before."""
        features = self.ranks.forest.n_features
        return [*range(0, features - 3, 4), *([features - 4] if features % 4 else [])]

    def code(self, kind: str) -> Iterator[str]:
        """Instructions; kind f32 or i32. x0 has the features' address; at the end words are in x0 to x29."""
        aside: list[str] = []
        stage = list(self._stage(kind, aside))
        yield from stage
        yield from aside
        if kind == "f32":
            yield "    .ltorg"
            self.longest_f32 = sum(map(count_instructions, stage)) + sum(self._longest_aside())

    def _stage(self, kind: str, aside: list[str]) -> Iterator[str]:
        """What every row executes; appends what lies out of line to `aside`."""
        yield "    mov x20, x0"
        tables = {"x23": "edge_scale", "x24": "edge_limits", "x25": "edge_start"}
        for register, table in tables.items():
            yield from _address(register, f"{table}_{kind}")
        levels = max(map(len, self.of_column), default=0)
        for level in range(min(levels, len(_LEVELS))):
            yield from _address(_LEVELS[level], f"edge_shifts{level}")
        yield "    mov x26, #-1"
        if kind == "i32":
            yield f"    mov w22, #{self.count - 1}\n    dup v7.4s, w22\n    movi v6.4s, #0"
        done = 0
        for at in self._fours():
            yield from self._buckets(kind, at)
            for feature in range(max(at, done), at + 4):
                if feature in self.of_feature:
                    yield from self._column(kind, self.of_feature[feature], feature - at, aside)
            done = at + 4
        in_registers = min(len(self.words.words), REGISTERS)
        for i in range(IN_PLACE, in_registers, 2):
            if i + 1 < in_registers:
                yield f"    ldp x{i}, x{i + 1}, [sp, #{self.words_at + 8 * i}]"
            else:
                yield f"    ldr x{i}, [sp, #{self.words_at + 8 * i}]"
        yield "    b .Ltrees"

    def _buckets(self, kind: str, at: int) -> Iterator[str]:
        """v3 = buckets of features at .. at + 3, plus their rows."""
        if at % 4:
            yield f"    add x22, x20, #{4 * at}\n    ldr q0, [x22]"
        else:
            yield f"    ldr q0, [x20, #{4 * at}]"
        yield "    ld1 {v1.4s, v2.4s, v3.4s}, [x23], #48"
        if kind == "f32":
            # Clamped by the conversion: below zero to 0, above the last bucket to all ones.
            yield "    fsub v0.4s, v0.4s, v1.4s\n    fmul v0.4s, v0.4s, v2.4s\n    fcvtzu v0.4s, v0.4s"
            yield f"    sri v3.4s, v0.4s, #{self._unused_bits()}"
        else:
            yield "    sqsub v0.4s, v0.4s, v1.4s\n    sshl v0.4s, v0.4s, v2.4s"
            yield "    smax v0.4s, v0.4s, v6.4s\n    smin v0.4s, v0.4s, v7.4s\n    add v3.4s, v0.4s, v3.4s"

    def _unused_bits(self) -> int:
        """Bits of a 32-bit number below those of a bucket."""
        return 32 - (self.count - 1).bit_length()

    def _column(self, kind: str, number: int, lane: int, aside: list[str]) -> Iterator[str]:
        feature, here = self.feature[number], f"{number}{kind}"
        yield f"    umov w21, v3.s[{lane}]\n    ldrh w21, [x25, w21, uxtw #1]"
        value, limit, compare = ("s16", "s2", "fcmp") if kind == "f32" else ("w22", "w30", "cmp")
        if kind == "i32" or feature + lane % 2 >= _PAIR_REACH or feature % 2 != lane % 2:
            yield f"    ldr {value}, [x20, #{4 * feature}]"
        elif lane % 2 == 0 and feature + 1 in self.of_feature:
            yield f"    ldp s16, s17, [x20, #{4 * feature}]"
        elif lane % 2 == 0 or feature - 1 not in self.of_feature:
            yield f"    ldr {value}, [x20, #{4 * feature}]"
        else:
            value = "s17"
        search = f"    ldr {limit}, [x24, x21, lsl #2]\n    {compare} {limit}, {value}\n"
        yield f"{search}    b.lt .Lstep{here}\n.Lfound{here}:"
        again = f"    add w21, w21, #1\n{search}"
        if kind == "f32":
            aside.append(
                f".Lstep{here}:\n    b.vs .Lnan{number}\n1:\n{again}    b.mi 1b\n    b .Lfound{here}"
            )
            aside += self._nan(number)
        else:
            aside.append(f".Lstep{here}:\n{again}    b.lt .Lstep{here}\n    b .Lfound{here}")
        yield from self._words(number)
        yield from self._stored_ranks(number)
        if kind == "f32":
            yield f".Ldone{number}:"

    def _words(self, number: int) -> Iterator[str]:
        """The words of a column whose place in the row is in x21."""
        for level, word in enumerate(self.of_column[number]):
            base = "x30"
            if level < len(_LEVELS):
                base = _LEVELS[level]
            else:
                yield from _address("x30", f"edge_shifts{level}")
            yield f"    ldrb w22, [{base}, x21]"
            if word < IN_PLACE:
                yield f"    lsl x{word}, x26, x22"
            else:
                yield f"    lsl x22, x26, x22\n    str x22, [sp, #{self.words_at + 8 * word}]"

    def _stored_ranks(self, number: int) -> Iterator[str]:
        """Store the rank for slots with tests that have no word."""
        offset = self.offsets[number] - self._base(number)
        slots = [s for s in self.columns[number].slots if s in self.rank_at]
        register = "w21" if not offset else "w22"
        if slots and offset & 4095:
            yield f"    sub w22, w21, #{offset & 4095}"
        if slots and offset >> 12:
            yield f"    sub w22, {'w22' if offset & 4095 else 'w21'}, #{offset >> 12}, lsl #12"
        for slot in slots:
            yield f"    strh {register}, [sp, #{self.rank_at[slot]}]"

    def _nan(self, number: int) -> Iterator[str]:
        """The words and ranks of a column whose feature is NaN."""
        yield f".Lnan{number}:"
        for word in self.of_column[number]:
            bits = self.words.words[word].nan_bits(self.ranks)
            register = f"x{word}" if word < IN_PLACE else "x22"
            yield f"    ldr {register}, ={bits:#x}"
            if word >= IN_PLACE:
                yield f"    str x22, [sp, #{self.words_at + 8 * word}]"
        column = self.columns[number]
        for slot in column.slots:
            if slot in self.rank_at:
                rank = column.nan_position(self.ranks, slot) + self._base(number)
                yield f"    mov w22, #{rank}\n    strh w22, [sp, #{self.rank_at[slot]}]"
        yield f"    b .Ldone{number}"

    def _longest_aside(self) -> Iterator[int]:
        """For each column the most instructions out of line: steps up, or what NaN takes."""
        for number, slot in enumerate(self.merged):
            starts = buckets.float_buckets([slot], self.count).starts[0]
            steps = int(np.diff([*starts, len(slot.keys)]).max())
            yield max(2 + 4 * steps, 1 + sum(map(count_instructions, self._nan(number))))

    def tables(self, kinds: Sequence[str]) -> Iterator[str]:
        """The tables that the instructions read."""
        yield '    .section .rodata, "a", %progbits'
        for kind in kinds:
            yield from self._tables_of(kind)
        for level in range(max(map(len, self.of_column), default=0)):
            yield f"edge_shifts{level}:"
            yield from _data(".byte", self._shifts(level), 32)

    def _tables_of(self, kind: str) -> Iterator[str]:
        make: Callable[..., Any] = buckets.float_buckets if kind == "f32" else buckets.integer_buckets
        made = {f: make([self.merged[number]], self.count) for f, number in self.of_feature.items()}
        unit = 2.0 ** self._unused_bits()
        yield f"    .p2align 4\nedge_scale_{kind}:"
        for at in self._fours():
            four = [made.get(at + i) for i in range(4)]
            yield from _data(".word", [0 if m is None else _bits(m.low) for m in four])
            rates = [
                0 if m is None else _bits(m.scale * unit) if kind == "f32" else _bits(-m.shift) for m in four
            ]
            yield from _data(".word", rates)
            yield from _data(".word", [self.of_feature.get(at + i, 0) * self.count for i in range(4)])
        yield f"edge_limits_{kind}:"
        for number in self.row:
            slot = self.merged[number]
            if kind == "f32":
                limits = buckets.thresholds_f32(slot).view(np.uint32).tolist()
                yield from _data(".word", [*limits, 0x7F800000])
            else:
                yield from _data(
                    ".word", [*(int(t) & 0xFFFFFFFF for t in slot.integer_thresholds()), 0x7FFFFFFF]
                )
        starts = [made[f].starts[0] + self.offsets[number] for number, f in enumerate(self.feature)]
        yield f"edge_start_{kind}:"
        yield from _data(".hword", np.concatenate(starts).tolist(), 32)

    def _shifts(self, level: int) -> list[int]:
        """The table of one level, for the columns that have so many words: they come first."""
        found: list[int] = []
        for number in itertools.takewhile(lambda c: level < len(self.of_column[c]), self.row):
            word = self.words.words[self.of_column[number][level]]
            found += word.shifts(len(self.columns[number].keys)).tolist()
        return found


def _numeric(ranks: Ranks, column: Column) -> NumericSlot:
    """A column as if it were one slot."""
    first = ranks.numeric[column.slots[0]]
    return NumericSlot(first.feature, column.keys, 0, first.zero_missing, np.zeros(len(column.keys)))


def _bits(value: float | int) -> int:
    if isinstance(value, int):
        return value & 0xFFFFFFFF
    return int(np.float32(value).view(np.uint32))


def _address(register: str, symbol: str) -> Iterator[str]:
    yield f"    adrp {register}, {symbol}\n    add {register}, {register}, :lo12:{symbol}"


def _data(directive: str, values: Sequence[int] | NDArray[np.int32], per_line: int = 16) -> Iterator[str]:
    for at in range(0, len(values), per_line):
        yield f"    {directive} " + ", ".join(map(str, values[at : at + per_line]))
