"""Has one reader make sweeps of the same bytes: ours, or an instrument's own library. WHO FRAMES

Prints one JSON line: the seconds of CPU and of the clock that it took, the sweeps found, and the CRC-32 of the
last one's powers. The bytes lie in memory, a frame a read: nothing waits for a port. The libraries are their own
unmodified code up to values in dBm; RFExplorer's pause of 10 ms between two frames is taken out of its clock.
"""

from __future__ import annotations

import json
import queue
import random
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any
from zlib import crc32

# ruff: noqa: PLC0415 - each reader is imported by the process that runs it, and no other

CONFIGURATION = b"#C2-F:0433795,0000980,0000,-120,0256,0,000,0240000,0960000,0100000,00003,0000,000\r\n"
POINTS = {"rf-explorer": 256, "tinysa": 100}


def frames(instrument: str, count: int) -> list[bytes]:
    """Sweeps of noise from -120 to -60 dBm, as the instrument sends them."""
    chance = random.Random(1)
    made = []
    for _ in range(min(count, 64)):
        codes = [chance.randrange(120, 240) for _ in range(POINTS[instrument])]
        if instrument == "rf-explorer":
            made.append(b"$s\x10" + bytes(codes) + b"\r\n")
        else:
            made.append(b"{" + b"".join(struct.pack("<BH", 0x78, 32 * 174 - 16 * c) for c in codes) + b"}")
    return (made * (count // len(made) + 1))[:count]


class Memory:
    """What the libraries use of a serial port: the frames, one a read."""

    is_open = True

    def __init__(self, data: list[bytes], ended: Callable[[], None] = lambda: None) -> None:
        self._data = iter(data)
        self._next = next(self._data, b"")
        self._ended = ended

    @property
    def in_waiting(self) -> int:
        return len(self._next)

    def read(self, _: int) -> bytes:
        now, self._next = self._next, next(self._data, b"")
        if not self._next:
            self._ended()
        return now


def ours(instrument: str, data: list[bytes]) -> tuple[int, int]:
    from edge_runtime.scan import Axis, Scan
    from edge_runtime.scanners import make

    name = {"rf-explorer": "rf-explorer", "tinysa": "tinysa-ultra"}[instrument]
    scanner = make(name, Axis(433_795_000, 980, POINTS[instrument]))
    scanner.feed(CONFIGURATION if instrument == "rf-explorer" else b"", 0)
    feed = scanner.feed
    count, last = 0, b""
    for frame in data:
        for event in feed(frame, 0):
            if type(event) is Scan:
                count += 1
                last = event.power_cdbm
    return count, crc32(last)


class _Communicator:
    """What RFExplorer's reader asks its communicator for."""

    RunReceiveThread = True
    PortConnected = True
    VerboseLevel = 0
    UseByteBLOB = UseStringBLOB = IsMWSUB3G = False
    InputStage = ActiveModel = Mode = None
    InputStageAttenuationDB = 0

    def IsAnalyzerEmbeddedCal(self) -> bool:  # noqa: N802
        return False


def rfexplorer(_: str, data: list[bytes]) -> tuple[int, int]:
    from RFExplorer import RFE_Common
    from RFExplorer.ReceiveSerialThread import ReceiveSerialThread

    communicator = _Communicator()
    communicator.InputStage = RFE_Common.eInputStage.Direct

    def ended() -> None:
        communicator.RunReceiveThread = False

    sweeps: queue.Queue[Any] = queue.Queue()
    # The flag falls at the last read, and the loop ends before it looks at what that brought: one frame more.
    port = Memory([CONFIGURATION, *data, data[-1]], ended)
    reader = ReceiveSerialThread(communicator, sweeps, port, threading.Lock(), threading.Lock())
    sleep, time.sleep = time.sleep, lambda _: None
    try:
        reader.ReceiveThreadfunc()
    finally:
        time.sleep = sleep
    found = [sweep for sweep in sweeps.queue if hasattr(sweep, "GetAmplitude_DBM")]
    last = found[-1]
    powers = [round(100 * last.GetAmplitude_DBM(k)) for k in range(POINTS["rf-explorer"])]
    return len(found), crc32(struct.pack(f"<{len(powers)}h", *powers))


def tsapython(_: str, data: list[bytes]) -> tuple[int, int]:
    import tsapython as library

    peer = library.tinySA()
    peer.ser = Memory([*data, b""])
    points = POINTS["tinysa"]
    form = "<" + "xH" * points
    last: list[float] = []
    for _ in data:
        frame = peer.get_binary_return(points)
        last = [count / 32 - 174 for count in struct.unpack(form, frame[1:])]  # as its examples do
    return len(data), crc32(struct.pack(f"<{points}h", *(round(100 * v) for v in last)))


READERS: dict[str, tuple[str, Callable[[str, list[bytes]], tuple[int, int]]]] = {
    "ours-rf-explorer": ("rf-explorer", ours),
    "RFExplorer": ("rf-explorer", rfexplorer),
    "ours-tinysa": ("tinysa", ours),
    "tsapython": ("tinysa", tsapython),
}


def main() -> None:
    """Run one reader."""
    instrument, reader = READERS[sys.argv[1]]
    data = frames(instrument, int(sys.argv[2]))
    reader(instrument, data[:10])  # what it imports is not counted
    cpu, clock = time.process_time(), time.monotonic()
    count, crc = reader(instrument, data)
    print(
        json.dumps(
            {"cpu_s": time.process_time() - cpu, "s": time.monotonic() - clock, "n": count, "crc": crc}
        )
    )


if __name__ == "__main__":
    main()
