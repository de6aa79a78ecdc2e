"""Trees as AArch64 assembly: a test is one `tbz` on a thermometer word that stays in its register.

    edge_model_scores(x0 = features, x1 = raw scores):
        save registers; features to thermometer words (`aarch64_words`), the 30 hottest into x0 to x29
        trees:  tbnz x7, #17, .Lt3n5        a test of a hot threshold
                ldr x30, [sp, #256]         a test of a threshold whose word got no register
                tbz x30, #5, .Lt3n9
                ldrh w30, [sp, #600]        a test of a threshold that got no word: its rank
                cmp w30, #77
                b.ls .Lt3n12
        leaf:   bl .Lt4n0add                a cold leaf: its value lies where the link register then points
                .xword 0x3fb0c5f2a9e1d7c4
        leaf:   fadd d0, d0, d9             a hot leaf: add the value whose turn it is,
                ldr d9, .Lp0+1232           and load its own to wait in that place
                tbz x3, #9, .Lt4n2v1        a version of the next tree's first test, for this leaf alone
        .Lt4n0add:                          in front of a test that cold leaves go to
                fadd d0, d0, d9
                ldr d9, [x30]
        .Lt4n0: ...

Trees are not evaluated in the order in which their values are added (`sequence`): each value waits in a register.
Labels name the tree and the node. Registers and the frame follow AAPCS64; x18 is used, as on Linux.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np

from compile.emit import aarch64_words, turns
from compile.emit.aarch64_sums import WINDOW, Sums, lanes
from compile.emit.aarch64_words import count_instructions
from compile.emit.blocks import CALL, JUMP, BlockWriter, Op
from compile.emit.flow import END, Flow, Taste
from compile.emit.turns import Turn
from compile.emit.words import Words, columns_of, words_of
from compile.forest import Forest

REGISTERS = 30
"""x0 to x29 hold words; x30 is the scratch register."""
WORD_SETUP = 3.0
"""Instructions to make one more word: load and do the shift, store the word."""
PRICE = 0.01
"""Instructions per inference that an instruction of code must save: the trade of speed for bytes."""
MANY_NODES = 200_000
"""In models with more, versions are dearer: they take time to build."""
BRANCH_REACH = 8000
"""Instructions that `tbz` reaches (8,191), less what the alignment of literals may add."""
POOL_REACH = 900_000
"""Bytes after which literals are laid down; `ldr` reaches 1 MiB."""
MAX_WORDS, MAX_FEATURES = 350, 250
"""What of them lies in the frame is within reach of an `add`."""
_REALS, _OUT, _WORDS = 96, 160, 176
"""Frame: saved x19 to x30, the address of the raw scores, the words, the stored ranks."""


def taste(forest: Forest) -> Taste:
    """What this emitter wants of a model's flow."""
    price = PRICE if len(forest.feature) <= MANY_NODES else 5 * PRICE
    return Taste(price, shared=True, window=WINDOW, lanes=lanes(forest))


def words_for(flow: Flow) -> Words:
    """The words of this emitter: 30 in registers."""
    merged = aarch64_words.is_plain(flow.ranks)
    most = max((len(c.keys) for c in columns_of(flow.ranks, merged=merged)), default=0)
    setup = WORD_SETUP if most <= aarch64_words.COMPARE_REACH else 0
    # A test of a word without a register is an instruction more to execute, and one more in the code.
    mass = flow.tested + PRICE * np.bincount(flow.node, minlength=len(flow.tested))
    return words_of(flow.ranks, mass, merged=merged, registers=REGISTERS, setup=setup)


def compared_slots(flow: Flow, words: Words) -> list[int]:
    """Slots some of whose thresholds have no word, so that their ranks must be stored."""
    live = np.nonzero(flow.live & (flow.ranks.slot >= 0))[0]
    tests = set(zip(flow.ranks.slot[live].tolist(), flow.ranks.rank[live].tolist(), strict=True))
    return sorted({slot for slot, rank in tests if (slot, rank) not in words.place})


def trees_s(flow: Flow, words: Words, compared: Sequence[int], *, integer: bool) -> tuple[str, int]:
    """Assembly that defines `edge_model_scores` and, if `integer`, the hidden `edge_trees_i32`.

    Also the most instructions that `edge_model_scores` can take, without those of C that makes its words.
    """
    writer = _Writer(flow, words, compared)
    lines = list(writer.text(integer=integer))
    longest = sum(map(count_instructions, writer.straight)) + writer.longest_way
    return "\n".join(lines) + "\n", longest + (writer.maker.longest_f32 if writer.maker else 0)


class _Writer(BlockWriter):
    def __init__(self, flow: Flow, words: Words, compared: Sequence[int]) -> None:
        super().__init__(flow)
        self.words = words
        plain = aarch64_words.is_plain(flow.ranks)
        ranks_at = _WORDS + 8 * len(words.words)
        self.rank_at = {slot: ranks_at + 2 * i for i, slot in enumerate(compared)}
        self.frame = (ranks_at + len(compared) * 2 + 15) & ~15
        self.maker = aarch64_words.WordsWriter(flow.ranks, words, _WORDS, self.rank_at) if plain else None
        self.single = self.forest.single
        self.sums = Sums(flow, self._literal, _OUT)
        self.values: list[float] = self.forest.leaf_values[self.forest.leaf, 0].tolist()
        self.pool: dict[bytes, int] = {}  # where literals lie in the pool
        self.pool_bytes = 0
        self.pools = 0
        self.since_pool = 0  # bytes of code, of all groups: literals wait for the end of a long one
        self.longest_way = 0
        self.straight: list[str] = []

    def text(self, *, integer: bool) -> Iterator[str]:
        """The lines of the file."""
        yield "    .text"
        kinds = ["i32", "f32"] if integer else ["f32"]
        for kind in kinds:
            entry = self._entry(kind)
            yield from self._counted(entry) if kind == "f32" else entry
            if self.maker is not None:
                yield from self.maker.code(kind)
            else:
                fill = [f"    b .Lfill_{kind}"]
                yield from self._counted(iter(fill)) if kind == "f32" else fill
        yield from self._by_memory(kinds)
        yield ".Ltrees:"
        for number, order in enumerate(self.flow.order):
            outputs = self.flow.groups[number].outputs
            yield from self._counted(self.sums.start(outputs))
            yield from self._emit(order, number)
            yield f".Lend{number}:"
            yield from self._counted(self.sums.last_additions(number))
            yield from self._counted(self.sums.finish(outputs))
        yield from self._counted(self.sums.constants())
        yield from self._counted(self._leave())
        yield from self._lay_pool()
        if self.maker is not None:
            yield from self.maker.tables(kinds)

    def _counted(self, lines: Iterator[str]) -> Iterator[str]:
        """Lines that every call executes once."""
        for line in lines:
            self.straight.append(line)
            yield line

    def _entry(self, kind: str) -> Iterator[str]:
        name = "edge_model_scores" if kind == "f32" else "edge_trees_i32"
        yield f"    .globl {name}"
        if kind == "i32":
            yield f"    .hidden {name}"
        yield f"    .type {name}, %function\n    .p2align 2\n{name}:"
        yield from self._move_stack("sub")
        for i in range(6):
            yield f"    stp x{19 + 2 * i}, x{20 + 2 * i}, [sp, #{16 * i}]"
        yield from self._move_reals("stp")
        yield f"    str x1, [sp, #{_OUT}]"

    def _by_memory(self, kinds: Sequence[str]) -> Iterator[str]:
        """Let C fill the words in memory, and load them."""
        if self.maker is not None:
            return
        for kind in kinds:
            fill = [f".Lfill_{kind}:", f"    add x1, sp, #{_WORDS}", f"    bl edge_words_{kind}"]
            yield from self._counted(iter(fill)) if kind == "f32" else fill
            if kind != kinds[-1]:
                yield "    b .Lloads"
        yield turns.s(Turn.ENTRY, "edge_words_f32")
        yield ".Lloads:"
        yield from self._counted(self._load_words())

    def _move_stack(self, op: str) -> Iterator[str]:
        if self.frame >> 12:
            yield f"    {op} sp, sp, #{self.frame >> 12}, lsl #12"
        if self.frame & 4095:
            yield f"    {op} sp, sp, #{self.frame & 4095}"

    def _move_reals(self, op: str) -> Iterator[str]:
        """Save or restore those of d8 to d15 in which values wait."""
        for d in range(8, self.sums.last_saved + 1, 2):
            yield f"    {op} d{d}, d{d + 1}, [sp, #{_REALS + 8 * (d - 8)}]"

    def _load_words(self) -> Iterator[str]:
        count = min(len(self.words.words), REGISTERS)
        for i in range(0, count - 1, 2):
            yield f"    ldp x{i}, x{i + 1}, [sp, #{_WORDS + 8 * i}]"
        if count % 2:
            yield f"    ldr x{count - 1}, [sp, #{_WORDS + 8 * (count - 1)}]"

    def _leave(self) -> Iterator[str]:
        for i in range(6):
            yield f"    ldp x{19 + 2 * i}, x{20 + 2 * i}, [sp, #{16 * i}]"
        yield from self._move_reals("ldp")
        yield from self._move_stack("add")
        yield "    mov w0, #0\n    ret"

    def _literal(self, values: list[float]) -> str:
        data = struct.pack(f"<{len(values)}{'f' if self.single else 'd'}", *values)
        at = self.pool.get(data)
        if at is None:
            at = self.pool[data] = self.pool_bytes
            self.pool_bytes += len(data)
        return f".Lp{self.pools}+{at}"

    def _lay_pool(self) -> Iterator[str]:
        if not self.pool:
            return
        yield "    .p2align 3"
        yield f".Lp{self.pools}:"
        directive, size = (".word", 4) if self.single else (".xword", 8)
        for data in self.pool:
            parts = (data[at : at + size] for at in range(0, len(data), size))
            yield f"    {directive} " + ", ".join(f"{int.from_bytes(p, 'little'):#x}" for p in parts)
        self.pools += 1
        self.pool, self.pool_bytes = {}, 0
        self.since_pool = 0

    def _emit(self, order: Sequence[int], group: int) -> Iterator[str]:
        """A group's blocks, in chunks that end with their literals where a load would not reach further."""
        labels = self.labels(order)
        chunks: list[list[tuple[int, list[Op]]]] = [[]]
        pools: list[list[str]] = []
        for label, following in zip(labels, [*labels[1:], END], strict=True):
            ops = self.block(label, following)
            chunks[-1].append((label, ops))
            self.since_pool += sum(8 if to is not None or line.startswith("    .") else 4 for line, to in ops)
            if self.since_pool + self.pool_bytes > POOL_REACH:
                pools.append(list(self._lay_pool()))
                chunks.append([])
        far = _far_branches(chunks)
        # A pool in the way costs a branch over it; which way passes it does not matter for a bound.
        self.longest_way += self.longest(order, far) + len(pools)
        for number, chunk in enumerate(chunks):
            yield from self._chunk(chunk, group, far)
            if number < len(pools):
                yield f"    b .Lover{group}_{number}"
                yield from pools[number]
                yield f"    .p2align 2\n.Lover{group}_{number}:"

    def _chunk(
        self, chunk: Sequence[tuple[int, list[Op]]], group: int, far: set[tuple[int, int]]
    ) -> list[str]:
        """Blocks as text."""
        lines = []
        for label, ops in chunk:
            lines.append(f"{self.name(label, group)}:")
            for k, (line, to) in enumerate(ops):
                if to is None:
                    lines.append(line)
                elif far and (label, k) in far:
                    lines += [f"{_inverted(line)} .+8", f"    b {self.name(to, group)}"]
                else:
                    lines.append(f"{line} {self.name(to, group)}")
        return lines

    def test(self, node: int) -> tuple[list[Op], str, str]:
        """What goes before the branch, the branch for left and the branch for right."""
        key = self.slot[node], self.rank[node]
        where = self.words.place.get(key)
        if where is None:
            load = f"    ldrh w30, [sp, #{self.rank_at[key[0]]}]"
            rank = key[1] if self.maker is None else self.maker.compared_rank(*key)
            return [(load, None), (f"    cmp w30, #{rank}", None)], "    b.ls", "    b.hi"
        word, bit = where
        if word < REGISTERS:
            return [], f"    tbnz x{word}, #{bit},", f"    tbz x{word}, #{bit},"
        load = f"    ldr x30, [sp, #{_WORDS + 8 * word}]"
        return [(load, None)], f"    tbnz x30, #{bit},", f"    tbz x30, #{bit},"

    def load(self, node: int) -> list[Op]:
        """Load a leaf's value to where it waits."""
        return _ops(self.sums.load(self.tree_of[node], self._value(node)))

    def _value(self, node: int) -> float:
        return self.values[node]

    def _values(self, node: int) -> list[float]:
        row: list[float] = self.forest.leaf_values[self.forest.leaf[node]].tolist()
        return row

    def send(self, node: int, to: int) -> list[Op]:
        """Call the addition: the value lies where the link register then points.

        That is a multiple of 4, which a load of 8 bytes from normal memory may be at. Nothing returns from these
        calls: a core that predicts returns may mispredict those of its callers, once for each.
        """
        form, directive = ("<f", ".word") if self.single else ("<d", ".xword")
        values = self.sums.row(self._values(node)) if self.vector else [self.values[node]]
        words = (int.from_bytes(struct.pack(form, value), "little") for value in values)
        return [(CALL, to), *((f"    {directive} {word:#x}", None) for word in words)]

    def receive(self, tree: int) -> list[Op]:
        """Add the value whose turn it is, and load what lies behind the call; or add the row that lies there."""
        if self.vector:
            return _ops(self.sums.receive_row())
        return _ops([*self.sums.turn(tree), *self.sums.receive(tree)])

    def add_loaded(self, tree: int) -> list[Op]:
        """Add the value whose turn it is when a tree's is there."""
        return _ops(self.sums.turn(tree))

    def add(self, node: int) -> list[Op]:
        """Add a leaf's values, or have one wait."""
        if self.vector:
            return _ops(self.sums.add_vector(self._values(node)))
        return [*self.add_loaded(self.tree_of[node]), *self.load(node)]


def _ops(lines: list[str]) -> list[Op]:
    return [(line, None) for line in lines]


def _inverted(line: str) -> str:
    """The opposite condition."""
    for one, other in (("tbnz", "tbz"), ("tbz", "tbnz"), ("b.ls", "b.hi"), ("b.hi", "b.ls")):
        if one in line:
            return line.replace(one, other)
    raise AssertionError(line)


def _far_branches(chunks: Sequence[Sequence[tuple[int, list[Op]]]]) -> set[tuple[int, int]]:
    """Conditional branches out of reach, as (label, op). Each costs an instruction, which may push out others.

    Between chunks lie literals, which no conditional branch is taken across.
    """
    far: set[tuple[int, int]] = set()
    while True:
        at: list[tuple[int, int, int, int]] = []
        starts: dict[int, int] = {}
        position = 0
        for chunk in chunks:
            for label, ops in chunk:
                starts[label] = position
                for k, (line, to) in enumerate(ops):
                    position += 1
                    if to is None:
                        position += line.startswith("    .xword")
                    elif line not in (JUMP, CALL):
                        at.append((position - 1, to, label, k))
                        position += (label, k) in far
            starts[END] = position
            position += 2 * BRANCH_REACH
        more = {(label, k) for p, to, label, k in at if abs(starts[to] - p) > BRANCH_REACH} - far
        if not more:
            return far
        far |= more
