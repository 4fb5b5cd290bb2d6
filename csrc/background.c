/* background.c: the sky on a mesh: robust statistics of each cell, and the bicubic spline through them.
 *
 * The statistic of a cell is the maximum-likelihood fit of a normal distribution cut at both ends (Cohen 1950) to the
 * histogram of its pixels. The upper cut is close to the mode: sources are positive, so that the lower side alone
 * tells where the sky is, also in a crowded field. One read of the pixels; bound by the scalar histogram (L1). */
#include "internal.h"

enum { BINS = 1024, LANES = 4, SAMPLE = 512, ITERATIONS = 80 };

typedef struct {
    int64_t y0, y1, x0, x1;
} cell_box;

/* The k-th smallest of n values; reorders them (Hoare's selection). */
static float select_kth(float *restrict v, int64_t n, int64_t k) {
    int64_t low = 0, high = n - 1;
    while (low < high) {
        const float pivot = v[(low + high) / 2];
        int64_t i = low, j = high;
        while (i <= j) {
            while (v[i] < pivot) i++;
            while (v[j] > pivot) j--;
            if (i <= j) {
                const float swap = v[i];
                v[i++] = v[j];
                v[j--] = swap;
            }
        }
        if (k <= j) high = j;
        else if (k >= i) low = i;
        else break;
    }
    return v[k];
}

static int is_good(float value, uint32_t mask, uint32_t bad) { return (mask & bad) == 0 && isfinite(value); }

/* Up to SAMPLE good pixels spread over the cell; a step that shares no factor with the width avoids columns. */
static int64_t take_sample(const float *image, const uint32_t *mask, const uint8_t *exclude, uint32_t bad, int64_t nx,
                           cell_box box, float *out) {
    const int64_t width = box.x1 - box.x0, area = width * (box.y1 - box.y0);
    const int64_t step = area <= SAMPLE ? 1 : area / SAMPLE | 1;
    int64_t n = 0;
    for (int64_t p = 0; p < area && n < SAMPLE; p += step) {
        const int64_t i = (box.y0 + p / width) * nx + box.x0 + p % width;
        if (is_good(image[i], mask[i], bad) && !(exclude && exclude[i])) out[n++] = image[i];
    }
    for (int64_t p = 0; p < area && n < 16; p++) { /* nearly everything is masked: look at all of it */
        const int64_t i = (box.y0 + p / width) * nx + box.x0 + p % width;
        if (is_good(image[i], mask[i], bad) && !(exclude && exclude[i])) out[n++] = image[i];
    }
    return n;
}

/* Counts of the good pixels in BINS bins from `low`; the first and last bin take what lies outside, bin BINS the bad. */
RSP_SIMD static void fill_histogram(const float *restrict image, const uint32_t *restrict mask,
                                    const uint8_t *restrict exclude, uint32_t bad, int64_t nx, cell_box box, float low,
                                    float per_unit, int32_t *restrict bins, uint32_t *restrict counts) {
    const int64_t width = box.x1 - box.x0;
    for (int64_t y = box.y0; y < box.y1; y++) {
        const float *restrict v = image + y * nx + box.x0;
        const uint32_t *restrict m = mask + y * nx + box.x0;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) {
            float t = (v[i] - low) * per_unit;
            t = t > 0.0f ? t : 0.0f; /* NaN becomes 0 here and is refused below */
            t = t < (float)(BINS - 1) ? t : (float)(BINS - 1);
            const int32_t good = -(((m[i] & bad) == 0) & (fabsf(v[i]) <= 3.0e38f));
            bins[i] = ((int32_t)t & good) | (BINS & ~good);
        }
        if (exclude)
            for (int64_t i = 0; i < width; i++)
                if (exclude[y * nx + box.x0 + i]) bins[i] = BINS;
        int64_t i = 0;
        for (; i + LANES <= width; i += LANES)
            for (int lane = 0; lane < LANES; lane++) counts[lane * (BINS + 8) + bins[i + lane]]++;
        for (; i < width; i++) counts[bins[i]]++;
    }
}

/* Digitised pixels fill the histogram like a comb, which a sharp cut does not survive: spread each count over the
 * step of the digits. Returns the step in bins, 0 where the pixels are not digitised. */
static double spread_digits(float *restrict sample, int64_t n, float per_unit, double *restrict hist) {
    for (int64_t i = 1; i < n; i++) { /* insertion sort of a nearly selected, short sample */
        const float value = sample[i];
        int64_t j = i;
        for (; j > 0 && sample[j - 1] > value; j--) sample[j] = sample[j - 1];
        sample[j] = value;
    }
    int64_t ties = 0;
    float step = INFINITY;
    for (int64_t i = 1; i < n; i++) {
        const float gap = (sample[i] - sample[i - 1]) * per_unit;
        if (gap < 0.25f) ties++; /* less than a quarter of a bin */
        else if (gap < step) step = gap;
    }
    if (2 * ties < n || !(step < 0.25f * BINS) || step < 2.0f) return 0.0;
    const int64_t half = (int64_t)(0.5f * step);
    double spread[BINS] = {0.0};
    for (int64_t i = 1; i < BINS - 1; i++) {
        if (hist[i] == 0.0) continue;
        const int64_t from = rsp_max(1, i - half), to = rsp_min(BINS - 2, i + half);
        for (int64_t j = from; j <= to; j++) spread[j] += hist[i] / (double)(to - from + 1);
    }
    memcpy(hist + 1, spread + 1, (BINS - 2) * sizeof *hist);
    return (double)(2 * half + 1);
}

static double normal_density(double t) { return 0.3989422804014327 * exp(-0.5 * t * t); }
static double normal_share(double t) { return 0.5 * erfc(-t * 0.7071067811865476); }

/* Mean and sigma, in bins, of the normal distribution whose part within [mean - lower sigma, mean + upper sigma] is
 * the histogram there. Starts from *mean, *sigma; keeps them where nothing is left to fit. */
static void fit_cut_normal(const double *restrict hist, double lower, double upper, double *mean, double *sigma) {
    double n[BINS + 1], s1[BINS + 1], s2[BINS + 1];
    n[0] = s1[0] = s2[0] = 0.0;
    for (int i = 0; i < BINS; i++) {
        const double x = i + 0.5, count = i == 0 || i == BINS - 1 ? 0.0 : hist[i];
        n[i + 1] = n[i] + count;
        s1[i + 1] = s1[i] + count * x;
        s2[i + 1] = s2[i] + count * x * x;
    }
    for (int iteration = 0; iteration < ITERATIONS; iteration++) {
        const int64_t from = rsp_max(1, rsp_min(BINS - 3, (int64_t)floor(*mean - lower * *sigma)));
        const int64_t to = rsp_max(from + 2, rsp_min(BINS - 1, (int64_t)ceil(*mean + upper * *sigma)));
        const double count = n[to] - n[from];
        if (!(count >= 4.0)) return;
        const double m = (s1[to] - s1[from]) / count, v = (s2[to] - s2[from]) / count - m * m;
        const double a = ((double)from - *mean) / *sigma, b = ((double)to - *mean) / *sigma;
        const double share = normal_share(b) - normal_share(a);
        if (!(share > 1e-3)) return;
        const double shift = (normal_density(a) - normal_density(b)) / share;
        const double narrowing = 1.0 + (a * normal_density(a) - b * normal_density(b)) / share - shift * shift;
        if (!(narrowing > 1e-3) || !(v > 0.0)) return;
        const double new_mean = m - *sigma * shift, new_sigma = sqrt(v / narrowing);
        const double change = fabs(new_mean - *mean) + fabs(new_sigma - *sigma);
        *mean = new_mean;
        *sigma = new_sigma;
        if (change < 1e-4 * new_sigma) return;
    }
}

/* Level and noise of one cell, and its share of good pixels. */
static void measure_cell(const float *image, const uint32_t *mask, const uint8_t *exclude, uint32_t bad, int64_t nx,
                         cell_box box, float lower, float upper, int32_t *bins, float *out_level, float *out_noise,
                         float *out_fraction) {
    float sample[SAMPLE];
    uint32_t counts[LANES * (BINS + 8)] = {0};
    double hist[BINS];
    const int64_t n_sample = take_sample(image, mask, exclude, bad, nx, box, sample);
    *out_level = *out_noise = NAN;
    *out_fraction = 0.0f;
    if (n_sample == 0) return;
    const float median = select_kth(sample, n_sample, n_sample / 2);
    const float quartile = select_kth(sample, n_sample, n_sample / 4);
    float scale = (median - quartile) / 0.6745f;
    if (!(scale > 1e-6f * fabsf(median))) { /* most pixels are equal: look further down, else there is no noise */
        scale = (median - select_kth(sample, n_sample, n_sample / 40)) / 2.0f;
        if (!(scale > 1e-6f * fabsf(median))) scale = fmaxf(1e-6f * fabsf(median), 1e-30f);
    }
    const float per_unit = (float)BINS / (16.0f * scale), low = median - 8.0f * scale;
    fill_histogram(image, mask, exclude, bad, nx, box, low, per_unit, bins, counts);
    double good = 0.0;
    for (int i = 0; i < BINS; i++) {
        hist[i] = 0.0;
        for (int lane = 0; lane < LANES; lane++) hist[i] += counts[lane * (BINS + 8) + i];
        good += hist[i];
    }
    const double step = spread_digits(sample, n_sample, per_unit, hist);
    double mean = 0.5 * BINS, sigma = BINS / 16.0;
    fit_cut_normal(hist, lower, upper, &mean, &sigma);
    const double variance = sigma * sigma - (step > 0.0 ? step * step / 12.0 : 0.0);
    *out_level = (float)(low + mean / per_unit);
    *out_noise = (float)(sqrt(variance > 0.0 ? variance : 0.0) / per_unit);
    *out_fraction = (float)(good / (double)((box.y1 - box.y0) * (box.x1 - box.x0)));
}

RSP_API rsp_status rsp_background_cells(int64_t ny, int64_t nx, const float *restrict image,
                                        const uint32_t *restrict mask, const uint8_t *restrict exclude, uint32_t bad,
                                        int64_t my, int64_t mx, float lower, float upper, float *restrict out_level,
                                        float *restrict out_noise, float *restrict out_fraction) {
    RSP_CHECK(ny > 0 && nx > 0, RSP_BAD_SHAPE);
    RSP_CHECK(my > 0 && mx > 0 && my <= ny && mx <= nx, RSP_BAD_SHAPE);
    RSP_CHECK(lower > 0.0f && upper > 0.0f, RSP_BAD_ARGUMENT);
    int32_t *bins = malloc((size_t)(nx / mx + 2) * sizeof *bins);
    if (!bins) return rsp_fail(RSP_NO_MEMORY, "%s: one row of a cell", __func__);
    for (int64_t j = 0; j < my; j++)
        for (int64_t i = 0; i < mx; i++) {
            const cell_box box = {j * ny / my, (j + 1) * ny / my, i * nx / mx, (i + 1) * nx / mx};
            const int64_t k = j * mx + i;
            measure_cell(image, mask, exclude, bad, nx, box, lower, upper, bins, out_level + k, out_noise + k,
                         out_fraction + k);
        }
    free(bins);
    return RSP_OK;
}

/* Second derivatives of the natural cubic spline through m values at unit distance, `stride` apart. */
static void spline_curvature(const double *restrict value, int64_t m, int64_t stride, double *restrict work,
                             double *restrict out) {
    out[0] = work[0] = 0.0;
    for (int64_t i = 1; i < m - 1; i++) {
        const double bend = value[(i - 1) * stride] - 2.0 * value[i * stride] + value[(i + 1) * stride];
        const double pivot = 1.0 / (4.0 - work[i - 1]);
        work[i] = pivot;
        out[i * stride] = (6.0 * bend - out[(i - 1) * stride]) * pivot;
    }
    if (m > 1) out[(m - 1) * stride] = 0.0;
    for (int64_t i = m - 2; i > 0; i--) out[i * stride] -= work[i] * out[(i + 1) * stride];
}

/* Coefficients in t of the spline between knots i and i + 1. */
static void spline_cubic(double y0, double y1, double d0, double d1, double *restrict c) {
    c[0] = y0;
    c[1] = y1 - y0 - (2.0 * d0 + d1) / 6.0;
    c[2] = 0.5 * d0;
    c[3] = (d1 - d0) / 6.0;
}

/* The value at u, in knots; straight beyond the outermost knots. */
static double spline_value(const double *value, const double *curvature, int64_t m, int64_t stride, double u) {
    if (m == 1) return value[0];
    const int64_t i = rsp_max(0, rsp_min(m - 2, (int64_t)floor(u)));
    double c[4];
    spline_cubic(value[i * stride], value[(i + 1) * stride], curvature[i * stride], curvature[(i + 1) * stride], c);
    const double t = u - (double)i, s = t < 0.0 ? 0.0 : t > 1.0 ? 1.0 : t;
    return c[0] + s * (c[1] + s * (c[2] + s * c[3])) + (t - s) * (c[1] + s * (2.0 * c[2] + s * 3.0 * c[3]));
}

/* One piece of a row: image = keep * image + sign * cubic. */
RSP_SIMD static void apply_cubic(float *restrict row, int64_t n, double t0, double dt, const double *c, float keep,
                                 float sign) {
    const float c0 = (float)c[0], c1 = (float)c[1], c2 = (float)c[2], c3 = (float)c[3];
    const float first = (float)t0, step = (float)dt;
    if (keep == 0.0f) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            const float t = first + (float)(int32_t)i * step;
            row[i] = sign * (c0 + t * (c1 + t * (c2 + t * c3)));
        }
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            const float t = first + (float)(int32_t)i * step;
            row[i] += sign * (c0 + t * (c1 + t * (c2 + t * c3)));
        }
    }
}

static void apply_row(float *restrict row, int64_t nx, const double *value, const double *curvature, int64_t mx,
                      float keep, float sign) {
    const double per_pixel = (double)mx / (double)nx;
    double c[4] = {value[0], 0.0, 0.0, 0.0};
    if (mx == 1) {
        apply_cubic(row, nx, 0.0, 0.0, c, keep, sign);
        return;
    }
    int64_t from = 0;
    for (int64_t i = -1; i < mx; i++) { /* the pieces left of knot 0, between knots, right of the last */
        const int64_t to = i == mx - 1 ? nx : rsp_min(nx, (int64_t)ceil(((double)i + 1.5) / per_pixel - 0.5));
        const int64_t k = rsp_max(0, rsp_min(mx - 2, i));
        double offset = (double)k;
        spline_cubic(value[k], value[k + 1], curvature[k], curvature[k + 1], c);
        if (i == -1) c[2] = c[3] = 0.0;
        if (i == mx - 1) {
            c[1] += 2.0 * c[2] + 3.0 * c[3];
            c[0] = value[mx - 1];
            c[2] = c[3] = 0.0;
            offset = (double)(mx - 1);
        }
        if (to > from)
            apply_cubic(row + from, to - from, ((double)from + 0.5) * per_pixel - 0.5 - offset, per_pixel, c, keep, sign);
        from = rsp_max(from, to);
    }
}

RSP_API rsp_status rsp_background_apply(int64_t my, int64_t mx, const float *restrict level, int64_t ny, int64_t nx,
                                        float keep, float sign, float *restrict out_image) {
    RSP_CHECK(ny > 0 && nx > 0 && my > 0 && mx > 0, RSP_BAD_SHAPE);
    RSP_CHECK(keep == 0.0f || keep == 1.0f, RSP_BAD_ARGUMENT);
    const size_t m = (size_t)(my * mx), longest = (size_t)rsp_max(my, mx);
    double *memory = calloc(2 * m + longest + 2 * (size_t)mx, sizeof *memory);
    if (!memory) return rsp_fail(RSP_NO_MEMORY, "%s: mesh of %lld x %lld", __func__, (long long)my, (long long)mx);
    double *value = memory, *along_y = value + m, *work = along_y + m, *knots = work + longest, *curvature = knots + mx;
    for (size_t i = 0; i < m; i++) value[i] = level[i];
    for (int64_t i = 0; i < mx; i++) spline_curvature(value + i, my, mx, work, along_y + i);
    for (int64_t y = 0; y < ny; y++) {
        const double v = ((double)y + 0.5) * (double)my / (double)ny - 0.5;
        for (int64_t i = 0; i < mx; i++) knots[i] = spline_value(value + i, along_y + i, my, mx, v);
        spline_curvature(knots, mx, 1, work, curvature);
        apply_row(out_image + y * nx, nx, knots, curvature, mx, keep, sign);
    }
    free(memory);
    return RSP_OK;
}
