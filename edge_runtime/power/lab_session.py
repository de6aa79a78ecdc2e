"""Windows for `edge-runtime fit`, recorded on the board: work of known instruction mix at many duties.

The kernels come with the session, built and counted where it was started (tests/bench/lab_kernels.py). Each window
runs one of them for a share of the time; what it took is the meter's, how long a core was busy the kernel's, how many
instructions of each class the emulator's, for a round, times the rounds that were run.
"""

from __future__ import annotations

import ctypes
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from edge_runtime.errors import BadInput, HardwareUnavailable
from edge_runtime.power.base import Meter

CHAIN = "multiply"
"""The kernel in which every step waits for the last: it tells time from instructions, and no real code is like it."""
KERNELS = ("integer", CHAIN, "memory", "branch", "float")
ROUNDS = 50_000
"""Of one call: about a millisecond, so that what Python does between two calls is below a thousandth of it."""
TURN_S = 0.1
_SEED = 1


class Kernels:
    """The library in `folder`, and what a round of each kernel executes, by class.

    Raises BadInput where they are not there, or not for this machine.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self.per_round: dict[str, dict[str, float]] = json.loads((folder / "kernels.json").read_text())
            library = ctypes.CDLL(str(folder / "kernels.so"))
        except OSError as e:
            raise BadInput(
                f"lab session: the kernels in {folder} do not load ({e}); start it by scripts/bench_pi"
            ) from e
        self._call = {name: getattr(library, f"lab_{name}") for name in KERNELS}

    def work(self, name: str, seconds: float) -> int:
        """Run a kernel for so long; its rounds."""
        call, rounds, end = self._call[name], 0, time.monotonic() + seconds
        while time.monotonic() < end:
            call(ROUNDS)
            rounds += ROUNDS
        return rounds

    def executed(self, name: str, rounds: float) -> dict[str, float]:
        """Instructions by class."""
        return {c: n * rounds for c, n in self.per_round[name].items()}


class Draws(Protocol):
    """An emulated board: told what was done, it draws accordingly."""

    def did(self, seconds: float, busy_s: float, executed: dict[str, float]) -> None: ...


def window(
    meter: Meter,
    kernels: Kernels,
    name: str,
    duty: float,
    seconds: float,
    settle_s: float,
    board: Draws | None,
) -> dict[str, float]:
    """One window: busy for a share `duty` of every tenth of a second. Raises HardwareUnavailable
    without a reading.
    """

    def turns(for_s: float) -> tuple[float, float, int]:
        """Wall time, processor time, rounds."""
        began, cpu, rounds = time.monotonic(), time.process_time(), 0
        while time.monotonic() < began + for_s:
            turn_began, turn_cpu = time.monotonic(), time.process_time()
            did = kernels.work(name, TURN_S * duty)
            time.sleep(TURN_S * (1 - duty))
            rounds += did
            if board is not None:
                took, busy = time.monotonic() - turn_began, time.process_time() - turn_cpu
                board.did(took, busy, kernels.executed(name, did))
        return time.monotonic() - began, time.process_time() - cpu, rounds

    turns(settle_s)
    first = meter.read()
    took, busy, rounds = turns(seconds)
    last = meter.read()
    if last.at_us <= first.at_us:
        raise HardwareUnavailable(
            f"meter {meter.name}: made no reading in {seconds:g} s; take longer windows"
        )
    # The meter's seconds begin and end with its conversions: rates over ours, times its time.
    metered = (last.at_us - first.at_us) * 1e-6
    scale = metered / took
    executed = kernels.executed(name, rounds * scale)
    return {
        "seconds": metered,
        "energy_j": last.energy_j - first.energy_j,
        "busy_s": busy * scale,
        **executed,
    }


def record(
    meter: Meter,
    kernels: Kernels,
    windows: int,
    seconds: float,
    settle_s: float,
    throttled: Callable[[], bool],
    board: Draws | None = None,
) -> tuple[list[dict[str, Any]], int]:
    """So many windows, every kernel in its turn, at duties drawn by lot.

    The windows without those in which the board was throttled, and how many these were.
    """
    rng, kept, dropped = random.Random(_SEED), [], 0
    for k in range(windows):
        found = window(
            meter, kernels, KERNELS[k % len(KERNELS)], rng.uniform(0.1, 0.95), seconds, settle_s, board
        )
        if throttled():
            dropped += 1
        else:
            kept.append({"kernel": KERNELS[k % len(KERNELS)], **found})
    return kept, dropped
