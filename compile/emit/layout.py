"""The order of blocks: what falls through into what, so that the jumps left over are few and cold.

A leaf that falls into its target needs no jump; all others that go to that target share an addition in front of
it, which falls into it too where nothing else does. A split needs a jump only where neither of its sides follows
it: its branch is taken to one, and the jump, to the colder one, is executed on that side only.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

END = -1
Choice = tuple[float, int, int, float]
"""A block: how often it is executed, its targets (END: none) and the chance of the first of them.

A leaf has one target; the last is then what it saves where it falls into that, per execution.
"""


def addition(block: int) -> int:
    """The label of the addition in front of a block; of that label, the block."""
    return -2 - block


def ordered(blocks: Sequence[Choice], first: int, price: float, *, shared: bool) -> list[int]:
    """Labels in the order to emit them: blocks are numbered from `first`, and no target comes before its source.

    price: the executions that an instruction of code must save. shared: whether leaves share additions.
    """
    users: dict[int, list[float]] = {}
    for mass, left, right, _ in blocks:
        if right == END and left != END:
            users.setdefault(left, []).append(mass)
    pairs: list[tuple[float, int, int]] = []
    for label, (mass, left, right, share) in enumerate(blocks, first):
        if left == END:
            continue
        if right == END:
            alone = not shared or len(users[left]) == 1
            pairs.append((mass * share + (price if alone else -price), label, left))
            continue
        weight = mass * (share if share < 0.5 else 1 - share) + price
        pairs.append((weight, label, left))
        pairs.append((weight, label, right))
    if shared:
        pairs += [(sum(of) + price, addition(t), t) for t, of in users.items() if len(of) > 1]
    pairs.sort(key=itemgetter(0), reverse=True)
    after: dict[int, int] = {}
    entered: set[int] = set()
    for _, label, target in pairs:
        if label not in after and target not in entered:
            after[label] = target
            entered.add(target)
    heads = [label for label in range(first, first + len(blocks)) if label not in entered]
    heads += [addition(t) for t, of in users.items() if shared and len(of) > 1]
    heads.sort(key=lambda label: label if label >= 0 else addition(label) - 0.5)
    order = []
    for head in heads:
        at: int | None = head
        while at is not None:
            order.append(at)
            at = after.get(at)
    return order
