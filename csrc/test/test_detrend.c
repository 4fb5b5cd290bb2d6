#include "testing.h"

enum { NX = 21, NY = 3, WIDTH = 30, HEIGHT = 5 };

void test_detrend(void) {
    uint16_t raw[NY][25];
    float level[NY] = {100, 101, 102}, bias[HEIGHT][WIDTH], dark[HEIGHT][WIDTH], flat[HEIGHT][WIDTH];
    float image[HEIGHT][WIDTH], variance[HEIGHT][WIDTH], inverse[HEIGHT][WIDTH];
    uint8_t defects[HEIGHT][WIDTH] = {{0}};
    uint16_t noise[HEIGHT][WIDTH];
    uint32_t mask[HEIGHT][WIDTH];
    int64_t good, usable;
    for (int y = 0; y < NY; y++)
        for (int x = 0; x < 25; x++) raw[y][x] = (uint16_t)(1000 + 10 * y + x);
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++)
            bias[y][x] = 3, dark[y][x] = 0.5f, flat[y][x] = 2, mask[y][x] = 77, image[y][x] = variance[y][x] = -1;
    raw[1][4] = 60000;
    flat[3][5] = 0.0f;
    flat[3][6] = NAN;
    defects[4][7] = 1;
    bias[4][8] = NAN;
    /* 21 columns from x = 5 of the detector, 3 rows from y = 2; rows run backwards */
    rsp_amplifier amplifier = {raw, RSP_RAW_UINT16, 0, 1, 25, NX, NY, 5, 2, 2.0, 25.0, 60000.0, INFINITY, level, NULL};
    rsp_calibration calibration = {&bias[0][0], &dark[0][0], &flat[0][0], &defects[0][0], NULL, 0.0, 0};
    rsp_detrend_options options = {10.0, 0.1, 1, 8, 2, 4};
    CHECK(rsp_detrend_amplifier(&amplifier, &calibration, &options, HEIGHT, WIDTH, &image[0][0], &variance[0][0], &mask[0][0],
                                &good) == RSP_OK);
    /* raw row 2 is row 2 of the detector, its first pixel 1020: (1020 - 102) * 2 - 3 - 5 = 1828 */
    CHECK_CLOSE(image[2][5], 1828.0 / 2, 1e-3);
    CHECK_CLOSE(variance[2][5], (1828.0 + 5 + 25) / 4, 1e-3);
    CHECK_CLOSE(image[2][5 + 20], (1040 - 102 - 4) / 1.0, 1e-3); /* the rest beyond whole vectors */
    CHECK(mask[2][5] == 0 && mask[3][9] == 1 && mask[3][5] == 2 && mask[3][6] == 2 && mask[4][7] == 2 && mask[4][8] == 2);
    CHECK(isinf(variance[3][5]) && isfinite(image[3][5]) && isinf(variance[4][8]) && isfinite(image[4][8]));
    CHECK_CLOSE(image[3][5], (1010 - 101) * 2.0 - 8, 1e-3); /* no flat: not divided */
    CHECK(mask[1][5] == 77 && mask[2][4] == 77 && mask[2][26] == 77); /* outside the amplifier */
    CHECK(good == NX * NY - 5);

    /* suspect is not saturated; the flat apart gives the same */
    float flatless[HEIGHT][WIDTH], spread_flatless[HEIGHT][WIDTH];
    uint32_t marks[HEIGHT][WIDTH];
    int64_t still;
    amplifier.suspect = 1040.0;
    calibration.flat = NULL;
    memset(flatless, 0, sizeof flatless), memset(spread_flatless, 0, sizeof flatless), memset(marks, 0, sizeof marks);
    CHECK(rsp_detrend_amplifier(&amplifier, &calibration, &options, HEIGHT, WIDTH, &flatless[0][0], &spread_flatless[0][0],
                                &marks[0][0], &still) == RSP_OK);
    CHECK(marks[2][24] == 0 && marks[2][25] == 8 && marks[3][9] == 1 && still == NX * NY - 4);
    calibration.flat = &flat[0][0];
    CHECK(rsp_detrend_flatten(&calibration, &options, HEIGHT * WIDTH, &flatless[0][0], &spread_flatless[0][0], &marks[0][0],
                              &still) == RSP_OK);
    CHECK(flatless[2][5] == image[2][5] && spread_flatless[2][5] == variance[2][5] && marks[3][6] == 2);
    CHECK(isinf(spread_flatless[3][6]) && flatless[3][6] == image[3][6] && still == HEIGHT * WIDTH - 6);
    amplifier.suspect = INFINITY;

    /* the other way round along the row, and prepared planes give the same */
    float first = image[2][5], spread = variance[2][5];
    amplifier.flip_x = 1;
    CHECK(rsp_detrend_prepare(&(rsp_calibration){&bias[0][0], &dark[0][0], &flat[0][0], &defects[0][0], NULL, 0.001, 0}, &options,
                              HEIGHT * WIDTH, &image[0][0], &inverse[0][0], &noise[0][0], &usable) == RSP_OK);
    CHECK(usable == HEIGHT * WIDTH - 3 && noise[2][5] == 5000 && isnan(inverse[3][5]) && inverse[4][7] == -0.5f);
    memcpy(bias, image, sizeof bias);
    calibration = (rsp_calibration){&bias[0][0], NULL, &inverse[0][0], NULL, &noise[0][0], 0.001, 1};
    CHECK(rsp_detrend_amplifier(&amplifier, &calibration, &options, HEIGHT, WIDTH, &image[0][0], &variance[0][0], &mask[0][0],
                                &good) == RSP_OK);
    CHECK_CLOSE(image[2][25], first, 1e-3);
    CHECK_CLOSE(variance[2][25], spread, 1e-2);
    CHECK(good == NX * NY - 5);

    /* floats that are no numbers */
    float real[NY][NX];
    for (int y = 0; y < NY; y++)
        for (int x = 0; x < NX; x++) real[y][x] = 500;
    real[0][2] = NAN;
    amplifier = (rsp_amplifier){real, RSP_RAW_FLOAT, 0, 0, NX, NX, NY, 0, 0, 1.0, 25.0, 60000.0, INFINITY, level, level};
    amplifier.column_level = NULL;
    calibration = (rsp_calibration){0};
    CHECK(rsp_detrend_amplifier(&amplifier, &calibration, &options, HEIGHT, WIDTH, &image[0][0], &variance[0][0], &mask[0][0],
                                &good) == RSP_OK);
    CHECK(mask[0][2] == 4 && isinf(variance[0][2]) && good == NX * NY - 1);
    CHECK_CLOSE(image[1][0], 399, 1e-3);
    amplifier.x0 = 10;
    CHECK(rsp_detrend_amplifier(&amplifier, &calibration, &options, HEIGHT, WIDTH, &image[0][0], &variance[0][0], &mask[0][0],
                                &good) == RSP_BAD_SHAPE);
}
