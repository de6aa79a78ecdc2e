"""Emulated calls: results, exact instruction counts, stack depth, and faults that name their place."""

from __future__ import annotations

import struct

import pytest

from compile.emulate import EmulationFault, Machine, Out
from compile.targets import TARGETS, Target
from compile.toolchain import build
from edge_runtime.errors import BadInput

API = '__attribute__((visibility("default"))) '
SOURCE = f"""
#include <stdint.h>
{API}int edge_scores(const float *x, double *out) {{
    double s = 0;
    for (int i = 0; i < 16; i++) s += x[i] > 2.0f ? 1.25 * x[i] : 1.0 / (x[i] + 3.5);
    out[0] = s;
    out[1] = (double)(x[0] * x[1]);
    return -7;
}}
{API}int edge_divide(const int64_t *x, int64_t *out) {{ out[0] = x[0] / x[1]; return 0; }}
{API}int edge_read_past(const float *x, float *out) {{ out[0] = x[16]; return 0; }}
{API}int edge_write_past(const float *x, float *out) {{ out[1] = x[0]; return 0; }}
{API}int edge_write_constant(void) {{ static const int t[2] = {{1, 2}}; *(volatile int *)t = 3; return 0; }}
{API}int edge_write_half(const float *x, uint16_t *out) {{ out[0] = 1; return 0; }}
{API}int edge_deep(const uint8_t *n, uint8_t *out) {{
    volatile uint8_t frame[512];
    for (int i = 511; i >= 0; i--) frame[i] = n[0];
    out[0] = frame[3];
    return 0;
}}
{API}int edge_endless(void) {{ for (;;) __asm__ volatile(".rept 900\\n nop\\n .endr"); }}
"""
ROW = [-3.0 + 0.7 * k for k in range(16)]


def _float(x: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", x))[0])


def _expected(row: list[float]) -> bytes:
    """edge_scores in Python's doubles, rounded to float where C rounds."""
    total = 0.0
    for x in map(_float, row):
        total += 1.25 * x if x > 2 else 1.0 / (x + 3.5)
    return struct.pack("<dd", total, _float(_float(row[0]) * _float(row[1])))


EXPECTED = _expected(ROW)


@pytest.fixture(params=sorted(TARGETS))
def target(request: pytest.FixtureRequest) -> Target:
    return TARGETS[request.param]


@pytest.fixture
def artifact(target: Target) -> bytes:
    return build({"m.c": SOURCE}, target)


def test_floating_point_gives_the_bits_of_ieee_754(target: Target, artifact: bytes) -> None:
    machine = Machine(target, artifact)
    for _ in range(2):
        call = machine.call("edge_scores", struct.pack("<16f", *ROW), Out(16))
        assert call.value == -7
        assert call.outputs == (EXPECTED,)


def test_counting_changes_no_result_and_repeats_exactly(target: Target, artifact: bytes) -> None:
    counting = Machine(target, artifact, count=True)
    row = struct.pack("<16f", *ROW)
    first, second = (counting.call("edge_scores", row, Out(16)) for _ in range(2))
    assert first == second
    assert first.instructions > 100
    assert first._replace(instructions=0) == Machine(target, artifact).call("edge_scores", row, Out(16))


def test_sixty_four_bit_division_is_in_the_artifact(target: Target, artifact: bytes) -> None:
    call = Machine(target, artifact).call("edge_divide", struct.pack("<qq", -(10**15), 77), Out(8))
    assert struct.unpack("<q", call.outputs[0]) == (-(10**15) // 77 + 1,)


@pytest.mark.parametrize(
    ("symbol", "what"),
    [
        ("edge_read_past", "reads 4 bytes at"),
        ("edge_write_past", "writes 4 bytes at"),
        ("edge_write_constant", "writes read-only 4 bytes at"),
    ],
)
def test_memory_that_is_not_its_own_faults(symbol: str, what: str, target: Target, artifact: bytes) -> None:
    machine = Machine(target, artifact)
    row = struct.pack("<16f", *ROW)
    with pytest.raises(EmulationFault, match=f"{target.name}: {symbol} faults at pc 0x[0-9a-f]+: {what}"):
        machine.call(symbol, row, Out(4))
    assert machine.call("edge_scores", row, Out(16)).outputs == (EXPECTED,)


def test_bytes_that_were_never_written_show(target: Target, artifact: bytes) -> None:
    machine = Machine(target, artifact)
    machine.call("edge_scores", struct.pack("<16f", *ROW), Out(16))
    assert machine.call("edge_write_half", b"\0" * 4, Out(4)).outputs == (b"\x01\0\xa5\xa5",)


def test_the_stack_is_measured_per_call(target: Target, artifact: bytes) -> None:
    machine = Machine(target, artifact)
    shallow = machine.call("edge_write_half", b"\0" * 4, Out(4)).stack_bytes
    deep = machine.call("edge_deep", b"\x01", Out(1)).stack_bytes
    assert shallow <= 16
    assert 512 <= deep < 700
    assert machine.call("edge_write_half", b"\0" * 4, Out(4)).stack_bytes == shallow


def test_code_that_does_not_end_is_stopped() -> None:
    target = TARGETS["aarch64"]
    with pytest.raises(EmulationFault, match="more than 20,000,000 instructions"):
        Machine(target, build({"m.c": SOURCE}, target), count=True).call("edge_endless")


def test_unknown_symbols_and_oversized_buffers_are_refused(target: Target, artifact: bytes) -> None:
    machine = Machine(target, artifact)
    with pytest.raises(BadInput, match="exports no edge_nothing"):
        machine.call("edge_nothing")
    with pytest.raises(BadInput, match="a buffer of 1000000 bytes"):
        machine.call("edge_deep", bytes(1_000_000), Out(1))


ASSEMBLY = """
.globl edge_one
.type edge_one, %function
.text
{arch}
edge_one:
    {instruction}
    {back}
"""


@pytest.mark.parametrize(
    ("name", "arch", "instruction", "runs_on"),
    [
        # What an instruction needs is stated to the assembler; what the CPU has decides whether it runs.
        ("cortex-m0", ".syntax unified\n.thumb_func\n.cpu cortex-m4", "udiv r0, r1, r2", "cortex-m4"),
        ("cortex-m0", ".syntax unified\n.thumb_func\n.cpu cortex-m4", "movw r0, #257", "cortex-m4"),
        ("cortex-m0", ".syntax unified\n.thumb_func\n.cpu cortex-m4", "cbz r1, 1f\nnop\n1:", "cortex-m4"),
        ("cortex-m0", ".syntax unified\n.thumb_func\n.cpu cortex-m4", "it eq\nmoveq r0, r1", "cortex-m4"),
        (
            "cortex-m4",
            ".syntax unified\n.thumb_func\n.cpu cortex-m7\n.fpu fpv5-d16",
            "vadd.f64 d0, d0, d1",
            None,
        ),
        ("aarch64", ".arch armv8.2-a+dotprod", "sdot v0.4s, v1.16b, v2.16b", None),
        ("aarch64", ".arch armv8.1-a", "ldadd w0, w1, [sp]", None),
        ("armv7", ".syntax unified\n.arch armv8-a\n.fpu fp-armv8", "vrinta.f32 s0, s0", None),
        ("x86_64", "", "pshufb %xmm1, %xmm0", None),
    ],
)
def test_instructions_that_the_part_lacks_fault(
    name: str, arch: str, instruction: str, runs_on: str | None
) -> None:
    back = "ret" if name in ("aarch64", "x86_64") else "bx lr"
    source = ASSEMBLY.format(arch=arch, instruction=instruction, back=back)
    if name == "x86_64":
        source = source.replace("%function", "@function")
    target = TARGETS[name]
    artifact = build({"one.S": source}, target)
    with pytest.raises(EmulationFault):
        Machine(target, artifact, count=True).call("edge_one", 0, 1, 1)
    if runs_on:
        other = TARGETS[runs_on]
        Machine(other, build({"one.S": source}, other), count=True).call("edge_one", 0, 1, 1)
