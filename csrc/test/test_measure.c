#include "testing.h"

enum { N = 96, K = 25, RADII = 2 };

/* Gaussian of unit flux, sampled (wide enough that pixels need no integral). */
static float star(double x, double y, double sigma) {
    return (float)(exp(-0.5 * (x * x + y * y) / (sigma * sigma)) / (2.0 * M_PI * sigma * sigma));
}

typedef struct {
    float image[N * N], variance[N * N], psf[2 * K * K];
    uint32_t mask[N * N];
} scene;

static scene *make_scene(double x, double y, double flux, double width) {
    scene *s = calloc(1, sizeof *s);
    for (int j = 0; j < N; j++)
        for (int i = 0; i < N; i++) {
            s->image[j * N + i] = (float)(flux * star(i - x, j - y, width));
            s->variance[j * N + i] = 4.0f;
        }
    for (int k = 0; k < 2; k++)
        for (int j = 0; j < K; j++)
            for (int i = 0; i < K; i++) s->psf[(k * K + j) * K + i] = star(i - K / 2, j - K / 2, 2.0);
    return s;
}

typedef struct {
    double values[RSP_N_MEASURED], apertures[3 * RADII];
    uint32_t flags, masks[2];
} result;

static rsp_status run(const scene *s, double x, double y, double max_shift, result *r) {
    static const double radii[RADII] = {3.0, 14.0};
    const double xy[2] = {x, y};
    const int32_t footprint = -1;
    const rsp_pixels pixels = {N, N, s->image, s->variance, s->mask, NULL, 4, 1, 2};
    const rsp_sources sources = {.n = 1, .xy = xy, .footprints = &footprint, .psf_side = K, .psf = s->psf};
    return rsp_measure(&pixels, &sources, max_shift, RADII, radii, r->values, r->apertures, &r->flags, r->masks);
}

static void star_is_recovered_exactly(void) {
    scene *s = make_scene(40.3, 51.8, 5000.0, 2.0);
    result r;
    CHECK(run(s, 41.0, 51.0, 2.0, &r) == RSP_OK);
    CHECK(r.flags == 0);
    CHECK_CLOSE(r.values[RSP_X], 40.3, 2e-4);
    CHECK_CLOSE(r.values[RSP_Y], 51.8, 2e-4);
    CHECK_CLOSE(r.values[RSP_PSF_FLUX], 5000.0, 0.5);
    CHECK_CLOSE(r.values[RSP_PSF_FLUX_ERR], 2.0 * sqrt(4.0 * M_PI * 4.0), 0.01); /* sigma of pixel x sqrt(area) */
    CHECK_CLOSE(r.values[RSP_PSF_AREA], 16.0 * M_PI, 0.05);
    CHECK_CLOSE(r.values[RSP_X_ERR], 2.0 * sqrt(8.0 * M_PI) * 4.0 / 5000.0, 1e-5); /* sigma_pix sqrt(8 pi) s^2 / flux */
    CHECK_CLOSE(r.values[RSP_IXX], 4.0, 2e-3);
    CHECK_CLOSE(r.values[RSP_IYY], 4.0, 2e-3);
    CHECK_CLOSE(r.values[RSP_IXY], 0.0, 2e-3);
    CHECK_CLOSE(r.values[RSP_IXX_PSF], 4.0, 2e-3);
    CHECK_CLOSE(r.values[RSP_EXCESS], 0.0, 2e-3);
    CHECK_CLOSE(r.apertures[0], 5000.0 * (1.0 - exp(-0.5 * 9.0 / 4.083)), 25.0); /* flat pixels broaden by 1/12 */
    CHECK_CLOSE(r.apertures[1], 2.0 * sqrt(M_PI * 9.0), 0.7);                    /* less: edges enter as w^2 */
    CHECK_CLOSE(r.apertures[3], 5000.0, 0.1);
    CHECK(r.apertures[2] == 0.0 && r.apertures[5] == 0.0);
    CHECK_CLOSE(r.values[RSP_KRON_RADIUS], 2.0 * sqrt(M_PI / 2.0), 0.02);     /* first moment of a Gaussian */
    CHECK_CLOSE(r.values[RSP_KRON_FLUX], 5000.0 * (1.0 - exp(-0.5 * 6.25 * M_PI / 2.0)), 20.0);
    free(s);
}

static void broad_source_is_extended(void) {
    scene *s = make_scene(45.0, 45.0, 5000.0, sqrt(4.3));
    result r;
    CHECK(run(s, 45.0, 45.0, 0.0, &r) == RSP_OK);
    CHECK_CLOSE(r.values[RSP_EXCESS], 0.3, 0.03);
    CHECK_CLOSE(r.values[RSP_IXX], 4.3, 3e-3);
    CHECK(r.values[RSP_X] == 45.0);
    free(s);
}

static void missing_pixels_are_flagged(void) {
    scene *s = make_scene(40.0, 40.0, 5000.0, 2.0);
    result r;
    s->image[40 * N + 52] = NAN; /* within 14 pixels, without weight in the PSF */
    s->mask[40 * N + 41] = 1 | 2; /* rescued: counts, and shows in the mask at the centre */
    CHECK(run(s, 40.0, 40.0, 2.0, &r) == RSP_OK);
    CHECK(r.flags == 0 && r.masks[1] == 3);
    CHECK_CLOSE(r.values[RSP_PSF_FLUX], 5000.0, 0.5);
    CHECK(r.apertures[2] == 0.0);
    CHECK_CLOSE(r.apertures[5], 1.0, 1e-9);
    for (int j = 0; j < N; j++)
        for (int i = 0; i < 40; i++) s->mask[j * N + i] = 4; /* the left half is gone: the fit has the rest */
    CHECK(run(s, 40.0, 40.0, 0.0, &r) == RSP_OK);
    CHECK((r.flags & RSP_PSF_CUT) && !(r.flags & RSP_NO_PIXELS));
    CHECK_CLOSE(r.values[RSP_PSF_FLUX], 5000.0, 1.0);
    for (int i = 0; i < N * N; i++) s->mask[i] = 4;
    CHECK(run(s, 40.0, 40.0, 2.0, &r) == RSP_OK);
    CHECK((r.flags & RSP_NO_PIXELS) && isnan(r.values[RSP_PSF_FLUX]) && isnan(r.values[RSP_IXX]));
    CHECK(run(s, -7.0, 40.0, 2.0, &r) == RSP_OK);
    CHECK((r.flags & RSP_OFF_IMAGE) && isnan(r.values[RSP_PSF_FLUX]) && isnan(r.apertures[0]));
    s->psf[3] = NAN;
    CHECK(run(s, 40.0, 40.0, 2.0, &r) == RSP_OK);
    CHECK(r.flags & RSP_NO_PSF);
    CHECK(run(s, 40.0, 40.0, 9.0, &r) == RSP_BAD_ARGUMENT);
    free(s);
}

static void circle_areas_are_exact(void) {
    scene *s = calloc(1, sizeof *s);
    for (int i = 0; i < N * N; i++) s->image[i] = s->variance[i] = 1.0f;
    for (int i = 0; i < K * K; i++) s->psf[i] = star(i % K - K / 2, i / K - K / 2, 2.0);
    result r;
    for (int k = 0; k < 20; k++) {
        CHECK(run(s, 40.0 + 0.05 * k, 47.0 - 0.03 * k, 0.0, &r) == RSP_OK);
        CHECK_CLOSE(r.apertures[0], M_PI * 9.0, 1e-6);
        CHECK_CLOSE(r.apertures[3], M_PI * 196.0, 1e-5);
    }
    CHECK(run(s, 5.0, 47.0, 0.0, &r) == RSP_OK); /* over the left edge, which is at -0.5 */
    const double h = 5.5, segment = 196.0 * acos(h / 14.0) - h * sqrt(196.0 - h * h);
    CHECK_CLOSE(r.apertures[5], segment, 1e-5);
    free(s);
}

void test_measure(void) {
    star_is_recovered_exactly();
    broad_source_is_extended();
    missing_pixels_are_flagged();
    circle_areas_are_exact();
}
