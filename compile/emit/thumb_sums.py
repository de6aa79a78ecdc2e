"""The sums of the Thumb-2 code: where they are kept, and what a leaf does to them.

One output's sum is in a register (r12, s0, d0), or unpacked in three (see soft_sum). Where leaves add to all
outputs, each output has a register of its own, and a leaf's values lie in one row:

    fixed:      addw r12, r12, #310         as an immediate each
                subw r11, r11, #7
    double:     adr r0, .Ll17               all at once
                vldm r0, {d24-d27}
                vadd.f64 d0, d0, d24        ...
    soft:       adr r0, .Ll17               one after the other; r8: the sums, in memory
                bl .Lrow

A value of zero is left out where that saves something: no sum is ever -0, so adding 0 changes nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from enum import Enum

from compile.emit import soft_sum
from compile.forest import Forest


class Sum(Enum):
    """What leaves are added in: the C type of a sum."""

    FIXED = "int32_t"
    SINGLE = "float"
    DOUBLE = "double"
    SOFT = "edge_sum"  # doubles without a unit for them: see soft_sum


MAX_OUTPUTS = {Sum.FIXED: 6, Sum.SINGLE: 8, Sum.DOUBLE: 16, Sum.SOFT: 16}
"""Outputs that a leaf with a vector can add to: as many as there are registers for, and some for ranks."""
_FIXED = ("r12", "r11", "r10", "r9", "r8", "r7")
_SOFT = ("r3", "r4", "r5", "r6", "r7", "r8", "r9")
_ROW, _SUMS = "r9", "r8"
_REGISTERS = ("r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "lr", "r12")
_LOADED = {Sum.SINGLE: ("s", 8), Sum.DOUBLE: ("d", 24)}
"""Eight registers that a row is loaded to: these, like those of the sums, a function need not give back."""
_AT_ONCE = 8


def fits(forest: Forest, total: Sum) -> bool:
    """Whether there are registers for a model's sums."""
    width = forest.leaf_values.shape[1]
    return width == 1 or width <= MAX_OUTPUTS[total]


class Sums:
    """Writes them for one model. literal: where bytes lie that are laid down within reach of the code."""

    def __init__(self, forest: Forest, total: Sum, literal: Callable[[bytes], str]) -> None:
        self.forest, self.total, self.literal = forest, total, literal
        self.width = forest.leaf_values.shape[1]
        self.vector = self.width > 1
        self.real, self.suffix, self.packed = {
            Sum.SINGLE: ("s", "f32", "f"), Sum.DOUBLE: ("d", "f64", "d")
        }.get(total, ("", "", ""))  # fmt: skip
        self.low = soft_sum.lowest(forest) if total is Sum.SOFT else 0
        self.values: list[list[float]] = forest.leaf_values[forest.leaf].tolist()

    @property
    def free(self) -> list[str]:
        """Registers that sums leave to ranks, best first: a compare with r1 to r7 is short."""
        if self.total is Sum.SOFT:
            return [r for r in _SOFT if not (self.vector and r in {_ROW, _SUMS})]
        taken = _FIXED[: self.width] if self.total is Sum.FIXED else ()
        return [r for r in _REGISTERS if r not in taken]

    def start(self, output: int) -> Iterator[str]:
        """Begin the sum of an output; of all outputs for -1."""
        if self.total is Sum.SOFT and output < 0:
            yield f"    ldr {_SUMS}, [sp]"
        for place, o in enumerate(self._outputs(output)):
            base = float(self.forest.base[o]) if self.forest.base_first else 0.0
            if self.total is Sum.FIXED:
                low, high = int(base) & 0xFFFF, int(base) >> 16 & 0xFFFF
                yield f"    movw {_FIXED[place]}, #{low}\n    movt {_FIXED[place]}, #{high}"
            elif self.total is Sum.SOFT:
                yield from soft_sum.start_s(base)
                if output < 0:
                    yield from self._move_sum("str", o)
            else:
                yield f"    vldr {self._sum(place)}, {self.literal(self._pack([base]))}"

    def store(self, output: int) -> Iterator[str]:
        """Store the sum of an output, or of all for -1."""
        if self.total is Sum.SOFT and output < 0:
            return  # they are there
        yield "    ldr r0, [sp]"
        for place, o in enumerate(self._outputs(output)):
            if self.total is Sum.FIXED:
                yield f"    str {_FIXED[place]}, [r0, #{4 * o}]"
            elif self.total is Sum.SOFT:
                for at, register in enumerate((soft_sum.LO, soft_sum.HI, soft_sum.SCALE)):
                    yield f"    str {register}, [r0, #{12 * o + 4 * at}]"
            else:
                yield f"    vstr {self._sum(place)}, [r0, #{struct.calcsize(self.packed) * o}]"

    def load(self, node: int) -> list[str]:
        """Load a leaf's value into d1, s1, r0, or r0 and r1."""
        value = self.values[node][0]
        if self.total is Sum.FIXED:
            whole = int(value)
            lines = [f"    movw r0, #{whole & 0xFFFF}"]
            return [*lines, f"    movt r0, #{whole >> 16 & 0xFFFF}"] if whole >> 16 else lines
        if self.total is Sum.SOFT:
            return [f"    ldrd r0, r1, {self.literal(self._pack([value]))}"]
        return [f"    vldr {self.real}1, {self.literal(self._pack([value]))}"]

    def add_loaded(self) -> list[str]:
        """Add it to the sum."""
        if self.total is Sum.FIXED:
            return ["    add r12, r0"]
        if self.total is Sum.SOFT:
            return ["    bl .Lsum"]
        return [f"    vadd.{self.suffix} {self.real}0, {self.real}0, {self.real}1"]

    def add(self, node: int) -> list[str]:
        """Add a leaf's value, or all of its values."""
        values = self.values[node]
        if self.total is Sum.FIXED:
            pairs = zip(_FIXED, values, strict=False)
            return [line for register, value in pairs for line in _add_whole(register, int(value))]
        if not any(values):
            return []
        if not self.vector:
            return [*self.load(node), *self.add_loaded()]
        if self.total is Sum.SOFT:
            return [f"    adr r0, {self.literal(self._pack(values))}", "    bl .Lrow"]
        present = [place for place, value in enumerate(values) if value]
        lines = [f"    adr r0, {self.literal(self._pack([values[place] for place in present]))}"]
        for at in range(0, len(present), _AT_ONCE):
            some = present[at : at + _AT_ONCE]
            first = _LOADED[self.total][1]
            on = "!" if at + _AT_ONCE < len(present) else ""
            lines.append(f"    vldm r0{on}, {{{self.real}{first}-{self.real}{first + len(some) - 1}}}")
            for register, place in enumerate(some, first):
                lines.append(
                    f"    vadd.{self.suffix} {self._sum(place)}, {self._sum(place)}, {self.real}{register}"
                )
        return lines

    def routines(self) -> Iterator[str]:
        """What leaves call."""
        if self.total is not Sum.SOFT:
            return
        yield soft_sum.ADD_S
        if self.vector:
            yield f"    .p2align 2\n.Lrow:\n    push {{r3, lr}}\n    mov {_ROW}, r0"
            for o in range(self.width):
                yield from self._move_sum("ldr", o)
                yield f"    ldrd r0, r1, [{_ROW}, #{8 * o}]\n    bl .Lsum"
                yield from self._move_sum("str", o)
            yield "    pop {r3, pc}"

    def _outputs(self, output: int) -> range:
        return range(self.width) if output < 0 else range(output, output + 1)

    def _sum(self, place: int) -> str:
        return f"{self.real}{place if place < _AT_ONCE else place + 8}"

    def _pack(self, values: list[float]) -> bytes:
        if self.total is Sum.SOFT:
            return struct.pack(f"<{len(values)}Q", *(soft_sum.literal(value, self.low) for value in values))
        return struct.pack(f"<{len(values)}{self.packed}", *values)

    def _move_sum(self, operation: str, output: int) -> Iterator[str]:
        """Load or store one of several unpacked sums."""
        yield f"    {operation}d {soft_sum.LO}, {soft_sum.HI}, [{_SUMS}, #{12 * output}]"
        yield f"    {operation} {soft_sum.SCALE}, [{_SUMS}, #{12 * output + 8}]"


def _add_whole(register: str, value: int) -> list[str]:
    """Add a whole number that is known."""
    size, operation = abs(value), "add" if value > 0 else "sub"
    if not size:
        return []
    if size < 4096:
        return [f"    {operation}w {register}, {register}, #{size}"]
    if size < 65536:
        return [f"    movw r0, #{size}", f"    {operation} {register}, {register}, r0"]
    return [
        f"    movw r0, #{value & 0xFFFF}",
        f"    movt r0, #{value >> 16 & 0xFFFF}",
        f"    add {register}, r0",
    ]
