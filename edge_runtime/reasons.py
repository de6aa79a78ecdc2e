"""The one table of reason codes: Python's names, the C enum of `edge_model.h`, and the texts for people.

A reason says why a scan has no plain answer. Codes are stable: they are written into journals and returned by
artifacts in the field. Add at the end of a block; never renumber.
"""

from __future__ import annotations

from enum import IntEnum


class Reason(IntEnum):
    """Why a scan was refused, answered UNKNOWN, or answered by a lower rung. `text` is for people."""

    text: str

    def __new__(cls, code: int, text: str = "") -> Reason:
        member = int.__new__(cls, code)
        member._value_ = code
        member.text = text
        return member

    OK = 0, "answered"
    # The scan broke the bundle's contract (returned by edge_infer; no verdict).
    POINTS = 1, "the scan has another number of points than the bundle's contract"
    RANGE = 2, "a power lies outside the range that the bundle's contract allows"
    STUCK = 3, "all points are equal: the scanner's front end is stuck"
    AXIS = 4, "the scan covers other frequencies than the bundle's contract"
    STALE = 5, "the scan is older than the bundle's limit"
    # The answer is UNKNOWN.
    NOVEL = 16, "unlike anything the model was trained on"
    AMBIGUOUS = 17, "two classes are too close to call"
    # A lower rung answered.
    NO_ARTIFACT = 32, "the bundle has no artifact that runs on this machine"
    ENGINE_FAILED = 33, "the model's code failed"
    OVER_BUDGET = 34, "the energy budget did not allow the model"
    LOW_BATTERY = 35, "the battery is too low for the model"
    # What came over the wire was no frame (counted by the decoder).
    GARBAGE = 48, "bytes that belong to no frame"
    TRUNCATED = 49, "a frame that was cut short"
    BAD_LENGTH = 50, "a frame whose length contradicts the configuration"
    ABORTED = 51, "a sweep that the scanner itself gave up"
    NO_CONFIG = 52, "a sweep before any configuration"
    CHECKSUM = 53, "a frame whose checksum contradicts its bytes"
    SKIPPED = 54, "frames that the scanner numbered and that never arrived"
    REPEATED = 56, "a frame that had arrived before"
    OVERRUN = 55, "a scan dropped unread because newer ones were waiting"
    # The port.
    SILENT = 64, "nothing arrived for longer than the scanner's longest sweep"
    UNPLUGGED = 65, "the port is gone"
    RECONNECTED = 66, "the port came back"
    # What the scanner said of itself.
    IDENTIFIED = 80, "the scanner said what it is"
    CONFIGURED = 81, "the scanner said what it sweeps"
    BATTERY = 82, "the scanner said its battery's voltage"
    RESAMPLED = 83, "scans are brought to the bundle's axis"
    # What the runtime did to save energy.
    DUTY = 96, "the scanner's duty was set"
    BOARD = 97, "the board's switches were turned"
    CHARGE = 98, "the battery's state of charge"


def c_enum() -> str:
    """The C enum for `edge_model.h`, generated so that the two can never disagree."""
    rows = [f"    EDGE_{r.name} = {r.value}, /* {r.text} */" for r in Reason]
    return "\n".join(["enum edge_reason {", *rows, "};"])
