"""Many calls of one function on an emulated CPU without coming back between them.

A loop in the guest calls the function for one row after the other, so that a call costs its own instructions and
nothing of ours. What it gives up: rows and answers lie side by side, so a read or write past one goes unseen.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from unicorn import arm64_const, arm_const, x86_const

ROWS_AT = 0x4000_0000
"""Where rows, answers and returned values lie, one behind the other."""
SECONDS = 120
"""After which a batch is taken to be endless."""


class Answers(NamedTuple):
    """Of every row: what the function returned, int32 (n,), and its output buffer, uint8 (n, bytes)."""

    values: NDArray[np.int32]
    outputs: NDArray[np.uint8]


class Strides(NamedTuple):
    """Bytes from one row to the next, and from one answer to the next."""

    row: int
    output: int


@dataclass(frozen=True, slots=True)
class Loop:
    """The loop of one instruction set, and which registers it keeps what in. All of them survive a call.

    code: its bytes; with `points` the function's arguments are (row, points, output), else (row, output).
    strides: registers, or none where the code holds them.
    """

    code: Callable[[bool, Strides], bytes]
    row: int
    output: int
    count: int
    points: int
    function: int
    value: int
    strides: tuple[int, ...]


def _fixed(second: str, points: str, head: str, tail: str) -> Callable[[bool, Strides], bytes]:
    """Code with the move to the second argument in its place: the output's address, or the points."""
    return lambda with_points, _: bytes.fromhex(head + second + (points if with_points else second) + tail)


def _x86(with_points: bool, strides: Strides) -> bytes:
    """System V: rbx row, rbp output, r12 count, r13 points, r14 function, r15 value."""
    body = bytes.fromhex("4889df 4889ee") + bytes.fromhex("4489ee" if with_points else "4889ee")
    body += bytes.fromhex(
        "4889ea 41ffd6 418907 4983c704"
    )  # mov rdx, rbp; call r14; mov [r15], eax; add r15, 4
    body += b"\x48\x81\xc3" + struct.pack("<i", strides.row)  # add rbx, row
    body += b"\x48\x81\xc5" + struct.pack("<i", strides.output)  # add rbp, output
    body += bytes.fromhex("49ffcc 75")  # dec r12; jnz
    return body + struct.pack("b", -len(body) - 1)


def _numbered(prefix: str, constants: Any, *numbers: int) -> list[int]:
    return [getattr(constants, f"{prefix}{n}") for n in numbers]


def _loop(code: Callable[[bool, Strides], bytes], registers: list[int]) -> Loop:
    row, output, count, points, function, value, *strides = registers
    return Loop(code, row, output, count, points, function, value, tuple(strides))


# In order: mov row; mov output or points; mov output; call; store value; step row; step output; count down; loop.
_A64 = _fixed(
    "e10314aa", "e10316aa", "e00313aa", "e20314aa e0023fd6 004700b8 7302198b 94021a8b b50600f1 e1feff54"
)
_A32 = _fixed(
    "0510a0e1", "0710a0e1", "0400a0e1", "0520a0e1 38ff2fe1 040089e4 0a4084e0 0b5085e0 016056e2 f5ffff1a"
)
_T16 = _fixed("2946", "3946", "2046", "2a46 c047 4b46 1860 0433 9946 5444 5d44 013e f2d1")
_ARM_REGISTERS = _numbered("UC_ARM_REG_R", arm_const, 4, 5, 6, 7, 8, 9, 10, 11)

LOOPS = {
    "x86_64": _loop(
        _x86,
        [
            x86_const.UC_X86_REG_RBX,
            x86_const.UC_X86_REG_RBP,
            x86_const.UC_X86_REG_R12,
            x86_const.UC_X86_REG_R13,
            x86_const.UC_X86_REG_R14,
            x86_const.UC_X86_REG_R15,
        ],
    ),
    "aarch64": _loop(_A64, _numbered("UC_ARM64_REG_X", arm64_const, 19, 20, 21, 22, 23, 24, 25, 26)),
    "armv7": _loop(_A32, _ARM_REGISTERS),
    "cortex-m4": _loop(_T16, _ARM_REGISTERS),
    "cortex-m0": _loop(_T16, _ARM_REGISTERS),
}
