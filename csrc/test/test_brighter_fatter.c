#include "testing.h"

enum { NY = 50, NX = 150, SIDE = 5, BAD = 1 };

static float image[NY * NX], variance[NY * NX];
static uint32_t mask[NY * NX];
static const rsp_brighter_fatter_options ONCE = {BAD, 0.0, 1, 0.0, 2.0 / 3.0};

static void flat(float level) {
    for (int i = 0; i < NY * NX; i++) { image[i] = level; variance[i] = level; mask[i] = 0; }
}

static int64_t correct(const rsp_brighter_fatter_options *options, const rsp_separable *east, const rsp_separable *north) {
    int64_t excluded = -1, passes = -1;
    double change = -1;
    CHECK(rsp_brighter_fatter(NY, NX, options, east, north, mask, NULL, image, variance, &excluded, &passes, &change) == RSP_OK);
    CHECK(passes >= 1 && passes <= options->passes && change >= 0);
    return excluded;
}

static double sum(void) {
    double total = 0;
    for (int i = 0; i < NY * NX; i++) total += image[i];
    return total;
}

void test_brighter_fatter(void) {
    /* a potential of -k at lag zero alone: one charge q in a plane of p moves its own four borders by k q, outwards in what it
     * gives back: k q / 2 * (q + p) / 2 across each */
    const float one[SIDE] = {0, 0, 1, 0, 0}, k = 1e-6f, row[SIDE] = {0, 0, -1e-6f, 0, 0};
    const rsp_separable potential = {1, 2, 2, 2, 2, 1, row, one};
    flat(1000);
    CHECK(correct(&ONCE, &potential, NULL) == 0);
    for (int i = 0; i < NY * NX; i++) CHECK_CLOSE(image[i], 1000, 0);
    flat(1000);
    image[20 * NX + 30] = 51000;
    CHECK(correct(&ONCE, &potential, NULL) == 0);
    const double moved = k * 50000 / 2 * (51000 + 1000) / 2;
    CHECK_CLOSE(image[20 * NX + 30], 51000 + 4 * moved, 0.02);
    CHECK_CLOSE(image[20 * NX + 31], 1000 - moved - k * 50000 / 2 * 0, 0.02);
    CHECK_CLOSE(image[21 * NX + 30], 1000 - moved, 0.02);
    CHECK_CLOSE(variance[19 * NX + 30], 1000 - moved > 0 ? 1000 - moved : 0, 0.02);
    CHECK_CLOSE(sum(), 1000.0 * NY * NX + 50000, 0.1);
    /* the same shifts, given for the borders: charge at lag 0 pulls the east border back, charge at lag 1 towards itself */
    const float pull[SIDE] = {0, 0, -1e-6f, 1e-6f, 0};
    const rsp_separable east = {1, 2, 2, 2, 2, 1, pull, one}, north = {1, 2, 2, 2, 2, 0, one, pull};
    const float star = image[20 * NX + 30], beside = image[20 * NX + 29];
    flat(1000);
    image[20 * NX + 30] = 51000;
    CHECK(correct(&ONCE, &east, &north) == 0);
    CHECK_CLOSE(image[20 * NX + 30], star, 0.02);
    CHECK_CLOSE(image[20 * NX + 29], beside, 0.02);
    /* later passes converge and keep the sum; corners and edges lose nothing */
    rsp_brighter_fatter_options more = ONCE;
    more.passes = 20;
    more.tolerance = 0.01;
    flat(1000);
    image[0] = image[NX - 1] = image[(NY - 1) * NX] = image[NY * NX - 1] = image[31 * NX + 127] = 40000;
    const double before = sum();
    CHECK(correct(&more, &potential, NULL) == 0);
    CHECK_CLOSE(sum(), before, 1e-7 * before);
    CHECK(image[0] > 40500 && image[31 * NX + 127] > 41000);
    /* what has no charge of its own is the mean of its neighbours, and stays */
    flat(1000);
    image[10 * NX + 10] = NAN;
    image[20 * NX + 20] = 9e4f;
    mask[20 * NX + 20] = BAD;
    CHECK(correct(&more, &potential, NULL) == 2);
    CHECK(isnan(image[10 * NX + 10]) && image[20 * NX + 20] == 9e4f && image[20 * NX + 21] == 1000.0f);
    for (int i = 0; i < NY * NX; i++) image[i] = NAN;
    CHECK(correct(&more, &potential, NULL) == NY * NX);
    int64_t n, passes;
    double change;
    rsp_separable wrong = potential;
    wrong.n_terms = 0;
    CHECK(rsp_brighter_fatter(NY, NX, &ONCE, &wrong, NULL, mask, NULL, image, variance, &n, &passes, &change) == RSP_BAD_SHAPE);
    more.passes = 0;
    CHECK(rsp_brighter_fatter(NY, NX, &more, &potential, NULL, mask, NULL, image, variance, &n, &passes, &change) == RSP_BAD_ARGUMENT);
}
