"""Buffers with lifetimes, placed in one arena so that those alive at once do not overlap."""

from __future__ import annotations

from dataclasses import dataclass

_ALIGN = 16
_SLACK = 8  # kernels read whole vectors, up to seven bytes past a buffer's end


@dataclass(slots=True)
class _Buffer:
    name: str
    size: int
    first: int
    last: int
    offset: int = -1


class Arena:
    """Greedy placement, the largest buffer first: within a few percent of the best on networks this small."""

    def __init__(self) -> None:
        self._buffers: list[_Buffer] = []
        self.size = 0

    def need(self, name: str, size: int, first: int, last: int) -> None:
        """Ask for `size` bytes from step `first` to step `last`, both included."""
        self._buffers.append(_Buffer(name, -(-(size + _SLACK) // _ALIGN) * _ALIGN, first, last))

    def place(self) -> None:
        """Give every buffer its offset."""
        placed: list[_Buffer] = []
        for b in sorted(self._buffers, key=lambda b: (-b.size, b.first, b.name)):
            rivals = [p for p in placed if p.first <= b.last and b.first <= p.last]
            offset = 0
            for p in sorted(rivals, key=lambda p: p.offset):
                if offset + b.size <= p.offset:
                    break
                offset = max(offset, p.offset + p.size)
            b.offset = offset
            placed.append(b)
            self.size = max(self.size, offset + b.size)

    def at(self, name: str) -> int:
        """Offset of a buffer."""
        return next(b.offset for b in self._buffers if b.name == name)
