#include "testing.h"

enum { N = 5, NX = 70, NY = 3, WIDE = NX + 4 };

void test_frames(void) {
    static uint16_t raw[N][NY][WIDE];
    static float level[NY], bias[NY * NX], dark[NY * NX], mean[NY * NX], variance[NY * NX];
    int32_t clipped[N * 1 * 2] = {0};
    rsp_amplifier frame[N];
    double factor[N][4], time[N], weight[N], noise[N][2];
    for (int y = 0; y < NY; y++) level[y] = (float)(100 + y);
    for (int p = 0; p < NY * NX; p++) bias[p] = (float)(p % 7), dark[p] = 0.5f;
    for (int i = 0; i < N; i++) {
        for (int y = 0; y < NY; y++) /* columns run backwards: raw column x is pixel NX - 1 - x */
            for (int x = 0; x < NX; x++) raw[i][y][x] = (uint16_t)(100 + y + 500 + (NX - 1 - x));
        frame[i] = (rsp_amplifier){.raw = raw[i], .raw_type = RSP_RAW_UINT16, .flip_x = 1, .raw_stride = WIDE, .nx = NX, .ny = NY,
                                   .gain = 2.0, .saturation = 60000.0, .row_level = level};
        factor[i][0] = 0.1, factor[i][1] = 0.01 * (i - 2), factor[i][2] = 0.02 * (2 - i), factor[i][3] = 0.0;
        time[i] = 10.0, weight[i] = 1.0, noise[i][0] = 400.0, noise[i][1] = 0.0;
    }
    raw[1][1][NX - 1 - 40] = 50000; /* a star, clipped */
    raw[2][1][NX - 1 - 65] = 65535; /* saturated: left out */
    const rsp_combine_options clip = {.kappa_low = 4, .kappa_high = 4, .majority_fraction = 0.5, .iterations = 2, .min_inputs = 3};
    rsp_frames_options options = {.first_row = 0, .n_rows = NY, .order = 1, .block = 64};
    CHECK(rsp_frames_combine(N, frame, &options, factor[0], time, bias, dark, weight, noise[0], &clip, NY, NX, mean, variance,
                             clipped) == RSP_OK);
    for (int y = 0; y < NY; y++)
        for (int x = 0; x < NX; x++) {
            double value = 2.0 * (500 + x) - (y * NX + x) % 7 - 5.0; /* the slopes cancel in the mean of all */
            double u = (2.0 * x + 1) / NX - 1, v = (2.0 * y + 1) / NY - 1, wanted = 0.1 * value;
            if (y == 1 && x == 40) wanted = value * (0.1 + (0.01 * u - 0.02 * v) / 4);
            CHECK_CLOSE(mean[y * NX + x], wanted, 2e-4);
            CHECK_CLOSE(variance[y * NX + x], y == 1 && (x == 40 || x == 65) ? 100.0 : 80.0, 1e-3);
        }
    CHECK(clipped[2] == 1 && clipped[0] == 0 && clipped[3] == 0 && clipped[4] == 0 && clipped[5] == 0);

    options.n_rows = NY + 1;
    CHECK(rsp_frames_combine(N, frame, &options, factor[0], time, bias, dark, weight, noise[0], &clip, NY, NX, mean, variance,
                             clipped) == RSP_BAD_SHAPE);
}
