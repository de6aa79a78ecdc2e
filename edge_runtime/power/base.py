"""The one interface of every meter: cumulative joules, with all that is needed to judge them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import IntEnum
from typing import NamedTuple, Protocol

from edge_runtime.errors import HardwareUnavailable


class Source(IntEnum):
    """Where a figure of energy comes from. Codes are written into journals: never renumber."""

    NONE = 0
    MEASURED = 1  # by a meter, over the work itself
    FITTED = 2  # a model whose coefficients were measured on this kind of board
    MODELLED = 3  # a model from published figures


class Reading(NamedTuple):
    """What a meter has seen since it was opened.

    energy_j: cumulative; never falls.
    uncertainty_j: half the width of the interval that holds the truth (95 % for measured values, the whole
        range for modelled ones).
    rail_v: voltage of the rail at the reading; NaN where the meter does not see it.
    at_us: the host's monotonic clock.
    """

    energy_j: float
    uncertainty_j: float
    rail_v: float
    at_us: int


class Charge(NamedTuple):
    """The energy of one scan as a journal record holds it: integers, made once a rung."""

    energy_nj: int
    energy_sigma_nj: int
    source: int
    rail_mv: int


class ScanMeter(Protocol):
    """What the loop needs of a meter: the modelled one has it, and so has the field's."""

    def charge(self, rung: int) -> Charge:
        """Count one scan answered at `rung`; its energy."""
        ...


class Meter(ABC):
    """A source of cumulative energy. Open it, read it, close it; or use it in a `with`.

    name: one of the names that `edge-runtime meters` lists.
    source: what its figures are.
    domain: what it sees and what it does not, for people.
    unavailable: None, or why it cannot be read here ("unavailable, because ...").
    """

    name: str
    source: Source
    domain: str
    unavailable: str | None = None

    @abstractmethod
    def read(self) -> Reading:
        """The energy so far. Raises HardwareUnavailable where the meter is not (or no longer) there."""

    def close(self) -> None:
        """Give the hardware back. Reading afterwards is an error."""
        return

    def require(self) -> None:
        """Raise HardwareUnavailable where `unavailable` says why."""
        if self.unavailable is not None:
            raise HardwareUnavailable(f"meter {self.name}: unavailable, because {self.unavailable}")

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
