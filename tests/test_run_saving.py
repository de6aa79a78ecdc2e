"""What `run` does to save energy, as its user runs it: a day's budget through kills, the board, the battery."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from edge_runtime import journal
from edge_runtime.bundle import Bundle
from edge_runtime.governor import Budget, Entry
from edge_runtime.governor.forecast import SLOTS
from edge_runtime.governor.in_the_loop import asked
from edge_runtime.journal import Kind
from edge_runtime.planning.work import work
from edge_runtime.power.modelled import loop_work
from edge_runtime.verdict import Rung
from tests.conftest import ROOT, loop_command, process, rig
from tests.sysfs_tree import AS_FOUND, TUNED, BatteryTree, make_board, state
from tests.test_history import Device

H_US = 3_600_000_000


def journaled(folder: Path) -> Iterator[tuple[int, Any]]:
    """Kinds and records of the journal, in order: verdicts unpacked, accounts unpacked, the rest as JSON."""
    if not journal.segments(folder / "journal"):
        return
    for frame in journal.read(folder / "journal"):
        if frame.kind == Kind.VERDICT:
            yield frame.kind, journal.verdict_record(frame.payload)
        elif frame.kind == Kind.BUDGET:
            yield frame.kind, Entry.unpack(frame.payload)
        elif frame.kind in (Kind.RUN, Kind.EVENT, Kind.END):
            yield frame.kind, json.loads(frame.payload)


def events(folder: Path, reason: str) -> list[dict[str, Any]]:
    """The journal's events of a reason."""
    return [row for kind, row in journaled(folder) if kind == Kind.EVENT and row["reason"] == reason]


def wait_for(what: Callable[[], bool], loop: subprocess.Popen[str], seconds: float = 30) -> None:
    """Until it is so, while the loop runs."""
    deadline = time.monotonic() + seconds
    while not what():
        assert loop.poll() is None, loop.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_day_keeps_its_budget_through_kills(demo_path: Path, tmp_path: Path) -> None:
    """Twenty-four hours in twelve seconds, two kills in between: the account goes on, and covers all that was run."""
    speed, budget_nj = 7200, 60_000_000
    words = ("--speed", speed, "--budget", "60mJ", "--hours", 24, "--quiet")
    begun = time.monotonic()
    with rig("--loop", "--splits", "test", rate_hz=180) as port:
        for until_s in (4.0, 8.0, 11.5):
            with process(loop_command(demo_path, port, tmp_path, *words)) as loop:
                while time.monotonic() - begun < until_s:
                    assert loop.poll() is None, loop.communicate()
                    time.sleep(0.02)
                loop.send_signal(signal.SIGTERM if until_s == 11.5 else signal.SIGKILL)
                loop.wait(timeout=20)
    costs = work(Bundle.open(demo_path), _board(), loop_work()).governed_costs
    entries, spent_nj = [], 0
    for kind, row in journaled(tmp_path):
        if kind == Kind.BUDGET:
            entries.append(row)
        elif kind == Kind.VERDICT and row.rung in (Rung.TREES, Rung.NETWORK):
            spent_nj += costs.screen_nj + costs.trees_nj
        elif kind == Kind.VERDICT and row.rung == Rung.SCREEN:
            spent_nj += costs.screen_nj
        assert spent_nj <= (entries[-1].ceiling_nj if entries else 0)
    assert len({entry.mission for entry in entries}) == 1
    assert all(entry.ceiling_nj <= entry.budget_nj == budget_nj for entry in entries)
    assert all(a.elapsed_us <= b.elapsed_us for a, b in pairwise(entries))
    assert 12 * H_US < entries[-1].elapsed_us < 24 * H_US
    heard = sum(kind == Kind.VERDICT for kind, _ in journaled(tmp_path))  # fewer on a busy machine
    assert spent_nj > min(budget_nj, heard * (costs.screen_nj + costs.trees_nj)) / 3
    refused = [row for kind, row in journaled(tmp_path) if kind == Kind.VERDICT and row.rung == Rung.NONE]
    assert refused
    starts = [row for kind, row in journaled(tmp_path) if kind == Kind.RUN]
    assert [row["speed"] for row in starts] == [speed] * 3
    assert not journal.verify(tmp_path / "journal").damage
    end = [row for kind, row in journaled(tmp_path) if kind == Kind.END][-1]["mission"]
    assert end["budget"]["spent_j"] == entries[-1].ceiling_nj / 1e9
    assert end["elapsed_s"] > 2 * 3600


def _board() -> Any:
    import hw_profiles  # noqa: PLC0415

    return hw_profiles.board("zero2w")


def test_the_board_is_turned_and_turned_back(demo_path: Path, tmp_path: Path) -> None:
    """By SIGTERM at the run's end; after SIGKILL at the next start, which need not ask for it."""
    tree = make_board(tmp_path / "sys")
    words = ("--sysfs", tree, "--quiet")
    tuned = (*words, "--tune", "cpu,leds,hdmi,radio")
    with rig("--loop") as port:
        with process(loop_command(demo_path, port, tmp_path, *tuned)) as loop:
            wait_for(lambda: state(tree) == TUNED, loop)
            loop.terminate()
            assert loop.wait(timeout=20) == 0
        assert state(tree) == AS_FOUND
        with process(loop_command(demo_path, port, tmp_path, *tuned)) as loop:
            wait_for(lambda: state(tree) == TUNED, loop)
            loop.kill()
            loop.wait()
        assert state(tree) == TUNED
        with process(loop_command(demo_path, port, tmp_path, *words, "--scans", 5)) as loop:
            assert loop.wait(timeout=20) == 0
    assert state(tree) == AS_FOUND
    said = [event["detail"] for event in events(tmp_path, "BOARD")]
    assert f"{tree}/devices/system/cpu/cpu3/online: 1 -> 0" in said
    assert said[-1] == "11 switches turned back that a killed run had left"


def test_a_board_that_may_not_be_turned_is_said_once(demo_path: Path, tmp_path: Path) -> None:
    tree = make_board(tmp_path / "sys")
    for n in (1, 2, 3):
        switch = tree / f"devices/system/cpu/cpu{n}/online"
        switch.unlink()
        switch.mkdir()
        (tree / f"devices/system/cpu/cpu{n}/cpufreq/scaling_available_governors").write_text("performance\n")
    with (
        rig() as port,
        process(
            loop_command(demo_path, port, tmp_path, "--sysfs", tree, "--tune", "cpu", "--scans", 5)
        ) as loop,
    ):
        out, _ = loop.communicate(timeout=20)
        assert loop.returncode == 0
    assert "the scanner at rest for 0% of it" in out
    assert "board idle" in out
    failed = [event for event in events(tmp_path, "BOARD") if "failed" in event]
    assert len(failed) == 1
    assert failed[0]["detail"].endswith("(and 2 more)")


def test_the_battery_steps_the_ladder_down_and_up(demo_path: Path, tmp_path: Path) -> None:
    """From 22 % to empty and, charged, back: verdicts keep to the rung that the last event allows."""
    tree, speed = tmp_path / "sys", 1200
    battery = BatteryTree(tree, 2500, 0.22, 2000)
    words = ("--sysfs", tree, "--speed", speed, "--charge", "22%", "--quiet")
    order = ["TREES", "SCREEN", "NONE", "SCREEN", "TREES", "NETWORK"]

    def limits() -> list[str]:
        return [event["limit"] for event in events(tmp_path, "CHARGE") if "%:" in event["detail"]]

    with (
        rig("--loop", "--splits", "test", rate_hz=100) as port,
        process(loop_command(demo_path, port, tmp_path, *words)) as loop,
    ):
        wait_for(lambda: bool(events(tmp_path, "CHARGE")), loop)
        with battery.running(speed):
            wait_for(lambda: limits() == order[:3], loop)
            battery.draw(-2000)
            wait_for(lambda: limits() == order, loop)
        loop.terminate()
        assert loop.wait(timeout=20) == 0
    assert any("a charger is on" in event["detail"] for event in events(tmp_path, "CHARGE"))
    allowed = {
        "NETWORK": set(Rung),
        "TREES": set(Rung) - {Rung.NETWORK},
        "SCREEN": {Rung.SCREEN, Rung.NONE, Rung.LAST_GOOD},
        "NONE": {Rung.NONE, Rung.LAST_GOOD},
    }
    limit, met = "NETWORK", dict.fromkeys(allowed, 0)
    for kind, row in journaled(tmp_path):
        if kind == Kind.EVENT and row["reason"] == "CHARGE":
            limit = row["limit"]
        elif kind == Kind.VERDICT:
            met[limit] += 1
            assert row.rung in allowed[limit]
    assert all(met.values()), met


def test_the_next_run_knows_the_charge(demo_path: Path, tmp_path: Path) -> None:
    """`auto`: as the journal left it; without journal and gauge, full."""
    shares = []
    with rig("--loop") as port:
        for words in (("12%",), ("auto",)):
            command = loop_command(
                demo_path, port, tmp_path, "--sysfs", tmp_path, "--charge", *words, "--scans", 30, "--json"
            )
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=True)
            charge = json.loads(done.stdout)["mission"]["charge"]
            shares.append(charge["share"])
            assert charge["limit"] == "TREES"
    assert shares == pytest.approx([0.12, 0.12], abs=0.001)


PROFILE = """\
kind = "board"
name = "quick"
title = "A board that starts in no time"
target = "aarch64"
rail_v = { range = [5, 5], basis = "assumed", source = "test" }
idle_mw = { range = [3000, 3000], basis = "assumed", source = "test" }
idle_tuned_mw = { range = [2900, 2900], basis = "assumed", source = "test" }
off_mw = { range = [1, 1], basis = "assumed", source = "test" }
boot_j = { range = [1, 1], basis = "assumed", source = "test" }
busy_core_mw = { range = [300, 600], basis = "assumed", source = "test" }
cores = { range = [4, 4], basis = "assumed", source = "test" }
clock_mhz = { range = [1000, 1000], basis = "assumed", source = "test" }
instructions_per_cycle = { range = [1, 1], basis = "assumed", source = "test" }
instruction_pj = "unknown"
wake_us = { range = [3, 30], basis = "assumed", source = "test" }

[sources]
test = "made up for a test"
"""


def test_the_board_goes_off_where_that_pays(
    demo_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alarm is set for the rest, the run ends in order, the command is run; where it does not pay, none of it."""
    (tmp_path / "profiles/board").mkdir(parents=True)
    (tmp_path / "profiles/board/quick.toml").write_text(PROFILE)
    monkeypatch.setenv("EDGE_PROFILES", str(tmp_path / "profiles"))
    tree = make_board(tmp_path / "sys")
    mark = tmp_path / "off"
    off = f"{sys.executable} -c \"open('{mark}', 'w')\""
    words = ("--sysfs", tree, "--limit", "60s:95%", "--power-off", off, "--quiet", "--scans", 30)
    alarm = tree / "class/rtc/rtc0/wakealarm"
    with rig("--loop", rate_hz=50) as port:
        run = ("--profile", "zero2w", "--speed", 5000)
        with process(loop_command(demo_path, port, tmp_path, *words, *run)) as loop:
            assert loop.wait(timeout=30) == 0
        assert not mark.exists()
        assert alarm.read_text().strip() == ""
        with process(loop_command(demo_path, port, tmp_path, *words, "--profile", "quick")) as loop:
            assert loop.wait(timeout=30) == 0
    assert mark.exists()
    assert 60 <= int(alarm.read_text()) <= 63
    assert [row for kind, row in journaled(tmp_path) if kind == Kind.END][-1]["scans"] == 9
    assert events(tmp_path, "DUTY")[-1]["detail"] == f"the board goes off for {int(alarm.read_text())} s"


def test_a_dry_run_says_and_does_nothing(demo_path: Path, tmp_path: Path) -> None:
    tree = make_board(tmp_path / "sys")
    words = (
        "--sysfs",
        tree,
        "--tune",
        "--limit",
        "2s:95%",
        "--budget",
        "1%",
        "--hours",
        24,
        "--charge",
        "80%",
    )
    command = loop_command(demo_path, "/nowhere", tmp_path, *words, "--dry-run")
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=True)
    assert "budget     1% = 209.2 J for inference in 24 h" in done.stdout
    assert "every 1.83 s; signals caught 96.9%" in done.stdout
    assert f"board      {tree}/devices/system/cpu/cpu1/online: 1 -> 0, and back" in done.stdout
    assert "rfkill" not in done.stdout
    assert "charge     80 +- 2 % at the start" in done.stdout
    assert state(tree) == AS_FOUND
    assert not (tmp_path / "journal").exists()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--limit", "2s"), "write 2s:95%"),
        (("--tune", "fan"), "choose of cpu"),
        (("--charge", "full"), "write 80%"),
        (("--speed", "0.1"), "give 1 to"),
        (("--speed", "60", "--meter", "power_supply"), "leave out one"),
        (("--power-off", "true"), "add --limit"),
        (("--budget", "1%"), "add --hours"),
        (("--budget", "400h"), "empties the battery"),
    ],
)
def test_bad_missions(words: tuple[str, ...], hint: str, demo_path: Path, tmp_path: Path) -> None:
    """One line that says what to do, before the port is opened or anything written."""
    command = loop_command(demo_path, "/nowhere", tmp_path, *words)
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 2
    assert hint in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "journal").exists()


def test_a_recording_cannot_be_paused(demo_path: Path, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"")
    command = loop_command(demo_path, tmp_path / "log", tmp_path, "--limit", "2s:95%")
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == "edge-runtime: --limit: what was recorded cannot be paused; leave it out\n"


def test_the_plan_is_what_earlier_missions_heard(demo_path: Path, tmp_path: Path) -> None:
    """From this journal and another's; killed, the mission goes on with the very same; with another length, none."""
    ask = asked(Bundle.open(demo_path), Budget(1, 24 * H_US, 5, "earlier"))

    def earlier(folder: Path, seed: int) -> None:
        device = Device(folder / "journal")
        device.start(ask)
        device.fly({slot: [1 + seed * slot, *[100] * (ask.bins - 1)] for slot in range(SLOTS)})
        device.writer.close()

    def fly(folder: Path, *more: object, hours: object = 24, kill: bool = False) -> dict[str, Any]:
        words = ("--budget", "60mJ", "--hours", hours, "--quiet", "--json", *more)
        with (
            rig("--loop", "--splits", "test", rate_hz=150) as port,
            process(loop_command(demo_path, port, folder, *words)) as loop,
        ):
            wait_for(lambda: bool(plans(folder)[known:]), loop)
            time.sleep(0.5)
            loop.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            out, _ = loop.communicate(timeout=20)
        plan: dict[str, Any] = {} if kill else json.loads(out)["mission"]["budget"]["plan"]
        return plan

    own, other, known = tmp_path / "own", tmp_path / "other", 1
    earlier(own, 1)
    earlier(other, 2)
    fly(own, "--plan-from", other / "journal", kill=True)
    begun = plans(own)[-1]
    assert begun["note"] == "learnt from 2 earlier missions"
    known = 2
    told = fly(own)
    assert told == {"missions": 2, "note": begun["note"], "trust": pytest.approx(63 / 64, abs=0.01)}
    assert plans(own)[-1] == begun
    heard = [f.payload for f in journal.read(own / "journal") if f.kind == Kind.HEARD]
    assert heard[-1][4:8] == begun["serial"].to_bytes(4, "little")
    known = 0
    (tmp_path / "third").mkdir()
    third = fly(tmp_path / "third", "--plan-from", own / "journal", hours=48)
    assert third == {
        "missions": 0,
        "note": "none: the 2 earlier missions known had another bundle or another length",
    }
    assert journal.verify(own / "journal").damage == []


def plans(folder: Path) -> list[dict[str, Any]]:
    """The journal's PLAN records."""
    if not journal.segments(folder / "journal"):
        return []
    return [json.loads(f.payload) for f in journal.read(folder / "journal") if f.kind == Kind.PLAN]
