"""Basic blocks of threaded trees, for any instruction set: what follows what, and which jumps that takes.

A block is a node of the flow, or the addition of a leaf's value in front of a tree's root, which plain leaves
share. An instruction set says how a test, a load and an addition are written.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from compile.emit.flow import END, Flow

Op = tuple[str, int | None]
"""An instruction; with a label, which completes it. Labels are nodes, END, or `addition` of a root."""
JUMP = "    b"
"""The unconditional branch, of AArch64 and of Thumb."""


def addition(root: int) -> int:
    """The label of the addition in front of a root; of that label, the root."""
    return -2 - root


class BlockWriter(ABC):
    """Makes the blocks of one model."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.forest = flow.ranks.forest
        self.slot: list[int] = flow.ranks.slot.tolist()
        self.rank: list[int] = flow.ranks.rank.tolist()
        self.left: list[int] = flow.left.tolist()
        self.right: list[int] = flow.right.tolist()
        self.after: list[int] = flow.after.tolist()
        self.vector = self.forest.leaf_values.shape[1] > 1
        # Roots in front of which a leaf's value is added for all plain leaves.
        self.shared: set[int] = set() if self.vector else {self.after[node] for node in flow.plain}
        self.tree_of: list[int] = np.repeat(
            np.arange(self.forest.n_trees), np.diff(self.forest.roots)
        ).tolist()
        self.root_of: list[int] = self.forest.roots.tolist()

    @abstractmethod
    def test(self, node: int) -> tuple[list[Op], str, str]:
        """What goes before the branch, the branch that is taken to the left, and the one to the right."""

    @abstractmethod
    def load(self, node: int) -> list[Op]:
        """Load a leaf's value to where `add_loaded` takes it."""

    @abstractmethod
    def add_loaded(self) -> list[Op]:
        """Add a loaded value to the sum."""

    @abstractmethod
    def add(self, node: int) -> list[Op]:
        """Add a leaf's values to the sums."""

    def name(self, label: int, group: int) -> str:
        """The name of a label: tree and node, as in the forest's dump."""
        if label == END:
            return f".Lend{group}"
        if label < END:
            return self.name(addition(label), group) + "add"
        tree = self.tree_of[label]
        return f".Lt{tree}n{label - self.root_of[tree]}"

    def labels(self, order: Sequence[int]) -> list[int]:
        """All labels of a group, in order."""
        return [at for node in order for at in ((addition(node), node) if node in self.shared else (node,))]

    def block(self, label: int, following: int) -> list[Op]:
        """The instructions of a block, which falls into `following`."""
        if label < END:
            return self.add_loaded()
        if self.slot[label] >= 0:
            return self._split(label, following)
        return self._leaf(label, following)

    def longest(self, order: Sequence[int], far: set[tuple[int, int]]) -> int:
        """The most instructions from a group's first label to its end, on any way through its blocks.

        Every branch goes forward in the order of the blocks, so one pass from the end finds it. far: branches,
        as (label, op), that take two instructions. Ways that no row can go count too.
        """
        labels = self.labels(order)
        most = {END: 0}
        for label, following in zip(reversed(labels), [END, *reversed(labels[1:])], strict=True):
            ops = self.block(label, following)
            here = most[following]  # where the block falls through
            for k in range(len(ops) - 1, -1, -1):
                line, to = ops[k]
                size = 2 if (label, k) in far else 1
                if to is None:
                    here += size
                elif line == JUMP:
                    here = size + most[to]
                else:
                    here = size + max(here, most[to])
            most[label] = here
        return most[labels[0]]

    def _split(self, node: int, following: int) -> list[Op]:
        before, if_left, if_right = self.test(node)
        left, right = self.left[node], self.right[node]
        if right == following:
            return [*before, (if_left, left)]
        if left == following:
            return [*before, (if_right, right)]
        return [*before, (if_left, left), (JUMP, right)]

    def _leaf(self, node: int, following: int) -> list[Op]:
        target = self.after[node]
        if target in self.shared:
            if following == addition(target):
                return self.load(node)
            if node in self.flow.plain:
                return [*self.load(node), (JUMP, addition(target))]
        ops = self.add(node)
        for copy in self.flow.copies.get(node, ()):
            before, if_left, if_right = self.test(copy.node)
            ops += [*before, (if_left if copy.goes_left else if_right, copy.target)]
        return ops if target == following else [*ops, (JUMP, target)]
