"""From joules to what people ask: mAh per inference, share of the battery, hours of mission."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge_runtime.power.base import Source
from edge_runtime.power.interval import Interval
from hw_profiles import Mission
from hw_profiles.schema import Battery


def mah(energy_uj: Interval, battery: Battery) -> Interval:
    """Charge drawn from the battery for energy spent at the rail, milliampere-hours.

    1 mAh at U volts is 3.6 U joules, and the converter takes its part: mAh = J / efficiency / (3.6 U).
    """
    return (energy_uj.scaled(1e-6) / battery.converter_efficiency.range) / battery.mean_v.range.scaled(3.6)


def capacity_j(battery: Battery) -> Interval:
    """What a full battery delivers at the rail, joules."""
    at_terminals = battery.capacity_mah.range * battery.mean_v.range.scaled(3.6)
    return at_terminals * battery.converter_efficiency.range


_FIGURES = (
    "energy_uj_per_inference",
    "mah_per_inference",
    "battery_share",
    "idle_floor_mw",
    "mission_h",
    "scan_hz",
)


@dataclass(frozen=True, slots=True)
class Headline:
    """The product's figures for one bundle on one mission, each an interval, with where they come from.

    energy_uj_per_inference: at the board's rail: artifact, loop and kernel of one scan, without idle.
    battery_share: of all the battery gives, what inference takes at the scanner's scan rate (0 .. 1).
    idle_floor_mw: what the board takes with no inference at all. mission_h: from full to empty.
    """

    energy_uj_per_inference: Interval
    mah_per_inference: Interval
    battery_share: Interval
    idle_floor_mw: Interval
    mission_h: Interval
    scan_hz: Interval
    source: Source

    def to_json(self) -> dict[str, object]:
        """Flat: each figure's midpoint under its name, its range under `<name>_interval`; unknown is null."""
        document: dict[str, object] = {"energy_source": self.source.name.lower()}
        for name in _FIGURES:
            interval: Interval = getattr(self, name)
            document[name] = interval.middle if math.isfinite(interval.middle) else None
            document[name + "_interval"] = interval.to_json()
        return document


def headline(per_inference_uj: Interval, source: Source, mission: Mission) -> Headline:
    """All figures that follow from the energy of one inference on a mission."""
    inference_mw = (mission.scan_hz * per_inference_uj).scaled(1e-3)
    rest_mw = mission.board.idle_mw.range
    if mission.shared_battery:
        # The scanner sits on the battery's side of the board's converter as often as not; counting it at the
        # rail is the dearer of the two.
        rest_mw = rest_mw + mission.scanner.power_mw.range
    seconds = capacity_j(mission.battery) / (inference_mw + rest_mw).scaled(1e-3)
    return Headline(
        energy_uj_per_inference=per_inference_uj,
        mah_per_inference=mah(per_inference_uj, mission.battery),
        battery_share=inference_mw.share_of(rest_mw),
        idle_floor_mw=mission.board.idle_mw.range,
        mission_h=seconds.scaled(1 / 3600),
        scan_hz=mission.scan_hz,
        source=source,
    )
