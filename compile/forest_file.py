"""A Forest as bytes, for a bundle: what its artifacts are verified against, whatever library it came from.

A zip of numpy arrays without pickles, and one array of UTF-8 JSON for the rest. Equal forests give equal bytes.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compile.forest import CategorySet, CodeRule, Forest, PostTransform
from edge_runtime.errors import BadInput

_DATE = (1980, 1, 1, 0, 0, 0)


def to_bytes(forest: Forest) -> bytes:
    """The forest, packed."""
    arrays: dict[str, NDArray[Any]] = {}
    rest: dict[str, Any] = {}
    for field in dataclasses.fields(forest):
        value = getattr(forest, field.name)
        if isinstance(value, np.ndarray):
            arrays[field.name] = value
        elif field.name == "category_sets":
            rest[field.name] = [[sorted(s.left), sorted(s.right), s.other_left] for s in value]
        elif field.name == "code_rule":
            rest[field.name] = value.value
        else:
            rest[field.name] = dataclasses.asdict(value) if field.name == "post" else value
    arrays["rest"] = np.frombuffer(json.dumps(rest, sort_keys=True).encode(), np.uint8)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in arrays.items():
            data = io.BytesIO()
            np.save(data, values, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(name, _DATE), data.getvalue(), zipfile.ZIP_DEFLATED)
    return out.getvalue()


def from_bytes(data: bytes) -> Forest:
    """The forest in `data`. Raises BadInput where it is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            fields: dict[str, Any] = {
                name: np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
                for name in archive.namelist()
            }
        rest = json.loads(fields.pop("rest").tobytes())
        rest["feature_names"] = tuple(rest["feature_names"])
        rest["code_rule"] = CodeRule(rest["code_rule"])
        rest["post"] = PostTransform(**rest["post"])
        rest["category_sets"] = tuple(
            CategorySet(frozenset(left), frozenset(right), other)
            for left, right, other in rest["category_sets"]
        )
        return Forest(**fields, **rest)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, EOFError) as e:
        raise BadInput(f"forest: damaged or of another version ({e}); build the bundle again") from e
