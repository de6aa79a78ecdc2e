"""How hard the scanner and the board work: as little as the detection limit allows.

A limit says: a signal of so many seconds must be caught with such a chance. A sweep catches a signal that is there
for the whole sweep, with the chance `per_sweep`. From that follows the longest period between two sweeps; in
between the scanner pauses, and the board idles on one slow core, or is off where its wake-up alarm and the
break-even time allow. All of it is worked out before the mission, with the profiles' ranges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import BadInput, HardwareUnavailable
from edge_runtime.power.interval import UNKNOWN, Interval
from hw_profiles import Mission
from hw_profiles.schema import Board


@dataclass(frozen=True, slots=True)
class Limit:
    """A signal of `signal_s` seconds must be caught with chance `chance`, each sweep with chance `per_sweep`."""

    signal_s: float = 2.0
    chance: float = 0.95
    per_sweep: float = 1.0

    def __post_init__(self) -> None:
        if self.signal_s <= 0 or not 0 < self.chance <= 1 or not 0 < self.per_sweep <= 1:
            raise BadInput(f"detection limit {self}: give seconds above 0, and chances above 0 and up to 1")


def catch(limit: Limit, sweep_s: float, period_s: float) -> float:
    """The chance that a signal is caught, when sweeps of `sweep_s` begin every `period_s`.

    A signal that begins at a random moment holds floor(x) or one more whole sweeps, x = (signal - sweep) / period.
    """
    room_s = limit.signal_s - sweep_s
    if room_s <= 0:
        return 0.0
    whole, part = divmod(room_s / max(period_s, sweep_s), 1)
    miss = 1 - limit.per_sweep
    return float(1 - (1 - part) * miss**whole - part * miss ** (whole + 1))


def longest_period_s(limit: Limit, sweep_s: float) -> float | None:
    """The longest period that keeps the limit; None where even sweeping without a pause does not."""
    if catch(limit, sweep_s, sweep_s) < limit.chance:
        return None
    low, high = sweep_s, max(sweep_s, limit.signal_s / limit.chance / limit.per_sweep + sweep_s)
    for _ in range(60):
        middle = (low + high) / 2
        if catch(limit, sweep_s, middle) >= limit.chance:
            low = middle
        else:
            high = middle
    return low


def break_even_s(board: Board) -> Interval:
    """How long the board must be off to save what its next start costs; unknown where the profile is."""
    idle, off, boot = board.idle_mw.range, board.off_mw.range, board.boot_j.range
    if not (off.known and boot.known and idle.low > off.high):
        return UNKNOWN
    return Interval(boot.low * 1e3 / (idle.high - off.low), boot.high * 1e3 / (idle.low - off.high))


@dataclass(frozen=True, slots=True)
class Duty:
    """What was chosen, and the mean powers that follow.

    period_s: from the beginning of one sweep to that of the next. caught: the chance it leaves for the limit's
    signal. board_off: whether the board is off between sweeps. why: for people, what was not done and why.
    """

    sweep_s: float
    period_s: float
    caught: float
    scanner_mw: Interval
    board_mw: Interval
    board_off: bool
    why: tuple[str, ...]

    @property
    def scan_hz(self) -> float:
        """Sweeps a second."""
        return 1 / self.period_s


def always(mission: Mission) -> Duty:
    """The scanner sweeps without a pause, nothing on the board is switched off."""
    sweep_s = 1 / mission.scan_hz.middle
    return Duty(sweep_s, sweep_s, 1.0, mission.scanner.power_mw.range, mission.board.idle_mw.range, False, ())


def choose(mission: Mission, limit: Limit, *, sweep_hz: float | None = None, can_pause: bool = True) -> Duty:
    """The least work that keeps the limit.

    sweep_hz: how fast the scanner sweeps, if known better than from its profile. Raises BadInput where no duty
    keeps the limit.
    """
    sweep_s = 1 / (sweep_hz or mission.scan_hz.middle)
    longest = longest_period_s(limit, sweep_s)
    if longest is None:
        raise BadInput(
            f"detection limit: a sweep takes {sweep_s:.2f} s, so a signal of {limit.signal_s:g} s is caught with "
            f"{catch(limit, sweep_s, sweep_s):.0%} at best; sweep fewer points or ask for a longer signal"
        )
    why = []
    period_s = longest if can_pause else sweep_s
    if not can_pause:
        why.append("the scanner cannot pause")
    scanner = mission.scanner
    resume_s = scanner.resume_s.range.middle
    if math.isinf(resume_s):
        why.append("how long the scanner takes to resume is unknown: taken for nothing")
        resume_s = 0.0
    share = min(1.0, (sweep_s + resume_s) / period_s) if can_pause else 1.0
    paused_mw = scanner.paused_mw.range if scanner.paused_mw.range.known else scanner.power_mw.range
    if not scanner.paused_mw.range.known:
        why.append("what the scanner draws when paused is unknown: counted as if it swept")
    board = mission.board
    tuned = board.idle_tuned_mw.range
    if not tuned.known:
        why.append("what tuning saves on this board is unknown: counted as nothing")
        tuned = board.idle_mw.range
    off_mw, off_why = _off(board, period_s - sweep_s)
    why.append(off_why)
    return Duty(
        sweep_s,
        period_s,
        catch(limit, sweep_s, period_s),
        scanner.power_mw.range.scaled(share) + paused_mw.scaled(1 - share),
        off_mw or tuned,
        off_mw is not None,
        tuple(why),
    )


def _off(board: Board, pause_s: float) -> tuple[Interval | None, str]:
    """The board's mean power if it is off for the pause, where that pays, and the reason for people."""
    needed = break_even_s(board)
    if not needed.known:
        return None, "the board stays on: its profile knows no start energy or no power when off"
    if pause_s < needed.high:
        return (
            None,
            f"the board stays on: a start pays after {needed} s of sleep, the limit leaves {pause_s:.2f} s",
        )
    mean_mw = board.off_mw.range + board.boot_j.range.scaled(1e3 / pause_s)
    return mean_mw, f"the board is off between sweeps: a start pays after {needed} s"


class Pacer:
    """When the next sweep is due: every period, and without a pause while something is going on.

    pause_us(now, busy): how long to hold the scanner from now, 0 for not at all. `busy` says that the sweep just
    taken held something: then the scanner goes on without a pause for `dwell_us`.
    """

    def __init__(self, period_us: int, resume_us: int = 0, dwell_us: int = 2_000_000) -> None:
        self._period_us = period_us
        self._resume_us = resume_us
        self._dwell_us = dwell_us
        self._due_us = 0
        self._busy_until_us = -1

    def pause_us(self, began_us: int, now_us: int, busy: bool) -> int:
        """`began_us`: when the sweep just taken began."""
        if busy:
            self._busy_until_us = now_us + self._dwell_us
        if now_us < self._busy_until_us:
            return 0
        self._due_us = began_us + self._period_us - self._resume_us
        return max(0, self._due_us - now_us)


class BoardControl:
    """The board's own switches in sysfs, turned while a mission runs and turned back after it.

    root: where /sys is. Whatever may not be switched stays as it is, with the reason in `notes`.
    """

    def __init__(self, root: Path = Path("/sys")) -> None:
        self._cpus = root / "devices/system/cpu"
        self._rtc = root / "class/rtc"
        self._before: list[tuple[Path, str]] = []
        self.notes: list[str] = []

    def tune(self, cores: int = 1) -> None:
        """The slowest governor on all cores, and all cores but `cores` off-line."""
        for governor in sorted(self._cpus.glob("cpu[0-9]*/cpufreq/scaling_governor")):
            offered = self._read(governor.with_name("scaling_available_governors")).split()
            if "powersave" in offered:
                self._set(governor, "powersave")
            else:
                self.notes.append(f"{governor}: offers {' '.join(offered) or 'nothing'}, not powersave")
        numbered = sorted(self._cpus.glob("cpu[0-9]*/online"), key=lambda p: int(p.parent.name[3:]))
        for online in numbered[max(0, cores - (0 if (self._cpus / "cpu0/online").exists() else 1)) :]:
            self._set(online, "0")

    def restore(self) -> None:
        """Everything as it was found, the last switch first."""
        while self._before:
            path, value = self._before.pop()
            try:
                path.write_text(value)
            except OSError as e:
                self.notes.append(f"{path}: not restored to {value} ({e.strerror})")

    def wake_after(self, seconds: int) -> None:
        """Set the wake-up alarm. Raises HardwareUnavailable where the board has none, or does not let us."""
        alarms = sorted(self._rtc.glob("rtc*/wakealarm"))
        if not alarms:
            raise HardwareUnavailable(
                f"wake-up alarm: no clock with one under {self._rtc}; leave the board on"
            )
        try:
            alarms[0].write_text("0")  # an alarm that is set already refuses another
            alarms[0].write_text(f"+{seconds}")
        except OSError as e:
            raise HardwareUnavailable(
                f"wake-up alarm {alarms[0]}: {e.strerror}; run as root, or leave the board on"
            ) from e

    def _set(self, path: Path, value: str) -> None:
        before = self._read(path)
        if before == value:
            return
        try:
            path.write_text(value)
        except OSError as e:
            self.notes.append(f"{path}: stays {before} ({e.strerror})")
            return
        self._before.append((path, before))

    def _read(self, path: Path) -> str:
        try:
            return path.read_text().strip()
        except OSError:
            return ""
