"""Trees as one flow of control: which test follows which, with the tests that are already decided left out.

Outputs are independent sums, so trees are taken output by output, in each output in the model's order. A leaf
knows a range for every slot on its path; where that decides the root of the next tree (and the test after it),
the leaf goes straight to the first test that is open. What is known at a node is the hull of what is known on
all ways that lead to it, carried from tree to tree. Tests that no way reaches are dead and not emitted.

    tree t:    ... leaf (f3 in 0..17) ------+            the root of tree t+1 asks f3 <= 40:
               ... leaf (f3 in 50..99) --+  |            both leaves pass it by
    tree t+1:  root: f3 <= 40 ?          |  |
                 left: f7 <= 5 ? <-------|--+
                 right: f1 <= 9 ? <------+

A hot leaf gets copies of the next tests instead of a jump to them, and knows more after each. A cold leaf goes
to the next tree's root whatever it knows, so that it can share the code in front of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from compile.forest import Floats, Ints
from compile.ranks import Ranks

END = -1
"""The target of a leaf of a group's last tree."""
MAX_SLOTS = 256
"""With more slots than this, what a leaf knows is not carried into the next tree: it would be too much."""


class Group(NamedTuple):
    """Trees that add to one output (-1: to all), in order."""

    output: int
    trees: tuple[int, ...]


class Copy(NamedTuple):
    """A copy of a test at the end of a leaf: on `goes_left` to `target`, else on to what follows it."""

    node: int
    goes_left: bool
    target: int


@dataclass(frozen=True, slots=True)
class Taste:
    """What an emitter wants: the executions per inference above which a leaf gets copies of the next tests,
    and below which it goes to the next root plainly.
    """

    copy_from: float
    plain_below: float


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """Where control goes. Arrays are (nodes,) in the Forest's numbering.

    left, right: a split's targets, after leaving out what is decided. after: a leaf's target (behind its
    copies), or END. copies: of leaves that have some. plain: leaves that go to the root in any case.
    mass: how often an inference executes the node; 0 where no way leads to it. tested: the same for a split's
    test, copies included. live: whether the node is reached at all.
    order: for each group, its live nodes in the order to emit them, the colder side of a split first, so that
    the hottest leaf of a tree falls through into the next tree.
    """

    ranks: Ranks
    groups: tuple[Group, ...]
    left: Ints
    right: Ints
    after: Ints
    copies: dict[int, list[Copy]]
    plain: frozenset[int]
    mass: Floats
    tested: Floats
    live: NDArray[np.bool_]
    order: tuple[Sequence[int], ...]


def flow_of(ranks: Ranks, taste: Taste) -> Flow:
    """The flow of a Forest."""
    outputs = ranks.forest.tree_output.tolist()
    groups = tuple(
        Group(output, tuple(t for t, o in enumerate(outputs) if o == output))
        for output in sorted(set(outputs))
    )
    threader = _Threader(ranks, taste)
    order = tuple(threader.run(group) for group in groups)
    return Flow(
        ranks,
        groups,
        np.array(threader.to_left, np.int32),
        np.array(threader.to_right, np.int32),
        np.array(threader.after, np.int32),
        threader.copies,
        frozenset(threader.plain),
        np.array(threader.mass),
        np.array(threader.tested),
        np.array(threader.live),
        order,
    )


State = tuple[list[int], list[int]]
"""The lowest and the highest rank that each numeric slot can have."""


class _Threader:
    """Carries, tree by tree, the range of every slot that is known at each node."""

    def __init__(self, ranks: Ranks, taste: Taste) -> None:
        forest = ranks.forest
        nodes = len(forest.feature)
        self.taste = taste
        # Plain lists: these are read one element at a time, where numpy is ten times slower.
        self.slot: list[int] = ranks.slot.tolist()
        self.rank: list[int] = ranks.rank.tolist()
        self.left: list[int] = forest.left.tolist()
        self.right: list[int] = forest.right.tolist()
        self.roots: list[int] = forest.roots.tolist()
        self.share_left: list[float] = _share_left(ranks).tolist()
        self.numeric = len(ranks.numeric)
        self.everything: State = [0] * self.numeric, [len(s.keys) for s in ranks.numeric]
        self.mass, self.tested = [0.0] * nodes, [0.0] * nodes
        self.live = [False] * nodes
        self.to_left, self.to_right, self.after = [END] * nodes, [END] * nodes, [END] * nodes
        self.copies: dict[int, list[Copy]] = {}
        self.plain: set[int] = set()
        self.known: dict[int, State] = {}

    def run(self, group: Group) -> list[int]:
        """Thread a group's trees; the order of its live nodes."""
        self.known = {}
        self._enter(self.roots[group.trees[0]], self.everything, 1.0)
        order: list[int] = []
        for tree, following in zip(group.trees, [*group.trees[1:], None], strict=True):
            leaves = self._splits(tree)
            laid = self._layout(tree)
            order += laid
            if following is not None:
                self._leaves(leaves, laid[-1], self.roots[following])
        return order

    def _splits(self, tree: int) -> dict[int, State]:
        """Walk a tree's splits, parents first; what is known at its leaves."""
        # Nodes are numbered breadth first: every child comes after its parent.
        for node in range(self.roots[tree], self.roots[tree + 1]):
            slot = self.slot[node]
            if slot < 0 or node not in self.known:
                continue
            state, mass = self.known.pop(node), self.mass[node]
            self.tested[node] += mass
            part = mass * self.share_left[node]
            below, above = self._sides(node, state)
            self.to_left[node] = self._go(self.left[node], below, part)
            self.to_right[node] = self._go(self.right[node], above, mass - part)
        leaves, self.known = self.known, {}
        return leaves

    def _leaves(self, leaves: dict[int, State], last: int, root: int) -> None:
        """Send a tree's leaves on to the next tree."""
        carries = self.numeric <= MAX_SLOTS
        for node, known in leaves.items():
            state, mass = known, self.mass[node]
            if mass < self.taste.plain_below or not carries:
                self.plain.add(node)
                self._enter(root, self.everything if not carries else state, mass)
                self.after[node] = root
                continue
            target = self._open(root, state)
            while node != last and mass > self.taste.copy_from and self.slot[target] >= 0:
                self.tested[target] += mass
                below, above = self._sides(target, state)
                share = self.share_left[target]
                left = share >= 0.5
                hot, state = (below, above) if left else (above, below)
                children = self.left[target], self.right[target]
                taken = self._go(children[not left], hot, mass * max(share, 1 - share))
                self.copies.setdefault(node, []).append(Copy(target, left, taken))
                mass *= min(share, 1 - share)
                target = self._open(children[left], state)
            self._enter(target, state, mass)
            self.after[node] = target

    def _sides(self, node: int, state: State) -> tuple[State, State]:
        """What is known on either side of a split."""
        slot = self.slot[node]
        if slot >= self.numeric:
            return state, state
        low, high = state
        up, down = low.copy(), high.copy()
        up[slot] = max(up[slot], self.rank[node] + 1)
        down[slot] = min(down[slot], self.rank[node])
        return (low, down), (up, high)

    def _open(self, node: int, state: State) -> int:
        """The first test at or below `node` that is not decided, or the leaf."""
        low, high = state
        while 0 <= (slot := self.slot[node]) < self.numeric:
            if high[slot] <= self.rank[node]:
                node = self.left[node]
            elif low[slot] > self.rank[node]:
                node = self.right[node]
            else:
                break
        return node

    def _go(self, node: int, state: State, mass: float) -> int:
        node = self._open(node, state)
        self._enter(node, state, mass)
        return node

    def _enter(self, node: int, state: State, mass: float) -> None:
        self.mass[node] += mass
        self.live[node] = True
        known = self.known.get(node)
        if known is not None:
            state = list(map(min, known[0], state[0])), list(map(max, known[1], state[1]))
        self.known[node] = state

    def _layout(self, tree: int) -> list[int]:
        """A tree's live nodes, depth first, the colder child first."""
        first, last = self.roots[tree], self.roots[tree + 1]
        heat = self.mass[first:last]
        for node in range(last - 1, first - 1, -1):
            if self.slot[node] >= 0:
                heat[node - first] = heat[self.left[node] - first] + heat[self.right[node] - first]
        order, stack = [], [first]
        while stack:
            node = stack.pop()
            if self.live[node]:
                order.append(node)
            if self.slot[node] >= 0:
                a, b = self.left[node], self.right[node]
                stack += [a, b] if heat[a - first] > heat[b - first] else [b, a]
        return order


def _share_left(ranks: Ranks) -> Floats:
    """The chance of going left at each split, not quite 0 or 1: no side of a live split is impossible."""
    forest = ranks.forest
    left, right = ranks.share[forest.left], ranks.share[forest.right]
    total = left + right
    share = np.divide(left, total, out=np.full(len(total), 0.5), where=total > 0)
    return np.clip(share, 1e-6, 1 - 1e-6)
