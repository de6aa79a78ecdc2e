"""The part of a lab session that runs on the board: windows with and without inference, read by a meter there.

    python3 -m edge_runtime.power.lab --bundle B.edge --recording R.scans --meter ina219

prints one JSON document. Windows alternate, so that drift cancels; each begins with a little of its own load
that is not counted, so that no meter's averaging reaches into the window before. MLPerf Tiny's method: five
windows of at least ten seconds a side, the median energy an inference.
"""

from __future__ import annotations

import json
import os
import platform
import random
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
from edge_runtime.power.attribution import median_interval
from edge_runtime.power.base import Meter
from edge_runtime.power.bench_arguments import add_bench_arguments
from edge_runtime.power.kernel import text
from edge_runtime.power.meters import NAMES, bench_of, open_meter
from edge_runtime.recording import Recording, Split

LEAST_WINDOWS, LEAST_S = 5, 10.0
SETTLE_S = 0.3
HOT_C = 80.0
"""From here on a Raspberry Pi slows down; a window above it is not comparable."""
EMULATED_IDLE_A, EMULATED_WORK_A = 0.12, 0.2
_SCANS = 64
_BATCH = 16


class Window(NamedTuple):
    """One window: mean power by the meter, seconds and inferences by the loop (0 where it idled)."""

    watts: float
    seconds: float
    inferences: int


def state(root: Path = Path("/")) -> dict[str, Any]:
    """What could spoil a measurement: governor, throttling, temperature; None where the board does not say."""
    cpu, thermal = root / "sys/devices/system/cpu", root / "sys/class/thermal"
    millicelsius = text(thermal / "thermal_zone0/temp")
    return {
        "board": text(root / "proc/device-tree/model").rstrip("\0") or platform.machine(),
        "governor": text(cpu / "cpu0/cpufreq/scaling_governor") or None,
        "clock_khz": text(cpu / "cpu0/cpufreq/scaling_cur_freq") or None,
        "throttled": text(root / "sys/devices/platform/soc/soc:firmware/get_throttled") or None,
        "celsius": float(millicelsius) / 1000 if millicelsius.lstrip("-").isdigit() else None,
    }


def doubts(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Why the figures may not be the board's best; empty where nothing speaks against them."""
    found = []
    if before["governor"] not in (None, "performance"):
        found.append(f"the governor is {before['governor']}; set performance")
    for when, seen in (("before", before), ("after", after)):
        if seen["throttled"] not in (None, "0", "0x0"):
            found.append(f"throttled or short of voltage ({seen['throttled']}) {when} the windows")
        if seen["celsius"] is not None and seen["celsius"] >= HOT_C:
            found.append(f"{seen['celsius']:.0f} C {when} the windows")
    unknown = [key for key in ("governor", "throttled", "celsius") if before[key] is None]
    if unknown:
        found.append(f"the board does not tell its {', '.join(unknown)}")
    return found


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


def duty_window(
    meter: Meter, infer: Callable[[bytes], object], scans: Sequence[bytes], seconds: float, duty: float
) -> dict[str, float]:
    """One window of a session for `edge-runtime fit`: busy for a share `duty` of every tenth of a second."""

    def turns(until: float) -> None:
        while time.monotonic() < until:
            _spend(infer, scans, 0.1 * duty, work=True)
            time.sleep(0.1 * (1 - duty))

    turns(time.monotonic() + SETTLE_S)
    first, cpu = meter.read(), time.process_time()
    began = time.monotonic()
    turns(began + seconds)
    share = (time.process_time() - cpu) / (time.monotonic() - began)
    last = meter.read()
    took = (last.at_us - first.at_us) * 1e-6
    return {"seconds": took, "energy_j": last.energy_j - first.energy_j, "busy_s": share * took}


def summarise(pairs: Sequence[tuple[Window, Window]]) -> dict[str, Any]:
    """Microjoules an inference, gross and above idle: the median over pairs and its bootstrap interval."""
    figures = {"gross": [], "above_idle": []}  # type: dict[str, list[float]]
    for idle, work in pairs:
        seconds_each = work.seconds / work.inferences
        figures["gross"].append(work.watts * seconds_each * 1e6)
        figures["above_idle"].append((work.watts - idle.watts) * seconds_each * 1e6)
    document: dict[str, Any] = {}
    for name, values in figures.items():
        document[f"uj_per_inference_{name}"] = median(values)
        document[f"uj_per_inference_{name}_interval"] = list(median_interval(values))
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
        switch = _switcher(emulated)
        meter = stack.enter_context(open_meter(args.meter, bench))
        meter.require()
        before, pairs = state(), []
        for _ in range(args.windows):
            sides = []
            for work in (False, True):
                switch(work)
                sides.append(measure(meter, engine.infer, scans, args.seconds, work=work))
            pairs.append((sides[0], sides[1]))
        rng = random.Random(1)
        switch(True)
        session = [
            duty_window(meter, engine.infer, scans, args.seconds, rng.uniform(0.05, 0.95))
            for _ in range(args.session_windows)
        ]
        after = state()
    document = {
        "source": "emulated" if args.emulated else meter.source.name.lower(),
        "meter": meter.name,
        "domain": meter.domain,
        "bundle": bundle.sha256,
        "python": platform.python_version(),
        "system": " ".join(os.uname()[::2]),
        "before": before,
        "after": after,
        "doubts": doubts(before, after),
        "windows": [{"idle": idle._asdict(), "work": work._asdict()} for idle, work in pairs],
        "session": session,
        **summarise(pairs),
    }
    print(json.dumps(document))
    return 0


def _switcher(emulated: Any) -> Callable[[bool], None]:
    if emulated is None:
        return lambda _work: None
    from edge_runtime.rig.load import SwitchedLoad  # noqa: PLC0415 (a device has no rig)

    load = SwitchedLoad(emulated.now(), EMULATED_IDLE_A)
    emulated.connect(load)
    return lambda work: load.switch(emulated.now(), EMULATED_WORK_A if work else EMULATED_IDLE_A)


if __name__ == "__main__":
    top = console.Parser(prog="edge_runtime.power.lab", description=__doc__)
    add_arguments(top)
    top.set_defaults(run=run)
    sys.exit(console.main(top))
