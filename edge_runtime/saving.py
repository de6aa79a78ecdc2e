"""What `edge-runtime run` does to save energy beside the governor: the scanner's duty, the board's switches, the
battery watched; and the account of the mission's joules by part. Loaded by runs that ask for one of these.
"""

from __future__ import annotations

import shlex
import subprocess
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edge_runtime import charge, duty
from edge_runtime.battery import StateOfCharge
from edge_runtime.board import GROUPS, BoardControl, groups, wake_after
from edge_runtime.bundle import Bundle
from edge_runtime.engines import Engine
from edge_runtime.engines.compiled import CompiledEngine
from edge_runtime.errors import BadInput, HardwareUnavailable
from edge_runtime.governor.engine import LOW_BATTERY, GovernedEngine, Screening
from edge_runtime.governor.in_the_loop import Governing
from edge_runtime.journal import JournalWriter
from edge_runtime.mission_clock import MissionClock
from edge_runtime.pacing import Paced, Pacer, timed
from edge_runtime.planning.work import Ran, Work, work
from edge_runtime.power.interval import Interval, exactly
from edge_runtime.power.modelled import loop_work
from edge_runtime.reasons import Reason
from edge_runtime.scan import Happening, Scan
from edge_runtime.scanners.base import Can
from edge_runtime.source import ScanSource, Source
from edge_runtime.statistics import Statistics
from edge_runtime.verdict import Answer, Rung
from hw_profiles import Mission

Events = Iterable[Scan | Happening]


class StepDown:
    """An engine that a low battery keeps from climbing. whole: as it is; trees: of a cascade, without its network."""

    def __init__(self, whole: Engine, governed: GovernedEngine | None, trees: Engine | None) -> None:
        self.expander = (governed or whole).expander
        self._whole, self._governed, self._trees = whole, governed, trees or whole
        self._top: Engine = governed or whole
        self._ask: Callable[[bytes], Answer] = self._top.infer

    def infer(self, power_cdbm: bytes) -> Answer:
        """The answer of the highest rung that the charge allows."""
        return self._ask(power_cdbm)

    def limit(self, rung: Rung) -> None:
        """Climb no higher than `rung` from now on."""
        if rung is Rung.NONE:
            self._ask = _nothing
        elif rung is Rung.SCREEN:
            self._ask = self._governed.screen_only if self._governed else self._screen_only
        else:
            engine = self._whole if rung is Rung.NETWORK else self._trees
            if self._governed:
                self._governed.climb_with(engine.infer)
            self._ask = self._governed.infer if self._governed else engine.infer

    def _screen_only(self, power_cdbm: bytes) -> Answer:
        if not isinstance(self._whole, Screening):  # the baseline costs no more than a screen
            return self._whole.infer(power_cdbm)
        screened = self._whole.screen(power_cdbm)
        if screened.reason == Reason.OK and screened.rung == Rung.NONE:
            return LOW_BATTERY
        return screened


def _nothing(_power_cdbm: bytes) -> Answer:
    return LOW_BATTERY


def tuned_mw(mission: Mission, named: Sequence[str], failed: Sequence[str]) -> Interval:
    """The board's idle power with these switches turned: the profile knows it with all and with none."""
    idle, tuned = mission.board.idle_mw.range, mission.board.idle_tuned_mw.range
    if not named or not tuned.known:
        return idle
    if set(named) == set(GROUPS) and not failed:
        return tuned
    return Interval(min(tuned.low, idle.low), idle.high)


def _metered(meter: Any) -> Callable[[], float]:
    """Mean power at the rail between the meter's last readings: all that hangs behind it."""
    last, power_mw = meter.reading, 0.0

    def mean_mw() -> float:
        nonlocal last, power_mw
        now = meter.reading
        if now.at_us > last.at_us:
            power_mw = (now.energy_j - last.energy_j) / (now.at_us - last.at_us) * 1e9
            last = now
        return power_mw

    return mean_mw


@dataclass(slots=True)
class Saving:
    """One run's measures. named: groups of the board's switches. share, told: the charge that the command line says,
    and that the journal does. off_s: for how long the board is to be off after this run.
    """

    args: Namespace
    mission: Mission
    clock: MissionClock
    limit: duty.Limit | None
    named: list[str]
    share: float | None
    told: dict[str, Any] | None
    board: BoardControl
    began_us: int
    paced: Paced | None = None
    pacer: Pacer | None = None
    watch: charge.Watch | None = None
    governing: Governing | None = None
    off_s: int = 0

    @classmethod
    def of(cls, args: Namespace, bundle: Bundle, mission: Mission, clock: MissionClock) -> Saving:
        """As the command line asks for it. Raises BadInput where it cannot be."""
        limit = duty.Limit.parse(args.limit) if args.limit else None
        if args.power_off and limit is None:
            raise BadInput("--power-off: how long may the board be off? add --limit")
        share = charge.starting_share(args.charge) if args.charge else None
        named = groups(args.tune) if args.tune else []
        told = charge.last_told(args.journal) if args.charge else None
        board = BoardControl(args.sysfs, args.journal)
        saving = cls(args, mission, clock, limit, named, share, told, board, clock.us())
        if args.budget:
            scan_us = round(saving.planned.period_s * 1e6)
            saving.governing = Governing(
                args, bundle, mission, clock, rest_mw=saving.rest_mw, scan_us=scan_us
            )
        return saving

    # The scanner

    def pace(self, source: ScanSource, events: Events, bundle: Bundle) -> Events:
        """The source's scans, with rests as the limit allows."""
        if self.limit is None:
            return timed(events, self.governing.expect) if self.governing else events
        if not isinstance(source, Source) or Path(source.url).is_file():
            raise BadInput("--limit: what was recorded cannot be paused; leave it out")
        self.pacer = Pacer(self._choose, self._quickening(source, bundle))
        leave = partial(self._leave, source) if self.args.power_off else None
        self.paced = Paced(events, source.rest, self.clock, self.pacer, leave)
        return self.paced

    def _quickening(self, source: Source, bundle: Bundle) -> Callable[[], str | None]:
        """What has the scanner sweep half as many points, where contract and scanner allow it, down to a quarter."""
        may = bundle.manifest["contract"].get("resample", "forbid") != "forbid"
        factors = iter((2, 4) if may and Can.CONFIGURE in source.scanner.can else ())

        def quicken() -> str | None:
            factor = next(factors, None)
            if factor is None:
                return None
            axis = duty.coarser(bundle.axis, factor)
            source.send(source.scanner.configure(axis))
            return f"asked for {axis.points} points"

        return quicken

    @property
    def planned(self) -> duty.Duty:
        """The duty before a sweep was timed: at the profile's rate, where that keeps the limit."""
        return duty.planned(self.mission, self.limit, tuned_mw(self.mission, self.named, ()))

    @property
    def rest_mw(self) -> float:
        """What the device takes without inference, at most."""
        return duty.rest_mw(self.planned, self.args.own_battery)

    def _choose(self, sweep_s: float) -> duty.Duty:
        assert self.limit is not None
        chosen = duty.choose(self.mission, self.limit, sweep_hz=1 / sweep_s, tuned=bool(self.named))
        if self.governing:
            self.governing.expect(round(chosen.period_s * 1e6))
        return chosen

    def _leave(self, source: ScanSource, rest_us: int) -> None:
        """End the loop, so that the board can go off until the alarm wakes it."""
        self.off_s = max(1, round(rest_us / 1e6))
        source.stop()

    def power_off(self) -> None:
        """Set the alarm and run the command; nothing where the duty did not ask for it."""
        if not self.off_s:
            return
        wake_after(self.args.sysfs, self.off_s)
        command = shlex.split(self.args.power_off)
        try:
            subprocess.run(command, check=True)
        except (OSError, subprocess.CalledProcessError) as e:
            raise HardwareUnavailable(f"--power-off {self.args.power_off}: {e}; name one that works") from e

    # The board

    def tune(self, stack: ExitStack) -> Iterator[Happening]:
        """Turn back what a killed run left, turn the switches of this one, and back when `stack` unwinds."""
        if count := self.board.restore():
            yield Happening(Reason.BOARD, f"{count} switches turned back that a killed run had left")
        stack.callback(self.board.restore)
        self.board.tune(self.named)
        for line in self.board.done:
            yield Happening(Reason.BOARD, line)
        failed = self.board.failed
        if failed:
            more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
            yield Happening(Reason.BOARD, failed[0] + more, {"failed": failed})

    # The battery

    def watched(self, events: Events) -> Events:
        """The same events, and the battery's."""
        return self.watch.over(events) if self.watch else events

    def engine(
        self, plain: Engine, bundle: Bundle, meter: Any, writer: JournalWriter, stack: ExitStack
    ) -> Engine:
        """The engine under the budget and the battery's charge."""
        governed = self.governing.engine(plain, writer, stack) if self.governing else None
        if not self.args.charge:
            return governed or plain
        trees = CompiledEngine.of(bundle) if hasattr(plain, "network") else None
        stepped = StepDown(plain, governed, trees)
        state = self._state()
        draw, how = self._draw(meter, self.mission.battery.mean_v.range.middle)
        self.watch = charge.Watch(state, draw, self.clock.us, stepped.limit, how)
        return stepped

    def _state(self) -> StateOfCharge:
        battery, told = self.mission.battery, self.told
        if self.share is not None:
            return StateOfCharge(battery, share=self.share)
        if told is not None:
            return StateOfCharge(
                battery,
                share=float(told["share"]),
                fade=float(told["fade"]),
                deviation=float(told["deviation"]),
            )
        try:
            volts = charge.Gauge(self.args.sysfs).volts()
        except HardwareUnavailable:
            return StateOfCharge(battery)
        state = StateOfCharge(battery, share=None)
        state.update(0, 0, volts)
        return state

    def _draw(self, meter: Any, mean_v: float) -> tuple[Callable[[], charge.Draw], str]:
        """What the battery gives: by the kernel's gauge, else by what meter or model say of the rail."""
        efficiency = self.mission.battery.converter_efficiency.range.middle
        rail_mw = _metered(meter) if hasattr(meter, "reading") else self._modelled(meter)

        def load_ma(volts: float) -> float:
            return rail_mw() / efficiency / volts

        name = self.args.meter
        try:
            gauge = charge.Gauge(self.args.sysfs)
        except HardwareUnavailable:
            return lambda: charge.Draw(load_ma(mean_v)), f"what {name} counts"
        return charge.gauged(gauge, load_ma), f"the gauge {gauge.name}"

    def _modelled(self, meter: Any) -> Callable[[], float]:
        """Mean power at the rail since the last call: board, scanner, and the scans counted."""
        last_us, last_uj = self.clock.us(), meter.scans_uj.middle

        def power_mw() -> float:
            nonlocal last_us, last_uj
            now_us, uj = self.clock.us(), meter.scans_uj.middle
            scans_mw = (uj - last_uj) / max(1, now_us - last_us) * 1e3
            last_us, last_uj = now_us, uj
            scanner_mw = 0.0 if self.args.own_battery else self.scanner_mw.middle
            board_mw = tuned_mw(self.mission, self.named, self.board.failed).middle
            known = [mw for mw in (scans_mw, scanner_mw, board_mw) if mw < float("inf")]
            return sum(known)

        return power_mw

    @property
    def scanner_mw(self) -> Interval:
        """The scanner's mean power as its duty stands."""
        duty_now = self.pacer.duty if self.pacer else None
        return duty_now.scanner_mw if duty_now else self.mission.scanner.power_mw.range

    def lines(self) -> Iterator[str]:
        """What would be done, for people: `--dry-run`."""
        if self.governing:
            yield from self.governing.lines()
        if self.limit:
            try:
                chosen = duty.choose(self.mission, self.limit, tuned=bool(self.named))
                yield (
                    f"duty       at the profile's rate: a sweep of {chosen.sweep_s:.3g} s every "
                    f"{chosen.period_s:.3g} s; signals caught {chosen.caught:.1%}; run times the sweeps itself"
                )
                off = chosen.board_off and self.args.power_off
                yield f"           between sweeps: {self.args.power_off if off else chosen.why[-1]}"
            except BadInput as e:
                yield f"duty       at the profile's rate, {e}"
        for switch in self.board.planned(self.named):
            yield f"board      {switch.path}: {switch.before} -> {switch.to}, and back"
        for line in self.board.failed:
            yield f"board      {line}"
        if self.args.charge:
            charged = self._state().charge
            yield f"charge     {100 * charged.share:.0f} +- {200 * charged.deviation:.0f} % at the start"

    # The account

    def account(self, bundle: Bundle, statistics: Statistics) -> dict[str, Any]:
        """The mission's joules by part, modelled, as JSON values; and what was carried out."""
        elapsed_us = self.clock.us() - self.began_us
        rested_us = self.paced.rested_us if self.paced else 0
        document: dict[str, Any] = {
            "elapsed_s": round(elapsed_us / 1e6, 3),
            "rested_s": round(rested_us / 1e6, 3),
            "speed": self.clock.speed,
        }
        if self.pacer and self.pacer.duty:
            chosen = self.pacer.duty
            document["duty"] = {
                "period_s": chosen.period_s,
                "sweep_s": chosen.sweep_s,
                "caught": chosen.caught,
            }
        if self.governing:
            document["budget"] = self.governing.spent()
        if self.watch:
            charged = self.watch.state.charge
            document["charge"] = {"share": charged.share, "deviation": charged.deviation}
            document["charge"]["limit"] = self.watch.limit.name
        try:
            each = work(bundle, self.mission.board, loop_work())
        except BadInput:
            return document  # nobody has counted the bundle's rungs
        parts = self._parts(each, statistics, elapsed_us / 1e6, rested_us / 1e6)
        document["spent_j"] = {name: joules.to_json() for name, joules in parts.items()}
        return document

    def _parts(
        self, each: Work, statistics: Statistics, elapsed_s: float, rested_s: float
    ) -> dict[str, Interval]:
        rungs = statistics.rungs
        network = rungs[Rung.NETWORK]
        trees = rungs[Rung.TREES] + network
        rests = self.paced.rests if self.paced else 0
        ran = Ran(statistics.scans, rests, rungs[Rung.SCREEN] + trees, trees, network)
        scanner = self.mission.scanner
        sweeping, held = scanner.power_mw.range, scanner.paused_mw.range
        held = held if held.known else sweeping
        scanner_mj = sweeping.scaled(elapsed_s - rested_s) + held.scaled(rested_s)
        board_mj = tuned_mw(self.mission, self.named, self.board.failed).scaled(elapsed_s)
        rest = {"board idle": board_mj, "scanner": exactly(0) if self.args.own_battery else scanner_mj}
        return {name: mj.scaled(1e-3) for name, mj in rest.items()} | {
            name: uj.scaled(1e-6) for name, uj in each.parts_uj(ran).items()
        }
