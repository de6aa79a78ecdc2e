/* Exact integer arithmetic that gives the same bits on every target and needs no runtime library:
 * Cortex-M0 has no divide and no 32 x 32 -> 64 multiply, 32-bit ARM has no 64-bit divide, and a freestanding
 * artifact may not ask its firmware for helpers. Every function is defined for all arguments its comment allows. */
#ifndef EDGE_ARITH_H
#define EDGE_ARITH_H

#include <stdint.h>

/* floor(n / d), 0 < d <= 2^31. */
static inline uint32_t edge_div32(uint32_t n, uint32_t d)
{
#if defined(__arm__) && !defined(__ARM_FEATURE_IDIV)
    uint32_t quotient = 0, rest = 0;
    for (int bit = 0; bit < 32; bit++) {
        rest = (rest << 1) | (n >> 31);
        n <<= 1;
        quotient <<= 1;
        if (rest >= d) {
            rest -= d;
            quotient |= 1u;
        }
    }
    return quotient;
#else
    return n / d;
#endif
}

/* n / d rounded towards zero, |n| < 2^31, 0 < d < 2^31. */
static inline int32_t edge_div32s(int32_t n, uint32_t d)
{
    return n < 0 ? -(int32_t)edge_div32((uint32_t)-n, d) : (int32_t)edge_div32((uint32_t)n, d);
}

/* floor(n / d), 0 < d < 2^63. */
static inline uint64_t edge_div64(uint64_t n, uint64_t d)
{
#if defined(__arm__)
    uint64_t quotient = 0, rest = 0;
    for (int bit = 0; bit < 64; bit++) {
        rest = (rest << 1) | (n >> 63);
        n <<= 1;
        quotient <<= 1;
        if (rest >= d) {
            rest -= d;
            quotient |= 1u;
        }
    }
    return quotient;
#else
    return n / d;
#endif
}

/* a * b. */
static inline uint64_t edge_mul32(uint32_t a, uint32_t b)
{
#if defined(__ARM_ARCH_6M__)
    uint32_t al = a & 0xffffu, ah = a >> 16, bl = b & 0xffffu, bh = b >> 16;
    uint32_t low = al * bl, mid = ah * bl + (low >> 16), mid2 = al * bh + (mid & 0xffffu);
    uint32_t high = ah * bh + (mid >> 16) + (mid2 >> 16);
    return ((uint64_t)high << 32) | ((mid2 << 16) | (low & 0xffffu));
#else
    return (uint64_t)a * b;
#endif
}

/* floor(n * 2^bits / d), saturated at 2^24 - 1; 0 < d <= 2^31, bits <= 16. */
static inline uint32_t edge_ratio(uint32_t n, uint32_t d, uint32_t bits)
{
    uint32_t quotient = edge_div32(n, d), rest = n - quotient * d;
    for (uint32_t k = 0; k < bits; k++) {
        if (quotient > 0x7fffffu)
            return 0xffffffu;
        rest <<= 1;
        quotient <<= 1;
        if (rest >= d) {
            rest -= d;
            quotient |= 1u;
        }
    }
    return quotient > 0xffffffu ? 0xffffffu : quotient;
}

/* floor(sqrt(x)). */
static inline uint32_t edge_sqrt32(uint32_t x)
{
    uint32_t root = 0;
    for (uint32_t bit = 1u << 30; bit != 0; bit >>= 2) {
        uint32_t trial = root + bit;
        root >>= 1;
        if (x >= trial) {
            x -= trial;
            root += bit;
        }
    }
    return root;
}

#endif
