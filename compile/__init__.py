"""compile: turns trained models into bundles (.edge) that edge_runtime runs on ARM devices.

`compile.build(model, ...)` gives a Bundle; it is loaded when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compile.build import build as build

__all__ = ["build"]


def __getattr__(name: str) -> Any:
    if name == "build":
        return import_module("compile.build")  # which can be called itself: see its end
    raise AttributeError(f"module 'compile' has no attribute {name!r}")
