"""What earlier missions left in a journal, and the spending plan that is learnt from them.

At each slot's end a mission writes what it heard (HEARD: its scans by score bin, some 140 bytes). When the next
mission begins, each earlier one whose time is over and that heard enough becomes one PAST record (its slots as
shares, 2 KB), and a PLAN record says which of them are the new mission's plan. A restart reads that PLAN and takes
the very same ones, whatever was added meanwhile; where one of them cannot be read any more, the mission goes on
without a plan.

A past mission serves another of the same length with the same bundle: other bundles screen otherwise, and what an
hour of a day is like says nothing of an hour of a week. What it was allowed to spend does not matter.
"""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import add
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from zlib import crc32

from edge_runtime.governor.forecast import SLOTS, Histogram, Past
from edge_runtime.governor.ladder import Calibration
from edge_runtime.governor.ledger import Entry, resumed_us
from edge_runtime.journal import Kind
from edge_runtime.journal_tail import tail

VERSION = 1
MOST = 64
"""So many past missions are a plan at most, the latest ones: what scripts/bench_governor flies with."""
ENOUGH_SLOTS = 24
"""A mission that heard fewer of its 32 slots is no example of a whole one; a slot unheard is as its neighbour."""
_HEARD_SHARE = 8
"""A slot counts as heard from an eighth of the mission's usual scans on."""
_FULL = 0xFFFF
_FRESH_BYTES, _FRESH_SEGMENTS = 1 << 20, 64
"""Where a start had to read more than this, it repeats what it found, for the next one."""
KINDS = (Kind.BUDGET, Kind.LEARNT, Kind.HEARD, Kind.PAST, Kind.PLAN)

_HEARD = struct.Struct("<BBHI")
"""version, slot, score bins, the mission's serial number; then u32 scans by bin."""
_PAST = struct.Struct("<BxHIQ")
"""version, score bins, the ladder's key, the mission's length in microseconds; then u16 by slot and bin."""


def ladder_key(bundle_sha256: str, calibration: Calibration) -> int:
    """Names the scores' meaning: the bundle whose screen gives them, and the bins that they are counted in."""
    return crc32(calibration.score_bin, crc32(bundle_sha256.encode()))


class Ask(NamedTuple):
    """The mission to plan for. mission: as its Budget names it; key: as `ladder_key` gives it; bins: score bins."""

    mission: int
    duration_us: int
    key: int
    bins: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A mission's spending plan. serial: of the mission in its journal, 0 where it has none yet; note: for people."""

    payloads: Sequence[bytes]
    note: str
    serial: int = 0

    @property
    def crcs(self) -> list[int]:
        """What names the past missions in a PLAN record."""
        return [crc32(payload) for payload in self.payloads]

    @property
    def mark(self) -> int:
        """Names mission and plan together: what one mission believed is nothing to another."""
        return crc32(repr((self.serial, self.crcs)).encode())

    @property
    def pasts(self) -> list[Past]:
        """The past missions for the forecast."""
        return [Past(slots_of(payload)) for payload in self.payloads]


def pack_heard(serial: int, slot: int, counts: Histogram) -> bytes:
    """A HEARD payload: a slot's scans by score bin, as far as one process heard them."""
    clipped = (min(n, 0xFFFF_FFFF) for n in counts)
    return _HEARD.pack(VERSION, slot, len(counts), serial) + struct.pack(f"<{len(counts)}I", *clipped)


def _unpack_heard(payload: bytes) -> tuple[int, int, Histogram] | None:
    """Serial number, slot and counts; None where another version wrote it."""
    if len(payload) < _HEARD.size or payload[0] != VERSION:
        return None
    _, slot, bins, serial = _HEARD.unpack_from(payload)
    if slot >= SLOTS or not bins or len(payload) != _HEARD.size + 4 * bins:
        return None
    return serial, slot, list(struct.unpack_from(f"<{bins}I", payload, _HEARD.size))


def pack_past(ask: Ask, slots: dict[int, Histogram]) -> bytes | None:
    """A mission's PAST payload from what its slots heard; None where that is too little.

    Every slot weighs the same: a scanner sweeps evenly, so one that heard fewer scans was cut short, not quiet.
    """
    totals = {slot: sum(counts) for slot, counts in slots.items() if len(counts) == ask.bins}
    usual = median(totals.values()) if totals else 0
    heard = sorted(slot for slot, total in totals.items() if total and total * _HEARD_SHARE >= usual)
    if len(heard) < ENOUGH_SLOTS:
        return None
    shares: list[int] = []
    for slot in range(SLOTS):
        nearest = min(heard, key=lambda h: abs(h - slot))
        shares += (n * _FULL // totals[nearest] for n in slots[nearest])
    head = _PAST.pack(VERSION, ask.bins, ask.key, ask.duration_us)
    return head + struct.pack(f"<{len(shares)}H", *shares)


def serves(payload: bytes, ask: Ask) -> bool:
    """Whether a PAST payload is of a mission of the same length, bundle and bins."""
    head = _PAST.pack(VERSION, ask.bins, ask.key, ask.duration_us)
    return payload.startswith(head) and len(payload) == len(head) + 2 * SLOTS * ask.bins


def slots_of(payload: bytes) -> list[Histogram]:
    """The scans by bin of each slot, as shares."""
    bins = (len(payload) - _PAST.size) // (2 * SLOTS)
    rows = struct.iter_unpack(f"<{bins}H", payload[_PAST.size :])
    return [list(row) for row in rows]


@dataclass
class History:
    """A journal's memory of missions: what was read at the start, and what this run adds.

    accounts: the last BUDGET payload by mission. learnt: the last LEARNT payload. pasts: PAST payloads, oldest first.
    plans: the last PLAN by mission, the oldest first. heard: by serial number what the slots of a mission heard.
    stale: so much lay before it that the next start should not have to read it again.
    """

    accounts: dict[int, bytes] = field(default_factory=dict)
    learnt: bytes | None = None
    pasts: dict[bytes, None] = field(default_factory=dict)
    plans: dict[int, dict[str, Any]] = field(default_factory=dict)
    heard: defaultdict[int, dict[int, Histogram]] = field(default_factory=lambda: defaultdict(dict))
    stale: bool = False

    @classmethod
    def read(cls, directory: Path) -> History:
        """What a journal remembers; nothing where there is none yet."""
        read = tail(directory, KINDS)
        history = cls(stale=read.bytes_read > _FRESH_BYTES or read.segments_read > _FRESH_SEGMENTS)
        for frame in read.frames:
            history.note(frame.kind, frame.payload)
        return history

    def note(self, kind: int, payload: bytes) -> None:
        """One record, in the journal's order."""
        if kind == Kind.BUDGET:
            self.accounts[Entry.unpack(payload).mission] = payload
        elif kind == Kind.LEARNT:
            self.learnt = payload
        elif kind == Kind.PAST:
            self.pasts[payload] = None
        elif kind == Kind.PLAN:
            row = json.loads(payload)
            self.plans.pop(row["mission"], None)
            self.plans[row["mission"]] = row
        elif (heard := _unpack_heard(payload)) is not None:
            serial, slot, counts = heard
            slots = self.heard[serial]
            before = slots.get(slot, [])
            slots[slot] = list(map(add, before, counts)) if len(before) == len(counts) else counts

    def begin(self, ask: Ask, plan: Plan) -> tuple[int, bytes]:
        """The PLAN record of a mission that begins or goes on with this plan; noted, as are its past missions."""
        self.pasts |= dict.fromkeys(plan.payloads)
        row = ask._asdict() | {"serial": plan.serial, "note": plan.note, "pasts": plan.crcs}
        payload = json.dumps(row).encode()
        self.note(Kind.PLAN, payload)
        return Kind.PLAN, payload

    def records(self) -> list[tuple[int, bytes]]:
        """All of it as records, for a segment that is to be read alone."""
        rows: list[tuple[int, bytes]] = [(Kind.BUDGET, payload) for payload in self.accounts.values()]
        if self.learnt is not None:
            rows.append((Kind.LEARNT, self.learnt))
        rows += [(Kind.PAST, payload) for payload in self.pasts]
        rows += [(Kind.PLAN, json.dumps(row).encode()) for row in self.plans.values()]
        rows += [
            (Kind.HEARD, pack_heard(serial, slot, counts))
            for serial, slots in self.heard.items()
            for slot, counts in slots.items()
        ]
        return rows

    def resumed(self, mission: int) -> Plan | None:
        """The plan that a mission under way began with; None where the journal says nothing of it."""
        row = self.plans.get(mission)
        if row is None:
            return None
        known = {crc32(payload): payload for payload in self.pasts}
        payloads = [known[crc] for crc in row["pasts"] if crc in known]
        if len(payloads) < len(row["pasts"]):
            return Plan(
                [], "none: the journal has lost a part of the one that the mission began with", row["serial"]
            )
        return Plan(payloads, row["note"], row["serial"])

    def close_missions(self, unix_us: int, speed: float = 1) -> None:
        """Earlier missions whose time is over become past ones; those that heard too little are forgotten."""
        for mission, row in list(self.plans.items()):
            account = self.accounts.get(mission)
            entry = Entry.unpack(account) if account else None
            if entry and resumed_us(entry, unix_us, speed) < row["duration_us"]:
                continue
            payload = pack_past(_ask_of(row), self.heard.pop(row["serial"], {}))
            del self.plans[mission]
            if payload is not None:
                self.pasts[payload] = None
        serials = {row["serial"] for row in self.plans.values()}
        for serial in [s for s in self.heard if s not in serials]:
            del self.heard[serial]
        in_use = {crc for row in self.plans.values() for crc in row["pasts"]}
        for payload in list(self.pasts)[:-MOST]:
            if crc32(payload) not in in_use:
                del self.pasts[payload]

    def examples(self) -> list[bytes]:
        """Past missions, oldest first, those among them whose time may not be over but that heard enough."""
        closed = ((pack_past(_ask_of(row), self.heard.get(row["serial"], {}))) for row in self.plans.values())
        return [*self.pasts, *(payload for payload in closed if payload is not None)]


def _ask_of(row: dict[str, Any]) -> Ask:
    return Ask(row["mission"], row["duration_us"], row["key"], row["bins"])


def learnt_from(payloads: Iterable[bytes], ask: Ask) -> Plan:
    """The plan for a mission from past ones, oldest first: those that serve it, at most MOST, the latest."""
    known = list(dict.fromkeys(payloads))
    serving = [payload for payload in known if serves(payload, ask)][-MOST:]
    if serving:
        return Plan(serving, f"learnt from {_missions(len(serving))}")
    if known:
        return Plan([], f"none: the {_missions(len(known))} known had another bundle or another length")
    return Plan([], f"none: no earlier mission is known that heard {ENOUGH_SLOTS} of its {SLOTS} slots")


def _missions(n: int) -> str:
    return f"{n} earlier mission" + "s" * (n != 1)
