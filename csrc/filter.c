/* filter.c: the matched filter: signal to noise of a point source at every pixel, in one sweep.
 *
 * A PSF that is a short sum of separable terms, P = sum_t c_t(y) r_t(x), costs 2 (2 h + 1) multiply-adds per term and
 * pixel. The noise of the filtered image is the variance plane filtered with P^2, which is separable too. Tiles of
 * columns keep the rows under the kernel in L2; bound by arithmetic. */
#include "internal.h"

enum { TILE = 1024, GROUP = 8, MAX_HALF = 128, MAX_TAPS = 2 * MAX_HALF + 1 };

typedef struct {
    int64_t half, n_terms;
    const float *rows, *columns; /* [n_terms][2 half + 1] */
} separable;

/* Values and variances of one row of a tile with a border of half pixels; unusable pixels weigh nothing. */
static inline __attribute__((always_inline)) void prepare_row(const float *restrict image, const uint32_t *restrict mask,
                                                              const float *restrict variance, int64_t n, uint32_t reject,
                                                              uint32_t rescue, uint32_t never, float *restrict value,
                                                              float *restrict noise) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        const uint32_t m = mask[i];
        const float v = image[i], u = variance[i];
        const int32_t usable = -(((m & never) == 0) & (((m & reject) == 0) | ((m & rescue) != 0)) & (u > 0.0f) &
                                 (u < 3.0e38f) & (fabsf(v) < 3.0e38f));
        value[i] = rsp_only(v, usable);
        noise[i] = rsp_only(u, usable);
    }
}

/* out[x] = (start ? 0 : out[x]) + sum over GROUP sources of c[k] * source[k][x]: one load and store per GROUP taps. */
static inline __attribute__((always_inline)) void add_group(const float *const *source, const float *c, int start,
                                                            int64_t n, float *restrict out) {
    const float *a = source[0], *b = source[1], *d = source[2], *e = source[3];
    const float *f = source[4], *g = source[5], *h = source[6], *k = source[7];
    const float c0 = c[0], c1 = c[1], c2 = c[2], c3 = c[3], c4 = c[4], c5 = c[5], c6 = c[6], c7 = c[7];
    if (start) {
#pragma omp simd
        for (int64_t x = 0; x < n; x++)
            out[x] = ((c0 * a[x] + c1 * b[x]) + (c2 * d[x] + c3 * e[x])) + ((c4 * f[x] + c5 * g[x]) + (c6 * h[x] + c7 * k[x]));
    } else {
#pragma omp simd
        for (int64_t x = 0; x < n; x++)
            out[x] += ((c0 * a[x] + c1 * b[x]) + (c2 * d[x] + c3 * e[x])) + ((c4 * f[x] + c5 * g[x]) + (c6 * h[x] + c7 * k[x]));
    }
}

/* Sum of all taps; sources[j] for tap j, taps is rounded up to whole groups with zero weights. */
static inline __attribute__((always_inline)) void add_taps(const float *const *sources, const float *weights, int64_t taps,
                                                           int start, int64_t n, float *restrict out) {
    for (int64_t j = 0; j < taps; j += GROUP) {
        const float *group[GROUP];
        float c[GROUP];
        for (int64_t k = 0; k < GROUP; k++) {
            group[k] = sources[j + k < taps ? j + k : 0];
            c[k] = j + k < taps ? weights[j + k] : 0.0f;
        }
        add_group(group, c, start && j == 0, n, out);
    }
}

/* One row of the filtered plane, n pixels; ring holds the rows under the kernel, `first` the topmost one. */
static inline __attribute__((always_inline)) void filter_row(const float *ring, int64_t first, int64_t pitch, int64_t n,
                                                             separable kernel, float *restrict work,
                                                             float *restrict out) {
    const int64_t taps = 2 * kernel.half + 1;
    const float *sources[MAX_TAPS];
    for (int64_t t = 0; t < kernel.n_terms; t++) {
        for (int64_t j = 0; j < taps; j++) sources[j] = ring + ((first + j) % taps) * pitch;
        add_taps(sources, kernel.columns + t * taps, taps, 1, n + 2 * kernel.half, work);
        for (int64_t j = 0; j < taps; j++) sources[j] = work + j;
        add_taps(sources, kernel.rows + t * taps, taps, t == 0, n, out);
    }
}

/* Columns x0 to x1 of the whole image. */
RSP_SIMD static void filter_tile(int64_t ny, int64_t nx, int64_t x0, int64_t x1, const float *image,
                                 const uint32_t *mask, const float *variance, uint32_t reject, uint32_t rescue,
                                 uint32_t never, separable signal, separable noise, int64_t gy, int64_t gx,
                                 const float *correlation, float *memory, float *restrict out_level,
                                 float *restrict out) {
    const int64_t half = signal.half, taps = 2 * half + 1, n = x1 - x0, pitch = TILE + 2 * half;
    float *values = memory, *noises = values + taps * pitch, *work = noises + taps * pitch;
    float *sum = work + pitch, *power = sum + pitch;
    const int64_t from = rsp_max(0, x0 - half), to = rsp_min(nx, x1 + half);
    memset(memory, 0, (size_t)(2 * taps * pitch) * sizeof *memory);
    for (int64_t y = -half; y < ny; y++) {
        const int64_t below = y + half, slot = (below + taps) % taps;
        if (below < ny)
            prepare_row(image + below * nx + from, mask + below * nx + from, variance + below * nx + from, to - from,
                        reject, rescue, never, values + slot * pitch + (from - x0 + half),
                        noises + slot * pitch + (from - x0 + half));
        else {
            memset(values + slot * pitch, 0, (size_t)pitch * sizeof *values);
            memset(noises + slot * pitch, 0, (size_t)pitch * sizeof *noises);
        }
        if (y < 0) continue;
        const int64_t first = (y - half + taps) % taps;
        filter_row(values, first, pitch, n, signal, work, sum);
        memcpy(out_level + y * nx + x0, sum, (size_t)n * sizeof *sum);
        filter_row(noises, first, pitch, n, noise, work, power);
        float *restrict snr = out + y * nx + x0;
#pragma omp simd
        for (int64_t x = 0; x < n; x++) snr[x] = power[x] > 0.0f ? sum[x] / sqrtf(power[x]) : 0.0f;
        if (gy * gx == 1 && correlation[0] == 1.0f) continue;
        const float *cells = correlation + (y * gy / ny) * gx;
        for (int64_t x = 0; x < n; x++) snr[x] /= sqrtf(cells[(x0 + x) * gx / nx]);
    }
}

RSP_API rsp_status rsp_detect_filter(int64_t ny, int64_t nx, const float *restrict image, const uint32_t *restrict mask,
                                     const float *restrict variance, uint32_t reject, uint32_t rescue, uint32_t never,
                                     int64_t half, int64_t n_signal, const float *restrict signal_rows,
                                     const float *restrict signal_columns, int64_t n_noise,
                                     const float *restrict noise_rows, const float *restrict noise_columns, int64_t gy,
                                     int64_t gx, const float *restrict correlation, float *restrict out_level,
                                     float *restrict out_snr) {
    RSP_CHECK(ny > 0 && nx > 0, RSP_BAD_SHAPE);
    RSP_CHECK(half >= 0 && half <= MAX_HALF && n_signal > 0 && n_noise > 0, RSP_BAD_ARGUMENT);
    RSP_CHECK(gy > 0 && gx > 0 && gy <= ny && gx <= nx, RSP_BAD_SHAPE);
    for (int64_t i = 0; i < gy * gx; i++) RSP_CHECK(correlation[i] > 0.0f || isnan(correlation[i]), RSP_BAD_ARGUMENT);
    const separable signal = {half, n_signal, signal_rows, signal_columns};
    const separable noise = {half, n_noise, noise_rows, noise_columns};
    const int64_t pitch = TILE + 2 * half;
    float *memory = malloc((size_t)((2 * (2 * half + 1) + 3) * pitch) * sizeof *memory);
    if (!memory) return rsp_fail(RSP_NO_MEMORY, "%s: kernel of half size %lld", __func__, (long long)half);
    for (int64_t x = 0; x < nx; x += TILE)
        filter_tile(ny, nx, x, rsp_min(nx, x + TILE), image, mask, variance, reject, rescue, never, signal, noise, gy, gx,
                    correlation, memory, out_level, out_snr);
    free(memory);
    return RSP_OK;
}
