"""The training matrix (`.npz`) that `edge-compile features` writes, read back and checked."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import BadInput


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """Scans, their features and what is known of them.

    power_cdbm: int16 (n, points). features: float32 (n, k), whole numbers. label: int16 (n,), index into
    `classes`, -1 for a kind that is no class. split, origin: uint8 (n,), recording.Split and Origin.
    capture: uint16 (n,), index into `captures` (name, SHA-256). sha256: of the file.
    """

    power_cdbm: NDArray[np.int16]
    features: NDArray[np.float32]
    feature_names: tuple[str, ...]
    label: NDArray[np.int16]
    classes: tuple[str, ...]
    split: NDArray[np.uint8]
    origin: NDArray[np.uint8]
    capture: NDArray[np.uint16]
    captures: tuple[tuple[str, str], ...]
    sha256: str

    @classmethod
    def load(cls, path: Path) -> Matrix:
        """Read the file. Raises BadInput where it is missing, or not such a matrix."""
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            with np.load(path, allow_pickle=False) as z:
                names = zip(z["captures"].tolist(), z["captures_sha256"].tolist(), strict=True)
                matrix = cls(
                    z["power_cdbm"],
                    z["features"],
                    tuple(z["feature_names"].tolist()),
                    z["label"],
                    tuple(z["classes"].tolist()),
                    z["split"],
                    z["origin"],
                    z["capture"],
                    tuple(names),
                    digest,
                )
        except OSError as e:
            raise BadInput(f"data {path}: {e.strerror or e}; give the .npz of edge-compile features") from e
        except (KeyError, ValueError, zipfile.BadZipFile) as e:
            why = "not an .npz" if "pickled" in str(e) else e  # numpy takes what is no archive for a pickle
            raise BadInput(
                f"data {path}: not such a matrix ({why}); write it with edge-compile features"
            ) from e
        rows = {len(matrix.features), len(matrix.label), len(matrix.split), len(matrix.power_cdbm)}
        if len(rows) != 1 or matrix.features.shape[1:] != (len(matrix.feature_names),):
            raise BadInput(f"data {path}: its arrays differ in length; write it with edge-compile features")
        return matrix

    def sample(self, rows: int) -> NDArray[np.intp]:
        """At most `rows` row numbers spread evenly over the matrix."""
        picked: NDArray[np.intp] = np.unique(np.linspace(0, len(self.label) - 1, rows).astype(np.intp))
        return picked
