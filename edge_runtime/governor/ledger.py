"""The hard limit: an account in nanojoules that no restart, kill or power cut can overdraw.

Energy is leased before it is spent. A lease is a record in the journal that raises the ceiling of what may have
been spent; only then is the energy used. After a kill the last ceiling counts as spent in full, so whatever was
lost with the process was paid for. A rung is paid for at its declared cost before it starts, hence:

    spent <= budget                   always and through any kills, where no rung costs more than declared
    spent <= budget + one inference   where one does: the excess is charged, and nothing starts beyond the budget

Ceilings also rise no faster than a token bucket: a burst share of the budget at once, the rest evenly over the
mission, so that no flood of signals (or of noise) spends a mission's budget in its first hour.
All integers: nothing rounds and nothing drifts.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import NamedTuple

from edge_runtime.errors import BadInput

RECORD = struct.Struct("<BxHIQQQQ")
"""version, burst in 1/256, mission, budget_nj, ceiling_nj, elapsed_us, unix_us: the journal's BUDGET payload."""

VERSION = 1
LEASES = 1024
"""A lease is this share of the budget: what a kill can waste, and how often the journal hears of spending."""
BURST_256 = 64
"""What a mission in the field may spend at once, in 1/256 of its budget: the price that paces it needs some hundred
scans to find its way, and a mission may have no more than that."""
MAX_LEASE_NJ = 1 << 29
"""About half a joule: what is left of a lease stays a one-digit Python integer."""


class Entry(NamedTuple):
    """A BUDGET record: energy up to `ceiling_nj` counts as spent, `elapsed_us` of the mission are over."""

    burst_256: int
    mission: int
    budget_nj: int
    ceiling_nj: int
    elapsed_us: int
    unix_us: int

    def pack(self) -> bytes:
        """The journal's payload."""
        return RECORD.pack(VERSION, *self)

    @classmethod
    def unpack(cls, payload: bytes) -> Entry:
        """Raises BadInput where the payload is no account of a version that this runtime knows."""
        if len(payload) != RECORD.size or payload[0] != VERSION:
            raise BadInput(
                "journal: a budget record of an unknown version; continue with the runtime that wrote it"
            )
        return cls._make(RECORD.unpack(payload)[1:])


def last_entry(payloads: Iterable[bytes], mission: int) -> Entry | None:
    """The account of a mission as the journal left it: the last of its records, in the journal's order."""
    last = None
    for payload in payloads:
        entry = Entry.unpack(payload)
        if entry.mission == mission:
            last = entry
    return last


class Ledger:
    """The account of one mission.

    left_nj: what of the lease is not spent; the governor's hot path counts it down.

    budget_nj: all that the mission may spend. duration_us: its length, for the token bucket.
    record: appends a BUDGET payload to the journal and forces it to the disk; it returns before any of the
        energy that the record names is used.
    clock_us: the mission's own clock, 0 at its start, going on through restarts (see `resumed_us`).
    worst_nj: the dearest single inference; a lease never is smaller.
    burst_256: share of the budget that may be spent at once, in 1/256.
    """

    __slots__ = (
        "_burst_256", "_clock_us", "_duration_us", "_lease_nj", "_mission", "_record", "_unix_us",
        "budget_nj", "ceiling_nj", "left_nj",
    )  # fmt: skip

    def __init__(
        self,
        budget_nj: int,
        duration_us: int,
        record: Callable[[bytes], None],
        clock_us: Callable[[], int],
        *,
        worst_nj: int,
        burst_256: int = 256,
        mission: int = 0,
        unix_us: Callable[[], int] = lambda: 0,
        restored: Entry | None = None,
    ) -> None:
        if budget_nj < 0 or duration_us <= 0 or not 0 <= burst_256 <= 256 or worst_nj <= 0:
            raise BadInput(
                f"budget: {budget_nj} nJ for {duration_us} us cannot be kept; give positive numbers"
            )
        if restored is not None and restored.budget_nj != budget_nj:
            raise BadInput(
                f"budget: this journal's mission has {restored.budget_nj / 1e9:.3f} J, not {budget_nj / 1e9:.3f} J; "
                "give the same --budget, or another --journal for another mission"
            )
        self.budget_nj = budget_nj
        self._duration_us = duration_us
        self._record = record
        self._clock_us = clock_us
        self._unix_us = unix_us
        self._burst_256 = burst_256
        self._mission = mission
        self._lease_nj = max(worst_nj, min(budget_nj // LEASES, MAX_LEASE_NJ))
        self.ceiling_nj = restored.ceiling_nj if restored else 0
        self.left_nj = 0

    @property
    def spent_nj(self) -> int:
        """What was spent, with what kills may have spent unseen."""
        return self.ceiling_nj - self.left_nj

    @property
    def unspent_nj(self) -> int:
        """What the mission may still spend; below zero by a part of one inference at most."""
        return self.budget_nj - self.ceiling_nj + self.left_nj

    def pay(self, nj: int) -> bool:
        """Charge `nj`, or answer False where the account does not cover it."""
        if self.left_nj < nj and not self._lease(nj):
            return False
        self.left_nj -= nj
        return True

    def correct(self, nj: int) -> None:
        """Charge what an inference used beyond what was paid for it; below zero where it used less.

        What goes beyond the lease too is charged all the same, and put on record at once.
        """
        self.left_nj -= nj
        if self.left_nj < 0:
            self.ceiling_nj -= self.left_nj
            self.left_nj = 0
            self._write()

    def close(self) -> None:
        """Give back what of the lease was not spent. Call it when the loop ends in order."""
        if self.left_nj:
            self.ceiling_nj -= self.left_nj
            self.left_nj = 0
            self._write()

    def _lease(self, nj: int) -> bool:
        need = nj - self.left_nj
        granted = min(max(need, self._lease_nj), self._allowed_nj() - self.ceiling_nj)
        if granted < need:
            return False
        self.ceiling_nj += granted
        self._write()
        self.left_nj += granted
        return True

    def _allowed_nj(self) -> int:
        """What may have been spent by now under the token bucket."""
        elapsed_us = min(max(self._clock_us(), 0), self._duration_us)
        at_once = self.budget_nj * self._burst_256 >> 8
        return at_once + (self.budget_nj - at_once) * elapsed_us // self._duration_us

    def _write(self) -> None:
        entry = Entry(
            self._burst_256,
            self._mission,
            self.budget_nj,
            self.ceiling_nj,
            max(0, self._clock_us()),
            self._unix_us(),
        )
        self._record(entry.pack())


def resumed_us(entry: Entry | None, unix_us: int, speed: float = 1) -> int:
    """How much of the mission is over when the runtime starts again: what the record says and the time since.

    speed: of the mission's clock while nothing runs. A wall clock that stands before the record's (a board without
    a battery-backed one) is not believed.
    """
    if entry is None:
        return 0
    return entry.elapsed_us + round(speed * max(0, unix_us - entry.unix_us))
