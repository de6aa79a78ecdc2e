"""A known load on a known supply, with exact integrals: what an emulated meter sees, and the truth."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate


class VirtualClock:
    """Time that passes only when told to: `us` is its clock, `sleep` lets it pass."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def us(self) -> int:
        """Now, microseconds."""
        return round(self.seconds * 1e6)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += max(seconds, 0.0)


class Load:
    """A current that repeats: `steps` of (seconds, amperes), from a supply of `open_v` behind `source_ohm`.

    Integrals from 0 to t are exact, so an average over any conversion is exact, and so is the energy.
    """

    def __init__(self, steps: Sequence[tuple[float, float]], open_v: float = 5.0, source_ohm: float = 0.0):
        self.period_s = sum(seconds for seconds, _ in steps)
        self._open_v, self._ohm = open_v, source_ohm
        self._amps = [amps for _, amps in steps]
        self._starts = [0.0, *accumulate(seconds for seconds, _ in steps)][:-1]
        self._charge = [0.0, *accumulate(s * a for s, a in steps)]
        self._square = [0.0, *accumulate(s * a * a for s, a in steps)]

    def amps(self, t: float) -> float:
        """The current at t, amperes."""
        return self._amps[bisect_right(self._starts, t % self.period_s) - 1]

    def volts(self, t: float) -> float:
        """The rail's voltage at t: the supply's less what the current takes."""
        return self._open_v - self._ohm * self.amps(t)

    def charge_c(self, t: float) -> float:
        """Coulombs from 0 to t."""
        return self._integral(self._charge, 1, t)

    def energy_j(self, t: float) -> float:
        """Joules at the rail from 0 to t: the supply's, less what its resistance takes."""
        return self._open_v * self.charge_c(t) - self._ohm * self._integral(self._square, 2, t)

    def mean_amps(self, a: float, b: float) -> float:
        """The average current from a to b."""
        return (self.charge_c(b) - self.charge_c(a)) / (b - a)

    def mean_volts(self, a: float, b: float) -> float:
        """The average voltage from a to b."""
        return self._open_v - self._ohm * self.mean_amps(a, b)

    def _integral(self, table: list[float], power: int, t: float) -> float:
        periods, rest = divmod(t, self.period_s)
        at = bisect_right(self._starts, rest) - 1
        partial: float = table[at] + (rest - self._starts[at]) * self._amps[at] ** power
        return periods * table[-1] + partial


def pulses(
    period_s: float, width_s: float = 0.003, high_a: float = 0.6, low_a: float = 0.12, source_ohm: float = 0.0
) -> Load:
    """A scanner's host: short bursts of work over an idle current."""
    return Load([(width_s, high_a), (period_s - width_s, low_a)], source_ohm=source_ohm)


class SwitchedLoad(Load):
    """A current that is switched while time runs: what an emulated board draws, idle or at work."""

    def __init__(self, now: float, amps: float, open_v: float = 5.0) -> None:
        super().__init__([(1.0, 0.0)], open_v)
        self._times, self._levels, self._sums = [now], [amps], [0.0]

    def switch(self, now: float, amps: float) -> None:
        """Draw `amps` from now on."""
        self._sums.append(self._sums[-1] + (now - self._times[-1]) * self._levels[-1])
        self._times.append(now)
        self._levels.append(amps)

    def amps(self, t: float) -> float:
        """The current at t."""
        return self._levels[max(bisect_right(self._times, t) - 1, 0)]

    def charge_c(self, t: float) -> float:
        """Coulombs from the first moment to t."""
        at = max(bisect_right(self._times, t) - 1, 0)
        return self._sums[at] + (t - self._times[at]) * self._levels[at]

    def energy_j(self, t: float) -> float:
        """Joules at a rail that does not sag."""
        return self._open_v * self.charge_c(t)
