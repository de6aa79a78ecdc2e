"""Features on the workstation, by the very C that runs on the device.

The kernels are compiled for this machine once per pipeline and kept loaded; a recording is one C call.
"""

from __future__ import annotations

import ctypes
import io
import tempfile
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from compile import toolchain
from compile.emit.header import header_h
from compile.emit.pipeline import features_c
from compile.kernels import sources
from compile.pipeline import Pipeline
from compile.targets import target
from edge_runtime.errors import BadInput
from edge_runtime.files import write_whole
from edge_runtime.reasons import Reason
from edge_runtime.recording import Recording, Split

Int16 = npt.NDArray[np.int16]
Int32 = npt.NDArray[np.int32]

_ROWS = """
/* All rows: 0, or the reason of the first row that breaks the contract, its number in *bad. */
EDGE_API int edge_features_rows(const int16_t *power_cdbm, uint32_t rows, int32_t *features, uint32_t *bad)
{
    for (uint32_t row = 0; row < rows; row++) {
        int reason = edge_features(power_cdbm + (uint64_t)row * EDGE_SCAN_POINTS, EDGE_SCAN_POINTS,
                                   features + (uint64_t)row * EDGE_FEATURES);
        *bad = row;
        if (reason != EDGE_OK)
            return reason;
    }
    return EDGE_OK;
}
"""


def feature_sources(pipeline: Pipeline) -> dict[str, str]:
    """The C sources of `edge_features` alone, file name -> text, as `toolchain.build` takes them."""
    return {
        **sources(),
        "edge_model.h": header_h(pipeline.feature_names, 0, (), pipeline, infer=False),
        "edge_model.c": '#include "edge_model.h"\n#include "edge_features.h"\n\n' + features_c(pipeline),
    }


def compute(pipeline: Pipeline, power_cdbm: Int16) -> Int32:
    """The features of many scans.

    power_cdbm: (n, points), hundredths of a dBm. Returns (n, k). Raises BadInput where the points are not the
    contract's, or a scan breaks it.
    """
    points = pipeline.contract.points
    if power_cdbm.ndim != 2 or power_cdbm.shape[1] != points:
        raise BadInput(f"features: scans of shape {power_cdbm.shape}; the contract wants (scans, {points})")
    rows = np.ascontiguousarray(power_cdbm, np.int16)
    out = np.zeros((len(rows), len(pipeline.features)), np.int32)
    text = feature_sources(pipeline)
    text["edge_model.c"] += _ROWS
    bad = ctypes.c_uint32()
    call = load_host(tuple(sorted(text.items()))).edge_features_rows
    code = call(
        ctypes.c_void_p(rows.ctypes.data), len(rows), ctypes.c_void_p(out.ctypes.data), ctypes.byref(bad)
    )
    if code:
        raise BadInput(f"features: scan {bad.value}: {Reason(code).text}; leave it out or widen the contract")
    return out


@lru_cache(maxsize=64)
def load_host(text: tuple[tuple[str, str], ...]) -> ctypes.CDLL:
    """Compile sources, as sorted (file name, text) pairs, for this machine and load them."""
    data = toolchain.build(dict(text), target("host"))
    with tempfile.NamedTemporaryFile(prefix="edge-host-", suffix=".so") as file:
        file.write(data)
        file.flush()
        return ctypes.CDLL(file.name)


def features_to_npz(recording: Recording, pipeline: Pipeline, out: Path) -> None:
    """Write the training matrix of a recording; equal inputs give equal bytes.

    Arrays: power_cdbm int16 (n, points), features float32 (n, k), feature_names, label int16 (n,) index into
    classes or -1, classes, split and origin uint8 (n,), capture and session uint16 (n,), captures, sessions.
    Classes are the labels of the training split. Raises BadInput where the axis is not the contract's.
    """
    check_axis(recording, pipeline)
    power = power_of(recording)
    rows = recording.rows
    trained = {row.label for row in rows if row.split == Split.TRAIN}
    classes = [name for k, name in enumerate(recording.labels) if k in trained]
    index = [classes.index(name) if name in classes else -1 for name in recording.labels]
    sessions = sorted({c["session"] for c in recording.captures})
    session_of = [sessions.index(c["session"]) for c in recording.captures]
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "power_cdbm": power,
        "features": compute(pipeline, power).astype(np.float32),
        "feature_names": np.array(pipeline.feature_names),
        "label": np.array([index[row.label] for row in rows], np.int16),
        "classes": np.array(classes),
        "split": np.array([row.split for row in rows], np.uint8),
        "origin": np.array([row.origin for row in rows], np.uint8),
        "capture": np.array([row.capture for row in rows], np.uint16),
        "session": np.array([session_of[row.capture] for row in rows], np.uint16),
        "captures": np.array([c["name"] for c in recording.captures]),
        "captures_sha256": np.array([c["sha256"] for c in recording.captures]),
        "sessions": np.array(sessions),
    }
    write_whole(out, npz_bytes(arrays), "features", "-o")


def power_of(recording: Recording) -> Int16:
    """The powers of a recording's scans, int16 (n, points), hundredths of a dBm."""
    codes = np.frombuffer(b"".join(row.codes for row in recording.rows), np.uint8)
    return (codes.astype(np.int16) * np.int16(-50)).reshape(-1, recording.axis.points)


def check_axis(recording: Recording, pipeline: Pipeline) -> None:
    """Raise BadInput where a recording covers other frequencies than the contract."""
    have, want, slack = recording.axis, pipeline.contract.axis, pipeline.contract.axis_tolerance_hz
    stop = (have.points - 1) * (have.step_hz - want.step_hz) + have.start_hz - want.start_hz
    if have.points != want.points or max(abs(have.start_hz - want.start_hz), abs(stop)) > slack:
        raise BadInput(
            f"features: the recording's axis is {have}, the contract's {want} +-{slack} Hz; "
            "mend [contract] or take the recording it was made for"
        )


def npz_bytes(arrays: Mapping[str, npt.NDArray[np.generic]]) -> bytes:
    """An .npz of arrays, in their order, without the time of writing."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.save(member, array, allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, member.getvalue())
    return buffer.getvalue()
