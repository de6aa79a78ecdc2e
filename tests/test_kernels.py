"""The C kernels against their definitions in plain Python, bit for bit, on the host and on every target."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compile import elf, toolchain
from compile.emit.pipeline import reciprocal
from compile.emulate import EmulationFault, Machine, Out
from compile.features import compute, feature_sources, power_of
from compile.kernels.catalogue import KERNELS
from compile.pipeline import Pipeline
from compile.targets import TARGETS
from edge_runtime.errors import BadInput
from edge_runtime.reasons import Reason
from edge_runtime.recording import Recording
from edge_runtime.scanners.codes import in_python
from tests.features_reference import HELD, features
from tests.pipelines import TRAP, everything, rows, two_ranks, values

SIZES = (1, 2, 3, 8, 31, 64, 255, 256, 300)


def test_everything_is_everything() -> None:
    used = everything(64).features
    for kernel, spec in KERNELS.items():
        for name, param in spec.params.items():
            seen = {f.params[name] for f in used if f.kernel == kernel}
            assert seen >= set(values(name, param)), (kernel, name)


@st.composite
def sweeps(draw: st.DrawFn, points: int) -> list[int]:
    """Any int16; few levels, so that ties and plateaus are common; spikes on a flat floor, also at the ends."""
    kind = draw(st.integers(0, 2))
    if kind == 0:
        raw = draw(st.binary(min_size=2 * points, max_size=2 * points))
        return [int(x) for x in np.frombuffer(raw, "<i2")]
    if kind == 1:
        levels = draw(st.lists(st.integers(-32768, 32767), min_size=1, max_size=4))
        return [levels[b % len(levels)] for b in draw(st.binary(min_size=points, max_size=points))]
    power = [draw(st.integers(-32768, 32767))] * points
    places = st.one_of(st.integers(0, points - 1), st.sampled_from([0, points - 1]))
    for at, value in draw(st.lists(st.tuples(places, st.integers(-32768, 32767)), max_size=6)):
        power[at] = value
    return power


@pytest.mark.parametrize("points", SIZES)
def test_kernels_equal_their_definitions(points: int) -> None:
    equal_their_definitions(everything(points), points)


@pytest.mark.parametrize("points", SIZES)
def test_one_or_two_ranks_are_found_by_search(points: int) -> None:
    """Histograms find more (in everything); the least, the middle and the largest, and the same rank twice."""
    for permille in (0, 500, 900, 1000):
        equal_their_definitions(two_ranks(points, permille), points)


def equal_their_definitions(pipeline: Pipeline, points: int) -> None:
    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(sweeps(points))
    def check(power: list[int]) -> None:
        if points > 1 and min(power) == max(power):
            power[0] ^= 1  # a stuck scan has no features; test_the_contract_is_checked refuses it
        got = compute(pipeline, np.array([power], np.int16))[0].tolist()
        want = features(pipeline, power)
        wrong = [(f, g, w) for f, g, w in zip(pipeline.features, got, want, strict=True) if g != w]
        assert not wrong
        assert max(map(abs, got)) <= HELD

    check()


@pytest.mark.parametrize("name", TARGETS)
def test_kernels_are_the_same_on_every_target(name: str) -> None:
    """In an emulator where the scan ends where memory ends: a read beyond it would fault."""
    for pipeline in (everything(3), everything(256), two_ranks(3, 0), two_ranks(256, 500)):
        points = pipeline.contract.points
        power = rows(points, 8)
        want = compute(pipeline, power)
        machine = Machine(TARGETS[name], toolchain.build(feature_sources(pipeline), TARGETS[name]))
        for row, features_i32 in zip(power, want, strict=True):
            done = machine.call("edge_features", row.tobytes(), points, Out(4 * want.shape[1]))
            assert done.value == 0
            assert done.outputs[0] == features_i32.astype("<i4").tobytes()


@pytest.mark.parametrize("name", TARGETS)
def test_powers_of_codes_are_the_runtimes_own_on_every_target(name: str) -> None:
    """Every code, some twice, in buffers that end where memory ends; scales and offsets up to those that clamp."""
    codes = bytes(range(256)) + bytes(reversed(range(77)))
    machine = Machine(TARGETS[name], toolchain.build(feature_sources(everything(3)), TARGETS[name]))
    for points in (0, 1, 7, 333):
        for scale_cdb, offset_cdbm in ((-50, 0), (-50, 99_900), (-50, -99_900), (257, -32_768), (1, 32_700)):
            coding = struct.pack("<Iii", points, scale_cdb, offset_cdbm)
            done = machine.call("edge_powers", codes[:points], coding, Out(2 * points))
            assert done.outputs[0] == in_python(points, scale_cdb, offset_cdbm)(codes[:points])


def test_powers_of_codes_are_what_the_formula_says() -> None:
    expand = in_python(256, -50, 4_000)
    assert struct.unpack("<256h", expand(bytes(range(256)))) == tuple(4_000 - 50 * c for c in range(256))
    assert struct.unpack("<2h", in_python(2, 300, -40_000)(b"\x00\xff")) == (-32_768, 32_767)


@pytest.mark.parametrize("name", ["cortex-m4", "cortex-m0"])
def test_features_need_nothing_from_the_firmware(name: str) -> None:
    text = feature_sources(everything(256))
    assert not elf.parse(toolchain.build(text, TARGETS[name]), what=name).undefined


def test_no_undefined_behaviour() -> None:
    target = TARGETS["x86_64"]
    for pipeline in (everything(2), everything(256), two_ranks(2, 1000), two_ranks(256, 500)):
        points = pipeline.contract.points
        power = rows(points, 6)
        want = compute(pipeline, power)
        machine = Machine(target, toolchain.build(feature_sources(pipeline), target, extra_flags=TRAP))
        for row, features_i32 in zip(power, want, strict=True):
            done = machine.call("edge_features", row.tobytes(), points, Out(4 * want.shape[1]))
            assert done.outputs[0] == features_i32.tobytes()


def test_the_sanitizer_would_trap() -> None:
    text = feature_sources(everything(2))
    text["edge_model.c"] += """
EDGE_API int wrong_sum(int a, int b) { return a + b; }
EDGE_API int wrong_shift(int a, int b) { return a << b; }
EDGE_API int wrong_index(int a, int b) { int room[4] = {a, b, a, b}; return room[a]; }
"""
    target = TARGETS["x86_64"]
    machine = Machine(target, toolchain.build(text, target, extra_flags=TRAP))
    assert machine.call("wrong_sum", 1, 5).value == 6
    for symbol, a, b in (("wrong_sum", 0x7FFFFFFF, 1), ("wrong_shift", 0x7FFFFFFF, 1), ("wrong_index", 4, 1)):
        with pytest.raises(EmulationFault):
            machine.call(symbol, a, b)


@given(st.integers(1, 1000), st.integers(0, 65535))
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_reciprocals_divide_exactly(step: int, highest: int) -> None:
    r = reciprocal(step, highest)
    assert r.factor * highest + r.addend < 1 << 32
    d = np.arange(highest + 1, dtype=np.uint32)
    assert np.array_equal((d * np.uint32(r.factor) + np.uint32(r.addend)) >> np.uint32(r.shift), d // step)


def contract(pipeline: Pipeline, **changes: int) -> Pipeline:
    data = pipeline.to_dict()
    data["contract"] |= changes
    return Pipeline.from_dict(data)


@pytest.mark.parametrize(
    ("power", "reason"),
    [
        ([-9000, -9000, -9000], Reason.STUCK),
        ([-9000, -12751, -9000], Reason.RANGE),
        ([-9000, 1, -9000], Reason.RANGE),
    ],
)
def test_the_contract_is_checked(power: list[int], reason: Reason) -> None:
    pipeline = contract(everything(3), power_min_cdbm=-12750, power_max_cdbm=0)
    fine = [-12750, 0, -9000]
    compute(pipeline, np.array([fine], np.int16))
    with pytest.raises(BadInput, match=f"scan 1: {reason.text}"):
        compute(pipeline, np.array([fine, power], np.int16))


def test_a_scan_of_another_length_is_refused() -> None:
    with pytest.raises(BadInput, match=r"shape \(1, 4\); the contract wants \(scans, 3\)"):
        compute(everything(3), np.zeros((1, 4), np.int16))


def test_features_stay_within_their_instructions() -> None:
    """DESIGN.md: about 3,000 to 6,000 aarch64 instructions for the demo's 24 features of 256 points."""
    demo = Path(__file__).parent.parent / "compile" / "demo"
    pipeline = Pipeline.load(demo / "pipeline.toml")
    power = power_of(Recording.open(demo / "recordings.scans"))[::300]
    target = TARGETS["aarch64"]
    machine = Machine(target, toolchain.build(feature_sources(pipeline), target), count=True)
    room = Out(4 * len(pipeline.features))
    counts = [
        machine.call("edge_features", row.tobytes(), power.shape[1], room).instructions for row in power
    ]
    assert len(pipeline.features) == 24
    assert 1000 < np.mean(counts) < 6000
