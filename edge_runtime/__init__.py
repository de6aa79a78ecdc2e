"""edge_runtime: reads sweeps from a scanner, answers what was heard, and says what the answer cost.

`edge_runtime.Bundle.open(path)` opens a bundle; `infer(scan)` answers, `scores(features)` gives raw scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle

__all__ = ["Bundle"]


def __getattr__(name: str) -> Any:
    # Looked up when it is asked for: whoever imports one module of the device should not pay for the others.
    if name == "Bundle":
        from edge_runtime.bundle import Bundle  # noqa: PLC0415

        return Bundle
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
