"""`edge-compile verify`: every artifact of a bundle against the model that the bundle holds.

Rows are those of the data, values on and beside thresholds, and rows that reach every split and leaf on either
side (witness.py), so that a wrong threshold, leaf or child shows even where no recording ever leads.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from compile import forest_file, verify
from compile.decide import FittedPipeline
from compile.forest import Forest
from compile.matrix import Matrix
from compile.neural import bundle as network_bundle
from compile.probes import probe_rows
from compile.quantise import decide
from compile.witness import witness_rows
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BadInput, CheckFailed

FIXED_ENTRY = "model.fixed"
"""The forest of the targets whose leaves are in fixed point; `model.forest` is the training library's."""
WITNESS_ROWS = 20_000
"""At most this many, which is enough for 12,000 splits."""


def verify_bundle(bundle: Bundle, matrix: Matrix | None, rows: int) -> list[verify.Parity]:
    """Compare every artifact of a bundle on at most `rows` scans of `matrix`, and on rows for every split.

    matrix: may be left out for a bundle without a pipeline. Raises BadInput where the data is not the bundle's
    kind, CheckFailed on any difference.
    """
    manifest, model = bundle.manifest, bundle.manifest["model"]
    if not model["trees"]:
        if matrix is None:
            raise BadInput(f"bundle {bundle.origin}: holds a network; give --data, rows of its input")
        return network_bundle.verify_bundle(bundle, matrix.features, rows)
    if matrix is None and manifest["pipeline"]:
        raise BadInput(
            f"bundle {bundle.origin}: holds a pipeline; give --data, the .npz of edge-compile features"
        )
    if matrix is not None and len(matrix.feature_names) != model["n_features"]:
        raise BadInput(
            f"data: has {len(matrix.feature_names)} features, the model takes {model['n_features']}"
        )
    if matrix is not None and manifest.get("network"):
        network_bundle.check_cascade(bundle, matrix.power_cdbm[matrix.sample(rows)])
    fixed = {name for name, a in manifest["artifacts"].items() if a["mode"] != "exact"}
    exact = _forest(bundle.entry("model.forest"))
    other = _forest(bundle.entry(FIXED_ENTRY)) if fixed else exact
    parities = verify.check(
        {name: bundle.entry(a["entry"]) for name, a in manifest["artifacts"].items()},
        _inputs(bundle, matrix, rows, exact, other, fixed),
    )
    if matrix is None or not fixed:
        return parities
    otherwise = check_decisions(exact, other, manifest["data_sha256"], matrix)
    count = len(matrix.features)
    return [p._replace(decisions=count, otherwise=otherwise) if p.target in fixed else p for p in parities]


def _inputs(
    bundle: Bundle, matrix: Matrix | None, rows: int, exact: Forest, other: Forest, fixed: set[str]
) -> verify.Inputs:
    """The rows and scans, and what each target should answer."""
    manifest = bundle.manifest
    fitted = FittedPipeline.from_dict(manifest["pipeline"]) if manifest["pipeline"] else None
    power: NDArray[np.int16] = np.zeros((0, 0), np.int16)
    if matrix is not None and fitted:
        power = matrix.power_cdbm[matrix.sample(rows)]
    all_fixed = len(fixed) == len(manifest["artifacts"])
    features, raw = _rows(exact, other if all_fixed else exact, matrix, rows)
    oracles = {} if all_fixed else {name: verify.Oracle(other, fitted) for name in fixed}
    return verify.Inputs(power, features, manifest["model"]["n_outputs"], raw, oracles)


@lru_cache(maxsize=4)
def _forest(data: bytes) -> Forest:
    return forest_file.from_bytes(data)


@lru_cache(maxsize=2)  # whoever checks a hundred bundles of one model finds its rows once
def _rows(
    exact: Forest, told: Forest, matrix: Matrix | None, rows: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Rows of features, and the raw scores of `told` for them."""
    parts = []
    if matrix is not None:
        parts.append(matrix.features[matrix.sample(rows)])
    parts += [probe_rows(exact, rows), witness_rows(exact, WITNESS_ROWS)]
    features = np.concatenate(parts)
    return features, told.raw_scores(features)


def check_decisions(exact: Forest, other: Forest, built_with_sha256: str | None, matrix: Matrix) -> int:
    """Rows of the data on which the fixed-point forest decides otherwise.

    Raises CheckFailed where there are any and the data is that of the build.
    """
    decided, instead = (decide(forest.raw_scores(matrix.features)) for forest in (exact, other))
    otherwise = int((decided != instead).sum())
    if otherwise and matrix.sha256 == built_with_sha256:
        raise CheckFailed(
            f"verify: in fixed point {otherwise} of {len(decided)} rows that it was built with are decided otherwise"
        )
    return otherwise
