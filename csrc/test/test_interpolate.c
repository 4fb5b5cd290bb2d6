#include "testing.h"

enum { N = 24, BAD = 1, OTHER = 2, DONE = 4 };

static rsp_interpolate_options plain(void) {
    rsp_interpolate_options options = {2, 10, 1.5, 2.0, BAD, BAD | OTHER, DONE};
    return options;
}

void test_interpolate(void) {
    float image[N * N], variance[N * N];
    uint32_t mask[N * N];
    int64_t n = -1;
    rsp_interpolate_options options = plain();
    for (int i = 0; i < N * N; i++) { image[i] = 7.0f; variance[i] = 3.0f; mask[i] = 0; }
    for (int y = 0; y < N; y++) { mask[y * N + 5] = BAD; image[y * N + 5] = NAN; } /* a bad column */
    mask[10 * N + 12] = BAD; image[10 * N + 12] = 1e9f;
    mask[10 * N + 13] = OTHER; image[10 * N + 13] = -1e9f;                        /* must not be used, nor filled */
    CHECK(rsp_interpolate(N, N, &options, image, mask, variance, &n) == RSP_OK);
    CHECK(n == N + 1);
    for (int y = 0; y < N; y++) {
        CHECK_CLOSE(image[y * N + 5], 7.0, 1e-6);
        CHECK_CLOSE(variance[y * N + 5], 6.0, 1e-6);
        CHECK(mask[y * N + 5] == (BAD | DONE));
    }
    CHECK_CLOSE(image[10 * N + 12], 7.0, 1e-6);
    CHECK(image[10 * N + 13] == -1e9f && mask[10 * N + 13] == OTHER);

    for (int i = 0; i < N * N; i++) mask[i] = BAD; /* nothing to fill from: left alone */
    CHECK(rsp_interpolate(N, N, &options, image, mask, variance, &n) == RSP_OK);
    CHECK(n == 0 && mask[0] == BAD);
    CHECK(rsp_interpolate(0, N, &options, image, mask, variance, &n) == RSP_BAD_SHAPE);
    options.avoid_bits = OTHER; /* would fill from pixels that are to be filled */
    CHECK(rsp_interpolate(N, N, &options, image, mask, variance, &n) == RSP_BAD_ARGUMENT);
}
