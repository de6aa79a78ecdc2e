"""A scan on another axis, by choosing among the scanner's own values: nothing is interpolated or rounded.

nearest   the value of the nearest point
peak      the highest value among the points within half a step, so that no short burst is lost where the
          scanner's step is the finer one; the nearest where there is none

All positions are compared in integers of half hertz, so the choice is exact and the same everywhere. A scan
that does not reach as far as the axis wanted is refused, and so is everything under a contract that says
`forbid` or nothing.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from sys import byteorder

from edge_runtime.errors import BadInput
from edge_runtime.reasons import Reason
from edge_runtime.scan import Axis, Happening, Scan

MODES = ("nearest", "peak")
MAX_AXES = 64
"""Axes that are remembered: a receiver that hops over channels does not fill the memory."""


class Resampler:
    """Turns the powers of scans on `have` into powers on `want`.

    Raises BadInput for an unknown or forbidden mode, and where `have` does not cover `want`.
    """

    def __init__(self, have: Axis, want: Axis, mode: str) -> None:
        if mode not in MODES:
            raise BadInput(
                f"contract: resampling {mode!r} from {have} is not allowed; configure the scanner to {want}"
            )
        self._runs = [self._run(have, want, k, mode) for k in range(want.points)]

    @staticmethod
    def _run(have: Axis, want: Axis, k: int, mode: str) -> tuple[int, int]:
        """First and last + 1 of the points that make point `k`."""
        offset = 2 * (want.start_hz + k * want.step_hz - have.start_hz)  # half hertz
        nearest = (offset + have.step_hz) // (2 * have.step_hz)
        if not 0 <= nearest < have.points:
            raise BadInput(
                f"scan: {have} does not cover {want}; configure the scanner, or build for its axis"
            )
        if mode == "nearest":
            return nearest, nearest + 1
        first = -(-(offset - want.step_hz) // (2 * have.step_hz))
        end = -(-(offset + want.step_hz) // (2 * have.step_hz))
        first, end = max(0, first), min(have.points, end)
        return (first, end) if first < end else (nearest, nearest + 1)

    def __call__(self, power_cdbm: bytes) -> bytes:
        """The powers on the wanted axis."""
        values = array("h", power_cdbm)
        if byteorder == "big":
            values.byteswap()
        out = array("h", [max(values[first:end]) for first, end in self._runs])
        if byteorder == "big":
            out.byteswap()
        return out.tobytes()


def resampled(
    items: Iterable[Scan | Happening], want: Axis, mode: str, slack_hz: int = 0
) -> Iterator[Scan | Happening]:
    """The same items with every scan on `want`, and a happening for each axis that scans came on.

    Scans within `slack_hz` of `want` pass as they are: the contract takes them. So do scans that cannot be brought
    there, for the contract to refuse and count.
    """
    known: dict[Axis, Resampler | None] = {want: None}
    for item in items:
        if type(item) is not Scan:
            yield item
            continue
        have = item.axis
        if have not in known:
            if len(known) == MAX_AXES:
                known = {want: None}
            known[have] = None
            if not have.is_near(want, slack_hz):
                try:
                    known[have] = Resampler(have, want, mode)
                    yield Happening(Reason.RESAMPLED, f"{have} to {want}, {mode}")
                except BadInput as e:
                    yield Happening(Reason.AXIS, str(e))
        resampler = known[have]
        yield item._replace(power_cdbm=resampler(item.power_cdbm), axis=want) if resampler else item
