/* fringe.c: how strong a fringe pattern is in an image, cell by cell, and its subtraction. One sweep each, bound by memory: 12 bytes
 * per pixel are read. */
#include "internal.h"
#include "lanes.h"

enum { SUMS = 6 };

/* Sums of eight columns of one row of a cell; float is enough for the pixels of one row. */
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

RSP_SIMD static void cell_row(int64_t n, const float *image, const uint32_t *mask, const uint8_t *exclude, uint32_t bad,
                              const float *pattern, float level, float amplitude, float limit, double *out) {
    floats sum[SUMS] = {{0}};
    for (int64_t x = 0; x < n; x += VECTOR) {
        floats i = {0}, p = {0};
        ints m = {0}, e = {0};
        const int64_t count = rsp_min(VECTOR, n - x);
        if (count == VECTOR) {
            i = LOAD(image + x);
            p = LOAD(pattern + x);
            m = *(const ints *)(mask + x);
        } else
            for (int k = 0; k < VECTOR; k++) {
                i[k] = k < count ? image[x + k] : NAN;
                p[k] = k < count ? pattern[x + k] : 0.0f;
                m[k] = k < count ? (int32_t)mask[x + k] : 0;
            }
        if (exclude)
            for (int k = 0; k < count; k++) e[k] = exclude[x + k];
        add_pixels(i, p, ((m & (int32_t)bad) == 0) & (e == 0), level, amplitude, limit, sum);
    }
    for (int s = 0; s < SUMS; s++)
        for (int k = 0; k < VECTOR; k++) out[s] += sum[s][k];
}

RSP_API rsp_status rsp_fringe_cells(int64_t ny, int64_t nx, const float *restrict image, const uint32_t *restrict mask,
        const uint8_t *restrict exclude, uint32_t bad, const float *restrict pattern, int64_t my, int64_t mx,
        const float *restrict level, const float *restrict limit, double amplitude, double *restrict out_sums) {
    RSP_CHECK(ny > 0 && nx > 0 && my > 0 && mx > 0 && my <= ny && mx <= nx, RSP_BAD_SHAPE);
    RSP_CHECK(isfinite(amplitude), RSP_BAD_ARGUMENT);
    memset(out_sums, 0, (size_t)(my * mx * SUMS) * sizeof *out_sums);
    for (int64_t j = 0; j < my; j++)
        for (int64_t y = j * ny / my; y < (j + 1) * ny / my; y++)
            for (int64_t i = 0; i < mx; i++) {
                const int64_t cell = j * mx + i, x = i * nx / mx, at = y * nx + x;
                if (!isfinite(level[cell]) || !(limit[cell] > 0.0f)) continue;
                cell_row((i + 1) * nx / mx - x, image + at, mask + at, exclude ? exclude + at : NULL, bad, pattern + at, level[cell],
                         (float)amplitude, limit[cell], out_sums + cell * SUMS);
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
