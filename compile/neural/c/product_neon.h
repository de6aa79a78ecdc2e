/* Sums of products with NEON: four outputs by as many positions as the registers hold. */
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
static __attribute__((noinline)) void edge_row(
    const struct edge_product *p, const int8_t *x, int32_t stride, int32_t count, int8_t *wide, int8_t *y) {
    int32_t i = 0;
    (void)wide;
    for (; i + EDGE_POSITIONS <= count; i += EDGE_POSITIONS)
        edge_products(p, x + i * stride, stride, y + i * p->n, EDGE_POSITIONS);
    for (; i < count; i++) edge_products(p, x + i * stride, stride, y + i * p->n, 1);
}
#endif
