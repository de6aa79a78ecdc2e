/* MAX_POOL_2D and AVERAGE_POOL_2D: margins do not take part. Eight channels at a time; reads up to seven too many. */
static __attribute__((noinline)) void edge_pool(
    const struct edge_window *g, int32_t average, int32_t low, int32_t high, const int8_t *x, int8_t *y) {
    int32_t n = g->channels, row = g->width * n;
    for (int32_t r = 0; r < g->out_height; r++)
        for (int32_t q = 0; q < g->out_width; q++, y += n) {
            int32_t h0 = r * g->stride_h - g->top, w0 = q * g->stride_w - g->left;
            int32_t h1 = h0 + g->filter_h, w1 = w0 + g->filter_w;
            h0 = h0 < 0 ? 0 : h0, w0 = w0 < 0 ? 0 : w0;
            h1 = h1 > g->height ? g->height : h1, w1 = w1 > g->width ? g->width : w1;
            int32_t count = (h1 - h0) * (w1 - w0);
            for (int32_t c = 0; c < n; c += 8) {
                int32_t sum[8] = {0};
                int8_t most[8] = {-128, -128, -128, -128, -128, -128, -128, -128};
                for (int32_t h = h0; h < h1; h++)
                    for (int32_t w = w0; w < w1; w++) {
                        int8_t v[8];
                        __builtin_memcpy(v, x + h * row + w * n + c, 8);
                        if (average) for (int i = 0; i < 8; i++) sum[i] += v[i];
                        else for (int i = 0; i < 8; i++) most[i] = v[i] > most[i] ? v[i] : most[i];
                    }
                for (int32_t i = 0; i < 8 && c + i < n; i++) {
                    int32_t v = most[i];
                    if (average) v = (sum[i] + (sum[i] > 0 ? count / 2 : -(count / 2))) / count;
                    y[c + i] = (int8_t)edge_clamp(v, low, high);
                }
            }
        }
}
