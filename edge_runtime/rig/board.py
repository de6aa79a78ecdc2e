"""A board that is not there: draws what its known coefficients make of the work that is done in its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edge_runtime.rig.load import SwitchedLoad

RAIL_V = 5.0


class SyntheticBoard:
    """A load on an emulated bench.

    idle_w: always. busy_w: beside it while a core is busy. class_pj: an instruction of each class.
    What a turn of work took is drawn evenly over the next one: a meter needs a moment to settle, and no more.
    """

    idle_w, busy_w = 0.6, 0.4
    class_pj: Mapping[str, float] = {"integer": 40.0, "load_store": 120.0, "branch": 60.0, "floating": 90.0}

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.load = SwitchedLoad(now(), self.idle_w / RAIL_V, RAIL_V)

    def did(self, seconds: float, busy_s: float, executed: Mapping[str, float]) -> None:
        """A turn of `seconds` is over, in which a core was busy for so long and executed so much."""
        work_j = self.busy_w * busy_s + sum(self.class_pj[c] * 1e-12 * n for c, n in executed.items())
        self.load.switch(self._now(), (self.idle_w + work_j / seconds) / RAIL_V)

    def draw(self, work_w: float) -> None:
        """So much beside idle from now on."""
        self.load.switch(self._now(), (self.idle_w + work_w) / RAIL_V)
