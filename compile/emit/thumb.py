"""Trees as Thumb-2 assembly, for Cortex-M4 and ARMv7-A: a test compares a rank that stays in its register.

    edge_run_f32(r0 = features, r1 = sums):
        save registers; edge_block_f32(features, ranks on the stack); the hottest ranks into registers
        trees:  cmp r3, #77                 a hot slot's rank: any of its thresholds
                bhi .Lt3n5
                ldrb r0, [sp, #30]          the rank of a slot that got no register
                cmp r0, #12
                bls .Lt3n9
                ldr r0, [sp, #8]            a categorical test: a bit of the category's row
                lsls r0, r0, #7
                bmi .Lt3n12
        leaf:   addw r12, r12, #310         a fixed-point value; or, exactly,
                vldr d1, .Ll17              a literal, laid down within reach, where no control passes
                vadd.f64 d0, d0, d1
                cmp r5, #3                  a copy of the next tree's first test, if the leaf is hot enough
                bls .Lt4n2

Labels name the tree and the node. Registers and the frame follow AAPCS32.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from enum import Enum

import numpy as np

from compile.emit import c_text
from compile.emit.blocks import JUMP, BlockWriter, Op
from compile.emit.flow import END, Flow, Taste
from compile.ranks import Ranks

MAX_SLOTS, MAX_NODES = 1500, 300_000
"""Their ranks are within reach of the stack pointer, and all of the code of a jump."""


class Sum(Enum):
    """What leaves are added in: the C type of a sum."""

    FIXED = "int32_t"
    SINGLE = "float"
    DOUBLE = "double"


TASTE = {
    Sum.FIXED: Taste(0.03, False, window=100),
    Sum.SINGLE: Taste(0.03, True),
    Sum.DOUBLE: Taste(0.03, True),
}
SETS_PER_WORD = 32
_REGISTERS = ("r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "lr", "r12")
"""For ranks, best first: a compare with r1 to r7 is short. r12 is the sum where that is an integer."""
_BLOCK = 8
"""Frame: the address of the sums, then the block that C fills: words of categorical sets, then ranks."""
_NATURAL, _FORCED = 500, 800
"""Bytes after the first use of a literal at which it is laid down, at a gap or by force; `vldr` reaches 1,020."""


def set_words(ranks: Ranks) -> list[tuple[int, int]]:
    """Words of categorical sets, as (slot, number of 32 sets)."""
    numeric = len(ranks.numeric)
    return [
        (slot, word)
        for slot, chosen in enumerate(ranks.categorical, numeric)
        for word in range((chosen.rows.shape[1] + SETS_PER_WORD - 1) // SETS_PER_WORD)
    ]


def block_c(ranks: Ranks, kinds: Sequence[str]) -> str:
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


def run_c(kinds: Sequence[str], total: Sum, outputs: int, finish: str) -> str:
    """C that calls the assembly and turns the sums into raw scores (`finish`)."""
    text = ""
    for kind in kinds:
        ctype = "float" if kind == "f32" else "int32_t"
        head = (
            "int edge_model_scores" if kind == "f32" else "static __attribute__((unused)) void edge_trees_i32"
        )
        text += f"\nvoid edge_run_{kind}(const {ctype} *features, {total.value} *sum);\n\n"
        text += (
            f"{head}(const {ctype} *features, double *raw_scores)\n{{\n    {total.value} sum[{outputs}];\n"
        )
        text += f"    edge_run_{kind}(features, sum);\n{finish}"
        text += "    return 0;\n}\n" if kind == "f32" else "}\n"
    return text


def trees_s(flow: Flow, kinds: Sequence[str], total: Sum) -> str:
    """Assembly that defines the hidden `edge_run_f32` and `edge_run_i32`."""
    return "\n".join(_Writer(flow, total).text(kinds)) + "\n"


class _Writer(BlockWriter):
    def __init__(self, flow: Flow, total: Sum) -> None:
        super().__init__(flow)
        self.total = total
        ranks = flow.ranks
        self.real = {Sum.SINGLE: ("s", "f32", "<f"), Sum.DOUBLE: ("d", "f64", "<d"), Sum.FIXED: ("", "", "")}[
            total
        ]
        self.rank_bytes = 1 if ranks.largest < 256 else 2
        self.rank_load = "ldrb" if self.rank_bytes == 1 else "ldrh"
        self.words = {key: i for i, key in enumerate(set_words(ranks))}
        self.ranks_at = _BLOCK + 4 * len(self.words)
        slots = len(ranks.numeric) + len(ranks.categorical)
        self.frame = (self.ranks_at + slots * self.rank_bytes + 11 & ~7) + 4  # 36 bytes are pushed below
        self.register = self._registers()
        self.literals: dict[bytes, int] = {}
        self.laid = 0

    def _registers(self) -> dict[int, str]:
        """The registers of the slots that are tested most."""
        numeric = len(self.flow.ranks.numeric)
        splits = np.nonzero((self.flow.ranks.slot >= 0) & (self.flow.ranks.slot < numeric))[0]
        weights = np.bincount(self.flow.ranks.slot[splits], self.flow.tested[splits], numeric)
        free = [r for r in _REGISTERS if not (r == "r12" and self.total is Sum.FIXED)]
        if self.flow.ranks.largest > 255:
            free.remove("lr")  # the second scratch register, for ranks that `cmp` has no immediate for
        return dict(zip(np.argsort(-weights, kind="stable").tolist(), free, strict=False))

    def text(self, kinds: Sequence[str]) -> Iterator[str]:
        """The lines of the file."""
        yield "    .syntax unified\n    .thumb\n    .text"
        for kind in kinds:
            name = f"edge_run_{kind}"
            yield f"    .globl {name}\n    .hidden {name}\n    .type {name}, %function"
            yield "    .p2align 2\n    .thumb_func"
            yield f"{name}:\n    push {{r4, r5, r6, r7, r8, r9, r10, r11, lr}}"
            yield f"    subw sp, sp, #{self.frame}\n    str r1, [sp]"
            yield f"    add r1, sp, #{_BLOCK}\n    bl edge_block_{kind}"
            if kind != kinds[-1]:
                yield "    b.w .Ltrees"
        yield ".Ltrees:"
        for slot, register in self.register.items():
            yield f"    {self.rank_load} {register}, [sp, #{self._rank_at(slot)}]"
        for number, order in enumerate(self.flow.order):
            output = self.flow.groups[number].output
            yield from self._start(output)
            yield from self._emit(order, number)
            yield f".Lend{number}:"
            yield from self._store(output)
        present = {g.output for g in self.flow.groups}
        for output in set(range(self.forest.n_outputs)) - present:
            yield from self._start(output)
            yield from self._store(output)
        yield f"    addw sp, sp, #{self.frame}\n    pop {{r4, r5, r6, r7, r8, r9, r10, r11, pc}}"
        yield from self._lay_literals()

    def _rank_at(self, slot: int) -> int:
        return self.ranks_at + slot * self.rank_bytes

    def _start(self, output: int) -> Iterator[str]:
        base = float(self.forest.base[output]) if self.forest.base_first else 0.0
        if self.total is Sum.FIXED:
            value = int(base)
            yield f"    movw r12, #{value & 0xFFFF}\n    movt r12, #{value >> 16 & 0xFFFF}"
        else:
            yield f"    vldr {self.real[0]}0, {self._literal(base)}"

    def _store(self, output: int) -> Iterator[str]:
        yield "    ldr r0, [sp]"
        if self.total is Sum.FIXED:
            yield f"    str r12, [r0, #{4 * output}]"
        else:
            size = struct.calcsize(self.real[2])
            yield f"    vstr {self.real[0]}0, [r0, #{size * output}]"

    def _literal(self, value: float) -> str:
        number = self.literals.setdefault(struct.pack(self.real[2], value), len(self.literals))
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
        since = 0
        for label, following in zip(labels, [*labels[1:], END], strict=True):
            ops = self.block(label, following)
            yield f"{self.name(label, group)}:"
            for line, to in ops:
                yield line if to is None else f"{line} {self.name(to, group)}"
            since = since + 4 * len(ops) if self.literals else 0
            size = since + sum(map(len, self.literals))
            gap = bool(ops) and ops[-1][0] == JUMP
            if size > (_NATURAL if gap else _FORCED):
                here = f".Lover{self.laid}"
                if not gap:
                    yield f"    b.w {here}"
                yield from self._lay_literals()
                yield f"    .p2align 1\n{here}:"
                since = 0

    def test(self, node: int) -> tuple[list[Op], str, str]:
        """Compare a rank, or shift a set's bit into the sign."""
        slot, rank = self.slot[node], self.rank[node]
        if slot >= len(self.flow.ranks.numeric):
            word, bit = self.words[slot, rank // SETS_PER_WORD], rank % SETS_PER_WORD
            load = f"    ldr r0, [sp, #{_BLOCK + 4 * word}]"
            return [(load, None), (f"    lsls r0, r0, #{31 - bit}", None)], "    bmi", "    bpl"
        ops: list[Op] = []
        register = self.register.get(slot)
        spare = "r0"
        if register is None:
            register, spare = "r0", "lr"
            ops.append((f"    {self.rank_load} r0, [sp, #{self._rank_at(slot)}]", None))
        if _is_immediate(rank):
            ops.append((f"    cmp {register}, #{rank}", None))
        else:
            ops += [(f"    movw {spare}, #{rank}", None), (f"    cmp {register}, {spare}", None)]
        return ops, "    bls", "    bhi"

    def _value(self, node: int) -> float:
        return float(self.forest.leaf_values[self.forest.leaf[node], 0])

    def load(self, node: int) -> list[Op]:
        """Load a leaf's value into d1 or r0."""
        if self.total is Sum.FIXED:
            value = int(self._value(node))
            ops: list[Op] = [(f"    movw r0, #{value & 0xFFFF}", None)]
            return [*ops, (f"    movt r0, #{value >> 16 & 0xFFFF}", None)] if value >> 16 else ops
        return [(f"    vldr {self.real[0]}1, {self._literal(self._value(node))}", None)]

    def add_loaded(self, tree: int) -> list[Op]:
        """Add it to the sum."""
        del tree
        if self.total is Sum.FIXED:
            return [("    add r12, r0", None)]
        real, suffix, _ = self.real
        return [(f"    vadd.{suffix} {real}0, {real}0, {real}1", None)]

    def add(self, node: int) -> list[Op]:
        """Add a leaf's value."""
        value = self._value(node)
        if value == 0:
            return []
        if self.total is Sum.FIXED and abs(value) < 4096:
            return [(f"    {'addw' if value > 0 else 'subw'} r12, r12, #{abs(int(value))}", None)]
        if self.total is Sum.FIXED and abs(value) < 65536:
            operation = "add" if value > 0 else "sub"
            return [(f"    movw r0, #{abs(int(value))}", None), (f"    {operation} r12, r12, r0", None)]
        return [*self.load(node), *self.add_loaded(self.tree_of[node])]


def _is_immediate(value: int) -> bool:
    """Whether a Thumb-2 data-processing instruction takes it (ARMv7-M ARM, A5.3.2), for values under 65,536."""
    if value < 256:
        return True
    shift = max(value.bit_length() - 8, 0)
    return value == value >> shift << shift
