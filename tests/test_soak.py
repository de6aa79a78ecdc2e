"""A soak: the loop against a scanner that misbehaves at random times, twenty times as fast as in the field.

Whenever it is unplugged, it comes back under another name, and a stranger takes the name it had.

EDGE_SOAK_SECONDS sets how long: 8 s unless set, 180 s for an hour of the field's time.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_runtime import journal
from edge_runtime.journal import Kind
from edge_runtime.reasons import Reason
from tests.conftest import RECORDINGS, cli, loop_command, process
from tests.usb_rig import UsbTree

SECONDS = float(os.environ.get("EDGE_SOAK_SECONDS", "8"))
RATE_HZ = 100  # five a second, twenty times as fast
MISHAPS = "garbage=37,cut=53,flip=71,abort=89,silence=433,unplug=211"
FLAT_KIB = 1024
EXPLAINED_US = 2_500_000


def resident_kib(pid: int) -> int:
    """What the process keeps in memory now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def read_journal(folder: Path) -> tuple[dict[int, int], list[tuple[int, str, str]]]:
    """When which scan was captured, by the CRC of its powers; and what else happened: time, reason, detail."""
    answered, events = {}, []
    for record in journal.read(folder):
        if record.kind == Kind.VERDICT:
            verdict = journal.verdict_record(record.payload)
            answered[verdict.scan_crc32] = verdict.captured_us
        elif record.kind == Kind.EVENT:
            event = json.loads(record.payload)
            events.append((int(event["at_us"]), event["reason"], event["detail"]))
    return answered, events


class Renamer:
    """Gives a rig's port a new name at each unplugging. names: all it had. stranger: the other device's end."""

    def __init__(self, tree: UsbTree, port: Path) -> None:
        self._tree, self._port = tree, port
        self.names = [str(tree.plug("ttyUSB0", "0001", port))]
        self.stranger, self._slave = os.openpty()
        os.set_blocking(self.stranger, False)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Do so until the block ends."""
        self._thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            self._thread.join()

    def _watch(self) -> None:
        while not self._stopping.wait(0.005):
            if self._port.is_symlink():
                continue
            count = len(self.names)
            if count > 1:
                self._tree.unplug(f"ttyUSB{count - 2}")
            self._tree.unplug(f"ttyUSB{count - 1}")
            self._tree.plug(f"ttyUSB{count - 1}", "0002", os.ttyname(self._slave))
            while not self._port.is_symlink() and not self._stopping.wait(0.005):
                pass
            self.names.append(str(self._tree.plug(f"ttyUSB{count}", "0001", self._port)))

    def strangers_bytes(self) -> bytes:
        """What was written to the stranger."""
        try:
            return os.read(self.stranger, 4096)
        except BlockingIOError:
            return b""
        finally:
            os.close(self.stranger)
            os.close(self._slave)


def test_nothing_leaks_is_lost_or_stays_unexplained(demo_path: Path, tmp_path: Path) -> None:
    log = tmp_path / "rig.log"
    options = ["--rate", RATE_HZ, "--misbehave", MISHAPS, "--loop", "--log", log, "--recording", RECORDINGS]
    with process(cli("rig", "rf-explorer", *options)) as rig:
        assert rig.stdout is not None
        renamer = Renamer(UsbTree(tmp_path), Path(rig.stdout.readline().strip()))
        words = loop_command(demo_path, renamer.names[0], tmp_path, "--json", "--quiet")
        command = [sys.executable, "-m", "tests.usb_rig", str(tmp_path), *words[words.index("run") :]]
        with renamer.watching(), process(command) as loop:
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
    answered, events = read_journal(tmp_path / "journal")
    begun_us, ended_us = min(answered.values()), max(answered.values())
    rows = [line.split("\t") for line in log.read_text().splitlines()[1:]]
    sent = [(int(row[0]), int(row[4], 16)) for row in rows]
    unexplained = [
        us
        for us, crc in sent
        if begun_us <= us <= ended_us
        and crc not in answered
        and not any(abs(us - event_us) < EXPLAINED_US for event_us, _, _ in events)
    ]
    assert unexplained == []
    assert len(answered) > 0.5 * len({crc for _, crc in sent})
    followed = {detail for _, reason, detail in events if reason == Reason.RECONNECTED.name}
    assert followed & set(renamer.names[1:])
    assert renamer.strangers_bytes() == b""
    print(
        f"{SECONDS:g} s: {len(sent)} whole sweeps, {sum(json.loads(out)['class_counts'].values())} verdicts, "
        f"{len(events)} events, {len(renamer.names) - 1} renames, {len(followed & set(renamer.names))} followed, "
        f"{sum(crc not in answered for _, crc in sent)} not answered and explained; "
        f"memory {settled} KiB, at most {max(memory[len(memory) // 4 :]) - settled} KiB more"
    )
