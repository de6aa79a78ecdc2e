"""Powers from a byte a point: `offset_cdbm + scale_cdb * code`, held within an int16.

Here in plain Python, from two byte planes, so that no object is made per point. A compiled artifact does the same
in a sixth of the instructions (`edge_powers`); the loop hands it to the scanner where there is one.
"""

from __future__ import annotations

from collections.abc import Callable

Expand = Callable[[bytes], bytes]
"""Codes to the powers of a Scan. It is given `points` bytes each time."""
Expander = Callable[[int, int, int], Expand]
"""Makes an Expand of points, scale_cdb and offset_cdbm."""


def in_python(points: int, scale_cdb: int, offset_cdbm: int) -> Expand:
    """An Expand for any machine."""
    values = [max(-0x8000, min(0x7FFF, offset_cdbm + scale_cdb * code)) & 0xFFFF for code in range(256)]
    low, high = bytes(v & 0xFF for v in values), bytes(v >> 8 for v in values)
    powers = bytearray(2 * points)

    def expand(codes: bytes) -> bytes:
        plane = bytearray(codes)  # translating and assigning bytes costs half as much again
        powers[0::2] = plane.translate(low)
        powers[1::2] = plane.translate(high)
        return bytes(powers)

    return expand
