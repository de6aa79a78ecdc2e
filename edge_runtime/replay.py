"""A journal as a source: the sweeps that a run kept, again."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from edge_runtime.errors import BadInput
from edge_runtime.journal import Kind, read, verdict_record
from edge_runtime.scan import Axis, Happening, Scan

MARK = "?"
MAX_SPEED = 1_000_000


class Replay:
    """Iterates over the kept sweeps of the journal at `url`, a folder, as a Source does over a scanner's.

    `FOLDER?speed=1` plays at the recorded times, `?speed=20` twenty times as fast; without it as fast as it goes.
    Scans are stamped with the time at which they are given. Raises BadInput where there is no journal, or no
    sweep in it, or the speed is none.
    """

    def __init__(self, url: str, axis: Axis, clock: Callable[[], int]) -> None:
        folder, _, query = url.partition(MARK)
        self._axis = axis
        self._clock = clock
        self._speed = _speed(url, query)
        self._sweeps = list(_sweeps(Path(folder)))
        if not self._sweeps:
            raise BadInput(f"journal {folder}: keeps no sweep; runs keep those that they answered UNKNOWN")
        self._stopped = False
        self._stop_reader, self._stop_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def on_received(self, tell: Callable[[int], None]) -> None:
        """As a Source's; nothing is received here."""

    def stop(self) -> None:
        """End the iteration at once. May be called from a signal handler or another thread."""
        self._stopped = True
        os.write(self._stop_writer, b"\0")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in (self._stop_reader, self._stop_writer):
            os.close(descriptor)

    def __iter__(self) -> Iterator[Scan | Happening]:
        first_us, begun_us = self._sweeps[0][0], self._clock()
        for captured_us, powers in self._sweeps:
            if self._speed:
                due_us = begun_us + (captured_us - first_us) / self._speed
                self._wait(max(0.0, due_us - self._clock()) / 1e6)
            if self._stopped:
                return
            now_us = self._clock()
            yield Scan(powers, Axis(self._axis.start_hz, self._axis.step_hz, len(powers) // 2), now_us)

    def _wait(self, seconds: float) -> None:
        select.select([self._stop_reader], [], [], seconds)


def _sweeps(folder: Path) -> Iterator[tuple[int, bytes]]:
    """Pairs of capture time and powers; a kept sweep follows its verdict."""
    captured_us = 0
    for record in read(folder):
        if record.kind == Kind.VERDICT:
            captured_us = verdict_record(record.payload).captured_us
        elif record.kind == Kind.SCAN:
            yield captured_us, record.payload[4:]


def _speed(url: str, query: str) -> float:
    """The speed that a query asks for; 0 for as fast as it goes."""
    if not query:
        return 0.0
    name, _, text = query.partition("=")
    try:
        speed = float(text)
    except ValueError:
        speed = -1.0
    if name != "speed" or not 0 <= speed <= MAX_SPEED:
        raise BadInput(
            f"journal {url}: {query!r} is no speed of 0 to {MAX_SPEED:,}; "
            "give ?speed=1 for the recorded times, ?speed=20 for twenty times as fast"
        )
    return speed
