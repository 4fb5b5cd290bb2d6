/* crosstalk.c: what amplifiers left in each other, for pixels read at the same moment.
 *
 * Bound by arithmetic: 2 flops per source and pixel, 4 with a quadratic term; eight sums stay in registers. In a file of its own: here
 * products and sums are fused where the machine can, in electronics.c they never are. */
#include "crosstalk.h"
#include "internal.h"
#include "lanes.h"

enum { ROWS = VECTOR, WIDTH = 2 };

/* `height` targets from the first on, WIDTH columns. */
INLINE void block(const rsp_sweep *w, int64_t target, int64_t t, const int height, const int squared, const float *all, float *clean) {
    int64_t size = w->tile * ROWS, m = w->n_sources;
    const float *linear = w->linear + target * m, *quadratic = w->quadratic + target * m, *read = all + t * ROWS;
    floats sum[4][WIDTH];
    for (int i = 0; i < height; i++)
        for (int k = 0; k < WIDTH; k++) sum[i][k] = LOAD(read + (target + i) * size + k * ROWS);
    for (int64_t j = 0; j < m; j++) {
        floats source[WIDTH], square[WIDTH];
        for (int k = 0; k < WIDTH; k++) {
            source[k] = LOAD(read + j * size + k * ROWS);
            square[k] = source[k] * source[k];
        }
        for (int i = 0; i < height; i++)
            for (int k = 0; k < WIDTH; k++) {
                sum[i][k] += linear[i * m + j] * source[k];
                if (squared) sum[i][k] += quadratic[i * m + j] * square[k];
            }
    }
    for (int i = 0; i < height; i++)
        for (int k = 0; k < WIDTH; k++) STORE(clean + (target + i) * size + (t + k) * ROWS, sum[i][k]);
}

INLINE void blocks(const rsp_sweep *w, int64_t count, const int squared, const float *read, float *clean) {
    int64_t target = 0;
    for (; target + 4 <= w->n_targets; target += 4)
        for (int64_t t = 0; t < count; t += WIDTH) block(w, target, t, 4, squared, read, clean);
    for (; target < w->n_targets; target++)
        for (int64_t t = 0; t < count; t += WIDTH) block(w, target, t, 1, squared, read, clean);
}

RSP_SIMD static void mix(const rsp_sweep *w, int64_t count, int squared, const float *read, float *clean) {
    if (squared) blocks(w, count, 1, read, clean);
    else blocks(w, count, 0, read, clean);
}

void rsp_crosstalk_tile(const rsp_sweep *what, int64_t count, const float *restrict read, float *restrict clean) {
    int squared = 0;
    for (int64_t k = 0; k < what->n_targets * what->n_sources; k++) squared |= what->quadratic[k] != 0.0f;
    mix(what, count, squared, read, clean);
}
