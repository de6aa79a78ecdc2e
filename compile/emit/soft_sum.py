"""Sums of doubles on a core without them: the running sum stays unpacked from leaf to leaf, rounded after each.

A sum is m * 2**(x - 60) with 2**60 <= |m| <= 2**61, a multiple of 2**8: 53 bits, as a double's. In registers it
is m and, for the exponent, scale = 2**(30 - x). A leaf is a literal of 64 bits, its 53 bits at the top and its
exponent e in the lowest byte, and

    multiplier = scale << e = 2**(30 - d)       where d = x - e is how far the leaf lies below the sum
    m += literal * multiplier >> 32             exact, with the 32 bits that the shift drops

is one shift and two multiplications. Where the result is still within the sum's binade, rounding to nearest
even is rounding m to a multiple of 2**8; the dropped bits matter only where the others look like a tie. What is
left, a sum in another binade, a leaf above the sum, a sum of zero, is for C. A scale of 0 says that the sum is
there as a double: its exponent is none that a scale can say.

Exponents count from 26 below the largest leaf's; a literal says smaller ones too, by 32 and more, which leave no
multiplier. Adding zero changes no sum (none is -0: that takes two of them).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from compile.forest import Forest

_SPAN, _CODES, _FARTHEST = 26, 32, 200
_LARGEST, _SMALLEST = 900, -600
"""Exponents of leaves that no sum of them overflows, and no difference of them is subnormal."""
LO, HI, SCALE = "r10", "r11", "r12"


def fits(forest: Forest) -> bool:
    """Whether a forest's leaves can be summed so."""
    values = forest.leaf_values[forest.leaf_values != 0]
    base = forest.base if forest.base_first else np.zeros(1)
    if forest.single or not len(values) or not (np.isfinite(values).all() and np.isfinite(base).all()):
        return False
    exponents = np.frexp(values)[1] - 1
    largest, smallest = int(exponents.max()), int(exponents.min())
    return (
        largest < _LARGEST
        and smallest > max(_SMALLEST, largest - _SPAN - _FARTHEST)
        and not (np.signbit(base) & (base == 0)).any()
        and (np.abs(base[base != 0]) < 2.0**_LARGEST).all()
        and (np.abs(base[base != 0]) > 2.0**_SMALLEST).all()
    )


def flash_bytes(forest: Forest) -> int:
    """About what threaded code with such sums takes: a leaf's literal and code, a split's test, its rank's tables."""
    thresholds = len(np.unique(forest.threshold_key * np.int64(4096) + forest.feature))
    leaves, width = forest.leaf_values.shape
    return (8 * width + (18 if width == 1 else 24)) * leaves + 5 * thresholds + 2048


def lowest(forest: Forest) -> int:
    """The exponent that is 0 in literals and scales."""
    return int(np.frexp(forest.leaf_values[forest.leaf_values != 0])[1].max()) - 1 - _SPAN


def literal(value: float, low: int) -> int:
    """A leaf as 64 bits; 0 for none."""
    if not value:
        return 0
    fraction, exponent = math.frexp(value)
    code = exponent - 1 - low
    if code < 0:
        code = _CODES - 1 - code
    return (int(fraction * 2**53) << 10 | code) & (1 << 64) - 1


def start_s(value: float) -> Iterator[str]:
    """Lines that begin a sum, as the double it is."""
    bits = int(np.float64(value).view(np.uint64))
    for register, word in ((LO, bits & 0xFFFFFFFF), (HI, bits >> 32), (SCALE, 0)):
        yield f"    movw {register}, #{word & 0xFFFF}"
        if word >> 16:
            yield f"    movt {register}, #{word >> 16}"


ADD_S = """\
    .p2align 2
.Lsum:                          @ r1:r0: a literal
    lsl.w r2, r12, r0           @ by the lowest byte
    cmp r2, #0
    ble .Lslowly
    bic r0, r0, #255
    smlal r10, r11, r1, r2
    umull r0, r2, r0, r2
    adds.w r10, r10, r2
    adc r11, r11, #0
    asr.w r2, r11, #28
    eor.w r2, r2, r2, asr #31
    cmp r2, #1
    bne .Lround
    adds.w r10, r10, #128
    adc r11, r11, #0
    lsls.w r2, r10, #24
    beq .Ltie
    bic r10, r10, #255
    bx lr
.Ltie:
    cmp r0, #0                  @ bits below make it none
    it eq
    biceq r10, r10, #256
    bx lr
.Lround:
    push {r2, r3, r10, r11, r12, lr}
    mov r1, r0
    add r0, sp, #8
    bl edge_sum_round
    pop {r2, r3, r10, r11, r12, pc}
.Lslowly:
    push {r2, r3, r10, r11, r12, lr}
    mov r2, r1
    mov r1, r0
    add r0, sp, #8
    bl edge_sum_slowly
    pop {r2, r3, r10, r11, r12, pc}"""


def sum_c(forest: Forest) -> str:
    """C that does the rest: `edge_sum`, `edge_value`, and what the assembly calls."""
    return f"enum {{ EDGE_LOWEST = {lowest(forest)} }};\n" + _C


_C = """
/* m * 2**(EDGE_LOWEST + x - 60) where scale is 2**(30 - x); a double's bits where it is 0. */
typedef struct { uint32_t lo, hi, scale; } edge_sum;

static double edge_from_bits(uint64_t bits)
{
    union { uint64_t u; double d; } value = { bits };
    return value.d;
}

/* size: 2**60 .. 2**61, a multiple of 2**8. */
static uint64_t edge_double_bits(uint32_t negative, uint64_t size, int32_t x)
{
    return ((uint64_t)negative << 63) + ((uint64_t)(1022 + EDGE_LOWEST + x) << 52) + (size >> 8);
}

static void edge_sum_set(edge_sum *sum, uint32_t negative, uint64_t size, int32_t x)
{
    uint64_t m = negative ? -size : size;
    sum->scale = x >= 0 && x <= 30 ? 1u << (30 - x) : 0;
    if (!sum->scale)
        m = edge_double_bits(negative, size, x);
    sum->lo = (uint32_t)m;
    sum->hi = (uint32_t)(m >> 32);
}

static double edge_value(const edge_sum *sum)
{
    uint64_t m = (uint64_t)sum->hi << 32 | sum->lo;
    uint32_t negative = sum->hi >> 31;
    if (sum->scale)
        m = edge_double_bits(negative, negative ? -m : m, __builtin_clz(sum->scale) - 1);
    return edge_from_bits(m);
}

void edge_sum_round(edge_sum *sum, uint32_t below);
void edge_sum_slowly(edge_sum *sum, uint32_t lo, uint32_t hi);

/* A sum that left its binade, with the 32 bits below it: exact until it is rounded here. */
void edge_sum_round(edge_sum *sum, uint32_t below)
{
    uint64_t m = (uint64_t)sum->hi << 32 | sum->lo;
    uint32_t negative = sum->hi >> 31;
    int32_t x = __builtin_clz(sum->scale) - 1;
    if (negative) {
        m = ~m + !below;
        below = -below;
    }
    if (m >> 61) { /* less than 2**62 */
        below = below >> 1 | (uint32_t)(m & 1) << 31; /* its last bits are 0: leaves have 53 */
        m >>= 1;
        x++;
    } else {
        if (!m && !below) {
            sum->lo = sum->hi = sum->scale = 0;
            return;
        }
        if (!m) {
            m = below;
            below = 0;
            x -= 32;
        }
        uint32_t up = (uint32_t)__builtin_clzll(m) - 3; /* without a loop: the most instructions are known */
        x -= (int32_t)up;
        if (up >= 32) {
            m = m << 32 | below;
            below = 0;
            up -= 32;
        }
        if (up) {
            m = m << up | below >> (32 - up);
            below <<= up;
        }
    }
    uint32_t rest = (uint32_t)m & 255;
    m -= rest;
    if (rest > 128 || (rest == 128 && (below || m & 256)))
        m += 256;
    edge_sum_set(sum, negative, m, x);
}

/* Any sum and any leaf. */
void edge_sum_slowly(edge_sum *sum, uint32_t lo, uint32_t hi)
{
    uint64_t m = ((uint64_t)hi << 32 | lo) & ~(uint64_t)255;
    uint32_t negative = hi >> 31, code = lo & 255;
    union { double d; uint64_t u; } value;
    if (!m)
        return;
    int32_t e = (int32_t)(code < 32 ? code : 31 - code);
    value.d = edge_value(sum) + edge_from_bits(edge_double_bits(negative, (negative ? -m : m) >> 2, e));
    int32_t x = (int32_t)(value.u >> 52 & 2047) - 1023 - EDGE_LOWEST;
    sum->lo = (uint32_t)value.u;
    sum->hi = (uint32_t)(value.u >> 32);
    sum->scale = 0;
    if (x >= 0 && x <= 30)
        edge_sum_set(sum, sum->hi >> 31, (value.u << 8 & 0x0FFFFFFFFFFFFF00u) | 1ull << 60, x);
}
"""
