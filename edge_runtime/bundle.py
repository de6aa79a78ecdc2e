"""The bundle (`.edge`): one file that holds all between a scan and its verdict, and proves itself whole.

Layout, little-endian:

    8    magic "EDGEBNDL"
    4    u32 format, 1
    4    u32 length of the header
    n    header, canonical JSON: {"entries": [{"name", "size"}, ...], "manifest": {...}}
    ...  the entries' bytes, in the header's order
    32   SHA-256 of all that precedes it

The manifest declares the contract, the pipeline, the classes, the costs and where everything came from. A
file with any byte changed, cut or added is refused.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.errors import BadInput
from edge_runtime.files import write_whole
from edge_runtime.scan import Axis, Scan
from edge_runtime.verdict import Verdict

if TYPE_CHECKING:
    from edge_runtime.engines import Engine
    from edge_runtime.engines.compiled import CompiledEngine

MAGIC = b"EDGEBNDL"
FORMAT = 1
_HEAD = struct.Struct("<8sII")
_DIGEST_BYTES = 32

Manifest = dict[str, Any]


def pack(manifest: Manifest, entries: Mapping[str, bytes]) -> bytes:
    """The bytes of a bundle. Equal input gives equal bytes."""
    listed = [{"name": name, "size": len(blob)} for name, blob in entries.items()]
    header = canonical_json({"entries": listed, "manifest": manifest})
    body = b"".join([_HEAD.pack(MAGIC, FORMAT, len(header)), header, *entries.values()])
    return body + hashlib.sha256(body).digest()


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no blanks: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


class Bundle:
    """An opened bundle: its manifest, its entries, and a model that answers.

    `infer` and `scores` build the engine for this machine at their first call and keep it.
    """

    def __init__(self, data: bytes, origin: str = "<memory>") -> None:
        """Check and open a bundle's bytes; `origin` names it in errors. Raises BadInput where not whole."""
        self.data = data
        self.origin = origin
        try:
            self.manifest, self._places = _parse(data)
        except (ValueError, KeyError, TypeError, struct.error) as e:
            raise BadInput(f"bundle {origin}: {e}; copy it again, or build it again with edge-compile") from e

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Read the file at `path`. Raises BadInput where it is missing, or not whole to the byte."""
        try:
            data = Path(path).read_bytes()
        except OSError as e:
            raise BadInput(f"bundle {path}: {e.strerror}; give a file as edge-compile build writes it") from e
        return cls(data, str(path))

    @property
    def sha256(self) -> str:
        """The digest that closes the file: a bundle's identity in journals."""
        return self.data[-_DIGEST_BYTES:].hex()

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes that a verdict's `label` indexes; empty for a model without a pipeline."""
        classes: Sequence[str] = self.manifest["classes"]
        return classes

    @property
    def axis(self) -> Axis:
        """The frequencies that the contract expects. Raises BadInput for a model without a pipeline."""
        contract = self.manifest.get("contract")
        if contract is None:
            raise BadInput(
                f"bundle {self.origin}: holds a model without a pipeline; build it with --pipeline"
            )
        return Axis(contract["start_hz"], contract["step_hz"], contract["points"])

    def label_name(self, label: int) -> str:
        """The class's name, or `UNKNOWN`."""
        return self.classes[label] if label >= 0 else "UNKNOWN"

    def entry(self, name: str) -> bytes:
        """The bytes of one entry. Raises BadInput where there is none of that name."""
        if name not in self._places:
            raise BadInput(f"bundle {self.origin}: holds no {name!r}, only {', '.join(self._places)}")
        at, size = self._places[name]
        return self.data[at : at + size]

    @property
    def entries(self) -> Sequence[str]:
        """The names of all entries."""
        return list(self._places)

    # The engines are imported where they are asked for: whoever reads a manifest should not pay for ctypes.

    @cached_property
    def engine(self) -> Engine:
        """What the device loop asks on this machine, best first. Raises BadInput where nothing runs here."""
        from edge_runtime.engines import open_engine  # noqa: PLC0415

        return open_engine(self)[0]

    @cached_property
    def compiled(self) -> CompiledEngine:
        """The model compiled for this machine. Raises BadInput where the bundle has none for it."""
        from edge_runtime.engines.compiled import CompiledEngine  # noqa: PLC0415

        return CompiledEngine.of(self)

    def infer(self, scan: Scan) -> Verdict:
        """The verdict on one scan, through contract, features, screen, model and calibration."""
        if scan.axis != self.axis:
            raise BadInput(
                f"scan: covers {scan.axis}, the bundle's contract asks for {self.axis}; configure it so"
            )
        return Verdict._make(self.engine.infer(scan.power_cdbm))

    def scores(self, features: Sequence[float]) -> list[float]:
        """Raw scores (margins) of the model alone for one row of features, in the model's own order."""
        return self.compiled.scores(features)

    def save(self, path: str | Path) -> None:
        """Write the file whole or not at all. Raises BadInput where the place cannot be written."""
        write_whole(Path(path), self.data, "bundle", "-o")


def _parse(data: bytes) -> tuple[Manifest, dict[str, tuple[int, int]]]:
    if len(data) < _HEAD.size + _DIGEST_BYTES or data[:8] != MAGIC:
        raise ValueError("not an .edge file")
    if hashlib.sha256(memoryview(data)[:-_DIGEST_BYTES]).digest() != data[-_DIGEST_BYTES:]:
        raise ValueError("damaged: its bytes do not match its digest")
    _, version, length = _HEAD.unpack_from(data)
    if version != FORMAT:
        raise ValueError(f"written in format {version}, this runtime reads format {FORMAT}")
    header = json.loads(data[_HEAD.size : _HEAD.size + length])
    at = _HEAD.size + length
    places: dict[str, tuple[int, int]] = {}
    for entry in header["entries"]:
        places[entry["name"]] = (at, entry["size"])
        at += entry["size"]
    if at != len(data) - _DIGEST_BYTES:
        raise ValueError("its entries do not fill it")
    return header["manifest"], places
