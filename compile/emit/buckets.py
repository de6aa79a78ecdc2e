"""Where to start looking for a rank: equal buckets of a feature's range, computed as the target will.

`bucket(v) = clamp(trunc((v - low) * scale), 0, count - 1)`, each operation rounded to float32; for integer
features `clamp((v - low) >> shift, 0, count - 1)`. Both never fall as v rises, so that the thresholds in the
buckets before a value's own lie below it for sure, and the search begins after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compile.forest import INF_KEY, Ints, keys_to_floats
from compile.ranks import NumericSlot

_TAILS = (0.0, 0.005, 0.01, 0.02, 0.04, 0.08)
"""Shares of the thresholds at either end that may share the outermost buckets."""
_LARGEST_SCALE = np.float32(2.0**90)
"""Below it, a scale times 2^32 is finite, as the AArch64 code needs it."""


@dataclass(frozen=True, slots=True, eq=False)
class FloatBuckets:
    """Buckets of one feature; starts[s][b]: where slot s begins to look in bucket b."""

    low: float
    scale: float
    starts: tuple[NDArray[np.int32], ...]


@dataclass(frozen=True, slots=True, eq=False)
class IntegerBuckets:
    """Buckets of one integer feature."""

    low: int
    shift: int
    starts: tuple[NDArray[np.int32], ...]


def thresholds_f32(slot: NumericSlot) -> NDArray[np.float32]:
    """A slot's thresholds as floats. The one below -inf, which nothing but NaN is at, is not among them."""
    return keys_to_floats(slot.keys)


def has_floats(slot: NumericSlot) -> bool:
    """Whether all thresholds are floats: `x < -inf` has none."""
    return not len(slot.keys) or int(slot.keys[0]) >= -INF_KEY


def bucket_count(slots: Sequence[NumericSlot]) -> int:
    """Buckets per feature, a power of two: 256, or more where a feature has more thresholds."""
    largest = max((len(s.keys) for s in slots), default=0)
    return min(max(256, 1 << largest.bit_length()), 4096)


def float_buckets(slots: Sequence[NumericSlot], count: int) -> FloatBuckets:
    """The buckets, for all slots of one feature, that leave the fewest steps."""
    all_thresholds = np.unique(np.concatenate([thresholds_f32(s) for s in slots]))
    finite = all_thresholds[np.isfinite(all_thresholds)]
    best, found = np.inf, (np.float32(0), np.float32(0))
    for tail in _TAILS if len(finite) > 1 else ():
        low = finite[int(tail * (len(finite) - 1))]
        high = finite[len(finite) - 1 - int(tail * (len(finite) - 1))]
        with np.errstate(over="ignore", divide="ignore"):
            scale = np.float32(count - 2) / (high - low)
        if not (scale < _LARGEST_SCALE and high > low):
            continue
        steps = _steps(_bucket_f32(all_thresholds, low, scale, count))
        if steps < best:
            best, found = steps, (low, scale)
    starts = tuple(_starts(_bucket_f32(thresholds_f32(s), *found, count), count) for s in slots)
    return FloatBuckets(float(found[0]), float(found[1]), starts)


def integer_buckets(slots: Sequence[NumericSlot], count: int) -> IntegerBuckets:
    """The buckets, for all slots of one integer feature, that leave the fewest steps."""
    all_thresholds = np.unique(np.concatenate([s.integer_thresholds() for s in slots])).astype(np.int64)
    best, found = np.inf, (0, 31)
    for tail in _TAILS if len(all_thresholds) else ():
        low = int(all_thresholds[int(tail * (len(all_thresholds) - 1))])
        high = int(all_thresholds[len(all_thresholds) - 1 - int(tail * (len(all_thresholds) - 1))])
        shift = max(0, (max(high - low, 1)).bit_length() - (count - 1).bit_length())
        steps = _steps(_bucket_i32(all_thresholds, low, shift, count))
        if steps < best:
            best, found = steps, (low, shift)
    starts = tuple(
        _starts(_bucket_i32(s.integer_thresholds().astype(np.int64), *found, count), count) for s in slots
    )
    return IntegerBuckets(*found, starts)


def bucket_of(x: NDArray[np.float32], made: FloatBuckets, count: int) -> Ints:
    """The bucket of each value, as the target computes it."""
    return _bucket_f32(x, np.float32(made.low), np.float32(made.scale), count)


def _bucket_f32(v: NDArray[np.float32], low: np.float32, scale: np.float32, count: int) -> Ints:
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = (v - low) * scale
    return np.clip(np.nan_to_num(scaled, nan=0.0), 0, count - 1).astype(np.int32)


def _bucket_i32(v: NDArray[np.int64], low: int, shift: int, count: int) -> Ints:
    # The target subtracts with saturation.
    return np.clip(np.clip(v - low, -(2**31), 2**31 - 1) >> shift, 0, count - 1).astype(np.int32)


def _starts(buckets: Ints, count: int) -> NDArray[np.int32]:
    return np.searchsorted(buckets, np.arange(count), "left").astype(np.int32)


def _steps(buckets: Ints) -> float:
    """Mean steps of a search, were all intervals between thresholds as likely as each other."""
    _, counts = np.unique(buckets, return_counts=True)
    return float((counts * (counts + 1) / 2).sum() / max(len(buckets), 1))
