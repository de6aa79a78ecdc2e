"""The most instructions that a call can take, whatever its row, proven from the machine code.

Code is a graph of basic blocks. Each loop that an emitter writes carries a mark, which takes no instruction (see
emit/turns.py), and of each kind of mark it is known how often one call passes it at most. The most that a way
through the graph can take under those limits is an integer program (implicit path enumeration: Li and Malik, DAC
1995). What is computed here is a bound on it by duality: for any prices of the kinds of marks, none negative, no way
takes more than the limits times the prices, and the longest way where passing a mark earns its price back. The
longest way exists where no cycle gains; so prices are raised until none does, and the rest is exact, in integers.

Ways that no row takes count too: the bound is never too small, and may be larger than what any row does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from compile.machine_code import Block, Function, Unreadable

_SCALE = 840
"""Prices are multiples of a 840th instruction: a cycle can have up to 8 marks and share its cost out exactly."""


class Mark(NamedTuple):
    """A place in the code, between two instructions, that one turn of a kind of loop passes once."""

    address: int
    kind: int


def most_instructions(
    code: Mapping[int, Function],
    entry: int,
    marks: Sequence[Mark],
    most: Mapping[int, int],
    *,
    thumb: bool = False,
) -> int:
    """The most instructions of one call of the function at `entry`.

    code: functions by address, all that can be called among them. most: for each kind of mark, how many one call
    passes at most; of a kind that is not there, any number. thumb: addresses of code are odd where it is Thumb, those
    of marks are not. Raises Unreadable where a loop has no such mark, or a
    function calls itself.
    """
    order = _callees_first(code, entry)
    passed = {}
    for at in order:
        bit = at & 1 if thumb else 0
        passed[at] = _placed(code[at].blocks, [Mark(m.address | bit, m.kind) for m in marks])
    graphs = {at: _Graph(code[at].blocks, at) for at in order}
    price = dict.fromkeys(most, 0)

    def gains() -> dict[int, int]:
        """The longest way through each function, at the prices."""
        ways: dict[int, int] = {}
        for at in order:
            ways[at] = graphs[at].longest(_gain(code[at].blocks, passed[at], price, ways))
        return ways

    ways: dict[int, int] = {}
    for at in order:
        while True:
            gain = _gain(code[at].blocks, passed[at], price, ways)
            cycle = graphs[at].gaining_cycle(gain)
            if cycle is None:
                break
            _raise(price, sum((passed[at].get(n, Counter()) for n in cycle), Counter()), most, cycle, gain)
        ways[at] = graphs[at].longest(gain)
    return (gains()[entry] + sum(price[kind] * most[kind] for kind in most)) // _SCALE


def _raise(
    price: dict[int, int],
    passed: Counter[int],
    most: Mapping[int, int],
    cycle: Sequence[int],
    gain: Mapping[int, int],
) -> None:
    """Raise the price of the mark on a cycle for which that costs least, so that the cycle gains nothing."""
    limited = [kind for kind in passed if kind in most]
    if not limited:
        raise Unreadable(f"the loop at {min(cycle):#x} turns as often as nothing in the model")
    kind = min(limited, key=lambda k: (most[k] / passed[k], k))
    price[kind] += -(-sum(gain[n] for n in cycle) // passed[kind])


def _gain(
    blocks: Mapping[int, Block],
    passed: Mapping[int, Counter[int]],
    price: Mapping[int, int],
    ways: Mapping[int, int],
) -> dict[int, int]:
    gain = {n: _SCALE * b.instructions + sum(ways[c] for c in b.calls) for n, b in blocks.items()}
    for n, kinds in passed.items():
        gain[n] -= sum(price.get(kind, 0) * count for kind, count in kinds.items())
    return gain


def _callees_first(code: Mapping[int, Function], entry: int) -> list[int]:
    order: list[int] = []
    under_way: set[int] = set()
    todo: list[tuple[int, bool]] = [(entry, False)]
    while todo:
        at, done = todo.pop()
        if done:
            order.append(at)
            under_way.remove(at)
        elif at in under_way:
            raise Unreadable(f"the function at {at:#x} calls itself")
        elif at not in order:
            under_way.add(at)
            todo.append((at, True))
            todo += [(c, False) for b in code[at].blocks.values() for c in b.calls if c not in order]
    return order


def _placed(blocks: Mapping[int, Block], marks: Sequence[Mark]) -> dict[int, Counter[int]]:
    """Which marks a pass through each block passes; `marks` in the order of the code.

    Those at a block's first instruction may be that block's, or the last thing in the block that runs into it: the
    first of them in the one before, the last in the one behind. As every loop has a mark, one is where a loop would
    have none without it; where that leaves it open, it is counted in the block before, which leads nowhere else and
    so is not passed more often than the mark in either case.
    """
    runs_into = {b.end: n for n, b in blocks.items() if b.falls_through}
    inside = sorted(blocks.values())
    placed: dict[int, Counter[int]] = {}
    between: dict[int, list[int]] = {}
    for mark in marks:
        at = mark.address
        if at in blocks and at in runs_into:
            between.setdefault(at, []).append(mark.kind)
            continue
        for b in inside:
            if b.start <= at < b.end:
                placed.setdefault(b.start, Counter())[mark.kind] += 1
    certain = set(placed)
    for after, kinds in between.items():
        before = runs_into[after]
        others = certain | {n for at in between if at != after for n in (at, runs_into[at])}
        here = _on_cycle(blocks, after, others | {before})
        there = _on_cycle(blocks, before, others | {after})
        if here and there and len(kinds) == 1:
            raise Unreadable(f"of the loops at {before:#x} and {after:#x} one turns as often as nothing")
        if here:
            placed.setdefault(after, Counter())[kinds.pop()] += 1
        placed.setdefault(before, Counter()).update(kinds)
    return placed


def _on_cycle(blocks: Mapping[int, Block], start: int, without: set[int]) -> bool:
    """Whether a way leads from a block back to it, past none of `without`, which it is not one of."""
    if start in without:
        return False
    seen: set[int] = set()
    todo = list(blocks[start].successors)
    while todo:
        n = todo.pop()
        if n == start:
            return True
        if n not in seen and n not in without:
            seen.add(n)
            todo += blocks[n].successors
    return False


class _Graph:
    """A function's blocks in an order in which each comes after those that lead to it, loops in one piece."""

    def __init__(self, blocks: Mapping[int, Block], entry: int) -> None:
        self.entry = entry
        self.after = {n: b.successors for n, b in blocks.items()}
        self.ends = {n for n, b in blocks.items() if b.leaves}
        self.parts = list(reversed(_components(self.after, entry)))
        self.loops = [p for p in self.parts if len(p) > 1 or p[0] in self.after[p[0]]]

    def gaining_cycle(self, gain: Mapping[int, int]) -> list[int] | None:
        """Blocks of a cycle that gains something, None where there is none."""
        for part in self.loops:
            cycle = self._gaining(part, gain)
            if cycle is not None:
                return cycle
        return None

    def _gaining(self, part: Sequence[int], gain: Mapping[int, int]) -> list[int] | None:
        best = {n: gain[n] for n in part}
        came: dict[int, int] = {}
        changed = part[0]
        for _ in range(len(part) + 1):
            changed = -1
            for n in part:
                for s in self.after[n]:
                    if s in best and best[n] + gain[s] > best[s]:
                        best[s] = best[n] + gain[s]
                        came[s] = changed = n
                        changed = s
            if changed == -1:
                return None
        for _ in part:  # from what still changes, back into the cycle
            changed = came[changed]
        cycle = [changed]
        while (n := came[cycle[-1]]) != changed:
            cycle.append(n)
        return cycle

    def longest(self, gain: Mapping[int, int]) -> int:
        """The longest way from the entry to an end. No cycle may gain."""
        arrival = {self.entry: 0}
        longest = 0
        for part in self.parts:
            members = set(part)
            todo = [n for n in part if n in arrival]
            while todo:
                n = todo.pop()
                leaving = arrival[n] + gain[n]
                if n in self.ends:
                    longest = max(longest, leaving)
                for s in self.after[n]:
                    if arrival.get(s, leaving - 1) < leaving:
                        arrival[s] = leaving
                        if s in members:
                            todo.append(s)
        return longest


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
