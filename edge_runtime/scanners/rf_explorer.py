"""RF Explorer, spectrum analyser mode (its UART API, firmware 1.11 to 3.x; CP210x, 500,000 baud, 8N1).

Frames that are decoded:

    #C2-F:sssssss,hhhhhhh,tttt,bbbb,pppp,...CRLF   configuration: start kHz, step Hz, top, bottom, points
    #C2-f:...                                      the same with five digits of points
    #C2-M:mmm,eee,vv.vvCRLF                        model, expansion model, firmware
    #Sn....CRLF                                    serial number
    $S<n> n bytes CRLF                             a sweep of n points
    $s<n> 16n bytes CRLF                           n = 0 means 256
    $z<hi><lo> bytes CRLF                          a 16-bit count
    ... FF FE FF FE 00                             the sweep begun is given up

A point is a byte, dBm = -byte / 2 + offset. Sweeps carry no checksum and their bytes can be CR, LF, `$` or
`#`, so they are framed by the count, which must be the configuration's, and by the CRLF at its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from struct import Struct

from edge_runtime.reasons import Reason
from edge_runtime.scan import Axis, Scan, new_scan
from edge_runtime.scanners.base import Can, Configuration, Heard, Send, StreamScanner

EARLY_END = b"\xff\xfe\xff\xfe\x00"
LINE_LIMIT = 192
_new: Callable[[type[Scan], tuple[bytes, Axis | None, int, int]], Scan] = tuple.__new__
"""As `new_scan` makes one, without the partial's own cost: in the steady state that shows."""
RESET_LINE = b"(C) Ariel Rocholl "

MODELS = {
    0: "433M",
    1: "868M",
    2: "915M",
    3: "WSUB1G",
    4: "2.4G",
    5: "WSUB3G",
    6: "6G",
    10: "WSUB1G+",
    12: "2.4G+",
    13: "4G+",
    14: "6G+",
    60: "RFGEN",
}

_START = re.compile(rb"[#$(]")
_LINE = re.compile(rb"[ -~]*")
_CONFIGURATION = re.compile(
    rb"#C2-(?:F:(\d{7}),(\d{7,8}),[-\d]{4},[-\d]{4},(\d{4})|f:(\d{7}),(\d{7,8}),[-\d]{4},[-\d]{4},(\d{5}))"
    rb",\d,\d{3},\d{7},\d{7},\d{7}(?:,\d{5}(?:,([-+\d]\d{3}))?)?(?:,\d{3})?"
)
_MODEL = re.compile(rb"#C2-M:(\d{3}),(\d{3}),([ -~]{1,8})")


def command(payload: bytes) -> bytes:
    """A command to the device: `#`, the length of the whole, the payload."""
    return b"#" + bytes((len(payload) + 2,)) + payload


REQUEST_CONFIGURATION = command(b"C0")
REQUEST_SERIAL = command(b"Cn")
HOLD = command(b"CH")
SHUTDOWN = command(b"S")
REBOOT = command(b"r")
LCD_OFF = command(b"L0")
LCD_ON = command(b"L1")


def points_command(points: int) -> bytes:
    """Ask for that many points; the device snaps the frequencies, so configure them after it."""
    if points % 16 == 0 and 16 <= points <= 4096:
        return command(b"CJ" + bytes(((points - 16) // 16,)))
    return command(b"Cj" + points.to_bytes(2, "big"))


def frequencies_command(axis: Axis, top_dbm: int = 0, bottom_dbm: int = -120) -> bytes:
    """Ask for that span, rounded to kHz as the protocol has it."""
    start_khz = round(axis.start_hz / 1000)
    end_khz = round((axis.start_hz + axis.step_hz * (axis.points - 1)) / 1000)
    return command(b"C2-F:%07d,%07d,%04d,%04d" % (start_khz, end_khz, top_dbm, bottom_dbm))


class RFExplorer(StreamScanner):
    """An RF Explorer's decoder and commands. Where `axis` is given it is asked for once and read back."""

    name = "rf-explorer"
    baud = 500_000
    byte_us = 20.0
    can = Can.CONFIGURE | Can.PAUSE | Can.SLEEP
    terminator = 0x0A

    def __init__(self, axis: Axis | None = None) -> None:
        super().__init__()
        self._wanted = axis
        self._axis: Axis | None = None
        self._head = b""  # how the last good sweep began
        self._parts = Struct("0s0s0s").unpack  # takes one like it apart

    def reset(self) -> None:
        super().reset()
        self._searched = 0  # how far the sweep at the buffer's head was searched for its early end
        self._asked = False

    def start(self) -> bytes:
        return REQUEST_SERIAL + REQUEST_CONFIGURATION

    def configure(self, axis: Axis) -> bytes:
        self._wanted, self._asked = axis, True
        return points_command(axis.points) + frequencies_command(axis)

    def pause(self) -> bytes:
        return HOLD

    def resume(self) -> bytes:
        return REQUEST_CONFIGURATION

    def sleep(self) -> bytes:
        return HOLD + LCD_OFF

    def wake(self) -> bytes:
        return LCD_ON + REQUEST_CONFIGURATION

    def feed(self, data: bytes, now_us: int) -> Sequence[Heard]:
        # The steady state: one read holds exactly one sweep like the last one, or (a line feed among its points
        # woke us early) a part of it, and the next read the rest.
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        size, whole = len(data), self.frame_bytes
        # A byte is found ten times as fast as a string, and -127.5 dBm hardly ever occurs.
        if data and size == whole and not self._lost and (0xFF not in data or EARLY_END not in data):
            head, codes, end = self._parts(data)
            if head == self._head and end == b"\r\n":
                self._searched = 0
                return (_new(Scan, (self._expand(codes), self._axis, now_us, now_us - self._wire_us)),)
        elif size < whole and not self._lost and data.startswith(self._head) and 0xFF not in data:
            self._buffer = data
            return ()
        return super().feed(data, now_us)

    def _piece(self, at: int, now_us: int, events: list[Heard]) -> int:
        first = self._buffer[at]
        if first == 0x24:
            return self._sweep(at, now_us, events)
        if first in (0x23, 0x28):
            return self._line(at, events)
        if first == 0x0D and not self._lost:  # an early end may be followed by an end of line
            rest = self._buffer[at + 1 : at + 2]
            if rest in (b"", b"\n"):
                return 2 * len(rest)
        found = _START.search(self._buffer, at)
        return self._lose((found.start() if found else len(self._buffer)) - at, Reason.GARBAGE, events)

    def _sweep(self, at: int, now_us: int, events: list[Heard]) -> int:
        buffer = self._buffer
        if len(buffer) - at < 4:
            return 0
        head, count = _counted(buffer[at : at + 4])
        if wrong := self._refusal(count):
            return self._lose(1, wrong, events)
        body, end = at + head, at + head + count
        searched, self._searched = at + self._searched, 0
        early = buffer.find(EARLY_END, max(body, searched), end + 2)
        if early >= 0:
            return self._early_end(at, early, events)
        if len(buffer) < end + 2:
            self._searched = max(0, len(buffer) - at - len(EARLY_END) + 1)
            return 0
        if buffer[end : end + 2] != b"\r\n":
            return self._lose(1, Reason.TRUNCATED, events)
        self._flush(events)
        self._head, self.frame_bytes = buffer[at:body], head + count + 2
        self._parts = Struct(f"{head}s{count}s2s").unpack
        self._wire_us = int(self.frame_bytes * self.byte_us)
        events.append(self._scan(buffer[body:end], now_us))
        return head + count + 2

    def _refusal(self, count: int) -> Reason | None:
        """Why a sweep of that count is not believed and therefore not waited for; None where it is."""
        if count < 0:
            return Reason.GARBAGE
        if self._axis is None:
            return Reason.NO_CONFIG
        return None if count == self._axis.points else Reason.BAD_LENGTH

    def _early_end(self, at: int, early: int, events: list[Heard]) -> int:
        self._flush(events)
        self._lose(early + len(EARLY_END) - at, Reason.ABORTED, events)
        self._flush(events)
        return early + len(EARLY_END) - at

    def _scan(self, codes: bytes, now_us: int) -> Scan:
        return new_scan((self._expand(codes), self._axis, now_us, now_us - self._wire_us))

    def _line(self, at: int, events: list[Heard]) -> int:
        matched = _LINE.match(self._buffer, at, at + LINE_LIMIT)
        end = matched.end() if matched else at
        if end - at >= LINE_LIMIT:
            return self._lose(1, Reason.GARBAGE, events)
        rest = self._buffer[end : end + 2]
        if rest == b"\r\n":
            return self._take_line(self._buffer[at:end], events)
        if rest in (b"", b"\r"):
            return 0
        return self._lose(1, Reason.GARBAGE, events)

    def _take_line(self, line: bytes, events: list[Heard]) -> int:
        size = len(line) + 2
        if line.startswith((b"#C2-F:", b"#C2-f:")):
            matched = _CONFIGURATION.fullmatch(line)
            if not matched or not self._configured(matched, events):
                return self._lose(1, Reason.GARBAGE, events)
            return size
        self._flush(events)
        if matched := _MODEL.fullmatch(line):
            boards = [MODELS.get(int(m), f"model {int(m)}") for m in matched.group(1, 2) if m != b"255"]
            self._identify(events, model=" + ".join(boards), firmware=matched[3].decode())
        elif line.startswith(b"#Sn"):
            self._identify(events, serial=line[3:19].decode())
        elif line.startswith(RESET_LINE):  # the device rebooted: it waits to be asked
            self._asked = False
            events.append(Send(REQUEST_CONFIGURATION))
        elif line.startswith(b"("):
            return self._lose(1, Reason.GARBAGE, events)
        return size

    def _configured(self, matched: re.Match[bytes], events: list[Heard]) -> bool:
        fields = matched.group(1, 2, 3) if matched[1] else matched.group(4, 5, 6)
        start_khz, step_hz, points = (int(f) for f in fields)
        if points == 0 or step_hz == 0:
            return False
        self._flush(events)
        axis = Axis(start_khz * 1000, step_hz, points)
        if axis != self._axis:
            self._head, self.frame_bytes = b"", 0
        self._axis = axis
        self._expand = self.expander(points, -50, 100 * int(matched[7] or 0))
        events.append(Configuration(axis, matched[0].decode()))
        if self._wanted and not self._asked and not same_span(axis, self._wanted):
            events.append(Send(self.configure(self._wanted)))
        return True


def _counted(head: bytes) -> tuple[int, int]:
    """The sizes of a sweep's head and of its payload; a payload of -1 where it is no head."""
    kind = head[1]
    if kind == 0x53:
        return 3, head[2]
    if kind == 0x73:
        return 3, 16 * (head[2] or 256)
    if kind == 0x7A:
        return 4, head[2] << 8 | head[3]
    return 1, -1


def same_span(a: Axis, b: Axis) -> bool:
    """Whether two axes are the same to the protocol, which rounds both ends to kHz."""
    last_a, last_b = a.start_hz + a.step_hz * (a.points - 1), b.start_hz + b.step_hz * (b.points - 1)
    return a.points == b.points and abs(a.start_hz - b.start_hz) < 1000 and abs(last_a - last_b) < 1000
