"""A network added to a bundle of trees: the cascade of both, fitted, measured and packed."""

from __future__ import annotations

from typing import Any

import numpy as np

from compile.calibrate import confidence_table
from compile.decide import Verdicts
from compile.ladder import with_network
from compile.matrix import Matrix
from compile.neural import agreement, cascade
from compile.neural.bundle import (
    PROOF_ROWS,
    TFLITE_ENTRY,
    Progress,
    check_raw,
    compile_for,
    count_instructions,
    counted_on,
    describe_network,
)
from compile.neural.network import Network, Rows, prepare
from compile.neural.quantise import ScanInput
from compile.pipeline import Calibration
from compile.targets import Form, Target
from edge_runtime.bundle import Bundle, pack
from edge_runtime.errors import BadInput
from edge_runtime.reasons import Reason
from edge_runtime.recording import Origin, Split
from edge_runtime.verdict import UNKNOWN, Rung

_STEPS = 256


def attach(
    bundle: Bundle,
    model: object,
    matrix: Matrix,
    verdicts: Verdicts,
    targets: list[Target],
    progress: Progress,
    gate: float = agreement.GATE,
) -> Bundle:
    """The bundle with a network that is asked where its trees are unsure.

    model: sees a sweep in dBm. matrix: the scans of the bundle's own data; verdicts: what the bundle answers to them.
    gate: see network.prepare.
    Raises BadInput where the network does not fit the bundle, CheckFailed where quantising costs too many decisions.
    """
    progress("quantising the network")
    network = prepare(model, _rows(matrix), scan=ScanInput(), gate=gate)
    outputs = network.graph.tensors[network.graph.output]
    if outputs.size != len(matrix.classes) or outputs.dtype != "int8":
        raise BadInput(
            f"network: answers {outputs.size} values of {outputs.dtype}, the bundle has {len(matrix.classes)} "
            "classes; train it on the same classes"
        )
    artifacts, texts = compile_for(network, targets, progress)
    progress(f"proving the network equal on {len(targets)} targets")
    check_raw(network.graph, artifacts, network.inputs(matrix.power_cdbm[matrix.sample(PROOF_ROWS)]))
    entries = {name: bundle.entry(name) for name in bundle.entries}
    entries[TFLITE_ENTRY] = network.tflite
    listed = {}
    for t in targets:
        listed[t.name] = f"{t.name}/edge_network.{'so' if t.form is Form.SHARED else 'o'}"
        entries[listed[t.name]] = artifacts[t.name]
        if t.form is Form.FREESTANDING:
            entries |= {f"{t.name}/{name}": text.encode() for name, text in texts.items()}
    section = describe_network(network, listed, counted_on(targets))
    section["instructions"] = count_instructions(network, artifacts)
    section["cascade"], counts = _cascade(network, matrix, verdicts, bundle.manifest, section)
    return Bundle(pack(bundle.manifest | {"network": section, "ladder": counts}, entries))


def _rows(matrix: Matrix) -> Rows:
    calibration = matrix.split == Split.CALIBRATION
    held_out = (matrix.split == Split.TEST) & (matrix.label >= 0)
    if not calibration.any() or not held_out.any():
        raise BadInput("data: has no scan to calibrate or to test on; derive the recordings with both splits")
    origins = {f"origin {o.name.lower()}": matrix.origin[held_out] == o for o in Origin}
    kinds = {f"class {name}": matrix.label[held_out] == k for k, name in enumerate(matrix.classes)}
    return Rows(matrix.power_cdbm[calibration], matrix.power_cdbm[held_out], origins | kinds)


def _cascade(
    network: Network, matrix: Matrix, verdicts: Verdicts, manifest: dict[str, Any], section: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Bound and confidence from the calibration scans, accuracy and cost from the test scans.

    And the manifest's ladder with what the network changed on the calibration scans.
    """
    raw = network.raw(matrix.power_cdbm).astype(np.int64)
    best = raw.argmax(1)
    two = np.partition(raw, -2, axis=1)[:, -2:]
    steps = two[:, 1] - two[:, 0]
    pipeline = manifest["pipeline"]
    calibration = Calibration(**pipeline["pipeline"]["calibration"])
    fit_on = (matrix.split == Split.CALIBRATION) & (matrix.label >= 0)
    limits, chances = confidence_table(
        calibration, steps[fit_on].astype(float), (best == matrix.label)[fit_on]
    )
    confidence_q16 = np.array(chances)[np.searchsorted(np.array(limits), np.arange(_STEPS), side="right")]
    known = confidence_q16[steps] >= pipeline["min_confidence_q16"]
    reached = verdicts["rung"] == Rung.TREES
    may_ask = reached & (verdicts["reason"] != Reason.NOVEL)
    # Alone, the network would stand where the trees do: behind the same screen and the same test for the new.
    alone = np.where(may_ask, np.where(known, best, UNKNOWN), verdicts["label"])
    margin = np.where(may_ask, verdicts["margin"], np.inf)
    trees_right, network_right = verdicts["label"] == matrix.label, alone == matrix.label
    fitted = fit_on & may_ask
    bound = cascade.fit(margin[fitted], trees_right[fitted], network_right[fitted])
    test = (matrix.split == Split.TEST) & (matrix.label >= 0)
    cost = manifest["artifacts"][section["counted_on"]]["cost"]
    instructions = cascade.Instructions(
        cost["infer"]["mean"],
        cost["model"]["mean"],
        sum(row["instructions"] for row in section["layers"]),
        float(reached[test].mean()),
    )
    found = cascade.report(
        bound, margin[test], trees_right[test], network_right[test], matrix.capture[test], instructions
    )
    step = network.graph.tensors[network.graph.output].step
    counts = manifest["ladder"]
    if counts:
        counts = with_network(counts, margin[fitted], (network_right & ~trees_right)[fitted].tolist())
    declared = {
        "margin_bound": float(bound.margin).hex(),
        "confidence_q16": confidence_q16.tolist(),
        "step": float(step).hex(),
        "min_confidence_q16": pipeline["min_confidence_q16"],
    }
    return found | declared, counts
