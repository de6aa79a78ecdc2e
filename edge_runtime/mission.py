"""`edge-runtime run`: everything the loop needs, opened in order, and the summary at its end."""

from __future__ import annotations

import json
import signal
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic_ns
from types import FrameType
from typing import IO, Any

import hw_profiles
from edge_runtime import console, render
from edge_runtime.bundle import Bundle
from edge_runtime.engines import Engine, open_engine
from edge_runtime.journal import JournalWriter, Kind, framed_verdict
from edge_runtime.loop import Loop
from edge_runtime.power.bench_arguments import add_bench_arguments
from edge_runtime.power.figures import headline
from edge_runtime.power.modelled import ModelledMeter, loop_work
from edge_runtime.reasons import Reason
from edge_runtime.scan import Happening, Scan
from edge_runtime.source import ScanSource, open_source
from edge_runtime.statistics import Statistics
from edge_runtime.verdict import Rung


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
    parser.add_argument("--budget", help="what inference may use: 1%%, 20mAh, 50J, or a run time, 48h")
    parser.add_argument("--hours", type=float, metavar="H", help="the mission's length, for the budget")
    parser.add_argument("--scans", type=int, metavar="N", help="end after this many scans")
    parser.add_argument("--meter", default="modelled", help="as edge-runtime meters lists them (%(default)s)")
    add_bench_arguments(parser, profile=False)
    parser.add_argument("--verdicts", type=Path, help="also write each verdict as a JSON line to this file")
    parser.add_argument("--quiet", action="store_true", help="print no verdicts, only the summary")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON document")


def run(args: Namespace) -> int:
    """Open bundle, profiles, journal and port; run the loop; print the summary."""
    bundle = Bundle.open(args.bundle)
    axis = bundle.axis
    mission = hw_profiles.mission(args.profile, args.scanner, args.battery)
    engine, lacks = open_engine(bundle)
    if lacks:
        print(f"edge-runtime: answering by a lower rung: {lacks}", file=sys.stderr)
    govern = _governor(args, bundle, mission) if args.budget else None
    modelled = ModelledMeter(
        mission.board, _instructions(bundle, mission.board.target), loop_work(), monotonic_us
    )
    with ExitStack() as stack:
        meter = _meter(args, modelled, stack)
        source = stack.enter_context(
            open_source(args.port, args.scanner, axis, monotonic_us, expander=engine.expander)
        )
        reporter = stack.enter_context(Reporter.open(bundle, args))
        journal = JournalWriter(args.journal)
        stack.callback(journal.close)
        journal.append_json(Kind.RUN, _preamble(bundle, args))
        if govern:
            engine = govern(engine, journal, stack)
        loop = Loop(bundle, engine, meter, journal, monotonic_us, reporter)
        with stopped_by_signals(source.stop):
            loop.run(_on_the_contracts_axis(source, bundle), args.scans)
        summary = summarise(loop.statistics)
        if meter is not modelled:
            summary["meter"] = meter.finish()
        if meter.scans:
            each_uj = meter.scans_uj.scaled(1 / meter.scans)
            summary |= headline(each_uj, meter.source, mission).to_json()
        journal.append_json(Kind.END, summary)
    if args.json:
        console.print_json(summary)
    else:
        print("\n".join(summary_lines(summary)))
    return 0


def _on_the_contracts_axis(source: ScanSource, bundle: Bundle) -> Iterable[Scan | Happening]:
    """The source itself, or with its scans resampled where the contract declares how."""
    contract = bundle.manifest["contract"]
    mode = contract.get("resample", "forbid")  # absent from bundles built before there was a choice
    if mode == "forbid":
        return source
    from edge_runtime.resample import resampled  # noqa: PLC0415 (only who declares it pays for it)

    return resampled(source, bundle.axis, mode, contract["axis_tolerance_hz"])


def _governor(
    args: Namespace, bundle: Bundle, mission: hw_profiles.Mission
) -> Callable[[Engine, JournalWriter, ExitStack], Engine]:
    """Read the budget and the journal's account of it; what puts an engine under it, once the journal is open."""
    from edge_runtime.governor import in_the_loop  # noqa: PLC0415 (only who has a budget pays for it)

    budget, earlier = in_the_loop.budget_of(args, mission), in_the_loop.recorded(args.journal)
    learnt = in_the_loop.remembered(args.journal)

    def govern(engine: Engine, journal: JournalWriter, stack: ExitStack) -> Engine:
        return in_the_loop.under_budget(
            engine, bundle, mission, budget, journal, earlier, monotonic_us, stack, learnt
        )

    return govern


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


def _preamble(bundle: Bundle, args: Namespace) -> dict[str, Any]:
    return {
        "bundle": bundle.sha256,
        "classes": list(bundle.classes),
        "scanner": args.scanner,
        "profile": args.profile,
        "port": args.port,
        "monotonic_us": monotonic_us(),
        "unix_us": time.time_ns() // 1000,
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


def _energy_lines(summary: dict[str, Any]) -> Iterator[str]:
    def interval(key: str, scale: float, unit: str) -> str:
        low, high = summary[f"{key}_interval"]
        upper = "unknown" if high is None else f"{high * scale:.3g}"
        return f"{low * scale:.3g} to {upper} {unit}"

    source = summary["energy_source"]
    yield f"energy     {interval('energy_uj_per_inference', 1, 'uJ')} per inference ({source})"
    yield f"           {interval('mah_per_inference', 1e6, 'nAh')} per inference at the battery"
    yield (
        f"battery    {interval('battery_share', 100, '%')} of it goes to inference, at "
        f"{interval('scan_hz', 1, 'scans a second')}"
    )
    yield f"idle floor {interval('idle_floor_mw', 1, 'mW')}, with or without the model"
