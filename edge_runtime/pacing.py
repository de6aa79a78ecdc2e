"""`edge-runtime run --limit ...`: the duty carried out. A rest after each sweep, as long as the limit allows.

The scanner's own sweeps are timed first, and again all the time: what its profile says is a range, what the user
has set it to is a fact. Where even sweeping without a rest does not keep the limit, that is said and nothing rests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from statistics import median

from edge_runtime.duty import Duty
from edge_runtime.errors import BadInput
from edge_runtime.mission_clock import MissionClock
from edge_runtime.reasons import Reason
from edge_runtime.scan import Happening, Scan

TIMED_SWEEPS = 8
"""So many are timed before the first rest, and before every look at whether the scanner has changed."""
CHANGED = 0.2
"""A sweep that takes so much more or less, relative, means another duty."""
SHORTEST_REST_US = 20_000
"""Two commands for less are not worth it."""
_SAID_AGAIN = (Reason.CONFIGURED, Reason.IDENTIFIED)
"""What a scanner says whenever it is asked to go on; only news of it are journaled."""


class Pacer:
    """When the next sweep is due: a period after the last.

    duty: what is carried out; None while sweeps are timed, or where the limit cannot be kept.
    choose: the duty for a sweep of so many seconds; raises BadInput where none keeps the limit.
    quicken: called then; has the scanner sweep fewer points, and says so; None where it cannot, or not any more.
    """

    def __init__(
        self, choose: Callable[[float], Duty], quicken: Callable[[], str | None] = lambda: None
    ) -> None:
        self.duty: Duty | None = None
        self._choose, self._quicken = choose, quicken
        self._took_us: deque[int] = deque(maxlen=TIMED_SWEEPS)
        self._timed = 0
        self._sweep_us = 0.0
        self._slack_us = 0  # rests end so much early: by so much may the next sweep come late

    def time(self, took_us: int) -> str | None:
        """Hear how long a sweep took, from the end of the last or of the rest; what changes by that, for people."""
        self._took_us.append(took_us)
        self._timed += 1
        if self._timed % TIMED_SWEEPS:
            return None
        sweep_us = median(self._took_us)
        self._slack_us = round(max(self._took_us) - sweep_us)
        if abs(sweep_us - self._sweep_us) <= CHANGED * self._sweep_us:
            return None
        self._sweep_us = sweep_us
        try:
            self.duty = self._choose(sweep_us / 1e6)
        except BadInput as e:
            self.duty = None
            return f"{e}; {self._quicken() or 'sweeping without a pause'}"
        why = "; ".join(("", *self.duty.why))
        return (
            f"a sweep of {self.duty.sweep_s:.3g} s every {self.duty.period_s:.3g} s; "
            f"signals caught {self.duty.caught:.1%}{why}"
        )

    def rest_us(self, captured_us: int, now_us: int) -> int:
        """How long to rest from now, after the sweep that ended at `captured_us`; 0 for not at all."""
        if self.duty is None:
            return 0
        rest_us = captured_us + round(self.duty.period_s * 1e6 - self._sweep_us) - self._slack_us - now_us
        return rest_us if rest_us >= SHORTEST_REST_US else 0


def timed(events: Iterable[Scan | Happening], tell: Callable[[int], None]) -> Iterator[Scan | Happening]:
    """The same events; `tell` is called once with the microseconds from scan to scan, the median of the first."""
    rest = iter(events)
    at_us: list[int] = []
    for event in rest:
        yield event
        if isinstance(event, Scan) and event.captured_us not in at_us[-1:]:  # not of one piece with the last
            at_us.append(event.captured_us)
        if len(at_us) > TIMED_SWEEPS:
            tell(round(median(b - a for a, b in pairwise(at_us))))
            break
    yield from rest


class Paced:
    """What the loop iterates over: the scans of a source, a rest after each.

    scans: the source's, stamped by `clock`. rest: has the scanner hold for so many microseconds of the host's clock.
    leave: called in place of a rest, with its microseconds, where the duty has the board off; ends the source.
    rests, rested_us: how often and for how long the scanner has been held so far.
    """

    def __init__(
        self,
        scans: Iterable[Scan | Happening],
        rest: Callable[[int], None],
        clock: MissionClock,
        pacer: Pacer,
        leave: Callable[[int], None] | None = None,
    ) -> None:
        self._scans, self._rest, self._clock, self._pacer, self._leave = scans, rest, clock, pacer, leave
        self._known: dict[int, str] = {}
        self._since_us = 0  # the end of the last sweep or rest
        self.rests = self.rested_us = 0

    def __iter__(self) -> Iterator[Scan | Happening]:
        for event in self._scans:
            if not isinstance(event, Scan):
                if self._is_news(event):
                    yield event
                continue
            if event.captured_us < self._since_us:
                continue  # it waited in a queue through the rest
            yield event
            if 0 < self._since_us < event.captured_us:  # not what came in one piece with the last
                said = self._pacer.time(event.captured_us - self._since_us)
                if said:
                    yield Happening(Reason.DUTY, said)
            self._since_us = event.captured_us
            yield from self._pause(event.captured_us)

    def _is_news(self, happening: Happening) -> bool:
        reason, detail = happening.reason, happening.detail
        if reason in _SAID_AGAIN and self._known.get(reason) == detail:
            return False
        self._known[reason] = detail
        return True

    def _pause(self, captured_us: int) -> Iterator[Happening]:
        us, clock = self._clock.us, self._clock
        begun_us = us()
        rest_us = self._pacer.rest_us(captured_us, begun_us)
        if not rest_us:
            return
        duty = self._pacer.duty
        if self._leave and duty and duty.board_off:
            yield Happening(Reason.DUTY, f"the board goes off for {rest_us / 1e6:.0f} s")
            self._leave(rest_us)
            return
        clock.rest(rest_us, self._rest)
        self._since_us = us()
        self.rests += 1
        self.rested_us += self._since_us - begun_us
