"""A self-built scanner that speaks the framed protocol, on a pty."""

from __future__ import annotations

import time
from typing import Any

from edge_runtime.rig.emulator import Emulator
from edge_runtime.scan import Axis
from edge_runtime.scanners import framed

BATTERY_MV = 3712


class FramedEmulator(Emulator):
    """Sweeps when told to, on the axis that it was told."""

    name = "framed"
    baud = 115_200

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._heard = b""
        self._sent = 0
        self._running = False

    def wanted(self) -> bool:
        return self._running

    def frame(self, codes: bytes) -> bytes:
        axis = framed.AXIS.pack(self._axis.start_hz, self._axis.step_hz, self._axis.points)
        powers = b"".join((-50 * code).to_bytes(2, "little", signed=True) for code in codes)
        return self._packed(framed.SWEEP, axis + powers)

    def early_end(self, frame: bytes) -> bytes:
        return frame[: len(frame) // 2] + b"\n"

    def replugged(self) -> None:
        self._heard = b""
        self._running = False

    def obey(self, data: bytes) -> None:
        *frames, self._heard = (self._heard + data).split(b"\n")
        for coded in frames:
            packet = framed.unstuff(coded)
            if framed.intact(packet):
                self._command(packet[0], packet[framed.HEAD.size : -4])

    def _command(self, kind: int, payload: bytes) -> None:
        if kind == framed.ASK_HELLO:
            self._tell(framed.HELLO, b"emulated\x001.0\x00RIG1")
        elif kind == framed.CONFIGURE and len(payload) == framed.AXIS.size:
            axis = Axis(*framed.AXIS.unpack(payload))
            self._axis = axis if axis.points and axis.step_hz else self._axis
            self._tell(framed.CONFIGURATION, payload)
        elif kind in (framed.PAUSE, framed.SLEEP):
            self._running = False
        elif kind in (framed.RESUME, framed.WAKE):
            self._running = True
        elif kind == framed.ASK_BATTERY:
            self._tell(framed.BATTERY, BATTERY_MV.to_bytes(2, "little"))

    def _tell(self, kind: int, payload: bytes) -> None:
        self.port.write(self._packed(kind, payload))

    def _packed(self, kind: int, payload: bytes) -> bytes:
        self._sent += 1
        return framed.frame(kind, self._sent, time.monotonic_ns() // 1000, payload)
