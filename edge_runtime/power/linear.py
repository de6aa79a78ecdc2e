"""A little linear algebra and Student's t, so that the device needs no numpy to judge its own energy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

Matrix = list[list[float]]


def inverse(symmetric: Sequence[Sequence[float]]) -> Matrix | None:
    """The inverse of a positive definite matrix by Gauss-Jordan with scaling; None where it is singular."""
    size = len(symmetric)
    scale = [math.sqrt(symmetric[k][k]) for k in range(size)]
    if not all(s > 0 for s in scale):
        return None
    rows = [
        [symmetric[i][j] / (scale[i] * scale[j]) for j in range(size)] + [float(i == j) for j in range(size)]
        for i in range(size)
    ]
    for k in range(size):
        pivot = max(range(k, size), key=lambda r: abs(rows[r][k]))
        if abs(rows[pivot][k]) < 1e-9:
            return None
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [v / rows[k][k] for v in rows[k]]
        for i in range(size):
            if i != k and (factor := rows[i][k]):
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[k], strict=True)]
    return [[rows[i][size + j] / (scale[i] * scale[j]) for j in range(size)] for i in range(size)]


def times(matrix: Matrix, vector: Sequence[float]) -> list[float]:
    """Matrix times column."""
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def student_t(probability: float, freedom: float) -> float:
    """Quantile of Student's t for `freedom` >= 3 degrees (Abramowitz and Stegun, 26.7.5; to 0.5 %)."""
    z = NormalDist().inv_cdf(probability)
    z2 = z * z
    series = (
        (z2 + 1) / 4,
        ((5 * z2 + 16) * z2 + 3) / 96,
        (((3 * z2 + 19) * z2 + 17) * z2 - 15) / 384,
        ((((79 * z2 + 776) * z2 + 1482) * z2 - 1920) * z2 - 945) / 92160,
    )
    return z * (1 + sum(g / freedom ** (k + 1) for k, g in enumerate(series)))
