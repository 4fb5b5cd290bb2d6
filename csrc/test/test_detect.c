#include "testing.h"

static void filter_gives_significance_of_a_point(void) {
    enum { N = 32, HALF = 2, TAPS = 5 };
    static const float g[TAPS] = {0.1f, 0.5f, 1.0f, 0.5f, 0.1f};
    float image[N * N], variance[N * N], snr[N * N], level[N * N], square[TAPS], one = 1.0f;
    uint32_t mask[N * N] = {0};
    double power = 0.0;
    for (int i = 0; i < TAPS; i++) square[i] = g[i] * g[i];
    for (int j = 0; j < TAPS; j++)
        for (int i = 0; i < TAPS; i++) power += square[i] * square[j];
    for (int i = 0; i < N * N; i++) {
        image[i] = 0.0f;
        variance[i] = 4.0f;
    }
    for (int j = 0; j < TAPS; j++)
        for (int i = 0; i < TAPS; i++) image[(10 + j) * N + 20 + i] = 3.0f * g[i] * g[j];
    CHECK(rsp_detect_filter(N, N, image, mask, variance, 1, 2, 4, HALF, 1, g, g, 1, square, square, 1, 1, &one, level, snr) == RSP_OK);
    CHECK_CLOSE(snr[12 * N + 22], 3.0 * sqrt(power) / 2.0, 1e-4);
    image[12 * N + 22] = NAN; /* the brightest pixel is gone: the others still count, with their own noise */
    mask[12 * N + 21] = 1;
    mask[12 * N + 23] = 3;    /* rejected, but rescued */
    CHECK(rsp_detect_filter(N, N, image, mask, variance, 1, 2, 4, HALF, 1, g, g, 1, square, square, 1, 1, &one, level, snr) == RSP_OK);
    CHECK_CLOSE(snr[12 * N + 22], 3.0 * sqrt(power - 1.0 - 0.25) / 2.0, 1e-4);
    const float twice[2] = {4.0f, 1.0f}; /* noise correlation: the left half counts half */
    const float before = snr[12 * N + 5 + 17];
    CHECK(rsp_detect_filter(N, N, image, mask, variance, 1, 2, 4, HALF, 1, g, g, 1, square, square, 1, 2, twice, level, snr) == RSP_OK);
    CHECK_CLOSE(snr[12 * N + 22], before, 1e-6);
    for (int i = 0; i < N * N; i++) mask[i] = 4;
    CHECK(rsp_detect_filter(N, N, image, mask, variance, 1, 2, 4, HALF, 1, g, g, 1, square, square, 1, 1, &one, level, snr) == RSP_OK);
    CHECK(snr[0] == 0.0f && snr[500] == 0.0f);
}

static void footprints_are_joined_across_rows(void) {
    static const char *picture[6] = {"X..X....", "X..X..2.", "XXXX....", "........", "......X.", "XX...X.."};
    float snr[48];
    uint32_t mask[48];
    int32_t labels[48], boxes[4 * 4];
    int64_t areas[4], n;
    for (int i = 0; i < 48; i++) {
        const char c = picture[i / 8][i % 8];
        snr[i] = c == 'X' ? 6.0f : c == '2' ? 3.0f : 0.0f;
        mask[i] = 8 | 1;
    }
    CHECK(rsp_detect_footprints(6, 8, snr, 2.5f, 5.0f, 2, 8, 4, mask, labels, boxes, areas, &n) == RSP_OK);
    CHECK(n == 3); /* the U, the diagonal, the pair; the faint pixel is no footprint */
    CHECK(labels[0] == 1 && labels[3] == 1 && labels[14] == 0 && labels[4 * 8 + 6] == 2 && labels[5 * 8 + 5] == 2);
    CHECK(areas[0] == 8 && boxes[0] == 0 && boxes[1] == 0 && boxes[2] == 4 && boxes[3] == 3);
    CHECK(mask[0] == 9 && mask[14] == 1);
    CHECK(rsp_detect_footprints(6, 8, snr, 2.5f, 5.0f, 2, 8, 1, mask, labels, boxes, areas, &n) == RSP_FULL && n == 3);
}

static void peaks_stand_out_from_their_saddle(void) {
    enum { N = 40 };
    float snr[2 * N];
    int32_t labels[2 * N], owners[2 * N], box[4] = {0, 0, N, 1};
    double xy[8];
    float peak[4];
    int64_t starts[2], n;
    for (int i = 0; i < 2 * N; i++) snr[i] = 0.0f, labels[i] = i < N;
    for (int i = 0; i < N; i++) /* tops at 8 (height 20), 20 (12), 30 (10.5); saddles at 14 (8) and 25 (9.5) */
        snr[i] = i < 8 ? 12.0f + i : i < 14 ? 20.0f - 2 * (i - 8) : i < 20 ? 8.0f + (i - 14) * 4.0f / 6
               : i < 25 ? 12.0f - (i - 20) * 0.5f : i < 30 ? 9.5f + (i - 25) * 0.2f : 10.5f - (i - 30) * 0.3f;
    CHECK(rsp_detect_peaks(2, N, snr, snr, labels, 1, box, 5.0f, 2.0f, 0.0f, 4, owners, xy, peak, starts, &n) == RSP_OK);
    CHECK(n == 2 && starts[0] == 0 && starts[1] == 2);
    CHECK(peak[0] == 20.0f && peak[1] == 12.0f);
    CHECK_CLOSE(xy[0], 8.0, 0.5);
    CHECK_CLOSE(xy[2], 20.0, 0.5);
    CHECK(owners[0] == 1 && owners[13] == 1 && owners[15] == 2 && owners[35] == 2 && owners[N] == 0);
    CHECK(rsp_detect_peaks(2, N, snr, snr, labels, 1, box, 5.0f, 0.5f, 0.0f, 4, owners, xy, peak, starts, &n) == RSP_OK && n == 3);
    CHECK(rsp_detect_peaks(2, N, snr, snr, labels, 1, box, 5.0f, 0.5f, 0.2f, 4, owners, xy, peak, starts, &n) == RSP_OK && n == 2);
    CHECK(rsp_detect_peaks(2, N, snr, snr, labels, 1, box, 5.0f, 0.5f, 0.0f, 2, owners, xy, peak, starts, &n) == RSP_FULL && n == 3);
}

/* The footprint is cut in S/N: the filtered image may rise beyond its edge, and no pixel may climb out. */
static void slopes_end_at_the_footprint(void) {
    enum { NY = 9, NX = 12 };
    float level[NY * NX], snr[NY * NX], out_snr[8];
    int32_t labels[NY * NX] = {0}, owners[NY * NX], box[4] = {3, 3, 7, 6};
    double xy[16];
    int64_t starts[2], n = 0;
    for (int y = 0; y < NY; y++)
        for (int x = 0; x < NX; x++) {
            level[y * NX + x] = (float)(1 + x); /* rises to the right, out of the footprint */
            snr[y * NX + x] = 8.0f;
            if (y >= 3 && y < 6 && x >= 3 && x < 7) labels[y * NX + x] = 1;
        }
    CHECK(rsp_detect_peaks(NY, NX, level, snr, labels, 1, box, 5.0f, 2.0f, 0.05f, 8, owners, xy, out_snr, starts, &n) == RSP_OK);
    CHECK(n == 1);
    for (int i = 0; i < NY * NX; i++) CHECK(owners[i] == labels[i]);
}

void test_detect(void) {
    slopes_end_at_the_footprint();
    filter_gives_significance_of_a_point();
    footprints_are_joined_across_rows();
    peaks_stand_out_from_their_saddle();
}
