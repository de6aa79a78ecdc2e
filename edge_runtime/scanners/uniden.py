"""Uniden scanners: SDS and BCDx36HP (`GSI`, XML), older BCD (`PWR`). 115,200 baud, commands end in CR.

    GSI                    GSI,<XML>,CR <?xml ...?>CR <ScannerInfo ...> ... </ScannerInfo>CR, every line ended by CR:
                           an element with Freq=" 155.0400MHz", <Property SQL="9" Mute="Mute" Rssi="-75" ... />
    PWR                    PWR,level,frequency in 100 Hz
    MDL, VER               MDL,SDS100 and VER,Version 1.23.07
    anything else          CMD,ERR,code and the like

These receive one channel at a time: a scan has one point, at the channel's frequency, with the received signal
strength. SDS scanners give it in dBm; the others give volts or counts of their converter, which are passed on as
hundredths of a volt or as the count and are no dBm (see `units`). One request is open at a time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from edge_runtime.reasons import Reason
from edge_runtime.scan import Axis, Scan
from edge_runtime.scanners.base import Can, Configuration, Heard, Send, StreamScanner, int16

CHANNEL_HZ = 12_500
"""The step of a one-point axis: the width of the channel."""
LINE_LIMIT = 512
DOCUMENT_LIMIT = 16_384

_LINE = re.compile(rb"[\t\n -~]*")
_FREQUENCY = re.compile(rb'\sFreq="\s*(\d{1,4}\.\d{1,6})MHz"')
_STRENGTH = re.compile(rb'\sRssi="(-?\d{1,4}(?:\.\d{1,4})?)"')
_END = b"</ScannerInfo>"


class Uniden(StreamScanner):
    """An SDS or BCDx36HP, asked by GSI over and over."""

    name = "uniden"
    can = Can.PAUSE  # by not being asked
    byte_us = 10e6 / 115_200
    terminator = 0x0D
    units = "dBm"
    request = b"GSI\r"

    def __init__(self, axis: Axis | None = None) -> None:
        super().__init__()
        self._axis = Axis(0, CHANNEL_HZ, 1)
        self._running = True

    def reset(self) -> None:
        super().reset()
        self._document: list[bytes] | None = None
        self._document_bytes = 0

    def start(self) -> bytes:
        self.reset()
        return b"MDL\rVER\r" + self.request

    def pause(self) -> bytes:
        self._running = False
        return b""

    def resume(self) -> bytes:
        self._running = True
        return self.request

    def missing(self) -> int:
        return 0

    def _piece(self, at: int, now_us: int, events: list[Heard]) -> int:
        matched = _LINE.match(self._buffer, at, at + LINE_LIMIT)
        end = matched.end() if matched else at
        if end - at < LINE_LIMIT:
            if end == len(self._buffer):
                return 0
            if self._buffer[end] == 0x0D:
                self._lines(self._buffer[at : end + 1], now_us, events)
                return end + 1 - at
        return self._lose(max(1, end - at), Reason.GARBAGE, events)

    def _lines(self, line: bytes, now_us: int, events: list[Heard]) -> None:
        """A line, or two of which the CR between them was lost."""
        for mark in (b"GSI,<XML>,", b"PWR,"):
            begins = line.rfind(mark)
            if begins > 0:
                self._line(line[:begins].strip(), begins, now_us, events)
                line = line[begins:]
        self._line(line.strip(), len(line), now_us, events)

    def _line(self, line: bytes, size: int, now_us: int, events: list[Heard]) -> None:
        name, _, rest = line.partition(b",")
        if name == b"GSI" and b"<XML>" in rest:
            self._give_up(events)
            self._flush(events)
            self._document = [line]
            self._document_bytes = size
        elif self._document is not None:
            self._document.append(line)
            self._document_bytes += size
            if _END in line:
                self._info(b"\n".join(self._document), now_us, events)
            elif self._document_bytes > DOCUMENT_LIMIT:
                self._give_up(events)
        elif line:
            self._reply(name, rest, size, now_us, events)

    def _give_up(self, events: list[Heard]) -> None:
        """A document did not come to its end."""
        if self._document is not None:
            self._lose(self._document_bytes, Reason.TRUNCATED, events)
            self._document = None

    def _reply(self, name: bytes, rest: bytes, size: int, now_us: int, events: list[Heard]) -> None:
        if name == b"MDL" and rest:
            self._flush(events)
            self._identify(events, model=rest.decode())
        elif name == b"VER" and rest:
            self._flush(events)
            self._identify(events, firmware=rest.decode())
        elif name == b"PWR":
            self._power(rest, size, now_us, events)
        elif rest.startswith((b"OK", b"ERR", b"NG")) or name in (b"ERR", b"NG"):
            self._flush(events)
        else:
            self._lose(size, Reason.GARBAGE, events)

    def _info(self, document: bytes, now_us: int, events: list[Heard]) -> None:
        self._document = None
        frequency, strength = _FREQUENCY.search(document), _STRENGTH.search(document)
        if frequency and strength:
            self._flush(events)
            # An SDS gives whole dBm, a BCDx36HP volts.
            value = round(100 * float(strength[1]))
            self.units = "V" if b"." in strength[1] else "dBm"
            self._channel(round(1e6 * float(frequency[1])), value, now_us, events)
        elif not frequency and strength:
            self._flush(events)  # a menu, or a search between two channels: nothing is received
            self._again(events)
        else:
            self._lose(self._document_bytes, Reason.GARBAGE, events)
            self._again(events)

    def _power(self, rest: bytes, size: int, now_us: int, events: list[Heard]) -> None:
        level, _, frequency = rest.partition(b",")
        if not (level.isdigit() and len(level) <= 4 and frequency.isdigit() and len(frequency) <= 8):
            self._lose(size, Reason.GARBAGE, events)
            return
        self._flush(events)
        self.units = "counts"
        self._channel(100 * int(frequency), int(level), now_us, events)

    def _channel(self, frequency_hz: int, value: int, now_us: int, events: list[Heard]) -> None:
        if frequency_hz != self._axis.start_hz:
            self._axis = Axis(frequency_hz, CHANNEL_HZ, 1)
            events.append(Configuration(self._axis, f"{frequency_hz} Hz, {self.units}"))
        events.append(Scan(int16(value), self._axis, now_us))
        self._again(events)

    def _again(self, events: list[Heard]) -> None:
        if self._running:
            events.append(Send(self.request))

    def end(self, now_us: int) -> Sequence[Heard]:
        events: list[Heard] = []
        self._give_up(events)
        return [*events, *super().end(now_us)]


class UnidenBCD(Uniden):
    """An older BCD, asked by PWR."""

    name = "uniden-bcd"
    units = "counts"
    request = b"PWR\r"
