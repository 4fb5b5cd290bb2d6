#include "testing.h"

static const rsp_combine_options options = {.kappa_low = 4, .kappa_high = 4, .majority_fraction = 0.5, .iterations = 2,
    .min_inputs = 3, .absent_bits = 1, .reject_bits = 2, .or_bits = 4, .majority_bits = 2, .clipped_bit = 16,
    .rejected_bit = 32, .no_data_bit = 64};

enum { N = 7, PIXELS = 131 }; /* two tiles and a rest */

/* Inputs i = 0..6 hold 10 + i - 3; the mean is 10. */
static void fill(float value[N][PIXELS], float variance[N][PIXELS], uint32_t mask[N][PIXELS]) {
    for (int i = 0; i < N; i++)
        for (int p = 0; p < PIXELS; p++) value[i][p] = (float)(7 + i), variance[i][p] = 4.0f, mask[i][p] = 0;
}

void test_combine(void) {
    static float value[N][PIXELS], variance[N][PIXELS], mean[PIXELS], out_variance[PIXELS];
    static uint32_t mask[N][PIXELS], out_mask[PIXELS];
    static uint16_t count[PIXELS];
    const float *values[N], *variances[N];
    const uint32_t *masks[N];
    int64_t clipped[N];
    double weight[N], noise[2 * N];
    for (int i = 0; i < N; i++) {
        values[i] = value[i], variances[i] = variance[i], masks[i] = mask[i];
        weight[i] = 1.0, noise[2 * i] = 2.0, noise[2 * i + 1] = 0.2;
    }
    fill(value, variance, mask);
    value[2][5] = 1000.0f; /* clipped; leaves 7 8 10 11 12 13: mean 61/6 */
    mask[0][70] = 2;       /* rejected: mean 63/6 */
    for (int i = 0; i < N; i++) mask[i][71] = 1, value[i][71] = NAN; /* nothing there */
    for (int i = 0; i < 4; i++) mask[i][72] = 2; /* the majority rejected: 11 12 13 left */
    mask[3][130] = 4;      /* carried */
    variance[6][130] = INFINITY;
    CHECK(rsp_combine_clipped_mean(N, PIXELS, values, variances, masks, NULL, NULL, &options, mean, out_variance, count,
                                   out_mask, clipped) == RSP_OK);
    CHECK_CLOSE(mean[0], 10.0, 1e-6);
    CHECK_CLOSE(out_variance[0], 4.0 / 7, 1e-6);
    CHECK(count[0] == 7 && out_mask[0] == 0);
    CHECK_CLOSE(mean[5], 61.0 / 6, 1e-5);
    CHECK(count[5] == 6 && out_mask[5] == 16 && clipped[2] == 1 && clipped[0] == 0);
    CHECK_CLOSE(mean[70], 63.0 / 6, 1e-5);
    CHECK(out_mask[70] == 32);
    CHECK(isnan(mean[71]) && isinf(out_variance[71]) && count[71] == 0 && out_mask[71] == 64);
    CHECK_CLOSE(mean[72], 12.0, 1e-5);
    CHECK(out_mask[72] == (32 | 2));
    CHECK_CLOSE(mean[130], 57.0 / 6, 1e-5);
    CHECK(out_mask[130] == (4 | 32));

    /* a noise model: variance 2 + 0.2 * 10 = 4 */
    fill(value, variance, mask);
    CHECK(rsp_combine_clipped_mean(N, PIXELS, values, NULL, NULL, weight, noise, &options, mean, out_variance, NULL, NULL,
                                   NULL) == RSP_OK);
    CHECK_CLOSE(mean[99], 10.0, 1e-6);
    CHECK_CLOSE(out_variance[99], 4.0 / 7, 1e-6);

    /* the noise estimated: sample variance of 7..13 is 28/6 */
    CHECK(rsp_combine_clipped_mean(N, PIXELS, values, NULL, NULL, NULL, NULL, &options, mean, out_variance, NULL, NULL,
                                   NULL) == RSP_OK);
    CHECK_CLOSE(out_variance[99], 28.0 / 6 / 7, 1e-5);

    /* two camps of two: nothing can be clipped away, all are kept, and it is said */
    for (int p = 0; p < PIXELS; p++)
        for (int i = 0; i < 4; i++) value[i][p] = i < 2 ? 0.0f : 1000.0f;
    CHECK(rsp_combine_clipped_mean(4, PIXELS, values, variances, NULL, NULL, NULL, &options, mean, out_variance, count,
                                   out_mask, NULL) == RSP_OK);
    CHECK_CLOSE(mean[3], 500.0, 1e-4);
    CHECK(count[3] == 4 && out_mask[3] == 16);
    CHECK(rsp_combine_clipped_mean(0, PIXELS, values, NULL, NULL, NULL, NULL, &options, mean, out_variance, NULL, NULL,
                                   NULL) == RSP_BAD_SHAPE);
}
