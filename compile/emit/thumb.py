"""Trees as Thumb-2 assembly, for Cortex-M4 and ARMv7-A: a test compares a rank that stays in its register.

    edge_run_f32(r0 = features, r1 = sums):
        save registers; ranks (see thumb_ranks), on the stack and the hottest in registers
        trees:  cmp r3, #77                 a hot slot's rank: any of its thresholds
                bhi .Lt3n5
                cmp r3, #90                 the other way round for NaN, which is -1 here (see columns)
                bgt .Lt3n7
                ldrb r0, [sp, #30]          the rank of a slot that got no register
                cmp r0, #12
                bls .Lt3n9
                ldr r0, [sp, #8]            a categorical test: a bit of the category's row
                lsls r0, r0, #7
                bmi .Lt3n12
        leaf:   addw r12, r12, #310         a fixed-point value; or, exactly,
                vldr d1, .Ll17              a literal, laid down within reach, where no control passes
                vadd.f64 d0, d0, d1         (see thumb_sums)
                cmp r5, #3                  a copy of the next tree's first test, if the leaf is hot enough
                bls .Lt4n2

Labels name the tree and the node. Registers and the frame follow AAPCS32.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from compile.emit import c_lut, c_ranks, c_text, soft_sum, thumb_ranks, turns
from compile.emit.blocks import JUMP, BlockWriter, Op
from compile.emit.columns import columns_of
from compile.emit.flow import END, Flow, Taste, flow_of
from compile.emit.thumb_sums import Sum, Sums
from compile.emit.turns import Most, Turn
from compile.ranks import Ranks

MAX_SLOTS, MAX_NODES = 1500, 300_000
"""Their ranks are within reach of the stack pointer, and all of the code of a jump."""


_TASTE = {
    Sum.FIXED: Taste(0.003, False, window=128),
    Sum.SINGLE: Taste(0.03, True),
    Sum.DOUBLE: Taste(0.03, True),
    Sum.SOFT: Taste(0.03, True),
}
_DEAR = 0.01
"""The price of an instruction where a leaf is several of them: each version of it is so much longer."""
SETS_PER_WORD = 32
_BLOCK = 8
"""Frame: the address of the sums, then the block that C fills: words of categorical sets, then ranks."""
_NATURAL, _FORCED = 500, 800
"""Bytes after the first use of a literal at which it is laid down, at a gap or by force; `vldr` reaches 1,020."""


_BETWEEN = 100
"""Bytes from one group's leaves to the next one's, at most: a sum stored, registers changed, a sum begun."""


def set_words(ranks: Ranks) -> list[tuple[int, int]]:
    """Words of categorical sets, as (slot, number of 32 sets)."""
    numeric = len(ranks.numeric)
    return [
        (slot, word)
        for slot, chosen in enumerate(ranks.categorical, numeric)
        for word in range((chosen.rows.shape[1] + SETS_PER_WORD - 1) // SETS_PER_WORD)
    ]


def emit(ranks: Ranks, kinds: Sequence[str], total: Sum, finish: str) -> tuple[str, dict[str, str], Most]:
    """A model's C, the assembly beside it, and the most turns of their loops in one call.

    finish: C that turns the sums into raw scores.
    """
    writer = _Writer(flow_of(ranks, _taste(ranks, total)), total)
    merged = writer.ranks
    by_c = [k for k in kinds if k != "f32" or not thumb_ranks.fits(merged)]
    c = [
        c_lut.ranks_c(merged, integer="i32" in by_c, single="f32" in by_c),
        "" if "f32" in by_c else thumb_ranks.mend_c(merged),
        _block_c(merged, by_c),
        soft_sum.sum_c(ranks.forest) if total is Sum.SOFT else "",
        _run_c(kinds, total, ranks.forest.n_outputs, finish),
    ]
    most = (c_lut if "f32" in by_c else thumb_ranks).most_turns(merged)
    most = turns.together(most, {Turn.OUTPUT: ranks.forest.n_outputs})
    return "\n".join(c), {"trees.S": "\n".join(writer.text(kinds, by_c)) + "\n"}, most


def _taste(ranks: Ranks, total: Sum) -> Taste:
    taste = _TASTE[total]
    vector = ranks.forest.leaf_values.shape[1] > 1
    return replace(taste, price=max(taste.price, _DEAR), shared=False) if vector else taste


def _block_c(ranks: Ranks, kinds: Sequence[str]) -> str:
    """C that fills the block: `edge_block_f32` and `edge_block_i32`."""
    words = set_words(ranks)
    table: list[str] = []
    fill = ""
    for i, (slot, number) in enumerate(words):
        columns = ranks.categorical[slot - len(ranks.numeric)].rows[:, number * SETS_PER_WORD :][
            :, :SETS_PER_WORD
        ]
        fill += f"    block[{i}] = edge_set_words[{len(table)} + q[{slot}]];\n"
        weights = 1 << np.arange(columns.shape[1], dtype=np.uint64)
        table += [f"{int(v):#x}u" for v in (columns * weights).sum(1, dtype=np.uint64)]
    text = c_text.array("uint32_t", "edge_set_words", table, 8) if table else ""
    for kind in kinds:
        ctype = "float" if kind == "f32" else "int32_t"
        head = f"void edge_block_{kind}(const {ctype} *x, uint32_t *block)"
        text += f"\n{head};\n{head}\n{{\n    edge_rank *q = (edge_rank *)(block + {len(words)});\n"
        text += f"    edge_ranks_{kind}(x, q);\n{fill}}}\n"
    return text


def _run_c(kinds: Sequence[str], total: Sum, outputs: int, finish: str) -> str:
    """C that calls the assembly and turns the sums into raw scores (`finish`)."""
    text = ""
    for kind in kinds:
        ctype = "float" if kind == "f32" else "int32_t"
        head = (
            "int edge_model_scores" if kind == "f32" else "static __attribute__((unused)) void edge_trees_i32"
        )
        text += f"\nvoid edge_run_{kind}(const {ctype} *features, {total.value} *sum);\n\n"
        text += f"{head}(const {ctype} *features, double *raw_scores)\n{{\n"
        if total is Sum.SOFT:
            text += f"    edge_sum part[{outputs}];\n    double sum[{outputs}];\n"
            text += f"    edge_run_{kind}(features, part);\n"
            text += f"    for (uint32_t o = 0; o < {outputs}; o++) {{\n        {turns.c(Turn.OUTPUT)}\n"
            text += "        sum[o] = edge_value(part + o);\n    }\n"
        else:
            text += f"    {total.value} sum[{outputs}];\n    edge_run_{kind}(features, sum);\n"
        text += finish
        text += "    return 0;\n}\n" if kind == "f32" else "}\n"
    return text


class _Writer(BlockWriter):
    def __init__(self, flow: Flow, total: Sum) -> None:
        super().__init__(flow)
        self.total = total
        columns = columns_of(flow.ranks)
        self.ranks = ranks = columns.ranks
        self.slot, self.rank = ranks.slot.tolist(), ranks.rank.tolist()
        self.signed: list[bool] = columns.signed.tolist()
        self.sums = Sums(self.forest, total, self._literal)
        # The second scratch register, for ranks that `cmp` has no immediate for.
        self.spare = "r1" if total is Sum.SOFT else "lr"
        self.rank_bytes = c_ranks.rank_bytes(ranks)
        sign = "s" if columns.mixed else ""
        self.rank_load = f"ldr{sign}{'b' if self.rank_bytes == 1 else 'h'}"
        self.words = {key: i for i, key in enumerate(set_words(ranks))}
        self.ranks_at = _BLOCK + 4 * len(self.words)
        slots = len(ranks.numeric) + len(ranks.categorical)
        self.frame = (self.ranks_at + slots * self.rank_bytes + 11 & ~7) + 4  # 36 bytes are pushed below
        self.registers = list(self._registers())
        self.register = self.registers[0]
        self.literals: dict[bytes, int] = {}
        self.laid = self.since = 0  # bytes since the first of `literals` was used

    def _registers(self) -> Iterator[dict[int, str]]:
        """For each group, the registers of the slots that it tests most; what is in one already stays there."""
        numeric = len(self.ranks.numeric)
        taken = {self.spare} if self.ranks.largest > 255 else set()
        free = [r for r in self.sums.free if r not in taken]
        now: dict[int, str] = {}
        for order in self.flow.order:
            nodes = np.unique([self.flow.node[label] for label in order if label >= 0])
            nodes = nodes[(self.ranks.slot[nodes] >= 0) & (self.ranks.slot[nodes] < numeric)]
            weights = np.bincount(self.ranks.slot[nodes], self.flow.tested[nodes], numeric)
            wanted = np.argsort(-weights, kind="stable")[: len(free)].tolist()
            now = {slot: now[slot] for slot in wanted if slot in now}
            spare = [r for r in free if r not in now.values()]
            now |= dict(zip([slot for slot in wanted if slot not in now], spare, strict=False))
            yield now

    def text(self, kinds: Sequence[str], by_c: Sequence[str]) -> Iterator[str]:
        """The lines of the file. by_c: the kinds of features whose ranks C makes."""
        yield "    .syntax unified\n    .thumb\n    .text"
        for kind in kinds:
            name = f"edge_run_{kind}"
            yield f"    .globl {name}\n    .hidden {name}\n    .type {name}, %function"
            yield "    .p2align 2\n    .thumb_func"
            yield f"{name}:\n    push {{r4, r5, r6, r7, r8, r9, r10, r11, lr}}"
            yield f"    subw sp, sp, #{self.frame}\n    str r1, [sp]"
            if kind not in by_c:
                yield from self._make_ranks()
                continue
            yield f"    add r1, sp, #{_BLOCK}\n    bl edge_block_{kind}"
            if kind != kinds[-1]:
                yield "    b.w .Ltrees"
        yield ".Ltrees:"
        yield from map(self._load_rank, self.register)
        yield ".Lready:"
        for number, order in enumerate(self.flow.order):
            output = self.flow.groups[number].output
            before, self.register = self.register, self.registers[number]
            yield from (self._load_rank(s) for s, r in self.register.items() if before.get(s) != r)
            yield from self.sums.start(output)
            yield from self._emit(order, number)
            yield f".Lend{number}:"
            yield from self.sums.store(output)
            self.since += _BETWEEN
        present = {g.output for g in self.flow.groups}
        for output in set() if self.vector else set(range(self.forest.n_outputs)) - present:
            yield from self.sums.start(output)
            yield from self.sums.store(output)
        yield f"    addw sp, sp, #{self.frame}\n    pop {{r4, r5, r6, r7, r8, r9, r10, r11, pc}}"
        yield from self._lay_literals()
        yield from self.sums.routines()
        if len(by_c) < len(kinds):
            yield from thumb_ranks.tables_s(self.ranks)

    def _make_ranks(self) -> Iterator[str]:
        """Ranks without C, but for rows with NaN."""
        # Made in their registers are ranks that stay there for good: nothing else has them in the frame.
        stay = dict(set.intersection(*(set(registers.items()) for registers in self.registers)))
        direct = {slot: r for slot, r in sorted(stay.items()) if r in thumb_ranks.DIRECT}
        yield from thumb_ranks.ranks_s(self.ranks, direct, self.ranks_at, self.rank_bytes)
        yield from (self._load_rank(slot) for slot in self.register if slot not in direct)
        yield "    b.w .Lready"
        yield thumb_ranks.offsets_s()
        yield ".Lnan:"
        store = "strb" if self.rank_bytes == 1 else "strh"
        for slot, register in direct.items():
            yield f"    {store}.w {register}, [sp, #{self._rank_at(slot)}]"
        yield f"    add r1, sp, #{self.ranks_at}\n    bl edge_missing\n    b.w .Ltrees"

    def _load_rank(self, slot: int) -> str:
        return f"    {self.rank_load} {self.register[slot]}, [sp, #{self._rank_at(slot)}]"

    def _rank_at(self, slot: int) -> int:
        return self.ranks_at + slot * self.rank_bytes

    def _literal(self, data: bytes) -> str:
        number = self.literals.setdefault(data, len(self.literals))
        return f".Ll{self.laid}_{number}"

    def _lay_literals(self) -> Iterator[str]:
        if not self.literals:
            return
        yield "    .p2align 2"
        for data, number in self.literals.items():
            values = ", ".join(f"{v:#x}" for v in struct.unpack(f"<{len(data) // 4}I", data))
            yield f".Ll{self.laid}_{number}:\n    .word {values}"
        self.literals = {}
        self.laid += 1

    def _emit(self, order: Sequence[int], group: int) -> Iterator[str]:
        labels = self.labels(order)
        for label, following in zip(labels, [*labels[1:], END], strict=True):
            ops = self.block(label, following)
            yield f"{self.name(label, group)}:"
            for line, to in ops:
                yield line if to is None else f"{line} {self.name(to, group)}"
            self.since = self.since + 4 * len(ops) if self.literals else 0
            size = self.since + sum(map(len, self.literals))
            gap = bool(ops) and ops[-1][0] == JUMP
            if size > (_NATURAL if gap else _FORCED):
                here = f".Lover{self.laid}"
                if not gap:
                    yield f"    b.w {here}"
                yield from self._lay_literals()
                yield f"    .p2align 1\n{here}:"
                self.since = 0

    def test(self, node: int) -> tuple[list[Op], str, str]:
        """Compare a rank, or shift a set's bit into the sign."""
        slot, rank = self.slot[node], self.rank[node]
        if slot >= len(self.ranks.numeric):
            word, bit = self.words[slot, rank // SETS_PER_WORD], rank % SETS_PER_WORD
            load = f"    ldr r0, [sp, #{_BLOCK + 4 * word}]"
            return [(load, None), (f"    lsls r0, r0, #{31 - bit}", None)], "    bmi", "    bpl"
        ops: list[Op] = []
        register = self.register.get(slot)
        spare = "r0"
        if register is None:
            register, spare = "r0", self.spare
            ops.append((f"    {self.rank_load} r0, [sp, #{self._rank_at(slot)}]", None))
        if _is_immediate(rank):
            ops.append((f"    cmp {register}, #{rank}", None))
        else:
            ops += [(f"    movw {spare}, #{rank}", None), (f"    cmp {register}, {spare}", None)]
        return (ops, "    ble", "    bgt") if self.signed[node] else (ops, "    bls", "    bhi")

    def load(self, node: int) -> list[Op]:
        """Load a leaf's value."""
        return [(line, None) for line in self.sums.load(node)]

    def add_loaded(self, tree: int) -> list[Op]:
        """Add it to the sum."""
        del tree
        return [(line, None) for line in self.sums.add_loaded()]

    def add(self, node: int) -> list[Op]:
        """Add a leaf's values."""
        return [(line, None) for line in self.sums.add(node)]


def _is_immediate(value: int) -> bool:
    """Whether a Thumb-2 data-processing instruction takes it (ARMv7-M ARM, A5.3.2), for values under 65,536."""
    if value < 256:
        return True
    shift = max(value.bit_length() - 8, 0)
    return value == value >> shift << shift
