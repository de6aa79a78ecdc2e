"""A source of scans: a scanner on a port that may fall silent, be unplugged, and come back."""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Protocol, Self

from edge_runtime.errors import BadInput, HardwareUnavailable
from edge_runtime.port import LINE_LIMIT, Gone, Port
from edge_runtime.reasons import Reason
from edge_runtime.scan import Axis, Happening, Scan
from edge_runtime.scanners import make
from edge_runtime.scanners.base import Battery, Can, Configuration, Damage, Heard, Identity, Scanner, Send
from edge_runtime.scanners.codes import Expander, in_python
from edge_runtime.usb import UsbPorts

FIRST_WAIT_MS, LONGEST_WAIT_MS = 100, 5_000
"""Back-off between attempts to open a port that is gone."""
BEHIND_US = 200
"""Data that are there so soon after the loop came back were waiting for it: the loop is behind."""
QUEUE = 8
"""Scans kept when the loop is behind; older ones are dropped and counted."""
CATCH_UP_READS = 64
ASK_EVERY = 4
"""So many reads from one question whether the loop is behind to the next: the clock costs as much as the read, and
the kernel holds more frames than that."""
SILENCES = 3
"""So many times a silent scanner is asked again before its port is opened anew."""
NEVER = -1
SLEEP_FROM_US = 10_000_000
"""A rest at least so long is worth putting the scanner to sleep, where it can."""
COUNTED_IN_SCANS = (Reason.SKIPPED, Reason.OVERRUN)


class ScanSource(Protocol):
    """What the loop takes: scans and happenings, until their end or `stop`. A context manager."""

    def __iter__(self) -> Iterator[Scan | Happening]: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def stop(self) -> None:
        """End the iteration at once. May be called from a signal handler or another thread."""

    def on_received(self, tell: Callable[[int], None]) -> None:
        """Tell the size of all that arrives from now on, before it is decoded."""


def open_source(
    url: str,
    scanner: str,
    axis: Axis | None,
    clock: Callable[[], int],
    baud: int = 0,
    expander: Expander = in_python,
) -> ScanSource:
    """A source by the scanner's name, asked to sweep `axis`. A context manager.

    `auto` finds the scanner, `journal` replays the journal at `url`. Raises BadInput for an unknown scanner,
    HardwareUnavailable where the port cannot be opened.
    """
    # Imported here: a device that is told its scanner should not pay for what finds it.
    if scanner == "journal":
        from edge_runtime.replay import Replay  # noqa: PLC0415

        return Replay(url, axis or Axis(0, 0, 0), clock)
    if scanner == "auto":
        from edge_runtime.detect import detect  # noqa: PLC0415

        scanner = detect(url, axis, clock)
    made = make(scanner, axis)
    made.expander = expander
    return Source(url, made, clock, baud)


class Source:
    """Iterates over what a scanner says; ends at `stop()` or at a file's end.

    configuration, identity, battery_mv: what the scanner said of itself last.
    url: device, pyserial URL, file or pipe. clock: microseconds, monotonic. baud: 0 for the scanner's own.
    Raises HardwareUnavailable where the port cannot be opened at first; later it is waited for.
    """

    def __init__(
        self,
        url: str,
        scanner: Scanner,
        clock: Callable[[], int],
        baud: int = 0,
        usb: UsbPorts | None = None,
    ) -> None:
        self.url = url
        self.scanner = scanner
        self._recorded = Path(url).is_file()
        self._can_pause, self._can_sleep = Can.PAUSE in scanner.can, Can.SLEEP in scanner.can
        self.configuration: Configuration | None = None
        self.identity = Identity()
        self.battery_mv = 0
        self._clock = clock
        self._baud = baud or scanner.baud
        if scanner.byte_us:
            scanner.byte_us = 1e7 / self._baud
        self._stopped = False
        self._timeout_ms = scanner.silent_us // 1000
        self._settled_at = 0  # the frame size that the port's wake-ups were set for
        self._by_line = False  # the port wakes at the frame's last byte
        self._begun_us = self._rest_us = (
            0  # when the frame being read began, how long the last one's rest took
        )
        self._silences = 0
        self._gone = False  # the port, while it was listened to
        self._wait_ms = FIRST_WAIT_MS
        self._stop_reader, self._stop_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._port = Port(url, self._baud, self._stop_reader)
        except HardwareUnavailable:
            self._close_pipe()
            raise
        self._usb = usb or UsbPorts()
        self._device = self._usb.identity(url)

    def stop(self) -> None:
        """End the iteration at once. May be called from a signal handler or another thread."""
        self._stopped = True
        if self._stop_writer >= 0:
            os.write(self._stop_writer, b"\0")

    def on_received(self, tell: Callable[[int], None]) -> None:
        """Tell the size of all that arrives from now on, before it is decoded. For meters: it costs a call a read."""
        feed = self.scanner.feed

        def told(data: bytes, now_us: int) -> Sequence[Heard]:
            tell(len(data))
            return feed(data, now_us)

        self.scanner.feed = told  # type: ignore[method-assign]

    def send(self, command: bytes) -> None:
        """Write a command of the scanner's; lost where the port is gone (it starts anew when it is back)."""
        try:
            self._unsettle()
            self._port.write(command)
        except Gone:
            pass  # the iteration meets the same and tells

    def close(self) -> None:
        """Close the port. Further calls do nothing."""
        self._port.close()
        self._close_pipe()

    def _close_pipe(self) -> None:
        for descriptor in (self._stop_reader, self._stop_writer):
            if descriptor >= 0:
                os.close(descriptor)
        self._stop_reader = self._stop_writer = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def pause(self) -> None:
        """Have the scanner stop sweeping, and expect silence until `resume`."""
        self._hush(self.scanner.pause())

    def resume(self) -> None:
        """Have the scanner sweep again after `pause`."""
        self._speak(self.scanner.resume())

    def sleep(self) -> None:
        """Have the scanner save what it can, and expect silence until `wake`."""
        self._hush(self.scanner.sleep())

    def wake(self) -> None:
        """Have the scanner sweep again after `sleep`."""
        self._speak(self.scanner.wake())

    def rest(self, microseconds: int) -> None:
        """Have the scanner hold for so long, by whatever command it has; a stop ends the rest.

        A scanner that has none goes on. What it sent meanwhile is dropped: the next scan is a new one.
        """
        if self._can_sleep and microseconds >= SLEEP_FROM_US:
            hold, go_on = self.sleep, self.wake
        elif self._can_pause:
            hold, go_on = self.pause, self.resume
        else:
            hold = go_on = self._unsettle
        hold()
        self._port.nap(microseconds // 1000)
        self._drop_waiting()
        go_on()

    def _drop_waiting(self) -> None:
        """Take what waits, and heed it but for its scans."""
        if self._recorded:
            return
        try:
            for _ in range(CATCH_UP_READS):
                data = self._port.read_waiting()
                if not data:
                    return
                for event in self.scanner.feed(data, self._clock()):
                    if type(event) is not Scan:
                        deque(self._heed(event), 0)
        except Gone:
            pass  # the iteration meets the same and tells

    def _hush(self, command: bytes) -> None:
        self.send(command)
        self._timeout_ms = NEVER

    def _speak(self, command: bytes) -> None:
        self.send(command)
        self._timeout_ms = self.scanner.silent_us // 1000

    def __iter__(self) -> Iterator[Scan | Happening]:
        # Not a generator that hands on what others give: every scan would pass through it, too.
        return chain.from_iterable(self._spells())

    def _spells(self) -> Iterator[Iterator[Scan | Happening]]:
        """What the port gives while it is there, and the waits until it is back, in turn."""
        while not self._stopped:
            self._gone = False
            if self._timeout_ms != NEVER:  # not while the loop has paused it
                self.send(self.scanner.start())
            yield self._listen()
            if not self._gone:
                return
            yield self._reconnect()

    def _listen(self) -> Iterator[Scan | Happening]:
        """What comes until the port is gone, a stop, or a file's end."""
        try:
            port, clock, scanner = self._port, self._clock, self.scanner
            receive, feed, endless = port.receive, scanner.feed, port.endless
            began_us, asks = clock(), ASK_EVERY
            scanned = False
            while not self._stopped:
                data = receive(self._timeout_ms)
                if data is None:
                    yield from self._silent()
                    continue
                now_us = clock()
                if not data and not endless:
                    yield from self._end_of_file(now_us, scanned)
                    return
                events = feed(data, now_us)
                if self._silences and data:
                    self._silences = 0
                    yield Happening(Reason.RECONNECTED, "speaks again")
                if began_us and now_us - began_us < BEHIND_US:
                    events, asks = self._catch_up(events), 1
                elif not events:
                    self._begin_frame(now_us)
                for event in events:
                    if type(event) is not Scan:
                        yield from self._heed(event)
                        continue
                    if scanner.frame_bytes != self._settled_at or self._begun_us:
                        self._end_frame(now_us)
                    scanned = True
                    yield event
                asks -= 1
                if asks:
                    began_us = 0
                else:
                    began_us, asks = clock(), ASK_EVERY
        except Gone as e:
            self._gone = True
            self._port.close()
            yield Happening(Reason.UNPLUGGED, str(e))

    def _end_of_file(self, now_us: int, scanned: bool) -> Iterator[Scan | Happening]:
        for event in self.scanner.end(now_us):
            if type(event) is Scan:
                scanned = True
                yield event
            else:
                yield from self._heed(event)
        if not scanned:
            raise BadInput(
                f"file {self.url}: holds no frame of scanner {self.scanner.name}; name the right --scanner"
            )

    def _heed(self, event: Heard) -> Iterator[Happening]:
        """Do what the protocol wants, and tell the loop what it should know."""
        match event:
            case Send(data):
                self.send(data)
            case Damage(reason, size):
                yield Happening(reason, f"{size} scans" if reason in COUNTED_IN_SCANS else f"{size} bytes")
            case Configuration():
                self.configuration = event
                yield Happening(Reason.CONFIGURED, event.text)
            case Identity():
                self.identity = event
                yield Happening(Reason.IDENTIFIED, " ".join(filter(None, event)))
            case Battery(millivolts):
                self.battery_mv = millivolts
                yield Happening(Reason.BATTERY, f"{millivolts} mV")

    def _settle(self) -> None:
        """Frames come regularly: have the port wake at the end of each, where it can."""
        self._wait_ms = FIRST_WAIT_MS
        self._settled_at = size = self.scanner.frame_bytes
        by_line = self.scanner.terminator >= 0 and 0 < size <= LINE_LIMIT
        self._by_line = (
            self._port.wake_at(self.scanner.terminator, size) if by_line else self._port.wake_at(-1)
        )

    def _unsettle(self) -> None:
        self._settled_at = 0
        self._by_line = self._port.wake_at(-1)

    def _begin_frame(self, now_us: int) -> None:
        """Woken within a frame: nap for as long as the rest of the last one took, or a little less."""
        if self._by_line or not self._port.endless or not self.scanner.missing():
            return
        if not self._begun_us:
            self._begun_us = now_us
            nap_ms = self._rest_us * 7 // 8000
            if nap_ms:
                self._port.nap(nap_ms)

    def _end_frame(self, now_us: int) -> None:
        """A frame is whole that is another than the last one, or was napped for."""
        if self.scanner.frame_bytes != self._settled_at:
            self._settle()
        if not self._begun_us:
            return
        took_us, self._begun_us = now_us - self._begun_us, 0
        self._rest_us = min(took_us, (3 * self._rest_us + took_us) // 4 if self._rest_us else took_us)

    def _catch_up(self, events: Sequence[Heard]) -> Sequence[Heard]:
        """Take all that waits; where that is more scans than QUEUE, the newest are kept."""
        if not self._port.endless:
            return events
        heard = list(events)
        for _ in range(CATCH_UP_READS):
            data = self._port.read_waiting()
            if not data:
                break
            heard += self.scanner.feed(data, self._clock())
        surplus = sum(type(e) is Scan for e in heard) - QUEUE
        if surplus <= 0:
            return heard
        kept: list[Heard] = [Damage(Reason.OVERRUN, surplus)]
        for event in heard:
            if type(event) is Scan and surplus > 0:
                surplus -= 1
            else:
                kept.append(event)
        return kept

    def _silent(self) -> Iterator[Scan | Happening]:
        """The time was up: say so once, ask again, and at last open the port anew."""
        if self._stopped:
            return
        self._unsettle()
        self._silences += 1
        if self._silences == 1:
            yield Happening(Reason.SILENT, f"nothing for {self.scanner.silent_us / 1e6:g} s")
        if self._silences > SILENCES and self._port.endless:
            raise Gone("silent, opened anew")
        self._port.write(self.scanner.start())

    def _reconnect(self) -> Iterator[Scan | Happening]:
        """Wait, longer each time, until the port opens again; the wait is short again once scans come."""
        waiting = select.poll()
        waiting.register(self._stop_reader, select.POLLIN)
        while not waiting.poll(self._wait_ms):
            self._wait_ms = min(2 * self._wait_ms, LONGEST_WAIT_MS)
            if self._device and self._usb.identity(self.url) != self._device:
                # Another device may have taken its name: that one is not opened.
                found = self._usb.find(self._device)
                if not found:
                    continue
                self.url = found
            try:
                self._port = Port(self.url, self._baud, self._stop_reader)
            except HardwareUnavailable:
                continue
            self.scanner.reset()
            self._settled_at = self._silences = 0
            yield Happening(Reason.RECONNECTED, self.url)
            return
