"""Recorded sweeps (`.scans`): what the rig plays, what `edge-compile features` reads. Standard library only.

Layout, little-endian, uncompressed so that the same sweeps are the same bytes everywhere:

    8   magic "EDGESCN1"
    4   u32 length of the header
    n   header, JSON: {"axis": {start_hz, step_hz, points}, "labels": [...],
        "captures": [{name, sha256, label, session}, ...], "count": N}
    then per scan: i16 label (index into labels), u16 capture, u8 split, u8 origin, u32 sweep_us, then
        `points` bytes of power as RF Explorer codes it: dBm = -byte / 2
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple, TypedDict

from edge_runtime.errors import BadInput
from edge_runtime.scan import Axis

MAGIC = b"EDGESCN1"
_ROW = struct.Struct("<hHBBI")


class Split(IntEnum):
    """What a scan may be used for. All scans of one capture share a split."""

    TRAIN = 0
    CALIBRATION = 1
    TEST = 2
    UNKNOWN = 3  # a kind of device that is kept out of training, to be answered UNKNOWN


class Origin(IntEnum):
    """How a scan was made from its capture."""

    REMIX = 0  # a burst, moved in frequency and put in fresh noise
    RECORDED = 1  # as the receiver heard it: a burst, or (labelled "nothing") a signal-free stretch
    QUIET = 2  # a signal-free stretch in fresh noise, made as a remix is


class Capture(TypedDict):
    """Where scans come from: a file, its SHA-256, the kind of device, the session it was recorded in."""

    name: str
    sha256: str
    label: str
    session: str


class Row(NamedTuple):
    """One recorded sweep; `codes` holds `points` bytes, dBm = -byte / 2."""

    label: int
    capture: int
    split: Split
    origin: Origin
    sweep_us: int
    codes: bytes


@dataclass(frozen=True, slots=True)
class Recording:
    """Recorded sweeps on one axis, with where they come from."""

    axis: Axis
    labels: Sequence[str]
    captures: Sequence[Capture]
    rows: Sequence[Row]

    def to_bytes(self) -> bytes:
        """The file's bytes; equal recordings give equal bytes."""
        axis = {"start_hz": self.axis.start_hz, "step_hz": self.axis.step_hz, "points": self.axis.points}
        header = json.dumps(
            {
                "axis": axis,
                "labels": list(self.labels),
                "captures": list(self.captures),
                "count": len(self.rows),
            },
            sort_keys=True,
            separators=(",", ":"),
        ).encode()
        parts = [MAGIC, struct.pack("<I", len(header)), header]
        for row in self.rows:
            parts.append(_ROW.pack(row.label, row.capture, row.split, row.origin, row.sweep_us))
            parts.append(row.codes)
        return b"".join(parts)

    @classmethod
    def open(cls, path: Path) -> Recording:
        """Read a `.scans` file. Raises BadInput where it is missing or not one."""
        try:
            data = path.read_bytes()
        except OSError as e:
            raise BadInput(
                f"recording {path}: {e.strerror}; give a .scans file as scripts/derive_scans writes it"
            ) from e
        try:
            return cls._parse(data)
        except (ValueError, KeyError, TypeError, struct.error) as e:
            raise BadInput(f"recording {path}: not a .scans file ({e}); derive it again") from e

    @classmethod
    def _parse(cls, data: bytes) -> Recording:
        if data[:8] != MAGIC:
            raise ValueError("wrong magic")
        (length,) = struct.unpack_from("<I", data, 8)
        header = json.loads(data[12 : 12 + length])
        axis = Axis(**header["axis"])
        stride = _ROW.size + axis.points
        body = memoryview(data)[12 + length :]
        if len(body) != stride * header["count"]:
            raise ValueError(f"holds {len(body)} bytes of scans, not {stride * header['count']}")
        rows = []
        for at in range(0, len(body), stride):
            label, capture, split, origin, sweep_us = _ROW.unpack_from(body, at)
            codes = bytes(body[at + _ROW.size : at + stride])
            rows.append(Row(label, capture, Split(split), Origin(origin), sweep_us, codes))
        return cls(axis, header["labels"], header["captures"], rows)
