#include "testing.h"

enum { NX = 150, NY = 40, LAGS = 6, WIDTH = 2 * LAGS - 1 };

static rsp_flat_pair pair_of(const float *first, const float *second, const uint32_t *mask1, const uint32_t *mask2) {
    rsp_flat_pair pair = {.nx = NX, .ny = NY, .stride = NX, .first = first, .second = second, .first_mask = mask1,
                          .second_mask = mask2, .ratio = {1.0, 0.0, 0.0, 0.0, 0.0, 0.0}, .limit = 1e3f, .skip_bits = 1};
    return pair;
}

static void agrees_with_sums_by_hand(void) {
    float *first = malloc(NX * NY * sizeof *first), *second = malloc(NX * NY * sizeof *second);
    uint32_t *mask1 = calloc(NX * NY, sizeof *mask1), *mask2 = calloc(NX * NY, sizeof *mask2);
    uint64_t state = 5;
    for (int k = 0; k < NX * NY; k++) {
        first[k] = (float)(100.0 + floor(20.0 * random_uniform(&state)));
        second[k] = (float)(100.0 + floor(20.0 * random_uniform(&state)));
        mask1[k] = random_uniform(&state) < 0.05 ? 1 : 2; /* 2 is not skipped */
        mask2[k] = random_uniform(&state) < 0.05;
    }
    first[777] = NAN, first[1234] = 5000.0f, second[99] = INFINITY;
    rsp_flat_pair pair = pair_of(first, second, mask1, mask2);
    double product[LAGS * WIDTH], sums[4];
    int64_t count[LAGS * WIDTH];
    CHECK(rsp_covariance(&pair, LAGS, product, count, sums) == RSP_OK);
    double wanted[3] = {0.0, 0.0, 0.0};
    for (int j = 0; j < LAGS; j++)
        for (int i = -(LAGS - 1); i < LAGS; i++) {
            double total = 0.0;
            int64_t n = 0;
            for (int y = 0; y + j < NY; y++)
                for (int x = i < 0 ? -i : 0; x < NX && x + i < NX; x++) {
                    const int p = y * NX + x, q = (y + j) * NX + x + i;
                    const double d = first[p] - second[p], e = first[q] - second[q];
                    if ((mask1[p] | mask2[p] | mask1[q] | mask2[q]) & 1 || !(fabs(d) < 1e3) || !(fabs(e) < 1e3)) continue;
                    total += d * e;
                    n++;
                    if (i == 0 && j == 0) wanted[0] += first[p], wanted[1] += second[p], wanted[2] += d;
                }
            CHECK(count[j * WIDTH + LAGS - 1 + i] == n);
            CHECK_CLOSE(product[j * WIDTH + LAGS - 1 + i], total, 1e-6 * 100.0 * NX * NY);
        }
    for (int k = 0; k < 3; k++) CHECK_CLOSE(sums[k], wanted[k], 1e-6);
    CHECK_CLOSE(sums[3], (double)count[LAGS - 1], 1e-6);
    free(first);
    free(second);
    free(mask1);
    free(mask2);
}

static void ratio_is_a_surface(void) {
    enum { SIDE = 33 };
    float first[SIDE * SIDE], second[SIDE * SIDE];
    uint32_t mask[SIDE * SIDE] = {0};
    const double c[6] = {0.9, 0.05, -0.03, 0.02, 0.01, -0.04};
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
            const double u = 2.0 * x / (SIDE - 1) - 1.0, v = 2.0 * y / (SIDE - 1) - 1.0;
            second[y * SIDE + x] = (float)(100 + (x * 7 + y * 3) % 11);
            first[y * SIDE + x] = (float)((c[0] + c[1] * u + c[2] * v + c[3] * u * u + c[4] * u * v + c[5] * v * v)
                                          * second[y * SIDE + x]);
        }
    rsp_flat_pair pair = {.nx = SIDE, .ny = SIDE, .stride = SIDE, .first = first, .second = second, .first_mask = mask,
                          .second_mask = mask, .limit = 1.0f};
    memcpy(pair.ratio, c, sizeof c);
    double product, sums[4];
    int64_t count;
    CHECK(rsp_covariance(&pair, 1, &product, &count, sums) == RSP_OK);
    CHECK(count == SIDE * SIDE);
    CHECK_CLOSE(product / count, 0.0, 1e-9);
}

static void bad_arguments_are_refused(void) {
    float image[4] = {0};
    uint32_t mask[4] = {0};
    double product[15], sums[4];
    int64_t count[15];
    rsp_flat_pair pair = {.nx = 2, .ny = 2, .stride = 2, .first = image, .second = image, .first_mask = mask, .second_mask = mask,
                          .limit = 1.0f};
    CHECK(rsp_covariance(&pair, 3, product, count, sums) == RSP_OK && count[2] == 4 && count[4] == 0); /* lags beyond the image */
    CHECK(rsp_covariance(&pair, 0, product, count, sums) == RSP_BAD_ARGUMENT);
    CHECK(rsp_covariance(&pair, 33, product, count, sums) == RSP_BAD_ARGUMENT);
    pair.limit = 0.0f;
    CHECK(rsp_covariance(&pair, 1, product, count, sums) == RSP_BAD_ARGUMENT);
    pair.limit = 1.0f, pair.stride = 1;
    CHECK(rsp_covariance(&pair, 1, product, count, sums) == RSP_BAD_SHAPE);
}

void test_covariance(void) {
    agrees_with_sums_by_hand();
    ratio_is_a_surface();
    bad_arguments_are_refused();
}
