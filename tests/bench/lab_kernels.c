/* Work of known instruction mix for a lab session: each kernel does one kind of thing, `rounds` times over.
 *
 * What a compiler makes of it does not matter, as long as it stays of that kind: the instructions are counted in the
 * binary that runs on the board. KEEP hides a value from the optimiser, so that no loop is folded or vectorised.
 */
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))
#define KEEP(x) __asm__ volatile("" : "+r"(x))
#if defined(__aarch64__)
#define KEEP_F(x) __asm__ volatile("" : "+w"(x))
#elif defined(__arm__)
#define KEEP_F(x) __asm__ volatile("" : "+t"(x))
#else
#define KEEP_F(x) __asm__ volatile("" : "+x"(x))
#endif

enum { RING = 64 };

/* Independent additions and shifts: as many a cycle as the core can start. */
EXPORT uint32_t lab_integer(uint32_t rounds)
{
    uint32_t a = 1, b = 2, c = 3, d = 4;
    do {
        a += 7; b ^= 11; c += 13; d ^= 17;
        KEEP(a); KEEP(b); KEEP(c); KEEP(d);
        a ^= 19; b += 23; c ^= 29; d += 31;
        KEEP(a); KEEP(b); KEEP(c); KEEP(d);
        a += 37; b ^= 41; c += 43; d ^= 47;
        KEEP(a); KEEP(b); KEEP(c); KEEP(d);
    } while (--rounds);
    return a ^ b ^ c ^ d;
}

/* Each step waits for the one before: integers too, but few of them in much time. */
EXPORT uint32_t lab_multiply(uint32_t rounds)
{
    uint32_t a = 12345, b = 77;
    do {
        a = a * 1664525u + b;
        KEEP(a);
        b = 0xfffffff1u / (a | 1u);
        KEEP(b);
        a = a * 22695477u + b;
        KEEP(a);
        b = 0xffffff17u / (a | 1u);
        KEEP(b);
    } while (--rounds);
    return a ^ b;
}

/* A small ring, read and written: everything stays in the first cache. */
EXPORT uint32_t lab_memory(uint32_t rounds)
{
    volatile uint32_t ring[RING];
    for (uint32_t k = 0; k < RING; k++)
        ring[k] = k;
    uint32_t at = 0;
    do {
        ring[at] = ring[at + 1];
        ring[at + 2] = ring[at + 3];
        ring[at + 4] = ring[at + 5];
        ring[at + 6] = ring[at + 7];
        at = (at + 8) & (RING - 8);
        KEEP(at);
    } while (--rounds);
    return ring[0];
}

/* Branches that depend on data. */
EXPORT uint32_t lab_branch(uint32_t rounds)
{
    uint32_t x = 2463534242u, taken = 0;
    do {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        if (x & 1) KEEP(taken);
        if (x & 2) KEEP(taken);
        if (x & 4) KEEP(taken);
        if (x & 8) KEEP(taken);
        if (x & 16) KEEP(taken);
        if (x & 32) KEEP(taken);
        if (x & 64) KEEP(taken);
        if (x & 128) taken++;
        KEEP(taken);
    } while (--rounds);
    return taken;
}

/* Single precision, four sums side by side. */
EXPORT uint32_t lab_float(uint32_t rounds)
{
    float a = 1.0f, b = 0.5f, c = 0.25f, d = 0.125f, slow = 0.999f, step = 0.001f;
    KEEP_F(slow); KEEP_F(step);
    do {
        a *= slow; b *= slow; c *= slow; d *= slow;
        KEEP_F(a); KEEP_F(b); KEEP_F(c); KEEP_F(d);
        a += step; b += step; c += step; d += step;
        KEEP_F(a); KEEP_F(b); KEEP_F(c); KEEP_F(d);
    } while (--rounds);
    return (uint32_t)(1000.0f * (a + b + c + d));
}
