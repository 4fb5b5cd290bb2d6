/* Truth: whole-pixel shifts copy, constants stay constants, the variance of white noise follows the weights, planes are
 * linear in the positions, and what is bad or outside has no value. */
#include "testing.h"

enum { N = 80, NODES = 6 };
static const rsp_warp_rules rules = {.bad = 1, .interpolated = 2, .no_data = 4, .rejected = 8, .edge = 16,
                                     .max_bad = 0.1f};

typedef struct {
    float image[N * N], variance[N * N], out[64 * 64], out_variance[64 * 64];
    uint32_t mask[N * N], out_mask[64 * 64];
    double x[NODES * NODES], y[NODES * NODES], scale[NODES * NODES];
} field;

/* A plane with unit variance, mapped by x' = x0 + a x + b y, y' = y0 - b x + a y from output pixels. */
static field *make_field(double x0, double y0, double a, double b) {
    field *f = malloc(sizeof *f);
    for (int i = 0; i < N * N; i++) {
        f->image[i] = (float)(3.0 + 0.5 * (i % N) - 0.25 * (i / N));
        f->variance[i] = 1.0f;
        f->mask[i] = 0;
    }
    for (int i = 0; i < NODES * NODES; i++) {
        double u = 32.0 * (i % NODES - 1), v = 32.0 * (i / NODES - 1);
        f->x[i] = x0 + a * u + b * v;
        f->y[i] = y0 - b * u + a * v;
        f->scale[i] = 2.0;
    }
    return f;
}

static rsp_status run(field *f) {
    return rsp_warp(f->image, f->variance, f->mask, N, N, f->x, f->y, f->scale, NODES, NODES, &rules, 0, 0, 64, 64,
                    f->out, f->out_variance, f->out_mask);
}

static void test_whole_pixels(void) {
    field *f = make_field(-2.0, 18.0, 1.0, 0.0);
    CHECK(run(f) == RSP_OK);
    int copies = 0, outside = 0;
    for (int i = 0; i < 64 * 64; i++) {
        int x = i % 64 - 2, y = i / 64 + 18;
        if (x < 0 || y >= N) outside += isnan(f->out[i]) && isinf(f->out_variance[i]) && (f->out_mask[i] & 4);
        else copies += fabsf(f->out[i] - 2.0f * f->image[y * N + x]) < 2e-5f &&
                       fabsf(f->out_variance[i] - 4.0f) < 1e-5f && f->out_mask[i] == 0;
    }
    CHECK(copies == 62 * 62);
    CHECK(outside == 64 * 64 - 62 * 62);
    free(f);
}

static void test_constant(void) { /* weights of unit sum: a constant stays one at any phase, to the table's rounding */
    field *f = make_field(7.3, 11.6, 0.98, 0.05);
    for (int i = 0; i < N * N; i++) f->image[i] = 7.0f;
    CHECK(run(f) == RSP_OK);
    double worst = 0.0, largest = 0.0;
    for (int i = 0; i < 64 * 64; i++) {
        if (f->out_mask[i] & 4) continue;
        worst = fmax(worst, fabs(f->out[i] - 14.0));
        largest = fmax(largest, f->out_variance[i]);
    }
    CHECK_CLOSE(worst, 0.0, 2e-5);
    CHECK(largest <= 4.0f * 1.0001f && largest > 2.0f); /* sum of squared weights is between 1/2 and 1 */
    free(f);
}

static void test_half_pixel_variance(void) {
    field *f = make_field(8.5, 9.0, 1.0, 0.0);
    CHECK(run(f) == RSP_OK);
    double w[6], sum = 0.0, squares = 0.0;
    for (int k = 0; k < 6; k++) {
        double x = k - 2.5;
        sum += w[k] = 3.0 * sin(M_PI * x) * sin(M_PI * x / 3.0) / (M_PI * M_PI * x * x);
    }
    for (int k = 0; k < 6; k++) squares += w[k] * w[k] / (sum * sum);
    CHECK_CLOSE(f->out_variance[20 * 64 + 20], 4.0 * squares, 1e-5);
    CHECK_CLOSE(f->out[20 * 64 + 20], 2.0 * (3.0 + 0.5 * 28.5 - 0.25 * 29.0), 1e-4);
    free(f);
}

static void test_bad_pixels(void) {
    field *f = make_field(8.3, 8.4, 1.0, 0.0);
    f->mask[30 * N + 30] = 1;                /* bad, not interpolated: no pixel that touches it has a value */
    f->image[30 * N + 30] = 1e9f;
    f->mask[50 * N + 50] = 1 | 2;            /* bad and interpolated: only those mostly on it are refused */
    f->image[60 * N + 20] = NAN;
    f->mask[20 * N + 60] = 32;               /* another plane: carried to the four pixels around */
    CHECK(run(f) == RSP_OK);
    int refused = 0, interpolated = 0, carried = 0, wild = 0;
    for (int i = 0; i < 64 * 64; i++) {
        refused += (f->out_mask[i] & 12) == 12;
        interpolated += !(f->out_mask[i] & 4) && (f->out_mask[i] & 2);
        carried += (f->out_mask[i] & 32) != 0;
        wild += fabsf(f->out[i]) > 200.0f;
    }
    CHECK(refused >= 72 + 1 && refused < 72 + 8);
    CHECK(interpolated >= 36 - 8 && interpolated <= 35);
    CHECK(carried == 4);
    CHECK(wild == 0);
    free(f);
}

static void test_edges_and_arguments(void) {
    field *f = make_field(40.5, 40.5, 1.0, 0.0);
    CHECK(run(f) == RSP_OK);
    CHECK(f->out_mask[0] == 0);
    CHECK(f->out_mask[37] == (4 | 16)); /* at 77.5 the window leaves, the position does not */
    CHECK(f->out_mask[60] == 4);
    f->x[8] = NAN;
    CHECK(run(f) == RSP_OK && isnan(f->out[0]));
    CHECK(rsp_warp(f->image, f->variance, f->mask, N, N, f->x, f->y, f->scale, 4, 4, &rules, 0, 0, 64, 64, f->out,
                   f->out_variance, f->out_mask) == RSP_BAD_SHAPE);
    free(f);
}

static void test_psf(void) { /* unmoved, a stamp stays; on half the scale it keeps its flux */
    enum { K = 21 };
    float stamp[K * K], out[K * K];
    double sum = 0.0, phase[2] = {0.0, 0.0}, same[4] = {1.0, 0.0, 0.0, 1.0}, finer[4] = {0.0, 0.8, -0.8, 0.0};
    for (int i = 0; i < K * K; i++) {
        const int x = i % K - 10, y = i / K - 10;
        sum += stamp[i] = expf(-0.125f * (float)(x * x + y * y));
    }
    for (int i = 0; i < K * K; i++) stamp[i] /= (float)sum;
    CHECK(rsp_warp_psf(stamp, 1, K, phase, same, K, out) == RSP_OK);
    double worst = 0.0, flux = 0.0;
    for (int i = 0; i < K * K; i++) worst = fmax(worst, fabs(out[i] - stamp[i]));
    CHECK_CLOSE(worst, 0.0, 1e-8);
    phase[0] = 0.37, phase[1] = 0.81;
    CHECK(rsp_warp_psf(stamp, 1, K, phase, finer, K, out) == RSP_OK);
    for (int i = 0; i < K * K; i++) flux += out[i];
    CHECK_CLOSE(flux, 1.0, 3e-4);
    CHECK_CLOSE(out[10 * K + 10] / out[10 * K + 12], exp(0.125 * 4 * 0.64), 0.01);
    CHECK(rsp_warp_psf(stamp, 1, 20, phase, same, K, out) == RSP_BAD_SHAPE);
}

void test_warp(void) {
    test_whole_pixels();
    test_constant();
    test_half_pixel_variance();
    test_bad_pixels();
    test_edges_and_arguments();
    test_psf();
}
