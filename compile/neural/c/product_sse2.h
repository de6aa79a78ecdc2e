/* Sums of products with SSE2, which every x86-64 has: PMADDWD takes eight products of 16-bit numbers at a time. */
#if defined(__SSE2__)
#define EDGE_POSITIONS 4
#include <emmintrin.h>
struct edge_halves { __m128i low, high; }; /* sixteen bytes as 16-bit numbers */
static inline struct edge_halves edge_widen(__m128i v) {
    struct edge_halves h = {
        _mm_srai_epi16(_mm_unpacklo_epi8(v, v), 8), _mm_srai_epi16(_mm_unpackhi_epi8(v, v), 8)};
    return h;
}
static void edge_widen_all(const int8_t *x, int32_t count, int16_t *to) {
    for (int32_t k = 0; k < count; k += 8, x += 8, to += 8) {
        __m128i v = _mm_loadl_epi64((const __m128i *)(const void *)x);
        _mm_storeu_si128((__m128i *)(void *)to, edge_widen(v).low);
    }
}
/* Four vectors of partial sums to one vector of four sums. */
static inline __m128i edge_sums(const __m128i *a) {
    __m128i two = _mm_add_epi32(_mm_unpacklo_epi32(a[0], a[1]), _mm_unpackhi_epi32(a[0], a[1]));
    __m128i more = _mm_add_epi32(_mm_unpacklo_epi32(a[2], a[3]), _mm_unpackhi_epi32(a[2], a[3]));
    return _mm_add_epi32(_mm_unpacklo_epi64(two, more), _mm_unpackhi_epi64(two, more));
}
/* What four outputs are rescaled by. */
struct edge_scale {
    __m128i bias, mult, odd, shift, half;
    __m128i right[4];
    int32_t up;
};
static inline struct edge_scale edge_scale_of(const struct edge_product *p, int32_t c) {
    struct edge_scale s = {_mm_loadu_si128((const __m128i *)(const void *)(p->bias + c)),
                           _mm_loadu_si128((const __m128i *)(const void *)(p->mult + c))};
    int32_t half[4];
    for (int j = 0; j < 4; j++) {
        int32_t right = p->shift[c + j] > 0 ? 0 : -p->shift[c + j];
        half[j] = (int32_t)((1u << right) >> 1);
        s.right[j] = _mm_cvtsi32_si128(right);
    }
    s.odd = _mm_srli_epi64(s.mult, 32);
    s.shift = _mm_loadu_si128((const __m128i *)(const void *)(p->shift + c));
    s.half = _mm_loadu_si128((const __m128i *)(const void *)half);
    s.up = c < p->up;
    return s;
}
/* edge_rescale of four sums: unsigned products of two lanes at a time, made signed; then each lane's own shift. */
static inline __m128i edge_rescale4(__m128i x, const struct edge_scale *s) {
    const __m128i nudge = _mm_set_epi32(0, 1 << 30, 0, 1 << 30);
    __m128i negative = _mm_srai_epi32(x, 31);
    __m128i even = _mm_srli_epi64(_mm_add_epi64(_mm_mul_epu32(x, s->mult), nudge), 31);
    __m128i odd = _mm_srli_epi64(_mm_add_epi64(_mm_mul_epu32(_mm_srli_epi64(x, 32), s->odd), nudge), 31);
    __m128i y = _mm_unpacklo_epi32(_mm_shuffle_epi32(even, 0x08), _mm_shuffle_epi32(odd, 0x08));
    y = _mm_sub_epi32(y, _mm_slli_epi32(_mm_and_si128(negative, s->mult), 1));
    if (!s->up) y = _mm_add_epi32(y, _mm_srai_epi32(_mm_and_si128(y, s->shift), 31));
    y = _mm_add_epi32(y, s->half);
    __m128i low = _mm_unpacklo_epi32(_mm_sra_epi32(y, s->right[0]), _mm_sra_epi32(y, s->right[1]));
    __m128i high = _mm_unpackhi_epi32(_mm_sra_epi32(y, s->right[2]), _mm_sra_epi32(y, s->right[3]));
    return _mm_castps_si128(_mm_shuffle_ps(_mm_castsi128_ps(low), _mm_castsi128_ps(high), 0xcc));
}
static inline __attribute__((always_inline)) void edge_store(
    const struct edge_product *p, const struct edge_scale *s, const __m128i *acc, int32_t c, int8_t *y) {
    __m128i sum = _mm_add_epi32(edge_sums(acc), s->bias);
#if EDGE_LEFT_SHIFTS
    int32_t sums[4], out[4];
    _mm_storeu_si128((__m128i *)(void *)sums, sum);
    for (int j = 0; j < 4; j++) out[j] = edge_rescale(sums[j], p->mult[c + j], p->shift[c + j], s->up);
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)out);
#else
    __m128i v = edge_rescale4(sum, s);
#endif
    v = _mm_packs_epi32(v, v); /* a zero point added to what 16 bits hold saturates to the same byte */
    v = _mm_adds_epi16(v, _mm_set1_epi16((int16_t)p->zero));
    v = _mm_min_epi16(_mm_max_epi16(v, _mm_set1_epi16((int16_t)p->low)), _mm_set1_epi16((int16_t)p->high));
    int32_t bytes = _mm_cvtsi128_si32(_mm_packs_epi16(v, v));
    if (p->n - c >= 4) __builtin_memcpy(y + c, &bytes, 4);
    else for (int32_t j = 0; j < p->n - c; j++) y[c + j] = (int8_t)(bytes >> 8 * j);
}
static inline __attribute__((always_inline)) void edge_products(
    const struct edge_product *p, const int16_t *x, int32_t stride, const int16_t *w, const struct edge_scale *s,
    int32_t c, int8_t *y, const int32_t positions) {
    __m128i acc[2][4];
    EDGE_UNROLL for (int i = 0; i < positions; i++)
        EDGE_UNROLL for (int j = 0; j < 4; j++) acc[i][j] = _mm_setzero_si128();
    for (int32_t k = 0; k < p->taps; k += 8, w += 32)
        EDGE_UNROLL for (int i = 0; i < positions; i++) {
            __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(x + i * stride + k));
            EDGE_UNROLL for (int j = 0; j < 4; j++) {
                __m128i row = _mm_loadu_si128((const __m128i *)(const void *)(w + 8 * j));
                acc[i][j] = _mm_add_epi32(acc[i][j], _mm_madd_epi16(row, v));
            }
        }
    EDGE_UNROLL for (int i = 0; i < positions; i++) edge_store(p, s, acc[i], c, y + i * p->n);
}
/* A row of positions: input and, four outputs at a time, weights are made 16-bit numbers once for all of it. */
static void edge_wide_row(const struct edge_product *p, const int8_t *x, int32_t stride, int32_t count, int8_t *y) {
    int32_t span = (count - 1) * stride + p->taps, whole = p->taps & ~15;
    int16_t v[span + 8], wide[4 * p->taps];
    const int8_t *w = p->weights;
    edge_widen_all(x, span & ~7, v);
    for (int32_t k = span & ~7; k < span; k++) v[k] = x[k];
    for (int32_t c = 0; c < p->n; c += 4) {
        for (int32_t k = 0; k < whole; k += 16)
            for (int j = 0; j < 4; j++, w += 16) {
                edge_widen_all(w, 8, wide + 4 * k + 8 * j);
                edge_widen_all(w + 8, 8, wide + 4 * k + 32 + 8 * j);
            }
        if (whole < p->taps) edge_widen_all(w, 32, wide + 4 * whole), w += 32;
        const struct edge_scale s = edge_scale_of(p, c);
        int32_t i = 0;
        for (; i + 2 <= count; i += 2) edge_products(p, v + i * stride, stride, wide, &s, c, y + i * p->n, 2);
        if (i < count) edge_products(p, v + i * stride, stride, wide, &s, c, y + i * p->n, 1);
    }
}
/* One position: each weight is met once, so nothing is kept. */
static void edge_one(const struct edge_product *p, const int8_t *x, int8_t *y) {
    const int8_t *w = p->weights;
    for (int32_t c = 0; c < p->n; c += 4) {
        __m128i acc[4] = {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128()};
        for (int32_t k = 0; k < p->taps;) {
            const int32_t wide = p->taps - k >= 16 ? 16 : 8;
            const __m128i *at = (const __m128i *)(const void *)(x + k);
            struct edge_halves v = edge_widen(wide == 16 ? _mm_loadu_si128(at) : _mm_loadl_epi64(at));
            EDGE_UNROLL for (int j = 0; j < 4; j++, w += wide) {
                const __m128i *of = (const __m128i *)(const void *)w;
                struct edge_halves row = edge_widen(wide == 16 ? _mm_loadu_si128(of) : _mm_loadl_epi64(of));
                acc[j] = _mm_add_epi32(
                    acc[j], _mm_add_epi32(_mm_madd_epi16(row.low, v.low), _mm_madd_epi16(row.high, v.high)));
            }
            k += wide;
        }
        const struct edge_scale s = edge_scale_of(p, c);
        edge_store(p, &s, acc, c, y);
    }
}
static __attribute__((noinline)) void edge_row(
    const struct edge_product *p, const int8_t *x, int32_t stride, int32_t count, int8_t *wide, int8_t *y) {
    (void)wide;
    if (count > 1) edge_wide_row(p, x, stride, count, y);
    else edge_one(p, x, y);
}
#endif
