"""The board's switches on a tree of files: turned, turned back, and what a killed run leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_runtime import board
from edge_runtime.board import GROUPS, NOTE, BoardControl, groups, wake_after
from edge_runtime.errors import BadInput, HardwareUnavailable
from tests.sysfs_tree import AS_FOUND, TUNED, make_board, state

LED, HDMI = "class/leds/ACT/trigger", "class/drm/card1-HDMI-A-1/status"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "journal").mkdir()
    return make_board(tmp_path)


def test_the_board_is_tuned_and_turned_back(tree: Path) -> None:
    """All groups; the display and the lamp, which do not read as they are written, too."""
    control = BoardControl(tree, tree / "journal")
    control.tune(list(GROUPS))
    assert state(tree) == TUNED
    assert [(tree / name).read_text() for name in (LED, HDMI)] == ["none", "off"]
    assert len(control.done) == len(TUNED) + 2
    assert control.failed == []
    assert control.restore() == len(control.done)
    assert state(tree) == AS_FOUND
    assert [(tree / name).read_text() for name in (LED, HDMI)] == ["mmc0", "detect"]
    assert not (tree / "journal" / NOTE).exists()
    assert control.restore() == 0


def test_only_what_was_named(tree: Path) -> None:
    """The radio may be how its user came in."""
    BoardControl(tree, tree / "journal").tune(groups(board.SAFE))
    assert state(tree) == TUNED | {"class/rfkill/rfkill0/soft": "0"}
    with pytest.raises(BadInput, match="choose of cpu, leds, hdmi, radio"):
        groups("cpu,fan")


def test_a_killed_run_is_cleaned_up_after(tree: Path) -> None:
    """The next control finds the note; what somebody has turned back meanwhile is left alone."""
    BoardControl(tree, tree / "journal").tune(["cpu"])
    (tree / "devices/system/cpu/cpu2/online").write_text("1")
    later = BoardControl(tree, tree / "journal")
    assert later.restore() == 7
    assert state(tree) == AS_FOUND
    assert later.failed == []


def test_a_note_from_before_the_last_boot_is_void(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Booting turned everything back; what was set since is the user's."""
    BoardControl(tree, tree / "journal").tune(["radio"])
    other = tree / "boot_id"
    other.write_text("another boot")
    monkeypatch.setattr(board, "BOOT_ID", other)
    assert BoardControl(tree, tree / "journal").restore() == 0
    assert state(tree)["class/rfkill/rfkill0/soft"] == "1"
    assert not (tree / "journal" / NOTE).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"found": [1]}'])
def test_a_note_that_is_none_turns_nothing(tree: Path, text: str) -> None:
    (tree / "journal" / NOTE).write_text(text)
    control = BoardControl(tree, tree / "journal")
    assert control.restore() == 0
    assert "cannot be read" in control.failed[0]


def test_what_may_not_be_switched_stays_and_is_said(tree: Path) -> None:
    """A governor that is not offered, a switch that is a folder (no write, even for root)."""
    cpus = tree / "devices/system/cpu"
    (cpus / "cpu1/cpufreq/scaling_available_governors").write_text("performance\n")
    (cpus / "cpu0/cpufreq/scaling_governor").unlink()
    (cpus / "cpu0/cpufreq/scaling_governor").mkdir()
    control = BoardControl(tree, tree / "journal")
    control.tune(["cpu"])
    assert len(control.failed) == 1
    assert "not powersave" in control.failed[0]
    assert state_of(cpus / "cpu3/online") == "0"
    (cpus / "cpu3/online").unlink()
    (cpus / "cpu3/online").mkdir()
    control.restore()
    assert "not turned back" in control.failed[-1]
    assert state_of(cpus / "cpu2/online") == "1"


def test_the_note_is_there_before_the_first_switch(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill at any write finds it; where it cannot be written, nothing is turned."""
    note = tree / "journal" / NOTE
    seen = []
    monkeypatch.setattr(board, "_write", lambda path, _: seen.append(json.loads(note.read_text())["found"]))
    BoardControl(tree, tree / "journal").tune(["cpu"])
    assert seen
    assert all(len(found) == 7 for found in seen)
    with pytest.raises(BadInput, match="writable --journal"):
        BoardControl(tree, tree / "nowhere").tune(["cpu"])


def test_the_alarm(tree: Path) -> None:
    alarm = tree / "class/rtc/rtc0/wakealarm"
    assert wake_after(tree, 90) == alarm
    assert alarm.read_text() == "+90"
    alarm.unlink()
    with pytest.raises(HardwareUnavailable, match="leave the board on"):
        wake_after(tree, 90)
    alarm.mkdir()
    with pytest.raises(HardwareUnavailable, match="run as root"):
        wake_after(tree, 90)


def state_of(path: Path) -> str:
    """A switch's value."""
    return path.read_text().strip()
