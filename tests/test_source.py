"""A source on a real pseudo-terminal: wake-ups, silence, unplugging, renames, back-pressure."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from zlib import crc32

import pytest

from edge_runtime.reasons import Reason
from edge_runtime.rig.rf_explorer import RFExplorerEmulator
from edge_runtime.scan import Axis, Happening, Scan
from edge_runtime.scanners.base import Configuration
from edge_runtime.scanners.rf_explorer import RFExplorer, same_span
from edge_runtime.source import QUEUE, Source, open_source
from tests.rig_run import (
    AXIS,
    KINDS,
    Running,
    clock_us,
    collect,
    count_scans,
    crc,
    only,
    powers,
    reasons,
    recording,
    running,
)
from tests.usb_rig import Links, UsbTree

SMALL = Axis(433_795_000, 1000, 112)
HELD = 6
"""So many sweeps a pseudo-terminal holds (4,096 bytes), whatever keeps their reader; and they are no OVERRUN."""


def opened(rig: Running, axis: Axis = AXIS) -> Source:
    """A source on an RF Explorer that is asked for `axis`."""
    return Source(rig.port, RFExplorer(axis), clock_us)


def scans_of(source: Source, count: int) -> list[Scan]:
    return list(islice((item for item in source if type(item) is Scan), count))


@pytest.mark.parametrize("name", KINDS)
def test_every_sweep_arrives_bit_for_bit_and_the_scanner_is_named_in_the_journal(name: str) -> None:
    emulator, axis = KINDS[name]
    with (
        running(emulator, recording(HELD, axis), 40) as rig,
        open_source(rig.port, name, axis, clock_us) as source,
    ):
        items = collect(source, lambda items: count_scans(items) == HELD)
    scans = only(items)  # the log is read when the rig has ended: it writes a sweep's line after the sweep
    assert [crc(scan) for scan in scans] == [row[4] for row in rig.log]
    assert all(scan.axis == axis and scan.measured_us <= scan.captured_us for scan in scans)
    told = reasons(items)
    assert Reason.IDENTIFIED in told
    assert Reason.CONFIGURED in told
    assert not [reason for reason in told if reason < Reason.IDENTIFIED]


RIG = """
import sys, threading
from tests.rig_run import recording, running
from edge_runtime.rig.rf_explorer import RFExplorerEmulator
with running(RFExplorerEmulator, recording(300, plain=True), 100, loop=True) as rig:
    print(rig.port, flush=True)
    sys.stdin.read()
    for row in rig.log:
        print(row[0], row[4])
"""


@pytest.fixture
def rig_process() -> Iterator[subprocess.Popen[str]]:
    """A rig in a process of its own, so that this process does nothing but what a device does."""
    command = [sys.executable, "-c", RIG]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=Path(__file__).parents[1], **pipes) as process:  # type: ignore[call-overload]
        yield process
        process.stdin.close()


def overslept_us() -> int:
    """By how much this machine, as busy as it is now, oversleeps: the ninth of ten."""
    late = []
    for _ in range(50):
        began = clock_us()
        time.sleep(0.001)
        late.append(clock_us() - began - 1000)
    return sorted(late)[45]


def test_one_wake_up_a_frame_and_a_scan_within_5_ms(rig_process: subprocess.Popen[str]) -> None:
    assert rig_process.stdout is not None
    port = rig_process.stdout.readline().strip()
    with open_source(port, "rf-explorer", AXIS, clock_us) as source:
        scans = (item for item in source if type(item) is Scan)
        for _ in islice(scans, 20):
            pass
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        arrived = {crc(scan): scan.captured_us for scan in islice(scans, 200)}
        wake_ups = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before
    # One each; a busy machine delivers some frames in two pieces. Reading as bytes come takes thousands.
    assert wake_ups <= 400

    told, _ = rig_process.communicate()
    left: dict[str, list[int]] = {}
    for row in told.splitlines():
        left.setdefault(row.split()[1], []).append(int(row.split()[0]))
    # A stalled machine overflows the pseudo-terminal; with no checksum, halves of two sweeps can pass as one.
    whole = {key: us for key, us in arrived.items() if key in left}
    assert len(whole) >= 0.98 * len(arrived)
    late_us = sorted(us - max(t for t in left[key] if t <= us) for key, us in whole.items())
    assert late_us[0] >= 0
    # The median, on any machine, and what it adds to any sleep: scripts/bench_scanners tells the tail.
    assert late_us[len(late_us) // 2] < 5000 + 4 * overslept_us()


def test_a_stop_ends_a_waiting_source_at_once() -> None:
    with (
        running(RFExplorerEmulator, recording(3), 1000) as rig,
        opened(rig) as source,
    ):
        threading.Timer(0.3, source.stop).start()
        began = time.monotonic()
        assert count_scans(list(source)) == 3
        assert 0.2 < time.monotonic() - began < 5  # it would wait for 10 s and more


def test_an_unplugged_scanner_is_waited_for_and_comes_back() -> None:
    played = recording(59)  # the sixtieth would be an unplugging
    last = f"{crc32(powers(played.rows[-1].codes)):08x}"
    with running(RFExplorerEmulator, played, 40, "unplug=20") as rig, opened(rig) as source:
        items = collect(source, lambda items: bool(only(items)) and crc(only(items)[-1]) == last)
    told = reasons(items)
    assert told.count(Reason.UNPLUGGED) >= 2
    assert told.count(Reason.RECONNECTED) >= 2
    heard, sent = [crc(scan) for scan in only(items)], [row[4] for row in rig.log]
    assert heard == [key for key in sent if key in heard]
    assert len(sent) - len(heard) <= 30  # what a pseudo-terminal held when the plug was pulled, twice


def test_silence_is_told_once_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RFExplorer, "silent_us", 800_000)
    with (
        running(RFExplorerEmulator, recording(30), 100, "silence=14", loop=True) as rig,
        opened(rig) as source,
    ):
        items = collect(
            source, lambda items: reasons(items).count(Reason.RECONNECTED) == 2 and type(items[-1]) is Scan
        )
    told = [reason for reason in reasons(items) if reason in (Reason.SILENT, Reason.RECONNECTED)]
    assert told == 2 * [Reason.SILENT, Reason.RECONNECTED]  # once in two seconds, which are twice too long
    assert count_scans(items) >= 10
    assert Reason.UNPLUGGED not in reasons(items)


def test_a_port_that_stays_silent_is_opened_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RFExplorer, "silent_us", 250_000)
    with (
        running(RFExplorerEmulator, recording(15), 100, "silence=10", loop=True) as rig,
        opened(rig) as source,
    ):
        anew = Happening(Reason.UNPLUGGED, "silent, opened anew")
        items = collect(source, lambda items: anew in items and type(items[-1]) is Scan)
    assert count_scans(items) >= 10
    assert reasons(items).count(Reason.RECONNECTED) >= 1


def test_a_paused_scanner_is_not_called_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RFExplorer, "silent_us", 700_000)
    with (
        running(RFExplorerEmulator, recording(2000), 200, loop=True) as rig,
        Source(rig.port, RFExplorer(AXIS), clock_us) as source,
    ):
        scans_of(source, 5)
        source.sleep()
        threading.Timer(1.7, source.wake).start()
        items = collect(source, lambda items: count_scans(items) == 40)
        collect(source, lambda _items: len(rig.log) > 60)
    assert Reason.SILENT not in reasons(items)
    left_us = [int(row[0]) for row in rig.log]
    assert max(later - sooner for sooner, later in pairwise(left_us)) > 1_400_000


def test_a_loop_that_is_behind_loses_the_oldest_and_counts_them() -> None:
    small = Axis(433_795_000, 1000, 32)
    with (
        running(RFExplorerEmulator, recording(400, small), 200) as rig,
        Source(rig.port, RFExplorer(small), clock_us) as source,
    ):
        scans_of(source, 10)
        time.sleep(0.2)  # forty sweeps, a third of what the pseudo-terminal holds
        items = collect(
            source, lambda items: Reason.OVERRUN in reasons(items) and count_scans(items) > 4 * QUEUE
        )
    heard = [crc(scan) for scan in only(items)]
    lost = sum(int(i.detail.split()[0]) for i in items if type(i) is Happening and i.reason == Reason.OVERRUN)
    sent = [row[4] for row in rig.log]
    assert lost > 0
    assert heard == [c for c in sent if c in heard]  # in order
    first = sent.index(heard[0])
    assert len(heard) + lost >= sent.index(heard[-1]) + 1 - first


def test_the_configuration_wanted_is_asked_for_and_read_back() -> None:
    with (
        running(RFExplorerEmulator, recording(50), 100, loop=True) as rig,
        Source(rig.port, RFExplorer(SMALL), clock_us) as source,
    ):
        collect(source, lambda items: bool(only(items)) and only(items)[-1].axis.points == SMALL.points)
        assert isinstance(source.configuration, Configuration)
        assert same_span(source.configuration.axis, SMALL)
        assert source.identity.serial == "EDGERIG000000001"


def test_a_device_that_comes_back_under_another_name_is_followed(tmp_path: Path) -> None:
    tree, usb = UsbTree(tmp_path), Links(tmp_path)
    with (
        running(RFExplorerEmulator, recording(60), 100, "unplug=20", loop=True) as first,
        running(RFExplorerEmulator, recording(60, seed=2), 100, loop=True) as second,
    ):
        old = str(tree.plug("ttyUSB0", "0001", first.port))
        assert usb.identity(old) == "10c4:ea60:0001"
        with Source(old, RFExplorer(AXIS), clock_us, usb=usb) as source:
            scans_of(source, 3)
            tree.unplug("ttyUSB0")
            new = str(tree.plug("ttyUSB7", "0001", second.port))
            back = Happening(Reason.RECONNECTED, new)
            items = collect(source, lambda items: back in items and type(items[-1]) is Scan)
    assert back in items
    assert crc(only(items)[-1]) in {row[4] for row in second.log}


def test_another_device_under_the_old_name_is_not_taken_for_ours(tmp_path: Path) -> None:
    tree, usb = UsbTree(tmp_path), Links(tmp_path)
    with (
        running(RFExplorerEmulator, recording(60), 100, "unplug=20", loop=True) as first,
        running(RFExplorerEmulator, recording(60, seed=2), 100, loop=True) as other,
    ):
        old = str(tree.plug("ttyUSB0", "0001", first.port))
        with Source(old, RFExplorer(AXIS), clock_us, usb=usb) as source:
            scans_of(source, 3)
            tree.unplug("ttyUSB0")
            tree.plug("ttyUSB0", "0002", other.port)
            threading.Timer(1.5, source.stop).start()
            items = list(source)
    assert Reason.UNPLUGGED in reasons(items)
    assert Reason.RECONNECTED not in reasons(items)
    assert usb.find("10c4:ea60:0003") == usb.find("") == usb.identity("socket://localhost:1") == ""
