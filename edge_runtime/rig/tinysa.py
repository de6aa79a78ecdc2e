"""A tinySA Ultra (ZS405, firmware 1.4-200) as its host sees it: a shell that echoes, and scanraw frames."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from edge_runtime.rig.emulator import Emulator
from edge_runtime.scan import Axis
from edge_runtime.scanners.tinysa import PROMPT, REPEAT

VERSION = b"tinySA4_v1.4-200-g0123abc\r\nHW Version:V0.4.5.1 \r\n"
INFO = b"tinySA ULTRA\r\n2019-2024 Copyright @Erik Kaashoek\r\n"
BATTERY_MV = 4112
MAX_POINTS = 450
LINE_LIMIT = 48


class TinySAEmulator(Emulator):
    """Answers the shell's commands; `scanraw` plays the next sweeps of the list, one or until interrupted."""

    name = "tinysa-ultra"
    baud = 4_000_000  # USB full speed in practice; the device has no UART

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._zero_dbm = 174
        self._typed = b""
        self._sweeps = 0  # still to send: 1, or endless (-1)
        self._commands: dict[bytes, Callable[[list[bytes]], bytes]] = {
            b"version": lambda _: VERSION,
            b"info": lambda _: INFO,
            b"help": lambda _: b"commands: " + b" ".join(self._commands) + b"\r\n",
            b"vbat": lambda _: b"%d mV\r\n" % BATTERY_MV,
            b"deviceid": lambda _: b"deviceid 0\r\n",
            b"status": lambda _: b"Resumed\r\n",
            b"pause": lambda _: b"",
            b"resume": lambda _: b"",
            b"abort": lambda _: b"",
            b"zero": self._zero,
            b"sweep": self._sweep,
            b"frequencies": self._frequencies,
            b"data": self._data,
            b"scan": self._scan,
            b"scanraw": self._scanraw,
        }

    def wanted(self) -> bool:
        return self._sweeps != 0

    def frame(self, codes: bytes) -> bytes:
        counts = (32 * self._zero_dbm - 16 * code for code in codes)
        frame = b"{" + b"".join(struct.pack("<BH", 0x78, max(0, count)) for count in counts) + b"}"
        if self._sweeps > 0:
            self._sweeps -= 1
            frame += b"" if self._sweeps else PROMPT
        return frame

    def early_end(self, frame: bytes) -> bytes:
        half = frame[: 1 + 3 * (len(frame) // 6)]
        return half + b"}" + (PROMPT if frame.endswith(PROMPT) else b"")

    def replugged(self) -> None:
        self._typed = b""
        self._sweeps = 0

    def obey(self, data: bytes) -> None:
        for key in data:
            if key == 0x0D:
                self._enter(self._typed)
                self._typed = b""
            elif key >= 0x20 and len(self._typed) < LINE_LIMIT:
                self._typed += bytes((key,))

    def _enter(self, line: bytes) -> None:
        self._sweeps = 0  # any command interrupts the repeat mode
        self.port.write(line + b"\r\n")
        words = line.split()
        if words:
            command = self._commands.get(words[0])
            self.port.write(command(words[1:]) if command else words[0] + b"?\r\n")
        if not self._sweeps:
            self.port.write(PROMPT)

    def _zero(self, words: list[bytes]) -> bytes:
        if len(words) != 1 or words[0].startswith(b"?"):
            return b"usage: zero {level}\r\n%ddBm\r\n" % self._zero_dbm
        self._zero_dbm = int(words[0])
        return b""

    def _sweep(self, words: list[bytes]) -> bytes:
        if len(words) in (2, 3) and all(w.isdigit() for w in words):
            return self._set_axis(words, MAX_POINTS)
        stop = self._axis.start_hz + self._axis.step_hz * self._axis.points
        return b"%d %d %d\r\n" % (self._axis.start_hz, stop, self._axis.points)

    def _set_axis(self, words: list[bytes], limit: int) -> bytes:
        """Take `start stop [points]`; the text of a refusal, empty where they are good."""
        start, stop = int(words[0]), int(words[1])
        points = int(words[2]) if len(words) > 2 else self._axis.points
        if start > stop:
            return b"frequency range is invalid\r\n"
        if not 0 < points <= limit:
            return b"sweep points exceeds range 450\r\n"
        self._axis = Axis(start, (stop - start) // points, points)
        return b""

    def _frequencies(self, _: list[bytes]) -> bytes:
        axis = self._axis
        return b"".join(b"%d\r\n" % (axis.start_hz + k * axis.step_hz) for k in range(axis.points))

    def _levels(self) -> list[bytes]:
        """A sweep as the shell prints it: %e with the firmware's decimals."""
        _, row = next(iter(self._playlist))
        return [b"%.6e" % (-code / 2) for code in self._playlist.codes(row, self._axis)]

    def _data(self, words: list[bytes]) -> bytes:
        if words not in ([b"0"], [b"1"], [b"2"]):
            return b"usage: data 0..2|0=temp|1=stored|2=measured\r\n"
        return b"".join(level + b"\r\n" for level in self._levels())

    def _scan(self, words: list[bytes]) -> bytes:
        if not 2 <= len(words) <= 4 or not all(w.isdigit() for w in words):
            return b"usage: scan {start(Hz)} {stop(Hz)} [points] [outmask]\r\n"
        refused = self._set_axis(words[:3], MAX_POINTS)
        mask = int(words[3]) if len(words) > 3 else 0
        if refused or not mask:
            return refused
        frequencies = self._frequencies([]).split()
        rows = zip(frequencies, self._levels(), strict=True)
        columns = ((f, level, level, b"25.0") for f, level in rows)
        shown = [k for k in range(4) if mask >> k & 1]
        return b"".join(b" ".join(row[k] for k in shown) + b" \r\n" for row in columns)

    def _scanraw(self, words: list[bytes]) -> bytes:
        if not 2 <= len(words) <= 4 or not all(w.isdigit() for w in words):
            return b"usage: scanraw {start(Hz)} {stop(Hz)} [points] [options]\r\n"
        refused = self._set_axis(words[:3], 0xFFFF)
        flags = int(words[3]) if len(words) > 3 else 0
        if not refused:
            self._sweeps = -1 if flags & REPEAT else 1
        return refused
