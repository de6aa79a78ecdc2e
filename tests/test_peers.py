"""The instruments' own public libraries against the emulators, over a pty, unmodified.

They were written against real instruments, so what they accept is evidence that the emulators behave as those.
"""

from __future__ import annotations

import contextlib
import io
import struct
import time

import pytest

from edge_runtime.rig.rf_explorer import RFExplorerEmulator
from edge_runtime.rig.tinysa import TinySAEmulator
from edge_runtime.scan import Axis
from tests.rig_run import AXIS, recording, running

WAIT_SECONDS = 30


class _ListedPort:
    """What the library takes from the operating system's list of ports, where a pty is not listed."""

    def __init__(self, device: str) -> None:
        self.device = device


def test_rfexplorer_library_connects_configures_and_takes_sweeps() -> None:
    library = pytest.importorskip("RFExplorer", reason="the peer library comes with the extra `test`")
    played = recording(40)
    with running(RFExplorerEmulator, played, 20, loop=True) as rig, contextlib.redirect_stdout(io.StringIO()):
        peer = library.RFECommunicator()
        peer.AutoConfigure = False
        peer.m_arrValidCP2102Ports = [_ListedPort(rig.port)]
        try:
            assert peer.ConnectPort(rig.port, 500_000)
            peer.SendCommand("Cn")
            peer.SendCommand_RequestConfigData()
            _until(peer, lambda: peer.SweepData.Count >= 5)
            assert peer.RFExplorerFirmwareDetected == "01.26"
            assert peer.SerialNumber == "EDGE-RIG0-0000-0001"
            assert peer.StartFrequencyMHZ == pytest.approx(AXIS.start_hz / 1e6)
            assert peer.StepFrequencyMHZ == pytest.approx(AXIS.step_hz / 1e6)
            assert peer.FreqSpectrumSteps == AXIS.points - 1
            sweep = peer.SweepData.GetData(peer.SweepData.Count - 1)
            heard = bytes(round(-2 * sweep.GetAmplitude_DBM(k)) for k in range(AXIS.points))
            assert heard in [row.codes for row in played.rows]

            peer.SendCommand_SweepDataPoints(112)
            peer.UpdateDeviceConfig(433.8, 434.0)
            peer.SweepData.CleanAll()
            _until(peer, lambda: peer.FreqSpectrumSteps == 111 and peer.SweepData.Count >= 2)
            assert peer.StartFrequencyMHZ == pytest.approx(433.8)

            peer.SendCommand_Hold()
            _until(peer, lambda: not rig.emulator.wanted())
        finally:
            peer.RunReceiveThread = False
            peer.Close()


def _until(peer: object, done: object) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not done():  # type: ignore[operator]
        peer.ProcessReceivedString(True)  # type: ignore[attr-defined]
        assert time.monotonic() < end, "the library saw nothing of the kind"
        time.sleep(0.01)


def test_tsapython_identifies_reads_settings_and_takes_sweeps() -> None:
    library = pytest.importorskip("tsapython", reason="the peer library comes with the extra `test`")
    axis = Axis(433_000_000, 10_000, 100)
    played = recording(30, axis)
    # Slow enough that the pseudo-terminal holds what comes while a busy machine keeps the library waiting.
    with running(TinySAEmulator, played, 10, loop=True) as rig:
        peer = library.tinySA()
        peer.set_serial_timeout(WAIT_SECONDS)
        assert peer.connect(rig.port)
        try:
            assert peer.get_profile().board == "ZS405"
            assert peer.get_scanraw_offset() == 174
            assert b"4112 mV" in peer.vbat()
            ends = axis.start_hz, axis.start_hz + axis.step_hz * axis.points
            for _ in range(3):
                assert _codes(peer.scan_raw(*ends, axis.points), 174) in [r.codes for r in played.rows]
            frames = list(peer.scan_raw_stream(*ends, axis.points, count=4))
            assert len(frames) == 4
            assert all(_codes(frame, 174) in [r.codes for r in played.rows] for frame in frames)
            assert peer.scan(*ends, axis.points, 3).split()[0] == b"433000000"
            assert len(peer.data(2).split()) == axis.points
            assert len(peer.frequencies().split()) == axis.points
            peer.zero(170)
            assert peer.get_scanraw_offset() == 170
            assert _codes(peer.scan_raw(*ends, axis.points), 170) in [r.codes for r in played.rows]
        finally:
            peer.disconnect()


def _codes(frame: bytearray, zero_dbm: int) -> bytes:
    """A frame as the library's examples decode it, as RF Explorer codes it."""
    counts = struct.unpack("<" + "xH" * ((len(frame) - 1) // 3), frame[1:])
    return bytes(round(-2 * (count / 32 - zero_dbm)) for count in counts)
