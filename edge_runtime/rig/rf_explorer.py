"""An RF Explorer (WSUB1G, firmware 1.26) as its host sees it, on a pty."""

from __future__ import annotations

from typing import Any

from edge_runtime.rig.emulator import Emulator
from edge_runtime.scan import Axis
from edge_runtime.scanners.rf_explorer import EARLY_END, RESET_LINE

SERIAL = b"EDGERIG000000001"
MIN_KHZ, MAX_KHZ, MAX_SPAN_KHZ = 240_000, 960_000, 100_000


class RFExplorerEmulator(Emulator):
    """Sweeps once asked for its configuration, as the instrument does; other points snap the step."""

    name = "rf-explorer"
    baud = 500_000

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._heard = b""
        self._dumping = False
        self._on = True
        self._calculator = 0

    def wanted(self) -> bool:
        return self._dumping and self._on

    def frame(self, codes: bytes) -> bytes:
        return sweep_frame(codes)

    def early_end(self, frame: bytes) -> bytes:
        return frame[: len(frame) // 2] + EARLY_END

    def replugged(self) -> None:
        self._dumping = False
        self._heard = b""

    def obey(self, data: bytes) -> None:
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
