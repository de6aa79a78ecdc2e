"""How far a scan lies from the class it was given: the largest of its decorrelated z-scores, in integers.

A plain z-score per feature misses what breaks the relation between features (noise over all of a sweep raises
its floor and leaves its peak: each is usual, both are not). So features are standardised, decorrelated by the
covariance that the classes share (Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution
Samples", NeurIPS 2018: a tied covariance), and then each class has its own mean and spread for every component:

    u = (feature - centre) / spread        component i = sum over j <= i of mix[i][j] * u[j]
    score = max over i of |component i - mean of class| / spread of class

The mix is the inverse Cholesky factor: component i is what feature i says that the features before it have not.
Fitting uses exact sums and plain float64 operations in a fixed order, so it gives the same numbers everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import BadInput

Int64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Matrix = list[list[float]]

U_CAP_Q4 = 2047
"""A feature counts as at most 128 of its spreads away."""

DISTANCE_CAP = 0xFFFF
RATIO_CAP = (1 << 24) - 1

RIDGE = 0.0025
"""Added to the shared correlation's diagonal: a combination of features counts as spread by at least 0.05, so
that one which happens to be constant in the recordings does not decide alone what is new."""

CLASS_SPREAD_MIN = 0.2
"""A class's spread in a component, against the spread that all classes share, counts as at least this."""

SUM_CAP = 1 << 30
"""No sum of the mix exceeds it: the number of its fraction bits is chosen so."""


@dataclass(frozen=True, slots=True)
class FittedNovelty:
    """The tables, k features and one group for each class (one group for a regression).

    centre, inverse_q16: (k,), u_q4 = (feature - centre) * inverse_q16 >> 12, held within +-U_CAP_Q4.
    mix, mix_shift: (k, k) int16, component_q4 = sum(mix * u_q4) >> mix_shift.
    mean_q4, inverse_q12: (groups, k), z_q4 = |component - mean_q4| * inverse_q12 >> 12.
    limit_q4: (groups,), the score that is novel.
    """

    centre: tuple[int, ...]
    inverse_q16: tuple[int, ...]
    mix: tuple[tuple[int, ...], ...]
    mix_shift: int
    mean_q4: tuple[tuple[int, ...], ...]
    inverse_q12: tuple[tuple[int, ...], ...]
    limit_q4: tuple[int, ...]

    def score_q4(self, features: npt.NDArray[np.int32], group: Int64) -> Int64:
        """The score of each scan against its group, in sixteenths of a spread: (n, k), (n,) -> (n,)."""
        mean, inverse = np.array(self.mean_q4, np.int64), np.array(self.inverse_q12, np.int64)
        return _score_q4(_components(self, features), mean[group], inverse[group])

    def ratio_q8(self, features: npt.NDArray[np.int32], group: Int64) -> Int64:
        """The score over the limit of each scan's group, 256 = at the limit, saturated: (n,)."""
        ratio = (self.score_q4(features, group) << 8) // np.array(self.limit_q4, np.int64)[group]
        held: Int64 = np.minimum(ratio, RATIO_CAP)
        return held


def _components(tables: FittedNovelty, features: npt.NDArray[np.int32]) -> Int64:
    distance = features.astype(np.int64) - np.array(tables.centre, np.int64)
    size = np.minimum(np.abs(distance) * np.array(tables.inverse_q16, np.int64) >> 12, U_CAP_Q4)
    found: Int64 = (np.sign(distance) * size) @ np.array(tables.mix, np.int64).T >> tables.mix_shift
    return found


def _score_q4(components: Int64, mean_q4: Int64, inverse_q12: Int64) -> Int64:
    distance = np.minimum(np.abs(components - mean_q4), DISTANCE_CAP)
    score: Int64 = np.max(distance * inverse_q12 >> 12, axis=1)
    return score


def fit_novelty(
    features: npt.NDArray[np.int32],
    group: Int64,
    train: Bools,
    held_out: Bools,
    groups: int,
    false_alarm: float,
) -> FittedNovelty:
    """Fit to the scans of the training split, limits to held-out ones; group -1 belongs to no class.

    features: (n, k). group, train, held_out: (n,). Raises BadInput where a group has no training scan.
    """
    rows = [features[train & (group == g)].astype(np.int64) for g in range(groups)]
    for g, own in enumerate(rows):
        if len(own) == 0:
            raise BadInput(f"calibration: class {g} has no training scan; leave it out of the classes")
    overall = np.concatenate(rows)
    centre, spread = _moments(overall)
    shared = _shared_correlation(rows, spread)
    mix, shift = _as_integers(_inverse_cholesky(shared))
    inverse_q16 = tuple(max(1, round(65536 / s)) for s in spread)
    empty = FittedNovelty(centre, inverse_q16, mix, shift, (), (), ())
    means, inverses, limits = [], [], []
    for g, own in enumerate(rows):
        mean, deviation = _moments(_components(empty, own.astype(np.int32)))
        inverse = [min(round(65536 / max(d, 16 * CLASS_SPREAD_MIN)), 0x7FFF) for d in deviation]
        mean = tuple(max(-0x8000, min(m, 0x7FFF)) for m in mean)
        scores = _score_q4(
            _components(empty, features[held_out & (group == g)]), np.array(mean), np.array(inverse)
        )
        means.append(mean)
        inverses.append(tuple(inverse))
        limits.append(conformal_limit(scores, false_alarm))
    return FittedNovelty(centre, inverse_q16, mix, shift, tuple(means), tuple(inverses), tuple(limits))


def conformal_limit(scores: Int64, false_alarm: float) -> int:
    """The score that a new scan of the class exceeds with at most that chance: the split conformal quantile.

    The ceil((n + 1)(1 - a))-th smallest of n, the largest where n is too small for that: Vovk et al.,
    "Algorithmic Learning in a Random World" (2005). Without scans, never.
    """
    if len(scores) == 0:
        return (1 << 30) - 1
    place = min(math.ceil((len(scores) + 1) * (1 - false_alarm)), len(scores))
    return max(int(np.sort(scores)[place - 1]), 1)


def _moments(rows: Int64) -> tuple[tuple[int, ...], list[float]]:
    """Rounded means and standard deviations (at least 1) of the columns, from exact sums."""
    n = len(rows)
    sums = [int(x) for x in rows.sum(axis=0)]
    mean = tuple((2 * s + n) // (2 * n) for s in sums)
    squares = [int(x) for x in ((rows - np.array(mean, np.int64)) ** 2).sum(axis=0)]
    return mean, [max(math.sqrt(q / n), 1.0) for q in squares]


def _shared_correlation(rows: Sequence[Int64], spread: Sequence[float]) -> Matrix:
    """The mean over the groups of the covariance within a group, in units of `spread`, with the ridge."""
    k = len(spread)
    shared = [[RIDGE * (i == j) for j in range(k)] for i in range(k)]
    for own in rows:
        mean, _ = _moments(own)
        centred = own - np.array(mean, np.int64)
        products = (centred.T @ centred).tolist()
        for i in range(k):
            for j in range(k):
                shared[i][j] += products[i][j] / len(own) / len(rows) / (spread[i] * spread[j])
    return shared


def _inverse_cholesky(a: Matrix) -> Matrix:
    """L^-1 of a = L L^T, lower triangular (Golub and Van Loan, "Matrix Computations", 4.2), in a fixed order."""
    k = len(a)
    factor = [[0.0] * k for _ in range(k)]
    for i in range(k):
        for j in range(i + 1):
            rest = a[i][j] - sum(factor[i][m] * factor[j][m] for m in range(j))
            factor[i][j] = math.sqrt(rest) if i == j else rest / factor[j][j]
    inverse = [[0.0] * k for _ in range(k)]
    for i in range(k):
        inverse[i][i] = 1 / factor[i][i]
        for j in range(i):
            inverse[i][j] = -sum(factor[i][m] * inverse[m][j] for m in range(j, i)) / factor[i][i]
    return inverse


def _as_integers(mix: Matrix) -> tuple[tuple[tuple[int, ...], ...], int]:
    """The mix as int16 with as many fraction bits as keep every sum under 2^30."""
    heaviest = max(sum(abs(x) for x in row) for row in mix)
    largest = max(abs(x) for row in mix for x in row)
    shift = 0
    while (
        heaviest * 2 ** (shift + 1) * U_CAP_Q4 < SUM_CAP - len(mix) * U_CAP_Q4
        and largest * 2 ** (shift + 1) < 0x7FFF
    ):
        shift += 1
    return tuple(tuple(round(x * 2**shift) for x in row) for row in mix), shift
