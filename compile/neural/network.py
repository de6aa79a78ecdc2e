"""A network made ready: loaded, folded, quantised, measured; its .tflite bytes, its C, its costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.neural import agreement, emit, flatbuffer, run_float, run_int8, ties
from compile.neural.fold import fold
from compile.neural.graph import Array, Graph
from compile.neural.integer import Plan
from compile.neural.load import is_quantised, load
from compile.neural.lower import lower
from compile.neural.quantise import (
    Choice,
    ScanInput,
    absorb,
    input_steps,
    network_input,
    quantise,
    real_outputs,
)
from edge_runtime.errors import BadInput


@dataclass(frozen=True, slots=True)
class Rows:
    """Inputs to calibrate on and to measure agreement on: int16 hundredths of a dBm for a sweep, else real numbers.

    slices: name -> which held-out rows.
    """

    calibration: Array
    held_out: Array
    slices: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Network:
    """A quantised network.

    tflite: the file's bytes, as given where a .tflite was given. agreement: with the float network; None for a
    network that came quantised. machine_dependent: layers whose last bit x86's tflite-runtime may give otherwise.
    """

    graph: Graph
    plan: Plan
    tflite: bytes
    choices: tuple[Choice, ...]
    agreement: dict[str, Any] | None
    machine_dependent: tuple[str, ...]

    @property
    def sources(self) -> dict[str, str]:
        """The C: edge_network.h and edge_network.c."""
        return emit.emit(self.plan, input_steps(self.graph))

    def inputs(self, rows: Array) -> Array:
        """Rows as edge_network takes them."""
        return network_input(self.graph, rows)

    def raw(self, rows: Array) -> Array:
        """What edge_network answers: n x outputs, in its own type."""
        return run_int8.run(self.plan, self.inputs(rows)).reshape(len(rows), -1)

    def outputs(self, rows: Array) -> Array:
        """The same as real numbers, as edge_model_scores gives them."""
        return real_outputs(self.graph, rows)


def prepare(
    model: object,
    rows: Rows | None = None,
    *,
    scan: ScanInput | None = None,
    gate: float = agreement.GATE,
) -> Network:
    """A network from a model that `load` takes.

    rows: needed unless the model is a quantised .tflite. scan: the network sees sweeps in dBm (or in what its gain
    and offset make of hundredths of a dBm), and is to be fed the sweep's own int16. gate: the least share of held-out
    rows on which the quantised network must decide as the float one.
    Raises BadInput for what cannot be built, CheckFailed where the quantised network agrees too rarely.
    """
    agreement.check_gate(gate)
    graph = load(model)
    if is_quantised(graph):
        data = flatbuffer.write(graph) if isinstance(model, Graph) else None
        return _finish(graph, (), None, data if data is not None else _bytes_of(model))
    if str(model).endswith(".tflite") and rows is None:
        raise BadInput(
            f"{model}: is a float network; give --data so that it can be quantised, or a .tflite in full int8"
        )
    if rows is None:
        raise BadInput(f"{_name(model)}: quantising takes calibration data; give --data D.npz")
    if scan is not None:
        graph, scan = absorb(graph, scan)
    folded = fold(graph)
    quantised, choices = quantise(folded, rows.calibration, scan)
    seen = rows.held_out if scan is None else scan.values(rows.held_out)
    reference = run_float.run(folded, seen).reshape(len(rows.held_out), -1)
    report = agreement.measure(reference, real_outputs(quantised, rows.held_out), rows.slices)
    report["gate"] = gate
    agreement.check(report, gate)
    return _finish(quantised, tuple(choices), report, flatbuffer.write(quantised))


def _finish(graph: Graph, choices: tuple[Choice, ...], report: dict[str, Any] | None, data: bytes) -> Network:
    plan = lower(graph)
    differing = {t: graph.tensors[t].name for t in ties.tied(graph)}
    return Network(graph, plan, data, choices, report, tuple(differing.values()))


def _bytes_of(model: object) -> bytes:
    with open(str(model), "rb") as f:
        return f.read()


def _name(model: object) -> str:
    return str(model) if isinstance(model, str) or hasattr(model, "__fspath__") else type(model).__name__
