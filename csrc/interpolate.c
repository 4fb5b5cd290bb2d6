/* interpolate.c: fill bad pixels from good neighbours. Bound by the number of bad pixels, not by the image: one scan of the
 * mask, then a small window for each pixel to fill. */
#include "internal.h"

enum { LEAST_NEIGHBOURS = 4, LARGEST_RADIUS = 64 };

typedef struct {
    int64_t index;
    float value, variance;
} filled_pixel;

typedef struct {
    double weight, value, variance;
    int64_t count;
} neighbour_sum;

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
            const double weight = exp(scale * (double)(dx * dx + dy * dy));
            sum->weight += weight;
            sum->value += weight * image[i];
            sum->variance += weight * variance[i];
            sum->count++;
        }
    }
}

static int fill_one(int64_t ny, int64_t nx, const rsp_interpolate_options *options, const float *image, const uint32_t *mask,
                    const float *variance, filled_pixel *pixel) {
    neighbour_sum sum = {0};
    const int64_t y = pixel->index / nx, x = pixel->index % nx;
    for (int64_t ring = 1; ring <= options->max_radius; ring++) {
        add_ring(ny, nx, options, image, mask, variance, x, y, ring, &sum);
        if (ring >= options->radius && sum.count >= LEAST_NEIGHBOURS && sum.weight > 0) {
            pixel->value = (float)(sum.value / sum.weight);
            pixel->variance = (float)(options->inflation * sum.variance / sum.weight);
            return 1;
        }
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
