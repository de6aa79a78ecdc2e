"""What a scanner's faults do to its sweeps: the kinds that novelty is measured on.

Each takes sweeps, int16 (n, points), hundredths of a dBm, and gives as many faulty ones, coded in half dBm. Two
faults that no single sweep can show are not among them: a wrong gain and a reversed axis, where the training data
has every gain and bursts look the same from both sides. Those take a memory of earlier scans.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from compile.features import Int16

Reals = np.ndarray[Any, np.dtype[np.float64]]
SEED = 5


def coded(power: Reals) -> Int16:
    return np.clip(np.rint(power / 50) * 50, -12750, 0).astype(np.int16)


def floor(power: Int16) -> Reals:
    return np.median(power, axis=1, keepdims=True).astype(np.float64)


def saturated(power: Int16) -> Int16:
    """The front end limits 6 dB over the floor."""
    return coded(np.minimum(power, floor(power) + 600))


def comb(power: Int16) -> Int16:
    """A spur on every sixteenth point, 20 to 30 dB."""
    rng, out = np.random.default_rng(SEED), power.astype(np.float64)
    for row in out:
        row[rng.integers(0, 16) :: 16] += rng.integers(2000, 3000)
    return coded(out)


def tilt(power: Int16) -> Int16:
    """20 dB of slope over the sweep."""
    return coded(power + np.linspace(-1000, 1000, power.shape[1]))


def noise(power: Int16) -> Int16:
    """Broadband noise 15 dB over the floor, the highest of four looks."""
    looks = np.random.default_rng(SEED).exponential(size=(*power.shape, 4)).max(axis=2)
    return coded(np.maximum(power, floor(power) + 1500 + 1000 * np.log10(np.maximum(looks, 0.01))))


def half(power: Int16) -> Int16:
    """The upper half of the sweep is missing: it stays at the lowest power."""
    out = power.astype(np.float64)
    out[:, power.shape[1] // 2 :] = power.min(axis=1, keepdims=True)
    return coded(out)


def impulses(power: Int16) -> Int16:
    """Ten points 30 to 50 dB over the floor, anywhere."""
    rng, out = np.random.default_rng(SEED), power.astype(np.float64)
    for row, base in zip(out, floor(power), strict=True):
        row[rng.choice(len(row), 10, replace=False)] = base + rng.integers(3000, 5000, 10)
    return coded(out)


def held(power: Int16) -> Int16:
    """Only every eighth point is new, the others repeat it."""
    return np.repeat(power[:, ::8], 8, axis=1)


def ripple(power: Int16) -> Int16:
    """6 dB of ripple with a period of eight points, as of a mismatched cable."""
    return coded(power + 600 * np.sin(np.arange(power.shape[1]) * np.pi / 4))


FAULTS: Mapping[str, Callable[[Int16], Int16]] = {
    f.__name__: f for f in (saturated, comb, tilt, noise, half, impulses, held, ripple)
}
