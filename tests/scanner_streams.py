"""For each protocol: a decoder, good frames with the power they carry, and the bytes that open a conversation."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edge_runtime.scan import Axis, Scan
from edge_runtime.scanners import framed
from edge_runtime.scanners.base import Heard, Scanner
from edge_runtime.scanners.rf_explorer import RFExplorer
from edge_runtime.scanners.tinysa import TinySAUltra


@dataclass(frozen=True)
class Stream:
    """A protocol under test.

    make: a fresh decoder. opening: bytes before the first frame. frame: the k-th frame's bytes and its powers.
    checked: the protocol has a checksum. sticky: a frame may be reported with the next one only.
    """

    name: str
    make: Callable[[], Scanner]
    opening: bytes
    frame: Callable[[int], tuple[bytes, bytes]]
    checked: bool = False
    closing: bytes = b""
    tokens: Sequence[bytes] = field(default=())

    def frames(self, count: int) -> list[tuple[bytes, bytes]]:
        """The first frames and their powers."""
        return [self.frame(k) for k in range(count)]

    def __str__(self) -> str:
        return self.name


def powers_of(events: Sequence[Heard]) -> list[bytes]:
    """The powers of the scans among events."""
    return [e.power_cdbm for e in events if type(e) is Scan]


def int16s(values: Sequence[int]) -> bytes:
    """Powers as a scan holds them."""
    return struct.pack(f"<{len(values)}h", *values)


def _rf_explorer(points: int, head: bytes, offset_db: int = 0) -> Callable[[int], tuple[bytes, bytes]]:
    def frame(k: int) -> tuple[bytes, bytes]:
        codes = random.Random(k).randbytes(points)
        return head + codes + b"\r\n", int16s([100 * offset_db - 50 * code for code in codes])

    return frame


def _rf_configuration(points: int, form: bytes = b"F", offset: bytes = b"0000") -> bytes:
    digits = b"%05d" if form == b"f" else b"%04d"
    fields = b"#C2-%s:0433795,0000980,0000,-120,%s,0,000,0240000,0960000,0100000,00003,%s,000\r\n"
    return fields % (form, digits % points, offset)


def _tinysa(k: int) -> tuple[bytes, bytes]:
    chance = random.Random(k)
    counts = [chance.choice([chance.randrange(0x2000), 0x787D, 0x7B78, 0xFFFF, 0]) for _ in range(25)]
    body = b"".join(struct.pack("<BH", 0x78, c) for c in counts)
    return b"{" + body + b"}", int16s([min(0x7FFF, (25 * c + 4) // 8 - 17_400) for c in counts])


def _framed(k: int) -> tuple[bytes, bytes]:
    powers = random.Random(k).randbytes(2 * 32)
    payload = framed.AXIS.pack(433_795_000, 980, 32) + powers
    return framed.frame(framed.SWEEP, k, 1000 * k, payload), powers


STREAMS = [
    Stream(
        "rf-explorer-S",
        RFExplorer,
        b"#C2-M:003,255,01.26\r\n" + _rf_configuration(112),
        _rf_explorer(112, b"$S\x70"),
        tokens=(b"$S\x70", b"\r\n", b"#C2-F:", b"\xff\xfe\xff\xfe\x00", _rf_configuration(112)),
    ),
    Stream(
        "rf-explorer-s",
        RFExplorer,
        _rf_configuration(64, b"f", b"-025"),
        _rf_explorer(64, b"$s\x04", -25),
        tokens=(b"$s\x04", b"\r\n", b"#C2-f:", b"\xff\xfe\xff\xfe\x00"),
    ),
    Stream(
        "rf-explorer-z",
        RFExplorer,
        _rf_configuration(300, b"f"),
        _rf_explorer(300, b"$z\x01\x2c"),
        tokens=(b"$z\x01\x2c", b"\r\n", b"(C) Ariel Rocholl ", b"\xff\xfe\xff\xfe\x00"),
    ),
    Stream(
        "tinysa-ultra",
        lambda: TinySAUltra(Axis(865_000_000, 80_000, 25)),
        b"",
        _tinysa,
        tokens=(
            b"{x",
            b"}{x",
            b"ch> ",
            b"\r\n",
            b"174dBm",
            b"scanraw 1 2 3 3",
            b"data 2\r\n",
            b"-1.5e+01\r\n",
        ),
    ),
    Stream(
        "framed", framed.Framed, b"", _framed, checked=True, tokens=(b"\n", framed.frame(2, 0, 0, b"a\0b\0c"))
    ),
]
