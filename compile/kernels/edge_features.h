/* The feature kernels: each gives one int32 with |value| < 2^24, from what edge_sweep.h computed.
 * Powers and their differences are in hundredths of a dB, positions and widths in points; a suffix _q4, _q8 or _q10
 * says how many fraction bits a ratio carries. Beyond the ends of the sweep the power is taken to be the floor. */
#ifndef EDGE_FEATURES_H
#define EDGE_FEATURES_H

#include "edge_sweep.h"

/* floor(standard deviation). */
static inline int32_t edge_std(const struct edge_sweep *s)
{
    return (int32_t)edge_sqrt32((uint32_t)edge_div64(s->square, EDGE_SCAN_POINTS));
}

/* Deviation from the mean in units of 0.64 dB, rounded, held within +-127: small enough for exact sums of powers. */
static inline int32_t edge_unit(const struct edge_sweep *s, uint32_t at)
{
    int32_t u = (int32_t)((uint32_t)(s->power[at] - s->mean + 65536 + 32) >> 6) - 1024;
    return edge_max(edge_min(u, 127), -127);
}

/* Sum of the squares of the units, at most 127^2 * 4096 < 2^26. */
static inline uint32_t edge_unit_square(const struct edge_sweep *s)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < EDGE_SCAN_POINTS; i++) {
        int32_t u = edge_unit(s, i);
        sum += (uint32_t)(u * u);
    }
    return sum;
}

/* m3 / m2^1.5 of the units, 8 fraction bits, towards zero; 0 where m2 is. */
static inline int32_t edge_skew_q8(const struct edge_sweep *s)
{
    uint32_t square = edge_unit_square(s);
    int64_t cube = 0;
    for (uint32_t i = 0; i < EDGE_SCAN_POINTS; i++) {
        int32_t u = edge_unit(s, i);
        cube += u * u * u;
    }
    uint32_t sigma_q8 = edge_sqrt32((uint32_t)edge_div64((uint64_t)square << 16, EDGE_SCAN_POINTS));
    if (sigma_q8 == 0)
        return 0;
    uint64_t size = cube < 0 ? (uint64_t)-cube : (uint64_t)cube;
    uint64_t m3_q8 = edge_div64(size << 8, EDGE_SCAN_POINTS);
    uint64_t skew = edge_div64(m3_q8 << 24, edge_mul32(sigma_q8 * sigma_q8, sigma_q8));
    int32_t held = skew > 0xffffffu ? 0xffffff : (int32_t)skew;
    return cube < 0 ? -held : held;
}

/* m4 / m2^2 of the units, 8 fraction bits, rounded down; 0 where m2 is. */
static inline int32_t edge_kurtosis_q8(const struct edge_sweep *s)
{
    uint64_t fourth = 0;
    for (uint32_t i = 0; i < EDGE_SCAN_POINTS; i++) {
        int32_t u = edge_unit(s, i);
        uint32_t square = (uint32_t)(u * u);
        fourth += square * square;
    }
    uint32_t m2_q8 = (uint32_t)edge_div64((uint64_t)edge_unit_square(s) << 8, EDGE_SCAN_POINTS);
    if (m2_q8 == 0)
        return 0;
    uint64_t m4_q8 = edge_div64(fourth << 8, EDGE_SCAN_POINTS);
    uint64_t kurtosis = edge_div64(m4_q8 << 16, edge_mul32(m2_q8, m2_q8));
    return kurtosis > 0xffffffu ? 0xffffff : (int32_t)kurtosis;
}

/* Mean |x[i + lag] - x[i]| over from <= i, i + lag <= to, with x the power but at least `base`; 4 fraction bits;
 * 0 where there is no such pair. */
static inline int32_t edge_texture_q4(const struct edge_sweep *s, uint32_t from, uint32_t to, uint32_t lag, int32_t base)
{
    int16_t least = edge_level(base);
    uint32_t sum = 0;
    if (to - from < lag)
        return 0;
    const int16_t *here = s->power + from, *there = here + lag;
    for (uint32_t i = 0; i < to - from - lag + 1; i++) {
        int16_t a = here[i], b = there[i];
        a = a > least ? a : least;
        b = b > least ? b : least;
        sum += (uint16_t)edge_abs(b - a);
    }
    return (int32_t)edge_ratio(sum, to - from - lag + 1, 4);
}

static inline int32_t edge_roughness_q4(const struct edge_sweep *s, uint32_t lag, int32_t base)
{
    return edge_texture_q4(s, 0, EDGE_SCAN_POINTS - 1, lag, base);
}

/* The same within +-radius points of the peak. */
static inline int32_t edge_ripple_q4(const struct edge_sweep *s, uint32_t radius, uint32_t lag, int32_t base)
{
    return edge_texture_q4(s, s->peak_at - edge_reach_left(s, radius), s->peak_at + edge_reach_right(s, radius), lag, base);
}

/* How many points are at `level` or above. */
static inline int32_t edge_occupancy(const struct edge_sweep *s, int32_t level)
{
    int16_t least = edge_level(level);
    uint16_t count = 0;
    for (uint32_t i = 0; i < EDGE_SCAN_POINTS; i++)
        count = (uint16_t)(count + (s->power[i] >= least));
    return level > INT16_MAX ? 0 : count;
}

/* How many unbroken runs of points are at `level` or above. */
static inline int32_t edge_runs(const struct edge_sweep *s, int32_t level)
{
    int16_t least = edge_level(level);
    uint16_t count = s->power[0] >= least;
    for (uint32_t i = 1; i < EDGE_SCAN_POINTS; i++)
        count = (uint16_t)(count + ((s->power[i] >= least) & (s->power[i - 1] < least)));
    return level > INT16_MAX ? 0 : count;
}

/* How many local maxima are at `level` or above. */
static inline int32_t edge_local_maxima(const struct edge_sweep *s, int32_t level)
{
    int16_t least = edge_level(level);
    uint16_t count = 0;
    for (uint32_t i = 1; i + 1 < EDGE_SCAN_POINTS; i++)
        count = (uint16_t)(count + ((s->power[i] >= least) & edge_is_local_maximum(s, i)));
    return level > INT16_MAX ? 0 : count;
}

/* Points from the first to the last that is at `level` or above, both counted; 0 where there is none. */
static inline int32_t edge_extent(const struct edge_sweep *s, int32_t level)
{
    uint32_t first = 0, last = EDGE_SCAN_POINTS;
    while (first < EDGE_SCAN_POINTS && s->power[first] < level)
        first++;
    while (last > first && s->power[last - 1] < level)
        last--;
    return (int32_t)(last - first);
}

/* The power `offset` points below or above the peak. */
static inline int32_t edge_left(const struct edge_sweep *s, uint32_t offset)
{
    return s->peak_at >= offset ? s->power[s->peak_at - offset] : s->floor;
}

static inline int32_t edge_right(const struct edge_sweep *s, uint32_t offset)
{
    return s->peak_at + offset < EDGE_SCAN_POINTS ? s->power[s->peak_at + offset] : s->floor;
}

/* The points `from` .. `to` below and above the peak, as first <= at < end; none where end <= first. */
struct edge_ring {
    uint32_t first, end;
};

static inline struct edge_ring edge_ring_left(const struct edge_sweep *s, uint32_t from, uint32_t to)
{
    struct edge_ring ring = {s->peak_at < to ? 0 : s->peak_at - to, s->peak_at < from ? 0 : s->peak_at - from + 1};
    return ring;
}

static inline struct edge_ring edge_ring_right(const struct edge_sweep *s, uint32_t from, uint32_t to)
{
    uint32_t end = s->peak_at + to + 1;
    struct edge_ring ring = {s->peak_at + from, end < EDGE_SCAN_POINTS ? end : EDGE_SCAN_POINTS};
    return ring;
}

/* Mean power over the floor of a ring of `size` points, towards zero; points beyond the sweep count as the floor. */
static inline int32_t edge_ring_mean(const struct edge_sweep *s, struct edge_ring ring, uint32_t size)
{
    int32_t sum = 0;
    for (uint32_t i = ring.first; i < ring.end; i++)
        sum += s->power[i] - s->floor;
    return edge_div32s(sum, size);
}

/* Highest power over the floor of a ring's points; 0 where it has none. */
static inline int32_t edge_ring_max(const struct edge_sweep *s, struct edge_ring ring)
{
    int16_t high = INT16_MIN;
    if (ring.end <= ring.first)
        return 0;
    for (uint32_t i = ring.first; i < ring.end; i++) {
        int16_t v = s->power[i];
        high = v > high ? v : high;
    }
    return high - s->floor;
}

static inline int32_t edge_mean_left(const struct edge_sweep *s, uint32_t from, uint32_t to)
{
    return edge_ring_mean(s, edge_ring_left(s, from, to), to - from + 1);
}

static inline int32_t edge_mean_right(const struct edge_sweep *s, uint32_t from, uint32_t to)
{
    return edge_ring_mean(s, edge_ring_right(s, from, to), to - from + 1);
}

static inline int32_t edge_max_left(const struct edge_sweep *s, uint32_t from, uint32_t to)
{
    return edge_ring_max(s, edge_ring_left(s, from, to));
}

static inline int32_t edge_max_right(const struct edge_sweep *s, uint32_t from, uint32_t to)
{
    return edge_ring_max(s, edge_ring_right(s, from, to));
}

/* Mean |right - left| of the points 1 .. radius beside the peak. */
static inline int32_t edge_symmetry(const struct edge_sweep *s, uint32_t radius)
{
    uint32_t sum = 0;
    for (uint32_t d = 1; d <= radius; d++)
        sum += (uint32_t)edge_abs(edge_right(s, d) - edge_left(s, d));
    return (int32_t)edge_div32(sum, radius);
}

/* Centre of the excess in points from the peak, positive above it. */
static inline int32_t edge_centroid_q4(const struct edge_lobe *lobe)
{
    uint32_t area = lobe->top + lobe->area_left + lobe->area_right;
    if (area == 0)
        return 0;
    if (lobe->moment_right >= lobe->moment_left)
        return (int32_t)edge_ratio(lobe->moment_right - lobe->moment_left, area, 4);
    return -(int32_t)edge_ratio(lobe->moment_left - lobe->moment_right, area, 4);
}

/* Mean distance of the excess from the peak, in points. */
static inline int32_t edge_spread_q4(const struct edge_lobe *lobe)
{
    uint32_t area = lobe->top + lobe->area_left + lobe->area_right;
    return area == 0 ? 0 : (int32_t)edge_ratio(lobe->moment_left + lobe->moment_right, area, 4);
}

/* (right - left) / all of the excess. */
static inline int32_t edge_asymmetry_q10(const struct edge_lobe *lobe)
{
    uint32_t area = lobe->top + lobe->area_left + lobe->area_right;
    if (area == 0)
        return 0;
    if (lobe->area_right >= lobe->area_left)
        return (int32_t)edge_ratio(lobe->area_right - lobe->area_left, area, 10);
    return -(int32_t)edge_ratio(lobe->area_left - lobe->area_right, area, 10);
}

/* Mean excess of the window's 2 * radius + 1 points. */
static inline int32_t edge_area(const struct edge_lobe *lobe, uint32_t radius)
{
    return (int32_t)edge_div32(lobe->top + lobe->area_left + lobe->area_right, 2 * radius + 1);
}

/* Distance of the second peak from the first; 0 where there is none (second == 0). */
static inline int32_t edge_second_offset(const struct edge_sweep *s, uint32_t second)
{
    return second == 0 ? 0 : edge_abs((int32_t)second - (int32_t)s->peak_at);
}

/* How far the second peak lies below the first; the first's height over the floor where there is none. */
static inline int32_t edge_second_drop(const struct edge_sweep *s, uint32_t second)
{
    return s->peak - (second == 0 ? s->floor : s->power[second]);
}

/* How deep the lowest point between the two peaks lies below the second; 0 where there is none. */
static inline int32_t edge_second_valley(const struct edge_sweep *s, uint32_t second)
{
    uint32_t from = second < s->peak_at ? second : s->peak_at, to = second < s->peak_at ? s->peak_at : second;
    int16_t low = INT16_MAX;
    if (second == 0)
        return 0;
    for (uint32_t i = from; i <= to; i++) {
        int16_t v = s->power[i];
        low = v < low ? v : low;
    }
    return s->power[second] - low;
}

#endif
