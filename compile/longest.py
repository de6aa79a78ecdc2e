"""The longest way through machine code: no call can take more instructions, whatever its row.

A way through a function is its way through the blocks with every loop taken once, and for each further turn of a
loop the loop's longest turn. So the bound is the longest way without turns (one pass over a graph without cycles)
and, of each loop, its longest turn times the most turns that all of a call can make. Ways that no row goes count
too. How often a loop turns is what the emitter says of its own loops (see rank_loops.py); of others, what the model
says, where which loop is which is inferred from some rows (see turns.py). All else is read from the code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from compile import elf, rank_loops, turns
from compile.emulate import Machine, Out
from compile.forest import Forest
from compile.machine_code import Block, Function, Unreadable, decoder, functions, reader
from compile.targets import Form, Target
from compile.toolchain import image

MAX_TOGETHER = 6
"""Loops among which those are looked for that share out one thing."""


class Loop(NamedTuple):
    """One loop. header: its first block; back: the blocks that turn to it; enter: those that come from outside.

    turn: the longest way around, in instructions, inner loops taken once. function: where that begins.
    """

    function: int
    header: int
    back: tuple[int, ...]
    enter: tuple[int, ...]
    turn: int


class Way(NamedTuple):
    """The longest way through a function and all that it calls, loops taken once; and the loops."""

    longest: int
    loops: tuple[Loop, ...]


class Most(NamedTuple):
    """The most instructions of a call. inferred: some loop's turns are from sample rows, so it is not proven."""

    instructions: int
    inferred: bool


def most_instructions(
    artifact: bytes, target: Target, symbol: str, forest: Forest, rank_turns: Sequence[int] = ()
) -> Most:
    """The most instructions of one call of a model's entry point. Raises Unreadable, which says why not.

    rank_turns: the most turns of the emitter's loops over thresholds, in the order of the code (see rank_loops.py).
    """
    linked = elf.parse(
        image(artifact, target) if target.form is Form.FREESTANDING else artifact, what=target.name
    )
    entry = linked.exports[symbol]
    code = functions(decoder(target.machine, linked), entry)
    found = way(code, entry)
    known = {}
    if rank_turns:
        known = rank_loops.most_turns(code, entry, reader(linked), rank_turns, forest.n_outputs)
    total = found.longest
    # A loop of one turn in all is in the longest way already.
    total += sum(
        max(known[loop.function, loop.header] - 1, 0) * loop.turn
        for loop in found.loops
        if (loop.function, loop.header) in known
    )
    rest = [loop for loop in found.loops if (loop.function, loop.header) not in known]
    if rest:
        rows = turns.sample(forest)
        counters = turns.counters(forest, rows)
        counted = _turns(Machine(target, artifact), symbol, rest, rows, Out(8 * forest.n_outputs))
        total += _all_turns(rest, counted, counters)
    return Most(total, bool(rest))


def _all_turns(loops: Sequence[Loop], counted: turns.Counts, counters: Sequence[turns.Counter]) -> int:
    """The most instructions of all turns of all loops."""
    most = [turns.most_turns(of, counters) for of in counted.T]
    total = sum(n * loop.turn for n, loop in zip(most, loops, strict=True) if n is not None)
    left = [k for k, n in enumerate(most) if n is None]
    together = turns.most_together(counted[:, left], counters) if len(left) <= MAX_TOGETHER else {}
    explained = {left[k] for group in together for k in group}
    for k in left:
        if k not in explained:
            raise Unreadable(f"the loop at {loops[k].header:#x} turns as often as nothing in the model")
    return total + sum(n * max(loops[left[k]].turn for k in group) for group, n in together.items())


def _turns(machine: Machine, symbol: str, loops: Sequence[Loop], rows: turns.Rows, out: Out) -> turns.Counts:
    """Turns of each loop on each row, (rows, loops)."""
    now, comes_back = [0] * len(loops), [False] * len(loops)

    def at_header(number: int) -> None:
        now[number] += comes_back[number]
        comes_back[number] = False

    def before_header(number: int, inside: bool) -> None:
        comes_back[number] = inside

    for number, loop in enumerate(loops):  # the header first: a block can be a loop of its own
        machine.watch(loop.header, partial(at_header, number))
        for address in loop.back:
            machine.watch(address, partial(before_header, number, True))
        for address in loop.enter:
            machine.watch(address, partial(before_header, number, False))
    counted = []
    for row in rows:
        now[:] = [0] * len(loops)
        machine.call(symbol, row.tobytes(), out)
        counted.append(now.copy())
    return np.array(counted, np.int64)


def way(functions: Mapping[int, Function], entry: int) -> Way:
    """Of the function at `entry`. Raises Unreadable where it recurses, or a loop has two ways in."""
    loops: list[Loop] = []
    done: dict[int, int] = {}
    under_way: set[int] = set()

    def of(at: int) -> int:
        if at in under_way:
            raise Unreadable(f"the function at {at:#x} calls itself")
        if at not in done:
            under_way.add(at)
            blocks = functions[at].blocks
            weight = {b.start: b.instructions + sum(map(of, b.calls)) for b in blocks.values()}
            done[at] = max(_Graph(blocks, weight, loops, at).distances(list(blocks), at).values())
            under_way.remove(at)
        return done[at]

    return Way(of(entry), tuple(loops))


class _Graph:
    """One function's blocks, each with what it and its calls take."""

    def __init__(
        self, blocks: Mapping[int, Block], weight: Mapping[int, int], loops: list[Loop], entry: int
    ) -> None:
        self.blocks, self.weight, self.loops, self.entry = blocks, weight, loops, entry

    def distances(self, nodes: Sequence[int], first: int) -> dict[int, int]:
        """The longest way from `first` to the end of each of `nodes`, within them, and never back to `first`."""
        inside = set(nodes)
        after = {n: [s for s in self.blocks[n].successors if s in inside and s != first] for n in nodes}
        arrival: dict[int, int] = {first: 0}
        found: dict[int, int] = {}
        for part in reversed(_components(after, first)):
            header = part[0]
            if len(part) > 1 or header in after[header]:
                header = self._header(part, after, first)
                inner = self._loop(part, header, inside)
            else:
                inner = {header: self.weight[header]}
            begin = arrival[header]
            members = set(part)
            leaving = [n for n in part if any(s not in members for s in after[n])]
            exit_at = begin + max((inner[n] for n in leaving), default=0)
            found |= {n: begin + distance for n, distance in inner.items()}
            for n in leaving:
                for s in after[n]:
                    if s not in members:
                        arrival[s] = max(arrival.get(s, 0), exit_at)
        return found

    def _header(self, part: Sequence[int], after: Mapping[int, Sequence[int]], first: int) -> int:
        members = set(part)
        headers = {s for n, of in after.items() if n not in members for s in of if s in members}
        headers |= members & {first}
        if len(headers) != 1:
            raise Unreadable(f"the loop at {min(members):#x} has {len(headers)} ways in")
        return headers.pop()

    def _loop(self, part: Sequence[int], header: int, outside: set[int]) -> dict[int, int]:
        """A loop's inner distances; notes the loop."""
        inner = self.distances(part, header)
        back = [n for n in part if header in self.blocks[n].successors]
        members = set(part)
        enter = [n for n in outside - members if header in self.blocks[n].successors]
        self.loops.append(
            Loop(
                self.entry,
                header,
                tuple(back),
                tuple(enter),
                max(inner[n] for n in back),
            )
        )
        return inner


def _components(after: Mapping[int, Sequence[int]], first: int) -> list[list[int]]:
    """Strongly connected components of what is reached from `first`, the last ones first (Tarjan 1972)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    parts: list[list[int]] = []
    work: list[tuple[int, int]] = [(first, 0)]
    while work:
        node, at = work.pop()
        if at == 0:
            index[node] = low[node] = len(index)
            stack.append(node)
            on_stack.add(node)
        successors = after[node]
        while at < len(successors):
            following = successors[at]
            at += 1
            if following not in index:
                work += [(node, at), (following, 0)]
                break
            if following in on_stack:
                low[node] = min(low[node], index[following])
        else:
            if work:
                parent = work[-1][0]
                low[parent] = min(low[parent], low[node])
            if low[node] == index[node]:
                part = [node]
                while (member := stack.pop()) != node:
                    part.append(member)
                on_stack.difference_update(part)
                parts.append(part)
    return parts
