/* DEPTHWISE_CONV_2D with several outputs a channel, or with a weight of -128. Weights: taps x outputs. */
static __attribute__((noinline)) void edge_depthwise_any(
    const struct edge_window *g, const struct edge_product *p, int32_t zero_in, int32_t times,
    const int8_t *x, int8_t *y) {
    for (int32_t r = 0; r < g->out_height; r++)
        for (int32_t q = 0; q < g->out_width; q++, y += p->n)
            for (int32_t o = 0; o < p->n; o++) {
                int32_t acc = p->bias[o];
                const int8_t *w = p->weights + o;
                for (int32_t i = 0; i < g->filter_h; i++)
                    for (int32_t j = 0; j < g->filter_w; j++, w += p->n) {
                        int32_t h = r * g->stride_h - g->top + i * g->dilation_h;
                        int32_t v = q * g->stride_w - g->left + j * g->dilation_w;
                        int32_t in = h >= 0 && h < g->height && v >= 0 && v < g->width;
                        acc += *w * (in ? x[(h * g->width + v) * g->channels + o / times] : zero_in);
                    }
                y[o] = (int8_t)edge_clamp(
                    edge_rescale(acc, p->mult[o], p->shift[o], o < p->up) + p->zero, p->low, p->high);
            }
}
