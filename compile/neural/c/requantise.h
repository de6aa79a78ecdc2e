/* QUANTIZE of integers to int8. */
#define EDGE_REQUANTISE(NAME, TYPE) \
    static void NAME(int32_t count, int32_t zero_in, int32_t mult, int32_t shift, int32_t zero, int32_t up, \
                     const TYPE *x, int8_t *y) { \
        for (int32_t i = 0; i < count; i++) \
            y[i] = (int8_t)edge_clamp(edge_rescale(x[i] - zero_in, mult, shift, i < up) + zero, -128, 127); \
    }
