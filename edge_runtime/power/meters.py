"""All meters by name, and `edge-runtime meters`: each with a reading, or why there is none."""

from __future__ import annotations

import os
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hw_profiles
from edge_runtime import console
from edge_runtime.errors import BadInput, HardwareUnavailable
from edge_runtime.power.base import Meter, Reading, Source
from edge_runtime.power.bench_arguments import add_bench_arguments, positive
from edge_runtime.power.calibration import Calibration
from edge_runtime.power.clock import monotonic_us
from edge_runtime.power.i2c import Bus, explain, open_bus
from edge_runtime.power.identify import identify
from edge_runtime.power.ina219 import Ina219
from edge_runtime.power.ina226 import Ina226, Ina3221
from edge_runtime.power.ina228 import Ina228Meter
from edge_runtime.power.kernel import HwmonMeter, IioMeter, PowerSupplyMeter
from edge_runtime.power.modelled import NO_LOOP, ModelledMeter
from edge_runtime.power.pmic import PmicMeter
from edge_runtime.power.rapl import RaplMeter, import_pyrapl
from edge_runtime.power.shunt import ShuntChip, ShuntMeter

NAMES = ("rapl", "ina219", "ina226", "ina228", "ina3221", "iio", "hwmon", "pmic", "power_supply", "modelled")
MODULE_SHUNT_OHM = 0.1


@dataclass(frozen=True, slots=True)
class Bench:
    """Where meters are looked for.

    bus: number of the I2C bus, or an open one. addresses: by chip; 0x40 for those not named. shunt_ohm: what is
    really fitted. calibration: of the INA chip. channel: of an INA3221. rail: what hangs behind the shunt.
    """

    bus: int | Bus = 1
    addresses: dict[str, int] | None = None
    shunt_ohm: float | None = None
    calibration: Calibration | None = None
    sysfs: Path = Path("/sys")
    profile: str = "zero2w"
    max_amps: float = 3.2
    channel: int = 1
    rail: str = ""

    def known(self) -> Calibration:
        """The calibration, or the datasheet's limits for the shunt that is fitted."""
        return self.calibration or Calibration(self.shunt_ohm or MODULE_SHUNT_OHM)


class Absent(Meter):
    """A meter that is not there, and why."""

    source = Source.NONE
    domain = "nothing"

    def __init__(self, name: str, because: str) -> None:
        self.name, self.unavailable = name, because

    def read(self) -> Reading:
        """Raises HardwareUnavailable."""
        self.require()
        raise AssertionError("require raises")


def open_meter(name: str, bench: Bench | None = None) -> Meter:
    """The meter of that name, sampling; where it is not there, its `unavailable` says why.

    Raises BadInput for a name that is none.
    """
    bench = bench or Bench()
    timing: dict[str, Any] = {"sysfs": bench.sysfs, "shunt_ohm": bench.shunt_ohm, "rail": bench.rail}
    makers: dict[str, Callable[[], Meter]] = {
        "rapl": lambda: RaplMeter(sysfs=bench.sysfs),
        **dict.fromkeys(("ina219", "ina226", "ina228", "ina3221"), lambda: _on_bus(name, bench)),
        "iio": lambda: IioMeter(**timing),
        "hwmon": lambda: HwmonMeter(**timing),
        "pmic": PmicMeter,
        "power_supply": lambda: PowerSupplyMeter(sysfs=bench.sysfs),
        "modelled": lambda: ModelledMeter(hw_profiles.board(bench.profile), {}, NO_LOOP, monotonic_us),
    }
    if name not in makers:
        raise BadInput(f"meter {name!r}: unknown; choose of {', '.join(NAMES)}")
    meter = makers[name]()
    start = getattr(meter, "start", None)
    if start is not None and meter.unavailable is None:
        start()
    return meter


def open_chip(name: str, bench: Bench) -> ShuntChip:
    """The driver of a shunt-sampling chip on the bench. Raises HardwareUnavailable, saying why."""
    bus = open_bus(bench.bus) if isinstance(bench.bus, int) else bench.bus
    address = (bench.addresses or {}).get(name, 0x40)
    try:
        found = identify(bus, address)
    except OSError as e:
        raise HardwareUnavailable(explain(e, address)) from e
    if found != name:
        raise HardwareUnavailable(f"{found} answers at address 0x{address:02x}; give another --address")
    if name == "ina219":
        return Ina219(bus, bench.known(), address=address, max_amps=bench.max_amps)
    if name == "ina226":
        return Ina226(bus, address=address)
    return Ina3221(bus, address=address, channel=bench.channel)


def _on_bus(name: str, bench: Bench) -> Meter:
    domain = f"whatever hangs behind the shunt{bench.rail}"
    calibration = bench.known()
    try:
        if name != "ina228":
            return ShuntMeter(open_chip(name, bench), calibration, name=name, domain=domain)
        bus = open_bus(bench.bus) if isinstance(bench.bus, int) else bench.bus
        address = (bench.addresses or {}).get(name, 0x40)
        found = identify(bus, address)
    except HardwareUnavailable as e:
        return Absent(name, str(e))
    except OSError as e:
        return Absent(name, explain(e, address))
    if found != name:
        return Absent(name, f"{found} answers at address 0x{address:02x}; give another --address")
    return Ina228Meter(bus, calibration, domain=domain, address=address)


def bench_of(args: Namespace, stack: ExitStack) -> tuple[Bench, Any]:
    """The bench that the arguments ask for, and the EmulatedBench behind it (None for hardware)."""
    calibration = Calibration.load(args.calibration) if args.calibration else None
    hw_profiles.board(args.profile)
    common: dict[str, Any] = {
        "shunt_ohm": args.shunt,
        "calibration": calibration,
        "profile": args.profile,
        "max_amps": args.max_amps,
        "channel": args.channel,
    }
    addresses = None if args.address is None else dict.fromkeys(NAMES, args.address)
    if not args.emulated:
        return Bench(bus=args.i2c, addresses=addresses, **common), None
    from edge_runtime.rig.bench import ADDRESSES, EmulatedBench  # noqa: PLC0415 (a device has no rig)
    from edge_runtime.rig.powercap import redirected  # noqa: PLC0415

    emulated = EmulatedBench()
    stack.callback(emulated.close)
    stack.enter_context(redirected(import_pyrapl(), emulated.sysfs))
    os.environ["PATH"] = f"{emulated.path}{os.pathsep}{os.environ.get('PATH', '')}"
    common |= {
        "addresses": addresses or ADDRESSES,
        "sysfs": emulated.sysfs,
        "rail": " (EMULATED, no hardware)",
    }
    return Bench(bus=emulated.bus, **common), emulated


def add_arguments(parser: ArgumentParser) -> None:
    """`edge-runtime meters`."""
    add_bench_arguments(parser)
    parser.add_argument("--seconds", type=positive, default=1.0, help="how long to look (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: Namespace) -> int:
    """Show every meter with a reading over some seconds, or why it is unavailable."""
    with ExitStack() as stack:
        bench, emulated = bench_of(args, stack)
        rows = survey(bench, args.seconds, emulated)
    if args.emulated:
        rows = [{**row, "source": "emulated"} if row.get("source") == "measured" else row for row in rows]
    if args.json:
        console.print_json({"meters": rows})
    else:
        print("\n".join(_line(row) for row in rows))
        if not any(row.get("source") in ("measured", "emulated") for row in rows):
            print(
                "no meter here; edge-runtime meters --emulated shows them on a bench that is none",
                file=sys.stderr,
            )
    return 0


def survey(bench: Bench, seconds: float, emulated: Any = None) -> list[dict[str, Any]]:
    """All meters side by side over the same seconds, as JSON values."""
    with ExitStack() as stack:
        meters = [stack.enter_context(open_meter(name, bench)) for name in NAMES]
        first = [_read(meter) for meter in meters]
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if emulated is not None:
                emulated.update()
            time.sleep(min(left, 0.05))
        return [_row(meter, before, _read(meter)) for meter, before in zip(meters, first, strict=True)]


def _read(meter: Meter) -> Reading | None:
    try:
        return meter.read()
    except HardwareUnavailable:
        return None


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None  # NaN compares false, too


def _row(meter: Meter, before: Reading | None, after: Reading | None) -> dict[str, Any]:
    row: dict[str, Any] = {"name": meter.name, "available": after is not None, "domain": meter.domain}
    if before is None or after is None:
        return row | {"available": False, "because": meter.unavailable or "it gave no reading"}
    seconds = max(after.at_us - before.at_us, 1) * 1e-6
    return row | {
        "source": meter.source.name.lower(),
        "power_w": (after.energy_j - before.energy_j) / seconds,
        "energy_j": after.energy_j,
        "uncertainty_j": _finite(after.uncertainty_j),
        "rail_v": _finite(after.rail_v),
        "seconds": seconds,
        "own_cpu_s": getattr(meter, "own_cpu_s", None),
    }


def _line(row: dict[str, Any]) -> str:
    if not row["available"]:
        return f"{row['name']:<13} unavailable, because {row['because']}"
    volts = "" if row["rail_v"] is None else f" at {row['rail_v']:.2f} V"
    uncertain = "unknown" if row["uncertainty_j"] is None else f"{row['uncertainty_j']:.3g}"
    return (
        f"{row['name']:<13} {row['power_w']:.3f} W{volts}, {row['energy_j']:.4g} +- {uncertain} J "
        f"({row['source']}); {row['domain']}"
    )
