"""The framed protocol, for scanners that people build themselves. `compile/firmware/edge_scanner.h` speaks it.

A frame is a packet, stuffed so that it holds no LF, then LF. Little-endian, both ways:

    u8  type
    u16 sequence number, counted by its sender over all its frames
    u32 sender's clock, microseconds, wrapping; of a sweep: when its last point was measured
    ... payload of the type
    u32 CRC-32 (IEEE 802.3, as zlib has it) of all before

    from the scanner   1 SWEEP          u64 start Hz, u32 step Hz, u16 points, then i16 points in 0.01 dBm
                       2 HELLO          model NUL firmware NUL serial number, at power-up and when asked
                       3 CONFIGURATION  u64 start Hz, u32 step Hz, u16 points
                       4 BATTERY        u16 mV
    to the scanner    16 HELLO, 17 CONFIGURE (u64, u32, u16 as above), 18 PAUSE, 19 RESUME, 20 SLEEP, 21 WAKE,
                      22 BATTERY

Stuffing is COBS (Cheshire and Baker, 1999) with every byte XOR 0x0A after it: the byte that cannot occur is LF
in place of zero, so that a Linux tty wakes its reader once a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from zlib import crc32

from edge_runtime.reasons import Reason
from edge_runtime.scan import Axis, Scan
from edge_runtime.scanners.base import Battery, Can, Configuration, Damage, Heard, StreamScanner

SWEEP, HELLO, CONFIGURATION, BATTERY = 1, 2, 3, 4
ASK_HELLO, CONFIGURE, PAUSE, RESUME, SLEEP, WAKE, ASK_BATTERY = range(16, 23)
MAX_FRAME = 132_000
"""No frame is longer: 65,535 points, stuffed."""

SPREAD = 4
"""Frames of one packet size differ by so many bytes at most, up to a thousand points."""

HEAD = Struct("<BHI")
AXIS = Struct("<QIH")
_CRC = Struct("<I")
_BODY = HEAD.size + AXIS.size
_LF = 0x0A
_XOR = bytes(byte ^ _LF for byte in range(256))
_CLOCK = 1 << 32
_RESTART_US = 10_000_000
"""A sender's clock that is off by more has been started anew."""


def stuff(packet: bytes) -> bytes:
    """A packet as it travels, LF included."""
    out = bytearray()
    for part in packet.split(b"\0"):
        while len(part) >= 254:
            out += b"\xff" + part[:254]
            part = part[254:]  # noqa: PLW2901
        out += bytes((len(part) + 1,)) + part
    return bytes(out).translate(_XOR) + b"\n"


def unstuff(frame: bytes) -> bytes:
    """The packet of a frame without its LF; empty where it is no stuffed packet."""
    coded = frame.translate(_XOR)
    parts = []
    at, end = 0, len(coded)
    while at < end:
        code = coded[at]
        at += 1
        part = coded[at : at + code - 1]
        if not code or len(part) != code - 1:
            return b""
        parts.append(part)
        at += code - 1
        if code != 255 and at < end:
            parts.append(b"\0")
    return b"".join(parts)


def intact(packet: bytes) -> bool:
    """Whether a packet is whole."""
    return len(packet) >= HEAD.size + 4 and crc32(memoryview(packet)[:-4]) == int.from_bytes(
        packet[-4:], "little"
    )


def frame(kind: int, sequence: int, time_us: int, payload: bytes = b"") -> bytes:
    """A frame as it travels."""
    packet = HEAD.pack(kind, sequence & 0xFFFF, time_us & 0xFFFF_FFFF) + payload
    return stuff(packet + _CRC.pack(crc32(packet)))


class Framed(StreamScanner):
    """A self-built scanner's decoder and commands. Where `axis` is given it is asked for."""

    name = "framed"
    byte_us = 10e6 / 115_200
    can = Can.CONFIGURE | Can.PAUSE | Can.SLEEP | Can.BATTERY
    terminator = _LF

    def __init__(self, axis: Axis | None = None) -> None:
        super().__init__()
        self._wanted = axis
        self._sent = 0
        self._axis_bytes = b""
        self._axis = Axis(0, 0, 0)

    def reset(self) -> None:
        super().reset()
        self._searched = 0
        self._sequence = -1  # of the last frame; -1: none yet
        self._offset_us = 0  # host's clock less the scanner's
        self._synchronised = False

    def start(self) -> bytes:
        hello = b"\n" + self._command(ASK_HELLO)  # LF ends what noise may have begun
        return hello + (self.configure(self._wanted) if self._wanted else b"") + self.resume()

    def configure(self, axis: Axis) -> bytes:
        return self._command(CONFIGURE, AXIS.pack(axis.start_hz, axis.step_hz, axis.points))

    def pause(self) -> bytes:
        return self._command(PAUSE)

    def resume(self) -> bytes:
        return self._command(RESUME)

    def sleep(self) -> bytes:
        return self._command(SLEEP)

    def wake(self) -> bytes:
        return self._command(WAKE)

    def battery(self) -> bytes:
        return self._command(ASK_BATTERY)

    def _command(self, kind: int, payload: bytes = b"") -> bytes:
        self._sent += 1
        return frame(kind, self._sent, 0, payload)

    def _piece(self, at: int, now_us: int, events: list[Heard]) -> int:
        buffer = self._buffer
        end = buffer.find(b"\n", at + self._searched, at + MAX_FRAME)
        if end < 0:
            self._searched = len(buffer) - at
            if self._searched < MAX_FRAME:
                return 0
            self._searched = 0
            return self._lose(MAX_FRAME, Reason.GARBAGE, events)
        self._searched = 0
        if end > at:
            self._frame(buffer[at:end], now_us, events)
        return end + 1 - at

    def _frame(self, coded: bytes, now_us: int, events: list[Heard]) -> None:
        """A frame without its LF, or two of which the LF between them was lost."""
        packet = unstuff(coded)
        if intact(packet):
            self._packet(packet, len(coded) + 1, now_us, events)
            return
        likely = self.frame_bytes - 1 if self.frame_bytes else len(coded) // 2
        for size in range(likely - SPREAD, likely + SPREAD + 1):
            packet = unstuff(coded[-size:]) if 0 < size < len(coded) else b""
            if intact(packet):
                self._lose(len(coded) - size, Reason.CHECKSUM, events)
                self._packet(packet, size + 1, now_us, events)
                return
        self._lose(len(coded) + 1, Reason.CHECKSUM, events)

    def _packet(self, packet: bytes, size: int, now_us: int, events: list[Heard]) -> None:
        self._flush(events)
        kind, sequence, time_us = HEAD.unpack_from(packet)
        if kind == HELLO:
            self._sequence = -1  # it was switched on, and counts anew
        if sequence == self._sequence:
            events.append(Damage(Reason.REPEATED, size))
            return
        missed = (sequence - self._sequence - 1) & 0xFFFF
        if self._sequence >= 0 and 0 < missed < 0x8000:
            events.append(Damage(Reason.SKIPPED, missed))
        self._sequence = sequence
        if kind == SWEEP:
            self._sweep(packet, size, time_us, now_us, events)
        else:
            self._news(kind, packet[HEAD.size : -4], size, events)

    def _sweep(self, packet: bytes, size: int, time_us: int, now_us: int, events: list[Heard]) -> None:
        axis_bytes = packet[HEAD.size : _BODY]
        powers = packet[_BODY:-4]
        if axis_bytes != self._axis_bytes and len(axis_bytes) == AXIS.size:
            self._axis, self._axis_bytes = Axis(*AXIS.unpack(axis_bytes)), axis_bytes
        if len(packet) < _BODY + 4 or len(powers) != 2 * self._axis.points or not powers:
            events.append(Damage(Reason.BAD_LENGTH, size))
            return
        self.frame_bytes = size
        events.append(Scan(powers, self._axis, now_us, self._on_our_clock(time_us, now_us, size)))

    def _on_our_clock(self, time_us: int, now_us: int, size: int) -> int:
        """When a sweep was measured. The quickest frame tells the clocks' offset; delays make others late.

        Slow drift is followed: the offset falls to a quicker frame at once, and rises by a 256th of the rest.
        """
        late_us = (now_us - time_us - self._offset_us) % _CLOCK
        if late_us >= _CLOCK // 2:
            late_us -= _CLOCK
        if not self._synchronised or late_us < 0 or late_us > _RESTART_US:
            self._offset_us += late_us
            self._synchronised = True
            late_us = 0
        self._offset_us += late_us >> 8
        return now_us - late_us - int(size * self.byte_us)

    def _news(self, kind: int, payload: bytes, size: int, events: list[Heard]) -> None:
        if kind == HELLO and payload.count(b"\0") == 2:
            model, firmware, serial = payload.decode("ascii", "replace").split("\0")
            self._identify(events, model=model, firmware=firmware, serial=serial)
        elif kind == CONFIGURATION and len(payload) == AXIS.size:
            axis = Axis(*AXIS.unpack(payload))
            events.append(
                Configuration(axis, f"{axis.start_hz} Hz, step {axis.step_hz} Hz, {axis.points} points")
            )
        elif kind == BATTERY and len(payload) == 2:
            events.append(Battery(int.from_bytes(payload, "little")))
        else:
            events.append(Damage(Reason.GARBAGE, size))

    def feed(self, data: bytes, now_us: int) -> Sequence[Heard]:
        # The steady state: the line discipline gives one frame a read.
        if (
            self._buffer
            or not data.endswith(b"\n")
            or data.find(b"\n") != len(data) - 1
            or len(data) > MAX_FRAME
        ):
            return super().feed(data, now_us)
        events: list[Heard] = []
        if len(data) > 1:
            self._frame(data[:-1], now_us, events)
        return events
