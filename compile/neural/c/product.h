/* Sums of products: `n` outputs at each of some positions, K taps each, K padded with zero weights to a multiple of 8.
   Weights lie in groups of four outputs: for each 16 taps four rows of 16, then for a last 8 taps four rows of 8.
   No weight is -128 (the emitter sees to it), so two products fit a 16-bit lane. */
struct edge_product {
    const int8_t *weights;
    const int32_t *bias, *mult, *shift; /* padded to a multiple of four */
    int32_t n, taps, up;                /* `up`: so many leading outputs round a tie upwards */
    int32_t zero, low, high;
};

#define EDGE_UNROLL _Pragma("GCC unroll 4")
#if defined(__ARM_NEON)
/* One position's sums before the next one's load: left alone, the scheduler starts all and runs out of registers. */
#define EDGE_ORDER(k, a) __asm__ volatile("" : "+r"(k), "+w"(a[0]), "+w"(a[1]), "+w"(a[2]), "+w"(a[3]))
#if defined(__aarch64__)
#define EDGE_POSITIONS 4
static inline int16x8_t edge_mul2(int8x16_t a, int8x16_t b) {
    return vmlal_high_s8(vmull_s8(vget_low_s8(a), vget_low_s8(b)), a, b);
}
static inline int32x4_t edge_sums(const int32x4_t *a) {
    return vpaddq_s32(vpaddq_s32(a[0], a[1]), vpaddq_s32(a[2], a[3]));
}
#else
#define EDGE_POSITIONS 2
static inline int16x8_t edge_mul2(int8x16_t a, int8x16_t b) {
    return vmlal_s8(vmull_s8(vget_low_s8(a), vget_low_s8(b)), vget_high_s8(a), vget_high_s8(b));
}
static inline int32x2_t edge_fold(int32x4_t a) { return vadd_s32(vget_low_s32(a), vget_high_s32(a)); }
static inline int32x4_t edge_sums(const int32x4_t *a) {
    return vcombine_s32(vpadd_s32(edge_fold(a[0]), edge_fold(a[1])), vpadd_s32(edge_fold(a[2]), edge_fold(a[3])));
}
#endif
static inline __attribute__((always_inline)) void edge_products(
    const struct edge_product *p, const int8_t *x, int32_t stride, int8_t *y, const int32_t positions) {
    const int8_t *w = p->weights;
    const int32_t taps = p->taps, n = p->n;
    const int16x8_t zero = vdupq_n_s16((int16_t)p->zero);
    const int8x16_t low = vdupq_n_s8((int8_t)p->low), high = vdupq_n_s8((int8_t)p->high);
    for (int32_t c = 0; c < n; c += 4) {
        int32x4_t acc[4][4];
        int32_t k = 0;
        if (taps < 16) {
            EDGE_UNROLL for (int i = 0; i < positions; i++)
                EDGE_UNROLL for (int j = 0; j < 4; j++) acc[i][j] = vdupq_n_s32(0);
        } else {
            int8x16_t row[4] = {vld1q_s8(w), vld1q_s8(w + 16), vld1q_s8(w + 32), vld1q_s8(w + 48)};
            EDGE_UNROLL for (int i = 0; i < positions; i++) {
                int8x16_t v = vld1q_s8(x + i * stride + k);
                EDGE_UNROLL for (int j = 0; j < 4; j++) acc[i][j] = vpaddlq_s16(edge_mul2(row[j], v));
                EDGE_ORDER(k, acc[i]);
            }
            k += 16, w += 64;
        }
        for (; k + 16 <= taps; k += 16, w += 64) {
            int8x16_t row[4] = {vld1q_s8(w), vld1q_s8(w + 16), vld1q_s8(w + 32), vld1q_s8(w + 48)};
            EDGE_UNROLL for (int i = 0; i < positions; i++) {
                int8x16_t v = vld1q_s8(x + i * stride + k);
                EDGE_UNROLL for (int j = 0; j < 4; j++) acc[i][j] = vpadalq_s16(acc[i][j], edge_mul2(row[j], v));
                EDGE_ORDER(k, acc[i]);
            }
        }
        if (k < taps) {
            int8x16_t two[2] = {vld1q_s8(w), vld1q_s8(w + 16)};
            w += 32;
            EDGE_UNROLL for (int i = 0; i < positions; i++) {
                int8x8_t v = vld1_s8(x + i * stride + k);
                EDGE_UNROLL for (int j = 0; j < 2; j++) {
                    acc[i][2 * j] = vpadalq_s16(acc[i][2 * j], vmull_s8(vget_low_s8(two[j]), v));
                    acc[i][2 * j + 1] = vpadalq_s16(acc[i][2 * j + 1], vmull_s8(vget_high_s8(two[j]), v));
                }
            }
        }
        int32x4_t bias = vld1q_s32(p->bias + c), mult = vld1q_s32(p->mult + c), shift = vld1q_s32(p->shift + c);
        int32x4_t none = vdupq_n_s32(0), left = vmaxq_s32(shift, none), right = vminq_s32(shift, none);
        int32_t up = c < p->up;
        int16x8_t half[2] = {vdupq_n_s16(0), vdupq_n_s16(0)};
        EDGE_UNROLL for (int i = 0; i < positions; i++) {
            int32x4_t sum = vaddq_s32(edge_sums(acc[i]), bias);
            int16x4_t out = vqmovn_s32(edge_rescale4(sum, mult, left, right, up));
            half[i / 2] = i & 1 ? vcombine_s16(vget_low_s16(half[i / 2]), out) : vcombine_s16(out, out);
        }
        int8x16_t all = vcombine_s8(vqmovn_s16(vqaddq_s16(half[0], zero)), vqmovn_s16(vqaddq_s16(half[1], zero)));
        int32x4_t words = vreinterpretq_s32_s8(vminq_s8(vmaxq_s8(all, low), high));
        int32_t out[4] = {vgetq_lane_s32(words, 0), vgetq_lane_s32(words, 1), vgetq_lane_s32(words, 2),
                          vgetq_lane_s32(words, 3)};
        int8_t *to = y + c;
        if (n - c >= 4) {
            EDGE_UNROLL for (int i = 0; i < positions; i++) __builtin_memcpy(to + i * n, &out[i], 4);
        } else {
            EDGE_UNROLL for (int i = 0; i < positions; i++)
                for (int32_t o = 0; o < n - c; o++) to[i * n + o] = (int8_t)(out[i] >> 8 * o);
        }
    }
}
#elif defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_SIMD32)
#define EDGE_POSITIONS 2
static inline int32_t edge_word(const int8_t *at) {
    int32_t v;
    __builtin_memcpy(&v, at, 4);
    return v;
}
static inline int32_t edge_odd(int32_t v) { return (int32_t)(((uint32_t)v >> 8) | ((uint32_t)v << 24)); }
static inline __attribute__((always_inline)) void edge_products(
    const struct edge_product *p, const int8_t *x, int32_t stride, int8_t *y, const int32_t positions) {
    const int8_t *group = p->weights;
    for (int32_t c = 0; c < p->n; c += 4, group += 4 * p->taps) {
        for (int32_t j = 0; j < 4 && c + j < p->n; j += 2) { /* two outputs by two positions fill the registers */
            int32_t acc[2][2] = {{0}};
            const int8_t *w = group;
            for (int32_t k = 0; k < p->taps;) {
                int32_t wide = p->taps - k >= 16 ? 16 : 8;
                const int8_t *a = w + j * wide, *b = a + wide;
                for (int32_t end = k + wide; k < end; k += 4, a += 4, b += 4) {
                    int32_t wa = edge_word(a), wb = edge_word(b);
                    int32_t wa0 = __builtin_arm_sxtb16(wa), wa1 = __builtin_arm_sxtb16(edge_odd(wa));
                    int32_t wb0 = __builtin_arm_sxtb16(wb), wb1 = __builtin_arm_sxtb16(edge_odd(wb));
                    for (int i = 0; i < positions; i++) {
                        int32_t v = edge_word(x + i * stride + k);
                        int32_t v0 = __builtin_arm_sxtb16(v), v1 = __builtin_arm_sxtb16(edge_odd(v));
                        acc[i][0] = __builtin_arm_smlad(wa1, v1, __builtin_arm_smlad(wa0, v0, acc[i][0]));
                        acc[i][1] = __builtin_arm_smlad(wb1, v1, __builtin_arm_smlad(wb0, v0, acc[i][1]));
                    }
                }
                w += 4 * wide;
            }
            for (int i = 0; i < positions; i++)
                for (int32_t o = c + j; o < c + j + 2 && o < p->n; o++)
                    y[i * p->n + o] = (int8_t)edge_clamp(
                        edge_rescale(acc[i][o - c - j] + p->bias[o], p->mult[o], p->shift[o], o < p->up) + p->zero,
                        p->low, p->high);
        }
    }
}
#elif defined(__SSE2__)
#define EDGE_POSITIONS 2
#include <emmintrin.h>
struct edge_halves { __m128i low, high; }; /* sixteen bytes as 16-bit numbers */
static inline struct edge_halves edge_widen(__m128i v) {
    struct edge_halves h = {
        _mm_srai_epi16(_mm_unpacklo_epi8(v, v), 8), _mm_srai_epi16(_mm_unpackhi_epi8(v, v), 8)};
    return h;
}
static inline int32_t edge_total(__m128i v) {
    v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32(v, 0xb1)));
}
static inline __attribute__((always_inline)) void edge_products(
    const struct edge_product *p, const int8_t *x, int32_t stride, int8_t *y, const int32_t positions) {
    const int8_t *w = p->weights;
    for (int32_t c = 0; c < p->n; c += 4) {
        __m128i acc[2][4];
        EDGE_UNROLL for (int i = 0; i < positions; i++)
            EDGE_UNROLL for (int j = 0; j < 4; j++) acc[i][j] = _mm_setzero_si128();
        for (int32_t k = 0; k < p->taps;) {
            const int32_t wide = p->taps - k >= 16 ? 16 : 8;
            struct edge_halves v[2];
            EDGE_UNROLL for (int i = 0; i < positions; i++) {
                const __m128i *at = (const __m128i *)(x + i * stride + k);
                v[i] = edge_widen(wide == 16 ? _mm_loadu_si128(at) : _mm_loadl_epi64(at));
            }
            EDGE_UNROLL for (int j = 0; j < 4; j++, w += wide) {
                const __m128i *at = (const __m128i *)w;
                struct edge_halves row = edge_widen(wide == 16 ? _mm_loadu_si128(at) : _mm_loadl_epi64(at));
                EDGE_UNROLL for (int i = 0; i < positions; i++)
                    acc[i][j] = _mm_add_epi32(
                        acc[i][j], _mm_add_epi32(_mm_madd_epi16(row.low, v[i].low), _mm_madd_epi16(row.high, v[i].high)));
            }
            k += wide;
        }
        EDGE_UNROLL for (int i = 0; i < positions; i++)
            for (int32_t j = 0; j < 4 && c + j < p->n; j++) {
                int32_t o = c + j, sum = edge_total(acc[i][j]) + p->bias[o];
                y[i * p->n + o] = (int8_t)edge_clamp(
                    edge_rescale(sum, p->mult[o], p->shift[o], o < p->up) + p->zero, p->low, p->high);
            }
    }
}
#else
#define EDGE_POSITIONS 1
static inline int32_t edge_dot(const int8_t *w, const int8_t *x, const int32_t count) {
    int32_t sum = 0;
    for (int32_t i = 0; i < count; i++) sum += (int16_t)w[i] * (int16_t)x[i];
    return sum;
}
static inline void edge_products(
    const struct edge_product *p, const int8_t *x, int32_t stride, int8_t *y, const int32_t positions) {
    const int8_t *w = p->weights;
    (void)stride, (void)positions;
    for (int32_t c = 0; c < p->n; c += 4) {
        int32_t acc[4] = {0}, k = 0;
        for (; k + 16 <= p->taps; k += 16, w += 64)
            for (int32_t j = 0; j < 4; j++) acc[j] += edge_dot(w + 16 * j, x + k, 16);
        if (k < p->taps)
            for (int32_t j = 0; j < 4; j++, w += 8) acc[j] += edge_dot(w, x + k, 8);
        for (int32_t j = 0; j < 4 && c + j < p->n; j++) {
            int32_t o = c + j;
            y[o] = (int8_t)edge_clamp(
                edge_rescale(acc[j] + p->bias[o], p->mult[o], p->shift[o], o < p->up) + p->zero, p->low, p->high);
        }
    }
}
#endif

static inline struct edge_product edge_product_of(
    const int8_t *weights, const int32_t *bias, const int32_t *mult, const int32_t *shift, int32_t n, int32_t taps,
    int32_t up, int32_t zero, int32_t low, int32_t high) {
    struct edge_product p = {weights, bias, mult, shift, n, taps, up, zero, low, high};
    return p;
}

/* `count` positions, `stride` bytes of input apart; outputs lie one after the other. */
static __attribute__((noinline)) void edge_row(
    const struct edge_product *p, const int8_t *x, int32_t stride, int32_t count, int8_t *y) {
    int32_t i = 0;
#if EDGE_POSITIONS > 1
    for (; i + EDGE_POSITIONS <= count; i += EDGE_POSITIONS)
        edge_products(p, x + i * stride, stride, y + i * p->n, EDGE_POSITIONS);
#endif
    for (; i < count; i++) edge_products(p, x + i * stride, stride, y + i * p->n, 1);
}
