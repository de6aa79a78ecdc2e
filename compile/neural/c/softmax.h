/* SOFTMAX by a table of exponentials in float32, summed in order: the order is part of the result. */
static void edge_softmax(const float *table, int32_t rows, int32_t n, const int8_t *x, int8_t *y) {
    for (; rows > 0; rows--, x += n, y += n) {
        int32_t most = -128;
        for (int32_t i = 0; i < n; i++) most = x[i] > most ? x[i] : most;
        float sum = 0.0f;
        for (int32_t i = 0; i < n; i++) sum += table[x[i] - most + 255];
        float inverse = 1.0f / (sum * 0.00390625f);
        for (int32_t i = 0; i < n; i++) {
            float v = table[x[i] - most + 255] * inverse;
            int32_t whole = (int32_t)v;
            y[i] = (int8_t)edge_clamp(whole + (v - (float)whole >= 0.5f) - 128, -128, 127);
        }
    }
}
