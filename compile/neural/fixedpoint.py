"""TFLite's fixed-point arithmetic in numpy, bit for bit: a real factor as a 31-bit multiplier and a power of two.

Source: gemmlowp, "Building a quantization paradigm from first principles" (docs/quantization.md), and TFLite's
quantisation specification; the double rounding (TFLITE_SINGLE_ROUNDING off) of the 2.14 release.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import BadInput

I64 = NDArray[np.int64]
Mask = NDArray[np.bool_] | bool


def multiplier(factor: float) -> tuple[int, int]:
    """(m, s) with factor = m * 2**(s - 31) and 2**30 <= m < 2**31; (0, 0) where the factor vanishes.

    Raises BadInput where it is so large that an accumulator would be shifted out of its 32 bits.
    """
    if not factor < 1 << 30:
        raise BadInput(f"scales: a layer's output step is {factor:g} times too small; export the model again")
    if factor == 0.0:
        return 0, 0
    mantissa, shift = math.frexp(factor)
    fixed = math.floor(mantissa * (1 << 31) + 0.5)
    if fixed == 1 << 31:
        fixed, shift = fixed // 2, shift + 1
    return (0, 0) if shift < -31 else (fixed, shift)


def multipliers(factors: NDArray[np.float64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """`multiplier` of each factor."""
    pairs = [multiplier(float(f)) for f in factors]
    return np.array([p[0] for p in pairs], np.int32), np.array([p[1] for p in pairs], np.int32)


def rescale(x: I64, m: NDArray[np.int32] | int, shift: NDArray[np.int32] | int, up: Mask = False) -> I64:
    """x * m * 2**(shift - 31), rounded after the multiplier (half up) and again after the shift.

    The second rounding takes halves away from zero, or upwards where `up` is true.
    """
    left, right = np.maximum(shift, 0), np.maximum(np.negative(shift), 0)
    wide = (x << left).astype(np.int32).astype(np.int64)  # the device's left shift wraps at 32 bits
    y = (wide * m + (1 << 30)) >> 31
    half = (np.int64(1) << right) >> 1
    return np.where((y >= 0) | up, (y + half) >> right, -((half - y) >> right))


def round_away(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """C's roundf: to the nearest, halves away from zero."""
    whole = np.trunc(x)
    return np.asarray(whole + np.where(np.abs(x - whole) >= 0.5, np.sign(x), 0), np.float32)
