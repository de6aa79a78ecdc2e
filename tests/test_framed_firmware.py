"""The firmware's C header against the host's Python, on emulated Cortex-M4 and Cortex-M0, bit for bit."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compile.emulate import Machine, Out
from compile.targets import TARGETS
from compile.toolchain import build
from edge_runtime.scan import Axis, Scan
from edge_runtime.scanners import framed

HEADER = files("compile.firmware").joinpath("edge_scanner.h").read_text()
PROBE = """
#include "edge_scanner.h"
#define API __attribute__((visibility("default")))
/* what: sequence, time, start low, start high, step, points, capacity; then the powers */
API int probe_sweep(const uint32_t *what, uint8_t *out) {
    const uint64_t start_hz = what[2] | ((uint64_t)what[3] << 32);
    return (int)edge_frame_sweep(out, what[6], (uint16_t)what[0], what[1], start_hz, what[4],
                                 (const int16_t *)(what + 7), (uint16_t)what[5]);
}
/* Reads `size` bytes; out: for each READY a 1, its size and its bytes, for each BAD a 2. */
API int probe_read(const uint8_t *wire, uint32_t size, uint8_t *out) {
    uint8_t buffer[64];
    edge_frame_reader reader = {buffer, sizeof buffer, 0u, 0u, 0u};
    uint32_t used = 0u;
    for (uint32_t i = 0u; i < size; i++) {
        const edge_frame_result result = edge_frame_read(&reader, wire[i]);
        if (result != EDGE_FRAME_NONE) { out[used++] = (uint8_t)result; }
        if (result == EDGE_FRAME_READY) {
            out[used++] = (uint8_t)reader.size;
            for (uint32_t k = 0u; k < reader.size; k++) { out[used++] = buffer[k]; }
        }
    }
    return (int)used;
}
"""
STRICT = ["-Wall", "-Wextra", "-Wconversion", "-Wsign-conversion", "-Wpedantic", "-Werror"]
CORES = ("cortex-m4", "cortex-m0")


@lru_cache
def machine(core: str) -> Machine:
    target = TARGETS[core]
    sources = {"edge_scanner.h": HEADER, "probe.c": PROBE}
    return Machine(target, build(sources, target, extra_flags=STRICT))


@pytest.mark.parametrize("core", CORES)
@settings(max_examples=35, deadline=None, derandomize=True)
@given(
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF_FFFF),
    st.integers(0, 1 << 40),
    st.integers(0, 1 << 31),
    st.lists(st.integers(-0x8000, 0x7FFF) | st.just(0) | st.just(0x0A0A), min_size=1, max_size=280),
)
def test_sweeps_from_firmware_are_the_hosts_bytes(
    core: str, sequence: int, time_us: int, start_hz: int, step_hz: int, powers: list[int]
) -> None:
    body = b"".join(p.to_bytes(2, "little", signed=True) for p in powers)
    expected = framed.frame(
        framed.SWEEP, sequence, time_us, framed.AXIS.pack(start_hz, step_hz, len(powers)) + body
    )
    what = (sequence, time_us, start_hz & 0xFFFF_FFFF, start_hz >> 32, step_hz, len(powers))
    for room, size in ((len(expected), len(expected)), (len(expected) - 1, 0)):
        words = b"".join(w.to_bytes(4, "little") for w in (*what, room))
        call = machine(core).call("probe_sweep", words + body + b"\0" * (len(body) % 4), Out(room))
        assert call.value == size
        if size:
            assert call.outputs[0] == expected
    scans = [e for e in framed.Framed().feed(expected, 7) if type(e) is Scan]
    assert [(s.power_cdbm, s.axis) for s in scans] == [(body, Axis(start_hz, step_hz, len(powers)))]


def read_by_host(wire: bytes) -> list[bytes | None]:
    """What a reader with 64 bytes of room should make of the wire: packets, or None for a bad frame."""
    found: list[bytes | None] = []
    for coded in wire.split(b"\n")[:-1]:
        if coded:
            packet = framed.unstuff(coded)
            good = 11 <= len(packet) <= 64 and framed.crc32(packet[:-4]).to_bytes(4, "little") == packet[-4:]
            found.append(packet[:-4] if good else None)
    return found


def read_by_firmware(core: str, wire: bytes) -> list[bytes | None]:
    out = machine(core).call("probe_read", wire, len(wire), Out(4 * len(wire) + 64))
    data = out.outputs[0][: out.value]
    found: list[bytes | None] = []
    at = 0
    while at < len(data):
        if data[at] == 1:
            found.append(data[at + 2 : at + 2 + data[at + 1]])
            at += 2 + data[at + 1]
        else:
            found.append(None)
            at += 1
    return found


commands = st.builds(framed.frame, st.integers(16, 22), st.integers(0, 9), st.just(0), st.binary(max_size=70))


@pytest.mark.parametrize("core", CORES)
@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.lists(commands | st.binary(max_size=300) | st.just(b"\n"), max_size=5), st.data())
def test_commands_are_read_alike(core: str, parts: list[bytes], data: st.DataObject) -> None:
    wire = bytearray(b"".join(parts))
    if wire and data.draw(st.booleans()):
        wire[data.draw(st.integers(0, len(wire) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert read_by_firmware(core, bytes(wire)) == read_by_host(bytes(wire))
