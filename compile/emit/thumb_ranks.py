"""float32 features to ranks in Thumb-2, one feature after another without a loop around them.

    vldr s0, [r0, #12]                  the feature, as a float and
    ldr r3, [r0, #12]                   as the integer that it is compared by
    vldmia r1!, {s1, s2}
    vfma.f32 s2, s0, s1                 its bucket: where to begin among the thresholds
    vcvt.s32.f32 s2, s2
    vmov r4, s2
    usat r4, #8, r4                     NaN, which became 0, goes on as if it were a number
    ldrb r4, [r5, r4]
    asrs r6, r3, #31                    where there are negative thresholds: negative floats in order
    eor.w r3, r3, r6, lsr #1
    ldr.w r6, [r7, r4, lsl #2]          the first threshold that may lie above
    cmp r6, r3
    bge .Lr3
    cmp.w r3, #0x7f800000
    bgt .Lr3                            NaN: not through all that there are
    ...                                 the next one; almost never
    vadd.f32 s4, s4, s0                 NaN in the end where one was NaN: a row for the C that mends ranks

A sum that is NaN without one (inf - inf) takes the same way and loses nothing but time. Bucket starts are made
from the next larger float of each threshold's place, so that they hold however the multiply-add rounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compile.emit import buckets, c_text, turns
from compile.emit.turns import Most, Turn
from compile.forest import INF_KEY, Ints
from compile.ranks import NumericSlot, Ranks

MAX_SLOTS, MAX_FEATURE, MAX_THRESHOLDS = 64, 255, 1000
"""More would be too much code, or beyond the reach of an offset."""
_STEEPEST = 2.0**100
"""Of a bucket's scale: below, a subnormal and the zero that a core may flush it to are in one bucket."""
DIRECT = ("r2", "r8", "r9", "r10", "r11", "lr", "r12")
"""Registers that the code here does not need: a rank that is to stay in one is made in it."""


def fits(ranks: Ranks) -> bool:
    """Whether this code is for these slots; what it is not for is left to C."""
    return (
        0 < len(ranks.numeric) <= MAX_SLOTS
        and not ranks.categorical
        and all(buckets.has_floats(s) and not s.zero_missing for s in ranks.numeric)
        and max(s.feature for s in ranks.numeric) <= MAX_FEATURE
        and max(len(s.keys) for s in ranks.numeric) <= MAX_THRESHOLDS
        and all(_is_gentle(_place(s, buckets.bucket_count(ranks.numeric))) for s in ranks.numeric)
    )


def _is_gentle(place: _Place) -> bool:
    return place.scale < _STEEPEST and bool(np.isfinite(place.offset))


def mend_c(ranks: Ranks) -> str:
    """C that gives NaN its rank: `edge_missing`."""
    return (
        c_text.array(c_text.unsigned(MAX_FEATURE), "edge_feature", [s.feature for s in ranks.numeric])
        + c_text.array("edge_rank", "edge_missing_rank", [s.nan_rank for s in ranks.numeric])
        + _MEND
    )


def most_turns(ranks: Ranks) -> Most:
    """The most turns of the loops in one call."""
    count = buckets.bucket_count(ranks.numeric)
    steps = sum(_place(s, count).most_steps for s in ranks.numeric)
    return {Turn.STEP: steps, Turn.MISSING: len(ranks.numeric)}


_MEND = turns.named("""
__attribute__((cold)) void edge_missing(const float *x, edge_rank *q);
void edge_missing(const float *x, edge_rank *q)
{
    for (uint32_t i = 0; i < EDGE_NUMERIC; i++) {
        EDGE_TURN(MISSING);
        if (x[edge_feature[i]] != x[edge_feature[i]])
            q[i] = edge_missing_rank[i];
    }
}
""")


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """Where a slot's search begins: starts[trunc(v * scale + offset)], clamped. most_steps: thresholds it passes."""

    scale: float
    offset: float
    starts: Ints
    most_steps: int


def _place(slot: NumericSlot, count: int) -> _Place:
    made = buckets.float_buckets([slot], count)
    with np.errstate(over="ignore"):
        scale, offset = np.float32(made.scale), np.float32(-made.low * made.scale)
    thresholds: NDArray[np.float64] = buckets.thresholds_f32(slot).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        place = (thresholds * scale + offset).astype(np.float32)
    highest, lowest = (_bucket(np.nextafter(place, np.float32(to)), count) for to in (np.inf, -np.inf))
    starts = np.searchsorted(highest, np.arange(count)).astype(np.int32)
    ends = np.searchsorted(lowest, np.arange(count), "right")
    return _Place(float(scale), float(offset), starts, int((ends - starts).max()))


def _bucket(place: NDArray[np.float32], count: int) -> Ints:
    return np.clip(np.nan_to_num(place, nan=0.0), 0, count - 1).astype(np.int32)


def ranks_s(ranks: Ranks, direct: Mapping[int, str], block: int, rank_bytes: int) -> Iterator[str]:
    """Lines that make all ranks from the features at r0: those in `direct` in their registers, others in the frame.

    block: the ranks' offset from sp. Goes to `.Lnan` where a rank needs mending. The tables are `tables_s`.
    """
    count = buckets.bucket_count(ranks.numeric)
    wide = _start_bytes(ranks, count) == 2
    yield "    ldr r1, .Lscales\n.Lpc: add r1, pc\n    ldr r7, .Llimits\n    add r7, r1"
    yield f"    addw r5, r1, #{8 * len(ranks.numeric)}"
    for i, slot in enumerate(ranks.numeric):
        rank = direct.get(i, "r4")
        yield from _one(slot, rank, f".Lr{i}", count, wide=wide)
        yield "    vadd.f32 s4, s4, s0" if i else "    vmov.f32 s4, s0"
        if rank == "r4":
            yield f"    {'strb' if rank_bytes == 1 else 'strh'}.w r4, [sp, #{block + i * rank_bytes}]"
    yield "    vcmp.f32 s4, s4\n    vmrs APSR_nzcv, fpscr\n    bvs.w .Lnan"


def _one(slot: NumericSlot, rank: str, label: str, count: int, *, wide: bool) -> Iterator[str]:
    yield f"    vldr s0, [r0, #{4 * slot.feature}]\n    ldr r3, [r0, #{4 * slot.feature}]"
    yield "    vldmia r1!, {s1, s2}\n    vfma.f32 s2, s0, s1\n    vcvt.s32.f32 s2, s2"
    yield f"    vmov r4, s2\n    usat r4, #{count.bit_length() - 1}, r4"
    yield f"    ldrh.w {rank}, [r5, r4, lsl #1]" if wide else f"    ldrb.w {rank}, [r5, r4]"
    if (slot.keys < 0).any():
        yield "    asrs r6, r3, #31\n    eor.w r3, r3, r6, lsr #1"
    yield f"    ldr.w r6, [r7, {rank}, lsl #2]\n    cmp r6, r3\n    bge {label}"
    yield f"    cmp.w r3, #{INF_KEY:#x}\n    bgt {label}"
    yield f"{label}n:\n    add{'s' if rank == 'r4' else '.w'} {rank}, {rank}, #1\n{turns.s(Turn.STEP)}"
    yield f"    ldr.w r6, [r7, {rank}, lsl #2]\n    cmp r6, r3\n    blt {label}n\n{label}:"
    yield f"    add.w r5, r5, #{count << wide}\n    addw r7, r7, #{4 * len(slot.keys) + 4}"


def _start_bytes(ranks: Ranks, count: int) -> int:
    return 2 if max(int(_place(s, count).starts.max()) for s in ranks.numeric) > 255 else 1


def offsets_s() -> str:
    """The words that lead to the tables; within 4 KiB of the code."""
    return "    .p2align 2\n.Lscales:\n    .word .Lranks - (.Lpc + 4)\n.Llimits:\n    .word .Llimit - .Lranks"


def tables_s(ranks: Ranks) -> Iterator[str]:
    """Bucket scales, where the searches begin, and the thresholds as integers."""
    count = buckets.bucket_count(ranks.numeric)
    places = [_place(s, count) for s in ranks.numeric]
    size = ".short" if _start_bytes(ranks, count) == 2 else ".byte"
    yield '    .section .rodata.edge_ranks, "a", %progbits\n    .p2align 2\n.Lranks:'
    for place in places:
        words = np.array([place.scale, place.offset], np.float32).view(np.uint32)
        yield f"    .word {words[0]:#x}, {words[1]:#x}"
    for place in places:
        yield f"    {size} " + ", ".join(map(str, place.starts.tolist()))
    yield "    .p2align 2\n.Llimit:"
    for slot in ranks.numeric:
        keys = slot.keys.astype(np.int64)
        keys -= keys < 0  # as the code orders negative floats
        yield "    .word " + ", ".join(map(str, [*keys.tolist(), 0x7FFFFFFF]))
    yield "    .text"
