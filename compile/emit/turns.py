"""Marks in the loops of emitted code, from which the most instructions of a call are proven (compile/worst_case.py).

A mark takes no instruction: an empty, volatile piece of assembly, which a compiler must pass as often as the source
says, and a label whose address lies in a section of its own that no loader reads. A loop that a compiler unrolls has
several marks, one that it drops has none. Every loop has one as the first thing of its body.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from enum import IntEnum

from compile.worst_case import Mark

SECTION = ".edge_turns"


class Turn(IntEnum):
    """Kinds of loops, by what one call goes through at most so many of."""

    SLOT = 1  # features' sets of thresholds
    STEP = 2  # thresholds that a search passes one by one
    HALVING = 3  # of a range of thresholds
    RUN = 4  # thresholds that share a top byte
    WORD = 5  # of a row's bits, of some slot or set
    MISSING = 6  # slots whose feature is missing, or thresholds of one
    CLEAR = 7  # bits that are set to one value together
    PART = 8  # trees that are gone through together
    TREE = 9  # one, or some that are added together
    SPLIT = 10
    SPLITS = 11  # some that fail together
    OUTPUT = 12
    ENTRY = 13  # no loop: where C begins that assembly calls


Most = dict[Turn, int]
"""Of kinds of loops, the most turns in one call. A kind that is not there is not limited."""


def together(*of: Most) -> Most:
    """Of code with the loops of all of these."""
    return {kind: sum(most.get(kind, 0) for most in of) for kind in sorted(set().union(*of))}


C = f"""\
/* No instruction: the place of a loop's turn, for the bound on the instructions of a call. */
#define EDGE_TURN(kind) \\
    __asm__ volatile("1:\\n\\t.pushsection {SECTION},\\"\\",%%progbits\\n\\t" \\
                     ".4byte 1b, %c0\\n\\t.popsection" : : "i"(kind))
"""


def c(kind: Turn) -> str:
    """A statement of C: the mark of a loop whose body it stands at the beginning of."""
    return f"EDGE_TURN({int(kind)}); /* {kind.name.lower()} */"


def named(text: str) -> str:
    """C text with the names of kinds in marks replaced by their numbers."""
    return re.sub(r"EDGE_TURN\((\w+)\);", lambda found: c(Turn[found[1]]), text)


def named_s(text: str) -> str:
    """Assembly with lines like `EDGE_TURN(TREE)` replaced by marks."""
    return re.sub(r" *EDGE_TURN\((\w+)\)", lambda found: s(Turn[found[1]]), text)


def s(kind: Turn, of: str = "1b") -> str:
    """Lines of assembly: a mark of the place where they stand, or of a symbol."""
    label = "1:\n" if of == "1b" else ""
    return f'{label}    .pushsection {SECTION}, "", %progbits\n    .4byte {of}, {int(kind)}\n    .popsection'


def marks_of(section: bytes) -> Iterator[Mark]:
    """The marks in a linked file's section."""
    return (Mark(*pair) for pair in struct.iter_unpack("<II", section))
