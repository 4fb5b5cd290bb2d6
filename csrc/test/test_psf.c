#include "testing.h"

enum { SIDE = 21, N = 12, TERMS = 3, AREA = SIDE * SIDE };

static double gaussian(double x, double y, double sigma) {
    return exp(-0.5 * (x * x + y * y) / (sigma * sigma)) / (2.0 * M_PI * sigma * sigma);
}

/* Stars of a Gaussian PSF whose width grows along the first term; noiseless, on pixel centres or not. */
typedef struct {
    double data[N * AREA], weight[N * AREA], terms[N * TERMS], flux[N], sky[N], shift[2 * N];
    double precision[TERMS * AREA], target[TERMS * AREA], grid[TERMS * AREA], covariance[TERMS * TERMS * AREA];
} scene;

static scene *make_scene(double spread) {
    scene *s = calloc(1, sizeof *s);
    uint64_t seed = 5;
    for (int i = 0; i < N; i++) {
        s->terms[i * TERMS] = 1.0;
        s->terms[i * TERMS + 1] = 2.0 * random_uniform(&seed) - 1.0;
        s->terms[i * TERMS + 2] = 2.0 * random_uniform(&seed) - 1.0;
        s->flux[i] = 1000.0 + 4000.0 * random_uniform(&seed);
        s->sky[i] = 2.0;
        s->shift[2 * i] = spread * (random_uniform(&seed) - 0.5);
        s->shift[2 * i + 1] = spread * (random_uniform(&seed) - 0.5);
        for (int k = 0; k < AREA; k++) {
            const double x = k % SIDE - SIDE / 2 - s->shift[2 * i], y = k / SIDE - SIDE / 2 - s->shift[2 * i + 1];
            const double core = gaussian(x, y, 1.8), more = core * ((x * x + y * y) / 3.24 - 2.0);
            s->data[i * AREA + k] = s->sky[i] + s->flux[i] * (core + 0.05 * s->terms[i * TERMS + 1] * more);
            s->weight[i * AREA + k] = 0.01;
        }
    }
    for (int k = 0; k < TERMS * AREA; k++) s->precision[k] = 1e-6;
    return s;
}

static rsp_psf_stars stars_of(const scene *s) {
    const rsp_psf_stars stars = {N, SIDE, TERMS, s->data, s->weight, s->terms, s->flux, s->sky, s->shift};
    return stars;
}

static void grid_is_recovered_exactly(void) { /* algorithms.md C-T1: noiseless stars on pixel centres */
    scene *s = make_scene(0.0);
    const rsp_psf_stars stars = stars_of(s);
    int64_t steps;
    CHECK(rsp_psf_solve(&stars, s->precision, s->target, 1e-12, 30, s->grid, s->covariance, &steps) == RSP_OK);
    CHECK(steps <= 3);
    for (int k = 0; k < AREA; k++) {
        const double x = k % SIDE - SIDE / 2, y = k / SIDE - SIDE / 2, core = gaussian(x, y, 1.8);
        CHECK_CLOSE(s->grid[k], core, 1e-10);
        CHECK_CLOSE(s->grid[AREA + k], 0.05 * core * ((x * x + y * y) / 3.24 - 2.0), 1e-10);
        CHECK_CLOSE(s->grid[2 * AREA + k], 0.0, 1e-10);
    }
    free(s);
}

static void shifted_stars_give_the_same_grid(void) {
    scene *s = make_scene(2.0);
    const rsp_psf_stars stars = stars_of(s);
    int64_t steps;
    double *model = malloc(sizeof(double) * N * AREA);
    for (int k = 0; k < TERMS * AREA; k++) s->precision[k] = 1.0;
    CHECK(rsp_psf_solve(&stars, s->precision, s->target, 1e-9, 60, s->grid, s->covariance, &steps) == RSP_OK);
    CHECK(steps < 40);
    CHECK_CLOSE(s->grid[AREA / 2], gaussian(0, 0, 1.8), 1e-5);
    CHECK(rsp_psf_draw(N, SIDE, TERMS, s->grid, s->terms, s->shift, model) == RSP_OK);
    for (int i = 0; i < N; i++)
        for (int k = 0; k < AREA; k++)
            CHECK_CLOSE(s->flux[i] * model[i * AREA + k] + s->sky[i], s->data[i * AREA + k], 2e-4 * s->flux[i] * gaussian(0, 0, 1.8));
    free(model);
    free(s);
}

static void covariance_is_that_of_the_mean(void) { /* one term, pixel centres: a weighted mean and its error */
    scene *s = make_scene(0.0);
    rsp_psf_stars stars = stars_of(s);
    double sum = 4.0, ones[N];
    int64_t steps;
    for (int i = 0; i < N; i++) {
        ones[i] = 1.0;
        sum += 0.01 * s->flux[i] * s->flux[i];
    }
    for (int k = 0; k < TERMS * AREA; k++) s->precision[k] = 4.0;
    stars.n_terms = 1;
    stars.terms = ones;
    CHECK(rsp_psf_solve(&stars, s->precision, s->target, 1e-9, 30, s->grid, s->covariance, &steps) == RSP_OK);
    CHECK_CLOSE(s->covariance[AREA / 2] * sum, 1.0, 1e-9);
    CHECK_CLOSE(s->covariance[3] * sum, 1.0, 1e-9);
    free(s);
}

static void stars_are_refitted(void) {
    scene *s = make_scene(1.0);
    const rsp_psf_stars truth = stars_of(s);
    double flux[N], sky[N], shift[2 * N], prior[2 * N], found[4 * N], chi2[N];
    int64_t steps;
    for (int k = 0; k < TERMS * AREA; k++) s->precision[k] = 1.0;
    CHECK(rsp_psf_solve(&truth, s->precision, s->target, 1e-9, 60, s->grid, s->covariance, &steps) == RSP_OK);
    for (int i = 0; i < N; i++) {
        flux[i] = 0.8 * s->flux[i];
        sky[i] = 0.0;
        shift[2 * i] = s->shift[2 * i] + 0.3;
        shift[2 * i + 1] = s->shift[2 * i + 1] - 0.2;
        prior[2 * i] = 2.0;
        prior[2 * i + 1] = i % 2 ? 1e9 : 0.0;
    }
    s->data[5] = NAN;
    s->weight[5] = 0.0;
    const rsp_psf_stars stars = {N, SIDE, TERMS, s->data, s->weight, s->terms, flux, sky, shift};
    CHECK(rsp_psf_refit(&stars, s->grid, prior, 6, found, chi2) == RSP_OK);
    for (int i = 0; i < N; i++) {
        CHECK_CLOSE(found[4 * i] / s->flux[i], 1.0, 2e-4);
        CHECK_CLOSE(found[4 * i + 1], s->shift[2 * i], 2e-4);
        CHECK_CLOSE(found[4 * i + 2], s->shift[2 * i + 1], 2e-4);
        CHECK_CLOSE(found[4 * i + 3], 2.0, 2e-2);
        CHECK(chi2[i] < 0.5);
    }
    memset(s->weight, 0, sizeof s->weight); /* a star without pixels */
    CHECK(rsp_psf_refit(&stars, s->grid, prior, 2, found, chi2) == RSP_OK);
    CHECK(isnan(chi2[0]) && found[0] == flux[0]);
    free(s);
}

static void modes_are_measured(void) { /* the scene's own width term, which the grid given lacks */
    scene *s = make_scene(0.0);
    rsp_psf_stars stars = stars_of(s);
    double mode[AREA], core[AREA], ones[N], prior[2 * N] = {0}, amplitude[N], variance[N];
    for (int k = 0; k < AREA; k++) {
        const double x = k % SIDE - SIDE / 2, y = k / SIDE - SIDE / 2;
        core[k] = gaussian(x, y, 1.8);
        mode[k] = core[k] * ((x * x + y * y) / 3.24 - 2.0);
    }
    for (int i = 0; i < N; i++) ones[i] = 1.0;
    stars.n_terms = 1;
    stars.terms = ones;
    CHECK(rsp_psf_modes(&stars, core, prior, 1, mode, amplitude, variance) == RSP_OK);
    for (int i = 0; i < N; i++) {
        CHECK_CLOSE(amplitude[i], 0.05 * s->terms[i * TERMS + 1], 1e-9);
        CHECK(variance[i] > 0.0 && variance[i] * s->flux[i] * s->flux[i] < 1e5);
    }
    memset(s->weight, 0, sizeof s->weight);
    CHECK(rsp_psf_modes(&stars, core, prior, 1, mode, amplitude, variance) == RSP_OK);
    CHECK(amplitude[0] == 0.0 && isinf(variance[0]));
    free(s);
}

static void bad_arguments_are_refused(void) {
    scene *s = make_scene(0.0);
    rsp_psf_stars stars = stars_of(s);
    int64_t steps;
    memset(s->precision, 0, sizeof s->precision);
    memset(s->weight, 0, sizeof s->weight);
    CHECK(rsp_psf_solve(&stars, s->precision, s->target, 1e-6, 9, s->grid, s->covariance, &steps) == RSP_BAD_ARGUMENT);
    s->shift[3] = 2.6;
    CHECK(rsp_psf_draw(N, SIDE, TERMS, s->grid, s->terms, s->shift, s->data) == RSP_BAD_ARGUMENT);
    s->shift[3] = NAN;
    CHECK(rsp_psf_draw(N, SIDE, TERMS, s->grid, s->terms, s->shift, s->data) == RSP_BAD_ARGUMENT);
    stars.side = 20;
    CHECK(rsp_psf_solve(&stars, s->precision, s->target, 1e-6, 9, s->grid, s->covariance, &steps) == RSP_BAD_SHAPE);
    free(s);
}

void test_psf(void) {
    grid_is_recovered_exactly();
    shifted_stars_give_the_same_grid();
    covariance_is_that_of_the_mean();
    stars_are_refitted();
    modes_are_measured();
    bad_arguments_are_refused();
}
