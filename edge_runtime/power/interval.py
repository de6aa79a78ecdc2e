"""Ranges instead of numbers: what is known of a quantity, carried through every sum and product.

All quantities here (energies, powers, voltages, counts) are zero or more, so the ends of a result are the
results of the ends. An unknown is the interval from nothing to infinity, and stays visible as one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """From `low` to `high`, both of the same unit, 0 <= low <= high; `high` may be infinite."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high or math.isinf(self.low):
            raise ValueError(f"[{self.low}, {self.high}] is no range of a quantity that is zero or more")

    def __add__(self, other: Interval) -> Interval:
        return Interval(self.low + other.low, self.high + other.high)

    def __mul__(self, other: Interval) -> Interval:
        return Interval(self.low * other.low, _times(self.high, other.high))

    def __truediv__(self, other: Interval) -> Interval:
        """Of two independent quantities; a divisor that may be zero gives an infinite end."""
        low = self.low / other.high if other.high else 0.0
        return Interval(low, self.high / other.low if other.low else math.inf)

    def scaled(self, factor: float) -> Interval:
        """Each end times `factor`, which is zero or more."""
        return Interval(self.low * factor, _times(self.high, factor))

    def share_of(self, rest: Interval) -> Interval:
        """self / (self + rest), tight: `self` appears twice, so plain division would widen it."""
        return Interval(_share(self.low, rest.high), _share(self.high, rest.low))

    @property
    def known(self) -> bool:
        """Whether both ends are finite."""
        return math.isfinite(self.high)

    @property
    def middle(self) -> float:
        """The midpoint: infinite where the interval is not known."""
        return (self.low + self.high) / 2

    @property
    def half_width(self) -> float:
        """What `middle` is uncertain by, either way."""
        return (self.high - self.low) / 2 if self.known else math.inf

    def to_json(self) -> list[float | None]:
        """`[low, high]`, with None for an infinite end (JSON has no infinity)."""
        return [self.low, self.high if self.known else None]

    def __str__(self) -> str:
        if not self.known:
            return "unknown" if self.low == 0 else f"{self.low:.3g} or more"
        return f"{self.low:.3g}" if self.low == self.high else f"{self.low:.3g} to {self.high:.3g}"


UNKNOWN = Interval(0.0, math.inf)


def exactly(value: float) -> Interval:
    """A quantity known exactly, such as a count."""
    return Interval(value, value)


def _times(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else a * b


def _share(part: float, rest: float) -> float:
    if math.isinf(part):
        return 1.0
    return part / (part + rest) if part else 0.0
