"""The field's stages from end to end: real decoder, loop, journal, INA219 driver; a board of known energies."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.power.base import Source
from edge_runtime.power.field import lines
from edge_runtime.verdict import Rung
from tests.energy.field_bench import IDLE_A, TRUTH_J, VOLTS, Board, Way


def test_every_stage_is_found_under_drift_and_load_changes(tmp_path: Path) -> None:
    """Intervals are judged over many seeds in test_attribution; here that the counts are those of the work."""
    board = Board(tmp_path, 1)
    summary = board.run(12)
    stages = summary["stages"]
    assert list(stages) == ["idle", *TRUTH_J]
    for name, truth in TRUTH_J.items():
        row = stages[name]
        assert row["resolved"], row
        assert row["value"] == pytest.approx(truth, abs=3 * row["error"])
        assert row["error"] < 0.15 * truth
        assert "not_separable_from" not in row
    assert stages["network"]["value"] == pytest.approx(TRUTH_J["network"], rel=0.05)
    assert stages["sync"]["value"] == pytest.approx(TRUTH_J["sync"], rel=0.05)
    assert board.field.source is Source.MEASURED
    assert board.field.scans_uj.middle == pytest.approx(board.spent_j * 1e6, rel=0.02)
    assert board.charged[0][0] == Source.MODELLED
    assert board.charged[-1][0] == Source.MEASURED
    assert summary["counted"]["sync"] == board.journal.syncs - 1  # its end is after the meter's


def test_no_figure_is_surer_than_its_meter(tmp_path: Path) -> None:
    """However many windows: the shunt's tolerance stays, and after a clipped peak nothing is known."""
    board = Board(tmp_path, 1)
    board.run(6)
    field = board.field
    reading = field._last
    share = reading.uncertainty_j / reading.energy_j
    assert 0.015 < share < 0.03
    row = field.summary()["stages"]["network"]
    assert (row["interval"][1] - row["interval"][0]) / 2 > share * row["value"]
    assert field.source is Source.MEASURED
    field._last = reading._replace(uncertainty_j=float("inf"))
    field._solve()
    assert field.source is Source.MODELLED
    assert not any(stage["resolved"] for stage in field.summary()["stages"].values())


def test_stages_that_move_together_are_not_split_but_a_scan_has_its_figure(tmp_path: Path) -> None:
    """A clean port and no UNKNOWN: every scan is as many bytes received, and as many written."""
    board = Board(tmp_path, 2, Way(damaged=0, novel=0, syncs=0, other_w=0))
    summary = board.run(8)
    stages = summary["stages"]
    assert stages["serial"]["text"] == stages["journal"]["text"] == "not separable from screen"
    assert "value" not in stages["serial"]
    assert stages["screen"]["not_separable_from"] == ["serial", "journal"]
    a_scan = TRUTH_J["screen"] + 0.261 * TRUTH_J["serial"] + 0.065 * TRUTH_J["journal"]
    assert stages["screen"]["value"] == pytest.approx(a_scan, abs=3 * stages["screen"]["error"])
    assert stages["screen"]["text"].endswith("serial and journal included")
    assert board.field.source is Source.MEASURED
    assert board.charged[-1][0] == Source.MEASURED
    charge = board.field._charges[Rung.SCREEN]
    assert charge is not None
    assert charge.energy_nj == pytest.approx(a_scan * 1e9, rel=0.05)


def test_a_steady_scanner_says_that_idle_hides_its_scans(tmp_path: Path) -> None:
    board = Board(tmp_path, 3, Way(every_s=(0.2, 0.2), damaged=0, novel=0, syncs=0, other_w=0))
    summary = board.run(6)
    for name in ("screen", "serial", "journal"):
        assert "idle" in summary["stages"][name]["not_separable_from"]
        assert "value" not in summary["stages"][name]
    assert board.field.source is Source.MODELLED
    assert summary["stages"]["idle"]["value"] > IDLE_A * VOLTS
    text = "\n".join(lines(summary))
    assert "meter      ina219: " in text
    assert " J in " in text
    assert "  screen                   not separable from " in text
