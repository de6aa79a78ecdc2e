"""Pieces of C source that every emitter writes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def array(ctype: str, name: str, values: Iterable[object], per_line: int = 16) -> str:
    """A `static const` array. An empty one gets one zero, because C knows no empty arrays."""
    texts = [str(v) for v in values] or ["0"]
    lines = [", ".join(texts[at : at + per_line]) for at in range(0, len(texts), per_line)]
    return f"static const {ctype} {name}[{len(texts)}] = {{\n    " + ",\n    ".join(lines) + "};\n"


def unsigned(largest: int) -> str:
    """The smallest unsigned type that holds `largest`."""
    return next(f"uint{bits}_t" for bits in (8, 16, 32, 64) if largest < 1 << bits)


def number(value: float, *, single: bool = False) -> str:
    """A C literal that is exactly `value`."""
    if not np.isfinite(value):
        raise ValueError(f"{value} has no exact C literal")
    return float(value).hex() + ("f" if single else "")


def int32(value: int) -> str:
    """A C literal of an int32; the smallest has none of its own."""
    return "INT32_MIN" if value == -(2**31) else str(value)


def number32(value: float) -> str:
    """A C literal of a float32, infinities included."""
    if np.isinf(value):
        return "__builtin_inff()" if value > 0 else "-__builtin_inff()"
    return number(value, single=True)
