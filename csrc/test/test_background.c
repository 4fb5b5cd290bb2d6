#include "testing.h"

static double gaussian(uint64_t *state) {
    return sqrt(-2.0 * log(1.0 - random_uniform(state))) * cos(6.283185307179586 * random_uniform(state));
}

static void finds_level_and_noise_under_sources(void) {
    enum { N = 256 };
    float *image = malloc(N * N * sizeof *image), level[4], noise[4], fraction[4];
    uint32_t *mask = calloc(N * N, sizeof *mask);
    uint64_t state = 7;
    for (int i = 0; i < N * N; i++) {
        image[i] = (float)(100.0 + 5.0 * gaussian(&state));
        if (i % 5 == 0) image[i] += (float)(200.0 * random_uniform(&state)); /* a fifth of the pixels has light */
        if (i % 97 == 0) image[i] = NAN;
        if (i % 89 == 0) {
            image[i] = 1e6f;
            mask[i] = 1;
        }
    }
    CHECK(rsp_background_cells(N, N, image, mask, NULL, 1, 2, 2, 3.0f, 1.0f, level, noise, fraction) == RSP_OK);
    for (int k = 0; k < 4; k++) {
        CHECK_CLOSE(level[k], 100.0, 0.4);
        CHECK_CLOSE(noise[k], 5.0, 0.3);
        CHECK_CLOSE(fraction[k], 1.0 - 1.0 / 97 - 1.0 / 89, 0.01);
    }
    for (int i = 0; i < N * N; i++) mask[i] = 1;
    CHECK(rsp_background_cells(N, N, image, mask, NULL, 1, 2, 2, 3.0f, 1.0f, level, noise, fraction) == RSP_OK);
    CHECK(isnan(level[0]) && isnan(noise[3]) && fraction[1] == 0.0f);
    CHECK(rsp_background_cells(N, N, image, mask, NULL, 1, 0, 2, 3.0f, 1.0f, level, noise, fraction) == RSP_BAD_SHAPE);
    free(image);
    free(mask);
}

static void constant_image_has_its_value(void) {
    float image[64], level, noise, fraction;
    uint32_t mask[64] = {0};
    for (int i = 0; i < 64; i++) image[i] = -3.5f;
    CHECK(rsp_background_cells(8, 8, image, mask, NULL, 0, 1, 1, 3.0f, 1.0f, &level, &noise, &fraction) == RSP_OK);
    CHECK_CLOSE(level, -3.5, 1e-4);
    CHECK_CLOSE(noise, 0.0, 1e-4);
}

static void spline_is_exact_for_planes(void) {
    enum { NY = 50, NX = 70, MY = 3, MX = 4 };
    float level[MY * MX], image[NY * NX];
    for (int j = 0; j < MY; j++)
        for (int i = 0; i < MX; i++) level[j * MX + i] = (float)(10.0 + 2.0 * j - 3.0 * i);
    CHECK(rsp_background_apply(MY, MX, level, NY, NX, 0.0f, 1.0f, image) == RSP_OK);
    double worst = 0.0;
    for (int y = 0; y < NY; y++)
        for (int x = 0; x < NX; x++) {
            const double v = (y + 0.5) * MY / NY - 0.5, u = (x + 0.5) * MX / NX - 0.5;
            worst = fmax(worst, fabs(image[y * NX + x] - (10.0 + 2.0 * v - 3.0 * u)));
        }
    CHECK_CLOSE(worst, 0.0, 1e-5);
    CHECK(rsp_background_apply(MY, MX, level, NY, NX, 1.0f, -1.0f, image) == RSP_OK);
    for (int i = 0; i < NY * NX; i++) worst = fmax(worst, fabs(image[i]));
    CHECK_CLOSE(worst, 0.0, 1e-5);
    CHECK(rsp_background_apply(1, 1, level, NY, NX, 0.0f, 1.0f, image) == RSP_OK);
    CHECK_CLOSE(image[NX + 1], 10.0, 1e-6);
}

void test_background(void) {
    finds_level_and_noise_under_sources();
    constant_image_has_its_value();
    spline_is_exact_for_planes();
}
