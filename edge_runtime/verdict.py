"""The answer to one scan, as the artifact writes it: `edge_verdict` in `edge_model.h`."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

UNKNOWN = -1
"""The label of an answer "none of the classes I know"."""

VERDICT_STRUCT = struct.Struct("<iiIIIId")
"""`edge_verdict` on every target: label, best, reason, rung, confidence_q16, novelty_q8, margin."""

C_STRUCT = """\
typedef struct edge_verdict {
    int32_t label;           /* index of the class, or EDGE_UNKNOWN (-1) */
    int32_t best;            /* the class that would have been answered, also where label is EDGE_UNKNOWN */
    uint32_t reason;         /* enum edge_reason: EDGE_OK, or why the label is EDGE_UNKNOWN */
    uint32_t rung;           /* enum edge_rung: which step of the ladder answered */
    uint32_t confidence_q16; /* calibrated chance that `best` is right, 65536 = certain */
    uint32_t novelty_q8;     /* distance to class `best` over its limit, 256 = at the limit */
    double margin;           /* raw score of the best class less that of the second; 0 from the screen */
} edge_verdict;"""


class Rung(IntEnum):
    """Which step of the ladder answered, cheapest to dearest, then the fallbacks."""

    NONE = 0
    SCREEN = 1
    TREES = 2
    NETWORK = 3
    BASELINE = 4
    LAST_GOOD = 5


class Verdict(NamedTuple):
    """One answer. Fields as in the C structure; `label` is UNKNOWN (-1) or the index of a class."""

    label: int
    best: int
    reason: int
    rung: int
    confidence_q16: int
    novelty_q8: int
    margin: float


Answer = tuple[int, int, int, int, int, int, float]
"""The fields of a Verdict, in order: what engines give, for a plain tuple is made and taken apart at a third."""


def c_enum() -> str:
    """The C enum of rungs for `edge_model.h`."""
    return "\n".join(["enum edge_rung {", *(f"    EDGE_RUNG_{r.name} = {r.value}," for r in Rung), "};"])
