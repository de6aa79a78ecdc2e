"""The device loop as its user runs it: processes, a pseudo-terminal, signals, and the journal they leave."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from zlib import crc32

import pytest

from edge_runtime import journal
from edge_runtime.bundle import Bundle
from edge_runtime.governor import Entry
from edge_runtime.journal import Kind, VerdictRecord
from edge_runtime.power.base import Source
from edge_runtime.reasons import Reason
from edge_runtime.recording import Recording
from edge_runtime.scan import Scan
from edge_runtime.scanners.codes import in_python
from edge_runtime.verdict import Rung
from tests.conftest import RunLoop, cli, loop_command, powers, process, rig


def journaled(folder: Path) -> list[VerdictRecord]:
    frames = journal.read(folder / "journal")
    return [journal.verdict_record(f.payload) for f in frames if f.kind == Kind.VERDICT]


def test_every_verdict_is_the_bundles_own_to_the_bit(
    run_loop: RunLoop, demo_bundle: Bundle, demo_recording: Recording, tmp_path: Path
) -> None:
    with rig() as port:
        summary = run_loop(port, 200)
    records = journaled(tmp_path)
    assert len(records) == summary["scans"] == 200
    # By their CRC: where the machine is so busy that the loop drops scans, order alone would not tie them.
    sweeps = {crc32(sweep): sweep for sweep in map(powers, demo_recording.rows)}
    for record in records:
        own = demo_bundle.infer(Scan(sweeps[record.scan_crc32], demo_bundle.axis, 0))
        got = (record.label, record.best, record.reason, record.rung)
        assert got == (own.label, own.best, own.reason, own.rung)
        assert record.margin.hex() == own.margin.hex()
        assert (record.confidence_q16, record.novelty_q8) == (own.confidence_q16, own.novelty_q8)
    counts = summary["class_counts"]
    assert isinstance(counts, dict)
    assert sum(counts.values()) == 200


def test_energy_is_in_every_record_and_called_modelled(run_loop: RunLoop, tmp_path: Path) -> None:
    with rig() as port:
        summary = run_loop(port, 40, "--profile", "4b")
    assert summary["energy_source"] == "modelled"
    low, high = summary["energy_uj_per_inference_interval"]  # type: ignore[misc]
    each = [r.energy_nj / 1000 for r in journaled(tmp_path)]
    assert low <= sum(each) / len(each) <= high
    assert {r.energy_source for r in journaled(tmp_path)} == {Source.MODELLED}
    assert all(r.energy_sigma_nj > 0 and r.rail_mv == 5000 for r in journaled(tmp_path))


def test_a_kill_at_any_moment_leaves_every_reported_verdict_in_a_sound_journal(
    demo_path: Path, tmp_path: Path
) -> None:
    for number, seconds in enumerate((0.25, 0.4, 0.55, 0.7, 0.85)):
        folder = tmp_path / str(number)
        folder.mkdir()
        with (
            rig("--loop", rate_hz=180) as port,
            process(loop_command(demo_path, port, folder, "--quiet")) as loop,
        ):
            deadline = time.monotonic() + 20
            while not (folder / "verdicts.jsonl").exists() or not (folder / "verdicts.jsonl").stat().st_size:
                assert time.monotonic() < deadline, loop.stderr and loop.stderr.read()
                time.sleep(0.01)
            time.sleep(seconds)
            loop.send_signal(signal.SIGKILL)
            loop.wait()
        done = subprocess.run(cli("journal", "verify", folder / "journal"), capture_output=True, check=False)
        assert done.returncode == 0, done.stdout
        reported = [
            json.loads(line)["sequence"] for line in (folder / "verdicts.jsonl").read_text().splitlines()
        ]
        assert len(reported) > 10
        assert set(reported) <= {r.sequence for r in journaled(folder)}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_loop_with_its_summary(demo_path: Path, tmp_path: Path, number: int) -> None:
    with rig("--loop") as port, process(loop_command(demo_path, port, tmp_path, "--json")) as loop:
        verdicts = tmp_path / "verdicts.jsonl"
        while not verdicts.exists() or verdicts.read_bytes().count(b"\n") < 20:
            assert loop.poll() is None
            time.sleep(0.02)
        loop.send_signal(number)
        out, err = loop.communicate(timeout=10)
    assert (loop.returncode, err) == (0, "")
    summary = json.loads(out)
    assert summary["scans"] == len(journaled(tmp_path)) >= 20
    kinds = [f.kind for f in journal.read(tmp_path / "journal")]
    assert (kinds[0], kinds[-1]) == (Kind.RUN, Kind.END)


def test_damage_silence_and_an_unplugged_cable_are_counted_and_survived(
    run_loop: RunLoop, tmp_path: Path
) -> None:
    with rig("--loop", "--misbehave", "garbage=7,cut=11,abort=13,unplug=40") as port:
        summary = run_loop(port, 150)
    assert summary["scans"] == 150
    events = summary["events"]
    assert isinstance(events, dict)
    assert {"GARBAGE", "TRUNCATED", "ABORTED", "UNPLUGGED", "RECONNECTED"} <= events.keys()
    assert not journal.verify(tmp_path / "journal").damage
    reasons = [
        json.loads(f.payload)["reason"] for f in journal.read(tmp_path / "journal") if f.kind == Kind.EVENT
    ]
    assert sum(events.values()) == len(reasons)


def test_unknown_sweeps_are_kept_for_labelling(
    run_loop: RunLoop, demo_recording: Recording, tmp_path: Path
) -> None:
    with rig("--splits", "unknown") as port:
        run_loop(port, 60)
    records = {r.sequence: r for r in journaled(tmp_path)}
    kept = {
        int.from_bytes(f.payload[:4], "little"): f.payload[4:]
        for f in journal.read(tmp_path / "journal")
        if f.kind == Kind.SCAN
    }
    unknown = {s for s, r in records.items() if r.reason in (Reason.NOVEL, Reason.AMBIGUOUS)}
    assert unknown
    assert kept.keys() == unknown
    assert all(len(power) == 512 for power in kept.values())


def test_the_log_is_shown_and_exported(run_loop: RunLoop, tmp_path: Path) -> None:
    with rig() as port:
        run_loop(port, 30)
    folder = tmp_path / "journal"

    def out(*arguments: object) -> str:
        return subprocess.run(cli("journal", *arguments), capture_output=True, text=True, check=True).stdout

    lines = [json.loads(line) for line in out("export", folder).splitlines()]
    assert [line["sequence"] for line in lines] == list(range(30))
    assert len(out("export", "--format", "csv", folder).splitlines()) == 31
    rows = json.loads(out("show", "--json", folder))
    assert [r for r in rows if r["kind"] == "VERDICT"] == [{"kind": "VERDICT"} | line for line in lines]
    assert len(out("show", folder).splitlines()) == len(rows)


def test_a_budget_is_kept_through_restarts_and_told_in_the_verdicts(
    run_loop: RunLoop, tmp_path: Path
) -> None:
    """Two runs of one mission that can pay for the trees on some scans and not on others."""
    words = ("--budget", "8mJ", "--hours", "0.003")
    for _ in range(2):
        with rig("--splits", "test") as port:
            summary = run_loop(port, 120, *words)
        refused = summary["refused"]
        assert isinstance(refused, dict)
        assert refused["OVER_BUDGET"] > 0
    records = journaled(tmp_path)
    assert {r.rung for r in records} >= {Rung.TREES, Rung.LAST_GOOD}
    entries = [Entry.unpack(f.payload) for f in journal.read(tmp_path / "journal") if f.kind == Kind.BUDGET]
    spent = max(entry.ceiling_nj for entry in entries)
    assert 0 < spent <= 8_000_000
    assert len({entry.mission for entry in entries}) == 1


def test_the_artifacts_way_from_codes_to_powers_is_the_plain_one(
    demo_bundle: Bundle, demo_recording: Recording
) -> None:
    assert demo_bundle.engine.expander is not in_python
    for row in demo_recording.rows[:20]:
        for points in (len(row.codes), 100, 0):
            expand = demo_bundle.engine.expander(points, -50, -700)
            assert expand(row.codes[:points]) == in_python(points, -50, -700)(row.codes[:points])
