"""Profiles: every shipped number is a sourced range, and every fault in a user's own is named."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hw_profiles
from edge_runtime.errors import BadInput
from hw_profiles.schema import BASES, KINDS, Battery, Quantity

ALL = [(kind, name) for kind in KINDS for name in hw_profiles.names(kind)]


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_shipped_profile_is_whole(kind: str, name: str) -> None:
    profile = hw_profiles.load(kind, name)
    assert profile.name == name
    for alias in profile.aliases:
        assert hw_profiles.load(kind, alias.upper()) == profile
    for field in profile.__dataclass_fields__:
        value = getattr(profile, field)
        if isinstance(value, Quantity):
            assert value.basis == "unknown" or (value.basis in BASES and len(value.source) > 10)
            assert value.range.known or value.basis == "unknown"
            assert (
                value.basis != "assumed" or "assumed" in value.source
            )  # what is a judgement says so in words


def test_the_promised_ones_are_there() -> None:
    assert {"zero2w", "3b+", "4b", "5", "cm4", "cortex-m4", "cortex-m0"} <= set(hw_profiles.names("board"))
    assert {"rf-explorer", "tinysa", "tinysa-ultra"} <= set(hw_profiles.names("scanner"))
    batteries = [hw_profiles.load("battery", n) for n in hw_profiles.names("battery")]
    chemistries = {b.chemistry for b in batteries if isinstance(b, Battery)}
    assert {"li-ion", "lipo", "lifepo4", "alkaline"} <= chemistries


def test_names_and_aliases_are_unique() -> None:
    for kind in KINDS:
        seen = [n for name in hw_profiles.names(kind) for n in (name, *hw_profiles.load(kind, name).aliases)]
        assert len(seen) == len(set(seen))


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_name_lists_the_known(kind: str) -> None:
    with pytest.raises(BadInput, match="unknown; choose of") as e:
        hw_profiles.load(kind, "nonesuch")
    assert all(name in str(e.value) for name in hw_profiles.names(kind))
    assert "\n" not in str(e.value)


def test_unknown_kind() -> None:
    with pytest.raises(BadInput, match="choose of board, scanner, battery"):
        hw_profiles.load("toaster", "x")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_PROFILES", str(tmp_path))
    folder = tmp_path / "board"
    folder.mkdir()
    return folder


def test_own_profile_comes_first(own: Path) -> None:
    text = (hw_profiles.SHIPPED / "board" / "zero2w.toml").read_text()
    (own / "zero2w.toml").write_text(text.replace("range = [540, 700]", "range = [1, 2]"))
    (own / "mine.toml").write_text(text.replace('"zero2w"', '"mine"'))
    assert hw_profiles.board("zero2w").idle_mw.range.high == 2
    assert hw_profiles.board("mine").name == "mine"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("range = [540, 700]", "range = [700, 540]", "no range"),
        ("range = [540, 700]", "range = 600", "two numbers"),
        ("range = [540, 700]", 'range = ["a", "b"]', "two numbers"),
        ("range = [540, 700]", "range = [-5, 700]", "no range"),
        ("range = [540, 700]", "range = [nan, 700]", "no range"),
        ('basis = "derived"', 'basis = "guessed"', "basis 'guessed'"),
        ('source = "a53"', 'source = "a54"', "'a54' is not in"),
        ('title = "Raspberry Pi Zero 2 W"', "title = 5", "title must be a text"),
        ("off_mw =", "of_mw =", "off_mw must be"),
        ('off_mw = "unknown"', 'off_mw = "unknown"\ncolour = "red"', "colour is not a key"),
        ("[sources]", '[sources]\nnobody = "a source that is never used"', "sources.nobody is not"),
        ('kind = "board"', "kind = [", "compare with"),
    ],
)  # fmt: skip
def test_faults_are_named(own: Path, old: str, new: str, says: str) -> None:
    text = (hw_profiles.SHIPPED / "board" / "zero2w.toml").read_text()
    assert old in text
    (own / "bad.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(BadInput, match=r"bad\.toml: ") as e:
        hw_profiles.load("board", "bad")
    assert says in str(e.value)
    assert "\n" not in str(e.value)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.sampled_from(hw_profiles.names("battery")), st.floats(0, 100))
def test_charge_of_a_voltage_in_the_table_holds_the_truth(name: str, pct: float) -> None:
    """Any voltage between the table's edges at a state of charge gives an interval that holds that state."""
    battery = hw_profiles.load("battery", name)
    assert isinstance(battery, Battery)
    rows = battery.soc_v
    at = min(int((100 - pct) // 10), len(rows) - 2)
    (p1, v1), (p0, v0) = rows[at], rows[at + 1]
    along = (pct - p0) / (p1 - p0)
    for edge1, edge0 in ((v1.low, v0.low), (v1.high, v0.high)):
        held = battery.charge_pct(edge0 + along * (edge1 - edge0))
        assert held.low - 1e-6 <= pct <= held.high + 1e-6
    assert math.isclose(battery.charge_pct(99).low, 100)
    assert battery.charge_pct(0).high == 0
