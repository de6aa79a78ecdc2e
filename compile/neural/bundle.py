"""Networks in bundles: a bundle of a network alone, and a network added to a bundle of trees.

The manifest's "network" section: `tflite` and `artifacts` name entries, `input` and `output` describe the tensors,
`layers` what each costs, `agreement` how the quantised network compares with the float one, `cascade` when it is
asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile import cost, toolchain, verify
from compile.emulate import Machine, Out
from compile.neural import agreement, emit, reader
from compile.neural import cost as layer_cost
from compile.neural.graph import Array, Graph, Tensor
from compile.neural.lower import lower
from compile.neural.network import Network, prepare
from compile.neural.quantise import input_steps, network_input, real_outputs
from compile.neural.rows import load_rows as load_rows  # noqa: PLC0414 (for the command line)
from compile.neural.rows import load_split
from compile.neural.run_int8 import run
from compile.targets import Form, Target, target
from edge_runtime.bundle import Bundle, Manifest, pack
from edge_runtime.errors import BadInput, CheckFailed

PROOF_ROWS = 24
"""Rows on which every target is compared at a build, fewer of a large network; `verify` compares all it is given."""
_PROOF_MACS = 30_000_000
_COUNTED = 1  # instructions hardly depend on the values: clamps and a softmax's maximum

Progress = Callable[[str], None]
TFLITE_ENTRY = "network.tflite"


def build(
    model: object,
    data: Path | str | None,
    targets: list[Target],
    progress: Progress,
    gate: float = agreement.GATE,
) -> Bundle:
    """A bundle of a network alone: features in, scores out.

    data: an .npz with `features` (n x k) to calibrate on; needed unless the model is a quantised .tflite. What it
    may hold beside them: see rows.load_split. gate: see network.prepare.
    """
    progress("reading and quantising the network")
    rows = load_rows(Path(data)) if data is not None else None
    network = prepare(model, None if data is None else load_split(Path(data)), gate=gate)
    artifacts, texts = compile_for(network, targets, progress)
    macs = sum(layer_cost.macs(step) for step in network.plan.steps)
    inputs = proof_inputs(network.graph, rows, max(4, min(PROOF_ROWS, _PROOF_MACS // max(macs, 1))))
    progress(f"proving {len(targets)} targets equal on {len(inputs.features)} rows")
    verify.check(artifacts, inputs)
    limit = layer_cost.endless(network.plan)
    counted = verify.Inputs(inputs.power_cdbm, inputs.features[:_COUNTED], inputs.n_outputs)
    costs = {t.name: cost.measure(artifacts[t.name], t, counted, limit).document() for t in targets}
    entries = {TFLITE_ENTRY: network.tflite}
    listed = {}
    for t in targets:
        entry = f"{t.name}/edge_model.{'so' if t.form is Form.SHARED else 'o'}"
        entries[entry] = artifacts[t.name]
        sources = {f"{t.name}/{name}": text.encode() for name, text in texts.items()}
        kept = [k for k in sources if t.form is Form.FREESTANDING or k.endswith(".h")]
        entries |= {k: sources[k] for k in kept}
        listed[t.name] = {
            "entry": entry,
            "sources": kept,
            "mode": "int8",
            "style": "network",
            "why": "an int8 network has one form",
            "cost": costs[t.name],
        }
    section = describe_network(
        network, {t.name: str(listed[t.name]["entry"]) for t in targets}, counted_on(targets)
    )
    section["instructions"] = count_instructions(network, artifacts)
    return Bundle(pack(_manifest(network, model, section, listed), entries))


def compile_for(
    network: Network, targets: list[Target], progress: Progress
) -> tuple[dict[str, bytes], dict[str, str]]:
    """(target's name -> ELF, file name -> text) of a network."""
    texts = network.sources
    artifacts = {}
    for t in targets:
        progress(f"compiling the network for {t.name}")
        artifacts[t.name] = toolchain.build(texts, t)
    return artifacts, texts


def _manifest(
    network: Network, model: object, section: dict[str, Any], artifacts: dict[str, Any]
) -> Manifest:
    graph = network.graph
    source = Path(model).suffix.lstrip(".") if isinstance(model, str | Path) else type(model).__name__
    return {
        "classes": [],
        "contract": None,
        "pipeline": None,
        "baseline": None,
        "model": {
            "source": f"network ({source})",
            "trees": 0,
            "nodes": 0,
            "leaves": 0,
            "n_features": graph.tensors[graph.input].size,
            "n_outputs": graph.tensors[graph.output].size,
            "feature_names": [],
            "checkpoint_sha256": hashlib.sha256(network.tflite).hexdigest(),
            "checkpoint_exact": True,
        },
        "network": section,
        "artifacts": artifacts,
        "accuracy": None,
        "data_sha256": None,
        "recordings": [],
        "tools": {
            name: toolchain.version_of(name) for name in ("edge-runtime", "ziglang", "numpy", "flatbuffers")
        },
    }


def counted_on(targets: list[Target]) -> Target:
    """The target that layers are counted on: aarch64 where it is built for."""
    return next((t for t in targets if t.name == "aarch64"), targets[0])


def describe_network(network: Network, artifacts: Mapping[str, str], counted: Target) -> dict[str, Any]:
    """The manifest's section. artifacts: target's name -> entry. counted: where instructions are counted."""
    graph, plan = network.graph, network.plan
    ends = graph.tensors[graph.input], graph.tensors[graph.output]
    example = np.zeros(ends[0].shape, ends[0].dtype).tobytes()
    return {
        "tflite": TFLITE_ENTRY,
        "artifacts": dict(artifacts),
        "input": _end(ends[0]),
        "output": _end(ends[1]),
        "input_bytes": _bytes(ends[0]),
        "output_bytes": _bytes(ends[1]),
        "input_steps": [[float(v).hex() for v in values] for values in input_steps(graph)],
        "layers": [row.document() for row in layer_cost.layers(plan, counted, example)],
        "counted_on": counted.name,
        "instructions": {},
        "arena_bytes": emit.arena_bytes(plan),
        "macs": sum(layer_cost.macs(s) for s in plan.steps),
        "agreement": network.agreement,
        "ranges": [
            {"percentile": c.percentile, "agreement": c.agreement, "error": c.error} for c in network.choices
        ],
        "machine_dependent": list(network.machine_dependent),
        "cascade": None,
    }


def count_instructions(network: Network, artifacts: Mapping[str, bytes]) -> dict[str, int]:
    """Instructions of one inference on each target."""
    ends = network.graph.tensors[network.graph.input], network.graph.tensors[network.graph.output]
    example = bytes(_bytes(ends[0]))
    limit = layer_cost.endless(network.plan)
    machines = {
        name: Machine(target(name), artifact, count=True, endless=limit)
        for name, artifact in artifacts.items()
    }
    return {
        name: machine.call("edge_network", example, Out(_bytes(ends[1]))).instructions
        for name, machine in machines.items()
    }


def _bytes(t: Tensor) -> int:
    return t.size * np.dtype(t.dtype).itemsize


def _end(t: Tensor) -> dict[str, Any]:
    scale = None if t.scale is None else float(t.scale[0]).hex()
    return {"shape": list(t.shape), "dtype": t.dtype, "scale": scale, "zero_point": t.zero_point}


def proof_inputs(graph: Graph, rows: Array | None, count: int) -> verify.Inputs:
    """Rows, where there are none random ones over the whole input range, and the exact scores of the network."""
    t = graph.tensors[graph.input]
    if rows is None:
        rng = np.random.default_rng(20261124)
        step = 1.0 if t.scale is None else t.step
        whole = rng.integers(-128, 128, (count, t.size)) - (t.zero_point if t.dtype == "int8" else 0)
        rows = (whole * step).astype(np.float32)
        if graph.gain is not None and graph.offset is not None:
            rows = ((rows - graph.offset) / graph.gain).astype(np.float32)
    picked = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)].astype(np.float32)
    if picked.shape[1] != t.size:
        raise BadInput(f"data: {picked.shape[1]} features a row; the network takes {t.size}")
    scores = real_outputs(graph, picked).astype(np.float64)
    return verify.Inputs(np.zeros((0, 0), np.int16), picked, scores.shape[1], scores)


def verify_bundle(bundle: Bundle, rows: Array, count: int) -> list[verify.Parity]:
    """Every artifact of a bundle of a network alone on at most `count` rows, against the .tflite it holds.

    Raises BadInput where the rows are not its input, CheckFailed on any difference.
    """
    graph = graph_of(bundle)
    artifacts = {name: bundle.entry(a["entry"]) for name, a in bundle.manifest["artifacts"].items()}
    return verify.check(artifacts, proof_inputs(graph, rows, count))


def graph_of(bundle: Bundle) -> Graph:
    """The network of a bundle as a graph, with the input scaling that its manifest holds."""
    section = bundle.manifest["network"]
    graph = reader.read(bundle.entry(section["tflite"]), f"{bundle.origin}:{section['tflite']}")
    a, b = (np.array([float.fromhex(v) for v in values], np.float64) for values in section["input_steps"])
    if len(a) > 1:
        t = graph.tensors[graph.input]
        graph.gain = (a * t.step).astype(np.float32)
        graph.offset = ((b - t.zero_point) * t.step).astype(np.float32)
    return graph


def check_cascade(bundle: Bundle, power_cdbm: NDArray[np.int16]) -> int:
    """Compare the network's artifacts of a cascade with its .tflite on sweeps; how many calls were equal.

    Raises CheckFailed on any difference.
    """
    graph = graph_of(bundle)
    section = bundle.manifest["network"]
    artifacts = {name: bundle.entry(entry) for name, entry in section["artifacts"].items()}
    return check_raw(graph, artifacts, network_input(graph, power_cdbm))


def check_raw(graph: Graph, artifacts: Mapping[str, bytes], rows: Array) -> int:
    """edge_network of every artifact against the integer arithmetic, byte for byte; the number of calls."""
    want = run(lower(graph), rows)
    for name, artifact in artifacts.items():
        machine = Machine(target(name), artifact)
        for n, (row, answer) in enumerate(zip(rows, want, strict=True)):
            got = machine.call("edge_network", row.tobytes(), Out(answer.nbytes))
            if got.outputs[0] != answer.tobytes():
                raise CheckFailed(
                    f"network: {name} answers {np.frombuffer(got.outputs[0], answer.dtype).tolist()} to row {n}, "
                    f"the .tflite {answer.reshape(-1).tolist()}"
                )
    return len(artifacts) * len(rows)


def lines(manifest: Mapping[str, Any]) -> Iterator[str]:
    """The network's section for people: the layers and what they cost, agreement, cascade."""
    n = manifest["network"]
    yield (
        f"network   {n['input']['dtype']} {n['input']['shape']} to {n['output']['dtype']} {n['output']['shape']}, "
        f"{n['macs']:,} multiply-accumulates, arena {n['arena_bytes']:,} bytes"
    )
    yield f"{'layer':<30}{'operator':<20}{'MACs':>12}{n['counted_on'] + ' insns':>18}{'flash B':>10}{'arena B':>10}"
    for row in n["layers"]:
        figures = row["macs"], row["instructions"], row["flash_bytes"], row["arena_bytes"]
        widths = 12, 18, 10, 10
        yield f"{row['layer'][-29:]:<30}{row['kind']:<20}" + "".join(
            f"{v:>{w},}" for v, w in zip(figures, widths, strict=True)
        )
    if n["agreement"]:
        yield from agreement.lines(n["agreement"], manifest["classes"])
    if n["machine_dependent"]:
        yield (
            "tflite-runtime on x86-64 may give the last bit otherwise after: "
            + ", ".join(n["machine_dependent"])
        )
    if n["cascade"]:
        yield from _cascade_lines(n["cascade"])


def _cascade_lines(cascade: Mapping[str, Any]) -> Iterator[str]:
    yield f"the network is asked of {100 * cascade['asked']:.1f} % of the test scans"
    for name, figure in cascade["accuracy"].items():
        low, high = figure["interval_95"]
        yield (
            f"{name:<12} accuracy {figure['value']:.3f} (95 %: {low:.3f} to {high:.3f}), "
            f"{cascade['instructions'][name]:,} instructions a scan"
        )
