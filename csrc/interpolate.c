/* interpolate.c: fill bad pixels from good neighbours. Bound by the number of bad pixels, not by the image: one scan of the
 * mask, then a small window for each pixel to fill. */
#include "internal.h"

enum { LEAST_NEIGHBOURS = 4, LARGEST_RADIUS = 64, TERMS = 6, PATIENCE = 2 };

static const double LEAST_PIVOT = 1e-2; /* of a term's own sum: below, the good pixels lie so that they do not tell the term */

typedef struct {
    int64_t index;
    float value, variance;
} filled_pixel;

/* Weighted sums over the good pixels for the fit of 1, x, y, x^2, xy, y^2 about the pixel to fill. */
typedef struct {
    double normal[TERMS][TERMS], right[TERMS], variance;
    int64_t count;
} neighbour_sum;

static void add_pixel(neighbour_sum *sum, double dx, double dy, double weight, double value, double variance) {
    const double term[TERMS] = {1.0, dx, dy, dx * dx, dx * dy, dy * dy};
    for (int i = 0; i < TERMS; i++) {
        for (int j = 0; j <= i; j++) sum->normal[i][j] += weight * term[i] * term[j];
        sum->right[i] += weight * term[i] * value;
    }
    sum->variance += weight * variance;
    sum->count++;
}

/* Add the good pixels at distance `ring` (largest of |dx|, |dy|) from (x, y). */
static void add_ring(int64_t ny, int64_t nx, const rsp_interpolate_options *options, const float *image, const uint32_t *mask,
                     const float *variance, int64_t x, int64_t y, int64_t ring, neighbour_sum *sum) {
    const double scale = -0.5 / (options->sigma * options->sigma);
    for (int64_t dy = -ring; dy <= ring; dy++) {
        const int64_t row = y + dy;
        if (row < 0 || row >= ny) continue;
        const int64_t step = dy == -ring || dy == ring ? 1 : 2 * ring;
        for (int64_t dx = -ring; dx <= ring; dx += step) {
            const int64_t column = x + dx;
            if (column < 0 || column >= nx) continue;
            const int64_t i = row * nx + column;
            if (mask[i] & options->avoid_bits || !isfinite(image[i]) || !isfinite(variance[i])) continue;
            add_pixel(sum, (double)dx, (double)dy, exp(scale * (double)(dx * dx + dy * dy)), image[i], variance[i]);
        }
    }
}

/* The constant of the fit of the first `terms` terms (Cholesky); 0 if the pixels do not determine them. */
static int solve(const neighbour_sum *sum, int terms, double *value) {
    double lower[TERMS][TERMS], z[TERMS];
    if (sum->count < terms + 2) return 0;
    for (int i = 0; i < terms; i++) {
        for (int j = 0; j <= i; j++) {
            double rest = sum->normal[i][j];
            for (int k = 0; k < j; k++) rest -= lower[i][k] * lower[j][k];
            if (i == j) {
                if (!(rest > LEAST_PIVOT * sum->normal[i][i])) return 0;
                lower[i][i] = sqrt(rest);
            } else lower[i][j] = rest / lower[j][j];
        }
        z[i] = sum->right[i];
        for (int k = 0; k < i; k++) z[i] -= lower[i][k] * z[k];
        z[i] /= lower[i][i];
    }
    for (int i = terms - 1; i >= 0; i--) {
        for (int k = i + 1; k < terms; k++) z[i] -= lower[k][i] * z[k];
        z[i] /= lower[i][i];
    }
    *value = z[0];
    return 1;
}

static int fill_one(int64_t ny, int64_t nx, const rsp_interpolate_options *options, const float *image, const uint32_t *mask,
                    const float *variance, filled_pixel *pixel) {
    neighbour_sum sum = {0};
    const int64_t y = pixel->index / nx, x = pixel->index % nx;
    for (int64_t ring = 1; ring <= options->max_radius; ring++) {
        add_ring(ny, nx, options, image, mask, variance, x, y, ring, &sum);
        if (ring < options->radius || sum.count < LEAST_NEIGHBOURS || !(sum.normal[0][0] > 0)) continue;
        double value;
        if (!solve(&sum, TERMS, &value)) {
            if (ring < rsp_min(options->radius + PATIENCE, options->max_radius)) continue;
            if (!solve(&sum, 3, &value)) value = sum.right[0] / sum.normal[0][0];
        }
        pixel->value = (float)value;
        pixel->variance = (float)(options->inflation * sum.variance / sum.normal[0][0]);
        return 1;
    }
    return 0;
}

RSP_API rsp_status rsp_interpolate(int64_t ny, int64_t nx, const rsp_interpolate_options *options, float *restrict image,
                                   uint32_t *restrict mask, float *restrict variance, int64_t *restrict out_n_filled) {
    RSP_CHECK(ny > 0 && nx > 0, RSP_BAD_SHAPE);
    RSP_CHECK(options->radius >= 1 && options->max_radius >= options->radius && options->max_radius <= LARGEST_RADIUS,
              RSP_BAD_ARGUMENT);
    RSP_CHECK(options->sigma > 0 && options->inflation >= 1, RSP_BAD_ARGUMENT);
    RSP_CHECK((options->fill_bits & ~options->avoid_bits) == 0, RSP_BAD_ARGUMENT);
    *out_n_filled = 0;
    int64_t n_bad = 0, n_filled = 0;
    for (int64_t i = 0; i < ny * nx; i++) n_bad += (mask[i] & options->fill_bits) != 0;
    if (n_bad == 0) return RSP_OK;
    filled_pixel *pixels = malloc((size_t)n_bad * sizeof *pixels);
    if (!pixels) return rsp_fail(RSP_NO_MEMORY, "%s: %lld pixels to fill", __func__, (long long)n_bad);
    for (int64_t i = 0; i < ny * nx; i++) {
        if (!(mask[i] & options->fill_bits)) continue;
        pixels[n_filled].index = i;
        n_filled += fill_one(ny, nx, options, image, mask, variance, &pixels[n_filled]);
    }
    for (int64_t k = 0; k < n_filled; k++) {
        image[pixels[k].index] = pixels[k].value;
        variance[pixels[k].index] = pixels[k].variance;
        mask[pixels[k].index] |= options->done_bit;
    }
    free(pixels);
    *out_n_filled = n_filled;
    return RSP_OK;
}
