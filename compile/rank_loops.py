"""How often the loops of Thumb code with its own ranks turn: by their place, without running it.

The assembly has one loop for each slot, over the slot's thresholds, in the order of the slots (emit/thumb_ranks.py);
a rank goes up by one in each turn and stops at the end of the thresholds at the latest, where a row with NaN does
arrive. What that function calls is `edge_missing`, whose one loop in C is over the slots: whatever a compiler makes
of it, no loop of it turns more often. The entry point's only loop is over the outputs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence

from compile.machine_code import Block, Function, Unreadable

_LOAD, _LOAD_MASK = 0xF857_6020, 0xFFFF_FFF0
"""ldr.w r6, [r7, .., lsl #2]"""
_COMPARE, _LESS = 0x429E, 0xDB
"""cmp r6, r3, and the byte that says blt."""


def most_turns(
    functions: Mapping[int, Function],
    entry: int,
    read: Callable[[int, int], bytes],
    most: Sequence[int],
    outputs: int,
) -> dict[tuple[int, int], int]:
    """For each loop, as (function, header), how often it is gone through at most. most: thresholds of each slot.

    Raises Unreadable where the loops are not those that the emitter has written.
    """
    loops = {at: _loops(function, read) for at, function in functions.items()}
    holders = [at for at, found in loops.items() if found]
    if len(holders) != 1 or len(loops[holders[0]]) != len(most):
        raise Unreadable("the loops over the thresholds are not found in the code")
    holder = holders[0]
    known = {(holder, header): n for header, n in zip(loops[holder], most, strict=True)}
    if holder != entry:  # the entry point's tail would be its own
        known |= {(entry, header): outputs for header in functions[entry].blocks}
    for called in {call for block in functions[holder].blocks.values() for call in block.calls}:
        known |= {(called, header): len(most) for header in functions[called].blocks}
    return known


def _loops(function: Function, read: Callable[[int, int], bytes]) -> list[int]:
    """Headers of loops over thresholds, in the order of the code."""
    return sorted(b.start for b in function.blocks.values() if b.start & 1 and _is_one(b, read))


def _is_one(block: Block, read: Callable[[int, int], bytes]) -> bool:
    if block.instructions != 4 or block.start not in block.successors:
        return False
    code = read(block.start - 1, 12)
    for increment in (2, 4):  # a short addition, or a long one
        first, second, compare, branch = struct.unpack_from("<4H", code, increment)
        load = first << 16 | second
        if load & _LOAD_MASK == _LOAD and compare == _COMPARE and branch >> 8 == _LESS:
            return True
    return False
