"""C around the peers: entry points like ours, a timer, and headers where a target has no C library."""

from __future__ import annotations

TL2CGEN = """\
#include "header.h"
__attribute__((visibility("default"))) int edge_model_scores(const float *x, double *raw)
{
    union Entry e[24];
    for (int i = 0; i < 24; i++) {
        if (x[i] != x[i]) e[i].missing = -1; else e[i].fvalue = x[i];
    }
    RESULT result[8];
    predict(e, 1, result);
    for (int i = 0; i < OUTPUTS; i++) raw[i] = result[i];
    return 0;
}
"""

M2CGEN = """\
#include <math.h>
#include "main.h"
__attribute__((visibility("default"))) int edge_model_scores(const float *x, double *raw)
{
    double d[24];
    for (int i = 0; i < 24; i++) d[i] = x[i];
    score(d, raw);
    return 0;
}
"""

# The emulator has no C library. Volatile, or a compiler makes a call of memset of it.
EMLEARN = """\
#include "rf.h"
void *memset(void *to, int value, __SIZE_TYPE__ bytes)
{
    for (volatile char *at = to; bytes; bytes--)
        *at++ = (char)value;
    return to;
}
__attribute__((visibility("default"))) int edge_model_scores(const float *x, double *raw)
{
    float out[8];
    rf_predict_proba(x, 24, out, OUTPUTS);
    for (int i = 0; i < OUTPUTS; i++) raw[i] = out[i];
    return 0;
}
"""

LLEAVES = """\
void forest_root(double *data, double *out, int start, int end);
__attribute__((visibility("default"))) int edge_model_scores(const float *x, double *raw)
{
    double d[24];
    for (int i = 0; i < 24; i++) d[i] = x[i];
    forest_root(d, raw, 0, 1);
    return 0;
}
"""

TIMER = """\
#include <stdlib.h>
#include <time.h>
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1e9 + t.tv_nsec; }
static int order(const void *a, const void *b) { double d = *(double *)a - *(double *)b; return d < 0 ? -1 : d > 0; }
__attribute__((visibility("default"))) double measure(
    int (*scores)(const float *, double *), const float *x, long rows, long width, long times)
{
    static double taken[100000];
    double out[16];
    unsigned r = 1;
    for (long i = 0; i < times; i++) {
        r = r * 1664525u + 1013904223u;
        const float *row = x + (r >> 8) % rows * width;
        double t = now();
        scores(row, out);
        taken[i] = now() - t;
    }
    qsort(taken, times, sizeof *taken, order);
    return taken[times / 2];
}
"""

STUBS = {
    "stdio.h": "", "stdlib.h": "", "string.h": "#include <stddef.h>\nvoid *memcpy(void *, const void *, size_t);\n"
    "void *memset(void *, int, size_t);\n", "math.h": "#pragma once\n" + "".join(
        f"static inline {t} {n}{s}({t} x) {{ return x; }}\n"
        for n in ("exp", "exp2", "log1p", "fabs", "sqrt") for t, s in (("double", ""), ("float", "f"))
    ) + "static inline double copysign(double a, double b) { (void)b; return a; }\n",
}  # fmt: skip
