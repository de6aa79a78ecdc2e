"""The loop: a scan in, a verdict journaled, then reported.

    source -> contract -> engine -> meter -> journal -> report

Everything that can go wrong on the way is an event with a reason: counted, journaled, and the loop goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from zlib import crc32

from edge_runtime.bundle import Bundle
from edge_runtime.engines import Engine
from edge_runtime.journal import VERDICT_HEAD, JournalWriter, Kind, frame_head, pack_verdict
from edge_runtime.power.base import ScanMeter
from edge_runtime.reasons import Reason
from edge_runtime.scan import Axis, Happening, Scan
from edge_runtime.statistics import Statistics
from edge_runtime.verdict import UNKNOWN, Answer, Rung

Report = Callable[[bytes, int], None]
"""Called after a verdict is journaled, with its frame and the clock's microseconds at that moment."""

# Plain integers: comparing with a member of an enum costs five times as much, and it is done on every scan.
_NONE, _LAST_GOOD = int(Rung.NONE), int(Rung.LAST_GOOD)
_OK, _POINTS, _AXIS, _STALE = map(int, (Reason.OK, Reason.POINTS, Reason.AXIS, Reason.STALE))
_SCAN = int(Kind.SCAN)
_WORTH_KEEPING = (int(Reason.NOVEL), int(Reason.AMBIGUOUS))

MAX_KEPT_SCANS = 1000
"""How many UNKNOWN sweeps one run keeps for labelling: half a megabyte of journal."""
MAX_LATENCY_US = 0xFFFF_FFFF
"""What a record can hold: 71 minutes, as of a process that was stopped and goes on."""


def _none(reason: int) -> Answer:
    return UNKNOWN, UNKNOWN, reason, _NONE, 0, 0, 0.0


class Loop:
    """Answers scans until its source ends.

    clock_us: the host's monotonic clock, the same that stamps the scans. report: None where nobody listens.

    `_answer` runs once a scan, and every name that it looks up costs energy: it takes tuples apart at once and
    packs the record straight from their fields.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        meter: ScanMeter,
        journal: JournalWriter,
        clock_us: Callable[[], int],
        report: Report | None,
    ) -> None:
        self.statistics = Statistics(bundle.classes)
        contract = bundle.manifest["contract"]
        self._axis = bundle.axis
        self._axis_tolerance_hz = contract["axis_tolerance_hz"]
        self._max_age_us = contract["max_age_ms"] * 1000
        self._known_axis = self._axis  # the last one that was found to match
        self._infer = engine.infer
        self._charge = meter.charge
        self._journal = journal
        self._put = journal.put
        self._clock_us = clock_us
        self._report = report
        self._last_good: Answer | None = None
        self._last_good_us = 0
        self._now_us = clock_us()  # as the clock was read last: cheaper than to read it again
        self._kept = 0

    def run(self, source: Iterable[Scan | Happening], scans: int | None = None) -> None:
        """Take what `source` gives until it ends, or until `scans` scans were answered."""
        for event in source:
            if type(event) is Scan:  # half of what isinstance costs, on every scan
                self._answer(event)
                if self.statistics.scans == scans:
                    return
            else:
                self._note(event)

    def _answer(self, scan: Scan) -> None:
        power_cdbm, axis, captured_us, _ = scan
        statistics, clock_us = self.statistics, self._clock_us
        sequence = statistics.scans
        if axis is self._known_axis and self._now_us - captured_us <= self._max_age_us:
            answer = self._infer(power_cdbm)
        else:
            answer = self._verdict(power_cdbm, axis, captured_us)
        now_us = clock_us()
        latency_us = now_us - captured_us
        label, best, reason, rung, confidence_q16, novelty_q8, margin = answer
        energy_nj, energy_sigma_nj, energy_source, rail_mv = self._charge(rung)
        if latency_us > self._max_age_us:  # an answer too late is none
            reason, rung, latency_us = _STALE, _NONE, min(latency_us, MAX_LATENCY_US)
        if reason == _OK:
            self._last_good, self._last_good_us = answer, captured_us
        elif rung == _NONE:
            answer = self._fall_back(captured_us, reason)
            label, best, reason, rung, confidence_q16, novelty_q8, margin = answer
        frame = pack_verdict(
            VERDICT_HEAD,
            sequence,
            captured_us,
            latency_us,
            crc32(power_cdbm),
            label,
            best,
            reason,
            rung,
            energy_source,
            confidence_q16,
            novelty_q8,
            rail_mv,
            energy_nj,
            energy_sigma_nj,
            margin,
        )
        self._put(frame, now_us)
        self._now_us = now_us = clock_us()
        statistics.count(label, reason, rung, now_us - captured_us)
        if reason != _OK and reason in _WORTH_KEEPING:
            self._keep(sequence, power_cdbm, now_us)
        if self._report is not None:
            self._report(frame, now_us)

    def _verdict(self, power_cdbm: bytes, axis: Axis, captured_us: int) -> Answer:
        """The engine's answer where the scan keeps the contract, else none, with the reason."""
        if axis is not self._known_axis and not self._matches(axis):
            return _none(_AXIS if axis.points == self._axis.points else _POINTS)
        if self._now_us - captured_us > self._max_age_us:
            return _none(_STALE)
        return self._infer(power_cdbm)

    def _fall_back(self, captured_us: int, reason: int) -> Answer:
        """The last good answer while it is no older than the contract allows a scan to be, else none."""
        if self._last_good is not None and captured_us - self._last_good_us <= self._max_age_us:
            label, best, _, _, confidence_q16, novelty_q8, margin = self._last_good
            return label, best, reason, _LAST_GOOD, confidence_q16, novelty_q8, margin
        return _none(reason)

    def _keep(self, sequence: int, power_cdbm: bytes, now_us: int) -> None:
        if self._kept < MAX_KEPT_SCANS:
            self._kept += 1
            payload = sequence.to_bytes(4, "little") + power_cdbm
            self._put(frame_head(_SCAN, len(payload)) + payload, now_us)

    def _matches(self, axis: Axis) -> bool:
        """Whether every frequency of an axis is within the contract's tolerance."""
        if not axis.is_near(self._axis, self._axis_tolerance_hz):
            return False
        self._known_axis = axis
        return True

    def _note(self, happening: Happening) -> None:
        """Count and journal whatever is no scan."""
        reason = Reason(happening.reason)
        self.statistics.happened[reason] += 1
        row = {"reason": reason.name, "at_us": self._clock_us(), "detail": happening.detail}
        self._journal.append_json(Kind.EVENT, row | dict(happening.facts or ()))
