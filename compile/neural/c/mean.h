/* MEAN over all positions of a channel. Eight channels at a time; reads up to seven too many. */
static __attribute__((noinline)) void edge_mean(
    int32_t count, int32_t n, int32_t offset, int32_t mult, int32_t shift, int32_t zero, const int8_t *x, int8_t *y) {
    for (int32_t c = 0; c < n; c += 8) {
        int32_t sum[8] = {0};
        for (int32_t k = 0; k < count; k++) {
            int8_t v[8];
            __builtin_memcpy(v, x + k * n + c, 8);
            for (int i = 0; i < 8; i++) sum[i] += v[i];
        }
        for (int32_t i = 0; i < 8 && c + i < n; i++)
            y[c + i] = (int8_t)edge_clamp(edge_rescale(sum[i] - offset, mult, shift, 0) + zero, -128, 127);
    }
}
