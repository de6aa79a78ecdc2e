"""Trees first, the network where they are unsure: the margin under which it is asked, fitted and measured.

The bound is fitted on calibration scans; what is reported is measured on scans that neither saw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from compile.accuracy import share_with_interval

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
_CANDIDATES = 64
SPARED = 0.002
"""Accuracy on the calibration scans that is given up for asking the network less often."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The network is asked where the trees' margin is below `margin`; that is so for `share` of the scans."""

    margin: float
    share: float


class Instructions(NamedTuple):
    """Of a scan, on average: all with trees, the trees and the network in it; how many scans reach them."""

    whole: float
    trees: float
    network: float
    reached: float


def margins(scores: Floats) -> Floats:
    """Best score less the second best of each row, n x outputs."""
    two = np.partition(scores, -2, axis=1)[:, -2:]
    return np.asarray(two[:, 1] - two[:, 0])


def fit(margin: Floats, trees_right: Bools, network_right: Bools) -> Bound:
    """The lowest bound whose accuracy is within SPARED of the best one's; 0 where the network helps nowhere."""
    candidates = np.concatenate([[0.0], np.quantile(margin, np.linspace(0, 1, _CANDIDATES + 1)[1:])])
    accuracy = np.array([np.where(margin < c, network_right, trees_right).mean() for c in candidates])
    good = np.flatnonzero(accuracy >= accuracy.max() - SPARED)
    bound = float(candidates[good[0]])
    return Bound(bound, float((margin < bound).mean()))


def report(
    bound: Bound,
    margin: Floats,
    trees_right: Bools,
    network_right: Bools,
    cluster: NDArray[np.integer[Any]],
    instructions: Instructions,
) -> dict[str, Any]:
    """Accuracy and cost of each alone and together, for a manifest."""
    asked = margin < bound.margin
    together = np.where(asked, network_right, trees_right)
    share = float(asked.mean())
    cost = {
        "trees": instructions.whole,
        "network": instructions.whole + instructions.reached * (instructions.network - instructions.trees),
        "cascade": instructions.whole + share * instructions.network,
    }
    accuracy = {"trees": trees_right, "network": network_right, "cascade": together}
    return {
        "margin_bound": bound.margin,
        "asked": round(share, 6),
        "accuracy": {name: share_with_interval(right, cluster) for name, right in accuracy.items()},
        "instructions": {name: round(value) for name, value in cost.items()},
    }
