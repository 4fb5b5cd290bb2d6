#include "testing.h"

enum { N = 48, BAD = 1, SAT = 2, HIT = 4 };
#define SIGMA 1.06
#define SKY 800.0f

static float image[N * N], variance[N * N], sky[N * N];
static uint32_t mask[N * N];

static rsp_cosmic_options plain(void) {
    rsp_cosmic_options options = {0.9 * SIGMA, 5, 4, 3, 1.5, 0.6, 0.6, 0.01, 20, 2, BAD | SAT, SAT, HIT};
    return options;
}

static void empty_sky(void) {
    for (int i = 0; i < N * N; i++) { image[i] = sky[i] = SKY; variance[i] = SKY + 36; mask[i] = 0; }
}

static void add_star(double x0, double y0, double peak) {
    for (int y = 0; y < N; y++)
        for (int x = 0; x < N; x++) {
            const double light = peak * exp(-((x - x0) * (x - x0) + (y - y0) * (y - y0)) / (2 * SIGMA * SIGMA));
            image[y * N + x] += (float)light;
            variance[y * N + x] += (float)light;
        }
}

static int64_t find(const rsp_cosmic_options *options) {
    int64_t n = -1;
    CHECK(rsp_cosmic(N, N, options, image, variance, sky, mask, &n) == RSP_OK);
    return n;
}

static int hit(int x, int y) { return (mask[y * N + x] & HIT) != 0; }

/* Stars alone, of any brightness and anywhere in a pixel, blended or not: nothing is found. */
static void stars_are_spared(void) {
    const rsp_cosmic_options options = plain();
    for (double peak = 100; peak < 2e5; peak *= 10)
        for (int phase = 0; phase < 16; phase++) {
            empty_sky();
            add_star(12 + 0.25 * (phase % 4), 12 + 0.25 * (phase / 4), peak);
            add_star(30 + 0.25 * (phase % 4), 30, peak);
            add_star(31.7, 31 + 0.25 * (phase / 4), 0.3 * peak);
            CHECK(find(&options) == 0);
        }
}

/* A track, thick in one place, is found whole, and only the track; also at the border and beside a bad pixel. */
static void tracks_are_found(void) {
    const rsp_cosmic_options options = plain();
    empty_sky();
    add_star(30, 30, 20000);
    for (int k = 0; k < 10; k++) image[(5 + k / 2) * N + 5 + k] += 300.0f + 100.0f * (float)(k % 3);
    image[8 * N + 10] += 400;
    image[12 * N] += 900; image[20] += 900; image[20 * N + N - 1] += 900;
    image[40 * N + 8] += 900; mask[40 * N + 9] = BAD; image[40 * N + 9] = NAN;
    image[41 * N + 20] = 1e6f; mask[41 * N + 20] = BAD; /* no hit: known to be bad */
    CHECK(find(&options) == 15);
    for (int k = 0; k < 10; k++) CHECK(hit(5 + k, 5 + k / 2));
    CHECK(hit(10, 8) && hit(0, 12) && hit(20, 0) && hit(N - 1, 20) && hit(8, 40));
    CHECK(mask[41 * N + 20] == BAD);
    CHECK(find(&options) == 0); /* what is known stays known, and is not counted again */
    CHECK(hit(5, 5));
}

/* A faint end is found as the neighbour of a bright one, not alone. */
static void tracks_grow(void) {
    rsp_cosmic_options options = plain();
    empty_sky();
    image[20 * N + 20] += 900; image[20 * N + 21] += 130; image[30 * N + 30] += 130;
    CHECK(find(&options) == 2);
    CHECK(hit(20, 20) && hit(21, 20) && !hit(30, 30));
    empty_sky();
    image[20 * N + 20] += 900; image[20 * N + 21] += 130;
    options.rounds = 0;
    CHECK(find(&options) == 1);
}

/* Hard edges near saturation are left alone. */
static void bleed_is_spared(void) {
    rsp_cosmic_options options = plain();
    empty_sky();
    for (int y = 10; y < 30; y++) { image[y * N + 20] = 1e5f; mask[y * N + 20] = SAT; }
    image[30 * N + 20] = 4e4f; image[9 * N + 20] = 4e4f; image[20 * N + 22] = 5e3f;
    CHECK(find(&options) == 0);
    options.margin = 0;
    CHECK(find(&options) == 3);
}

/* A dead pixel on a galaxy must not make its neighbours look steep. */
static void dead_pixels_mislead_nobody(void) {
    const rsp_cosmic_options options = plain();
    empty_sky();
    for (int i = 0; i < N * N; i++) image[i] += 400;
    image[20 * N + 20] = 0; variance[20 * N + 20] = 36;
    CHECK(find(&options) == 0);
}

void test_cosmic(void) {
    stars_are_spared();
    tracks_are_found();
    tracks_grow();
    bleed_is_spared();
    dead_pixels_mislead_nobody();
    rsp_cosmic_options options = plain();
    int64_t n;
    empty_sky();
    for (int i = 0; i < N * N; i++) image[i] = NAN;
    CHECK(find(&options) == 0);
    CHECK(rsp_cosmic(0, N, &options, image, variance, sky, mask, &n) == RSP_BAD_SHAPE);
    options.sigma = 0;
    CHECK(rsp_cosmic(N, N, &options, image, variance, sky, mask, &n) == RSP_BAD_ARGUMENT);
}
