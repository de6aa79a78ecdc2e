"""A model to a bundle: load, fit, emit, compile, prove, count, pack.

    model -> forest -.
                      >- C -> one artifact a target -> parity on every target -> cost -> bundle
    pipeline + data -'

Nothing is written before every target has given the same bits as the host and as the model's own library.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile import accuracy, calibrate, cost, forest_file, frontends, kernels, toolchain, verify
from compile.check import FIXED_ENTRY, verify_bundle
from compile.decide import FittedPipeline, decide
from compile.emit import trees
from compile.emit.decide import pipeline_c
from compile.emit.header import header_h
from compile.forest import Forest
from compile.ladder import ladder
from compile.matrix import Matrix
from compile.modes import Choice, alone, choose
from compile.neural import bundle as network_bundle
from compile.neural import load as networks
from compile.neural.agreement import GATE as AGREEMENT
from compile.neural.agreement import check_gate
from compile.neural.attach import attach
from compile.pipeline import Pipeline
from compile.probes import probe_rows
from compile.quantise import Fixed, fixed
from compile.targets import Form, Target, target
from edge_runtime.bundle import Bundle, Manifest, pack
from edge_runtime.errors import BadInput
from edge_runtime.recording import Split

__all__ = ["build", "verify_bundle"]

DEFAULT_TARGETS = ("host", "aarch64", "armv7")
HEAT_ROWS = 2000
"""Rows of the data that tell the emitter which branches are hot."""
PROOF_ROWS = 160
"""Rows on which every target is compared and counted at each build; `verify` compares all it is given."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a bundle is made of, before it is compiled. Without a pipeline, `fitted` and `matrix` may be None.

    quantised: the model with its leaves in fixed point, where a target takes it. choices: each target's mode.
    """

    model: frontends.LoadedModel
    fitted: FittedPipeline | None
    matrix: Matrix | None
    quantised: Fixed | None
    choices: Mapping[str, Choice]

    @property
    def forest(self) -> Forest:
        """What the pipeline is fitted to: the model's trees, or in fixed point where no target is exact."""
        exact = self.quantised is None or any(c.mode == "exact" for c in self.choices.values())
        return self.model.forest if self.quantised is None or exact else self.quantised.forest

    def forest_of(self, name: str) -> Forest:
        """The trees that a target computes."""
        if self.quantised is None or self.choices[name].mode == "exact":
            return self.model.forest
        return self.quantised.forest

    @property
    def oracles(self) -> dict[str, verify.Oracle]:
        """For targets whose trees are not those that the pipeline is fitted to."""
        forest = self.forest
        others = ((name, self.forest_of(name)) for name in self.choices)
        return {name: verify.Oracle(other, self.fitted) for name, other in others if other is not forest}


def build(
    model: Path | str | object,
    *,
    pipeline: Path | str | None = None,
    data: Path | str | None = None,
    targets: Iterable[str] = DEFAULT_TARGETS,
    mode: str | None = None,
    network: Path | str | object | None = None,
    agreement: float = AGREEMENT,
    progress: Progress = lambda _line: None,
) -> Bundle:
    """Build a bundle.

    model: a model file, or a live object of a training library. pipeline: a TOML file; without it the artifact is
    the model alone. data: the `.npz` of `edge-compile features`, needed with a pipeline (it is fitted to it) and
    otherwise a source of rows for the proof. targets: names of targets.TARGETS, or "host". mode: "exact",
    "fixed" or "compact", as emit.trees has them; None chooses for each target, as modes.choose says. network: a
    second model that sees the sweep in dBm and is asked where the trees are unsure; a network as `model` stands
    alone. agreement: the least share of held-out decisions that quantising the network must keep. progress: told,
    in a line, what is being done.

    Raises BadInput for what cannot be built, CheckFailed where a target gives other bits.
    """
    names = targets.split(",") if isinstance(targets, str) else targets
    chosen = list({t.name: t for t in map(target, names)}.values())
    check_gate(agreement)
    if not isinstance(data, Path | str | None):
        raise BadInput(
            f"data: is of {type(data).__name__}; give the path of the .npz that features_to_npz wrote"
        )
    if networks.takes(model):
        if pipeline is not None or network is not None:
            raise BadInput(
                f"model {model}: is a network; beside a pipeline give trees as MODEL, the network as --network"
            )
        return network_bundle.build(model, data, chosen, progress, agreement)
    if network is not None and pipeline is None:
        raise BadInput("network: is asked where the trees are unsure; give --pipeline and --data too")
    progress("reading the model and the data")
    parts = _parts(frontends.load(model), pipeline, data, chosen, mode, progress)
    sources = {t.name: _sources(parts, t) for t in chosen}
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
        costs[t.name] = _cost(artifacts[t.name], t, inputs, sources[t.name].code)
    bundle = Bundle(_pack(parts, sources, artifacts, costs))
    if network is None or parts.fitted is None or parts.matrix is None:
        return bundle
    features = parts.matrix.features
    verdicts = decide(parts.fitted, features.astype(np.int32), parts.forest.raw_scores(features))
    return attach(bundle, network, parts.matrix, verdicts, chosen, progress, agreement)


def _parts(
    model: frontends.LoadedModel,
    pipeline: Path | str | None,
    data: Path | str | None,
    targets: Sequence[Target],
    mode: str | None,
    progress: Progress,
) -> Parts:
    matrix = Matrix.load(Path(data)) if data is not None else None
    if matrix is not None and matrix.features.shape[1] == model.forest.n_features:
        model = replace(model, forest=model.forest.counted(matrix.features[matrix.sample(HEAT_ROWS)]))
    quantise = lru_cache(partial(fixed, model.forest, matrix.features if matrix is not None else None))
    rows = len(matrix.features) if matrix is not None else 0
    choices = {}
    for t in targets:
        if mode is not None:
            choices[t.name] = Choice(mode, "as it was asked for")
            continue
        choices[t.name] = choose(model.forest, t, rows, quantise, pipeline=pipeline is not None)
        progress(f"{t.name}: {choices[t.name].mode}, {choices[t.name].why}")
    quantised = quantise() if any(c.mode != "exact" for c in choices.values()) else None
    parts = Parts(model, None, matrix, quantised, choices)
    if pipeline is None:
        return parts
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
        parts.forest.raw_scores(matrix.features),
        classes=matrix.classes,
    )
    return replace(parts, fitted=fitted)


@dataclass(frozen=True, slots=True)
class Sources:
    """The C of one target, and how its trees were emitted."""

    files: Mapping[str, str]
    code: trees.TreeCode


def _sources(parts: Parts, t: Target) -> Sources:
    forest, fitted = parts.model.forest, parts.fitted
    choice = parts.choices[t.name]
    code = trees.emit(forest, t, mode=choice.mode, quantised=parts.quantised, room_bytes=choice.room_bytes)
    if fitted is None:
        return Sources(alone(forest, code), code)
    header = header_h(fitted.pipeline.feature_names, forest.n_outputs, fitted.classes, fitted.pipeline)
    text = ['#include "edge_model.h"', '#include "edge_features.h"', code.c, pipeline_c(fitted)]
    files = {"edge_model.h": header, "edge_model.c": "\n".join(text), **code.files}
    return Sources(files | dict(kernels.sources()), code)


def proof_inputs(parts: Parts, rows: int) -> verify.Inputs:
    """What the artifacts are compared and counted on: scans where there are any, and rows at every threshold."""
    forest = parts.forest
    probes = probe_rows(forest, rows)
    power: NDArray[np.int16] = np.zeros((0, 0), np.int16)
    if parts.matrix is not None:
        picked = parts.matrix.sample(rows)
        power = parts.matrix.power_cdbm[picked] if parts.fitted else power
        probes = np.concatenate([parts.matrix.features[picked], probes])
    return verify.Inputs(power, probes, forest.n_outputs, forest.raw_scores(probes), parts.oracles)


def _cost(artifact: bytes, t: Target, inputs: verify.Inputs, code: trees.TreeCode) -> dict[str, Any]:
    found = cost.measure(artifact, t, inputs).document()
    found["bound"] = cost.bound(artifact, t, code)
    cost.check_bound(found, t.name)
    if t is target("host"):
        found["branches"] = cost.host_branches(artifact, t, inputs)
    return found


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
            "why_mode": parts.choices[name].why,
            "worst_error": code.worst_error,
            "style": code.style,
            "why": code.reason,
            "cost": costs[name],
        }
    entries["model.forest"] = forest_file.to_bytes(parts.model.forest)
    if parts.quantised:
        entries[FIXED_ENTRY] = forest_file.to_bytes(parts.quantised.forest)
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
            "checkpoint_exact": parts.model.checkpoint_exact and forest is parts.model.forest,
        },
        "artifacts": artifacts,
        "accuracy": None,
        "ladder": None,
        "data_sha256": matrix.sha256 if matrix else None,
        "recordings": [{"name": n, "sha256": s} for n, s in matrix.captures] if matrix else [],
        "tools": {
            name: toolchain.version_of(name) for name in ("edge-runtime", "treelite", "ziglang", "numpy")
        },
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


class _Callable(ModuleType):
    """Importing this module puts it in the place of `compile.build`, which is to be called."""

    def __call__(self, *args: Any, **options: Any) -> Bundle:
        return build(*args, **options)


sys.modules[__name__].__class__ = _Callable
