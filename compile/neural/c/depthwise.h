/* DEPTHWISE_CONV_2D with one output a channel: an edge_product whose taps are rounded up to even. Weights lie in blocks of eight channels, in each the taps two by two
   (an odd last one is joined by zeros), in each two rows of eight. No weight is -128. Bias, mult
   and shift are padded to a multiple of eight. `padded` is never null. */
static inline void edge_block(
    const struct edge_product *p, const int8_t *x, const int32_t *offset, int32_t c, int8_t *y) {
    const int8_t *w = p->weights + c * p->taps;
    int8_t out[8];
#if defined(__ARM_NEON)
    int32x4_t acc[2] = {vld1q_s32(p->bias + c), vld1q_s32(p->bias + c + 4)};
    for (int32_t t = 0; t < p->taps; t += 2, w += 16) {
        int16x8_t two = vmull_s8(vld1_s8(x + offset[t]), vld1_s8(w));
        two = vmlal_s8(two, vld1_s8(x + offset[t + 1]), vld1_s8(w + 8));
        acc[0] = vaddw_s16(acc[0], vget_low_s16(two));
        acc[1] = vaddw_s16(acc[1], vget_high_s16(two));
    }
    int16x4_t half[2];
    for (int i = 0; i < 2; i++) {
        int32x4_t shift = vld1q_s32(p->shift + c + 4 * i), none = vdupq_n_s32(0);
        int32x4_t v = edge_rescale4(
            acc[i], vld1q_s32(p->mult + c + 4 * i), vmaxq_s32(shift, none), vminq_s32(shift, none), c < p->up);
        half[i] = vqmovn_s32(vaddq_s32(v, vdupq_n_s32(p->zero)));
    }
    int8x8_t v = vqmovn_s16(vcombine_s16(half[0], half[1]));
    vst1_s8(out, vmin_s8(vmax_s8(v, vdup_n_s8((int8_t)p->low)), vdup_n_s8((int8_t)p->high)));
#elif EDGE_DSP
    for (int32_t i = 0; i < 8 && c + i < p->n; i += 4) { /* four channels: halves of widened words, each its own */
        const int8_t *at = x + i, *of = w + i;
        const int32_t *to = offset, *end = offset + p->taps;
        int32_t acc[4] = {p->bias[c + i], p->bias[c + i + 1], p->bias[c + i + 2], p->bias[c + i + 3]};
        _Pragma("GCC unroll 1") for (; to < end; to += 2, of += 16) {
            __asm__("" : "+r"(to), "+r"(of));
            EDGE_UNROLL for (int32_t t = 0; t < 2; t++) {
                int32_t v = edge_word(at + to[t]), u = edge_word(of + 8 * t);
                int32_t v0 = __builtin_arm_sxtb16(v), v1 = __builtin_arm_sxtb16(edge_odd(v));
                int32_t u0 = __builtin_arm_sxtb16(u), u1 = __builtin_arm_sxtb16(edge_odd(u));
                acc[0] += (int16_t)u0 * (int16_t)v0, acc[1] += (int16_t)u1 * (int16_t)v1;
                acc[2] += (u0 >> 16) * (v0 >> 16), acc[3] += (u1 >> 16) * (v1 >> 16);
            }
        }
        EDGE_UNROLL for (int32_t j = 0; j < 4; j++) edge_finish(p, acc + j, c + i + j, out + i + j, 0, 1);
    }
#else
    int32_t acc[8];
    for (int32_t i = 0; i < 8; i++) acc[i] = p->bias[c + i];
    for (int32_t t = 0; t < p->taps; t++, w += 8)
        for (int32_t i = 0; i < 8; i++) acc[i] += w[i] * x[offset[t] + i];
    for (int32_t i = 0; i < 8; i++)
        out[i] = (int8_t)edge_clamp(
            edge_rescale(acc[i], p->mult[c + i], p->shift[c + i], c < p->up) + p->zero, p->low, p->high);
#endif
    if (p->n - c >= 8) __builtin_memcpy(y + c, out, 8);
    else for (int32_t i = 0; i < p->n - c; i++) y[c + i] = out[i];
}
static __attribute__((noinline)) void edge_depthwise(
    const struct edge_window *g, const struct edge_product *given, int32_t zero_in,
    const int8_t *x, int8_t *padded, int32_t *offset, int8_t *y) {
    const struct edge_product of = *given, *p = &of; /* a copy that no store can change */
    int32_t row = edge_margins(g, x, padded, (int8_t)zero_in), taps = g->filter_h * g->filter_w;
    for (int32_t t = 0; t < taps; t++)
        offset[t] = (t / g->filter_w) * g->dilation_h * row + (t % g->filter_w) * g->dilation_w * g->channels;
    offset[taps] = 0; /* met only where the number of taps is odd, and then its weights are zero */
    for (int32_t r = 0; r < g->out_height; r++)
        for (int32_t q = 0; q < g->out_width; q++, y += p->n) {
            const int8_t *at = padded + r * g->stride_h * row + q * g->stride_w * g->channels;
            for (int32_t c = 0; c < p->n; c += 8) edge_block(p, at + c, offset, c, y);
        }
}
