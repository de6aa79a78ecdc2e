/* QUANTIZE of float32: x / scale to the nearest, halves away from zero. Not a number counts as zero. */
static void edge_quantise(int32_t count, float scale, int32_t zero, const float *x, int8_t *y) {
    for (int32_t i = 0; i < count; i++) {
        float v = x[i] / scale;
        v = v > 512.0f ? 512.0f : v < -512.0f ? -512.0f : v == v ? v : 0.0f;
        int32_t whole = (int32_t)v;
        float rest = v - (float)whole;
        y[i] = (int8_t)edge_clamp(whole + (rest >= 0.5f) - (rest <= -0.5f) + zero, -128, 127);
    }
}
