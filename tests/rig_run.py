"""Runs an emulator of the rig in a thread, and makes recordings for it to play."""

from __future__ import annotations

import io
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edge_runtime.recording import Origin, Recording, Row, Split
from edge_runtime.rig.mishaps import Mishaps
from edge_runtime.rig.playlist import Playlist
from edge_runtime.scan import Axis

AXIS = Axis(433_795_000, 980, 256)


def clock_us() -> int:
    """The one clock."""
    return time.monotonic_ns() // 1000


def recording(count: int, axis: Axis = AXIS, seed: int = 1, plain: bool = False) -> Recording:
    """A recording of random sweeps: every byte value in them, or where `plain` what is below -32 dBm."""
    chance = random.Random(seed)

    def codes() -> bytes:
        noise = chance.randbytes(axis.points)
        return bytes(code | 0x40 for code in noise) if plain else noise

    rows = [
        Row(k % 2, 0, Split.TEST if k % 4 else Split.TRAIN, Origin.REMIX, 1000, codes()) for k in range(count)
    ]
    captures = [{"name": "none", "sha256": "", "label": "a", "session": "s"}]
    return Recording(axis, ["a", "b"], captures, rows)  # type: ignore[arg-type]


class Running:
    """An emulator that plays in a thread until the block ends."""

    def __init__(self, emulator: Any, log: io.StringIO) -> None:
        self.emulator = emulator
        self.port = str(emulator.port.path)
        self._log = log

    @property
    def log(self) -> list[list[str]]:
        """The log's rows so far, without its header."""
        return [line.split("\t") for line in self._log.getvalue().splitlines()[1:]]


@contextmanager
def running(
    kind: Any, played: Recording, rate_hz: float, misbehave: str = "", loop: bool = False, **options: Any
) -> Iterator[Running]:
    """Start an emulator of class `kind`; stop it and take its port away at the end of the block."""
    stopping = threading.Event()
    log = io.StringIO()
    playlist = Playlist(played, loop=loop)
    emulator = kind(playlist, rate_hz, Mishaps(misbehave), log, stopping.is_set, **options)
    thread = threading.Thread(target=emulator.run)
    thread.start()
    try:
        yield Running(emulator, log)
    finally:
        stopping.set()
        thread.join()
        emulator.port.close()
