"""Runs an emulator of the rig in a thread, makes recordings for it to play, and takes what a source gives."""

from __future__ import annotations

import io
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from zlib import crc32

from edge_runtime.recording import Origin, Recording, Row, Split
from edge_runtime.rig.framed import FramedEmulator
from edge_runtime.rig.mishaps import Mishaps
from edge_runtime.rig.playlist import Playlist
from edge_runtime.rig.rf_explorer import RFExplorerEmulator
from edge_runtime.rig.tinysa import TinySAEmulator
from edge_runtime.scan import Axis, Happening, Scan
from edge_runtime.source import Source

AXIS = Axis(433_795_000, 980, 256)
KINDS = {
    "rf-explorer": (RFExplorerEmulator, AXIS),
    "tinysa-ultra": (TinySAEmulator, Axis(433_795_000, 1000, 200)),
    "framed": (FramedEmulator, AXIS),
}


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


def crc(scan: Scan) -> str:
    return f"{crc32(scan.power_cdbm):08x}"


def powers(codes: bytes) -> bytes:
    """What an RF Explorer's codes are as a scan's powers."""
    return b"".join((-50 * code).to_bytes(2, "little", signed=True) for code in codes)


def collect(source: Source, enough: Callable[[list[Scan | Happening]], bool]) -> list[Scan | Happening]:
    """Items until there are enough; a stop after 60 s makes sure that a test ends."""
    guard = threading.Timer(60, source.stop)
    guard.start()
    items: list[Scan | Happening] = []
    for item in source:
        items.append(item)
        if enough(items):
            break
    guard.cancel()
    return items


def reasons(items: list[Scan | Happening]) -> list[int]:
    return [item.reason for item in items if type(item) is Happening]


def count_scans(items: list[Scan | Happening]) -> int:
    return sum(type(item) is Scan for item in items)


def only(items: list[Scan | Happening]) -> list[Scan]:
    return [item for item in items if type(item) is Scan]
