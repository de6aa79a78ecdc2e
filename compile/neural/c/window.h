/* Geometry of a sliding window; sizes in bytes where named so. */
struct edge_window {
    int32_t height, width, channels, out_height, out_width;
    int32_t filter_h, filter_w, stride_h, stride_w, dilation_h, dilation_w;
    int32_t top, bottom, left, right;
};
static void edge_copy(int8_t *restrict to, const int8_t *restrict from, int32_t count) {
    int32_t i = 0;
    for (; i + 8 <= count; i += 8) __builtin_memcpy(to + i, from + i, 8);
    for (; i < count; i++) to[i] = from[i];
}
static void edge_fill(int8_t *to, int8_t value, int32_t count) {
    int8_t v[8] = {value, value, value, value, value, value, value, value};
    int32_t i = 0;
    for (; i + 8 <= count; i += 8) __builtin_memcpy(to + i, v, 8);
    for (; i < count; i++) to[i] = value;
}
/* The input with its margins, filled with `value`; gives the bytes of a padded row. */
static int32_t edge_margins(const struct edge_window *g, const int8_t *x, int8_t *to, int8_t value) {
    int32_t c = g->channels, inner = g->width * c, row = inner + (g->left + g->right) * c;
    edge_fill(to, value, g->top * row);
    to += g->top * row;
    for (int32_t r = 0; r < g->height; r++, to += row) {
        edge_fill(to, value, g->left * c);
        edge_copy(to + g->left * c, x + r * inner, inner);
        edge_fill(to + g->left * c + inner, value, g->right * c);
    }
    edge_fill(to, value, g->bottom * row);
    return row;
}
