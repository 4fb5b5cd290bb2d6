#include "testing.h"

enum { NX = 21, NY = 11, N = 3, WIDTH = N * NX };

typedef struct {
    float image[NY][WIDTH], variance[NY][WIDTH];
    uint32_t mask[NY][WIDTH];
    int64_t good;
} detector;

static uint16_t raw[N][NY][NX];
static float level[NY], table[] = {0.0f, 10.0f, 40.0f};

static rsp_status run(const rsp_electronics *electronics, const float *linear, const float *quadratic, int64_t tile,
                      detector *out) {
    rsp_amplifier amplifiers[N];
    for (int i = 0; i < N; i++)
        amplifiers[i] = (rsp_amplifier){raw[i], RSP_RAW_UINT16, i == 1, 0, NX, NX, NY, i * NX, 0, 2.0, 25.0, 60000.0, 50000.0, level,
                                        NULL};
    rsp_calibration calibration = {0};
    rsp_detrend_options options = {0.0, 0.1, 1, 8, 2, 4};
    rsp_sweep what = {N, N, tile, linear, quadratic, 1.0, 16};
    return rsp_electronics_detrend(&what, amplifiers, electronics, &calibration, &options, NY, WIDTH, &out->image[0][0],
                                   &out->variance[0][0], &out->mask[0][0], &out->good);
}

void test_electronics(void) {
    static detector one, two;
    rsp_electronics plain[N] = {{0}}, all[N];
    for (int i = 0; i < N; i++)
        for (int y = 0; y < NY; y++)
            for (int x = 0; x < NX; x++) raw[i][y][x] = 1100, level[y] = 1000;
    raw[0][4][6] = 40000, raw[0][10][20] = 60000, raw[2][3][3] = 51000;
    CHECK(run(plain, NULL, NULL, 8, &one) == RSP_OK);
    CHECK(one.image[0][0] == 200.0f && one.variance[0][0] == 225.0f && one.image[4][6] == 78000.0f);
    CHECK(one.mask[10][20] == 1 && one.mask[3][2 * NX + 3] == 8 && one.good == NY * WIDTH - 2);

    /* amplifier 1 stands backwards in the file and in the detector or only in the detector: its pixels and ghosts */
    const float linear[N * N] = {0, 0, 0, -1e-3f, 0, 0, 0, 0, 0}, quadratic[N * N] = {0, 0, 0, -1e-9f, 0, 0, 0, 0, 0};
    const double ghost = 1e-3 * 78000 + 1e-9 * 78000.0 * 78000.0;
    CHECK(run(plain, linear, quadratic, 16, &one) == RSP_OK);
    CHECK_CLOSE(one.image[4][NX + NX - 1 - 6], 200 - ghost, 1e-2);
    CHECK_CLOSE(one.image[0][NX], 200 - 0.2 - 4e-5, 1e-4);
    CHECK(one.image[4][2 * NX + 6] == 200.0f && one.mask[10][NX] == 16 && one.good == NY * WIDTH - 3);
    plain[1].reverse_x = 1, plain[1].reverse_y = 1;
    CHECK(run(plain, linear, quadratic, 16, &one) == RSP_OK);
    CHECK_CLOSE(one.image[NY - 1 - 4][NX + 6], 200 - ghost, 1e-2); /* backwards twice along the row */
    CHECK(one.mask[0][NX + 20] == 16);

    /* linearity: straight lines through the table, its end beyond */
    memcpy(all, plain, sizeof all);
    for (int i = 0; i < N; i++) all[i].linearity = table, all[i].n_linearity = 3, all[i].linearity_step = 400.0;
    CHECK(run(all, NULL, NULL, 8, &one) == RSP_OK);
    CHECK_CLOSE(one.image[0][0], 205, 1e-4);
    CHECK_CLOSE(one.image[4][6], 78040, 1e-2);

    /* deferred charge: what left pixel 6 for pixels 7 and 8 goes back; offset and trap have their own exact truths */
    memset(all, 0, sizeof all);
    for (int i = 0; i < N; i++) all[i].inefficiency = 1e-4, all[i].prescan = 3;
    CHECK(run(all, NULL, NULL, 8, &one) == RSP_OK);
    CHECK_CLOSE(one.image[4][6], (78000 - 9e-4 * 200) / pow(1 - 1e-4, 10), 0.1);
    CHECK_CLOSE(one.image[4][7], 200 - 10 * 1e-4 * 78000 + 0.2, 0.3);
    memset(all, 0, sizeof all);
    for (int i = 0; i < N; i++) all[i].offset_scale = 0.01, all[i].offset_fade = 0.5;
    CHECK(run(all, NULL, NULL, 8, &one) == RSP_OK);
    CHECK_CLOSE(one.image[4][6], 78000 / 1.01, 1e-2);
    CHECK_CLOSE(one.image[4][8], 200 - 0.25 * 0.01 * 78000 / 1.01, 1e-2);
    memset(all, 0, sizeof all);
    for (int i = 0; i < N; i++) all[i].trap_size = 100, all[i].trap_level = 1000, all[i].trap_keep = 0.25;
    CHECK(run(all, NULL, NULL, 8, &one) == RSP_OK);
    CHECK_CLOSE(one.image[0][0], 200 / 0.9, 1e-3); /* a tenth of the charge that came was taken */
    CHECK_CLOSE(one.image[4][7], 200 - 75, 1e-3);  /* full after pixel 6: gives 75 and keeps 25, more than the next one fills */

    /* any tile, the same bits; dither too */
    for (int i = 0; i < N; i++)
        all[i].dither = 5 + (uint32_t)i, all[i].offset_scale = 1e-3, all[i].offset_fade = 0.7, all[i].inefficiency = 1e-5;
    CHECK(run(all, linear, quadratic, 512, &one) == RSP_OK && run(all, linear, quadratic, 8, &two) == RSP_OK);
    CHECK(!memcmp(&one, &two, sizeof one) && fabsf(one.image[0][30] - one.image[0][31]) > 0);

    CHECK(run(all, linear, quadratic, 12, &one) == RSP_BAD_ARGUMENT && run(all, linear, NULL, 8, &one) == RSP_BAD_ARGUMENT);
    all[2].trap_level = 50;
    CHECK(run(all, linear, quadratic, 8, &one) == RSP_BAD_ARGUMENT);
}
