"""The loop: a scan in, a verdict journaled, then reported.

    source -> contract -> engine -> meter -> journal -> report

Everything that can go wrong on the way is an event with a reason: counted, journaled, and the loop goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from zlib import crc32

from edge_runtime.bundle import Bundle
from edge_runtime.engines import Engine
from edge_runtime.journal import VERDICT, JournalWriter, Kind, VerdictRecord
from edge_runtime.power.base import ScanMeter
from edge_runtime.reasons import Reason
from edge_runtime.scan import Axis, Happening, Scan
from edge_runtime.statistics import Statistics
from edge_runtime.verdict import UNKNOWN, Rung, Verdict

Report = Callable[[VerdictRecord, int], None]
"""Called after a verdict is journaled, with its record and the clock's microseconds at that moment."""

# Plain integers: comparing with a member of an enum costs five times as much, and it is done on every scan.
_NONE, _LAST_GOOD = int(Rung.NONE), int(Rung.LAST_GOOD)
_OK, _NOVEL, _AMBIGUOUS = int(Reason.OK), int(Reason.NOVEL), int(Reason.AMBIGUOUS)
_VERDICT = int(Kind.VERDICT)

MAX_KEPT_SCANS = 1000
"""How many UNKNOWN sweeps one run keeps for labelling: half a megabyte of journal."""


class Loop:
    """Answers scans until its source ends.

    clock_us: the host's monotonic clock, the same that stamps the scans.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        meter: ScanMeter,
        journal: JournalWriter,
        clock_us: Callable[[], int],
        report: Report,
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
        self._clock_us = clock_us
        self._report = report
        self._last_good: tuple[int, Verdict] | None = None
        self._kept = 0

    def run(self, source: Iterable[Scan | Happening], scans: int | None = None) -> None:
        """Take what `source` gives until it ends, or until `scans` scans were answered."""
        for event in source:
            if isinstance(event, Scan):
                self._answer(event)
                if self.statistics.scans == scans:
                    return
            else:
                self._note(event)

    def _answer(self, scan: Scan) -> None:
        statistics = self.statistics
        verdict = self._verdict(scan)
        charge = self._charge(verdict.rung)
        record = VerdictRecord(
            statistics.scans,
            scan.captured_us,
            self._clock_us() - scan.captured_us,
            crc32(scan.power_cdbm),
            verdict.label,
            verdict.best,
            verdict.reason,
            verdict.rung,
            charge.source,
            verdict.confidence_q16,
            verdict.novelty_q8,
            charge.rail_mv,
            charge.energy_nj,
            charge.energy_sigma_nj,
            verdict.margin,
        )
        self._journal.append(_VERDICT, VERDICT.pack(*record))
        now_us = self._clock_us()
        self._count(record, now_us - scan.captured_us)
        if verdict.reason == _NOVEL or verdict.reason == _AMBIGUOUS:
            self._keep(record.sequence, scan)
        self._report(record, now_us)

    def _verdict(self, scan: Scan) -> Verdict:
        axis = scan.axis
        if axis is not self._known_axis and not self._matches(axis):
            code = Reason.POINTS if axis.points != self._axis.points else Reason.AXIS
            return self._fall_back(scan, code)
        if self._clock_us() - scan.captured_us > self._max_age_us:
            return self._fall_back(scan, Reason.STALE)
        verdict = self._infer(scan.power_cdbm)
        if verdict.rung == _NONE:
            return self._fall_back(scan, verdict.reason)
        if verdict.reason == _OK:
            self._last_good = (scan.captured_us, verdict)
        return verdict

    def _fall_back(self, scan: Scan, reason: int) -> Verdict:
        """The last good answer while it is no older than the contract allows a scan to be, else none."""
        if self._last_good is not None:
            captured_us, verdict = self._last_good
            if scan.captured_us - captured_us <= self._max_age_us:
                return verdict._replace(reason=reason, rung=Rung.LAST_GOOD)
        return Verdict(UNKNOWN, UNKNOWN, reason, Rung.NONE, 0, 0, 0.0)

    def _count(self, record: VerdictRecord, latency_us: int) -> None:
        statistics = self.statistics
        statistics.scans += 1
        statistics.rungs[record.rung] += 1
        statistics.latency_us.add(latency_us)
        if record.rung == _NONE or record.rung == _LAST_GOOD:
            statistics.refused[record.reason] += 1
            return
        statistics.labels[record.label] += 1
        if record.label == UNKNOWN:
            statistics.unknown[record.reason] += 1

    def _keep(self, sequence: int, scan: Scan) -> None:
        if self._kept < MAX_KEPT_SCANS:
            self._kept += 1
            self._journal.append(Kind.SCAN, sequence.to_bytes(4, "little") + scan.power_cdbm)

    def _matches(self, axis: Axis) -> bool:
        """Whether every frequency of an axis is within the contract's tolerance."""
        want, slack_hz = self._axis, self._axis_tolerance_hz
        first_hz = axis.start_hz - want.start_hz
        last_hz = first_hz + (axis.step_hz - want.step_hz) * (want.points - 1)
        if axis.points != want.points or max(abs(first_hz), abs(last_hz)) > slack_hz:
            return False
        self._known_axis = axis
        return True

    def _note(self, happening: Happening) -> None:
        """Count and journal whatever is no scan."""
        reason = Reason(happening.reason)
        self.statistics.happened[reason] += 1
        self._journal.append_json(
            Kind.EVENT, {"reason": reason.name, "at_us": self._clock_us(), "detail": happening.detail}
        )
