"""A pty that behaves as a USB serial port does: paced bytes, a stable name, and it can be unplugged."""

from __future__ import annotations

import os
import select
import shutil
import tempfile
import time
import tty
from pathlib import Path

PIECE_SECONDS = 0.001
"""A USB serial chip hands over what a frame of the bus holds, every millisecond."""


class PtyPort:
    """The instrument's end of a pty; `path` is a name that stays while the pty under it may change.

    baud: the speed at which bytes leave, 10 bits a byte.
    """

    def __init__(self, name: str, baud: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="edge-rig-"))
        self.path = self._folder / name
        self._bytes_per_second = baud / 10
        self._piece = max(1, int(self._bytes_per_second * PIECE_SECONDS))
        self._master = self._slave = -1
        self.plug()

    def plug(self) -> None:
        """Appear, as a device just plugged in."""
        self._master, self._slave = os.openpty()
        tty.setraw(self._master)
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.path.symlink_to(os.ttyname(self._slave))

    def unplug(self) -> None:
        """Vanish: whoever has the port open reads an error."""
        self.path.unlink(missing_ok=True)
        for descriptor in (self._master, self._slave):
            if descriptor >= 0:
                os.close(descriptor)
        self._master = self._slave = -1

    def close(self) -> None:
        """Vanish for good, and leave nothing behind."""
        self.unplug()
        shutil.rmtree(self._folder, ignore_errors=True)

    def listen(self, seconds: float) -> bytes:
        """What the host wrote, at most `seconds` waited for; empty where it wrote nothing."""
        if self._master < 0:
            time.sleep(seconds)
            return b""
        listening = select.poll()
        listening.register(self._master, select.POLLIN)
        if not listening.poll(max(0.0, seconds) * 1000):
            return b""
        return os.read(self._master, 4096)

    def write(self, data: bytes) -> int:
        """Send `data` at the port's speed; what finds no room is lost, as on a wire.

        Returns when the last byte left: microseconds, monotonic, taken just before it was handed over.
        """
        left_us = time.monotonic_ns() // 1000
        begun = time.monotonic()
        for at in range(0, len(data), self._piece):
            piece = data[at : at + self._piece]
            due = begun + (at + len(piece)) / self._bytes_per_second
            time.sleep(max(0.0, due - time.monotonic()))
            left_us = time.monotonic_ns() // 1000
            try:
                os.write(self._master, piece)
            except BlockingIOError:
                continue
        return left_us
