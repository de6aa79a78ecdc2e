"""Sweeps as binary records: `hackrf_sweep -B` and soapy_power's own format, from a file or a pipe.

    hackrf_sweep   u32 length of what follows, u64 low Hz, u64 high Hz, then float32 dB a bin
    soapy_power    "SDRFF", u8 version, f64 time begun, f64 time ended, f64 low Hz, f64 high Hz, f64 step Hz,
                   u64 samples, u64 size, two bytes of padding, then `size` bytes of float32 dB

Little-endian, no checksum. A hackrf record has no mark either: it is believed where its span is the one that
the program always sweeps, its length that of the record before it, and the next record begins at its end.
"""

from __future__ import annotations

from array import array
from struct import Struct
from sys import byteorder

from edge_runtime.reasons import Reason
from edge_runtime.scanners.base import Heard, int16
from edge_runtime.scanners.sweep_text import Hop, Sweeper

MAX_BINS = 65_536
_HACKRF = Struct("<IQQ")
_SOAPY_MAGIC = b"SDRFF"
_SOAPY = Struct("<BdddddQQ2x")
_SOAPY_HEAD = len(_SOAPY_MAGIC) + _SOAPY.size
_SOAPY_VERSION = 2
_HACKRF_MAX_HZ = 7_250_000_000
_HACKRF_ROW_HZ = 5_000_000
"""A quarter of the 20 MS/s at which hackrf_sweep always samples."""


def _powers(data: bytes) -> bytes:
    """float32 dB as a Scan's powers; empty where one of them can be no power."""
    values = array("f", data)
    if byteorder == "big":
        values.byteswap()
    if not all(-300 < value < 300 for value in values):
        return b""
    return b"".join(int16(round(100 * value)) for value in values)


def _hackrf_sound(data: bytes, at: int) -> bool:
    length, low, high = _HACKRF.unpack_from(data, at)
    bins = (length - 16) // 4
    span: int = high - low
    return 1 <= bins <= MAX_BINS and length % 4 == 0 and span == _HACKRF_ROW_HZ and high <= _HACKRF_MAX_HZ


class HackRFBinary(Sweeper):
    """`hackrf_sweep -B`."""

    name = "hackrf-binary"

    def _piece(self, at: int, now_us: int, events: list[Heard]) -> int:
        buffer = self._buffer
        if len(buffer) - at < _HACKRF.size:
            return 0
        if not _hackrf_sound(buffer, at):
            return self._lose(1, Reason.GARBAGE, events)
        length, low, high = _HACKRF.unpack_from(buffer, at)
        size: int = length + 4
        if self.frame_bytes and size != self.frame_bytes:
            return self._lose(1, Reason.BAD_LENGTH, events)
        if (
            len(buffer) - at < size
            or (placed := self._in_place(at + size, _HACKRF.size, _hackrf_sound)) is None
        ):
            return 0
        powers = _powers(buffer[at + _HACKRF.size : at + size])
        if not placed or not powers:
            return self._lose(1, Reason.TRUNCATED, events)
        self._flush(events)
        self.frame_bytes = size
        self._take(Hop(low, high, _HACKRF_ROW_HZ * 4 / (length - 16), powers), now_us, events)
        return size

    def _as_before(self, at: int) -> bool:
        """Whether a record begins at `at` that has the length of those before."""
        length = (self.frame_bytes - 4).to_bytes(4, "little", signed=True)
        return self._buffer.startswith(length, at) and self._buffer[at + 16 : at + 20] == b"\0\0\0\0"


def _soapy_sound(data: bytes, at: int) -> bool:
    if not data.startswith(_SOAPY_MAGIC, at):
        return False
    version, _, _, low, high, step, _, size = _SOAPY.unpack_from(data, at + len(_SOAPY_MAGIC))
    sound: bool = (
        version == _SOAPY_VERSION
        and 0 <= low < high < 1e12
        and 1 <= step <= high - low
        and size % 4 == 0
        and round((high - low) / step) == size // 4 <= MAX_BINS
    )
    return sound


class SoapyBinary(Sweeper):
    """soapy_power's own format."""

    name = "soapy-binary"

    def _piece(self, at: int, now_us: int, events: list[Heard]) -> int:
        buffer = self._buffer
        begun = buffer[at : at + len(_SOAPY_MAGIC)]
        if not _SOAPY_MAGIC.startswith(begun):
            found = buffer.find(_SOAPY_MAGIC[:1], at + 1)
            return self._lose((found if found > 0 else len(buffer)) - at, Reason.GARBAGE, events)
        if len(buffer) - at < _SOAPY_HEAD:
            return 0
        if not _soapy_sound(buffer, at):
            return self._lose(1, Reason.BAD_LENGTH, events)
        _, _, _, low, high, step, _, bins_size = _SOAPY.unpack_from(buffer, at + len(_SOAPY_MAGIC))
        size: int = _SOAPY_HEAD + bins_size
        if (
            len(buffer) - at < size
            or (placed := self._in_place(at + size, _SOAPY_HEAD, _soapy_sound)) is None
        ):
            return 0
        powers = _powers(buffer[at + _SOAPY_HEAD : at + size])
        if not placed or not powers:
            return self._lose(1, Reason.TRUNCATED, events)
        self._flush(events)
        self.frame_bytes = size
        self._take(Hop(low, high, step, powers), now_us, events)
        return size
