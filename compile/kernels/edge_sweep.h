/* What the feature kernels share, computed once a scan: extremes, order statistics, moments, the skirts of the peak.
 * A sweep is `points` (1 .. 4096) powers in hundredths of a dBm. Loops are written so that compilers vectorise them;
 * no value depends on whether they do. */
#ifndef EDGE_SWEEP_H
#define EDGE_SWEEP_H

#include "edge_arith.h"

struct edge_sweep {
    const int16_t *power;
    uint32_t points;
    int32_t minimum;
    int32_t peak;     /* the largest power */
    uint32_t peak_at; /* the first point that has it */
    int32_t floor;    /* the percentile that the pipeline calls the noise floor */
    int32_t mean;     /* rounded down */
    uint64_t square;  /* sum over the points of (power - mean)^2 */
};

static inline int32_t edge_min(int32_t a, int32_t b) { return a < b ? a : b; }
static inline int32_t edge_max(int32_t a, int32_t b) { return a > b ? a : b; }
static inline int32_t edge_abs(int32_t a) { return a < 0 ? -a : a; }

/* Power and position in one number, never 0, that orders by power, then by the lower position. */
static inline uint32_t edge_key(int32_t power, uint32_t at) { return (uint32_t)(power + 32768) * 8192u + (8191u - at); }
static inline int32_t edge_key_power(uint32_t key) { return (int32_t)(key >> 13) - 32768; }
static inline uint32_t edge_key_at(uint32_t key) { return 8191u - (key & 8191u); }

static inline void edge_extremes(struct edge_sweep *s)
{
    int16_t low = INT16_MAX;
    uint32_t key = 0;
    for (uint32_t i = 0; i < s->points; i++) {
        int16_t v = s->power[i];
        uint32_t k = edge_key(v, i);
        low = v < low ? v : low;
        key = k > key ? k : key;
    }
    s->minimum = low;
    s->peak = edge_key_power(key);
    s->peak_at = edge_key_at(key);
}

static inline void edge_mean(struct edge_sweep *s)
{
    int32_t sum = 0; /* |sum| <= 2^27 */
    for (uint32_t i = 0; i < s->points; i++)
        sum += s->power[i];
    s->mean = (int32_t)edge_div32((uint32_t)(sum + (int32_t)(s->points * 32768u)), s->points) - 32768;
}

static inline void edge_square(struct edge_sweep *s)
{
    uint64_t square = 0;
    for (uint32_t i = 0; i < s->points; i++) {
        uint32_t d = (uint32_t)edge_abs(s->power[i] - s->mean); /* <= 65535, so d * d fits */
        square += d * d;
    }
    s->square = square;
}

/* The bin of a power: floor((power - bottom) / step), by the multiplication that the generator has proved equal for
 * every power of the contract. */
struct edge_bins {
    int32_t bottom;
    uint32_t step, reciprocal, shift;
};

static inline uint32_t edge_bin(const struct edge_bins *b, int32_t power)
{
    return ((uint32_t)(power - b->bottom) * b->reciprocal) >> b->shift;
}

/* levels[k]: the order statistic of rank ranks[k] (0 = the smallest; ranks ascend), rounded down to the bins' grid.
 * counts: room for every bin of the contract's range; what it holds before does not matter. */
static inline void edge_percentiles(const struct edge_sweep *s, const struct edge_bins *b, uint16_t *counts,
                                    const uint16_t *ranks, uint32_t wanted, int32_t *levels)
{
    uint32_t bin = edge_bin(b, s->minimum), last = edge_bin(b, s->peak);
    for (uint32_t k = bin; k <= last; k++)
        counts[k] = 0;
    for (uint32_t i = 0; i < s->points; i++)
        counts[edge_bin(b, s->power[i])]++;
    uint32_t seen = counts[bin];
    for (uint32_t k = 0; k < wanted; k++) {
        while (seen <= ranks[k])
            seen += counts[++bin];
        levels[k] = b->bottom + (int32_t)(bin * b->step);
    }
}

/* left[k], right[k]: how many points beside the peak, without a gap, are at peak - drops[k] or above; drops ascend. */
static inline void edge_skirts(const struct edge_sweep *s, const uint16_t *drops, uint32_t wanted, uint16_t *left,
                               uint16_t *right)
{
    uint32_t from = s->peak_at, to = s->peak_at;
    for (uint32_t k = 0; k < wanted; k++) {
        int32_t level = s->peak - drops[k];
        while (from > 0 && s->power[from - 1] >= level)
            from--;
        while (to + 1 < s->points && s->power[to + 1] >= level)
            to++;
        left[k] = (uint16_t)(s->peak_at - from);
        right[k] = (uint16_t)(to - s->peak_at);
    }
}

/* The excess over `base` in a window of +-radius points (radius <= 128) around the peak, and its first moment about the
 * peak, on either side; the peak's own excess is `top`. Sums stay below 2^31: 2 * 65535 * (1 + 2 + ... + 128). */
struct edge_lobe {
    uint32_t top, area_left, area_right, moment_left, moment_right;
};

static inline uint32_t edge_excess(const struct edge_sweep *s, uint32_t at, int32_t base)
{
    return (uint32_t)edge_max(s->power[at] - base, 0);
}

/* How many of `radius` points exist below and above the peak. */
static inline uint32_t edge_reach_left(const struct edge_sweep *s, uint32_t radius)
{
    return s->peak_at < radius ? s->peak_at : radius;
}

static inline uint32_t edge_reach_right(const struct edge_sweep *s, uint32_t radius)
{
    uint32_t room = s->points - 1 - s->peak_at;
    return room < radius ? room : radius;
}

static inline struct edge_lobe edge_lobe(const struct edge_sweep *s, uint32_t radius, int32_t base)
{
    struct edge_lobe lobe = {edge_excess(s, s->peak_at, base), 0, 0, 0, 0};
    uint32_t left = edge_reach_left(s, radius), right = edge_reach_right(s, radius);
    for (uint32_t d = 1; d <= left; d++) {
        uint32_t e = edge_excess(s, s->peak_at - d, base);
        lobe.area_left += e;
        lobe.moment_left += e * d;
    }
    for (uint32_t d = 1; d <= right; d++) {
        uint32_t e = edge_excess(s, s->peak_at + d, base);
        lobe.area_right += e;
        lobe.moment_right += e * d;
    }
    return lobe;
}

/* The highest local maximum at least `guard` (>= 1) points from the peak, as a key; 0 where there is none. A local
 * maximum is an inner point above the one before it and not below the one after it. */
static inline uint32_t edge_second(const struct edge_sweep *s, uint32_t guard)
{
    uint32_t key = 0;
    for (uint32_t i = 1; i + 1 < s->points; i++) {
        uint32_t k = edge_key(s->power[i], i);
        uint32_t is = (uint32_t)(s->power[i] > s->power[i - 1]) & (uint32_t)(s->power[i] >= s->power[i + 1]) &
                      (uint32_t)((uint32_t)edge_abs((int32_t)i - (int32_t)s->peak_at) >= guard);
        k = is ? k : 0;
        key = k > key ? k : key;
    }
    return key;
}

#endif
