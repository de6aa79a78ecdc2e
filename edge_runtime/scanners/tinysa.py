"""tinySA and tinySA Ultra: a text shell over USB, and binary frames (cmd_scanraw of their firmware).

A command ends in CR and is echoed; its answer is lines ending in CRLF; the prompt `ch> ` has no end of line.
`scanraw start stop points flags` answers

    { x LSB MSB x LSB MSB ... }        points times `x` and a u16; frames of the repeat mode join as `}{`

with dBm = u16 / 32 - zero, where `zero` prints the zero in use (128, Ultra 174). The bytes of a u16 can be
`{`, `x`, `}` or anything, so frames are framed by count: every third byte is `x` until the one that is `}`. A
touch of the screen ends a frame early. Point k lies at start + k * (stop - start) / points.

`scan start stop points mask` and `data n` answer one line of numbers a point, and the prompt.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from struct import unpack

from edge_runtime.errors import BadInput
from edge_runtime.reasons import Reason
from edge_runtime.scan import Axis, Scan, new_scan
from edge_runtime.scanners.base import (
    Battery,
    Can,
    Configuration,
    Damage,
    Heard,
    Send,
    StreamScanner,
    int16,
)

PROMPT = b"ch> "
UNBUFFERED, REPEAT = 1, 2
LINE_LIMIT = 256
MAX_POINTS = 20_000
"""Frames of a log whose count nobody named are not waited for beyond this."""
ZEROS_DBM = range(-71, 328)
"""Over these zeros every u16 below 0x2000 is a power that an int16 holds; no instrument has another."""
SCAN_COLUMNS = (1, 2, 4, 8)
"""Bits of the mask of `scan`: frequency, measured, stored, temperature."""

UNKNOWN = Axis(0, 0, 0)

_OPEN, _CLOSE, _POINT = 0x7B, 0x7D, 0x78
_LINE = re.compile(rb"[\t -~]*")
_SCANRAW = re.compile(rb"scanraw (\d+) (\d+) (\d+)(?: \d+)?\r?")
_SCAN = re.compile(rb"scan (\d+) (\d+) (\d+) (\d+)\r?")
_DATA = re.compile(rb"data ([012])\r?")
_NUMBERS = re.compile(rb"-?[\d.]+(?:e[-+]\d+)?(?: -?[\d.]+(?:e[-+]\d+)?)*")
_ZERO = re.compile(rb"(-?\d{1,3})dBm")
_VOLTAGE = re.compile(rb"(\d{1,5}) mV")


class TinySA(StreamScanner):
    """A tinySA's decoder and commands. `axis` is what is swept; without it only a log can be read.

    A log does not say what was swept: its frames are taken to be on `axis` where they have as many points.
    """

    name = "tinysa"
    can = Can.CONFIGURE | Can.PAUSE | Can.BATTERY
    silent_us = 30_000_000
    zero_dbm = 128

    def __init__(self, axis: Axis | None = None) -> None:
        super().__init__()
        self._wanted = axis
        self._frame_axis = axis or UNKNOWN
        self._points = 0
        self._named = False  # the instrument said how many points it sweeps; a log may not have that
        self._running = True
        self._set_zero(self.zero_dbm)

    def reset(self) -> None:
        super().reset()
        self._unlike = 0  # the points of the last frame that had not the usual count
        self._todo = deque([b"version\r", b"zero\r"])
        self._rows: list[bytes] | None = None  # of the `scan` or `data` that is being answered
        self._columns = (0, 1)  # how many a row has, and which is the power

    def start(self) -> bytes:
        return b"\r"  # also ends what a former session left running

    def configure(self, axis: Axis) -> bytes:
        self._wanted = axis
        return b"\r"

    def pause(self) -> bytes:
        self._running = False
        return b"pause\r"

    def resume(self) -> bytes:
        self._running = True
        return b"\r"

    def battery(self) -> bytes:
        return b"vbat\r"

    def data(self, trace: int) -> bytes:
        """Ask for a stored trace as text: 0 temporary, 1 stored, 2 measured. A Scan answers."""
        if trace not in (0, 1, 2):
            raise BadInput(f"tinysa: has no trace {trace}; choose of 0, 1, 2")
        return b"data %d\r" % trace

    def scan(self, axis: Axis, mask: int = 3) -> bytes:
        """Ask for one sweep as text. A Scan answers; the instrument is paused after it."""
        return b"scan %d %d %d %d\r" % (*_ends(axis), axis.points, mask)

    def feed(self, data: bytes, now_us: int) -> Sequence[Heard]:
        # The steady state of the repeat mode: one read holds exactly one frame like the last one.
        if data and len(data) == self.frame_bytes and not self._buffer and not self._lost:
            lanes = int.from_bytes(data, "little") ^ self._frame_lanes
            if not lanes & self._odd_lanes:
                return (new_scan((self._powers(lanes), self._frame_axis, now_us, now_us)),)
        return super().feed(data, now_us)

    def _piece(self, at: int, now_us: int, events: list[Heard]) -> int:
        buffer = self._buffer
        if buffer[at] == _OPEN:
            if at + 1 == len(buffer):
                return 0
            if buffer[at + 1] in (_POINT, _CLOSE):
                return self._frame(at, now_us, events)
        elif PROMPT.startswith(buffer[at : at + len(PROMPT)]):
            if len(buffer) - at < len(PROMPT):
                return 0
            self._prompted(now_us, events)
            return len(PROMPT)
        return self._line(at, events)

    def _frame(self, at: int, now_us: int, events: list[Heard]) -> int:
        """A frame is `{`, marks `x` at every third byte, and `}` where the next mark would be."""
        limit = self._points or MAX_POINTS
        marks = self._buffer[at + 1 : at + 2 + 3 * limit : 3]
        points = len(marks) - len(marks.lstrip(b"x"))
        if points == len(marks):
            return 0 if points <= limit else self._lose(1, Reason.BAD_LENGTH, events)
        if marks[points] != _CLOSE:
            return self._lose(1, Reason.TRUNCATED, events)
        size = 3 * points + 2
        self._flush(events)
        if self._points and points != self._points and not self._learns(points):
            events.append(Damage(Reason.ABORTED, size))
        elif points:
            self._begin_frames(points)
            events.append(self._frame_scan(self._buffer[at : at + size], now_us))
        return size

    def _learns(self, points: int) -> bool:
        """Whether a log whose count nobody named has another count from here on: two frames say so."""
        agreed, self._unlike = self._unlike == points and not self._named, points
        return agreed

    def _begin_frames(self, points: int) -> None:
        """From here on frames have that many points."""
        if self.frame_bytes == 3 * points + 2:
            return
        self._points = points
        self.frame_bytes = 3 * points + 2
        self._scratch = bytearray(2 * points)
        self._frame_lanes = int.from_bytes(b"{" + b"x\0\0" * points + b"}", "little")
        self._odd_lanes = int.from_bytes(b"\xff" + b"\xff\0\xe0" * points + b"\xff", "little")
        self._zero_lanes = self._lanes(points)
        if self._frame_axis.points != points:
            self._frame_axis = Axis(0, 0, points)  # of another sweep than the one wanted

    def _set_zero(self, zero_dbm: int) -> None:
        self._zero_cdbm = 100 * zero_dbm
        if self.frame_bytes:
            self._zero_lanes = self._lanes(self._points)

    def _lanes(self, points: int) -> int:
        lane = 4 + 8 * ((0x10000 - self._zero_cdbm) & 0xFFFF)
        return int.from_bytes(lane.to_bytes(3, "little") * points, "little") << 16

    def _frame_scan(self, frame: bytes, now_us: int) -> Scan:
        lanes = int.from_bytes(frame, "little") ^ self._frame_lanes
        powers = self._slowly(frame) if lanes & self._odd_lanes else self._powers(lanes)
        return new_scan((powers, self._frame_axis, now_us, now_us))

    def _powers(self, lanes: int) -> bytes:
        """Hundredths of a dBm: (25 * u16 + 4) / 8 - 100 * zero, rounded half up.

        All points at once, as one long integer: a frame without its marks and braces is a lane of 24 bits a
        point, from bit 16 on, which a u16 below 0x2000 (82 dBm over a zero of 174) cannot overflow.
        """
        scaled = bytearray(((25 * lanes + self._zero_lanes) >> 3).to_bytes(self.frame_bytes, "little"))
        powers = self._scratch
        powers[0::2] = scaled[2:-1:3]
        powers[1::2] = scaled[3::3]
        return bytes(powers)

    def _slowly(self, frame: bytes) -> bytes:
        """The same of any u16."""
        counts = unpack("<x" + "xH" * self._points + "x", frame)
        return b"".join(int16((25 * count + 4) // 8 - self._zero_cdbm) for count in counts)

    def _line(self, at: int, events: list[Heard]) -> int:
        matched = _LINE.match(self._buffer, at, at + LINE_LIMIT)
        end = matched.end() if matched else at
        rest = self._buffer[end : end + 2]
        if end - at < LINE_LIMIT:
            if rest == b"\r\n":
                self._flush(events)
                self._take_line(self._buffer[at:end], events)
                return end + 2 - at
            if rest in (b"", b"\r"):
                return 0
        return self._lose(1, Reason.GARBAGE, events)

    def _take_line(self, line: bytes, events: list[Heard]) -> None:
        if self._rows is not None and _NUMBERS.fullmatch(line):
            if len(self._rows) < MAX_POINTS:
                self._rows.append(line)
        elif line.startswith(b"tinySA"):
            model, _, firmware = line.decode().partition("_")
            self._identify(events, model=model, firmware=firmware)
        elif line.startswith(b"HW Version:"):
            self._identify(events, serial=line[11:].decode().strip())
        elif (matched := _ZERO.fullmatch(line)) and int(matched[1]) in ZEROS_DBM:
            self._set_zero(int(matched[1]))
        elif matched := _VOLTAGE.fullmatch(line):
            events.append(Battery(int(matched[1])))
        else:
            self._take_echo(line, events)

    def _take_echo(self, line: bytes, events: list[Heard]) -> None:
        """The instrument repeats a command before it carries it out: what it will sweep is read back."""
        if matched := _SCANRAW.fullmatch(line):
            start, stop, points = (int(f) for f in matched.groups())
            if points:
                self._named = True
                self._frame_axis = Axis(start, (stop - start) // points, points)
                self._begin_frames(points)
                events.append(Configuration(self._frame_axis, line.decode()))
        elif matched := _SCAN.fullmatch(line):
            start, stop, points, mask = (int(f) for f in matched.groups())
            shown = [bit for bit in SCAN_COLUMNS if mask & bit]
            wanted = 2 if mask & 2 else 4
            if points and wanted in shown:
                self._frame_axis = Axis(start, (stop - start) // points, points)
                self._rows, self._columns = [], (len(shown), shown.index(wanted))
        elif _DATA.fullmatch(line):
            self._rows, self._columns = [], (1, 0)

    def _prompted(self, now_us: int, events: list[Heard]) -> None:
        """The instrument waits for a command: end what it answered, and give it the next."""
        self._flush(events)
        if self._rows:
            events.append(self._text_scan(self._rows, now_us))
        self._rows = None
        if self._todo:
            events.append(Send(self._todo.popleft()))
        elif self._running and self._wanted:
            events.append(Send(scanraw(self._wanted)))

    def _text_scan(self, rows: list[bytes], now_us: int) -> Heard:
        width, column = self._columns
        try:
            cells = [row.split()[column] for row in rows if len(row.split()) == width]
            powers = b"".join(int16(round(100 * float(cell))) for cell in cells)
        except (ValueError, OverflowError):
            powers = b""
        if len(powers) != 2 * len(rows):
            return Damage(Reason.GARBAGE, sum(map(len, rows)))
        axis = self._frame_axis
        if len(rows) != axis.points:
            return Damage(Reason.BAD_LENGTH, sum(map(len, rows)))
        return Scan(powers, axis, now_us)


class TinySAUltra(TinySA):
    """The Ultra differs in its usual zero only."""

    name = "tinysa-ultra"
    zero_dbm = 174


def scanraw(axis: Axis, flags: int = UNBUFFERED | REPEAT) -> bytes:
    """The command that sweeps `axis` until another command comes. Firmware before 1.4-177 sweeps once."""
    return b"scanraw %d %d %d %d\r" % (*_ends(axis), axis.points, flags)


def _ends(axis: Axis) -> tuple[int, int]:
    return axis.start_hz, axis.start_hz + axis.step_hz * axis.points
