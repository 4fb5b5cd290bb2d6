/* fringe.c: how strong a fringe pattern is in an image, cell by cell, and its subtraction. One sweep each, bound by memory: 12 bytes
 * per pixel are read. */
#include "internal.h"
#include "lanes.h"

enum { SUMS = 6, AT_ONCE = 512 /* vectors summed in float */ };

/* Sums of eight columns; float is enough for a few hundred rows of them. */
INLINE void add_pixels(floats image, floats pattern, ints good, float level, float amplitude, float limit, floats *sum) {
    const floats value = image - level, away = value - amplitude * pattern;
    good &= (ABSOLUTE(away) < limit); /* not a number compares false */
    const floats i = MASKED(good, value), p = MASKED(good, pattern);
    sum[0] += MASKED(good, (floats){0} + 1.0f);
    sum[1] += i;
    sum[2] += p;
    sum[3] += p * p;
    sum[4] += i * p;
    sum[5] += i * i;
}

typedef struct {
    const float *image, *pattern;   /* of the cell's first pixel; pattern NULL: zero */
    const uint32_t *mask;
    const uint8_t *exclude;
    float level, amplitude, limit;
    uint32_t bad;
} cell;

/* The rest of a row, fewer than eight pixels from `at` on. */
INLINE void add_rest(const cell *c, int64_t at, int64_t count, floats *sum) {
    floats i = (floats){0} + NAN, p = {0};
    ints m = {0}, e = {0};
    for (int k = 0; k < count; k++) {
        i[k] = c->image[at + k];
        p[k] = c->pattern ? c->pattern[at + k] : 0.0f;
        m[k] = (int32_t)c->mask[at + k];
        e[k] = c->exclude ? c->exclude[at + k] : 0;
    }
    add_pixels(i, p, ((m & (int32_t)c->bad) == 0) & (e == 0), c->level, c->amplitude, c->limit, sum);
}

RSP_SIMD static void add_cell(const cell *c, int64_t ny, int64_t n, int64_t nx, double *out) {
    typedef uint8_t bytes __attribute__((vector_size(8), aligned(1), may_alias));
    const int64_t rows = rsp_max(1, AT_ONCE / (n / VECTOR + 1));
    for (int64_t first = 0; first < ny; first += rows) {
        floats sum[SUMS] = {{0}};
        for (int64_t y = first; y < rsp_min(ny, first + rows); y++) {
            int64_t x = 0, row = y * nx;
            for (; x + VECTOR <= n; x += VECTOR) {
                const int64_t at = row + x;
                ints good = (*(const ints *)(c->mask + at) & (int32_t)c->bad) == 0;
                if (c->exclude) good &= __builtin_convertvector(*(const bytes *)(c->exclude + at), ints) == 0;
                add_pixels(LOAD(c->image + at), c->pattern ? LOAD(c->pattern + at) : (floats){0}, good, c->level, c->amplitude,
                           c->limit, sum);
            }
            if (x < n) add_rest(c, row + x, n - x, sum);
        }
        for (int s = 0; s < SUMS; s++)
            for (int k = 0; k < VECTOR; k++) out[s] += sum[s][k];
    }
}

RSP_API rsp_status rsp_fringe_cells(int64_t ny, int64_t nx, const float *restrict image, const uint32_t *restrict mask,
        const uint8_t *restrict exclude, uint32_t bad, const float *restrict pattern, int64_t my, int64_t mx,
        const float *restrict level, const float *restrict limit, double amplitude, double *restrict out_sums) {
    RSP_CHECK(ny > 0 && nx > 0 && my > 0 && mx > 0 && my <= ny && mx <= nx, RSP_BAD_SHAPE);
    RSP_CHECK(isfinite(amplitude), RSP_BAD_ARGUMENT);
    memset(out_sums, 0, (size_t)(my * mx * SUMS) * sizeof *out_sums);
    for (int64_t j = 0; j < my; j++)
        for (int64_t i = 0; i < mx; i++) {
            const int64_t k = j * mx + i, x = i * nx / mx, y = j * ny / my, at = y * nx + x;
            const cell c = {image + at, pattern ? pattern + at : NULL, mask + at, exclude ? exclude + at : NULL, level[k], (float)amplitude,
                            limit[k], bad};
            if (!isfinite(level[k]) || !(limit[k] > 0.0f)) continue;
            add_cell(&c, (j + 1) * ny / my - y, (i + 1) * nx / mx - x, nx, out_sums + k * SUMS);
        }
    return RSP_OK;
}

RSP_SIMD static void subtract(int64_t n, float amplitude, const float *restrict pattern, float *restrict image) {
    for (int64_t i = 0; i < n; i++) {
        const float p = amplitude * pattern[i];
        image[i] -= fabsf(p) < INFINITY ? p : 0.0f;
    }
}

RSP_API rsp_status rsp_fringe_subtract(int64_t n_pixels, double amplitude, const float *restrict pattern, float *restrict image) {
    RSP_CHECK(n_pixels > 0, RSP_BAD_SHAPE);
    RSP_CHECK(isfinite(amplitude), RSP_BAD_ARGUMENT);
    subtract(n_pixels, (float)amplitude, pattern, image);
    return RSP_OK;
}
