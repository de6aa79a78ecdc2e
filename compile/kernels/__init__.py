"""The C feature kernels, integer only: the same source for the workstation and every device."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

FILES = ("edge_arith.h", "edge_sweep.h", "edge_features.h")


def sources() -> Mapping[str, str]:
    """The kernels' headers, file name -> text; they go into every artifact that computes features."""
    here = resources.files(__name__)
    return {name: (here / name).read_text(encoding="utf-8") for name in FILES}
