/* DEQUANTIZE to float32. */
static void edge_dequantise(int32_t count, float scale, int32_t zero, const int8_t *x, float *y) {
    for (int32_t i = 0; i < count; i++) y[i] = scale * (float)(x[i] - zero);
}
