"""An RF Explorer (WSUB1G, firmware 1.26) as its host sees it, on a pty."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TextIO
from zlib import crc32

from edge_runtime.recording import Row
from edge_runtime.rig.mishaps import Mishaps
from edge_runtime.rig.playlist import Playlist
from edge_runtime.rig.pty_port import PtyPort
from edge_runtime.scan import Axis
from edge_runtime.scanners.rf_explorer import EARLY_END, RESET_LINE

BAUD = 500_000
SERIAL = b"EDGERIG000000001"
SILENCE_SECONDS, UNPLUGGED_SECONDS = 2.0, 1.0
MIN_KHZ, MAX_KHZ, MAX_SPAN_KHZ = 240_000, 960_000, 100_000


class RFExplorerEmulator:
    """Plays a playlist as sweeps at `rate_hz` once asked for its configuration; obeys the host's commands.

    log: gets a line for every sweep that left whole and undamaged, see `LOG_HEADER`.
    stopped: asked between sweeps; True ends `run`.
    """

    name = "rf-explorer"

    def __init__(
        self,
        playlist: Playlist,
        rate_hz: float,
        mishaps: Mishaps,
        log: TextIO | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.port = PtyPort(self.name, BAUD)
        self._playlist = playlist
        self._period = 1 / rate_hz
        self._mishaps = mishaps
        self._log = log
        self._stopped = stopped
        self._heard = b""
        self._axis = playlist.axis
        self._dumping = False
        self._on = True
        self._calculator = 0
        self.played = 0
        if log is not None:
            log.write(LOG_HEADER)

    def run(self) -> None:
        """Play the list to its end (for ever where it loops), or until `stopped`."""
        rows: Iterator[tuple[int, Row]] = iter(self._playlist)
        due = time.monotonic()
        while not self._stopped():
            self._obey(self.port.listen(min(0.05, due - time.monotonic())))
            if not (self._dumping and self._on):
                due = time.monotonic() + self._period
            elif time.monotonic() >= due:
                entry = next(rows, None)
                if entry is None:
                    return
                due = max(due + self._period, time.monotonic())
                self._play(*entry)

    def _play(self, number: int, row: Row) -> None:
        self.played += 1
        codes = self._playlist.codes(row, self._axis)
        frame = sweep_frame(codes)
        happens = self._mishaps.at(self.played)
        whole = True
        for mishap in happens:
            if mishap == "garbage":
                self.port.write(self._mishaps.garbage())
            elif mishap == "silence":
                self._pass_time(SILENCE_SECONDS)
            elif mishap == "unplug":
                self.port.write(frame[: len(frame) // 2])
                self._replug()
                return
            elif mishap == "abort":
                frame, whole = frame[: len(frame) // 2] + EARLY_END, False
            else:
                frame, whole = getattr(self._mishaps, mishap)(frame), False
        left_us = self.port.write(frame)
        if whole and self._log is not None:
            powers = b"".join((-50 * code).to_bytes(2, "little", signed=True) for code in codes)
            label = self._playlist.labels[row.label]
            self._log.write(f"{left_us}\t{number}\t{label}\t{crc32(codes):08x}\t{crc32(powers):08x}\n")
            self._log.flush()

    def _replug(self) -> None:
        self.port.unplug()
        self._dumping = False
        self._heard = b""
        self._pass_time(UNPLUGGED_SECONDS)
        self.port.plug()

    def _pass_time(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stopped():
            time.sleep(0.02)

    def _obey(self, data: bytes) -> None:
        """Carry out the commands that `data` completes."""
        self._heard += data
        while (start := self._heard.find(b"#")) >= 0:
            self._heard = self._heard[start:]
            if len(self._heard) < 3 or len(self._heard) < self._heard[1]:
                return
            size = max(3, self._heard[1])
            payload, self._heard = self._heard[2:size], self._heard[size:]
            if self._on or payload == b"r":
                self._command(payload)
        self._heard = b""

    def _command(self, payload: bytes) -> None:
        if payload == b"C0":
            self._dumping = True
            self.port.write(b"#C2-M:003,255,01.26\r\n" + self.configuration())
        elif payload == b"CH":
            self._dumping = False
        elif payload == b"Cn":
            self.port.write(b"#Sn" + SERIAL + b"\r\n")
        elif payload == b"S":
            self._on = self._dumping = False
        elif payload == b"r":
            self._on, self._dumping = True, False
            self.port.write(RESET_LINE + b"2009 RF Explorer\r\n")
        elif payload[:5] == b"C2-F:":
            self._set_frequencies(payload[5:])
        elif payload[:2] == b"CJ" and len(payload) == 3:
            self._set_points(16 * payload[2] + 16)
        elif payload[:2] == b"Cj" and len(payload) == 4:
            self._set_points(int.from_bytes(payload[2:], "big"))
        elif payload[:2] == b"C+" and len(payload) == 3:
            self._calculator = payload[2]
            self.port.write(b"#C+%02d\r\n" % self._calculator)

    def _set_frequencies(self, text: bytes) -> None:
        try:
            start_khz, end_khz = (int(f) for f in text.split(b",")[:2])
        except ValueError:
            return
        if MIN_KHZ <= start_khz < end_khz <= MAX_KHZ and end_khz - start_khz <= MAX_SPAN_KHZ:
            points = self._axis.points
            step_hz = max(1, round(1000 * (end_khz - start_khz) / (points - 1)))
            self._axis = Axis(1000 * start_khz, step_hz, points)
        self.port.write(self.configuration())

    def _set_points(self, points: int) -> None:
        """Other points keep the span and snap the step, as the instrument does."""
        if not 16 <= points <= 65_535:
            return
        span_hz = self._axis.step_hz * (self._axis.points - 1)
        self._axis = Axis(self._axis.start_hz, max(1, round(span_hz / (points - 1))), points)
        self.port.write(self.configuration())

    def configuration(self) -> bytes:
        """The configuration line, in the form with five digits of points where four do not do."""
        axis = self._axis
        form, points = (b"f", b"%05d") if axis.points > 9999 else (b"F", b"%04d")
        return b"#C2-%s:%07d,%07d,%04d,%04d,%s,0,000,%07d,%07d,%07d,00003,0000,%03d\r\n" % (
            form,
            axis.start_hz // 1000,
            axis.step_hz,
            0,
            -120,
            points % axis.points,
            MIN_KHZ,
            MAX_KHZ,
            MAX_SPAN_KHZ,
            self._calculator,
        )


LOG_HEADER = "left_us\trow\tlabel\tcodes_crc32\tpower_crc32\n"
"""left_us: just before the last bytes were handed over, monotonic; power_crc32: as the journal has it."""


def sweep_frame(codes: bytes) -> bytes:
    """A sweep as the firmware frames it: `$S` below 256 points, `$s` where 16 divides them, else `$z`."""
    count = len(codes)
    if count < 256:
        head = b"$S" + bytes((count,))
    elif count % 16 == 0 and count <= 4096:
        head = b"$s" + bytes((count // 16 % 256,))
    else:
        head = b"$z" + count.to_bytes(2, "big")
    return head + codes + b"\r\n"
