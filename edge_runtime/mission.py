"""`edge-runtime run`: everything the loop needs, opened in order, and the summary at its end."""

from __future__ import annotations

import json
import signal
import sys
import time
from argparse import ArgumentParser, Namespace
from argparse import _ArgumentGroup as ArgumentGroup
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic_ns
from types import FrameType
from typing import IO, TYPE_CHECKING, Any

import hw_profiles
from edge_runtime import console, render
from edge_runtime.bundle import Bundle
from edge_runtime.engines import Engine, open_engine
from edge_runtime.errors import BadInput
from edge_runtime.journal import JournalWriter, Kind, framed_verdict
from edge_runtime.loop import Loop
from edge_runtime.mission_clock import MissionClock
from edge_runtime.power.bench_arguments import add_bench_arguments
from edge_runtime.power.figures import headline
from edge_runtime.power.modelled import ModelledMeter, loop_work
from edge_runtime.reasons import Reason
from edge_runtime.scan import Happening, Scan
from edge_runtime.scanners import check_name
from edge_runtime.source import open_source
from edge_runtime.statistics import Statistics
from edge_runtime.verdict import Rung

if TYPE_CHECKING:
    from edge_runtime.saving import Saving


def monotonic_us() -> int:
    """The one clock: microseconds, monotonic, shared by every process of this machine."""
    return monotonic_ns() // 1000


def add_arguments(parser: ArgumentParser) -> None:
    """The options of `edge-runtime run`."""
    parser.add_argument("--bundle", type=Path, required=True, help="the .edge file")
    parser.add_argument("--port", required=True, help="device or pyserial URL of the scanner, or a file")
    parser.add_argument("--scanner", default="rf-explorer", help="the scanner's protocol (%(default)s)")
    parser.add_argument("--profile", default="zero2w", help="the board's profile (%(default)s)")
    parser.add_argument("--battery", default="li-ion-18650", help="the battery's profile (%(default)s)")
    parser.add_argument(
        "--journal", type=Path, default=Path("journal"), help="the log's folder (%(default)s)"
    )
    parser.add_argument("--scans", type=console.count, metavar="N", help="end after this many scans")
    parser.add_argument("--verdicts", type=Path, help="also write each verdict as a JSON line to this file")
    parser.add_argument("--quiet", action="store_true", help="print no verdicts, only the summary")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON document")
    _add_saving(parser.add_argument_group("what may be spent, and how it is saved"))
    metering: Any = parser.add_argument_group("meter")
    metering.add_argument(
        "--meter", default="modelled", help="as edge-runtime meters lists them (%(default)s)"
    )
    add_bench_arguments(metering, profile=False)


def _add_saving(parser: ArgumentGroup) -> None:
    parser.add_argument("--budget", help="what inference may use: 1%%, 20mAh, 50J, or a run time, 48h")
    parser.add_argument("--hours", type=float, metavar="H", help="the mission's length, for the budget")
    parser.add_argument(
        "--plan-from",
        type=Path,
        nargs="+",
        default=[],
        metavar="JOURNAL",
        help="spend the budget as these journals' missions would have needed it, too; those of this journal always "
        "count, where they were of the same bundle and length",
    )
    parser.add_argument(
        "--limit",
        metavar="T:P",
        help="rest between sweeps as long as a signal of length T is caught with chance P: 2s:95%%",
    )
    parser.add_argument(
        "--tune",
        nargs="?",
        const="cpu,leds,hdmi",
        metavar="GROUPS",
        help="turn these switches of the board meanwhile (%(const)s); radio too, if you did not come in by it",
    )
    parser.add_argument(
        "--charge",
        metavar="P",
        help="watch the battery and step down when it is low; at the start 80%%, or auto: as the journal left it, "
        "else as the gauge says, else full",
    )
    parser.add_argument("--own-battery", action="store_true", help="the scanner runs on a battery of its own")
    parser.add_argument(
        "--power-off",
        metavar="CMD",
        help="between sweeps set the wake-up alarm and run CMD, where the profile says that it pays",
    )
    parser.add_argument(
        "--sysfs",
        type=Path,
        default=Path("/sys"),
        metavar="DIR",
        help="of switches, gauge and alarm (%(default)s)",
    )
    parser.add_argument(
        "--speed",
        type=float,
        default=1.0,
        metavar="X",
        help="for rigs: waiting counts X times, a day takes minutes",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")


def run(args: Namespace) -> int:
    """Open bundle, profiles, journal and port; run the loop; print the summary."""
    _check(args)
    bundle = Bundle.open(args.bundle)
    clock = MissionClock(monotonic_us, args.speed)
    mission = hw_profiles.mission(args.profile, args.scanner, args.battery)
    saving = _saving(args, bundle, mission, clock)
    if saving and args.dry_run:
        print("\n".join(saving.lines()))
        return 0
    engine, lacks = open_engine(bundle)
    if lacks:
        print(f"edge-runtime: answering by a lower rung: {lacks}", file=sys.stderr)
    modelled = ModelledMeter(
        mission.board, _instructions(bundle, mission.board.target), loop_work(), clock.us
    )
    with ExitStack() as stack:
        meter = _meter(args, modelled, stack)
        source = stack.enter_context(
            open_source(args.port, args.scanner, bundle.axis, monotonic_us, expander=engine.expander)
        )
        reporter = stack.enter_context(Reporter.open(bundle, args))
        journal = JournalWriter(args.journal)
        stack.callback(journal.close)
        if meter is not modelled:
            meter.watch(journal)
            source.on_received(meter.heard)
        journal.append_json(Kind.RUN, _preamble(bundle, args, clock))
        engine = _saved(saving, engine, bundle, meter, journal, stack)
        loop = Loop(bundle, engine, meter, journal, clock.us, reporter)
        events = clock.stamped(source)
        with stopped_by_signals(source.stop):
            if saving:
                loop.run(saving.tune(stack))
                events = saving.pace(source, events, bundle)
            events = _on_the_contracts_axis(events, bundle)
            loop.run(saving.watched(events) if saving else events, args.scans)
        summary = summarise(loop.statistics)
        if meter is not modelled:
            summary["meter"] = meter.finish()
        if meter.scans:
            each_uj = meter.scans_uj.scaled(1 / meter.scans)
            summary |= headline(each_uj, meter.source, mission).to_json()
            summary["energy_j_interval"] = meter.scans_uj.scaled(1e-6).to_json()
        if saving:
            summary["mission"] = saving.account(bundle, loop.statistics)
        journal.append_json(Kind.END, summary)
    if args.json:
        console.print_json(summary)
    else:
        print("\n".join(summary_lines(summary)))
    if saving:
        saving.power_off()
    return 0


def _check(args: Namespace) -> None:
    """Raises BadInput where the command line contradicts itself."""
    if args.speed != 1 and args.meter != "modelled":
        raise BadInput(f"--speed {args.speed:g}: a meter's joules are of real time; leave out one of the two")
    if args.plan_from and not args.budget:
        raise BadInput("--plan-from: there is nothing to plan without a budget; add --budget")
    check_name(args.scanner)


def _saved(
    saving: Saving | None,
    engine: Engine,
    bundle: Bundle,
    meter: Any,
    journal: JournalWriter,
    stack: ExitStack,
) -> Engine:
    """The engine under what saves energy. Without a budget, no later start needs to read this run's records."""
    if saving:
        engine = saving.engine(engine, bundle, meter, journal, stack)
    if not (saving and saving.governing):
        journal.point_back()
    return engine


def _on_the_contracts_axis(events: Iterable[Scan | Happening], bundle: Bundle) -> Iterable[Scan | Happening]:
    """The same events, or with their scans resampled where the contract declares how."""
    contract = bundle.manifest["contract"]
    mode = contract.get("resample", "forbid")  # absent from bundles built before there was a choice
    if mode == "forbid":
        return events
    from edge_runtime.resample import resampled  # noqa: PLC0415 (only who declares it pays for it)

    return resampled(events, bundle.axis, mode, contract["axis_tolerance_hz"])


def _saving(
    args: Namespace, bundle: Bundle, mission: hw_profiles.Mission, clock: MissionClock
) -> Saving | None:
    """What saves energy beside the engine; None where nothing is asked for and no killed run left a note."""
    asked = (args.budget, args.limit, args.tune, args.charge, args.power_off, args.dry_run, args.speed != 1)
    if not any(asked) and not (args.journal / "board.json").exists():
        return None
    from edge_runtime.saving import Saving  # noqa: PLC0415 (only who saves pays for it)

    return Saving.of(args, bundle, mission, clock)


def _meter(args: Namespace, modelled: ModelledMeter, stack: ExitStack) -> Any:
    if args.meter == "modelled":
        return modelled
    from edge_runtime.power.field import in_the_loop  # noqa: PLC0415 (only who measures pays for it)

    return in_the_loop(args, modelled, monotonic_us, stack)


def _instructions(bundle: Bundle, target: str) -> dict[int, float]:
    """Counted instructions of the artifact by rung, on the board's target; empty where nobody counted."""
    cost = bundle.manifest["artifacts"].get(target, {}).get("cost", {})
    counted = {int(Rung[name]): count["mean"] for name, count in cost.get("by_rung", {}).items()}
    network = bundle.manifest.get("network") or {}
    if target in network.get("instructions", {}) and Rung.TREES in counted:
        # The network is asked after the trees: its answer costs both.
        counted[Rung.NETWORK] = counted[Rung.TREES] + network["instructions"][target]
    return counted


def _preamble(bundle: Bundle, args: Namespace, clock: MissionClock) -> dict[str, Any]:
    return {
        "bundle": bundle.sha256,
        "classes": list(bundle.classes),
        "scanner": args.scanner,
        "profile": args.profile,
        "port": args.port,
        "monotonic_us": clock.us(),
        "unix_us": time.time_ns() // 1000,
        "speed": clock.speed,
    }


@contextmanager
def stopped_by_signals(stop: Any) -> Iterator[None]:
    """Call `stop` on Ctrl-C and SIGTERM while the block runs, so that it ends in order."""

    def handler(_number: int, _frame: FrameType | None) -> None:
        stop()

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


class Reporter:
    """Prints verdicts once they are journaled: lines for people, JSON lines for programs."""

    def __init__(self, bundle: Bundle, lines: IO[str] | None, rows: IO[str] | None) -> None:
        self._classes = list(bundle.classes)
        self._lines = lines
        self._rows = rows

    @classmethod
    @contextmanager
    def open(cls, bundle: Bundle, args: Namespace) -> Iterator[Reporter | None]:
        """A reporter as the command line asks for; None where it asks for none.

        Raises BadInput where its file cannot be written.
        """
        lines = None if args.json or args.quiet else sys.stdout
        with console.output(args.verdicts) as rows:
            yield cls(bundle, lines, rows) if lines or rows else None

    def __call__(self, frame: bytes, journaled_us: int) -> None:
        """Report one verdict as it was journaled; `journaled_us` is when its frame was in the journal."""
        row = render.verdict_row(framed_verdict(frame), self._classes)
        if self._lines is not None:
            print(render.verdict_line(row), file=self._lines, flush=True)
        if self._rows is not None:
            print(json.dumps(row | {"journaled_us": journaled_us}), file=self._rows, flush=True)


def summarise(statistics: Statistics) -> dict[str, Any]:
    """What a run saw, as one JSON-able document."""
    latency = statistics.latency_us
    return {
        "scans": statistics.scans,
        "class_counts": statistics.class_counts,
        "unknown_rate": statistics.unknown_rate,
        "unknown_reasons": _by_name(statistics.unknown, Reason),
        "refused": _by_name(statistics.refused, Reason),
        "rungs": {rung.name: count for rung, count in zip(Rung, statistics.rungs, strict=True) if count},
        "events": _by_name(statistics.happened, Reason),
        "latency_ms": {
            "p50": latency.quantile(0.5) / 1000,
            "p99": latency.quantile(0.99) / 1000,
            "max": latency.max / 1000,
        },
    }


def _by_name(counts: dict[int, int], names: Any) -> dict[str, int]:
    return {names(code).name: count for code, count in sorted(counts.items())}


def summary_lines(summary: dict[str, Any]) -> Iterator[str]:
    """The summary for people."""
    yield f"scans      {summary['scans']}"
    for name, count in summary["class_counts"].items():
        if count:
            yield f"  {name:<24} {count}"
    yield f"unknown    {100 * summary['unknown_rate']:.1f} %"
    for key in ("refused", "events"):
        if summary[key]:
            yield f"{key:<10} " + ", ".join(f"{n} {c}" for n, c in summary[key].items())
    latency = summary["latency_ms"]
    yield f"latency    p50 {latency['p50']:.2f} ms, p99 {latency['p99']:.2f} ms, max {latency['max']:.2f} ms"
    if "energy_source" in summary:
        yield from _energy_lines(summary)
    if "meter" in summary:
        from edge_runtime.power.field import lines  # noqa: PLC0415 (only who measures pays for it)

        yield from lines(summary["meter"])
    if "mission" in summary:
        yield from _mission_lines(summary["mission"])


def _mission_lines(mission: dict[str, Any]) -> Iterator[str]:
    elapsed_s = max(mission["elapsed_s"], 1e-9)
    yield f"mission    {elapsed_s / 3600:.3g} h, the scanner at rest for {mission['rested_s'] / elapsed_s:.0%} of it"
    if "duty" in mission:
        yield "           a sweep of {sweep_s:.3g} s every {period_s:.3g} s".format(**mission["duty"])
    if "budget" in mission:
        yield "budget     {spent_j:.4g} of {joules:.4g} J spent ({text})".format(**mission["budget"])
        yield "plan       {note}".format(**mission["budget"]["plan"])
    if "charge" in mission:
        yield "charge     {:.1%}, the ladder up to {}".format(
            mission["charge"]["share"], mission["charge"]["limit"]
        )
    for part, (low, high) in mission.get("spent_j", {}).items():
        upper = "unknown" if high is None else f"{high:.3g}"
        yield f"           {part:<12} {low:.3g} to {upper} J (modelled)"


def _energy_lines(summary: dict[str, Any]) -> Iterator[str]:
    def interval(key: str, scale: float, unit: str) -> str:
        low, high = summary[f"{key}_interval"]
        upper = "unknown" if high is None else f"{high * scale:.3g}"
        return f"{low * scale:.3g} to {upper} {unit}"

    source = summary["energy_source"]
    yield f"energy     {interval('energy_uj_per_inference', 1, 'uJ')} per inference ({source})"
    yield f"           {interval('energy_j', 1, 'J')} for all scans ({source})"
    yield f"           {interval('mah_per_inference', 1e6, 'nAh')} per inference at the battery"
    yield (
        f"battery    {interval('battery_share', 100, '%')} of it goes to inference, at "
        f"{interval('scan_hz', 1, 'scans a second')}"
    )
    yield f"idle floor {interval('idle_floor_mw', 1, 'mW')}, with or without the model"
