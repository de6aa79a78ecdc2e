/* Sums of products in plain C, for a CPU without vectors. */
#if !defined(__ARM_NEON) && !defined(__SSE2__) && !EDGE_DSP
#define EDGE_POSITIONS 1
static inline int32_t edge_dot(const int8_t *w, const int8_t *x, const int32_t count) {
    int32_t sum = 0;
    for (int32_t i = 0; i < count; i++) sum += (int16_t)w[i] * (int16_t)x[i];
    return sum;
}
static inline void edge_products(const struct edge_product *p, const int8_t *x, int8_t *y) {
    const int8_t *w = p->weights;
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
static __attribute__((noinline)) void edge_row(
    const struct edge_product *p, const int8_t *x, int32_t stride, int32_t count, int8_t *wide, int8_t *y) {
    (void)wide;
    for (int32_t i = 0; i < count; i++) edge_products(p, x + i * stride, y + i * p->n);
}
#endif
