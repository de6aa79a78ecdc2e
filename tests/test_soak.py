"""A soak: the loop against a scanner that misbehaves at random times, twenty times as fast as in the field.

EDGE_SOAK_SECONDS sets how long: 8 s unless set, 180 s for an hour of the field's time.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from edge_runtime import journal
from edge_runtime.journal import Kind
from tests.conftest import RECORDINGS, cli, loop_command, process

SECONDS = float(os.environ.get("EDGE_SOAK_SECONDS", "8"))
RATE_HZ = 100  # five a second, twenty times as fast
MISHAPS = "garbage=37,cut=53,flip=71,abort=89,silence=433,unplug=211"
FLAT_KIB = 1024
EXPLAINED_US = 2_500_000


def resident_kib(pid: int) -> int:
    """What the process keeps in memory now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def read_journal(folder: Path) -> tuple[dict[int, int], list[int]]:
    """When which scan was captured, by the CRC of its powers; and when anything else happened."""
    answered, events_us = {}, []
    for record in journal.read(folder):
        if record.kind == Kind.VERDICT:
            verdict = journal.verdict_record(record.payload)
            answered[verdict.scan_crc32] = verdict.captured_us
        elif record.kind == Kind.EVENT:
            events_us.append(int(json.loads(record.payload)["at_us"]))
    return answered, events_us


def test_nothing_leaks_is_lost_or_stays_unexplained(demo_path: Path, tmp_path: Path) -> None:
    log = tmp_path / "rig.log"
    options = ["--rate", RATE_HZ, "--misbehave", MISHAPS, "--loop", "--log", log, "--recording", RECORDINGS]
    with process(cli("rig", "rf-explorer", *options)) as rig:
        assert rig.stdout is not None
        port = rig.stdout.readline().strip()
        with process(loop_command(demo_path, port, tmp_path, "--json", "--quiet")) as loop:
            memory = []
            until = time.monotonic() + SECONDS
            while time.monotonic() < until:
                time.sleep(SECONDS / 40)
                memory.append(resident_kib(loop.pid))
            loop.send_signal(signal.SIGTERM)
            out, err = loop.communicate(timeout=20)
    assert loop.returncode == 0, err
    assert out
    settled = memory[len(memory) // 4]
    assert max(memory[len(memory) // 4 :]) - settled < FLAT_KIB

    audit = journal.verify(tmp_path / "journal")
    assert audit.damage == []
    answered, events_us = read_journal(tmp_path / "journal")
    begun_us, ended_us = min(answered.values()), max(answered.values())
    rows = [line.split("\t") for line in log.read_text().splitlines()[1:]]
    sent = [(int(row[0]), int(row[4], 16)) for row in rows]
    unexplained = [
        us
        for us, crc in sent
        if begun_us <= us <= ended_us
        and crc not in answered
        and not any(abs(us - event) < EXPLAINED_US for event in events_us)
    ]
    assert unexplained == []
    assert len(answered) > 0.5 * len({crc for _, crc in sent})
    assert events_us
