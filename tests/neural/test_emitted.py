"""The emitted C on every target's CPU against the integer arithmetic, and mutations that this must catch."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings

from compile.emulate import EmulationFault, Machine, Out
from compile.neural import emit as emitter
from compile.neural.arena import Arena
from compile.neural.emit import emit
from compile.neural.graph import Array, Graph, Kind, Options, Padding
from compile.neural.lower import lower
from compile.neural.quantise import input_steps, network_input, real_outputs
from compile.neural.run_int8 import run
from compile.targets import TARGETS
from compile.toolchain import build
from tests.neural import networks
from tests.neural.networks import SEEDS, calibration, float_networks, quantised, random_inputs


def emulated(sources: dict[str, str], target: str, rows: Array, size: int) -> Iterator[bytes]:
    """What edge_network leaves, row by row."""
    machine = Machine(TARGETS[target], build(sources, TARGETS[target]))
    for row in rows:
        call = machine.call("edge_network", row.tobytes(), Out(size))
        assert call.value == 0
        yield call.outputs[0]


def check(graph: Graph, rows: Array, target: str) -> None:
    want = run(lower(graph), rows)
    for got, row in zip(emulated(emit(lower(graph)), target, rows, want[0].nbytes), want, strict=True):
        assert got == row.tobytes(), graph.dump()


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(network=float_networks(), seed=SEEDS)
def test_random_networks_on_every_target(target: str, network: Graph, seed: int) -> None:
    graph = quantised(network, seed)
    check(graph, random_inputs(graph, seed, 3), target)


@pytest.mark.parametrize("target", TARGETS)
def test_ties_and_ends_on_every_target(target: str) -> None:
    """Several layers in one file, so that one compilation serves them all."""
    chosen = [g for n, (_, g) in enumerate(networks.ties()) if n % 9 == 0]
    for value in (-128, 127):
        o = Options(padding=Padding.SAME)
        chosen.append(networks.extreme(Kind.CONV_2D, (1, 3, 9, 8), np.full((6, 3, 3, 8), value), o))
        w = np.full((1, 3, 3, 8), value)
        chosen.append(networks.extreme(Kind.DEPTHWISE_CONV_2D, (1, 3, 9, 8), w, o))
    for graph in chosen:
        rows = random_inputs(graph, 3, 3)
        rows[0] = -128
        check(graph, rows, target)


def _wide(kind: Kind, factor: float, bias: int) -> Graph:
    """A layer whose factor shifts to the left, or whose sums need all 32 bits."""
    shape = (1, 1, 3, 9) if kind is Kind.DEPTHWISE_CONV_2D else (9, 1, 3, 9)
    w = np.random.default_rng(8).integers(-3, 4, shape)
    graph = networks.tie(kind, (1, 1, 7, 9), w, Options(padding=Padding.SAME), factor=factor)
    given = graph.tensors[2].data
    assert given is not None
    graph.tensors[2].data = np.where(np.arange(9) % 2, bias, given).astype(np.int32)
    return graph


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", [Kind.CONV_2D, Kind.DEPTHWISE_CONV_2D])
def test_factors_over_one_and_sums_of_32_bits(kind: Kind, target: str) -> None:
    for factor, bias, shifts, wide in (
        (2.7, 3, 1, 0),
        (1e-7, 2**31 - 9000, 0, 1),
        (1e-8, 9000 - 2**31, 0, 1),
    ):
        graph = _wide(kind, factor, bias)
        text = emit(lower(graph))["edge_network.c"]
        assert f"#define EDGE_LEFT_SHIFTS {shifts}" in text
        assert f"#define EDGE_WIDE_SUMS {wide}" in text
        check(graph, random_inputs(graph, 3, 4), target)


MUTATIONS = {
    "a tie rounds the other way": ("cortex-m0", "((y < 0) & !up)", "((y < 0) & up)"),
    "no rounding after the multiplier": ("cortex-m0", "* mult + (1 << 30)", "* mult"),
    "the low clamp is lost": ("cortex-m0", "x < low ? low :", ""),
    "margins hold zero, not the zero point": (
        "cortex-m0",
        "edge_margins(g, x, padded, (int8_t)zero_in)",
        "edge_margins(g, x, padded, 0)",
    ),
    "a bias goes missing": ("cortex-m0", "+ p->bias[o]", ""),
    "the last taps are dropped": ("cortex-m0", "if (k < p->taps)", "if (0)"),
    "M4: a half below zero goes up": ("cortex-m4", "if (!up) v += (v & shift) >> 31;", ""),
    "M4: the product truncates": ("cortex-m4", "smmulr", "smmul"),
    "M4: the sum is not doubled": ("cortex-m4", "int32_t left = 1;", "int32_t left = 0;"),
    "M4: the second position gets the first one's words": ("cortex-m4", "smlad(w1, v[3]", "smlad(w1, v[1]"),
    "M4: the last taps are dropped": ("cortex-m4", "if (whole < p->taps) edge_four(", "if (0) edge_four("),
    "M4: the odd position is lost": (
        "cortex-m4",
        "if (i < count) edge_one(p, x + i * stride",
        "if (0) edge_one(p, x",
    ),
    "x86: a half below zero goes up": ("x86_64", "if (!s->up) y =", "if (0) y ="),
    "x86: products stay unsigned": ("x86_64", "_mm_and_si128(negative, s->mult)", "_mm_setzero_si128()"),
    "x86: a lane takes its neighbour's shift": (
        "x86_64",
        "_mm_sra_epi32(y, s->right[3])",
        "_mm_sra_epi32(y, s->right[2])",
    ),
    "x86: the odd position is lost": (
        "x86_64",
        "if (i < count) edge_products(p, v",
        "if (0) edge_products(p, v",
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutated_kernel_is_caught(name: str) -> None:
    target, old, new = MUTATIONS[name]
    w = np.random.default_rng(4).integers(-3, 4, (6, 1, 3, 7))
    graph = networks.tie(Kind.CONV_2D, (1, 1, 9, 7), w, Options(padding=Padding.SAME), factor=0.3)
    scale = graph.tensors[1].scale
    assert scale is not None
    scale[3] /= 8  # the fourth output has a shift of its own
    rows = random_inputs(graph, 5, 8)
    sources = emit(lower(graph))
    assert old in sources["edge_network.c"]
    mutated = sources | {"edge_network.c": sources["edge_network.c"].replace(old, new)}
    want = [row.tobytes() for row in run(lower(graph), rows)]
    assert list(emulated(sources, target, rows, len(want[0]))) == want
    try:
        got = list(emulated(mutated, target, rows, len(want[0])))
    except EmulationFault:
        return
    assert want != got


def test_an_arena_that_is_too_small_is_caught() -> None:
    """The emulator must see a write past the arena: else the proof that the arena suffices is none."""
    graph = next(g for name, g in networks.ties() if name.startswith("conv 8 of 1"))
    sources = emit(lower(graph))
    smaller = re.sub(r"int8_t arena\[\d+\]", "int8_t arena[16]", sources["edge_network.c"])
    rows = random_inputs(graph, 6, 2)
    size = graph.tensors[graph.output].size
    want = [row.tobytes() for row in run(lower(graph), rows)]
    try:
        got = list(emulated(sources | {"edge_network.c": smaller}, "cortex-m4", rows, size))
    except EmulationFault:
        return
    assert got != want


@settings(max_examples=6, deadline=None, derandomize=True)
@given(network=float_networks(), seed=SEEDS)
def test_scores_from_real_features(network: Graph, seed: int) -> None:
    graph = quantised(network, seed)
    rows = calibration(network, seed + 1, 4)
    flat = rows.reshape(len(rows), -1) * np.float32(3)
    t = TARGETS["aarch64"]
    machine = Machine(t, build(emit(lower(graph), input_steps(graph)), t))
    want = real_outputs(graph, flat).astype(np.float64)
    for row, scores in zip(flat, want, strict=True):
        call = machine.call("edge_model_scores", row.tobytes(), Out(8 * len(scores)))
        assert call.outputs[0] == scores.tobytes()
    assert network_input(graph, flat).dtype == np.int8


def test_buffers_alive_at_once_never_overlap() -> None:
    rng = np.random.default_rng(7)
    for _ in range(200):
        spans = []
        arena = Arena()
        for n in range(12):
            first = int(rng.integers(0, 10))
            spans.append((int(rng.integers(1, 500)), first, first + int(rng.integers(0, 5))))
            arena.need(str(n), *spans[-1])
        arena.place()
        for i, (size, first, last) in enumerate(spans):
            assert arena.at(str(i)) + size <= arena.size
            for j, (other, start, end) in enumerate(spans[:i]):
                if start <= last and first <= end:
                    a, b = arena.at(str(i)), arena.at(str(j))
                    assert a + size <= b or b + other <= a


def test_every_kernel_needs_what_it_says() -> None:
    """A kernel's own text compiles with just the texts that it names."""
    names = set(emitter._kernel_texts())
    assert {k for needs in emitter._NEEDS.values() for k in needs} <= names
    assert set(emitter._NEEDS) <= names
