"""What scanner emulators share: a pty, a playlist at a set rate, mishaps, and a log of what left when."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TextIO
from zlib import crc32

from edge_runtime.recording import Row
from edge_runtime.rig.mishaps import Mishaps
from edge_runtime.rig.playlist import Playlist
from edge_runtime.rig.pty_port import PtyPort

SILENCE_SECONDS, UNPLUGGED_SECONDS = 2.0, 1.0
LOG_HEADER = "left_us\trow\tlabel\tcodes_crc32\tpower_crc32\n"
"""left_us: just before the last bytes were handed over, monotonic; power_crc32: as the journal has it."""


class Emulator:
    """Plays a playlist as sweeps at `rate_hz` while its host wants them, and obeys the host's commands.

    log: gets a line for every sweep that left whole and undamaged, see LOG_HEADER.
    stopped: asked between sweeps; True ends `run`.
    """

    name = ""
    baud = 0

    def __init__(
        self,
        playlist: Playlist,
        rate_hz: float,
        mishaps: Mishaps,
        log: TextIO | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.port = PtyPort(self.name, self.baud)
        self.played = 0
        self._playlist = playlist
        self._axis = playlist.axis
        self._period = 1 / rate_hz
        self._mishaps = mishaps
        self._log = log
        self._stopped = stopped
        if log is not None:
            log.write(LOG_HEADER)

    def run(self) -> None:
        """Play the list to its end (for ever where it loops), or until `stopped`."""
        rows = iter(self._playlist)
        due = time.monotonic()
        while not self._stopped():
            heard = self.port.listen(min(0.05, due - time.monotonic()))
            held = not self.wanted()
            if heard:
                self.obey(heard)
            if held:  # a sweep begins when it is asked for
                due = time.monotonic() + self._period
            elif time.monotonic() >= due:
                due = max(due + self._period, time.monotonic())
                if not self._play_next(rows):
                    return

    def obey(self, data: bytes) -> None:
        """Carry out the commands that `data` completes."""
        raise NotImplementedError

    def wanted(self) -> bool:
        """Whether the host wants sweeps now."""
        raise NotImplementedError

    def frame(self, codes: bytes) -> bytes:
        """A sweep on the wire."""
        raise NotImplementedError

    def early_end(self, frame: bytes) -> bytes:
        """The same sweep given up half way."""
        raise NotImplementedError

    def replugged(self) -> None:
        """Forget the conversation: the port was unplugged and plugged in again."""
        raise NotImplementedError

    def _play_next(self, rows: Iterator[tuple[int, Row]]) -> bool:
        entry = next(rows, None)
        if entry is None:
            return False
        self.played += 1
        self._play(*entry)
        return True

    def _play(self, number: int, row: Row) -> None:
        codes = self._playlist.codes(row, self._axis)
        frame = self.frame(codes)
        whole = True
        for mishap in self._mishaps.at(self.played):
            if mishap == "garbage":
                self.port.write(self._mishaps.garbage())
            elif mishap == "silence":
                self._pass_time(SILENCE_SECONDS)
            elif mishap == "unplug":
                self.port.write(frame[: len(frame) // 2])
                self._replug()
                return
            elif mishap == "abort":
                frame, whole = self.early_end(frame), False
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
        self.replugged()
        self._pass_time(UNPLUGGED_SECONDS)
        self.port.plug()

    def _pass_time(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stopped():
            time.sleep(0.02)
