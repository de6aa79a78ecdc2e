"""What is known of a row where control is: ranges of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

Facts = dict[int, tuple[int, int]]
"""The lowest and the highest rank that a numeric slot can have; nothing is known of slots that are not there."""
ANY = (0, 1 << 30)


class Edge(NamedTuple):
    """A way into a node: how often it is gone, what is known on it, the block it leaves (-1: none) and its side."""

    mass: float
    facts: Facts
    source: int
    side: int


def narrowed(facts: Facts, slot: int, rank: int, right: int) -> Facts:
    """What is known behind a test for `slot` <= `rank`, on its right side or its left."""
    low, high = facts.get(slot, ANY)
    return facts | {slot: (max(low, rank + 1), high) if right else (low, min(high, rank))}


def hull(edges: Sequence[Edge]) -> Facts:
    """What is known on all edges."""
    if len(edges) == 1:
        return edges[0].facts
    all_facts = [e.facts for e in edges]
    slots = set(all_facts[0])
    for facts in all_facts[1:]:
        slots &= facts.keys()
        if not slots:
            return {}
    found = {}
    for slot in sorted(slots):
        known = [facts[slot] for facts in all_facts]
        low, high = min([k[0] for k in known]), max([k[1] for k in known])
        if low > 0 or high < ANY[1]:
            found[slot] = low, high
    return found
