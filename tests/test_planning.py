"""`plan` and `replay` on the demo's bundle and on logs written here."""

from __future__ import annotations

import json
import time
import xml.etree.ElementTree as ET
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

import hw_profiles
from edge_runtime import console, journal, mission
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BadInput
from edge_runtime.governor import Budget, Calibration, Costs, Trial
from edge_runtime.governor.forecast import SLOTS
from edge_runtime.governor.in_the_loop import asked
from edge_runtime.journal import Kind, VerdictRecord
from edge_runtime.planning import arrivals, flight, plan, replay, report, svg
from edge_runtime.planning.work import PARTS, work
from edge_runtime.power.modelled import loop_work
from edge_runtime.verdict import Rung
from tests.test_history import Device


def parse(module: Any, *words: object) -> Namespace:
    """The command's arguments as its own parser gives them."""
    parser = console.Parser(prog="test")
    module.add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


@pytest.fixture(scope="module")
def document(demo_path: Path) -> dict[str, Any]:
    """The demo mission's plan."""
    return plan.plan(parse(plan, "--bundle", demo_path, "--battery", "lipo", "--hours", 24))


def test_a_day_is_planned_in_five_seconds(document: dict[str, Any]) -> None:
    """A day of sweeps through the real governor, and every power with a name."""
    assert document["simulated_s"] < 5
    assert document["governor"]["scans"] == pytest.approx(86_400 / document["duty"]["period_s"], rel=0.02)
    assert [row["way"] for row in document["ways"]][-1] == "always, no model"
    for row in document["ways"]:
        assert set(row["parts_mw"]) == set(PARTS)
        low = sum(ends[0] for ends in row["parts_mw"].values())
        assert row["total_mw"][0] == pytest.approx(low)
        assert row["life_h"][0] <= row["life_h"][1]
    json.dumps(document)


def test_the_goals_of_the_demo_mission(document: dict[str, Any]) -> None:
    """1.5 times the life at the middle of the ranges, the model below 1 % at five sweeps a second, the limit kept."""
    ratio = document["life_ratio_to_always_without_model"]["as planned"]
    assert ratio["nominal"] >= 1.5
    assert ratio["low"] < ratio["nominal"] < ratio["high"]
    assert 0 < document["model_share_at_rate"][1] <= 0.01
    assert document["ways"][0]["signals_caught"] >= 0.95 - 1e-4
    assert document["duty"]["caught"] >= 0.95 - 1e-9


def test_each_goal_and_each_lever_has_its_line(document: dict[str, Any]) -> None:
    """The levers add up to what is saved; the goals say whether they are met; the last line carries it out."""
    ways = {row["way"]: sum(map(sum, row["parts_mw"].values())) / 2 for row in document["ways"]}
    saved_mw = ways["always, no model"] - ways["governor"]
    assert sum(row["saved_mw"] for row in document["levers"]) == pytest.approx(saved_mw)
    assert sum(row["share"] for row in document["levers"]) == pytest.approx(1)
    assert max(document["levers"], key=lambda row: row["share"])["lever"] == "board tuning"
    for row in document["levers"]:
        low, high = row["interval_mw"]
        assert low <= row["saved_mw"] <= high
    assert [row["met"] for row in document["goals"]] == [True] * 4
    lines = list(report.lines(document))
    assert sum(line.startswith("met ") for line in lines) == 4
    assert "--limit 2s:95%" in document["run_with"]
    assert document["run_with"] in "\n".join(lines)


def test_a_missed_goal_is_said(demo_path: Path) -> None:
    """A scanner that never pauses, on a battery of its own, with a limit it cannot miss: the rest stands as it is."""
    document = plan.plan(parse(plan, "--bundle", demo_path, "--profile", "4b", "--no-pause"))
    assert not document["goals"][0]["met"]
    assert "missed  life" in "\n".join(report.lines(document))


@pytest.mark.parametrize(
    "words", [("--budget", "12h"), ("--budget", "12h", "--own-battery"), ("--budget", "2%")]
)
def test_plan_and_run_mean_the_same_budget(
    words: tuple[str, ...], demo_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the joule, a run time to reach included."""
    options = (
        "--bundle",
        demo_path,
        "--battery",
        "power-bank-20000",
        *words,
        "--limit",
        "2s:95%",
        "--hours",
        24,
    )
    planned = plan.plan(parse(plan, *options))["budget"]["joules"]
    running = ("--port", "-", "--tune", "cpu,leds,hdmi,radio", "--sysfs", "/nowhere", "--dry-run")
    assert mission.run(parse(mission, *options, *running)) == 0
    assert f"= {planned:.4g} J" in capsys.readouterr().out


def test_without_pauses_all_comes_from_the_board(demo_path: Path) -> None:
    """A scanner on its own battery that never pauses: the ratio is that of the board's tuning, nothing hidden."""
    words = ("--bundle", demo_path, "--own-battery", "--no-pause")
    ratios = plan.plan(parse(plan, *words))["life_ratio_to_always_without_model"]
    # The model's own energy is the rest: less than half a per cent.
    assert ratios["as planned"]["nominal"] == pytest.approx(ratios["tuned board alone"]["nominal"], rel=5e-3)
    assert ratios["pauses alone"]["nominal"] == pytest.approx(1.0, rel=5e-3)


def test_unknown_powers_stay_unknown(demo_path: Path) -> None:
    """The tinySA's power is not published: no life is made up, and the plan says what is missing."""
    document = plan.plan(parse(plan, "--bundle", demo_path, "--scanner", "tinysa"))
    assert document["life_ratio_to_always_without_model"]["as planned"]["nominal"] is None
    assert any("unknown" in why for why in document["duty"]["why"])
    assert "unknown" in "\n".join(report.lines(document))
    assert "scanner unknown" in report.plot(document)


def test_for_people(
    document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], demo_path: Path
) -> None:
    """Table and plot: every way and part is in both, the plot is well-formed."""
    picture = tmp_path / "plan.svg"
    assert plan.run(parse(plan, "--bundle", demo_path, "--battery", "lipo", "--plot", picture)) == 0
    text = capsys.readouterr().out
    root = ET.fromstring(picture.read_text())
    drawn = "".join(root.itertext())
    for row in document["ways"]:
        assert row["way"] in text
        assert row["way"] in drawn
    for part in PARTS:
        assert part in text
        assert part in drawn
    assert "nothing here was measured" in text


def test_bars_are_to_scale() -> None:
    """Widths are as the values; names are escaped."""
    root = ET.fromstring(
        svg.stacked_bars("a & b", "mW", [("<x>", "n", {"p": 1.0, "q": 3.0}), ("y", "", {"p": 2.0})])
    )
    bars = [r for r in root.iter("{http://www.w3.org/2000/svg}rect") if len(r)]
    widths = [float(r.attrib["width"]) for r in bars]
    assert widths[1] == pytest.approx(3 * widths[0], abs=0.02)
    assert widths[2] == pytest.approx(2 * widths[0], abs=0.02)
    assert bars[0].attrib["fill"] == bars[2].attrib["fill"]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--hours", 0), "at most"),
        (("--budget", "lots"), "write 1%"),
        (("--limit", "100ms:95%"), "at best"),
        (("--active", 0.9), "0 to 0.5"),
        (("--profile", "cortex-m4"), "cortex-m4"),
        (("--budget", "1000h"), "empties the battery"),
        (("--log", "/nowhere"), "/nowhere"),
        (("--plot", "/nowhere/x.svg"), "choose another"),
    ],
)
def test_bad_plans(words: tuple[object, ...], hint: str, demo_path: Path) -> None:
    """One line that says what to do."""
    with pytest.raises(BadInput, match=hint):
        plan.run(parse(plan, "--bundle", demo_path, "--json", *words))


# Replay


def write_log(directory: Path, rungs: list[tuple[Rung, int]]) -> None:
    """A journal of verdicts, five a second; each (rung, label)."""
    writer = journal.JournalWriter(directory)
    for n, (rung, label) in enumerate(rungs):
        record = VerdictRecord(
            n, 200_000 * n, 900, n, label, label, 0, rung, 1, 0, 0, 5000, 20_000, 5_000, 1.0
        )
        writer.append(Kind.VERDICT, journal.VERDICT.pack(*record))
    writer.close()


def test_replay_on_a_real_log(demo_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Forty loud scans among a thousand quiet ones: each policy's cost and misses, exactly where they are known."""
    quiet, loud = (Rung.SCREEN, 7), (Rung.TREES, 2)
    write_log(tmp_path / "log", ([quiet] * 250 + [loud] * 10) * 4)
    words = [
        w for p in ("always", "screen", "never", "every:4", "bucket", "governor") for w in ("--policy", p)
    ]
    document = replay.replay(parse(replay, tmp_path / "log", "--bundle", demo_path, *words))
    rows = {row["policy"]: row for row in document["policies"]}
    assert document["log"]["scans"] == 1040
    assert rows["always"]["trees"] == 1040
    assert rows["screen"]["trees"] == 40
    assert rows["never"]["inference_j"] == 0
    assert rows["every:4"]["screened"] == 260
    assert {row["changes"] for row in rows.values()} == {4}
    assert rows["always"]["missed"] == rows["screen"]["missed"] == 0
    assert rows["never"]["missed"] == 4
    assert rows["governor"]["inference_j"] <= document["budget_j"]
    assert replay.run(parse(replay, tmp_path / "log", "--bundle", demo_path)) == 0
    assert "governor" in capsys.readouterr().out
    planned = plan.plan(parse(plan, "--bundle", demo_path, "--log", tmp_path / "log"))
    assert "1040 scans" in planned["governor"]["arrivals"]
    with pytest.raises(BadInput, match="choose of governor"):
        replay.replay(parse(replay, tmp_path / "log", "--bundle", demo_path, "--policy", "best"))
    write_log(tmp_path / "empty", [])
    with pytest.raises(BadInput, match="no verdict"):
        replay.replay(parse(replay, tmp_path / "empty", "--bundle", demo_path))


def test_replay_prices_the_network_apart(demo_path: Path, tmp_path: Path) -> None:
    """As the loop has it, the network follows the trees where the log says so, whatever the policy; to the joule."""
    quiet, trees, network = (Rung.SCREEN, 7), (Rung.TREES, 2), (Rung.NETWORK, 3)
    write_log(tmp_path / "log", ([quiet] * 20 + [trees] * 3 + [network] * 2) * 8)
    bundle = Bundle.open(demo_path)
    costs = work(bundle, hw_profiles.board("zero2w"), loop_work()).costs
    words = [w for p in ("always", "screen", "never", "every:2", "governor") for w in ("--policy", p)]
    document = replay.replay(parse(replay, tmp_path / "log", "--bundle", demo_path, *words))
    rows = {row["policy"]: row for row in document["policies"]}
    assert costs.network_nj > 0
    assert [rows[p]["network"] for p in ("always", "screen", "never", "every:2")] == [16, 16, 0, 8]
    for row in rows.values():
        assert row["network_j"] == row["network"] * costs.network_nj / 1e9
        assert row["trees_j"] == row["trees"] * costs.trees_nj / 1e9
        assert row["inference_j"] == pytest.approx(row["screen_j"] + row["trees_j"] + row["network_j"])
    assert rows["governor"]["inference_j"] <= document["budget_j"]
    assert rows["always"]["missed"] == 0
    table = list(replay.lines(document))
    assert table[2].split()[4:7] == ["screen_j", "trees_j", "network_j"]
    assert len({len(line) for line in table[2:-1]}) == 1


def test_plan_flies_with_what_was_learnt(demo_path: Path, tmp_path: Path) -> None:
    """From a journal of a mission as long; of another length, or of none, without, and it says so."""
    ask = asked(Bundle.open(demo_path), Budget(1, 24 * 3_600_000_000, 1, "earlier"))
    device = Device(tmp_path / "log")
    device.start(ask)
    device.fly({slot: [slot, *[100] * (ask.bins - 1)] for slot in range(SLOTS)})
    device.writer.close()
    told = {}
    for hours in (24, 12):
        words = ("--bundle", demo_path, "--hours", hours, "--plan-from", tmp_path / "log")
        document = plan.plan(parse(plan, *words))
        told[hours] = document["governor"]["plan"]
        assert f"--plan-from {tmp_path / 'log'}" in document["run_with"]
        assert told[hours] in "\n".join(report.lines(document))
    assert told[24] == "learnt from 1 earlier mission"
    assert "another length" in told[12]
    with pytest.raises(BadInput, match=r"--plan-from .*none: no journal there"):
        plan.plan(parse(plan, "--bundle", demo_path, "--plan-from", tmp_path / "none"))


def test_flights_keep_their_budget() -> None:
    """Governor and bucket under a budget of a twentieth of always-on, a million scans a minute to spare."""
    costs = Costs(1_000, 26_000, 448_000)
    trials = [Trial(255 * (n % 4 == 0), n % 256, n % 8 == 0, n % 16 == 0) for n in range(400)]
    heard = arrivals.by_chance(20_000, 200_000, 0.2)
    budget = Budget(costs.always_nj * 1000, 20_000 * 200_000, 0, "test")
    begun = time.monotonic()
    for policy in ("governor", "bucket"):
        flown = flight.fly(policy, heard, budget, Calibration.count(trials), costs)
        assert flown.spent_nj(costs) <= budget.energy_nj
        assert 0 < flown.got <= flown.changes
    assert time.monotonic() - begun < 20
