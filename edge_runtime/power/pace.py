"""When a chip's next conversion ends, learnt from looks that came too early; so that few looks are needed."""

from __future__ import annotations

LOOK_AGAIN, CREEP = 0.008, 0.002
"""Of a conversion: how soon to look again after a look that came too early; how much earlier each look creeps."""
FIRST = 0.88
"""The first look, before the chip's oscillator is known: it may be 10 % fast."""
SLACK = 0.13
_OF_OLD = 4
"""What was learnt before weighs as much as so many conversions."""


class Pace:
    """Follows conversions of nominally `nominal_us`, back to back; a chip's oscillator is up to 10 % off ours.

    A conversion's end is met (to LOOK_AGAIN) when one look comes too early and the next finds it. Looks that find
    one at once creep earlier until that happens again; so most conversions take a single look, and none is
    met late by more than a tenth of its time.
    """

    def __init__(self, nominal_us: float, now_us: float) -> None:
        self._nominal_us = self.period_us = nominal_us
        self._known = self._was_early = False
        self.restart(now_us)

    def restart(self, now_us: float) -> None:
        """The chip begins a conversion now."""
        self._since_us = self._taken_us = now_us
        self._count = 0
        self._creeping = 1

    def too_early(self, now_us: float) -> float:
        """A look found nothing new: microseconds to the next one."""
        due_us = self.wait_us(now_us)
        self._was_early = due_us < LOOK_AGAIN * self.period_us  # a look out of turn says nothing
        return max(due_us, LOOK_AGAIN * self.period_us)

    def taken(self, now_us: float) -> int:
        """A look found a conversion: how many others, before it, nobody took."""
        unseen = max(round((now_us - self._taken_us) / self.period_us) - 1, 0)
        self._count += 1 + unseen
        self._taken_us = now_us
        self._creeping += 1
        if self._was_early:
            self._met(now_us - LOOK_AGAIN * self.period_us / 2)
        self._was_early = False
        return unseen

    def _met(self, end_us: float) -> None:
        """The end of a conversion, seen: over several of them it tells their length."""
        self._creeping = 1
        measured = (end_us - self._since_us) / self._count
        if abs(measured / self._nominal_us - 1) < SLACK:
            share = self._count / (self._count + _OF_OLD) if self._known else 1.0
            self.period_us += share * (measured - self.period_us)
            self._known = True
        self._since_us, self._count = end_us, 0

    def wait_us(self, now_us: float) -> float:
        """From now to the look at the next conversion."""
        share = 1 - CREEP * (1 + self._creeping / 3) if self._known else FIRST
        return max(self._taken_us + share * self.period_us - now_us, 0.0)
