"""The port: bytes of a tty, a pyserial URL, a file or a pipe, with no more wake-ups than there are frames.

Where there is a descriptor it is polled and read with `os.read` (a tenth of pyserial's cost). A tty wakes the
process once a frame:

- Frames that end in one byte (RF Explorer: LF) are read in canonical mode with every other special character
  disabled: the line discipline then wakes its reader at that byte only. A payload that holds the byte costs a
  wake-up more, nothing else (termios(3), "Canonical and noncanonical mode").
- Other frames wake it when they begin; the source then naps for as long as the rest took the last time. (VMIN
  would serve, but from 255 bytes on it cannot, and Linux since 5.11 then reads 64 bytes at a time.)
"""

from __future__ import annotations

import errno
import os
import select
import termios
from os import read
from pathlib import Path

import serial

from edge_runtime.errors import HardwareUnavailable

READ_BYTES = 65_536
LINE_LIMIT = 4_000
"""The line discipline keeps 4,096 bytes: longer frames cannot be read as lines."""
SLICE_SECONDS = 0.2
"""How long a port without a descriptor is read at a time; a stop is noticed in between."""

UNSET = -2

_BY_DESCRIPTOR = ("", "socket", "hwgrep")
_L_SPECIAL = termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN


class Gone(Exception):
    """The port is not there any more; the text says how that showed."""


class Port:
    """An open port. `url` is a device, a pyserial URL, a file, or a FIFO.

    endless: False for a file or pipe, whose end is the end of the scans.
    Raises HardwareUnavailable where it cannot be opened.
    """

    def __init__(self, url: str, baud: int, stop_descriptor: int = -1) -> None:
        self.url = url
        self._serial: serial.SerialBase | None = None
        self._descriptor = -1
        self._terminator = UNSET
        self._read_bytes = READ_BYTES
        self.endless = True
        try:
            self._open(url, baud)
        except (OSError, ValueError, termios.error) as e:
            self.close()
            raise HardwareUnavailable(f"port {url}: {_reason(e)}; check the cable and --port") from e
        self._poller = select.poll()
        for descriptor in (self._descriptor, stop_descriptor):
            if descriptor >= 0:
                self._poller.register(descriptor, select.POLLIN)
        self._poll = self._poller.poll
        self._stop_poller = select.poll()
        if stop_descriptor >= 0:
            self._stop_poller.register(stop_descriptor, select.POLLIN)
        self._readable = [(self._descriptor, select.POLLIN)]

    def _open(self, url: str, baud: int) -> None:
        if "://" not in url and not _is_tty(url):
            self._descriptor = _open_file(url)
            self.endless = False
            return
        exclusive = {} if "://" in url else {"exclusive": True}
        opened = serial.serial_for_url(url, baudrate=baud, timeout=SLICE_SECONDS, **exclusive)
        self._serial = opened
        if url.partition("://")[0] * ("://" in url) in _BY_DESCRIPTOR:
            self._descriptor = opened.fileno()
            if os.isatty(self._descriptor):
                self._keep_lines()
                self.wake_at(-1)  # pyserial leaves VMIN at 0, where no data looks like an end of file

    def _keep_lines(self) -> None:
        """Leave DTR and RTS up at close: their next edge would reset a board wired as an Arduino is."""
        mode = termios.tcgetattr(self._descriptor)
        mode[2] &= ~termios.HUPCL
        termios.tcsetattr(self._descriptor, termios.TCSANOW, mode)

    def wake_at(self, terminator: int, frame_bytes: int = READ_BYTES) -> bool:
        """Have the next reads woken by that byte only (-1: by any); whether the port can do so.

        frame_bytes: how much a read need take at a time; where little is asked for, Python need not allocate much.
        """
        if self._serial is None or self._descriptor < 0 or not os.isatty(self._descriptor):
            return False
        if terminator != self._terminator:
            mode = termios.tcgetattr(self._descriptor)
            mode[3] &= ~_L_SPECIAL
            mode[6] = [b"\0"] * len(mode[6])  # _POSIX_VDISABLE
            if terminator >= 0:
                mode[3] |= termios.ICANON
                mode[6][termios.VEOL] = bytes((terminator,))
            else:
                mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
            termios.tcsetattr(self._descriptor, termios.TCSANOW, mode)
            self._terminator = terminator
        self._read_bytes = frame_bytes
        return terminator >= 0

    def receive(self, timeout_ms: int) -> bytes | None:
        """Sleep until there is something to read, and take it; None where the time is up, or at a stop.

        A port without a descriptor gives b"" after SLICE_SECONDS, and so does a file or pipe at its end. Waiting
        and reading are one call, for each costs as much as what it does. Raises Gone where the port was unplugged.
        """
        if self._descriptor < 0:
            return self._read_serial()
        ready = self._poll(timeout_ms)
        if ready != self._readable and not self._among(ready):
            return None
        try:
            data = read(self._descriptor, self._read_bytes)
        except BlockingIOError:
            return b""
        except OSError as e:
            raise Gone(_reason(e)) from e
        if not data and self.endless:
            raise Gone("end of file")
        return data

    def _among(self, ready: list[tuple[int, int]]) -> bool:
        """Whether the port is among what poll found ready."""
        for descriptor, happened in ready:
            if descriptor == self._descriptor:
                if self.endless and not happened & select.POLLIN:
                    raise Gone("hung up")
                return True
        return False

    def _read_serial(self) -> bytes:
        assert self._serial is not None
        try:
            first: bytes = self._serial.read(1)
        except (OSError, termios.error) as e:
            raise Gone(_reason(e)) from e
        return first + self.read_waiting() if first else b""

    def read_waiting(self) -> bytes:
        """More of what is there already, and never a wait. Raises Gone where the port was unplugged."""
        if self._descriptor >= 0:
            return self.receive(0) or b""
        assert self._serial is not None
        try:
            data: bytes = self._serial.read(min(self._serial.in_waiting, READ_BYTES))
            return data
        except (OSError, termios.error) as e:
            raise Gone(_reason(e)) from e

    def nap(self, milliseconds: int) -> None:
        """Sleep, whatever arrives; a stop ends it."""
        self._stop_poller.poll(milliseconds)

    def write(self, data: bytes) -> None:
        """Send a command; nothing happens on a file. Raises Gone where the port was unplugged."""
        if self._serial is None or not data:
            return
        try:
            if self._descriptor >= 0:  # a fraction of pyserial's cost, as with reading
                data = data[self._written(data) :]
            if data:
                self._serial.write(data)
        except (OSError, termios.error) as e:
            raise Gone(_reason(e)) from e

    def _written(self, data: bytes) -> int:
        """How much the device takes now."""
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Close the port; further calls do nothing."""
        try:
            if self._serial is not None:
                self._serial.close()
            elif self._descriptor >= 0:
                os.close(self._descriptor)
        except (OSError, termios.error):
            pass  # an unplugged device fails to be restored, and is closed all the same
        self._serial = None
        self._descriptor = -1


def _is_tty(path: str) -> bool:
    return path != "-" and Path(path).is_char_device()


def _open_file(path: str) -> int:
    """A descriptor of a file, a FIFO that may not have a writer yet, or (as `-`) of standard input."""
    if path == "-":
        return os.dup(0)
    if Path(path).is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _reason(error: Exception) -> str:
    """The few words of an error that help, without pyserial's repetition of the port."""
    number = getattr(error, "errno", None)
    if isinstance(number, int):
        return os.strerror(number)
    return str(error).splitlines()[0] if str(error) else type(error).__name__
