"""The integer arithmetic against tflite-runtime itself, on this machine; what differs by machine, on ARM's wheels."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from compile.neural.flatbuffer import write
from compile.neural.graph import Array, Graph, Kind, Options, Padding
from compile.neural.lower import Machine, lower
from compile.neural.reader import read
from compile.neural.run_int8 import run
from compile.neural.ties import tied
from edge_runtime.energy_ci import userland
from tests.guests import guest
from tests.neural import networks
from tests.neural.networks import SEEDS, float_networks, quantised, random_inputs
from tests.neural.tflite_reference import answers

HERE = Machine.X86 if platform.machine() == "x86_64" else Machine.ARM


@settings(max_examples=120, deadline=None, derandomize=True)
@given(float_networks(), SEEDS)
def test_random_networks_answer_as_tflite_runtime(network: Graph, seed: int) -> None:
    graph = quantised(network, seed)
    rows = random_inputs(graph, seed)
    data = write(graph)
    want = answers(data, rows)
    np.testing.assert_array_equal(run(lower(graph, HERE), rows).reshape(want.shape), want)
    # What is quantised here has no result that depends on the machine.
    assert tied(graph) == []
    np.testing.assert_array_equal(run(lower(graph, Machine.ARM), rows).reshape(want.shape), want)
    # A file read back is the network that was written.
    again = read(data)
    assert again.dump() == graph.dump()
    assert write(again) == data


@pytest.mark.parametrize(
    ("name", "graph"), list(networks.ties()), ids=lambda v: v if isinstance(v, str) else ""
)
def test_ties_fall_as_on_this_machine(name: str, graph: Graph) -> None:
    rows = random_inputs(graph, 1, 20)
    want = answers(write(graph), rows)
    np.testing.assert_array_equal(run(lower(graph, HERE), rows).reshape(want.shape), want)


def _extremes() -> list[Graph]:
    made = []
    for value in (-128, -127, 127):
        o = Options(padding=Padding.SAME)
        made.append(networks.extreme(Kind.FULLY_CONNECTED, (1, 40), np.full((6, 40), value), Options()))
        made.append(networks.extreme(Kind.CONV_2D, (1, 3, 9, 8), np.full((6, 3, 3, 8), value), o))
        made.append(networks.extreme(Kind.DEPTHWISE_CONV_2D, (1, 3, 9, 8), np.full((1, 3, 3, 8), value), o))
    return made


@pytest.mark.parametrize("graph", _extremes())
def test_weights_and_inputs_at_their_ends(graph: Graph) -> None:
    rows = random_inputs(graph, 2, 6)
    rows[0], rows[1] = -128, 127
    want = answers(write(graph), rows)
    np.testing.assert_array_equal(run(lower(graph, HERE), rows).reshape(want.shape), want)


def ask_guest(arch: userland.Arch, cases: list[tuple[bytes, Array]], folder: Path) -> list[Array]:
    """What tflite-runtime's wheel answers in an ARM guest."""
    wheels = ["tflite-runtime"] if arch is userland.ARMHF else ["tflite-runtime", "numpy"]
    inputs, outputs = folder / "in.npz", folder / "out.npz"
    named = {}
    for n, (data, rows) in enumerate(cases):
        named |= {f"model{n}": np.frombuffer(data, np.uint8), f"rows{n}": rows}
    np.savez(inputs, **named)  # type: ignore[arg-type]
    program = Path(__file__).with_name("tflite_reference.py")
    done = guest(*wheels, arch=arch).run([str(program), str(inputs), str(outputs)], timeout_s=200)
    assert done.status == 0, done.stderr
    with np.load(outputs) as z:
        return [z[f"out{n}"] for n in range(len(cases))]


@pytest.mark.parametrize("arch", [userland.ARM64, userland.ARMHF], ids=lambda a: a.name)
def test_ties_fall_as_on_arm(arch: userland.Arch, tmp_path: Path) -> None:
    graphs = [graph for _, graph in networks.ties()] + _extremes()
    rows = [random_inputs(graph, 1, 12) for graph in graphs]
    found = ask_guest(arch, [(write(g), r) for g, r in zip(graphs, rows, strict=True)], tmp_path)
    for graph, given_rows, want in zip(graphs, rows, found, strict=True):
        got = run(lower(graph, Machine.ARM), given_rows).reshape(want.shape)
        np.testing.assert_array_equal(got, want, err_msg=graph.dump())


def test_the_two_machines_do_differ() -> None:
    """Were they equal, following the one or the other would prove nothing."""
    differing = 0
    for _, graph in networks.ties():
        rows = random_inputs(graph, 1, 20)
        differs = (run(lower(graph, Machine.ARM), rows) != run(lower(graph, Machine.X86), rows)).any()
        assert tied(graph) or not differs
        differing += bool(differs)
    assert differing > 20
