/* CONV_2D. `padded` holds the input with its margins (null: there are none); `columns` the windows of some positions
   (null: a window is one stretch of a row, and is read where it lies); `wide` is edge_row's. */
static __attribute__((noinline)) void edge_convolution(
    const struct edge_window *g, const struct edge_product *p, int32_t zero_in,
    const int8_t *x, int8_t *padded, int8_t *columns, int8_t *wide, int8_t *y) {
    int32_t c = g->channels, row = g->width * c;
    if (padded) {
        row = edge_margins(g, x, padded, (int8_t)zero_in);
        x = padded;
    }
    int32_t step = g->stride_w * c;
    for (int32_t r = 0; r < g->out_height; r++, x += g->stride_h * row) {
        if (!columns) {
            edge_row(p, x, step, g->out_width, wide, y);
            y += g->out_width * p->n;
            continue;
        }
        for (int32_t at = 0; at < g->out_width; at += EDGE_POSITIONS) {
            int32_t count = g->out_width - at < EDGE_POSITIONS ? g->out_width - at : EDGE_POSITIONS;
            for (int32_t i = 0; i < count; i++) {
                int8_t *to = columns + i * p->taps;
                const int8_t *from = x + (at + i) * step;
                for (int32_t h = 0; h < g->filter_h; h++, from += g->dilation_h * row) {
                    if (g->dilation_w == 1) {
                        edge_copy(to, from, g->filter_w * c);
                        to += g->filter_w * c;
                        continue;
                    }
                    for (int32_t w = 0; w < g->filter_w; w++, to += c) edge_copy(to, from + w * g->dilation_w * c, c);
                }
            }
            edge_row(p, columns, p->taps, count, wide, y);
            y += count * p->n;
        }
    }
}
