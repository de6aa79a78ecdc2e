/* CONV_2D and FULLY_CONNECTED with a weight of -128, which the packed kernels cannot take. Weights: outputs x taps. */
static __attribute__((noinline)) void edge_products_any(
    const struct edge_window *g, const struct edge_product *p, int32_t zero_in, const int8_t *x, int8_t *y) {
    for (int32_t r = 0; r < g->out_height; r++)
        for (int32_t q = 0; q < g->out_width; q++, y += p->n)
            for (int32_t o = 0; o < p->n; o++) {
                int32_t acc = p->bias[o];
                const int8_t *w = p->weights + o * p->taps;
                for (int32_t i = 0; i < g->filter_h; i++)
                    for (int32_t j = 0; j < g->filter_w; j++) {
                        int32_t h = r * g->stride_h - g->top + i * g->dilation_h;
                        int32_t v = q * g->stride_w - g->left + j * g->dilation_w;
                        int32_t in = h >= 0 && h < g->height && v >= 0 && v < g->width;
                        for (int32_t c = 0; c < g->channels; c++, w++)
                            acc += *w * (in ? x[(h * g->width + v) * g->channels + c] : zero_in);
                    }
                y[o] = (int8_t)edge_clamp(
                    edge_rescale(acc, p->mult[o], p->shift[o], o < p->up) + p->zero, p->low, p->high);
            }
}
