"""The first part of the AArch64 code: features to thermometer words, without leaving the assembly.

Buckets of four features are found at once; each slot then looks up where its bucket begins among its
thresholds, goes up from there, and turns its rank into words:

    umov w21, v0.s[3]                   bucket, plus the row of the feature's first slot in the table
    ldrh w21, [x25, w21, uxtw #1]       where to begin: thresholds of all slots lie in one row
    ldr s1, [x20, #12]
    ldr s2, [x24, x21, lsl #2]          each slot's thresholds end with +inf
    fcmp s2, s1
    b.mi .Lstep3                        out of line: go up, one by one
.Lfound3:
    ldrb w22, [x27, x21]                how many thresholds of the slot's first word lie below
    lsl x7, x26, x22                    the word, into the register it stays in

A row with a NaN is copied, with a value of the rank that NaN has in its place, and begun again. Where no value
has that rank, and for models that are strange (see `is_plain`), C fills the words in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.emit import buckets
from compile.emit.words import Words
from compile.forest import INF_KEY, key_to_float
from compile.ranks import Ranks


def count_instructions(text: str) -> int:
    """Instructions in assembly lines: those that are neither labels nor directives."""
    lines = (line.strip() for line in text.split("\n"))
    return sum(1 for line in lines if line and not line.endswith(":") and not line.startswith("."))


def rank_base(ranks: Ranks, slot: int) -> int:
    """What a slot's stored rank has on top: its place in the row of all thresholds, where `cmp` reaches it."""
    if not is_plain(ranks):
        return 0
    start = sum(len(s.keys) + 1 for s in ranks.numeric[:slot])
    return start if start + len(ranks.numeric[slot].keys) <= COMPARE_REACH else 0


def stand_ins(ranks: Ranks) -> list[float] | None:
    """For each feature a value that has the rank of NaN in all of its slots; None where one has none."""
    found = [0.0] * ranks.forest.n_features
    for feature in {s.feature for s in ranks.numeric}:
        slots = [s for s in ranks.numeric if s.feature == feature]
        keys = [int(s.keys[s.nan_rank]) if s.nan_rank < len(s.keys) else INF_KEY for s in slots]
        key = min(keys)
        if any(int(np.searchsorted(s.keys, key)) != s.nan_rank for s in slots):
            return None
        found[feature] = key_to_float(key)
    return found


IN_PLACE = 20
"""Words 0 to 19 are made in their registers; x20 to x30 are at work, so further words go by memory."""
MAX_FEATURES = 1000
"""Their offsets fit into an `add`."""
COMPARE_REACH = 4095
"""The largest rank that `cmp` takes."""
_LEVELS = ("x27", "x28", "x29")
"""Registers with the tables of shifts: of slots' first words, second words, third words."""


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
    """Writes the stage for one model. Offsets in the frame: words_at, of the words; rank_at, of the
    ranks that are stored; copy_at, of room for a copy of the features.
    """

    def __init__(
        self, ranks: Ranks, words: Words, words_at: int, rank_at: dict[int, int], copy_at: int
    ) -> None:
        self.ranks = ranks
        self.words = words
        self.words_at = words_at
        self.rank_at = rank_at
        self.copy_at = copy_at
        self.stand_ins = stand_ins(ranks)
        self.longest_f32 = 0
        self.offsets = np.cumsum([0] + [len(s.keys) + 1 for s in ranks.numeric]).tolist()
        self.count = buckets.bucket_count(ranks.numeric)
        self.by_feature: dict[int, list[int]] = {}
        for i, slot in enumerate(ranks.numeric):
            self.by_feature.setdefault(slot.feature, []).append(i)
        self.most_steps = self._most_steps()
        # Rows of the table of starts: a feature's first slot in its own row, further slots behind all of these.
        more = count(ranks.forest.n_features)
        self.row = {
            i: feature if i == slots[0] else next(more)
            for feature, slots in self.by_feature.items()
            for i in slots
        }
        self.of_slot: dict[int, list[int]] = {}
        for number, word in sorted(enumerate(words.words), key=lambda w: int(w[1].members[0])):
            self.of_slot.setdefault(word.slot, []).append(number)

    def _most_steps(self) -> list[int]:
        """For each slot the most steps up from where its search begins: the thresholds of one bucket."""
        most = [0] * len(self.ranks.numeric)
        for of in self.by_feature.values():
            slots = [self.ranks.numeric[i] for i in of]
            for i, starts in zip(of, buckets.float_buckets(slots, self.count).starts, strict=True):
                most[i] = int(np.diff([*starts, len(self.ranks.numeric[i].keys)]).max())
        return most

    def _fours(self) -> list[int]:
        """Where each four of features begins; the last may overlap the one before."""
        features = self.ranks.forest.n_features
        return [*range(0, features - 3, 4), *([features - 4] if features % 4 else [])]

    def code(self, kind: str) -> Iterator[str]:
        """Instructions; kind f32 or i32. x0 has the features' address; at the end words are in x0 to x29."""
        steps: list[str] = []
        stage = list(self._stage(kind, steps))
        yield from stage
        yield from steps
        if kind == "f32":
            once = sum(map(count_instructions, stage)) + 4 * sum(self.most_steps) + len(self.most_steps)
            self.longest_f32 = 2 * once + 8 + 7 * self.ranks.forest.n_features
            if self.stand_ins is not None:
                yield from self._replace_nan()

    def _stage(self, kind: str, steps: list[str]) -> Iterator[str]:
        """What every row executes once, a row with a NaN twice; appends what lies out of line to `steps`."""
        yield f".Lagain_{kind}:\n    mov x20, x0"
        tables = {"x23": "edge_scale", "x24": "edge_limits", "x25": "edge_start"}
        for register, table in tables.items():
            yield from _address(register, f"{table}_{kind}")
        levels = max(map(len, self.of_slot.values()), default=0)
        for level in range(min(levels, len(_LEVELS))):
            yield from _address(_LEVELS[level], f"edge_shifts{level}")
        yield "    mov x26, #-1"
        yield f"    mov w22, #{self.count - 1}\n    dup v7.4s, w22"
        if kind == "f32":
            yield "    movi v6.4s, #0"
        done = 0
        for at in self._fours():
            yield from self._buckets(kind, at)
            for feature in range(max(at, done), at + 4):
                for slot in self.by_feature.get(feature, ()):
                    yield from self._slot(kind, slot, feature - at, steps)
            done = at + 4
        if kind == "f32":
            yield "    fmaxv s6, v6.4s\n    fcmp s6, s6\n    b.vs .Lnan"
        for i in range(IN_PLACE, min(len(self.words.words), 30), 1):
            if i % 2 == 0 and i + 1 < min(len(self.words.words), 30):
                yield f"    ldp x{i}, x{i + 1}, [sp, #{self.words_at + 8 * i}]"
            elif i % 2 == 0:
                yield f"    ldr x{i}, [sp, #{self.words_at + 8 * i}]"
        yield "    b .Ltrees"

    def _replace_nan(self) -> Iterator[str]:
        """Begin again with a copy of the features that has stand-ins for NaN."""
        yield f".Lnan:\n    add x0, sp, #{self.copy_at}\n    mov x1, x0"
        yield from _address("x2", "edge_stand_ins")
        yield f"    mov w3, #{self.ranks.forest.n_features}\n1:"
        yield "    ldr s0, [x20], #4\n    ldr s1, [x2], #4\n    fcmp s0, s0"
        yield "    fcsel s0, s1, s0, vs\n    str s0, [x1], #4\n    subs w3, w3, #1\n    b.ne 1b"
        yield "    b .Lagain_f32"

    def _buckets(self, kind: str, at: int) -> Iterator[str]:
        """v0 = buckets of features at .. at + 3, plus their rows."""
        if at % 4:
            yield f"    add x22, x20, #{4 * at}\n    ldr q0, [x22]"
        else:
            yield f"    ldr q0, [x20, #{4 * at}]"
        yield "    ldp q1, q2, [x23], #32\n    ldr q3, [x23], #16"
        if kind == "f32":
            yield "    fmax v6.4s, v6.4s, v0.4s"  # a NaN among the features stays
            yield "    fsub v0.4s, v0.4s, v1.4s\n    fmul v0.4s, v0.4s, v2.4s\n    fcvtzu v0.4s, v0.4s"
            yield "    umin v0.4s, v0.4s, v7.4s"
        else:
            yield "    sqsub v0.4s, v0.4s, v1.4s\n    sshl v0.4s, v0.4s, v2.4s"
            yield "    movi v1.4s, #0\n    smax v0.4s, v0.4s, v1.4s\n    smin v0.4s, v0.4s, v7.4s"
        yield "    add v0.4s, v0.4s, v3.4s"

    def _slot(self, kind: str, slot: int, lane: int, steps: list[str]) -> Iterator[str]:
        feature = self.ranks.numeric[slot].feature
        yield f"    umov w21, v0.s[{lane}]"
        further = (self.row[slot] - feature) * self.count
        if further:
            yield f"    mov w22, #{further & 0xFFFF}"
            if further >> 16:
                yield f"    movk w22, #{further >> 16}, lsl #16"
            yield "    add w21, w21, w22"
        yield "    ldrh w21, [x25, w21, uxtw #1]"
        value, limit, compare, below = (
            ("s1", "s2", "fcmp", "mi") if kind == "f32" else ("w22", "w30", "cmp", "lt")
        )
        search = f"    ldr {limit}, [x24, x21, lsl #2]\n    {compare} {limit}, {value}\n"
        search += f"    b.{below} .Lstep{slot}{kind}"
        yield f"    ldr {value}, [x20, #{4 * feature}]"
        yield search
        yield f".Lfound{slot}{kind}:"
        steps.append(f".Lstep{slot}{kind}:\n    add w21, w21, #1\n{search}\n    b .Lfound{slot}{kind}")
        for level, number in enumerate(self.of_slot.get(slot, ())):
            base = "x30"
            if level < len(_LEVELS):
                base = _LEVELS[level]
            else:
                yield from _address("x30", f"edge_shifts{level}")
            yield f"    ldrb w22, [{base}, x21]"
            if number < IN_PLACE:
                yield f"    lsl x{number}, x26, x22"
            else:
                yield f"    lsl x22, x26, x22\n    str x22, [sp, #{self.words_at + 8 * number}]"
        if slot in self.rank_at:
            offset = self.offsets[slot] - rank_base(self.ranks, slot)
            register = "w21" if not offset else "w22"
            if offset & 4095:
                yield f"    sub w22, w21, #{offset & 4095}"
            if offset >> 12:
                yield f"    sub w22, {'w22' if offset & 4095 else 'w21'}, #{offset >> 12}, lsl #12"
            yield f"    strh {register}, [sp, #{self.rank_at[slot]}]"

    def tables(self, kinds: Sequence[str]) -> Iterator[str]:
        """The tables that the instructions read."""
        yield '    .section .rodata, "a", %progbits'
        for kind in kinds:
            yield from self._tables_of(kind)
        if self.stand_ins is not None:
            yield "edge_stand_ins:"
            yield from _data(".word", [_bits(float(v)) for v in self.stand_ins])
        for level in range(max(map(len, self.of_slot.values()), default=0)):
            yield f"edge_shifts{level}:"
            yield from _data(".byte", self._shifts(level), 32)

    def _tables_of(self, kind: str) -> Iterator[str]:
        make: Callable[..., Any] = buckets.float_buckets if kind == "f32" else buckets.integer_buckets
        numeric = self.ranks.numeric
        made = {f: make([numeric[i] for i in slots], self.count) for f, slots in self.by_feature.items()}
        yield f"    .p2align 4\nedge_scale_{kind}:"
        for at in self._fours():
            four = [made.get(at + i) for i in range(4)]
            yield from _data(".word", [0 if m is None else _bits(m.low) for m in four])
            rates = [0 if m is None else _bits(m.scale) if kind == "f32" else _bits(-m.shift) for m in four]
            yield from _data(".word", rates)
            yield from _data(".word", [(at + i) * self.count for i in range(4)])
        yield f"edge_limits_{kind}:"
        for slot in numeric:
            limits = slot.keys if kind == "f32" else slot.integer_thresholds()
            if kind == "f32":
                yield from _data(
                    ".word", [*buckets.thresholds_f32(slot).view(np.uint32).tolist(), 0x7F800000]
                )
            else:
                yield from _data(".word", [*(int(t) & 0xFFFFFFFF for t in limits), 0x7FFFFFFF])
        table = np.zeros((max(self.row.values()) + 1, self.count), np.int64)
        for feature, of in self.by_feature.items():
            for number, starts in zip(of, made[feature].starts, strict=True):
                table[self.row[number]] = starts + self.offsets[number]
        yield f"edge_start_{kind}:"
        yield from _data(".hword", table.ravel().tolist(), 32)

    def _shifts(self, level: int) -> list[int]:
        found: NDArray[np.uint8] = np.zeros(self.offsets[-1], np.uint8)
        for slot, numbers in self.of_slot.items():
            if level < len(numbers):
                start, end = self.offsets[slot], self.offsets[slot + 1]
                found[start:end] = self.words.words[numbers[level]].shifts(end - start - 1)
        return [int(v) for v in found]


def _bits(value: float | int) -> int:
    if isinstance(value, int):
        return value & 0xFFFFFFFF
    return int(np.float32(value).view(np.uint32))


def _address(register: str, symbol: str) -> Iterator[str]:
    yield f"    adrp {register}, {symbol}\n    add {register}, {register}, :lo12:{symbol}"


def _data(directive: str, values: Sequence[int], per_line: int = 16) -> Iterator[str]:
    for at in range(0, len(values), per_line):
        yield f"    {directive} " + ", ".join(map(str, values[at : at + per_line]))
