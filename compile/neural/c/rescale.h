/* An accumulator to an output step: x * mult * 2^(shift - 31), rounded after the multiplier (half up) and after the
   shift: halves away from zero, or upwards where `up` is set. The arithmetic is gemmlowp's, as TFLite 2.14 uses it. */
static inline int32_t edge_rescale(int32_t x, int32_t mult, int32_t shift, int32_t up) {
    int32_t left = shift > 0 ? shift : 0, right = shift > 0 ? 0 : -shift;
    int32_t y = (int32_t)(((int64_t)(int32_t)((uint32_t)x << left) * mult + (1 << 30)) >> 31);
    int32_t half = (int32_t)((1u << right) >> 1);
    /* below zero, one less than a half added takes a tie down, that is away from zero */
    return right == 0 ? y : (y + half - ((y < 0) & !up)) >> right;
}
static inline int32_t edge_clamp(int32_t x, int32_t low, int32_t high) {
    return x < low ? low : x > high ? high : x;
}
#if defined(__ARM_NEON)
#include <arm_neon.h>
static inline int32x4_t edge_rescale4(int32x4_t x, int32x4_t mult, int32x4_t left, int32x4_t right, int32_t up) {
#if EDGE_LEFT_SHIFTS
    x = vshlq_s32(x, left);
#endif
    x = vqrdmulhq_s32(x, mult);
    if (!up) x = vqaddq_s32(x, vshrq_n_s32(vandq_s32(x, right), 31));
    return vrshlq_s32(x, right);
}
#endif
