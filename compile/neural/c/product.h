/* Sums of products: `n` outputs at each of some positions, K taps each, K padded with zero weights to a multiple of 8.
   Weights lie in groups of four outputs: for each 16 taps four rows of 16, then for a last 8 taps four rows of 8.
   No weight is -128 (the emitter sees to it), so two products fit a 16-bit lane. */
struct edge_product {
    const int8_t *weights;
    const int32_t *bias, *mult, *shift; /* padded to a multiple of four */
    int32_t n, taps, up;                /* `up`: so many leading outputs round a tie upwards */
    int32_t zero, low, high;
};

#if !defined(__ARM_NEON) && defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_SIMD32)
#define EDGE_DSP 1
#endif
#define EDGE_UNROLL _Pragma("GCC unroll 4")
static inline struct edge_product edge_product_of(
    const int8_t *weights, const int32_t *bias, const int32_t *mult, const int32_t *shift, int32_t n, int32_t taps,
    int32_t up, int32_t zero, int32_t low, int32_t high) {
    struct edge_product p = {weights, bias, mult, shift, n, taps, up, zero, low, high};
    return p;
}

/* One of the files product_*.h has edge_row for the target: `count` positions, `stride` bytes of input apart, their
   outputs one after the other. `wide`: room for 4 x taps bytes, which only some use; null for a single position. */
