#include "testing.h"

enum { NY = 41, NX = 61, K = 21 };

static double star(double x, double y, double sigma) {
    return exp(-0.5 * (x * x + y * y) / (sigma * sigma)) / (2.0 * M_PI * sigma * sigma);
}

/* A star of flux 1000 at (22, 20) and a second source at (32.5, 20), in one footprint that is the whole image. */
static void two_sources(double second_sigma, float misfit, double tolerance, int point) {
    static float image[NY * NX], variance[NY * NX], psf[K * K], values[4 * NY * NX];
    static uint32_t mask[NY * NX];
    static int32_t labels[NY * NX], owners[NY * NX];
    const int32_t box[4] = {0, 0, NX, NY};
    const int64_t area = NY * NX, starts[2] = {0, 2};
    const double xy[4] = {22.0, 20.0, 32.5, 20.0};
    const float snr[2] = {100.0f, 80.0f};
    int32_t boxes[8];
    int64_t offsets[2], n;
    uint8_t flags[2];
    for (int i = 0; i < NY * NX; i++) {
        const double x = i % NX, y = i / NX;
        image[i] = (float)(1000.0 * star(x - 22.0, y - 20.0, 2.0) + 800.0 * star(x - 32.5, y - 20.0, second_sigma));
        variance[i] = 1e-4f;
        labels[i] = 1;
        owners[i] = x < 27 ? 1 : 2;
    }
    for (int i = 0; i < K * K; i++) psf[i] = (float)star(i % K - K / 2, i / K - K / 2, 2.0);
    const rsp_pixels pixels = {NY, NX, image, variance, mask, labels, 0, 0, 0};
    const rsp_footprints found = {1, box, &area, starts, owners, xy, snr};
    CHECK(rsp_deblend(&pixels, &found, K, psf, 10, 100000, 5.0f, misfit, 4 * NY * NX, boxes, offsets, values, flags, &n) == RSP_OK);
    CHECK(offsets[0] == 0 && offsets[1] > 0 && n <= 4 * NY * NX);
    CHECK(flags[1] == (point ? RSP_SHARED_AS_POINT : 0));
    double sums[2] = {0.0, 0.0}, worst = 0.0;
    for (int i = 0; i < NY * NX; i++) {
        double total = 0.0;
        for (int k = 0; k < 2; k++) {
            const int32_t *b = boxes + 4 * k, x = i % NX, y = i / NX;
            if (x < b[0] || x >= b[2] || y < b[1] || y >= b[3]) continue;
            const float v = values[offsets[k] + (y - b[1]) * (b[2] - b[0]) + x - b[0]];
            total += v;
            sums[k] += v;
        }
        worst = fmax(worst, fabs(total - image[i]));
    }
    CHECK_CLOSE(worst, 0.0, 1e-4);
    CHECK_CLOSE(sums[0], 1000.0, 1000.0 * tolerance);
    CHECK_CLOSE(sums[1], 800.0, 800.0 * tolerance);
    CHECK(rsp_deblend(&pixels, &found, K, psf, 10, 100000, 5.0f, misfit, 10, boxes, offsets, values, flags, &n) == RSP_FULL && n > 10);
    CHECK(rsp_deblend(&pixels, &found, K, psf, 1, 100000, 5.0f, misfit, 10, boxes, offsets, values, flags, &n) == RSP_OK);
    CHECK(offsets[0] == -1 && offsets[1] == -1 && flags[0] == RSP_LEFT_BLENDED && n == 0);
}

void test_deblend(void) {
    two_sources(2.0, 0.15f, 0.002, 1);
    two_sources(3.0, 0.15f, 0.02, 0);
}
