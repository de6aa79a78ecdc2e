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
    known = facts.copy()
    if right:
        known[slot] = (rank + 1 if low <= rank else low, high)
    else:
        known[slot] = (low, rank if high > rank else high)
    return known


def hull(edges: Sequence[Edge]) -> Facts:
    """What is known on all edges."""
    found = edges[0].facts
    for edge in edges[1:]:
        facts, both = edge.facts, {}
        for slot, one in found.items():
            other = facts.get(slot)
            if other is not None:
                low = one[0] if one[0] < other[0] else other[0]
                high = one[1] if one[1] > other[1] else other[1]
                if low > 0 or high < ANY[1]:
                    both[slot] = low, high
        if not both:
            return both
        found = both
    return found
