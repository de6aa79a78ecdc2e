"""How hard the scanner and the board work: as little as the detection limit allows.

A limit says: a signal of so many seconds must be caught with such a chance. A sweep catches a signal that is there
for the whole sweep, with the chance `per_sweep`. From that follows the longest period between two sweeps; in
between the scanner pauses, and the board idles on one slow core, or is off where its wake-up alarm and the
break-even time allow. All of it is worked out before the mission, with the profiles' ranges.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Self

from edge_runtime.errors import BadInput
from edge_runtime.power.interval import UNKNOWN, Interval
from edge_runtime.scan import Axis
from hw_profiles import Mission
from hw_profiles.schema import Board

PUNCTUAL = 0.98
"""Of the longest period that keeps a limit so much is used: rests end late by a wake-up, and sweeps differ."""
_FORM = re.compile(r"([0-9.]+)\s*(ms|s|min):([0-9.]+)%(?::([0-9.]+)%)?")
_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0}


@dataclass(frozen=True, slots=True)
class Limit:
    """A signal of `signal_s` seconds must be caught with chance `chance`, each sweep with chance `per_sweep`."""

    signal_s: float = 2.0
    chance: float = 0.95
    per_sweep: float = 1.0

    def __post_init__(self) -> None:
        if self.signal_s <= 0 or not 0 < self.chance <= 1 or not 0 < self.per_sweep <= 1:
            raise BadInput(f"limit {self}: give a time above 0, and chances above 0 and up to 100 %")

    @classmethod
    def parse(cls, text: str) -> Self:
        """`2s:95%`, or with the chance that a sweep catches what it meets: `2s:95%:98%`."""
        match = _FORM.fullmatch(text.strip())
        try:
            if match is None:
                raise ValueError
            signal_s, shares = float(match[1]) * _SECONDS[match[2]], (match[3], match[4] or "100")
            chance, per_sweep = (float(share) / 100 for share in shares)
        except ValueError as e:
            raise BadInput(f"limit {text!r}: not understood; write 2s:95% or 2s:95%:98%") from e
        return cls(signal_s, chance, per_sweep)

    def __str__(self) -> str:
        """As `parse` reads it."""
        sweep = "" if self.per_sweep == 1 else f":{self.per_sweep * 100:.6g}%"
        return f"{self.signal_s:g}s:{self.chance * 100:.6g}%{sweep}"


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


def coarser(axis: Axis, factor: int) -> Axis:
    """The same span in steps `factor` times as wide: a sweep of fewer points, and therefore shorter."""
    return Axis(axis.start_hz, axis.step_hz * factor, -(-(axis.points - 1) // factor) + 1)


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
    signal. sweeping: the share of the time in which the scanner sweeps. board_off: whether the board is off
    between sweeps. why: for people, what was not done and why.
    """

    sweep_s: float
    period_s: float
    caught: float
    sweeping: float
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
    return Duty(
        sweep_s, sweep_s, 1.0, 1.0, mission.scanner.power_mw.range, mission.board.idle_mw.range, False, ()
    )


def choose(
    mission: Mission,
    limit: Limit,
    *,
    sweep_hz: float | None = None,
    can_pause: bool = True,
    tuned: bool = True,
) -> Duty:
    """The least work that keeps the limit.

    sweep_hz: how fast the scanner sweeps, if known better than from its profile. tuned: whether the board's own
    switches are turned. Raises BadInput where no duty keeps the limit.
    """
    sweep_s = 1 / (sweep_hz or mission.scan_hz.middle)
    longest = longest_period_s(limit, sweep_s)
    if longest is None:
        raise BadInput(
            f"limit {limit}: a sweep takes {sweep_s:.2f} s, so a signal of {limit.signal_s:g} s is caught with "
            f"{catch(limit, sweep_s, sweep_s):.0%} at best; sweep fewer points or ask for a longer signal"
        )
    why = []
    period_s = max(sweep_s, PUNCTUAL * longest) if can_pause else sweep_s
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
    board_mw = board.idle_tuned_mw.range if tuned else board.idle_mw.range
    if not board_mw.known:
        why.append("what tuning saves on this board is unknown: counted as nothing")
        board_mw = board.idle_mw.range
    off_mw, off_why = _off(board, period_s - sweep_s)
    why.append(off_why)
    return Duty(
        sweep_s,
        period_s,
        catch(limit, sweep_s, period_s),
        share,
        scanner.power_mw.range.scaled(share) + paused_mw.scaled(1 - share),
        off_mw or board_mw,
        off_mw is not None,
        tuple(why),
    )


def planned(mission: Mission, limit: Limit | None, board_mw: Interval) -> Duty:
    """The duty before a sweep was timed: at the profile's rate, where that keeps the limit. board_mw: as tuned."""
    chosen = always(mission)
    if limit is not None:
        with suppress(BadInput):  # the scanner's own rate may keep it
            chosen = choose(mission, limit)
    return replace(chosen, board_mw=board_mw if board_mw.known else mission.board.idle_mw.range)


def rest_mw(chosen: Duty, own_battery: bool) -> float:
    """What the device takes without inference, at most. own_battery: the scanner's."""
    return chosen.board_mw.high + (0.0 if own_battery else chosen.scanner_mw.high)


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
