"""The C of compact models that does not depend on the model; capitals stand for what does."""

from __future__ import annotations

from compile.emit import turns

SMALL = """
#ifdef __clang__
#define EDGE_SMALL __attribute__((minsize))
#else
#define EDGE_SMALL __attribute__((optimize("Os")))
#endif

"""

LEAF = """
static inline int32_t edge_leaf(uint32_t bit, uint32_t width)
{
    const uint8_t *at = edge_leaves + (bit >> 3);
    uint32_t value;
    __builtin_memcpy(&value, at, 4); /* targets are little-endian */
    return (int32_t)(value >> (bit & 7) & ((1u << width) - 1));
}

"""

SET = turns.named("""
/* Set the bits from .. to - 1. */
static inline void edge_set(uint32_t *bits, uint32_t from, uint32_t to)
{
    if (from >= to)
        return;
    uint32_t *last = bits + ((to - 1) >> 5);
    uint32_t mask = ~0u << (from & 31);
    for (bits += from >> 5; bits < last; bits++) {
        EDGE_TURN(WORD);
        *bits |= mask;
        mask = ~0u;
    }
    *last |= mask & ~0u >> (-to & 31);
}

""")

SEARCH_BODY = turns.named("""\
    const int8_t *run = edge_tops_KIND;
    const uint8_t *low = edge_low_KIND;
    __typeof__(&edge_ends_KIND[0]) end_of = edge_ends_KIND;
    uint32_t first = 0;
    for (uint32_t i = 0; i < sizeof edge_slots_KIND / sizeof *edge_slots_KIND; i++) {
        EDGE_TURN(SLOT);
        __typeof__(&edge_slots_KIND[0]) s = edge_slots_KIND + i;
        int32_t key = KEY;
        int32_t sought = SOUGHT;
        int32_t top = sought >> 24;
        uint32_t below = 0, end = 0, r = 0;
        while (run[r] < top) { /* the last is 127, which only NaN's bits come to */
            EDGE_TURN(RUN);
            below = end_of[r++];
        }
        end = run[r] == top ? end_of[r] : below;
        while (below < end) {
            EDGE_TURN(HALVING);
            uint32_t middle = (below + end) >> 1;
            uint32_t value;
            __builtin_memcpy(&value, low + STRIDE * middle, 4);
            if (value << (32 - 8 * STRIDE) < (uint32_t)sought << 8)
                below = middle + 1;
            else
                end = middle;
        }
        if (MISSING) {
            below = s->missing;MIXED
        }
        edge_set(bits, first + below, first + (uint32_t)s->count);
        first += (uint32_t)s->count;
        low += STRIDE * (uint32_t)s->count;
        run += s->runs;
        end_of += s->runs;
    }
""")

MIXED = turns.named("""
            if (s->mixed) { /* NaN goes left at some of the slot's splits, and right at others */
                for (uint32_t n = first; n < first + s->count; n++) {
                    EDGE_TURN(MISSING);
                    bits[n >> 5] |= (uint32_t)(edge_nan_left_KIND[n >> 3] >> (n & 7) & 1) << (n & 31);
                }
                below = s->count;
            }""")

ADD_PART = "sum[edge_parts[part].output] += total * (int32_t)edge_parts[part].step;"

WALK_C = turns.named("""\
static void edge_add_trees(const uint32_t *bits, int32_t *sum)
{
    const SPLIT *at = edge_splits;
    const LENGTH *length = edge_lengths;
    uint32_t place = 0;
    for (uint32_t part = 0; part < sizeof edge_parts / sizeof *edge_parts; part++) {
        EDGE_TURN(PART);
        uint32_t width = edge_parts[part].width;
        TOTAL
        for (uint32_t tree = edge_parts[part].trees; tree; tree--) {
            EDGE_TURN(TREE);
            const SPLIT *next = at;
            uint32_t splits = SPLITS, left = splits, leaf = place;
            while (left) {
                EDGE_TURN(SPLIT);
                uint32_t split = *next++;
                uint32_t word = bits[split >> 5 & (NUMBER >> 5)];
                word = word >> (split & 31) | word << (-split & 31); /* a rotation: the sign is what left is */
                uint32_t first = split >> (BITS + 1), skip = first;
                if (!first) {
                    LONG
                }
                if ((word ^ split << (31 - BITS)) >> 31) {
                    left = first - 1;
                } else {
                    next += skip - 1;
                    leaf += first * STEP;
                    left -= first;
                }
            }
            ADD
            place += (splits + 1) * STEP;
            at += *length++;
        }
        DONE
    }
}
""")

FINISH = """
EDGE_SMALL static void edge_walk(const uint32_t *bits, double *raw_scores)
{
    int32_t sum[OUTPUTS] = {BASE};
    CALL;
FINISH}
"""

ASSEMBLED = """\
void edge_add_trees(const uint32_t *bits, int32_t *sum, const uint16_t *splits, const uint8_t *lengths,
                    const uint8_t *leaves, const void *parts, const void *end);
"""

WALK_S = turns.named_s("""\
    .syntax unified
    .thumb
    .text
    .globl edge_add_trees
    .hidden edge_add_trees
    .type edge_add_trees, %function
    .p2align 2
    .thumb_func
edge_add_trees:                 @ r0: bits
    push {r1, r4, r5, r6, r7, r8, r9, r10, r11, lr}
    mov r10, r2                 @ the tree's splits
    mov r9, r3                  @ lengths: of each tree its splits, unless all have as many, and halfwords
    ldr r11, [sp, #40]          @ leaves
    ldr r6, [sp, #44]           @ parts
    movs r8, #0                 @ the tree's leaves, in bits
.Lpart:
    ldrb r12, [r6]              @ trees, output, width, step
    EDGE_TURN(PART)
    ldrb r7, [r6, #2]
    push {r6}
    movs r3, #0
    mov lr, r3                  @ the part's sum
.Ltree:
    mov r1, r10
    EDGE_TURN(TREE)
    mov r5, r8                  @ the leaf, in bits
    SPLITS_LEFT
    cbz r4, .Lleaf
.Lsplit:
    ldrh r2, [r1]
    EDGE_TURN(SPLIT)
    lsrs r6, r2, #(BITS + 1)    @ splits of the first subtree, and one
    beq .Llong
    ubfx r3, r2, #5, #(BITS - 5)
    ldr.w r3, [r0, r3, lsl #2]
    ror.w r3, r3, r2            @ the sign is what left is
    eors.w r3, r3, r2, lsl #(31 - BITS)
    bmi .Lfirst
    add.w r1, r1, r6, lsl #1
.Lsecond:
    mla r5, r6, r7, r5
    subs r4, r4, r6
    bne .Lsplit
.Lleaf:
    lsrs r2, r5, #3
    ldr.w r3, [r11, r2]
    and r5, r5, #7
    rsb.w r2, r7, #32
    lsrs r3, r5
    lsls r3, r2
    lsrs r3, r2
    add lr, r3
    SPLITS_AGAIN
    ldrb r3, [r9], #1           @ and halfwords
    mla r8, r2, r7, r8
    add r8, r7
    add.w r10, r10, r3, lsl #1
    subs.w r12, r12, #1
    bne .Ltree
    pop {r6}
    ldr r2, [sp]
    ldrb r3, [r6, #1]
    ldrb r5, [r6, #3]
    ldr.w r1, [r2, r3, lsl #2]
    mla r1, lr, r5, r1
    str.w r1, [r2, r3, lsl #2]
    adds r6, #4
    ldr r3, [sp, #48]
    cmp r6, r3
    bne .Lpart
    pop {r1, r4, r5, r6, r7, r8, r9, r10, r11, pc}
.Lfirst:
    adds r1, #2
    subs r4, r6, #1
    bne .Lsplit
    b .Lleaf
.Llong:                         @ the same with the halfword behind
    ldrh r6, [r1, #2]!
    ubfx r3, r2, #5, #(BITS - 5)
    ldr.w r3, [r0, r3, lsl #2]
    ror.w r3, r3, r2
    eors.w r3, r3, r2, lsl #(31 - BITS)
    lsr.w r3, r6, #8
    uxtb r6, r6
    add.w r6, r6, #1
    bmi .Lfirst
    add.w r1, r1, r3, lsl #1
    adds r1, #2
    b .Lsecond
""")

_ENTRY = turns.named("""\
EDGE_SMALL HEAD
{
    uint32_t bits[(EDGE_BITS + 31) / 32];
    for (volatile uint32_t *at = bits; at < bits + (EDGE_BITS + 31) / 32; at++) {
        EDGE_TURN(CLEAR);
        *at = 0; /* volatile, or it is a call of memset */
    }
    edge_bits_KIND(features, bits);
    edge_walk(bits, raw_scores);
DONE}
""")
ENTRIES = {
    "f32": _ENTRY.replace("HEAD", "int edge_model_scores(const float *features, double *raw_scores)").replace(
        "DONE", "    return 0;\n"
    ),
    "i32": _ENTRY.replace(
        "HEAD",
        "static __attribute__((unused)) void edge_trees_i32(const int32_t *features, double *raw_scores)",
    ).replace("DONE", ""),
}

HEAP_C = turns.named("""
static void edge_add_trees(const uint32_t *bits, int32_t *sum)
{
    const uint8_t *at = edge_trees;
    for (uint32_t part = 0; part < sizeof edge_parts / sizeof *edge_parts; part++) {
        EDGE_TURN(PART);
        uint32_t width = edge_parts[part].width;
        int32_t total = 0;
        for (uint32_t tree = edge_parts[part].trees; tree; tree--) {
            EDGE_TURN(TREE);
            uint32_t place = 1, number = (uint32_t)at[0] | (uint32_t)at[1] << 8;
            for (uint32_t level = 1;; level++) {
                EDGE_TURN(SPLIT);
                uint32_t word = bits[number >> 5];
                uint32_t parent = place;
                word = word >> (number & 31) | word << (-number & 31); /* the sign is what left is */
                place = 2 * place + (word >> 31);
                if (level == LEVELS)
                    break;
                const uint8_t *pair = at + 3 * parent - 1 + (word >> 31);
                number = (uint32_t)pair[0] | (uint32_t)pair[1] << 8;
                number = word >> 31 ? number >> 4 : number & 0xFFF;
            }
            uint32_t bit = (place - LEAVES) * width, value;
            __builtin_memcpy(&value, at + BYTES + (bit >> 3), 4); /* targets are little-endian */
            total += (int32_t)(value >> (bit & 7) & ((1u << width) - 1));
            at += BYTES + width * LEAVES / 8;
        }
        ADD_PART
    }
}
""").replace("ADD_PART", ADD_PART)

HEAP_ASSEMBLED = """\
void edge_add_trees(const uint32_t *bits, int32_t *sum, const uint8_t *trees, const void *parts, const void *end);
"""

HEAP_STEP_S = """\
    add.w r4, r5, r5, lsl #1
    ldr r2, [r1, r4]
    it cs
    lsrcs r2, r2, #12
    adc.w r5, r5, r5
    ubfx r3, r2, #5, #7
    ldr.w r3, [r0, r3, lsl #2]
    rors r3, r2
"""

HEAP_S = turns.named_s("""\
    .syntax unified
    .thumb
    .text
    .globl edge_add_trees
    .hidden edge_add_trees
    .type edge_add_trees, %function
    .p2align 2
    .thumb_func
edge_add_trees:                 @ r0: bits, r1: sums
    push {r1, r4, r5, r6, r7, r8, r9, r10, r11, lr}
    subs r1, r2, #1             @ the tree, less one
    mov r6, r3                  @ parts
.Lpart:
    ldrb r12, [r6]              @ trees, output, width, step
    EDGE_TURN(PART)
    ldrb r7, [r6, #2]
    movs r3, #1
    lsl.w r11, r3, r7
    sub.w r11, r11, #1          @ a leaf's bits
    mov.w r9, #(BYTES + 1) * 8
    sub.w r9, r9, r7, lsl #LEVELS
    movs r3, #BYTES
    add.w r10, r3, r7, lsl #(LEVELS - 3)
    mov.w lr, #0                @ the part's sum
.Ltree:
    ldrh.w r2, [r1, #1]
    EDGE_TURN(TREE)
    movs r5, #1
    ubfx r3, r2, #5, #7
    ldr.w r3, [r0, r3, lsl #2]
    rors r3, r2
STEPS    adc.w r5, r5, r5
    mla r4, r5, r7, r9          @ the leaf, in bits behind r1
    lsrs r3, r4, #3
    ldr r3, [r1, r3]
    and r4, r4, #7
    lsrs r3, r4
    and.w r3, r3, r11
    add lr, r3
    add r1, r10
    subs.w r12, r12, #1
    bne .Ltree
    ldr r2, [sp]
    ldrb r3, [r6, #1]
    ldrb r5, [r6, #3]
    ldr.w r4, [r2, r3, lsl #2]
    mla r4, lr, r5, r4
    str.w r4, [r2, r3, lsl #2]
    adds r6, #4
    ldr r3, [sp, #40]
    cmp r6, r3
    bne .Lpart
    pop {r1, r4, r5, r6, r7, r8, r9, r10, r11, pc}
""")
