/* What the feature kernels share, computed once a scan: extremes, order statistics, moments, the skirts of the peak.
 * A sweep is EDGE_SCAN_POINTS (1 .. 4096) powers in hundredths of a dBm. Loops over points compare and subtract in 16 bits
 * where that is exact, and keep their sums in 32, so that compilers fill a vector with eight points; no value
 * depends on whether they do. */
#ifndef EDGE_SWEEP_H
#define EDGE_SWEEP_H

#include "edge_arith.h"

#ifndef EDGE_SCAN_POINTS
#error "include edge_model.h first: the number of points is a constant, so that every loop's bounds are known"
#endif

struct edge_sweep {
    const int16_t *power;
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

/* A level as a power: one above every power stays above all but 32767, one below stays below. */
static inline int16_t edge_level(int32_t level) { return (int16_t)edge_max(edge_min(level, INT16_MAX), INT16_MIN); }

/* The first point at or after `at` with that power; there must be one. Blocks without it are skipped whole. */
static inline uint32_t edge_find(const struct edge_sweep *s, uint32_t at, int16_t power)
{
    for (; at + 32 <= EDGE_SCAN_POINTS; at += 32) {
        uint16_t hits = 0;
        for (uint32_t i = 0; i < 32; i++)
            hits = (uint16_t)(hits + (s->power[at + i] == power));
        if (hits != 0)
            break;
    }
    while (s->power[at] != power)
        at++;
    return at;
}

static inline void edge_extremes(struct edge_sweep *s)
{
    int16_t low = INT16_MAX, high = INT16_MIN;
    for (uint32_t i = 0; i < EDGE_SCAN_POINTS; i++) {
        int16_t v = s->power[i];
        low = v < low ? v : low;
        high = v > high ? v : high;
    }
    s->minimum = low;
    s->peak = high;
    s->peak_at = edge_find(s, 0, high);
}

static inline void edge_mean(struct edge_sweep *s)
{
    int32_t sum = 0; /* |sum| <= 2^27 */
    for (uint32_t i = 0; i < EDGE_SCAN_POINTS; i++)
        sum += s->power[i];
    s->mean = (int32_t)edge_div32((uint32_t)(sum + (int32_t)(EDGE_SCAN_POINTS * 32768u)), EDGE_SCAN_POINTS) - 32768;
}

static inline void edge_square(struct edge_sweep *s)
{
    int16_t mean = (int16_t)s->mean;
    uint64_t square = 0;
    for (uint32_t i = 0; i < EDGE_SCAN_POINTS; i++) {
        uint16_t d = (uint16_t)edge_abs(s->power[i] - mean);
        square += (uint32_t)d * d;
    }
    s->square = square;
}

/* The bin of a power: floor((power - bottom) / step), by the multiplication that the generator has proved equal for
 * every power of the contract. */
struct edge_bins {
    int32_t bottom;
    uint32_t step, factor, addend, shift;
};

static inline uint32_t edge_bin(const struct edge_bins *b, int32_t power)
{
    return ((uint32_t)(uint16_t)(power - b->bottom) * b->factor + b->addend) >> b->shift;
}

/* Vectors count eight points at once: a search that counts the sweep anew for every guess then takes half the
 * instructions of a histogram, for one rank or two. */
#if defined(__ARM_NEON) || defined(__SSE2__)
enum { EDGE_RANKS_BY_SEARCH = 2 };
#else
enum { EDGE_RANKS_BY_SEARCH = 0 };
#endif
enum { EDGE_FIRST_STRIDE = 16 }; /* bins; noise of a few dB has its middle about so far above its least */

static inline uint32_t edge_count_below(const struct edge_sweep *s, int32_t level)
{
    int16_t limit = edge_level(level);
    uint16_t count = 0;
    for (uint32_t i = 0; i < EDGE_SCAN_POINTS; i++)
        count = (uint16_t)(count + (s->power[i] < limit));
    return count;
}

/* The highest bin, from `bin` to `last`, that no more than `rank` points are below. Strides double until one goes too
 * far, then they halve. */
static inline uint32_t edge_search(const struct edge_sweep *s, const struct edge_bins *b, uint32_t bin, uint32_t last,
                                   uint32_t rank)
{
    uint32_t above = last + 1, stride = EDGE_FIRST_STRIDE;
    while (above - bin > 1) {
        uint32_t half = (above - bin) >> 1, trial = bin + (half < stride ? half : stride);
        if (edge_count_below(s, b->bottom + (int32_t)(trial * b->step)) <= rank) {
            bin = trial;
            stride *= 2;
        } else {
            above = trial;
        }
    }
    return bin;
}

/* levels[k]: the order statistic of rank ranks[k] (0 = the smallest; ranks ascend), rounded down to the bins' grid.
 * counts: room for every bin of the contract's range; what it holds before does not matter. */
static inline void edge_percentiles(const struct edge_sweep *s, const struct edge_bins *b, uint16_t *counts,
                                    const uint16_t *ranks, uint32_t wanted, int32_t *levels)
{
    if (wanted <= EDGE_RANKS_BY_SEARCH) {
        uint32_t at = edge_bin(b, s->minimum), last = edge_bin(b, s->peak);
        for (uint32_t k = 0; k < wanted; k++) {
            at = edge_search(s, b, at, last, ranks[k]);
            levels[k] = b->bottom + (int32_t)(at * b->step);
        }
        return;
    }
    uint32_t bin = edge_bin(b, s->minimum), last = edge_bin(b, s->peak);
    for (uint32_t k = bin; k <= last; k++)
        counts[k] = 0;
    uint32_t at = 0;
    for (; at + 32 <= EDGE_SCAN_POINTS; at += 32) {
        uint32_t block[32]; /* the bins of a block, which vectorise; counting them does not */
        for (uint32_t i = 0; i < 32; i++)
            block[i] = edge_bin(b, s->power[at + i]);
        for (uint32_t i = 0; i < 32; i++)
            counts[block[i]]++;
    }
    for (; at < EDGE_SCAN_POINTS; at++)
        counts[edge_bin(b, s->power[at])]++;
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
        while (to + 1 < EDGE_SCAN_POINTS && s->power[to + 1] >= level)
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

static inline uint16_t edge_excess(int16_t power, int16_t base)
{
    int16_t held = power > base ? power : base;
    return (uint16_t)(held - base);
}

/* How many of `radius` points exist below and above the peak. */
static inline uint32_t edge_reach_left(const struct edge_sweep *s, uint32_t radius)
{
    return s->peak_at < radius ? s->peak_at : radius;
}

static inline uint32_t edge_reach_right(const struct edge_sweep *s, uint32_t radius)
{
    uint32_t room = EDGE_SCAN_POINTS - 1 - s->peak_at;
    return room < radius ? room : radius;
}

static inline struct edge_lobe edge_lobe(const struct edge_sweep *s, uint32_t radius, int32_t level)
{
    int16_t base = edge_level(level);
    struct edge_lobe lobe = {edge_excess((int16_t)s->peak, base), 0, 0, 0, 0};
    uint32_t left = edge_reach_left(s, radius), right = edge_reach_right(s, radius);
    const int16_t *from = s->power + s->peak_at - left;
    for (uint32_t k = 0; k < left; k++) {
        uint16_t e = edge_excess(from[k], base), d = (uint16_t)(left - k);
        lobe.area_left += e;
        lobe.moment_left += (uint32_t)e * d;
    }
    from = s->power + s->peak_at + 1;
    for (uint32_t k = 0; k < right; k++) {
        uint16_t e = edge_excess(from[k], base), d = (uint16_t)(k + 1);
        lobe.area_right += e;
        lobe.moment_right += (uint32_t)e * d;
    }
    return lobe;
}

/* A local maximum: an inner point (0 < at < points - 1) above the one before it and not below the one after. */
static inline int edge_is_local_maximum(const struct edge_sweep *s, uint32_t at)
{
    return (s->power[at] > s->power[at - 1]) & (s->power[at] >= s->power[at + 1]);
}

/* The highest local maximum with from <= at < to; where there is none the sweep's minimum, which no local maximum is,
 * or less. The running maximum starts lower than that, or compilers fold the two and lose the vectors. */
static inline int16_t edge_highest_local_maximum(const struct edge_sweep *s, uint32_t from, uint32_t to)
{
    const int16_t *here = s->power + from, *before = here - 1, *after = here + 1;
    int16_t none = (int16_t)s->minimum, high = INT16_MIN;
    for (uint32_t i = 0; i < to - from; i++) {
        int16_t v = here[i], b = before[i], a = after[i];
        v = ((v > b) & (v >= a)) ? v : none;
        high = v > high ? v : high;
    }
    return high;
}

/* The first of the highest local maxima at least `guard` (>= 1) points from the peak; 0 where there is none. */
static inline uint32_t edge_second(const struct edge_sweep *s, uint32_t guard)
{
    uint32_t left_end = s->peak_at >= guard ? s->peak_at - guard + 1 : 1;
    uint32_t right_end = EDGE_SCAN_POINTS - 1, right = s->peak_at + guard;
    int16_t low = edge_highest_local_maximum(s, 1, left_end);
    int16_t high = right < right_end ? edge_highest_local_maximum(s, right, right_end) : low;
    int16_t top = low > high ? low : high;
    if (top <= s->minimum)
        return 0;
    uint32_t at = edge_find(s, low == top ? 1 : right, top);
    while (!edge_is_local_maximum(s, at))
        at = edge_find(s, at + 1, top);
    return at;
}

#endif
