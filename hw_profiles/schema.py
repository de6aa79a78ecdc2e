"""What a profile holds, and the reading of one: TOML in, typed ranges out, every fault named in one line.

A quantity is a table `{ range = [low, high], basis = "...", source = "..." }` under a key that ends in its
unit. `source` names an entry of the file's `[sources]`, which says where the number is published. `basis` is
how it came about. A quantity nobody has published is the string "unknown" and becomes [0, infinity).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

from edge_runtime.power.interval import UNKNOWN, Interval

BASES = ("measured", "datasheet", "derived", "assumed", "fitted")
"""Measured by a third party; the maker's figure; computed from such; a judgement; fitted on a board here."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A range, how it came about (one of BASES, or "unknown"), and where it is published."""

    range: Interval
    basis: str
    source: str


NOT_KNOWN = Quantity(UNKNOWN, "unknown", "not published")


@dataclass(frozen=True, slots=True)
class Profile:
    """What every profile has: a name, other names for it, a title for people."""

    name: str
    title: str
    aliases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Board(Profile):
    """A computer, as seen at its supply rail.

    target: the compile target whose instruction counts apply to it.
    idle_mw: on, running nothing but its system; idle_tuned_mw: after switching off what a mission can do
        without (HDMI, LEDs, radio). off_mw: halted, waiting for an alarm. boot_j: off to ready.
    busy_core_mw: what one core that never waits adds.
    instruction_pj: energy of an instruction, the core's time with it; where unknown, derived from the core's
        power, clock and instructions per cycle. integer_pj .. floating_pj: beyond that time, by class; only a
        fit on a board tells them, so they may be left out.
    wake_us: time a core is busy in the kernel for one wake-up from idle (interrupt, scheduler, read).
    """

    target: str
    rail_v: Quantity
    idle_mw: Quantity
    idle_tuned_mw: Quantity
    off_mw: Quantity
    boot_j: Quantity
    busy_core_mw: Quantity
    cores: Quantity
    clock_mhz: Quantity
    instructions_per_cycle: Quantity
    instruction_pj: Quantity
    wake_us: Quantity
    integer_pj: Quantity
    load_store_pj: Quantity
    branch_pj: Quantity
    floating_pj: Quantity


@dataclass(frozen=True, slots=True)
class Scanner(Profile):
    """A receiver: how fast it sweeps (256 points, narrow span) and what it draws from its own supply.

    power_mw: sweeping. paused_mw: held by a command, on otherwise. warm_up_s: from switched on to a good sweep.
    resume_s: from paused to the first whole sweep's beginning.
    """

    sweep_hz: Quantity
    power_mw: Quantity
    paused_mw: Quantity
    warm_up_s: Quantity
    resume_s: Quantity


@dataclass(frozen=True, slots=True)
class Battery(Profile):
    """A battery and the converter between it and the board's rail.

    capacity_mah: from full to cut-off, low end aged. mean_v: mean terminal voltage over a discharge.
    converter_efficiency: energy at the rail over energy at the terminals.
    soc_v: open-circuit voltage by state of charge, rows (percent, voltage), falling.
    """

    chemistry: str
    capacity_mah: Quantity
    mean_v: Quantity
    cut_off_v: Quantity
    internal_mohm: Quantity
    converter_efficiency: Quantity
    soc_v: tuple[tuple[float, Interval], ...]
    soc_source: str

    def charge_pct(self, rest_v: float) -> Interval:
        """State of charge at an open-circuit voltage, percent: interpolated at both edges of the table."""
        at_low_edge = [(r.low, pct) for pct, r in self.soc_v]
        at_high_edge = [(r.high, pct) for pct, r in self.soc_v]
        return Interval(_interpolate(at_high_edge, rest_v), _interpolate(at_low_edge, rest_v))


KINDS: dict[str, type[Profile]] = {"board": Board, "scanner": Scanner, "battery": Battery}
_OPTIONAL = {"paused_mw", "resume_s"}
"""Quantities that a profile may leave out, as good as "unknown"."""
_TEXTS = {"name", "title", "target", "chemistry"}
_MAY_BE_LEFT_OUT = {"integer_pj", "load_store_pj", "branch_pj", "floating_pj"}


def parse(kind: str, data: dict[str, Any]) -> Profile:
    """A profile from a TOML document. Raises ValueError that says what is wrong."""
    cls = KINDS[kind]
    rest = dict(data)
    sources = rest.pop("sources", {})
    rest.pop("kind", None)
    values: dict[str, Any] = {"aliases": tuple(rest.pop("aliases", ()))}
    cited: set[str] = set()
    for field in fields(cls):
        if field.name in _TEXTS:
            values[field.name] = _text(rest, field.name)
        elif field.name == "soc_v":
            values["soc_v"] = _voltage_table(rest.pop("soc_v", None))
        elif field.name == "soc_source":
            values["soc_source"] = _cite(rest.pop("soc_source", ""), "soc_source", sources, cited)
        elif field.name != "aliases":
            absent = "unknown" if field.name in _OPTIONAL else None
            values[field.name] = _quantity(rest.pop(field.name, absent), field.name, sources, cited)
    unused = [*rest, *(f"sources.{s}" for s in sources if s not in cited)]
    if unused:
        raise ValueError(f"{unused[0]} is not a key of a {kind} or not used by one")
    return cls(**values)


def _text(data: dict[str, Any], key: str) -> str:
    value = data.pop(key, None)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} must be a text")
    return value


def _quantity(value: Any, key: str, sources: dict[str, Any], cited: set[str]) -> Quantity:
    if value == "unknown" or (value is None and key in _MAY_BE_LEFT_OUT):
        return NOT_KNOWN
    if not isinstance(value, dict) or set(value) != {"range", "basis", "source"}:
        raise ValueError(f'{key} must be {{ range = [low, high], basis, source }} or "unknown"')
    if value["basis"] not in BASES:
        raise ValueError(f"{key}: basis {value['basis']!r} is none of {', '.join(BASES)}")
    return Quantity(
        _interval(value["range"], key), value["basis"], _cite(value["source"], key, sources, cited)
    )


def _interval(value: Any, key: str) -> Interval:
    if not isinstance(value, list) or len(value) != 2 or not all(_is_number(v) for v in value):
        raise ValueError(f"{key}: range must be [low, high], two numbers")
    return Interval(float(value[0]), float(value[1]))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cite(name: Any, key: str, sources: dict[str, Any], cited: set[str]) -> str:
    text = sources.get(name) if isinstance(name, str) else None
    if not isinstance(text, str) or not text:
        raise ValueError(f"{key}: its source {name!r} is not in [sources]")
    cited.add(name)
    return text


def _voltage_table(value: Any) -> tuple[tuple[float, Interval], ...]:
    if not isinstance(value, list) or len(value) < 2:
        raise ValueError("soc_v must be rows [percent, low volts, high volts]")
    rows = []
    for row in value:
        if not isinstance(row, list) or len(row) != 3 or not all(_is_number(v) for v in row):
            raise ValueError(f"soc_v: {row} is not [percent, low volts, high volts]")
        rows.append((float(row[0]), _interval(row[1:], "soc_v")))
    falling = all(a[0] > b[0] and a[1].low > b[1].low and a[1].high > b[1].high for a, b in pairwise(rows))
    if not falling or rows[0][0] != 100 or rows[-1][0] != 0:
        raise ValueError("soc_v must fall from 100 percent to 0, and its voltages with it")
    return tuple(rows)


def _interpolate(curve: list[tuple[float, float]], x: float) -> float:
    """y at x along points that fall in x, clamped at the ends."""
    if x >= curve[0][0]:
        return curve[0][1]
    for (x1, y1), (x0, y0) in pairwise(curve):
        if x >= x0:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return curve[-1][1]
