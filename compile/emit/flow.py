"""Trees as one flow of control: which test follows which, with the tests that are already decided left out.

Outputs are independent sums, so trees are taken output by output, in each output in the model's order. A way
through a tree leaves a range known for every slot on it; where that decides the root of the next tree (and the
test after it), the leaf goes straight to the first test that is open. Where ways meet, what is known is the hull
of what is known on each, carried from tree to tree. Tests that no way reaches are dead and not emitted.

    tree t:    ... leaf (f3 in 0..17) ------+            the root of tree t+1 asks f3 <= 40:
               ... leaf (f3 in 50..99) --+  |            both leaves pass it by
    tree t+1:  root: f3 <= 40 ?          |  |
                 left: f7 <= 5 ? <-------|--+
                 right: f1 <= 9 ? <------+

A node can have several versions, one for the ways that know more than the others do: its tests below are then
fewer. A version is made where the instructions that it saves outweigh those that it adds to the code (`Taste`).
How often each way is gone is taken from the counts in the model.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from compile.emit import layout
from compile.emit.facts import Edge, Facts, hull, narrowed
from compile.emit.sequence import in_sequence
from compile.forest import Floats
from compile.ranks import Ranks

END = -1
"""The target of a leaf of a group's last tree."""
MAX_SLOTS = 256
"""With more slots than this, what a leaf knows is not carried into the next tree: it would be too much."""


class Group(NamedTuple):
    """Trees whose values are added together.

    outputs: what they add to, (-1,) for all outputs. trees: in the order to evaluate them. in_turn: for each output
    its trees, in the order to add their values.
    """

    outputs: tuple[int, ...]
    trees: tuple[int, ...]
    in_turn: tuple[tuple[int, ...], ...]

    @property
    def output(self) -> int:
        """The output of a group that has one."""
        return self.outputs[0]


@dataclass(frozen=True, slots=True)
class Taste:
    """What an emitter wants. price: the instructions per inference that one more instruction of code must save.
    shared: whether leaves share the addition of their values in front of the test they go to.
    window: how many trees' values can wait to be added, so that these trees can be evaluated in another order.
    lanes: how many outputs' values can wait in one register. All but the first have no quick way to get there.
    """

    price: float
    shared: bool
    window: int = 1
    lanes: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """Where control goes, as blocks: versions of nodes. A block's targets have higher numbers than it has.

    node: of each block, its node in the Forest's numbering. left, right: a split's targets, after leaving out
    what is decided; a leaf's target, or END, is in both. mass: how often an inference executes the block.
    via: the leaf before the block's tree that all ways to the block come from, -1 where there are several.
    tested: (nodes,), how often an inference executes a node's test, in all of its versions.
    order: for each group its labels in the order to emit them: blocks, and `addition(block)` where leaves share
    the addition in front of a block.
    """

    ranks: Ranks
    groups: tuple[Group, ...]
    node: Sequence[int]
    left: Sequence[int]
    right: Sequence[int]
    mass: Sequence[float]
    via: Sequence[int]
    tested: Floats
    order: tuple[Sequence[int], ...]

    @property
    def group_of(self) -> dict[int, int]:
        """The group of each tree."""
        return {tree: number for number, group in enumerate(self.groups) for tree in group.trees}

    @property
    def live(self) -> NDArray[np.bool_]:
        """(nodes,), whether a node is reached at all."""
        live = np.zeros(len(self.ranks.slot), bool)
        live[list(self.node)] = True
        return live


def flow_of(ranks: Ranks, taste: Taste) -> Flow:
    """The flow of a Forest."""
    groups = _groups(ranks, taste)
    threader = _Threader(ranks, taste)
    order = tuple(threader.run(group) for group in groups)
    made = threader.node, threader.left, threader.right, threader.mass, threader.via
    return Flow(ranks, groups, *made, np.array(threader.tested), order)


def _groups(ranks: Ranks, taste: Taste) -> tuple[Group, ...]:
    """Outputs that have as many trees as each other go together, as many as there are lanes."""
    of: dict[int, list[int]] = {}
    for tree, output in enumerate(ranks.forest.tree_output.tolist()):
        of.setdefault(output, []).append(tree)
    can_wait = len(ranks.numeric) <= MAX_SLOTS and -1 not in of
    window, together = (taste.window, taste.lanes) if can_wait else (1, 1)
    sets: list[list[int]] = []
    for output in sorted(of):
        if sets and len(sets[-1]) < together and len(of[sets[-1][0]]) == len(of[output]):
            sets[-1].append(output)
        else:
            sets.append([output])
    groups = []
    for outputs in sets:
        in_turn = tuple(tuple(of[output]) for output in outputs)
        trees: list[int] = []
        for at in range(0, len(in_turn[0]), window):
            for one in in_turn:
                trees += in_sequence(ranks, one[at : at + window])
        groups.append(Group(tuple(outputs), tuple(trees), in_turn))
    return tuple(groups)


class _Plan(NamedTuple):
    """A version worth making: the instructions saved less their price, and versions below it on either side."""

    gain: float
    left: _Plan | None
    right: _Plan | None


class _Threader:
    """Makes blocks, tree by tree, parents first."""

    def __init__(self, ranks: Ranks, taste: Taste) -> None:
        forest = ranks.forest
        self.price, self.shared = taste.price, taste.shared
        # Plain lists: these are read one element at a time, where numpy is ten times slower.
        self.slot: list[int] = ranks.slot.tolist()
        self.rank: list[int] = ranks.rank.tolist()
        self.child: tuple[list[int], list[int]] = forest.left.tolist(), forest.right.tolist()
        self.roots: list[int] = forest.roots.tolist()
        self.share_left: list[float] = _share_left(ranks).tolist()
        self.numeric = len(ranks.numeric)
        self.parent = _parents(ranks)
        self.tested = [0.0] * len(self.slot)
        self.node: list[int] = []
        self.left: list[int] = []
        self.right: list[int] = []
        self.mass: list[float] = []
        self.via: list[int] = []
        self.pending: dict[int, list[Edge]] = {}
        self.leaving: dict[int, list[Edge]] = {}
        self.following = END
        self.quick, self.leaf_quick = 1.0, 1.0
        """Instructions that a leaf saves where it falls into its target: of the tree before, and of this one."""
        self.falls: list[float] = []

    def run(self, group: Group) -> list[int]:
        """Thread a group's trees; its labels in the order to emit them."""
        first = len(self.node)
        self.pending = {self.roots[group.trees[0]]: [Edge(1.0, {}, -1, 0)]}
        slow = {tree for one in group.in_turn[1:] for tree in one}
        for tree, following in zip(group.trees, [*group.trees[1:], None], strict=True):
            self.leaf_quick = 0.0 if tree in slow else 1.0
            self.following = END if following is None else self.roots[following]
            self.leaving = {}
            tests = self._tests(tree)
            for node in range(self.roots[tree], self.roots[tree + 1]):
                edges = self.pending.pop(node, None)
                if edges is not None:
                    self._versions(node, edges, tests)
            if following is not None:
                self._arrive()
            self.quick = self.leaf_quick
        return self._layout(first)

    def _tests(self, tree: int) -> dict[int, list[int]]:
        """A tree's numeric splits by their slot."""
        found: dict[int, list[int]] = {}
        for node in range(self.roots[tree], self.roots[tree + 1]):
            if 0 <= self.slot[node] < self.numeric:
                found.setdefault(self.slot[node], []).append(node)
        return found

    def _versions(self, node: int, edges: list[Edge], tests: dict[int, list[int]]) -> None:
        """Make a node's blocks: one, and one more for ways that save enough by what they know."""
        rest = edges
        if len(edges) > 1 and self.slot[node] >= 0:
            rest = []
            common = self._decided(hull(edges), tests)
            for alike, decided in self._alike(edges, common, tests):
                mass = sum([e.mass for e in alike])
                entry = self._entry(alike, mass)
                plan = self._plan(node, mass, decided, common) if decided or entry > 0 else None
                if plan is not None and plan.gain + entry > 0:
                    self._make(node, alike, mass, plan)
                else:
                    rest += alike
        if rest:
            self._make(node, rest, sum([e.mass for e in rest]), None)

    def _alike(
        self, edges: list[Edge], common: dict[int, int], tests: dict[int, list[int]]
    ) -> Iterable[tuple[list[Edge], dict[int, int]]]:
        """Edges in sets that know the same of the tree's tests, beyond what all know; hot ones each by itself."""
        sets: dict[object, tuple[list[Edge], dict[int, int]]] = {}
        hot = 4 * self.price
        for edge in edges:
            decided = self._decided(edge.facts, tests)
            for known in common:
                del decided[known]
            key: object = (edge.source, edge.side) if edge.mass > hot else frozenset(decided.items())
            sets.setdefault(key, ([], decided))[0].append(edge)
        return sets.values()

    def _decided(self, facts: Facts, tests: dict[int, list[int]]) -> dict[int, int]:
        """Tests that facts decide, and where they lead."""
        found: dict[int, int] = {}
        rank, (left, right) = self.rank, self.child
        for slot, (low, high) in facts.items():
            for node in tests.get(slot, ()):
                if high <= rank[node]:
                    found[node] = left[node]
                elif low > rank[node]:
                    found[node] = right[node]
        return found

    def _entry(self, edges: list[Edge], mass: float) -> float:
        """What a version costs or saves where it is entered: a leaf falls into its own, several share one."""
        if len(edges) == 1:
            return mass * self.quick - self.price if self._is_leaf(edges[0].source) else 0.0
        return -2 * self.price if any(self._is_leaf(e.source) for e in edges) else 0.0

    def _is_leaf(self, block: int) -> bool:
        return block >= 0 and self.slot[self.node[block]] < 0

    def _plan(self, node: int, mass: float, decided: dict[int, int], common: dict[int, int]) -> _Plan | None:
        """What a version of a node saves that is executed `mass` times; None where that is clearly nothing.

        decided: tests that its ways decide and others do not, and where they lead; common: those that all decide.
        """
        if mass < 2 * self.price or self.slot[node] < 0:
            return None
        share = self.share_left[node]
        parts = mass * share, mass * (1 - share)
        gain = -self.price
        below: list[_Plan | None] = []
        for side in (0, 1):
            at = self.child[side][node]
            while at in decided or at in common:
                if at in decided:
                    gain += parts[side]
                    at = decided[at]
                else:
                    at = common[at]
            below.append(self._plan(at, parts[side], decided, common))
        left, right = below
        # With no version below, the colder side needs a jump.
        best = -min(parts) - self.price
        one: tuple[_Plan | None, _Plan | None]
        if left is None or (right is not None and right.gain > left.gain):
            most, one = right, (None, right)
        else:
            most, one = left, (left, None)
        both = left.gain + right.gain if left is not None and right is not None else best
        if most is None or max(most.gain, both) <= best:
            return _Plan(gain + best, None, None)
        if most.gain >= both:
            return _Plan(gain + most.gain, *one)
        return _Plan(gain + both, left, right)

    def _make(self, node: int, edges: list[Edge], mass: float, plan: _Plan | None) -> None:
        """A block, entered by edges."""
        block = len(self.node)
        self.node.append(node)
        self.left.append(END)
        self.right.append(END)
        self.mass.append(mass)
        self.falls.append(self.leaf_quick)
        _, facts, source, _ = edges[0]
        if len(edges) > 1:
            facts, source = hull(edges), END
        # A leaf in front of all ways is what the way from it goes on to know.
        leaf_before = source >= 0 and self.slot[self.node[source]] < 0
        self.via.append(END if source < 0 else self.node[source] if leaf_before else self.via[source])
        for _, _, source, side in edges:
            if source >= 0:
                if side != 1:
                    self.left[source] = block
                if side != 0:
                    self.right[source] = block
        slot = self.slot[node]
        if slot < 0:
            if self.following >= 0:
                self._leave(block, mass, facts)
            return
        self.tested[node] += mass
        share = self.share_left[node]
        for side in (0, 1):
            known = facts if slot >= self.numeric else narrowed(facts, slot, self.rank[node], side)
            edge = Edge(mass * (1 - share if side else share), known, block, side)
            child = self.child[side][node]
            if self.slot[child] in known:
                child = self._open(child, known)
            below = None if plan is None else (plan.right if side else plan.left)
            if below is not None:
                self._make(child, [edge], edge.mass, below)
            elif child in self.pending:
                self.pending[child].append(edge)
            else:
                self.pending[child] = [edge]

    def _leave(self, block: int, mass: float, facts: Facts) -> None:
        """A leaf's way into the next tree."""
        if self.numeric > MAX_SLOTS:
            facts = {}
        target = self._open(self.following, facts)
        self.leaving.setdefault(target, []).append(Edge(mass, facts, block, 2))

    def _open(self, node: int, facts: Facts) -> int:
        """The first test at or below `node` that is not decided, or the leaf."""
        while (known := facts.get(self.slot[node])) is not None:
            rank = self.rank[node]
            if known[1] <= rank:
                node = self.child[0][node]
            elif known[0] > rank:
                node = self.child[1][node]
            else:
                break
        return node

    def _arrive(self) -> None:
        """Let leaves enter the next tree: not everywhere, as each place where they do costs an addition."""
        heap = [-target for target in self.leaving]
        heapq.heapify(heap)
        while heap:  # the deepest first: parents come after their children
            target = -heapq.heappop(heap)
            edges = self.leaving[target]
            if self.shared and target != self.following and sum(e.mass for e in edges) < 2 * self.price:
                parent = self.parent[target]
                if parent not in self.leaving:
                    heapq.heappush(heap, -parent)
                self.leaving.setdefault(parent, []).extend(edges)
            else:
                self.pending[target] = edges

    def _layout(self, first: int) -> list[int]:
        blocks: list[layout.Choice] = [
            (mass, left, right, self.share_left[node]) if self.slot[node] >= 0 else (mass, left, END, falls)
            for node, mass, left, right, falls in zip(
                *(made[first:] for made in (self.node, self.mass, self.left, self.right, self.falls)),
                strict=True,
            )
        ]
        return layout.ordered(blocks, first, self.price, shared=self.shared)


def _parents(ranks: Ranks) -> list[int]:
    parent = np.full(len(ranks.slot), -1, np.int32)
    splits = np.nonzero(ranks.slot >= 0)[0]
    parent[ranks.forest.left[splits]] = splits
    parent[ranks.forest.right[splits]] = splits
    return [int(p) for p in parent]


def _share_left(ranks: Ranks) -> Floats:
    """The chance of going left at each split, not quite 0 or 1: no side of a live split is impossible."""
    forest = ranks.forest
    left, right = ranks.share[forest.left], ranks.share[forest.right]
    total = left + right
    share = np.divide(left, total, out=np.full(len(total), 0.5), where=total > 0)
    return np.clip(share, 1e-6, 1 - 1e-6)
