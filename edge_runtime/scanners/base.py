"""What every scanner is to the loop: bytes in, events out, commands back. No I/O, no clock, no threads.

A scanner is one object that holds the state of one conversation. `feed` takes whatever bytes arrived, in
pieces of any size, and gives the events they complete; pieces of another size give the same events. Bytes
that belong to no frame never raise: they are counted in a Damage, and the decoder finds the next frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Flag, auto
from typing import NamedTuple

from edge_runtime.errors import BadInput
from edge_runtime.reasons import Reason
from edge_runtime.scan import Axis, Scan
from edge_runtime.scanners.codes import Expander, in_python


class Can(Flag):
    """What a scanner can do on command."""

    NOTHING = 0
    CONFIGURE = auto()
    PAUSE = auto()  # and resume
    SLEEP = auto()  # and wake
    BATTERY = auto()


class Damage(NamedTuple):
    """What was lost: `size` bytes (for SKIPPED and OVERRUN: scans), and why."""

    reason: Reason
    size: int


class Configuration(NamedTuple):
    """What the scanner says it sweeps, read back and not assumed. `text` is its own wording."""

    axis: Axis
    text: str


class Identity(NamedTuple):
    """What the scanner says it is; an empty text where it has not said so (yet)."""

    model: str = ""
    firmware: str = ""
    serial: str = ""


class Battery(NamedTuple):
    """The scanner's own battery, millivolts."""

    millivolts: int


class Send(NamedTuple):
    """Bytes that the protocol wants written to the scanner now. The port does so; the loop never sees it."""

    data: bytes


Heard = Scan | Damage | Configuration | Identity | Battery | Send
"""What a decoder gives."""


class Scanner:
    """One scanner's protocol: decoder and commands.

    name: as `--scanner` takes it. baud: the usual speed of its port. can: its commands.
    silent_us: longest time between two frames before the link counts as silent.
    terminator: the byte that ends every frame, so that the port may sleep until it arrives; -1 where frames
        have none.
    frame_bytes: the size of the frames that come now, 0 where that is not known.
    expander: makes what turns codes of a byte a point into powers; the loop may know a cheaper one.
    byte_us: how long a byte is on the wire; the port sets it, 0 where the bytes are not sent by a UART.
    """

    name = ""
    baud = 115_200
    can = Can.NOTHING
    silent_us = 10_000_000
    terminator = -1
    frame_bytes = 0
    byte_us = 0.0
    expander: Expander = staticmethod(in_python)

    def feed(self, data: bytes, now_us: int) -> Sequence[Heard]:
        """Take bytes that arrived until `now_us`, give the events that they complete."""
        raise NotImplementedError

    def missing(self) -> int:
        """Bytes that the frame begun last still lacks; 0 between frames, or where that cannot be known."""
        return 0

    def reset(self) -> None:
        """Forget what is half received: the port was closed and opened again."""
        raise NotImplementedError

    def end(self, now_us: int) -> Sequence[Heard]:
        """The events that the end of a file completes."""
        return ()

    def start(self) -> bytes:
        """What to write to a port just opened, so that the scanner says what it is and begins to sweep."""
        return b""

    def configure(self, axis: Axis) -> bytes:
        """Ask for other frequencies; a Configuration tells what came of it."""
        raise self._cannot("be configured")

    def pause(self) -> bytes:
        """Stop sweeping; `resume` goes on."""
        raise self._cannot("pause")

    def resume(self) -> bytes:
        """Sweep again after `pause`."""
        raise self._cannot("pause")

    def sleep(self) -> bytes:
        """Save what can be saved without a loss of the port; `wake` goes on."""
        raise self._cannot("sleep")

    def wake(self) -> bytes:
        """Come back after `sleep`."""
        raise self._cannot("sleep")

    def battery(self) -> bytes:
        """Ask for the battery's voltage; a Battery answers."""
        raise self._cannot("tell its battery's voltage")

    def _cannot(self, what: str) -> BadInput:
        return BadInput(f"scanner {self.name}: cannot {what}; choose a scanner that can, or leave that out")


NEAR = 32
"""Records that so many bytes at most were lost from or added to are noticed by where the next one begins."""
RUN_LIMIT = 4096
"""Damage is reported at the latest after so many bytes, so that endless garbage is seen while it lasts."""


class StreamScanner(Scanner):
    """A scanner whose bytes are one stream of pieces: frames, lines, and what is neither.

    A protocol gives `_piece`. Damage is counted in runs, from the first bad byte to the next good piece; a
    run keeps the reason that began it.
    """

    def __init__(self) -> None:
        self._identity = Identity()
        self.reset()

    def reset(self) -> None:
        self._buffer = b""
        self._lost = 0
        self._why = Reason.GARBAGE
        self._more = True  # the stream goes on

    def missing(self) -> int:
        return self.frame_bytes - len(self._buffer) if self._buffer else 0

    def feed(self, data: bytes, now_us: int) -> Sequence[Heard]:
        self._buffer += data
        events: list[Heard] = []
        at, end = 0, len(self._buffer)
        while at < end:
            used = self._piece(at, now_us, events)
            if used == 0:
                break
            at += used
        self._buffer = self._buffer[at:]
        return events

    def end(self, now_us: int) -> Sequence[Heard]:
        self._more = False
        events: list[Heard] = []
        at = 0
        while at < len(self._buffer):
            at += self._piece(at, now_us, events) or self._lose(1, Reason.TRUNCATED, events)
        self._finish(now_us, events)
        self._flush(events)
        self.reset()
        return events

    def _piece(self, at: int, now_us: int, events: list[Heard]) -> int:
        """Decode what begins at `at` of the buffer; the bytes it took, 0 where more are needed."""
        raise NotImplementedError

    def _finish(self, now_us: int, events: list[Heard]) -> None:
        """The stream has ended: give what waited for more."""

    def _in_place(self, end: int, head_bytes: int, sound: Callable[[bytes, int], bool]) -> bool | None:
        """Whether a record without a checksum ends at `end`, where the next one's head should begin.

        It does not where a head begins NEAR it instead: then bytes were lost or added. Where there is no head at
        all, the next record is the damaged one. None where more bytes are needed to tell.
        """
        buffer = self._buffer
        if len(buffer) >= end + head_bytes and sound(buffer, end):
            return True
        if self._more and len(buffer) < end + head_bytes + NEAR:
            return None
        near = range(max(0, end - NEAR), min(end + NEAR, len(buffer) - head_bytes + 1))
        return not any(sound(buffer, at) for at in near)

    def _lose(self, size: int, reason: Reason, events: list[Heard]) -> int:
        """Count `size` bytes as damage, and take them."""
        if not self._lost:
            self._why = reason
        self._lost += size
        while self._lost >= RUN_LIMIT:
            events.append(Damage(self._why, RUN_LIMIT))
            self._lost -= RUN_LIMIT
        return size

    def _flush(self, events: list[Heard]) -> None:
        """A good piece follows: report what was lost before it."""
        if self._lost:
            events.append(Damage(self._why, self._lost))
            self._lost = 0

    def _identify(self, events: list[Heard], **known: str) -> None:
        """Tell what the scanner said of itself, where that is news."""
        identity = self._identity._replace(**known)
        if identity != self._identity:
            self._identity = identity
            events.append(identity)


def int16(value: int) -> bytes:
    """A power as a Scan holds it; what an int16 cannot hold is held at its ends."""
    return max(-0x8000, min(0x7FFF, value)).to_bytes(2, "little", signed=True)
