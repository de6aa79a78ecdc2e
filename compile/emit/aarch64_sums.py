"""The sums of the AArch64 code: where values wait, when they are added, and how raw scores come of them.

A leaf's value is loaded into a register of its own and waits there until all before it have been added. Outputs
that are added to in turns (the classes of boosted trees) share these registers, a lane each: one `fadd` of a
vector adds a value to each of their sums. A tree of lane 0 clears the other lanes as it loads its value, so it is
evaluated before those that share its register.

    lane 0:     fadd v0.4s, v0.4s, v9.4s    if values of the window before wait in v9
                ldr s9, [x30]
    others:     ld1 {v9.s}[2], [x30]

Where a leaf adds to all outputs, nothing waits: their sums lie side by side in v0 to v7, and one `fadd` of a vector
adds to as many of them as a register holds. A cold leaf's row lies behind its call:

    leaf:       bl .Lt4n0add
                .xword 0x3fb0c5f2a9e1d7c4, ...
    .Lt4n0add:  ldp q16, q17, [x30]
                fadd v0.2d, v0.2d, v16.2d   ...
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from compile.emit.flow import Flow, Group
from compile.forest import Forest

MAX_OUTPUTS = 16
"""Sums that a leaf with a vector can add to: in v0 to v7."""
_WAITING = (*range(1, 8), *range(16, 32), *range(8, 15))
"""Registers that values wait in: of d8 to d15 the caller wants its own back."""
WINDOW = len(_WAITING)


def lanes(forest: Forest) -> int:
    """Sums that a vector register holds."""
    return 4 if forest.single else 2


class _Wait(NamedTuple):
    """The register and lane that a tree's value waits in, and whether values in it have to be added first."""

    register: int
    lane: int
    adds: bool


class Sums:
    """Writes what becomes of leaf values. literal: where a constant lies that is laid down with the code.
    out_at: offset in the frame of the address of the raw scores.
    """

    def __init__(self, flow: Flow, literal: Callable[[list[float]], str], out_at: int) -> None:
        self.flow, self.forest = flow, flow.ranks.forest
        self.literal, self.out_at = literal, out_at
        self.real = "s" if self.forest.single else "d"
        self.vector = f"{lanes(self.forest)}{self.real}"
        self.wait, self.left = _waits(flow)
        self.group_of = flow.group_of

    @property
    def last_saved(self) -> int:
        """The last of d8 to d15 in which values wait, 0 where none do."""
        return max((w.register for w in self.wait.values() if 8 <= w.register < 16), default=0)

    def turn(self, tree: int) -> list[str]:
        """Add what waits where a tree's value goes."""
        wait = self.wait.get(tree)
        return [self._add(tree, wait.register)] if wait and wait.adds else []

    def _add(self, tree: int, register: int) -> str:
        if len(self.flow.groups[self.group_of[tree]].outputs) > 1:
            return f"    fadd v0.{self.vector}, v0.{self.vector}, v{register}.{self.vector}"
        return f"    fadd {self.real}0, {self.real}0, {self.real}{register}"

    def load(self, tree: int, value: float) -> list[str]:
        """Load a value that lies with the code."""
        wait = self.wait[tree]
        if wait.lane == 0:
            return [f"    ldr {self.real}{wait.register}, {self.literal([value])}"]
        return [f"    adr x30, {self.literal([value])}", *self.receive(tree)]

    def receive(self, tree: int) -> list[str]:
        """Load a value from where x30 points."""
        register, lane, _ = self.wait[tree]
        if lane == 0:
            return [f"    ldr {self.real}{register}, [x30]"]
        return [f"    ld1 {{v{register}.{self.real}}}[{lane}], [x30]"]

    def add_vector(self, values: list[float]) -> list[str]:
        """Add a leaf's values, one for each output: as many at a time as a register holds."""
        loads: list[str] = []
        additions: list[str] = []
        size = lanes(self.forest)
        for number, at in enumerate(range(0, len(values), size)):
            some = values[at : at + size]
            while some and some[-1] == 0:  # no sum is ever -0, so that adding 0 changes nothing
                some.pop()
            if some:
                spare, register = 30 + len(loads) % 2, number
                loads.append(f"    ldr {self._part(len(some))}{spare}, {self._literal_of(some)}")
                additions.append(
                    f"    fadd v{register}.{self.vector}, v{register}.{self.vector}, v{spare}.{self.vector}"
                )
        # A value is loaded while the one before it is added.
        return [
            line for at in range(0, len(loads), 2) for of in (loads, additions) for line in of[at : at + 2]
        ]

    def row(self, values: list[float]) -> list[float]:
        """A leaf's values as they lie behind a call: so many that loads take just these."""
        return [*values, 0.0] if len(values) % 4 == 3 and self.forest.single else values

    def receive_row(self) -> list[str]:
        """Add a leaf's values from where x30 points."""
        size, width = lanes(self.forest), self.forest.n_outputs
        full, rest = divmod(width, size)
        if rest == 3:
            full, rest = full + 1, 0
        loads = [f"    ldp q{16 + n}, q{17 + n}, [x30, #{16 * n}]" for n in range(0, full - 1, 2)]
        if full % 2:
            loads.append(f"    ldr q{15 + full}, [x30, #{16 * (full - 1)}]")
        if rest:
            loads.append(f"    ldr {self._part(rest)}{16 + full}, [x30, #{16 * full}]")
        sums = range(full + bool(rest))
        return [
            *loads,
            *(f"    fadd v{n}.{self.vector}, v{n}.{self.vector}, v{16 + n}.{self.vector}" for n in sums),
        ]

    def _part(self, values: int) -> str:
        """The name of a register's part that holds so many values; the rest of it is cleared by a load."""
        return {4: "s", 8: "d"}.get(values * (4 if self.forest.single else 8), "q")

    def _literal_of(self, values: list[float]) -> str:
        """Where values lie that are loaded together: of two or more, as many as a register holds."""
        full = 1 if len(values) == 1 else 2 if len(values) == 2 else lanes(self.forest)
        return self.literal([*values, *[0.0] * (full - len(values))])

    def start(self, outputs: tuple[int, ...]) -> Iterator[str]:
        """Set sums to what trees are added to."""
        forest = self.forest
        for o, register, lane in self._places(outputs):
            base = float(forest.base[o]) if forest.base_first else 0.0
            if lane and base:
                yield f"    adr x30, {self.literal([base])}\n    ld1 {{v{register}.{self.real}}}[{lane}], [x30]"
            elif base:
                yield f"    ldr {self.real}{register}, {self.literal([base])}"
            elif not lane:
                yield f"    movi d{register}, #0"

    def finish(self, outputs: tuple[int, ...]) -> Iterator[str]:
        """Raw scores of sums. Lanes come last to first: the first is the register itself."""
        forest, real = self.forest, self.real
        for o, register, lane in reversed(self._places(outputs)):
            at = 30 if lane else register
            if lane:
                yield f"    mov {real}{at}, v{register}.{real}[{lane}]"
            if forest.divisor != 1:
                yield f"    ldr {real}31, {self.literal([forest.divisor])}"
                yield f"    fdiv {real}{at}, {real}{at}, {real}31"
            if not forest.base_first and forest.base[o] != 0:
                yield from self._add_base(at, forest.base[o])
            if forest.single:
                yield f"    fcvt d{at}, s{at}"
            yield f"    ldr x30, [sp, #{self.out_at}]\n    str d{at}, [x30, #{8 * o}]"

    def _places(self, outputs: tuple[int, ...]) -> list[tuple[int, int, int]]:
        """For each output the register of its sum and its lane there."""
        if outputs == (-1,):
            size = lanes(self.forest)
            return [(o, o // size, o % size) for o in range(self.forest.n_outputs)]
        return [(o, 0, lane) for lane, o in enumerate(outputs)]

    def _add_base(self, register: int, base: float) -> Iterator[str]:
        """Add a base score after the trees: in float64, as Treelite does, whatever the sums are in."""
        bits = int.from_bytes(struct.pack("<d", base), "little")
        yield f"    movz x30, #{bits & 0xFFFF}"
        for shift in (16, 32, 48):
            yield f"    movk x30, #{bits >> shift & 0xFFFF}, lsl #{shift}"
        yield "    fmov d31, x30"
        if self.forest.single:
            yield f"    fcvt d{register}, s{register}"
        yield f"    fadd d{register}, d{register}, d31"
        if self.forest.single:
            yield f"    fcvt s{register}, d{register}"

    def last_additions(self, number: int) -> Iterator[str]:
        """Add the values that still wait at a group's end."""
        for register in self.left[number]:
            yield self._add(self.flow.groups[number].trees[0], register)

    def constants(self) -> Iterator[str]:
        """Outputs that no tree adds to."""
        present = {o for g in self.flow.groups for o in g.outputs}
        for o in range(self.forest.n_outputs):
            if -1 not in present and o not in present:
                yield from self.start((o,))
                yield from self.finish((o,))


def _waits(flow: Flow) -> tuple[dict[int, _Wait], list[list[int]]]:
    """Where each tree's value waits; for each group, registers in the order to add them at its end.

    When the trees of a window have been evaluated, a value is added to each sum for each tree of lane 0 in the
    next window, and makes room for the value of that.
    """
    waits: dict[int, _Wait] = {}
    left = [_group_waits(group, waits) for group in flow.groups]
    return waits, left


def _group_waits(group: Group, waits: dict[int, _Wait]) -> list[int]:
    if group.outputs == (-1,):  # leaves of these add a vector themselves
        return []
    per_lane = len(group.trees) // len(group.outputs)
    turn = {tree: number for one in group.in_turn for number, tree in enumerate(one)}
    queue: list[int] = []
    for start in range(0, per_lane, WINDOW):
        size = min(WINDOW, per_lane - start)
        of = group.trees[start * len(group.outputs) : (start + size) * len(group.outputs)]
        free = queue[:size] if queue else list(_WAITING[:size])
        register = {turn[tree]: free[k] for k, tree in enumerate(of[:size])}
        for k, tree in enumerate(of):
            waits[tree] = _Wait(register[turn[tree]], k // size, bool(queue) and k < size)
        queue = queue[size:] + [register[n] for n in range(start, start + size)]
    return queue
