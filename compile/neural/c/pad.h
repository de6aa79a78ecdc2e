/* PAD of height, width and channels. */
static void edge_pad(
    int32_t h, int32_t w, int32_t n, int32_t before_h, int32_t before_w, int32_t before_n,
    int32_t out_h, int32_t out_w, int32_t out_n, int32_t zero, const int8_t *x, int8_t *y) {
    edge_fill(y, (int8_t)zero, out_h * out_w * out_n);
    for (int32_t r = 0; r < h; r++)
        for (int32_t q = 0; q < w; q++)
            edge_copy(y + ((before_h + r) * out_w + before_w + q) * out_n + before_n, x + (r * w + q) * n, n);
}
