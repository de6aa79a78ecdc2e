"""The answer when no model can run: a rule anyone can check by eye, in plain Python."""

from __future__ import annotations

from edge_runtime.scanners.codes import Expander, in_python
from edge_runtime.verdict import UNKNOWN, Rung, Verdict


class BaselineEngine:
    """Answers "nothing there" where no point stands out of the sweep's median, else UNKNOWN.

    nothing: the label of "nothing there".
    stands_out_cdb: how far above the median a peak must be to count, hundredths of a dB.
    reason: why the model does not answer; carried in every verdict.
    """

    expander: Expander = staticmethod(in_python)

    def __init__(self, nothing: int, stands_out_cdb: int, reason: int) -> None:
        self._nothing = nothing
        self._stands_out_cdb = stands_out_cdb
        self._reason = reason

    def infer(self, power_cdbm: bytes) -> Verdict:
        """The verdict on a sweep of little-endian int16."""
        ordered = sorted(memoryview(power_cdbm).cast("h"))
        quiet = ordered[-1] - ordered[len(ordered) >> 1] < self._stands_out_cdb
        label = self._nothing if quiet else UNKNOWN
        return Verdict(label, label, self._reason, Rung.BASELINE, 0, 0, 0.0)
