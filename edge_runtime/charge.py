"""`edge-runtime run --charge ...`: the battery followed while a mission runs, the ladder stepped down as it empties.

Every half minute: what was drawn since is counted, by the kernel's gauge where there is one, else by the meter, else
by the model. A step of the ladder, a charger put on or taken off, and every ten minutes the state itself are events
in the journal; the next run goes on from the last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from edge_runtime import journal
from edge_runtime.battery import LADDER_LIMITS, Flow, StateOfCharge
from edge_runtime.errors import BadInput, HardwareUnavailable
from edge_runtime.journal import Kind
from edge_runtime.power.kernel import number, text
from edge_runtime.reasons import Reason
from edge_runtime.scan import Happening, Scan
from edge_runtime.verdict import Rung

LOOK_US = 30_000_000
TELL_US = 600_000_000
AUTO = "auto"


class Gauge:
    """The kernel's battery (Documentation/ABI/testing/sysfs-class-power). Raises HardwareUnavailable without one.

    charging: as it says itself; drivers differ in the sign of the current.
    """

    def __init__(self, root: Path) -> None:
        supplies = sorted((root / "class/power_supply").glob("*"))
        batteries = [s for s in supplies if text(s / "type") == "Battery" and text(s / "present") != "0"]
        if not batteries:
            raise HardwareUnavailable(f"battery: none under {root}/class/power_supply")
        self._device = batteries[0]
        self.name = self._device.name
        self.volts()

    def volts(self) -> float:
        """At the terminals."""
        return number(self._device / "voltage_now") * 1e-6

    @property
    def charging(self) -> bool:
        """Whether a charger is on."""
        return text(self._device / "status") in ("Charging", "Full")

    def load_ma(self) -> float | None:
        """Out of the battery, negative into it; None where the driver knows no current."""
        if not (self._device / "current_now").exists():
            return None
        amount = number(self._device / "current_now") * 1e-3
        return -abs(amount) if self.charging else abs(amount)


class Draw(NamedTuple):
    """What the battery gives now.

    load_ma: negative into it. volts: at its terminals; charging: as the charger says. None where nobody sees it.
    """

    load_ma: float
    volts: float | None = None
    charging: bool | None = None


def gauged(gauge: Gauge, otherwise: Callable[[float], float]) -> Callable[[], Draw]:
    """What the gauge says. otherwise: the load at a terminal voltage, where the gauge knows no current.

    How fast it charges nobody knows then: the count stands still.
    """

    def draw() -> Draw:
        volts, load_ma, charging = gauge.volts(), gauge.load_ma(), gauge.charging
        if load_ma is None:
            load_ma = otherwise(volts) * (not charging)
        return Draw(load_ma, volts, charging)

    return draw


class Watch:
    """Follows the battery between scans.

    draw: what it gives now. step: called with the highest rung that the charge allows, whenever that changes.
    how: where the figures come from, for people.
    """

    def __init__(
        self,
        state: StateOfCharge,
        draw: Callable[[], Draw],
        clock_us: Callable[[], int],
        step: Callable[[Rung], None],
        how: str,
    ) -> None:
        self.state, self.how = state, how
        self._draw, self._clock_us, self._step = draw, clock_us, step
        self._looked_us = self._told_us = clock_us()
        self._charging = False
        self._lost: str | None = None
        self.limit = Rung.NETWORK

    def over(self, events: Iterable[Scan | Happening]) -> Iterator[Scan | Happening]:
        """The same events, and the battery's."""
        yield from self.begin()
        clock_us, due_us = self._clock_us, self._looked_us + LOOK_US
        for event in events:
            yield event
            now_us = clock_us()
            if now_us >= due_us:
                due_us = now_us + LOOK_US
                yield from self.look(now_us)

    def begin(self) -> Iterator[Happening]:
        """Take the state as the mission finds it."""
        self._set_limit()
        yield self._tell(self._clock_us(), f"by {self.how}")

    def look(self, now_us: int) -> Iterator[Happening]:
        """Count what was drawn since the last look, and tell what follows."""
        seconds, self._looked_us = (now_us - self._looked_us) / 1e6, now_us
        try:
            drawn = self._draw()
        except HardwareUnavailable as e:
            if self._lost is None:
                self._lost = str(e)
                yield self._tell(now_us, f"not seen any more, {e}: the ladder stays where it is")
            return
        self._lost = None
        self.state.update(seconds, *drawn)
        charging = self.state.flow is Flow.CHARGING
        if charging is not self._charging:
            self._charging = charging
            yield self._tell(now_us, "a charger is on" if charging else "the charger is off")
        before = self.limit
        if self._set_limit():
            down = self.limit < before
            why = f"{'at or below' if down else 'above'} {100 * threshold(min(before, self.limit)):.0f} %"
            yield self._tell(now_us, f"{why}: {_CLIMBS[self.limit]}")
        elif now_us - self._told_us >= TELL_US:
            yield self._tell(now_us, "counted on")

    def _set_limit(self) -> bool:
        limit = self.state.ladder_limit(self.limit)
        if limit is self.limit:
            return False
        self.limit = limit
        self._step(limit)
        return True

    def _tell(self, now_us: int, why: str) -> Happening:
        self._told_us = now_us
        charge = self.state.charge
        facts = {
            "share": round(charge.share, 5),
            "deviation": round(charge.deviation, 5),
            "fade": round(self.state.fade, 4),
            "flow": charge.flow.value,
            "limit": self.limit.name,
        }
        sure = f"{100 * charge.share:.1f} +- {200 * charge.deviation:.1f} %"
        return Happening(Reason.CHARGE, f"{sure}, {charge.flow.value}; {why}", facts)


_CLIMBS = {
    Rung.NONE: "nothing is answered any more",
    Rung.SCREEN: "nothing climbs beyond the screen",
    Rung.TREES: "nothing climbs beyond the trees",
    Rung.NETWORK: "everything may climb",
}


def threshold(rung: Rung) -> float:
    """The share of charge at or below which nothing climbs higher than `rung`."""
    return next(share for share, limit in LADDER_LIMITS if limit is rung)


def starting_share(words: str) -> float | None:
    """`80%` as a share; None for `auto`. Raises BadInput for anything else."""
    if words == AUTO:
        return None
    try:
        share = float(words.removesuffix("%")) / 100
        if not words.endswith("%") or not 0 <= share <= 1:
            raise ValueError
    except ValueError as e:
        raise BadInput(f"--charge {words}: not understood; write 80%, or auto") from e
    return share


def last_told(directory: Path) -> dict[str, Any] | None:
    """What the journal's last run said of the battery."""
    if not directory.is_dir() or not journal.segments(directory):
        return None
    last = None
    for frame in journal.read(directory):
        if frame.kind == Kind.EVENT and b'"CHARGE"' in frame.payload:
            event = json.loads(frame.payload)
            last = event if event.get("reason") == Reason.CHARGE.name and "share" in event else last
    return last
