"""State of charge: what has been counted, corrected by the voltage whenever the battery rests.

Coulombs are counted all the time; their error grows with what was counted. At rest the terminal voltage comes close
to the open-circuit one, and the profile's voltage table says, with its own uncertainty, what charge that is. The two
are combined by their variances (a Kalman filter of one state). On a flat curve (LiFePO4) the voltage says little,
its variance is large, and the count stands; near the ends it takes over.

All in milliampere-hours of the cell as it is now: `fade` is what age has left of the profile's capacity, temperature
takes more away for as long as it lasts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

from edge_runtime.errors import BadInput
from edge_runtime.verdict import Rung
from hw_profiles.schema import Battery

REST_C_RATE = 1 / 15
"""A load below this share of the capacity an hour counts as rest: what it drops on the cell is corrected for."""
REST_S = 1800.0
"""So long the load must be low before the voltage is believed; cells settle within half an hour."""
COUNT_ERROR = 0.02
"""One standard deviation of counted charge: a 1 % shunt and what is drawn unseen between samples."""
OFFSET_MA = 1.0
"""One standard deviation of a shunt amplifier's offset: 100 uV over 0.1 ohm (INA219 data sheet)."""
CHARGING_C_RATE = 1 / 200
"""A current into the battery above this is charging, not the meter's offset."""
TELLING = 0.04
"""A voltage with a smaller deviation than this is good enough to learn the capacity from."""
RISE_V = 0.03
"""So much more voltage at no less load, within minutes, is charging too: where the charger bypasses the meter."""

CAPACITY_BY_CELSIUS: dict[str, tuple[tuple[float, float], ...]] = {
    # Samsung SDI INR18650-15L specification, 7.5, at a far higher current than here: the pessimistic end.
    "li-ion": ((-20, 0.60), (-10, 0.75), (0, 0.80), (25, 1.0), (60, 1.0)),
    "lipo": ((-20, 0.60), (-10, 0.75), (0, 0.80), (25, 1.0), (60, 1.0)),
    # Judgement, from makers' curves: iron phosphate loses more, alkaline cells nearly everything in deep frost.
    "lifepo4": ((-20, 0.50), (-10, 0.65), (0, 0.80), (25, 1.0), (60, 1.0)),
    "alkaline": ((-20, 0.20), (-10, 0.45), (0, 0.65), (25, 1.0), (50, 1.0)),
}
"""Share of the capacity at 25 degrees that a cell gives at another temperature, by chemistry."""

LADDER_LIMITS = ((0.05, Rung.NONE), (0.10, Rung.SCREEN), (0.20, Rung.TREES))
"""At or below this state of charge nothing climbs higher than that."""
STEP_UP = 0.03
"""So much more charge than the limit's is needed to climb again, or the ladder would flutter."""


class Flow(Enum):
    """Which way the charge goes."""

    DISCHARGING = "discharging"
    RESTING = "resting"
    CHARGING = "charging"


@dataclass(frozen=True, slots=True)
class Charge:
    """The state of charge, 0 to 1 of what the cell holds now, with its standard deviation."""

    share: float
    deviation: float
    flow: Flow


class StateOfCharge:
    """Follows one battery.

    battery: its profile. fade: what age has left of its capacity, 0 to 1. share: where it starts, None for unknown:
    then the first voltage says, whatever the load. deviation: one standard deviation of that share.
    """

    def __init__(
        self, battery: Battery, *, fade: float = 1.0, share: float | None = 1.0, deviation: float = 0.01
    ) -> None:
        if not 0 < fade <= 1 or (share is not None and not 0 <= share <= 1):
            raise BadInput(f"battery {battery.name}: fade {fade} and charge {share} must be shares of one")
        if not battery.capacity_mah.range.known:
            raise BadInput(f"battery {battery.name}: its profile has no capacity; write one into it")
        self._battery = battery
        self.fade = fade
        self._share = 0.5 if share is None else share
        self._variance = 0.25 if share is None else deviation**2  # at the last correction
        self._drift = 0.0  # one standard deviation of what was counted since: a meter's gain errs one way
        self._low_load_s = math.inf if share is None else 0.0
        self._volts: float | None = None
        self._load_ma = 0.0
        self._counted_mah = 0.0
        self._anchor: tuple[float, float] | None = None  # share by voltage, charge counted until then
        self.flow = Flow.RESTING

    @property
    def capacity_mah(self) -> float:
        """What the cell holds when full, at its age, at 25 degrees."""
        return self._battery.capacity_mah.range.high * self.fade

    @property
    def charge(self) -> Charge:
        """The estimate as it stands."""
        return Charge(self._share, math.sqrt(self._variance + self._drift**2), self.flow)

    def remaining_mah(self, celsius: float = 25.0) -> float:
        """What can still be drawn: cold takes its part from the bottom."""
        lost = 1 - capacity_share(self._battery.chemistry, celsius)
        return max(0.0, self._share - lost) * self.capacity_mah

    def update(
        self, seconds: float, load_ma: float, volts: float | None = None, charging: bool | None = None
    ) -> Charge:
        """`seconds` have passed at `load_ma` out of the battery (negative: into it); `volts` at its terminals now.

        charging: as the charger itself says; None where it has no voice: then current and voltage tell. The voltage
        under a charger is not believed.
        """
        if seconds < 0 or not math.isfinite(load_ma):
            raise BadInput(f"battery {self._battery.name}: {seconds} s at {load_ma} mA is no reading")
        drawn = load_ma * seconds / 3600
        self._counted_mah += drawn
        self._share -= drawn / self.capacity_mah
        self._drift += (COUNT_ERROR * abs(drawn) + OFFSET_MA * seconds / 3600) / self.capacity_mah
        self._watch(load_ma, volts, charging)
        rest_ma = REST_C_RATE * self.capacity_mah
        self._low_load_s = self._low_load_s + seconds if abs(load_ma) < rest_ma else 0.0
        if charging:
            self._low_load_s = 0.0
        elif volts is not None and self._low_load_s >= REST_S:
            self._correct(volts, load_ma)
        self._share = min(max(self._share, 0.0), 1.0)
        return self.charge

    def ladder_limit(self, now: Rung) -> Rung:
        """How far the ladder may be climbed at this charge, from `now` on: down at once, up with some to spare."""
        for limit, rung in LADDER_LIMITS:
            if self._share <= limit + (STEP_UP if now <= rung else 0):
                return rung
        return Rung.NETWORK

    def _watch(self, load_ma: float, volts: float | None, charging: bool | None) -> None:
        """Notice charging: told, or by the current, or by a voltage that rises at no less load."""
        rising = (
            volts is not None
            and self._volts is not None
            and volts > self._volts + RISE_V
            and load_ma > self._load_ma * 0.95 - 1
        )
        if charging or load_ma < -CHARGING_C_RATE * self.capacity_mah or (rising and charging is None):
            self.flow = Flow.CHARGING
        elif load_ma > REST_C_RATE * self.capacity_mah or (
            volts and self._volts and volts < self._volts - RISE_V / 10
        ):
            self.flow = Flow.DISCHARGING
        elif self.flow is not Flow.CHARGING or charging is False:
            self.flow = Flow.RESTING
        if volts is not None:
            self._volts = volts
            self._load_ma = load_ma

    def _correct(self, volts: float, load_ma: float) -> None:
        """Blend in what the voltage at rest says."""
        resistance = self._battery.internal_mohm.range
        drop_v = load_ma * (resistance.middle if resistance.known else 0.0) * 1e-6
        says = self._battery.charge_pct(volts + drop_v)
        # "Somewhere in the range": half the range over the root of three (GUM, 4.3.7).
        told = max((says.high - says.low) / 200, 0.01) ** 2 / 3
        counted = self._variance + self._drift**2
        gain = counted / (counted + told)
        self._share += gain * (says.middle / 100 - self._share)
        self._variance, self._drift = (1 - gain) * counted, 0.0
        self._low_load_s = 0.0  # one reading a rest: the next would repeat the same error
        if told <= TELLING**2:
            self._learn_fade(says.middle / 100)

    def _learn_fade(self, share: float) -> None:
        """Charge counted between two good voltages, over the share between them, is the capacity."""
        if self._anchor is None:
            self._anchor = share, self._counted_mah
            return
        moved = self._anchor[0] - share
        if abs(moved) < 0.5:
            return
        ratio = (self._counted_mah - self._anchor[1]) / moved / self._battery.capacity_mah.range.high
        if 0.3 < ratio <= 1.1:
            self.fade += 0.5 * (min(ratio, 1.0) - self.fade)
        self._anchor = share, self._counted_mah


def capacity_share(chemistry: str, celsius: float) -> float:
    """The share of its capacity at 25 degrees that a cell gives at `celsius`; linear between the table's rows."""
    rows = CAPACITY_BY_CELSIUS.get(chemistry)
    if rows is None:
        raise BadInput(
            f"battery chemistry {chemistry!r}: unknown; choose of {', '.join(CAPACITY_BY_CELSIUS)}"
        )
    if celsius <= rows[0][0]:
        return rows[0][1]
    for (t0, s0), (t1, s1) in pairwise(rows):
        if celsius <= t1:
            return s0 + (s1 - s0) * (celsius - t0) / (t1 - t0)
    return rows[-1][1]
