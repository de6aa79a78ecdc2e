/* Sums of products with the DSP instructions of a Cortex-M4: SMLAD takes two products at a time. */
#if EDGE_DSP
#define EDGE_POSITIONS 2
static inline int32_t edge_word(const int8_t *at) {
    int32_t v;
    __builtin_memcpy(&v, at, 4);
    return v;
}
static inline int32_t edge_odd(int32_t v) { return (int32_t)(((uint32_t)v >> 8) | ((uint32_t)v << 24)); }
/* Two positions side by side: of each four taps {0, 2} and {1, 3} as 16-bit numbers, of the one, then of the other. */
static void edge_widen(const int8_t *x, int32_t stride, int32_t taps, int8_t *wide) {
    int32_t *to = (int32_t *)(void *)wide;
    for (int32_t k = 0; k < taps; k += 4, to += 4) {
        int32_t a = edge_word(x + k), b = edge_word(x + stride + k);
        to[0] = __builtin_arm_sxtb16(a), to[1] = __builtin_arm_sxtb16(edge_odd(a));
        to[2] = __builtin_arm_sxtb16(b), to[3] = __builtin_arm_sxtb16(edge_odd(b));
    }
}
static inline int32_t edge_fit(const struct edge_product *p, int32_t v) {
#if EDGE_SATURATES
    (void)p;
    return __builtin_arm_ssat(v, 8);
#else
    return edge_clamp(v, p->low, p->high);
#endif
}
/* edge_rescale of one output's sums at `count` positions, `apart` bytes of output apart, in fewer instructions: twice
   a sum fits 32 bits unless EDGE_WIDE_SUMS, and SMMULR rounds half up. */
static inline __attribute__((always_inline)) void edge_finish(
    const struct edge_product *p, const int32_t *acc, int32_t o, int8_t *y, int32_t apart, const int32_t count) {
    const int32_t mult = p->mult[o], up = o < p->up;
    int32_t shift = p->shift[o];
#if EDGE_WIDE_SUMS
    for (int32_t i = 0; i < count; i++, y += apart)
        *y = (int8_t)edge_fit(p, edge_rescale(acc[i], mult, shift, up) + p->zero);
#else
    int32_t left = 1;
#if EDGE_LEFT_SHIFTS
    left = shift > 0 ? shift + 1 : 1, shift = shift > 0 ? 0 : shift;
#endif
    const int32_t right = -shift, half = (int32_t)((1u << right) >> 1);
    EDGE_UNROLL for (int32_t i = 0; i < count; i++, y += apart) {
        int32_t v, sum = (int32_t)((uint32_t)acc[i] << left);
        __asm__("smmulr %0, %1, %2" : "=r"(v) : "r"(sum), "r"(mult));
        if (!up) v += (v & shift) >> 31; /* below zero, a half goes down */
        *y = (int8_t)edge_fit(p, ((v + half) >> right) + p->zero);
    }
#endif
}
/* Two outputs at two positions: as many sums as the registers hold beside what they are made of. */
static inline __attribute__((always_inline)) void edge_four(
    const int8_t *w, const int32_t *v, int32_t acc[4], const int32_t wide) {
    EDGE_UNROLL for (int32_t k = 0; k < wide; k += 4, v += 4) {
        int32_t word = edge_word(w + k);
        int32_t w0 = __builtin_arm_sxtb16(word), w1 = __builtin_arm_sxtb16(edge_odd(word));
        acc[0] = __builtin_arm_smlad(w1, v[1], __builtin_arm_smlad(w0, v[0], acc[0]));
        acc[1] = __builtin_arm_smlad(w1, v[3], __builtin_arm_smlad(w0, v[2], acc[1]));
        word = edge_word(w + wide + k);
        w0 = __builtin_arm_sxtb16(word), w1 = __builtin_arm_sxtb16(edge_odd(word));
        acc[2] = __builtin_arm_smlad(w1, v[1], __builtin_arm_smlad(w0, v[0], acc[2]));
        acc[3] = __builtin_arm_smlad(w1, v[3], __builtin_arm_smlad(w0, v[2], acc[3]));
    }
}
static void edge_pair(const struct edge_product *given, const int8_t *wide, int8_t *y) {
    const struct edge_product of = *given, *p = &of; /* a copy that no store can change */
    const int32_t whole = p->taps & ~15;
    for (int32_t c = 0; c < p->n; c += 2) {
        const int32_t *v = (const int32_t *)(const void *)wide, *end = v + whole;
        const int8_t *w = p->weights + (c & ~3) * p->taps + (c & 2) * 16;
        int32_t acc[4] = {p->bias[c], p->bias[c], p->bias[c + 1], p->bias[c + 1]};
        for (; v < end; v += 16, w += 64) {
            __asm__("" : "+r"(v), "+r"(w)); /* two registers that grow, not one index to add to both */
            edge_four(w, v, acc, 16);
        }
        if (whole < p->taps) edge_four(w - (c & 2) * 8, v, acc, 8);
        edge_finish(p, acc, c, y + c, p->n, 2);
        if (c + 1 < p->n) edge_finish(p, acc + 2, c + 1, y + c + 1, p->n, 2);
    }
}
/* One position: four outputs share each widened word of it. */
static inline __attribute__((always_inline)) void edge_four_outputs(
    const int8_t *w, const int8_t *x, int32_t acc[4], const int32_t wide) {
    EDGE_UNROLL for (int32_t k = 0; k < wide; k += 4) {
        int32_t word = edge_word(x + k);
        int32_t v0 = __builtin_arm_sxtb16(word), v1 = __builtin_arm_sxtb16(edge_odd(word));
        EDGE_UNROLL for (int32_t j = 0; j < 4; j++) {
            int32_t of = edge_word(w + j * wide + k);
            acc[j] = __builtin_arm_smlad(__builtin_arm_sxtb16(of), v0, acc[j]);
            acc[j] = __builtin_arm_smlad(__builtin_arm_sxtb16(edge_odd(of)), v1, acc[j]);
        }
    }
}
static void edge_one(const struct edge_product *p, const int8_t *x, int8_t *y) {
    const int8_t *w = p->weights;
    for (int32_t c = 0; c < p->n; c += 4) {
        int32_t acc[4], k = 0;
        for (int32_t j = 0; j < 4; j++) acc[j] = p->bias[c + j];
        for (; k + 16 <= p->taps; k += 16, w += 64) edge_four_outputs(w, x + k, acc, 16);
        if (k < p->taps) edge_four_outputs(w, x + k, acc, 8), w += 32;
        for (int32_t j = 0; j < 4 && c + j < p->n; j++) edge_finish(p, acc + j, c + j, y + c + j, 0, 1);
    }
}
static __attribute__((noinline)) void edge_row(
    const struct edge_product *p, const int8_t *x, int32_t stride, int32_t count, int8_t *wide, int8_t *y) {
    int32_t i = 0;
    for (; i + 2 <= count; i += 2) {
        edge_widen(x + i * stride, stride, p->taps, wide);
        edge_pair(p, wide, y + i * p->n);
    }
    if (i < count) edge_one(p, x + i * stride, y + i * p->n);
}
#endif
