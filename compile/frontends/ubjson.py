"""Universal Binary JSON (draft 12, big-endian), as far as XGBoost writes it; number arrays are skipped.

What is wanted of a model here is its objective and its features' names; Treelite reads the trees.
"""

from __future__ import annotations

import struct
from typing import Any

_NUMBERS = {"i": "b", "U": "B", "I": "h", "l": "i", "L": "q", "d": "f", "D": "d"}
_CONSTANTS = {"Z": None, "T": True, "F": False}


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        if size < 0 or self.at + size > len(self.data):
            raise ValueError(f"UBJ ends within a value at byte {self.at}")
        self.at += size
        return self.data[self.at - size : self.at]

    def marker(self) -> str:
        marker = self.take(1)
        while marker == b"N":
            marker = self.take(1)
        return marker.decode("latin-1")

    def number(self, marker: str) -> Any:
        code = ">" + _NUMBERS[marker]
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def length(self) -> int:
        marker = self.marker()
        if marker not in "iUIlL":
            raise ValueError(f"UBJ length of type {marker!r} at byte {self.at}")
        return int(self.number(marker))

    def text(self) -> str:
        return self.take(self.length()).decode("utf-8", "replace")

    def value(self, marker: str) -> Any:
        if marker in _NUMBERS:
            return self.number(marker)
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        if marker in {"S", "H"}:
            return self.text()
        if marker == "C":
            return self.take(1).decode("latin-1")
        if marker == "[":
            return self.array()
        if marker == "{":
            return self.mapping()
        raise ValueError(f"UBJ type {marker!r} at byte {self.at}")

    def head(self) -> tuple[str | None, int | None]:
        """The optional element type and count of a container."""
        kind, count = None, None
        if self.data[self.at : self.at + 1] == b"$":
            self.at += 1
            kind = self.marker()
        if self.data[self.at : self.at + 1] == b"#":
            self.at += 1
            count = self.length()
        return kind, count

    def array(self) -> list[Any]:
        kind, count = self.head()
        if kind in _NUMBERS and count is not None:
            self.take(count * struct.calcsize(_NUMBERS[kind]))
            return []
        found: list[Any] = []
        while count is None or len(found) < count:
            marker = kind or self.marker()
            if count is None and marker == "]":
                break
            found.append(self.value(marker))
        return found

    def mapping(self) -> dict[str, Any]:
        kind, count = self.head()
        found: dict[str, Any] = {}
        while count is None or len(found) < count:
            if count is None and self.data[self.at : self.at + 1] == b"}":
                self.at += 1
                break
            name = self.text()
            found[name] = self.value(kind or self.marker())
        return found


def loads(data: bytes) -> Any:
    """The document in `data`; arrays of numbers come back empty. Raises ValueError where it is malformed."""
    reader = _Reader(data)
    try:
        return reader.value(reader.marker())
    except RecursionError as e:
        raise ValueError("UBJ nested too deeply") from e
