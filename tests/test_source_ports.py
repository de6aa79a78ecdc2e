"""A source by what its port is: pyserial URLs, files, pipes, and the scanner that `auto` finds on it."""

from __future__ import annotations

import os
import socket
import termios
import threading
from itertools import islice
from pathlib import Path

import pytest
import serial
from serial import rfc2217

from edge_runtime.detect import detect
from edge_runtime.errors import BadInput, HardwareUnavailable
from edge_runtime.reasons import Reason
from edge_runtime.rig.rf_explorer import RFExplorerEmulator
from edge_runtime.scan import Scan
from edge_runtime.scanners.rf_explorer import RFExplorer
from edge_runtime.source import Source, open_source
from tests.rig_run import (
    AXIS,
    KINDS,
    Running,
    clock_us,
    collect,
    count_scans,
    only,
    powers,
    reasons,
    recording,
    running,
)
from tests.scanner_streams import STREAMS, powers_of


def pump(rig: Running, server: socket.socket) -> None:
    """Carry a rig's bytes over TCP, as a serial device server does."""
    connection, _ = server.accept()
    descriptor = os.open(rig.port, os.O_RDWR | os.O_NOCTTY)

    def upstream() -> None:
        while data := connection.recv(4096):
            os.write(descriptor, data)

    threading.Thread(target=upstream, daemon=True).start()
    try:
        while data := os.read(descriptor, 4096):
            connection.sendall(data)
    except OSError:
        pass
    os.close(descriptor)
    connection.close()


class LinelessSerial(serial.Serial):
    """A pty has no modem lines: they are taken to be up."""

    cts = dsr = ri = cd = property(lambda _: True)

    def _update_dtr_state(self) -> None:
        pass

    def _update_rts_state(self) -> None:
        pass


def serve_rfc2217(rig: Running, server: socket.socket) -> None:
    """A Telnet server for the rig's port, as RFC 2217 has it: pyserial's own."""
    connection, _ = server.accept()
    port = LinelessSerial(rig.port, timeout=0.05)
    lock = threading.Lock()

    class Writer:
        def write(self, data: bytes) -> None:
            with lock:
                connection.sendall(data)

    manager = rfc2217.PortManager(port, Writer())

    def upstream() -> None:
        while data := connection.recv(4096):
            port.write(b"".join(manager.filter(data)))

    threading.Thread(target=upstream, daemon=True).start()
    try:
        while connection.fileno() >= 0:
            if data := port.read(port.in_waiting or 1):
                Writer().write(b"".join(manager.escape(data)))
    except (OSError, TypeError):  # the other side has hung up
        connection.close()
        port.close()


def test_dtr_and_rts_are_not_dropped_at_close() -> None:
    with running(RFExplorerEmulator, recording(3), 100) as rig:
        with Source(rig.port, RFExplorer(AXIS), clock_us):
            descriptor = os.open(rig.port, os.O_RDWR | os.O_NOCTTY)
        assert not termios.tcgetattr(descriptor)[2] & termios.HUPCL
        os.close(descriptor)


@pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")  # pyserial 3.5's rfc2217
@pytest.mark.parametrize("scheme", ["socket", "rfc2217", "spy"])
def test_urls_of_pyserial(scheme: str, capfd: pytest.CaptureFixture[str]) -> None:
    played = recording(40)
    with (
        running(RFExplorerEmulator, played, 100, loop=True) as rig,
        socket.create_server(("localhost", 0)) as server,
    ):
        serve = {"socket": pump, "rfc2217": serve_rfc2217}.get(scheme)
        if serve is not None:
            threading.Thread(target=serve, args=(rig, server), daemon=True).start()
        port = server.getsockname()[1]
        url = {
            "socket": f"socket://localhost:{port}",
            "rfc2217": f"rfc2217://localhost:{port}",
            "spy": f"spy://{rig.port}",
        }[scheme]
        with open_source(url, "rf-explorer", AXIS, clock_us) as source:
            scans = list(islice((i for i in source if type(i) is Scan), 10))
    assert {scan.power_cdbm for scan in scans} <= {powers(row.codes) for row in played.rows}
    if scheme == "spy":
        assert "RX" in capfd.readouterr().err


def test_loop_url_counts_its_own_echo_and_reads_frames() -> None:
    stream = next(s for s in STREAMS if s.name == "rf-explorer-S")
    with Source("loop://", RFExplorer(), clock_us) as source:
        source.send(stream.opening + b"".join(f for f, _ in stream.frames(3)))
        items = collect(source, lambda items: count_scans(items) == 3)
    assert [scan.power_cdbm for scan in only(items)] == [p for _, p in stream.frames(3)]
    assert Reason.CONFIGURED in reasons(items)


@pytest.mark.parametrize("stream", STREAMS, ids=str)
@pytest.mark.parametrize("way", ["file", "pipe"])
def test_files_and_pipes(stream: object, way: str, tmp_path: Path) -> None:
    frames = stream.frames(30)  # type: ignore[attr-defined]
    data = stream.opening + b"".join(f for f, _ in frames)  # type: ignore[attr-defined]
    path = tmp_path / "recorded"
    if way == "file":
        path.write_bytes(data)
    else:
        os.mkfifo(path)
        writer = threading.Thread(target=path.write_bytes, args=(data,))
        writer.start()
    with Source(str(path), stream.make(), clock_us) as source:  # type: ignore[attr-defined]
        items = list(source)
    if way == "pipe":
        writer.join()
    assert powers_of(items) == [p for _, p in frames]  # type: ignore[arg-type]


def test_a_file_without_a_frame_and_a_missing_port_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "noise"
    path.write_bytes(bytes(range(256)) * 20)
    with open_source(str(path), "rf-explorer", AXIS, clock_us) as source, pytest.raises(BadInput) as refused:
        list(source)
    assert "holds no frame" in str(refused.value)
    for url in (tmp_path / "ttyUSB9", tmp_path, "socket://localhost:1", "nonsense://x", "/dev/null"):
        with pytest.raises(HardwareUnavailable) as unavailable:
            open_source(str(url), "rf-explorer", AXIS, clock_us)
        assert "\n" not in str(unavailable.value)
        assert str(url) in str(unavailable.value)


@pytest.mark.parametrize("name", KINDS)
def test_auto_finds_the_scanner_on_a_port(name: str) -> None:
    emulator, axis = KINDS[name]
    with (
        running(emulator, recording(20, axis), 50, loop=True) as rig,
        open_source(rig.port, "auto", axis, clock_us) as source,
    ):
        assert len(list(islice((i for i in source if type(i) is Scan), 3))) == 3


@pytest.mark.parametrize(
    ("stream", "name"),
    [
        ("rf-explorer-s", "rf-explorer"),
        ("tinysa-ultra", "tinysa-ultra"),
        ("framed", "framed"),
        ("rtl-power", "sweep-text"),
        ("hackrf-binary", "hackrf-binary"),
        ("soapy-binary", "soapy-binary"),
        ("ath-spectral", "ath-spectral"),
    ],
)
def test_auto_finds_what_wrote_a_file(stream: str, name: str, tmp_path: Path) -> None:
    found = next(s for s in STREAMS if s.name == stream)
    path = tmp_path / "recorded"
    path.write_bytes(found.opening + b"".join(f for f, _ in found.frames(20)))
    assert detect(str(path), None, clock_us) == name
    path.write_bytes(b"nothing of the kind\n" * 50)
    for url in (str(path), "-"):
        with pytest.raises(BadInput):
            detect(url, None, clock_us)
