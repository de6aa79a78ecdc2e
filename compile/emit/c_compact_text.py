"""The C of compact models that does not depend on the model; capitals stand for what does."""

from __future__ import annotations

LEAF = """
static inline int32_t edge_leaf(uint32_t i)
{
    uint32_t bit = i * EDGE_LEAF_BITS;
    const uint8_t *at = edge_leaves + (bit >> 3);
    uint32_t value;
    __builtin_memcpy(&value, at, 4); /* targets are little-endian */
    return (int32_t)(value >> (bit & 7) & ((1u << EDGE_LEAF_BITS) - 1)) + EDGE_LEAF_LOW;
}
"""

SET = """
/* Set the bits from .. to - 1. */
static inline void edge_set(uint32_t *bits, uint32_t from, uint32_t to)
{
    if (from >= to)
        return;
    uint32_t *last = bits + ((to - 1) >> 5);
    uint32_t mask = ~0u << (from & 31);
    for (bits += from >> 5; bits < last; bits++) {
        *bits |= mask;
        mask = ~0u;
    }
    *last |= mask & ~0u >> (-to & 31);
}

"""

SEARCH_BODY = """\
    for (uint32_t i = 0; i < sizeof edge_slots_KIND / sizeof *edge_slots_KIND; i++) {
        __typeof__(&edge_slots_KIND[0]) s = edge_slots_KIND + i;
        int32_t key = KEY;
        int32_t top = key >> 24;
        uint32_t below = 0, end = 0;
        const int8_t *run = edge_tops_KIND + s->run; /* ends with 127, which only NaN's bits come to */
        while (*run < top)
            run++;
        if (run > edge_tops_KIND + s->run)
            below = edge_ends_KIND[run - edge_tops_KIND - 1];
        end = *run == top ? edge_ends_KIND[run - edge_tops_KIND] : below;
        while (below < end) {
            uint32_t middle = (below + end) >> 1;
            const uint8_t *at = edge_low_KIND + 3 * (s->first + middle);
            uint32_t low;
            __builtin_memcpy(&low, at, 4);
            if ((low & 0xFFFFFFu) < ((uint32_t)key & 0xFFFFFFu))
                below = middle + 1;
            else
                end = middle;
        }
        if (MISSING)
            below = s->missing;
        edge_set(bits, s->first + below, s->first + (uint32_t)s->count);
    }
"""

NARROW = """\
/* By kind and side: words on in the low half, leaves on in the high half; bit 31 a leaf, bit 30 a skip. */
#define EDGE_LEAF 0x80000000u
#define EDGE_SKIP 0x40000000u
static const uint32_t edge_steps[12] = {
    EDGE_LEAF | 0x10000, EDGE_LEAF, 0x10001, EDGE_LEAF, EDGE_LEAF, 0x10001,
    0x20002, 1, 1, 0x20002, EDGE_SKIP | 1, 2};

static void edge_walk(const uint32_t *bits, double *raw_scores)
{
    int32_t sum[OUTPUTS] = {BASE};
    const uint16_t *at = edge_splits;
    uint32_t first = 0;
COUNTER    for (uint32_t tree = 0; tree < TREES; tree++) {
        uint32_t lengths = edge_lengths[tree];
        uint32_t place = lengths & 0xFF ? 0 : EDGE_LEAF;
        while (!(place & EDGE_LEAF)) {
            uint32_t split = at[place & 0xFFFF];
            uint32_t word = bits[split >> 5 & 0xFF];
            word = word >> (split & 31) | word << (-split & 31); /* a rotation, of which bit 0 is left */
            place += edge_steps[split >> 13 << 1 | (word & 1)];
            if (place & EDGE_SKIP) {
                uint32_t skip = at[place & 0xFFFF];
                place += (skip & 0xFF) + (skip >> 8 << 16) + 1 - EDGE_SKIP;
            }
        }
        uint32_t leaf = first + (place >> 16 & 0x3FFF);
        ADD
        at += lengths & 0xFF;
        first += lengths >> 8;
    }
FINISH}
"""

WIDE = """\
/* By kind and side: bit 0-1 words on, bit 2-3 leaves on, bit 4 a leaf, bit 5 skip as the next word says. */
static const uint8_t edge_steps[12] = {
    0x14, 0x10, 0x05, 0x10, 0x10, 0x05, 0x0A, 0x01, 0x01, 0x0A, 0x22, 0x03};

static void edge_walk(const uint32_t *bits, double *raw_scores)
{
    int32_t sum[OUTPUTS] = {BASE};
    const uint32_t *splits = edge_splits;
    uint32_t first = 0;
COUNTER    for (uint32_t tree = 0; tree < TREES; tree++) {
        const uint32_t *at = splits;
        uint32_t leaf = first;
        uint32_t step = edge_splits_of[tree] ? 0 : 0x10;
        while (!(step & 0x10)) {
            uint32_t split = *at;
            uint32_t number = split & 0x1FFFFFFF;
            step = edge_steps[split >> 29 << 1 | (bits[number >> 5] >> (number & 31) & 1)];
            if (step & 0x20) {
                leaf += at[2];
                at += at[1];
            }
            at += step & 3;
            leaf += step >> 2 & 3;
        }
        ADD
        splits += edge_splits_of[tree];
        first += edge_leaves_of[tree];
    }
FINISH}
"""
