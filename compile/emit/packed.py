"""What the layouts of compact trees have in common: their order, and leaves of as few bits as each tree's take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compile.emit.turns import Most, Turn
from compile.forest import Forest, Ints


@dataclass(frozen=True, slots=True)
class Plan:
    """Trees ordered by output and by their leaves' width and step: how many steps above their tree's smallest.

    The smallest is in the base: one leaf of each tree is always added. number: (nodes,), of each split's
    threshold or set, -1 at a leaf; total: how many there are.
    """

    forest: Forest
    number: Ints
    total: int
    order: list[int]
    low: Ints
    step: Ints
    width: Ints

    @property
    def base(self) -> list[int]:
        """What the sums begin with."""
        base = self.forest.base.astype(np.int64)
        if self.forest.tree_output[0] < 0:
            return [int(b) for b in base + int(self.low.sum(dtype=np.int64))]
        lows = np.bincount(self.forest.tree_output, self.low, self.forest.n_outputs)
        return [int(b) for b in base + lows.astype(np.int64)]

    @property
    def is_short(self) -> bool:
        """Whether a part fits four bytes, as the assembly has them."""
        forest = self.forest
        return forest.n_outputs <= 256 and int(self.step.max()) < 256 and forest.tree_output[0] >= 0

    def bits(self, tree: int, leaves: list[int]) -> NDArray[np.bool_]:
        """Leaf nodes of a tree as a row of bits."""
        forest = self.forest
        values = forest.leaf_values[forest.leaf[np.array(leaves, np.int64)]].astype(np.int64).ravel()
        above = ((values - self.low[tree]) // self.step[tree])[:, None] >> np.arange(int(self.width[tree]))
        bits: NDArray[np.bool_] = (above & 1).astype(bool).ravel()
        return bits

    @property
    def parts(self) -> list[tuple[int, int, int, int]]:
        """Trees with one output, width and step: how many, and those, in their order."""
        kinds = Counter(
            (int(self.forest.tree_output[t]), int(self.width[t]), int(self.step[t])) for t in self.order
        )
        most = 255 if self.is_short else max(kinds.values())
        return [(min(most, n - i), *kind) for kind, n in kinds.items() for i in range(0, n, most)]

    def most_turns(self, splits: int) -> Most:
        """The most turns of a walk's loops in one call, with that many splits."""
        forest = self.forest
        outputs = forest.leaf_values.shape[1] if forest.tree_output[0] < 0 else 0
        return {
            Turn.PART: len(self.parts),
            Turn.TREE: forest.n_trees,
            Turn.SPLIT: splits,
            Turn.OUTPUT: outputs * forest.n_trees,
        }

    def parts_c(self) -> str:
        """The table of parts."""
        rows = [f"{{{count}, {max(out, 0)}, {width}, {step}}}" for count, out, width, step in self.parts]
        kind = "uint8_t" if self.is_short else "uint32_t"
        return (
            f"static const struct {{ {kind} trees, output, width, step; }} edge_parts[{len(rows)}] = "
            f"{{\n    {', '.join(rows)}}};\n"
        )


@dataclass(frozen=True, slots=True)
class Walk:
    """A layout's tables and code: C that defines `edge_add_trees`, how it is called, and assembly beside it.

    turns: the most turns of its loops in one call.
    """

    c: str
    call: str
    files: dict[str, str]
    size: int
    turns: Most


def plan(forest: Forest, step: Ints, number: Ints, total: int) -> Plan:
    """The Plan of a forest whose leaves are integers, steps apart (see quantise.Fixed)."""
    low, width = _spans(forest, step)
    order = sorted(range(forest.n_trees), key=lambda t: (int(forest.tree_output[t]), width[t], step[t]))
    return Plan(forest, number, total, order, low, step, width)


def _spans(forest: Forest, step: Ints) -> tuple[Ints, Ints]:
    """The smallest leaf value of each tree, and the bits that its largest takes above that, in steps."""
    whole = forest.leaf_values.astype(np.int64)
    lows, widths = [], []
    for tree in range(forest.n_trees):
        leaf = forest.leaf[forest.roots[tree] : forest.roots[tree + 1]]
        values = whole[leaf[leaf >= 0]]
        lows.append(int(values.min()))
        widths.append(((int(values.max()) - lows[-1]) // int(step[tree])).bit_length())
    if forest.tree_output[0] < 0:  # all outputs in one sum's loop: one width, and nothing to tell trees by
        low = int(whole.min())
        lows, widths = [low] * len(lows), [(int(whole.max()) - low).bit_length()] * len(lows)
    return np.array(lows, np.int32), np.array(widths, np.int32)


def rotated(number: int) -> int:
    """A number with its low five bits one up: a rotation right by them leaves its bit as the sign."""
    return number & ~31 | number + 1 & 31


def filled(text: str, values: Mapping[str, object]) -> str:
    """A text with the values for its names."""
    for name, value in values.items():
        text = text.replace(name, str(value))
    return text
