"""`edge-runtime calibrate`: a guided bench session that finds a meter's offset and gain with a known load.

Two readings: with nothing connected, the offset; with a load whose current is known, the gain. The known current
comes from a resistor (its value and tolerance, and the voltage that the chip sees) or from a reference ammeter.
"""

from __future__ import annotations

import math
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from edge_runtime import console
from edge_runtime.errors import BadInput, CheckFailed, HardwareUnavailable
from edge_runtime.power.bench_arguments import add_bench_arguments, positive
from edge_runtime.power.calibration import Calibration
from edge_runtime.power.clock import Sleep
from edge_runtime.power.i2c import explain
from edge_runtime.power.meters import bench_of, open_chip
from edge_runtime.power.shunt import ShuntChip

CONVERSIONS = 16
LEAST_UV = 500.0
"""Below this a known load says nothing about the gain: its reading must stand far above the offset."""


class Known(NamedTuple):
    """The load of the second reading. ohm: a resistor; amps: a reference ammeter's reading; one of them NaN.

    error: relative, of that value.
    """

    ohm: float
    amps: float
    error: float

    def current(self, volts: float, voltage_error: float) -> tuple[float, float]:
        """The true current, amperes, and its relative error."""
        if math.isnan(self.amps):
            return volts / self.ohm, math.hypot(self.error, voltage_error)
        return self.amps, self.error


class Shunt(NamedTuple):
    """Mean shunt voltage with its standard error, microvolts, and the bus voltage."""

    uv: float
    error_uv: float
    volts: float


def measure(chip: ShuntChip, sleep: Sleep, conversions: int = CONVERSIONS) -> Shunt:
    """The mean of so many conversions. Raises HardwareUnavailable where the chip stops answering."""
    try:
        chip.start_bus()
        _wait(chip, chip.bus_us, sleep)
        volts = chip.bus_v()
        chip.start_shunt()
        values = []
        for _ in range(conversions):
            _wait(chip, chip.shunt_us, sleep)
            values.append(chip.shunt_uv())
    except OSError as e:
        raise HardwareUnavailable(f"calibrate: {explain(e, chip.address)}") from e
    return Shunt(fmean(values), stdev(values) / math.sqrt(conversions), volts)


def _wait(chip: ShuntChip, nominal_us: float, sleep: Sleep) -> None:
    for _ in range(100):
        sleep(nominal_us * 0.2e-6)
        if chip.ready()[0]:
            return
    raise HardwareUnavailable("calibrate: the chip makes no conversions; check its supply")


def solve(empty: Shunt, loaded: Shunt, known: Known, shunt_ohm: float, voltage_error: float) -> Calibration:
    """Offset and gain from the two readings, with what stays uncertain (95 %).

    Raises CheckFailed where the load is too small to tell, or the result beyond what any part's tolerance
    explains.
    """
    amps, amps_error = known.current(loaded.volts, voltage_error)
    expected_uv = amps * shunt_ohm * 1e6
    if expected_uv < LEAST_UV:
        raise CheckFailed(
            f"calibrate: the load drops only {expected_uv:.0f} uV at the shunt; take one that draws "
            f"{LEAST_UV * 1e-6 / shunt_ohm * 2:.3g} A or more"
        )
    gain = (loaded.uv - empty.uv) / expected_uv
    if not 0.8 < gain < 1.25:
        raise CheckFailed(
            f"calibrate: the meter reads {gain:.3g} times the known current; check --shunt, --load-ohm and the wiring"
        )
    scatter = 2 * math.hypot(empty.error_uv, loaded.error_uv) / expected_uv
    return Calibration(
        shunt_ohm=shunt_ohm,
        offset_uv=empty.uv,
        gain=gain,
        # Half a step stays hidden even where all readings agree.
        offset_error_uv=max(2 * empty.error_uv, 5.0),
        gain_error=math.hypot(amps_error, scatter),
        conditions="",
    )


def add_arguments(parser: ArgumentParser) -> None:
    """`edge-runtime calibrate`."""
    add_bench_arguments(parser)
    parser.add_argument("--meter", default="ina219", choices=["ina219", "ina226", "ina3221"])
    parser.add_argument("--load-ohm", type=positive, metavar="OHM", help="the known load, a resistor")
    parser.add_argument("--load-amps", type=positive, metavar="A", help="or what a reference ammeter reads")
    parser.add_argument(
        "--load-error", type=float, default=0.01, metavar="SHARE", help="of that value (%(default)s)"
    )
    parser.add_argument(
        "--conditions", default="", help="temperature, instruments: for whoever reads the file"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the calibration file")
    parser.add_argument("--yes", action="store_true", help="do not wait for Enter between the steps")
    parser.add_argument("--json", action="store_true", help="print the calibration as one JSON document")


def run(args: Namespace) -> int:
    """Guide through the session and write the file."""
    known = known_load(args.load_ohm, args.load_amps, args.load_error)
    shunt_ohm = args.shunt or 0.1
    with ExitStack() as stack:
        bench, emulated = bench_of(args, stack)
        chip = open_chip(args.meter, replace(bench, calibration=None))
        ask = _prompter(args.yes)
        ask("1 of 2: disconnect everything behind the shunt, leave the supply on")
        _connect(emulated, None)
        empty = measure(chip, time.sleep)
        ask("2 of 2: connect the known load and let it settle")
        _connect(emulated, known)
        loaded = measure(chip, time.sleep)
        calibration = solve(empty, loaded, known, shunt_ohm, chip.voltage_error)
    date = time.strftime("%Y-%m-%d")
    what = "an emulated bench" if args.emulated else args.conditions or "no conditions given"
    calibration = replace(calibration, conditions=f"{args.meter}, {date}, {what}")
    calibration.save(args.output)
    _report(calibration, args)
    return 0


def known_load(ohm: float | None, amps: float | None, error: float) -> Known:
    """The known load that the arguments name. Raises BadInput where they name none, or two."""
    if (ohm is None) == (amps is None):
        raise BadInput("calibrate: give the known load as --load-ohm or as --load-amps, one of them")
    if not 0 <= error < 0.5:
        raise BadInput("calibrate: the load's error is a share below 0.5")
    return Known(math.nan if ohm is None else ohm, math.nan if amps is None else amps, error)


def _prompter(silent: bool) -> Callable[[str], None]:
    def ask(text: str) -> None:
        print(text, file=sys.stderr)
        if not silent:
            print("press Enter when that is done: ", end="", file=sys.stderr, flush=True)
            if not sys.stdin.readline():
                raise BadInput("calibrate: nobody is there to press Enter; --yes does not wait")

    return ask


def _connect(emulated: Any, known: Known | None) -> None:
    if emulated is None:
        return
    from edge_runtime.rig.load import Load  # noqa: PLC0415

    amps = 0.0 if known is None else known.current(5.0, 0)[0]
    emulated.connect(Load([(1.0, amps)]))


def _report(calibration: Calibration, args: Namespace) -> None:
    if args.json:
        console.print_json({name: getattr(calibration, name) for name in calibration.__dataclass_fields__})
        return
    print(
        f"offset {calibration.offset_uv:+.1f} uV (+- {calibration.offset_error_uv:.1f}), "
        f"gain {calibration.gain:.4f} (+- {100 * calibration.gain_error:.2f} %), in {args.output}"
    )
    print(
        f"next: edge-runtime meters --calibration {args.output}, and so for run --meter and scripts/bench_pi"
    )
