"""A model to a bundle: load, fit, emit, compile, prove, count, pack.

    model -> forest -.
                      >- C -> one artifact a target -> parity on every target -> cost -> bundle
    pipeline + data -'

Nothing is written before every target has given the same bits as the host and as the model's own library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile import accuracy, calibrate, cost, forest_file, frontends, kernels, toolchain, verify
from compile.decide import FittedPipeline, decide
from compile.emit import trees
from compile.emit.decide import pipeline_c
from compile.emit.header import header_h
from compile.forest import Forest
from compile.ladder import ladder
from compile.matrix import Matrix
from compile.neural import bundle as network_bundle
from compile.neural import load as networks
from compile.neural.agreement import GATE as AGREEMENT
from compile.neural.attach import attach
from compile.pipeline import Pipeline
from compile.probes import probe_rows
from compile.quantise import Fixed, fixed
from compile.targets import Form, Target, target
from edge_runtime.bundle import Bundle, Manifest, pack
from edge_runtime.errors import BadInput
from edge_runtime.recording import Split

DEFAULT_TARGETS = ("host", "aarch64", "armv7")
HEAT_ROWS = 2000
"""Rows of the data that tell the emitter which branches are hot."""
PROOF_ROWS = 160
"""Rows on which every target is compared and counted at each build; `verify` compares all it is given."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a bundle is made of, before it is compiled. Without a pipeline, `fitted` and `matrix` may be None."""

    model: frontends.LoadedModel
    fitted: FittedPipeline | None
    matrix: Matrix | None
    quantised: Fixed | None

    @property
    def forest(self) -> Forest:
        """The model's trees."""
        return self.model.forest


def build(
    model: Path | str | object,
    *,
    pipeline: Path | str | None = None,
    data: Path | str | None = None,
    targets: Iterable[str] = DEFAULT_TARGETS,
    mode: str = "exact",
    network: Path | str | object | None = None,
    agreement: float = AGREEMENT,
    progress: Progress = lambda _line: None,
) -> Bundle:
    """Build a bundle.

    model: a model file, or a live object of a training library. pipeline: a TOML file; without it the artifact is
    the model alone. data: the `.npz` of `edge-compile features`, needed with a pipeline (it is fitted to it) and
    otherwise a source of rows for the proof. targets: names of targets.TARGETS, or "host". mode: "exact",
    "fixed" or "compact", as emit.trees has them. network: a second model that sees the sweep in dBm and is asked
    where the trees are unsure; a network as `model` stands alone. agreement: the least share of held-out
    decisions that quantising the network must keep. progress: told, in a line, what is being done.

    Raises BadInput for what cannot be built, CheckFailed where a target gives other bits.
    """
    chosen = list({t.name: t for t in map(target, targets)}.values())
    if networks.takes(model):
        if pipeline is not None or network is not None:
            raise BadInput(
                f"model {model}: is a network; beside a pipeline give trees as MODEL, the network as --network"
            )
        return network_bundle.build(model, data, chosen, progress, agreement)
    if network is not None and pipeline is None:
        raise BadInput("network: is asked where the trees are unsure; give --pipeline and --data too")
    progress("reading the model and the data")
    parts = _parts(frontends.load(model), pipeline, data, mode)
    sources = {t.name: _sources(parts, t, mode) for t in chosen}
    artifacts = {}
    for t in chosen:
        progress(f"compiling for {t.name}")
        artifacts[t.name] = toolchain.build(sources[t.name].files, t)
    inputs = proof_inputs(parts, PROOF_ROWS)
    progress(f"proving {len(chosen)} targets equal on {len(inputs.features)} rows")
    verify.check(artifacts, inputs)
    costs = {}
    for t in chosen:
        progress(f"counting on {t.name}")
        costs[t.name] = cost.measure(artifacts[t.name], t, inputs).document()
    bundle = Bundle(_pack(parts, sources, artifacts, costs))
    if network is None or parts.fitted is None or parts.matrix is None:
        return bundle
    features = parts.matrix.features
    verdicts = decide(parts.fitted, features.astype(np.int32), parts.forest.raw_scores(features))
    return attach(bundle, network, parts.matrix, verdicts, chosen, progress, agreement)


def _parts(
    model: frontends.LoadedModel, pipeline: Path | str | None, data: Path | str | None, mode: str
) -> Parts:
    matrix = Matrix.load(Path(data)) if data is not None else None
    if matrix is not None and matrix.features.shape[1] == model.forest.n_features:
        model = replace(model, forest=model.forest.counted(matrix.features[matrix.sample(HEAT_ROWS)]))
    quantised = None
    if mode != "exact":
        # In fixed point from here on: what is fitted, proven and told is what the device computes.
        quantised = fixed(model.forest, matrix.features if matrix is not None else None)
        model = replace(model, forest=quantised.forest, checkpoint_exact=False)
    if pipeline is None:
        return Parts(model, None, matrix, quantised)
    declared = Pipeline.load(Path(pipeline))
    if matrix is None:
        raise BadInput(f"pipeline {pipeline}: needs recordings to be fitted to; give --data D.npz")
    if tuple(declared.feature_names) != matrix.feature_names:
        raise BadInput(f"data {data}: computed with another pipeline than {pipeline}; run features again")
    if model.forest.n_features != len(matrix.feature_names):
        raise BadInput(
            f"model: takes {model.forest.n_features} features, {pipeline} declares {len(matrix.feature_names)}; "
            "train it on the data of this pipeline"
        )
    fitted = calibrate.fit(
        declared,
        matrix.features,
        matrix.label,
        matrix.split,
        model.forest.raw_scores(matrix.features),
        classes=matrix.classes,
    )
    return Parts(model, fitted, matrix, quantised)


@dataclass(frozen=True, slots=True)
class Sources:
    """The C of one target, and how its trees were emitted."""

    files: Mapping[str, str]
    code: trees.TreeCode


def _sources(parts: Parts, t: Target, mode: str) -> Sources:
    forest, fitted = parts.forest, parts.fitted
    code = trees.emit(forest, t, mode=mode, quantised=parts.quantised)
    names = fitted.pipeline.feature_names if fitted else list(forest.feature_names)
    classes = fitted.classes if fitted else ()
    header = header_h(names, forest.n_outputs, classes, fitted.pipeline if fitted else None)
    text = ['#include "edge_model.h"']
    if fitted:
        text += ['#include "edge_features.h"', code.c, pipeline_c(fitted)]
    else:
        text.append(code.c)
    files = {"edge_model.h": header, "edge_model.c": "\n".join(text), **code.files}
    return Sources(files | dict(kernels.sources()) if fitted else files, code)


def proof_inputs(parts: Parts, rows: int) -> verify.Inputs:
    """What the artifacts are compared and counted on: scans where there are any, and rows at every threshold."""
    forest = parts.forest
    probes = probe_rows(forest, rows)
    power: NDArray[np.int16] = np.zeros((0, 0), np.int16)
    if parts.matrix is not None:
        picked = parts.matrix.sample(rows)
        power = parts.matrix.power_cdbm[picked] if parts.fitted else power
        probes = np.concatenate([parts.matrix.features[picked], probes])
    return verify.Inputs(power, probes, forest.n_outputs, forest.raw_scores(probes))


def verify_bundle(bundle: Bundle, matrix: Matrix, rows: int) -> list[verify.Parity]:
    """Compare every artifact of a bundle on at most `rows` scans of `matrix`, and on probes of its thresholds.

    Raises BadInput where the data is not the bundle's kind, CheckFailed on any difference.
    """
    if not bundle.manifest["model"]["trees"]:
        return network_bundle.verify_bundle(bundle, matrix.features, rows)
    model = bundle.manifest["model"]
    if bundle.manifest.get("network"):
        network_bundle.check_cascade(bundle, matrix.power_cdbm[matrix.sample(rows)])
    if len(matrix.feature_names) != model["n_features"]:
        raise BadInput(
            f"data: has {len(matrix.feature_names)} features, the model takes {model['n_features']}"
        )
    artifacts = {name: bundle.entry(a["entry"]) for name, a in bundle.manifest["artifacts"].items()}
    picked = matrix.sample(rows)
    forest = forest_file.from_bytes(bundle.entry("model.forest"))
    features = np.concatenate([matrix.features[picked], probe_rows(forest, rows)])
    oracle = forest.raw_scores(features)
    power = matrix.power_cdbm[picked] if bundle.manifest["pipeline"] else np.zeros((0, 0), np.int16)
    return verify.check(artifacts, verify.Inputs(power, features, model["n_outputs"], oracle))


def _pack(
    parts: Parts,
    sources: Mapping[str, Sources],
    artifacts: Mapping[str, bytes],
    costs: Mapping[str, Any],
) -> bytes:
    entries: dict[str, bytes] = {}
    listed: dict[str, Any] = {}
    for name, artifact in artifacts.items():
        shared = target(name).form is Form.SHARED
        entry = f"{name}/edge_model.{'so' if shared else 'o'}"
        entries[entry] = artifact
        texts = {f"{name}/{file}": text.encode() for file, text in sources[name].files.items()}
        if shared:  # the source is for firmwares; a shared library needs its header only
            texts = {path: text for path, text in texts.items() if path.endswith("edge_model.h")}
        entries |= texts
        code = sources[name].code
        listed[name] = {
            "entry": entry,
            "sources": list(texts),
            "mode": code.mode,
            "worst_error": parts.quantised.worst_error if parts.quantised else 0.0,
            "style": code.style,
            "why": code.reason,
            "cost": costs[name],
        }
    entries["model.forest"] = forest_file.to_bytes(parts.forest)
    if parts.model.checkpoint:
        entries["model.tl"] = parts.model.checkpoint
    return pack(_manifest(parts, listed), entries)


def _manifest(parts: Parts, artifacts: dict[str, Any]) -> Manifest:
    forest, fitted, matrix = parts.forest, parts.fitted, parts.matrix
    manifest: Manifest = {
        "classes": list(fitted.classes) if fitted else [],
        "contract": fitted.to_dict()["pipeline"]["contract"] if fitted else None,
        "pipeline": fitted.to_dict() if fitted else None,
        "baseline": None,
        "model": {
            "source": forest.source,
            "trees": forest.n_trees,
            "nodes": int(np.sum(forest.feature >= 0)),
            "leaves": len(forest.leaf_values),
            "n_features": forest.n_features,
            "n_outputs": forest.n_outputs,
            "feature_names": list(forest.feature_names),
            "checkpoint_sha256": hashlib.sha256(parts.model.checkpoint).hexdigest(),
            "checkpoint_exact": parts.model.checkpoint_exact,
        },
        "artifacts": artifacts,
        "accuracy": None,
        "ladder": None,
        "data_sha256": matrix.sha256 if matrix else None,
        "recordings": [{"name": n, "sha256": s} for n, s in matrix.captures] if matrix else [],
        "tools": {name: metadata.version(name) for name in ("edge-runtime", "treelite", "ziglang", "numpy")},
    }
    if fitted and matrix:
        raw_scores = forest.raw_scores(matrix.features)
        verdicts = decide(fitted, matrix.features.astype(np.int32), raw_scores)
        manifest["ladder"] = ladder(fitted, matrix, raw_scores)
        manifest["accuracy"] = accuracy.measure(matrix, verdicts["label"])
        manifest["baseline"] = _baseline(fitted, matrix)
    return manifest


def _baseline(fitted: FittedPipeline, matrix: Matrix) -> dict[str, int] | None:
    """The rule behind the model: how far a peak must stand out of the median before something is there.

    The highest that 99.5 % of the training scans with nothing in them stay under.
    """
    if fitted.screen is None:
        return None
    nothing = fitted.screen.label
    quiet = matrix.power_cdbm[(matrix.split == Split.TRAIN) & (matrix.label == nothing)].astype(np.int32)
    middle = np.sort(quiet, axis=1)[:, quiet.shape[1] // 2]
    stands_out_cdb = np.quantile(quiet.max(axis=1) - middle, 0.995, method="higher")
    return {"nothing": nothing, "stands_out_cdb": int(stands_out_cdb) + 1}
