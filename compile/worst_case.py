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

from bisect import bisect
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
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
    graphs = {}
    for at in order:
        bit = at & 1 if thumb else 0
        graphs[at] = _Graph(code[at].blocks, at, [Mark(m.address | bit, m.kind) for m in marks])
    price = dict.fromkeys(most, 0)
    ways: dict[int, int] = {}
    for at in order:
        graph = graphs[at]
        while (cycle := graph.gaining_cycle(ways, price)) is not None:
            _raise(price, most, graph.passed(cycle), graph.gain(cycle, ways, price), min(cycle))
        ways[at] = graph.longest(ways, price)
    for at in order:  # what was dear only later
        ways[at] = graphs[at].longest(ways, price)
    return (ways[entry] + sum(price[kind] * most[kind] for kind in most)) // _SCALE


def _raise(
    price: dict[int, int], most: Mapping[int, int], passed: Counter[int], gain: int, where: int
) -> None:
    """Raise the price of the mark on a cycle for which that costs least, so that the cycle gains nothing."""
    limited = [kind for kind in passed if kind in most]
    if not limited:
        raise Unreadable(f"the loop at {where:#x} turns as often as nothing in the model")
    kind = min(limited, key=lambda k: (most[k] / passed[k], k))
    price[kind] += -(-gain // passed[kind])


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


class _Graph:
    """A function's blocks, each after those that lead to it, loops in one piece; and which marks ways pass."""

    def __init__(self, blocks: Mapping[int, Block], entry: int, marks: Sequence[Mark]) -> None:
        self.blocks, self.entry = blocks, entry
        self.after = {n: b.successors for n, b in blocks.items()}
        self.parts = list(reversed(_components(self.after, entry)))
        self.loops = [p for p in self.parts if len(p) > 1 or p[0] in self.after[p[0]]]
        self.inside, self.between = _placed(blocks, marks)

    def passed(self, cycle: Sequence[int]) -> Counter[int]:
        """Marks on a cycle."""
        found: Counter[int] = Counter()
        for n, s in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            found += self.inside.get(n, Counter()) + self.between.get((n, s), Counter())
        return found

    def gain(self, cycle: Sequence[int], ways: Mapping[int, int], price: Mapping[int, int]) -> int:
        """What a cycle gains."""
        gain, toll = self._gains(cycle, ways, price)
        return sum(gain.values()) - sum(
            toll.get(e, 0) for e in zip(cycle, [*cycle[1:], cycle[0]], strict=True)
        )

    def _gains(
        self, part: Sequence[int], ways: Mapping[int, int], price: Mapping[int, int]
    ) -> tuple[dict[int, int], dict[tuple[int, int], int]]:
        """What blocks gain, less the price of their marks, and the price of those on the ways between them."""

        def dear(kinds: Counter[int]) -> int:
            return sum(price.get(kind, 0) * count for kind, count in kinds.items())

        gain = {}
        for n in part:
            block = self.blocks[n]
            gain[n] = _SCALE * block.instructions + sum(ways[c] for c in block.calls)
            if n in self.inside:
                gain[n] -= dear(self.inside[n])
        return gain, {edge: dear(kinds) for edge, kinds in self.between.items()}

    def gaining_cycle(self, ways: Mapping[int, int], price: Mapping[int, int]) -> list[int] | None:
        """Blocks of a cycle that gains something, None where there is none."""
        for part in self.loops:
            cycle = self._gaining(part, *self._gains(part, ways, price))
            if cycle is not None:
                return cycle[::-1]
        return None

    def _gaining(
        self, part: Sequence[int], gain: Mapping[int, int], toll: Mapping[tuple[int, int], int]
    ) -> list[int] | None:
        best = {n: gain[n] for n in part}
        came: dict[int, int] = {}
        changed = -1
        for _ in range(len(part) + 1):
            changed = -1
            for n in part:
                for s in self.after[n]:
                    if s in best and best[n] - toll.get((n, s), 0) + gain[s] > best[s]:
                        best[s] = best[n] - toll.get((n, s), 0) + gain[s]
                        came[s] = n
                        changed = s
            if changed < 0:
                return None
        for _ in part:  # from what still changes, back into the cycle
            changed = came[changed]
        cycle = [changed]
        while (n := came[cycle[-1]]) != changed:
            cycle.append(n)
        return cycle

    def longest(self, ways: Mapping[int, int], price: Mapping[int, int]) -> int:
        """The longest way from the entry to an end. No cycle may gain."""
        gain, toll = self._gains(list(self.blocks), ways, price)
        arrival = {self.entry: 0}
        longest = 0
        for part in self.parts:
            members = set(part)
            todo = [n for n in part if n in arrival]
            while todo:
                n = todo.pop()
                leaving = arrival[n] + gain[n]
                if self.blocks[n].leaves:
                    longest = max(longest, leaving)
                for s in self.after[n]:
                    there = leaving - toll.get((n, s), 0)
                    if arrival.get(s, there - 1) < there:
                        arrival[s] = there
                        if s in members:
                            todo.append(s)
        return longest


def _placed(
    blocks: Mapping[int, Block], marks: Sequence[Mark]
) -> tuple[dict[int, Counter[int]], dict[tuple[int, int], Counter[int]]]:
    """Which marks are passed in each block, and which on the way from one to the next; `marks` in the code's order.

    At a block's first instruction, who comes from the one before passes all marks. Who jumps there may pass the last
    few or none: the last, where that closes a loop that has no other mark, as every loop has one. Else it is left
    open, which makes the bound no smaller.
    """
    inside: dict[int, Counter[int]] = {}
    at_start: dict[int, list[int]] = {}
    order = sorted(blocks)
    for mark in marks:
        if mark.address in blocks:
            at_start.setdefault(mark.address, []).append(mark.kind)
            continue
        n = order[bisect(order, mark.address) - 1]
        if n < mark.address < blocks[n].end:
            inside.setdefault(n, Counter())[mark.kind] += 1
    between: dict[tuple[int, int], Counter[int]] = {}
    for n, block in blocks.items():
        for s in set(block.successors) & at_start.keys():
            falls = block.falls_through and s == block.end
            if falls and block.successors.count(s) == 1:
                between[n, s] = Counter(at_start[s])
            elif not falls and _closes_a_loop(blocks, n, s, inside.keys(), at_start.keys()):
                between[n, s] = Counter(at_start[s][-1:])
    return inside, between


def _closes_a_loop(
    blocks: Mapping[int, Block], last: int, first: int, marked: Collection[int], beginnings: Collection[int]
) -> bool:
    """Whether a way leads from one block to another past no mark for certain."""
    if first in marked or last in marked:
        return False
    seen = {first}
    todo = [first]
    while todo:
        n = todo.pop()
        if n == last:
            return True
        for s in blocks[n].successors:
            if s not in seen and s not in marked and s not in beginnings:
                seen.add(s)
                todo.append(s)
    return False


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
