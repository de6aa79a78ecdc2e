"""The part of a lab session that runs on the board: windows with and without inference, read by a meter there.

    python3 -m edge_runtime.power.lab --bundle B.edge --recording R.scans --meter ina219

prints one JSON document. Windows alternate, so that drift cancels; each begins with a little of its own load
that is not counted, so that no meter's averaging reaches into the window before. MLPerf Tiny's method: five
windows of at least ten seconds a side, the median energy an inference.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
from argparse import ArgumentParser, Namespace
from array import array
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from edge_runtime import console
from edge_runtime.bundle import Bundle
from edge_runtime.engines import open_engine
from edge_runtime.errors import BadInput, HardwareUnavailable
from edge_runtime.power.attribution import interleaved, median_interval
from edge_runtime.power.base import Meter
from edge_runtime.power.bench_arguments import add_bench_arguments
from edge_runtime.power.lab_session import Kernels, record
from edge_runtime.power.lab_state import Throttling, doubts, state
from edge_runtime.power.meters import NAMES, bench_of, open_meter
from edge_runtime.recording import Recording, Split

LEAST_WINDOWS, LEAST_S = 5, 10.0
SETTLE_S = 0.3
EMULATED_WORK_W = 0.4
"""What the emulated board draws beside idle while it infers."""
UNRESOLVED = (
    "an inference is not resolved: its interval is wider than itself; take more windows, or longer ones"
)
_EMULATED_SETTLE_S = 0.25  # a turn, and a conversion of the chip
_SCANS = 64
_BATCH = 16


class Window(NamedTuple):
    """One window: mean power by the meter, seconds and inferences by the loop (0 where it idled).

    throttled: whether the firmware held the board back in it.
    """

    watts: float
    seconds: float
    inferences: int
    throttled: bool = False


def inputs(recording: Recording) -> list[bytes]:
    """Test sweeps as the engine takes them: little-endian hundredths of a dBm."""
    rows = [row for row in recording.rows if row.split == Split.TEST] or list(recording.rows)
    chosen = rows[:: max(len(rows) // _SCANS, 1)][:_SCANS]
    return [_power(row.codes) for row in chosen]


def _power(codes: bytes) -> bytes:
    values = array("h", (-50 * code for code in codes))
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


def measure(
    meter: Meter, infer: Callable[[bytes], object], scans: Sequence[bytes], seconds: float, *, work: bool
) -> Window:
    """One window of at least `seconds`."""
    _spend(infer, scans, SETTLE_S, work)
    first, began, count = meter.read(), time.monotonic(), 0
    count = _spend(infer, scans, seconds, work)
    took, last = time.monotonic() - began, meter.read()
    if last.at_us <= first.at_us:
        raise HardwareUnavailable(
            f"meter {meter.name}: made no reading in {seconds:g} s; take longer windows"
        )
    return Window((last.energy_j - first.energy_j) / (last.at_us - first.at_us) * 1e6, took, count)


def _spend(infer: Callable[[bytes], object], scans: Sequence[bytes], seconds: float, work: bool) -> int:
    """Infer, or sleep, for so long; the number of inferences."""
    end, count = time.monotonic() + seconds, 0
    if not work:
        time.sleep(seconds)
        return 0
    while time.monotonic() < end:
        for k in range(count, count + _BATCH):
            infer(scans[k % len(scans)])
        count += _BATCH
    return count


def summarise(pairs: Sequence[tuple[Window, Window]]) -> dict[str, Any]:
    """Microjoules an inference, gross and above idle: the median over pairs and its bootstrap interval.

    `by_pairs` is the mean above idle with its standard error; where that is not resolved, nothing is.
    """
    figures = {"gross": [], "above_idle": []}  # type: dict[str, list[float]]
    for idle, work in pairs:
        seconds_each = work.seconds / work.inferences
        figures["gross"].append(work.watts * seconds_each * 1e6)
        figures["above_idle"].append((work.watts - idle.watts) * seconds_each * 1e6)
    document: dict[str, Any] = {}
    for name, values in figures.items():
        document[f"uj_per_inference_{name}"] = median(values)
        document[f"uj_per_inference_{name}_interval"] = list(median_interval(values))
    found = interleaved(
        [(w.seconds, w.watts * w.seconds * 1e6, w.inferences) for pair in pairs for w in pair]
    )
    document["by_pairs"] = {
        "uj": found.value,
        "error": found.error,
        "interval": [found.low, found.high],
        "resolved": found.resolved,
        "text": found.text("uJ"),
    }
    document["idle_w"] = median(idle.watts for idle, _ in pairs)
    document["us_per_inference"] = median(w.seconds / w.inferences for _, w in pairs) * 1e6
    return document


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of a session."""
    add_bench_arguments(parser)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--recording", type=Path, required=True)
    parser.add_argument("--meter", default="ina219", choices=NAMES)
    parser.add_argument("--windows", type=int, default=LEAST_WINDOWS)
    parser.add_argument("--seconds", type=float, default=LEAST_S)
    parser.add_argument("--session-windows", type=int, default=0, help="also as many for edge-runtime fit")
    parser.add_argument("--kernels", type=Path, default=Path("work"), help="where their workloads lie")


def run(args: Namespace) -> int:
    """Measure, and print the document."""
    if args.windows < LEAST_WINDOWS or (args.seconds < LEAST_S and not args.emulated):
        raise BadInput(f"lab: take at least {LEAST_WINDOWS} windows of {LEAST_S:g} s a side")
    if args.meter == "modelled":
        raise BadInput("lab: the modelled meter measures nothing; choose a real one")
    bundle = Bundle.open(args.bundle)
    engine, why_baseline = open_engine(bundle)
    if why_baseline:
        raise BadInput(f"lab: {why_baseline}; build the bundle for this board")
    scans = inputs(Recording.open(args.recording))
    with ExitStack() as stack:
        bench, emulated = bench_of(args, stack)
        board = _synthetic(emulated)
        meter = stack.enter_context(open_meter(args.meter, bench))
        meter.require()
        before, throttled, pairs = state(), Throttling(), []
        for _ in range(args.windows):
            sides = []
            for work in (False, True):
                if board is not None:
                    board.draw(EMULATED_WORK_W if work else 0.0)
                side = measure(meter, engine.infer, scans, args.seconds, work=work)
                sides.append(side._replace(throttled=throttled()))
            pairs.append((sides[0], sides[1]))
        session, dropped = _session(args, meter, throttled, board)
        after, last = state(), meter.read()
    held_back = [k for k, pair in enumerate(pairs, 1) if any(side.throttled for side in pair)]
    figures = summarise(pairs)
    unresolved = [] if figures["by_pairs"]["resolved"] else [UNRESOLVED]
    document = {
        "source": "emulated" if args.emulated else meter.source.name.lower(),
        "meter": meter.name,
        "domain": meter.domain,
        "bundle": bundle.sha256,
        "python": platform.python_version(),
        "system": " ".join(os.uname()[::2]),
        "before": before,
        "after": after,
        "meter_error": last.uncertainty_j / last.energy_j if math.isfinite(last.uncertainty_j) else None,
        "doubts": doubts(before, after, held_back) + _dropped(dropped) + unresolved,
        "windows": [{"idle": idle._asdict(), "work": work._asdict()} for idle, work in pairs],
        "session": session,
        **figures,
    }
    print(json.dumps(document))
    return 0


def _session(
    args: Namespace, meter: Meter, throttled: Throttling, board: Any
) -> tuple[list[dict[str, float]], int]:
    """The windows for `edge-runtime fit`, where they are asked for; and how many throttling spoilt."""
    if not args.session_windows:
        return [], 0
    settle_s = SETTLE_S if board is None else _EMULATED_SETTLE_S
    return record(
        meter, Kernels(args.kernels), args.session_windows, args.seconds, settle_s, throttled, board
    )


def _dropped(windows: int) -> list[str]:
    return (
        [f"{windows} windows of the session were dropped: throttled or short of voltage"] if windows else []
    )


def _synthetic(emulated: Any) -> Any:
    """The board behind an emulated bench; None for hardware."""
    if emulated is None:
        return None
    from edge_runtime.rig.board import SyntheticBoard  # noqa: PLC0415 (a device has no rig)

    board = SyntheticBoard(emulated.now)
    emulated.connect(board.load)
    return board


if __name__ == "__main__":
    top = console.Parser(prog="edge_runtime.power.lab", description=__doc__)
    add_arguments(top)
    top.set_defaults(run=run)
    sys.exit(console.main(top))
