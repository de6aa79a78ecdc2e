"""For each protocol: a decoder, good frames with the power they carry, and the bytes that open a conversation."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edge_runtime.scan import Axis, Scan
from edge_runtime.scanners import ath_spectral, framed
from edge_runtime.scanners.base import Heard, Scanner
from edge_runtime.scanners.rf_explorer import RFExplorer
from edge_runtime.scanners.sweep_binary import HackRFBinary, SoapyBinary
from edge_runtime.scanners.sweep_text import SweepText
from edge_runtime.scanners.tinysa import TinySAUltra
from edge_runtime.scanners.uniden import Uniden, UnidenBCD


@dataclass(frozen=True)
class Stream:
    """A protocol under test.

    make: a fresh decoder. opening: bytes before the first frame. frame: the k-th frame's bytes and its powers.
    checked: the protocol has a checksum.
    chained: a record is known to be whole by where the next one begins, or a sweep by the next one's first hop.
    tokens: bytes that mean something to it, for the fuzzer.
    """

    name: str
    make: Callable[[], Scanner]
    opening: bytes
    frame: Callable[[int], tuple[bytes, bytes]]
    checked: bool = False
    chained: bool = False
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


def _levels(k: int, count: int) -> list[int]:
    """Powers of noise, hundredths of a dB."""
    chance = random.Random(k)
    return [chance.randrange(-9000, -2000) for _ in range(count)]


def _text(low: int, step: float, values: Sequence[int], samples: int, twice: bool) -> bytes:
    cells = [b"%.2f" % (v / 100) for v in values]
    cells += cells[-1:] if twice else []
    high = low + step * len(values)
    return b"2026-11-24, 10:00:01, %d, %d, %.2f, %d, %s\n" % (low, high, step, samples, b", ".join(cells))


def _rtl_power(k: int) -> tuple[bytes, bytes]:
    levels = _levels(k, 6)
    hops = [(433_000_000, levels[:3]), (433_030_000, levels[3:])]
    return b"".join(_text(low, 10_000, v, 24, True) for low, v in hops), int16s(levels)


def _hackrf_sweep(k: int) -> tuple[bytes, bytes]:
    levels = _levels(k, 6)
    rows = [_text(5_000_000 * (n + 1), 2.5e6, levels[2 * n : 2 * n + 2], 8, False) for n in range(3)]
    return rows[0] + rows[2] + rows[1], int16s(levels)


def _floats(levels: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(levels)}f", *(v / 100 for v in levels))


def _hackrf_binary(k: int) -> tuple[bytes, bytes]:
    levels = _levels(k, 10)
    rows = []
    for n in range(2):
        body = _floats(levels[5 * n : 5 * n + 5])
        low = 2_400_000_000 + 5_000_000 * n
        rows.append(struct.pack("<IQQ", 16 + len(body), low, low + 5_000_000) + body)
    return b"".join(rows), int16s(levels)


def _soapy_binary(k: int) -> tuple[bytes, bytes]:
    levels = _levels(k, 8)
    body = _floats(levels)
    head = struct.pack("<BdddddQQ2x", 2, 1.0, 2.0, 433e6, 433.08e6, 1e4, 100, len(body))
    return b"SDRFF" + head + body, int16s(levels)


def _ath(k: int) -> tuple[bytes, bytes]:
    chance = random.Random(k)
    bins = bytes(chance.randrange(1, 200) for _ in range(56))
    data = struct.pack(">BHbbHBBQ", 2, 2412, 20, -95, 190, 3, 4, 1000 + k) + bins
    return struct.pack(">BH", 1, len(data)) + data, ath_spectral._share(bins, 2, -75)


def _uniden(k: int) -> tuple[bytes, bytes]:
    level = -40 - k
    lines = [
        b"GSI,<XML>,",
        b'<?xml version="1.0" encoding="utf-8"?>',
        b'<ScannerInfo Mode="Scan Mode">',
        b' <ConvFrequency Name="A" Freq=" %d.0400MHz" Mod="NFM" />' % (155 + k),
        b' <Property VOL="3" SQL="11" Mute="Mute" Rssi="%d" />' % level,
        b"</ScannerInfo>",
    ]
    return b"".join(line + b"\r" for line in lines), int16s([100 * level])


def _uniden_bcd(k: int) -> tuple[bytes, bytes]:
    return b"PWR,%03d,%08d\r" % (300 + k, 1_550_400 + 125 * k), int16s([300 + k])


STREAMS = [
    Stream(
        "rf-explorer-S",
        RFExplorer,
        b"#C2-M:003,255,01.26\r\n" + _rf_configuration(36),
        _rf_explorer(36, b"$S\x24"),
        tokens=(b"$S\x24", b"\r\n", b"#C2-F:", b"\xff\xfe\xff\xfe\x00", _rf_configuration(36)),
    ),
    Stream(
        "rf-explorer-s",
        RFExplorer,
        _rf_configuration(32, b"f", b"-025"),
        _rf_explorer(32, b"$s\x02", -25),
        tokens=(b"$s\x02", b"\r\n", b"#C2-f:", b"\xff\xfe\xff\xfe\x00"),
    ),
    Stream(
        "rf-explorer-z",
        RFExplorer,
        _rf_configuration(45, b"f"),
        _rf_explorer(45, b"$z\x00\x2d"),
        tokens=(b"$z\x00\x2d", b"\r\n", b"(C) Ariel Rocholl ", b"\xff\xfe\xff\xfe\x00"),
    ),
    Stream(
        "tinysa-ultra",
        lambda: TinySAUltra(Axis(865_000_000, 80_000, 25)),
        b"scanraw 865000000 867000000 25 3\r\n",
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
    Stream("rtl-power", SweepText, b"", _rtl_power, tokens=(b"2026-11-24, ", b"\n", b", nan\n", b"# c\n")),
    Stream(
        "hackrf-sweep",
        SweepText,
        b"",
        _hackrf_sweep,
        chained=True,
        tokens=(b"2026-11-24, ", b"\n", b", -inf\n"),
    ),
    Stream(
        "hackrf-binary",
        HackRFBinary,
        b"",
        _hackrf_binary,
        chained=True,
        tokens=(b"\x24\0\0\0", b"\0\0\xc0\x7f"),
    ),
    Stream(
        "soapy-binary",
        SoapyBinary,
        b"",
        _soapy_binary,
        chained=True,
        tokens=(b"SDRFF", b"SDRFF\x02", b"\0\0\xc0\x7f"),
    ),
    Stream(
        "ath-spectral",
        ath_spectral.AthSpectral,
        b"",
        _ath,
        chained=True,
        tokens=(b"\x01\x00\x49", b"\x02\0\x97", b"\x03\0"),
    ),
    Stream(
        "uniden",
        Uniden,
        b"",
        _uniden,
        tokens=(b"GSI,<XML>,\r", b"</ScannerInfo>\r", b"MDL,X\r", b"GSI,ERR,1\r"),
    ),
    Stream("uniden-bcd", UnidenBCD, b"", _uniden_bcd, tokens=(b"PWR,", b"\r", b"VER,Version 1\r", b"ERR\r")),
]
