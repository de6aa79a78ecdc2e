"""The battery watched: a kinetic battery in /sys, emptied and charged, against what the watch says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

import hw_profiles
from edge_runtime.battery import StateOfCharge
from edge_runtime.charge import Draw, Gauge, Watch, gauged, last_told, starting_share
from edge_runtime.errors import BadInput, HardwareUnavailable
from edge_runtime.journal import JournalWriter, Kind
from edge_runtime.reasons import Reason
from edge_runtime.rig.load import VirtualClock
from edge_runtime.scan import Happening
from edge_runtime.verdict import Rung
from hw_profiles.schema import Battery
from tests.sysfs_tree import BatteryTree


def battery() -> Battery:
    """One 18650."""
    found = hw_profiles.load("battery", "li-ion-18650")
    assert isinstance(found, Battery)
    return found


class Field:
    """A device on a battery, half a minute at a time."""

    def __init__(self, root: Path, share: float, load_ma: float) -> None:
        self.clock = VirtualClock()
        self.tree = BatteryTree(root, battery().capacity_mah.range.high, share, load_ma)
        self.steps: list[Rung] = []
        draw = gauged(Gauge(root), lambda volts: 1e3 / volts)
        state = StateOfCharge(battery(), share=share)
        self.watch = Watch(state, draw, self.clock.us, self.steps.append, "the gauge")
        self.told = list(self.watch.begin())

    def go(self, hours: float, load_ma: float) -> None:
        """On at this load; how far the watch is off at worst must stay within 3 %."""
        self.tree.draw(load_ma)
        for _ in range(round(hours * 120)):
            self.clock.sleep(30)
            self.tree.pass_time(30)
            self.told += self.watch.look(self.clock.us())
            assert abs(self.watch.state.charge.share - self.tree.battery.share) < 0.03


def whys(told: list[Happening]) -> list[str]:
    """What was told, without the figures and what is counted on."""
    found = [event.detail.split("; ")[1] for event in told]
    return [why for why in found if why != "counted on"]


def test_down_through_the_steps_and_up_by_a_charger(tmp_path: Path) -> None:
    """From a quarter full to nearly empty, then charged: each step once, each with its charge and its reason."""
    field = Field(tmp_path, 0.25, 500)
    field.go(1.1, 500)
    assert field.steps == [Rung.TREES, Rung.SCREEN, Rung.NONE]
    field.go(1.3, -500)
    field.go(0.1, 500)
    assert field.steps == [Rung.TREES, Rung.SCREEN, Rung.NONE, Rung.SCREEN, Rung.TREES, Rung.NETWORK]
    assert whys(field.told) == [
        "by the gauge",
        "at or below 20 %: nothing climbs beyond the trees",
        "at or below 10 %: nothing climbs beyond the screen",
        "at or below 5 %: nothing is answered any more",
        "a charger is on",
        "above 5 %: nothing climbs beyond the screen",
        "above 10 %: nothing climbs beyond the trees",
        "above 20 %: everything may climb",
        "the charger is off",
    ]
    steps = [event.facts for event in field.told if event.facts and "%:" in event.detail]
    assert [facts["limit"] for facts in steps] == ["TREES", "SCREEN", "NONE", "SCREEN", "TREES", "NETWORK"]
    shares = [facts["share"] for facts in steps]
    assert shares == pytest.approx([0.20, 0.10, 0.05, 0.08, 0.13, 0.23], abs=0.005)
    assert all(event.reason == Reason.CHARGE for event in field.told)


def test_it_is_told_every_ten_minutes(tmp_path: Path) -> None:
    """So that a run killed goes on from no older a state."""
    field = Field(tmp_path, 0.9, 100)
    field.go(2, 100)
    assert len(field.told) == 1 + 12


def test_a_gauge_without_a_current(tmp_path: Path) -> None:
    """The model counts the load, the gauge tells the charger; how fast that charges nobody says."""
    field = Field(tmp_path, 0.5, 300)
    current = tmp_path / "class/power_supply/BAT0/current_now"
    current.unlink()
    gauge = Gauge(tmp_path)
    draw = gauged(gauge, lambda volts: 100 * volts)
    assert draw() == Draw(pytest.approx(100 * gauge.volts()), gauge.volts(), False)
    field.tree.draw(-300)
    current.unlink()
    assert draw() == Draw(0, gauge.volts(), True)


def test_a_gauge_that_goes_is_said_once(tmp_path: Path) -> None:
    """The ladder stays where it was; when it is back, the count goes on."""
    field = Field(tmp_path, 0.15, 100)
    volts = tmp_path / "class/power_supply/BAT0/voltage_now"
    kept = volts.read_text()
    volts.unlink()
    for _ in range(5):
        field.clock.sleep(30)
        field.told += field.watch.look(field.clock.us())
    volts.write_text(kept)
    assert len([why for why in whys(field.told) if "not seen any more" in why]) == 1
    assert field.watch.limit is Rung.TREES
    before = field.watch.state.charge.share
    field.go(0.5, 100)
    assert field.watch.state.charge.share < before


def test_no_gauge(tmp_path: Path) -> None:
    with pytest.raises(HardwareUnavailable, match="battery: none"):
        Gauge(tmp_path)
    BatteryTree(tmp_path, 1000, 0.5, 1)
    (tmp_path / "class/power_supply/BAT0/voltage_now").write_text("-\n")
    with pytest.raises(HardwareUnavailable, match="no number"):
        Gauge(tmp_path)


def test_the_next_run_goes_on_from_the_last_told(tmp_path: Path) -> None:
    assert last_told(tmp_path / "journal") is None
    writer = JournalWriter(tmp_path / "journal")
    for share in (0.7, 0.6):
        facts = {"share": share, "deviation": 0.01, "fade": 0.9}
        writer.append_json(Kind.EVENT, {"reason": "CHARGE", "detail": "", **facts})
    writer.append_json(Kind.EVENT, {"reason": "BOARD", "detail": 'not "CHARGE"'})
    writer.close()
    told = last_told(tmp_path / "journal")
    assert told is not None
    assert (told["share"], told["fade"]) == (0.6, 0.9)


@pytest.mark.parametrize(("text", "share"), [("80%", 0.8), ("0%", 0), ("100 %", 1), ("auto", None)])
def test_charges_in_words(text: str, share: float | None) -> None:
    assert starting_share(text) == share


@pytest.mark.parametrize("text", ["80", "101%", "-1%", "full", "nan%", "%"])
def test_charges_that_cannot_be(text: str) -> None:
    with pytest.raises(BadInput, match="write 80%, or auto"):
        starting_share(text)
