/* ADD: both sides raised by 20 bits, brought to one scale, summed, rescaled. */
struct edge_add {
    int32_t zero_a, zero_b, mult_a, mult_b, mult, shift_a, shift_b, shift, zero, low, high;
};
static __attribute__((noinline)) void edge_add(
    const struct edge_add *p, int32_t count, const int8_t *a, const int8_t *b, int8_t *y) {
    int32_t i = 0;
#if defined(__ARM_NEON)
    int32x4_t none = vdupq_n_s32(0), la = vdupq_n_s32(p->shift_a), lb = vdupq_n_s32(p->shift_b);
    int32x4_t l = vmaxq_s32(vdupq_n_s32(p->shift), none), r = vminq_s32(vdupq_n_s32(p->shift), none);
    for (; i + 8 <= count; i += 8) {
        int16x8_t va = vsubq_s16(vmovl_s8(vld1_s8(a + i)), vdupq_n_s16((int16_t)p->zero_a));
        int16x8_t vb = vsubq_s16(vmovl_s8(vld1_s8(b + i)), vdupq_n_s16((int16_t)p->zero_b));
        int16x4_t wa[2] = {vget_low_s16(va), vget_high_s16(va)}, wb[2] = {vget_low_s16(vb), vget_high_s16(vb)}, out[2];
        for (int j = 0; j < 2; j++) {
            int32x4_t one = edge_rescale4(vshlq_n_s32(vmovl_s16(wa[j]), 20), vdupq_n_s32(p->mult_a), none, la, 0);
            int32x4_t two = edge_rescale4(vshlq_n_s32(vmovl_s16(wb[j]), 20), vdupq_n_s32(p->mult_b), none, lb, 0);
            int32x4_t sum = edge_rescale4(vaddq_s32(one, two), vdupq_n_s32(p->mult), l, r, 0);
            out[j] = vqmovn_s32(vaddq_s32(sum, vdupq_n_s32(p->zero)));
        }
        int8x8_t v = vqmovn_s16(vcombine_s16(out[0], out[1]));
        vst1_s8(y + i, vmin_s8(vmax_s8(v, vdup_n_s8((int8_t)p->low)), vdup_n_s8((int8_t)p->high)));
    }
#endif
    for (; i < count; i++) {
        int32_t one = edge_rescale((a[i] - p->zero_a) * (1 << 20), p->mult_a, p->shift_a, 0);
        int32_t two = edge_rescale((b[i] - p->zero_b) * (1 << 20), p->mult_b, p->shift_b, 0);
        y[i] = (int8_t)edge_clamp(edge_rescale(one + two, p->mult, p->shift, 0) + p->zero, p->low, p->high);
    }
}
