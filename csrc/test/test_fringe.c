#include "testing.h"

enum { NY = 33, NX = 45, BAD = 1, MY = 2, MX = 3 };

void test_fringe(void) {
    static float image[NY * NX], pattern[NY * NX];
    static uint32_t mask[NY * NX];
    static uint8_t exclude[NY * NX];
    float level[MY * MX], limit[MY * MX];
    double sums[MY * MX][6];
    for (int y = 0; y < NY; y++)
        for (int x = 0; x < NX; x++) {
            pattern[y * NX + x] = (float)sin(0.3 * x + 0.2 * y);
            image[y * NX + x] = 100.0f + 7.0f * pattern[y * NX + x];
        }
    for (int k = 0; k < MY * MX; k++) level[k] = 98.0f, limit[k] = 50.0f;
    level[4] = NAN;
    image[0] = NAN; pattern[1] = INFINITY; mask[2] = BAD; exclude[3] = 1; image[4] = 1e4f;
    CHECK(rsp_fringe_cells(NY, NX, image, mask, exclude, BAD, pattern, MY, MX, level, limit, 0.0, &sums[0][0]) == RSP_OK);
    int64_t all = 0;
    for (int k = 0; k < MY * MX; k++) {
        const double n = sums[k][0], power = sums[k][3] - sums[k][2] * sums[k][2] / n;
        all += (int64_t)n;
        if (k == 4) continue;
        CHECK_CLOSE((sums[k][4] - sums[k][1] * sums[k][2] / n) / power, 7.0, 1e-4);
        CHECK_CLOSE(sums[k][1] / n - 7.0 * sums[k][2] / n, 2.0, 1e-4);
        CHECK_CLOSE(sums[k][5] - sums[k][1] * sums[k][1] / n, 49.0 * power, 1e-2);
    }
    CHECK(sums[4][0] == 0 && sums[0][0] == 16 * 15 - 5 && all == NY * NX - 5 - 17 * 15);
    CHECK(rsp_fringe_subtract(NY * NX, 7.0, pattern, image) == RSP_OK);
    CHECK(isnan(image[0]) && image[1] == 100.0f + 7.0f * (float)sin(0.3));
    for (int i = 5; i < NY * NX; i++) CHECK_CLOSE(image[i], 100.0, 1e-4);
    CHECK(rsp_fringe_cells(NY, NX, image, mask, NULL, BAD, pattern, NY + 1, MX, level, limit, 0.0, &sums[0][0]) == RSP_BAD_SHAPE);
    CHECK(rsp_fringe_cells(NY, NX, image, mask, NULL, BAD, pattern, MY, MX, level, limit, NAN, &sums[0][0]) == RSP_BAD_ARGUMENT);
    CHECK(rsp_fringe_subtract(NY * NX, INFINITY, pattern, image) == RSP_BAD_ARGUMENT);
}
