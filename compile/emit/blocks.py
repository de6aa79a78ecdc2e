"""Basic blocks of threaded trees, for any instruction set: what follows what, and which jumps that takes.

A block is a block of the flow, or the addition of a leaf's value in front of one, which leaves share. An
instruction set says how a test, a load and an addition are written.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from compile.emit.flow import END, Flow
from compile.emit.layout import addition

Op = tuple[str, int | None]
"""An instruction; with a label, which completes it. Labels are blocks, END, or `addition` of a block."""
JUMP = "    b"
"""The unconditional branch, of AArch64 and of Thumb."""
CALL = "    bl"
"""A branch that leaves the address of what follows it: of a leaf's value, which is data."""


class BlockWriter(ABC):
    """Makes the blocks of one model."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.forest = flow.ranks.forest
        self.slot: list[int] = flow.ranks.slot.tolist()
        self.rank: list[int] = flow.ranks.rank.tolist()
        self.vector = self.forest.leaf_values.shape[1] > 1
        self.shared = {addition(label) for order in flow.order for label in order if label < END}
        self.tree_of: list[int] = np.repeat(
            np.arange(self.forest.n_trees), np.diff(self.forest.roots)
        ).tolist()
        self.root_of: list[int] = self.forest.roots.tolist()
        self.before = {b: a for group in flow.groups for a, b in itertools.pairwise(group.trees)}
        self.made: dict[int, list[Op]] = {}
        self.names: dict[int, str] = {}
        self.share_of: list[float] = flow.ranks.share.tolist()
        self.children: tuple[list[int], list[int]] = self.forest.left.tolist(), self.forest.right.tolist()
        self.version = _versions(flow.node)

    @abstractmethod
    def test(self, node: int) -> tuple[list[Op], str, str]:
        """What goes before the branch, the branch that is taken to the left, and the one to the right."""

    @abstractmethod
    def load(self, node: int) -> list[Op]:
        """Load a leaf's value to where `add_loaded` takes it."""

    @abstractmethod
    def add_loaded(self, tree: int) -> list[Op]:
        """Add a loaded value of a tree to the sum."""

    @abstractmethod
    def add(self, node: int) -> list[Op]:
        """Add a leaf's values to the sums."""

    def send(self, node: int, to: int) -> list[Op]:
        """Go to a shared addition with a leaf's value."""
        return [*self.load(node), (JUMP, to)]

    def receive(self, tree: int) -> list[Op]:
        """The shared addition of a tree's value."""
        return self.add_loaded(tree)

    def name(self, label: int, group: int) -> str:
        """The name of a label: tree and node, as in the forest's dump, and which version after the first."""
        if label == END:
            return f".Lend{group}"
        name = self.names.get(label)
        if name is None:
            name = self.names[label] = self._new_name(label, group)
        return name

    def _new_name(self, label: int, group: int) -> str:
        if label < END:
            return self.name(addition(label), group) + "add"
        node, version = self.flow.node[label], self.version[label]
        tree = self.tree_of[node]
        return f".Lt{tree}n{node - self.root_of[tree]}" + (f"v{version}" if version else "")

    def labels(self, order: Sequence[int]) -> list[int]:
        """All labels of a group, in order."""
        return list(order)

    def block(self, label: int, following: int) -> list[Op]:
        """The instructions of a block, which falls into `following`; made once, as that lays down its literals."""
        ops = self.made.get(label)
        if ops is None:
            if label < END:
                ops = self._addition(addition(label), following)
            elif self.slot[self.flow.node[label]] >= 0:
                ops = self._split(label, following)
            else:
                ops = self._leaf(label, following)
            self.made[label] = ops
        return ops

    def longest(self, order: Sequence[int], far: set[tuple[int, int]]) -> int:
        """The most instructions from a group's first label to its end, on any way through its blocks.

        No block's target has a lower number than it has, so one pass from the last finds it. far: branches, as
        (label, op), that take two instructions. Ways that no row can go count too.
        """
        falls = dict(zip(order, [*order[1:], END], strict=True))
        most = {END: 0}
        for label in sorted(order, key=_height, reverse=True):
            ops = self.block(label, falls[label])
            here = most.get(falls[label], 0)  # what is lower is not fallen into, but follows a jump
            for k in range(len(ops) - 1, -1, -1):
                line, to = ops[k]
                if to is not None:
                    there = most[to]
                    if there > here or line in (JUMP, CALL):
                        here = there
                    if far and (label, k) in far:
                        here += 1
                here += 1
            most[label] = here
        return most[order[0]]

    def _addition(self, block: int, following: int) -> list[Op]:
        ops = self.receive(self.before[self.tree_of[self.flow.node[block]]])
        return ops if block == following else [*ops, (JUMP, block)]

    def _split(self, block: int, following: int) -> list[Op]:
        before, if_left, if_right = self.test(self.flow.node[block])
        left, right = self.flow.left[block], self.flow.right[block]
        if right == following:
            return [*before, (if_left, left)]
        if left == following:
            return [*before, (if_right, right)]
        if self._colder_left(block):
            return [*before, (if_right, right), (JUMP, left)]
        return [*before, (if_left, left), (JUMP, right)]

    def _colder_left(self, block: int) -> bool:
        node, (left, right) = self.flow.node[block], self.children
        return self.share_of[left[node]] < self.share_of[right[node]]

    def _leaf(self, block: int, following: int) -> list[Op]:
        node, target = self.flow.node[block], self.flow.left[block]
        if target == following:
            return self.add(node)
        if target in self.shared:
            return self.send(node, addition(target))
        return [*self.add(node), (JUMP, target)]


def _height(label: int) -> float:
    """An addition lies right in front of its block."""
    return label if label >= 0 else addition(label) - 0.5


def _versions(nodes: Sequence[int]) -> list[int]:
    """For each block, how many blocks of its node come before it."""
    seen: dict[int, int] = {}
    found = []
    for node in nodes:
        found.append(seen.get(node, 0))
        seen[node] = found[-1] + 1
    return found
