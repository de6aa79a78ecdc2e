"""Just enough of the protocol-buffers wire format to read an ONNX file: fields by number, no generated classes.

Source: protobuf.dev, "Encoding"; field numbers in onnx.py from the ONNX project's onnx.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator


class Malformed(Exception):
    """The bytes are no message."""


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A base-128 number at `at`, and where it ends."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise Malformed
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def signed(value: int) -> int:
    """An int64 as protobuf carries it."""
    return value - (1 << 64) if value >> 63 else value


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) in order: numbers for varints, bytes for the rest. Raises Malformed."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise Malformed
        if at + size > len(data):
            raise Malformed
        yield number, data[at : at + size]
        at += size


class Message:
    """One message; repeated fields keep their order."""

    def __init__(self, data: bytes) -> None:
        self._fields: dict[int, list[int | bytes]] = {}
        for number, value in fields(data):
            self._fields.setdefault(number, []).append(value)

    def messages(self, number: int) -> list[Message]:
        """Sub-messages."""
        return [Message(v) for v in self.blobs(number)]

    def blobs(self, number: int) -> list[bytes]:
        """Byte fields."""
        return [v for v in self._fields.get(number, []) if isinstance(v, bytes)]

    def texts(self, number: int) -> list[str]:
        """String fields."""
        return [v.decode("utf-8", "replace") for v in self.blobs(number)]

    def text(self, number: int) -> str:
        """A string field; empty where it is missing."""
        return (self.texts(number) or [""])[-1]

    def integers(self, number: int) -> list[int]:
        """A repeated int64 field, packed or not."""
        out: list[int] = []
        for v in self._fields.get(number, []):
            if isinstance(v, int):
                out.append(signed(v))
                continue
            at = 0
            while at < len(v):
                value, at = varint(v, at)
                out.append(signed(value))
        return out

    def integer(self, number: int, default: int = 0) -> int:
        """An int64 field."""
        return (self.integers(number) or [default])[-1]

    def floats(self, number: int) -> list[float]:
        """A repeated float field, packed or not."""
        data = b"".join(self.blobs(number))
        return list(struct.unpack(f"<{len(data) // 4}f", data[: len(data) // 4 * 4]))
