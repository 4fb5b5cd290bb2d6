/* measure.c: everything that is measured on one source, on one stamp that stays in the first-level cache.
 *
 * The PSF fit (position and flux) minimises sum (I - f P(x, y))^2 with equal weights: weights that follow the variance
 * plane, which holds the source's own noise, bias the flux. The errors carry the true variances through that estimator. */
#include "stamp.h"

enum { MAX_HALF = 160, FIT_STEPS = 12, AHEAD = 6 };

/* ---- stamps ---- */

rsp_status rsp_stamp_allocate(rsp_stamp *stamp, int64_t largest_half) {
    const size_t area = (size_t)((2 * largest_half + 1) * (rsp_vectors(2 * largest_half + 1) + 8) + 8);
    memset(stamp, 0, sizeof *stamp);
    stamp->value = malloc(5 * area * sizeof(float));
    if (!stamp->value) return rsp_fail(RSP_NO_MEMORY, "stamp of half side %lld", (long long)largest_half);
    stamp->parent = stamp->value + area;
    stamp->variance = stamp->parent + area;
    stamp->weight = stamp->variance + area;
    stamp->missing = stamp->weight + area;
    return RSP_OK;
}

void rsp_stamp_free(rsp_stamp *stamp) { free(stamp->value); }

/* Replace the image by the child's pixels inside the source's own footprint. */
static void put_child(rsp_stamp *stamp, const rsp_pixels *pixels, const rsp_sources *sources, int64_t i) {
    const int32_t *box = sources->child_boxes + 4 * i, label = sources->footprints[i] + 1;
    const float *child = sources->child_values + sources->child_offsets[i];
    const int64_t half = stamp->half;
    for (int64_t y = rsp_max(0, stamp->y - half); y <= rsp_min(pixels->ny - 1, stamp->y + half); y++)
        for (int64_t x = rsp_max(0, stamp->x - half); x <= rsp_min(pixels->nx - 1, stamp->x + half); x++) {
            if (pixels->labels[y * pixels->nx + x] != label) continue;
            const int64_t k = (y - stamp->y + half) * stamp->pitch + x - stamp->x + half;
            const int inside = x >= box[0] && x < box[2] && y >= box[1] && y < box[3];
            const float share = inside ? child[(y - box[1]) * (box[2] - box[0]) + x - box[0]] : 0.0f;
            if (stamp->missing[k] == 0.0f) stamp->value[k] = share;
        }
}

/* Columns of one row that lie on the image. Returns the union of the mask over the source's own footprint. */
RSP_SIMD static uint32_t fill_row(const rsp_stamp *stamp, const rsp_pixels *pixels, int64_t to, int64_t from, int64_t n,
                                  int32_t own) {
    float *restrict value = stamp->value + to, *restrict parent = stamp->parent + to, *restrict weight = stamp->weight + to;
    float *restrict variance = stamp->variance + to, *restrict missing = stamp->missing + to;
    const float *restrict image = pixels->image + from, *restrict noise = pixels->variance + from;
    const uint32_t *restrict mask = pixels->mask + from, never = pixels->never, reject = pixels->reject;
    const int32_t *restrict labels = pixels->labels ? pixels->labels + from : (const int32_t *)mask;
    const uint32_t rescue = pixels->rescue;
    const int32_t labelled = pixels->labels ? -1 : 0, real = own > 0 ? -1 : 0;
    uint32_t here = 0;
#pragma omp simd reduction(| : here)
    for (int64_t i = 0; i < n; i++) {
        const uint32_t m = mask[i];
        const int32_t label = labels[i] & labelled;
        const float v = image[i], u = noise[i];
        const int32_t good = -(((m & never) == 0) & (((m & reject) == 0) | ((m & rescue) != 0)) & (fabsf(v) < 3.0e38f) &
                               (u > 0.0f) & (u < 3.0e38f));
        const int32_t mine = good & -((label == 0) | (label == own));
        here |= label == own ? m & (uint32_t)real : 0u;
        missing[i] = rsp_only(1.0f, ~good);
        variance[i] = rsp_only(u, good);
        parent[i] = rsp_only(v, good);
        value[i] = rsp_only(v, mine);
        weight[i] = rsp_only(1.0f, mine);
    }
    return here;
}

/* Columns without data: from .. to of a row; `missing` counts within the side only. */
static inline void clear_row(rsp_stamp *stamp, int64_t row, int64_t from, int64_t to) {
    for (int64_t k = from; k < to; k++) {
        stamp->value[row + k] = stamp->parent[row + k] = stamp->variance[row + k] = stamp->weight[row + k] = 0.0f;
        stamp->missing[row + k] = k < stamp->side ? 1.0f : 0.0f;
    }
}

void rsp_stamp_fill(rsp_stamp *stamp, const rsp_pixels *pixels, const rsp_sources *sources, int64_t i, int64_t half) {
    const int32_t own = sources->footprints[i] + 1;
    stamp->half = half;
    stamp->side = 2 * half + 1;
    stamp->pitch = rsp_vectors(stamp->side + 7);
    stamp->here = stamp->centre = 0;
    const int64_t x0 = rsp_max(0, stamp->x - half), x1 = rsp_min(pixels->nx, stamp->x + half + 1), pitch = stamp->pitch;
    for (int64_t j = 0; j < stamp->side; j++) {
        const int64_t y = stamp->y - half + j, row = j * pitch, left = x0 - stamp->x + half;
        const int64_t n = y < 0 || y >= pixels->ny ? 0 : rsp_max(0, x1 - x0);
        const int64_t start = n > 0 ? left : 0, end = start + n;
        clear_row(stamp, row, 0, start);
        clear_row(stamp, row, end, pitch);
        for (int64_t k = 0; k < n && y + AHEAD < pixels->ny; k += 16) { /* rows of the image are far apart in memory */
            const int64_t next = (y + AHEAD) * pixels->nx + x0 + k;
            __builtin_prefetch(pixels->image + next);
            __builtin_prefetch(pixels->variance + next);
            __builtin_prefetch(pixels->mask + next);
            if (pixels->labels) __builtin_prefetch(pixels->labels + next);
        }
        if (n > 0) stamp->here |= fill_row(stamp, pixels, row + left, y * pixels->nx + x0, n, own);
    }
    for (int64_t y = rsp_max(0, stamp->y - 1); y <= rsp_min(pixels->ny - 1, stamp->y + 1); y++)
        for (int64_t x = rsp_max(0, stamp->x - 1); x <= rsp_min(pixels->nx - 1, stamp->x + 1); x++)
            stamp->centre |= pixels->mask[y * pixels->nx + x];
    if (pixels->labels && sources->child_offsets && sources->child_offsets[i] >= 0) put_child(stamp, pixels, sources, i);
}

/* ---- the fit ---- */

typedef struct {
    double pp, px, py, xx, yy, xy; /* products of P, P_x, P_y over the pixels that count */
    double ip, ix, iy;             /* and with the image */
} fit_sums;

RSP_SIMD static fit_sums sum_products(const rsp_stamp *stamp, const rsp_moved_psf *psf, const float *restrict data,
                                      const float *restrict scale) {
    const int64_t side = psf->side, pitch = psf->pitch, offset = stamp->half - side / 2;
    fit_sums sums = {0};
    for (int64_t j = 0; j < side; j++) {
        const int64_t first = (j + offset) * stamp->pitch + offset;
        const float *restrict weight = stamp->weight + first, *restrict value = data + first, *restrict by = scale + first;
        const float *restrict p = psf->value + j * pitch, *restrict x = psf->dx + j * pitch, *restrict y = psf->dy + j * pitch;
        float pp = 0, px = 0, py = 0, xx = 0, yy = 0, xy = 0, ip = 0, ix = 0, iy = 0;
#pragma omp simd reduction(+ : pp, px, py, xx, yy, xy, ip, ix, iy)
        for (int64_t i = 0; i < pitch; i++) {
            const float w = weight[i] * by[i], v = w * value[i];
            pp += w * p[i] * p[i];
            px += w * p[i] * x[i];
            py += w * p[i] * y[i];
            xx += w * x[i] * x[i];
            yy += w * y[i] * y[i];
            xy += w * x[i] * y[i];
            ip += v * p[i];
            ix += v * x[i];
            iy += v * y[i];
        }
        sums.pp += pp; sums.px += px; sums.py += py; sums.xx += xx; sums.yy += yy; sums.xy += xy;
        sums.ip += ip; sums.ix += ix; sums.iy += iy;
    }
    return sums;
}

typedef double matrix3[3][3];

/* Inverse of a symmetric positive matrix; 0 if it is singular. */
static int invert3(const matrix3 m, matrix3 out) {
    const double a = m[1][1] * m[2][2] - m[1][2] * m[1][2], b = m[0][2] * m[1][2] - m[0][1] * m[2][2];
    const double c = m[0][1] * m[1][2] - m[0][2] * m[1][1], determinant = m[0][0] * a + m[0][1] * b + m[0][2] * c;
    if (!(determinant > 1e-12 * m[0][0] * m[1][1] * m[2][2])) return 0;
    out[0][0] = a / determinant;
    out[0][1] = out[1][0] = b / determinant;
    out[0][2] = out[2][0] = c / determinant;
    out[1][1] = (m[0][0] * m[2][2] - m[0][2] * m[0][2]) / determinant;
    out[1][2] = out[2][1] = (m[0][1] * m[0][2] - m[0][0] * m[1][2]) / determinant;
    out[2][2] = (m[0][0] * m[1][1] - m[0][1] * m[0][1]) / determinant;
    return 1;
}

static void fill_matrix(const fit_sums *s, double flux, matrix3 m) {
    m[0][0] = s->pp;
    m[0][1] = m[1][0] = flux * s->px;
    m[0][2] = m[2][0] = flux * s->py;
    m[1][1] = flux * flux * s->xx;
    m[2][2] = flux * flux * s->yy;
    m[1][2] = m[2][1] = flux * flux * s->xy;
}

typedef struct {
    double x, y, flux; /* position from the stamp's middle pixel */
    int moved;         /* the position was fitted */
} psf_fit;

/* Gauss-Newton on (flux, x, y) from *fit, where the PSF stands and has the sums `s`. Sets fit->moved where it converges,
 * the PSF then being within a thousandth of a pixel of it; else *fit is left as it was. */
static void fit_position(const rsp_stamp *stamp, rsp_moved_psf *psf, const float *ones, double max_shift, fit_sums s,
                         psf_fit *fit) {
    double x = fit->x, y = fit->y;
    for (int step = 0; step < FIT_STEPS; step++) {
        matrix3 normal, inverse;
        const double flux = s.ip / s.pp;
        if (!(flux > 0.0) || !isfinite(flux)) return;
        fill_matrix(&s, flux, normal);
        if (!invert3((const double(*)[3])normal, inverse)) return;
        const double rx = flux * (s.ix - flux * s.px), ry = flux * (s.iy - flux * s.py);
        double step_x = inverse[1][1] * rx + inverse[1][2] * ry, step_y = inverse[1][2] * rx + inverse[2][2] * ry;
        const double length = hypot(step_x, step_y), shorten = length > 0.7 ? 0.7 / length : 1.0;
        x += shorten * step_x;
        y += shorten * step_y;
        if (!(hypot(x - fit->x, y - fit->y) <= max_shift)) return;
        if (length < 1e-3) { /* the next step would be shorter than a tenth of this */
            fit->x = x;
            fit->y = y;
            fit->moved = 1;
            return;
        }
        rsp_move_psf(psf, x, y);
        s = sum_products(stamp, psf, stamp->value, ones);
    }
}

/* Errors of flux and position: the true variances carried through the unweighted estimator. */
static void propagate_errors(const rsp_stamp *stamp, const rsp_moved_psf *psf, const float *ones, const psf_fit *fit,
                             double correlation, double *out) {
    matrix3 normal, inverse, noise, half, covariance;
    const fit_sums s = sum_products(stamp, psf, stamp->value, ones);
    const fit_sums v = sum_products(stamp, psf, stamp->value, stamp->variance);
    const double flux = s.ip / s.pp;
    out[RSP_PSF_FLUX] = flux;
    out[RSP_PSF_FLUX_ERR] = sqrt(correlation * v.pp) / s.pp;
    if (!(fabs(flux) > 0.0)) return;
    fill_matrix(&s, flux, normal);
    fill_matrix(&v, flux, noise);
    if (!invert3((const double(*)[3])normal, inverse)) return;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            half[i][j] = 0.0;
            for (int k = 0; k < 3; k++) half[i][j] += inverse[i][k] * noise[k][j];
        }
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            covariance[i][j] = 0.0;
            for (int k = 0; k < 3; k++) covariance[i][j] += half[i][k] * inverse[k][j];
        }
    out[RSP_X_ERR] = sqrt(correlation * covariance[1][1]);
    out[RSP_Y_ERR] = sqrt(correlation * covariance[2][2]);
    out[RSP_XY_COV] = correlation * covariance[1][2];
    if (fit->moved) out[RSP_PSF_FLUX_ERR] = sqrt(correlation * covariance[0][0]);
}

/* How much broader than the PSF: the second moment [pixel^2 per axis] of the small kernel that the PSF would have to be
 * convolved with, to first order: the fit of P + e (G - P), G the PSF convolved with [c, 1 - 2c, c] along x and y. */
RSP_SIMD static void measure_excess(const rsp_stamp *stamp, rsp_moved_psf *psf, double correlation, double *out) {
    const int64_t side = psf->side, pitch = psf->pitch, offset = stamp->half - side / 2;
    const float c = 0.25f;
    float *restrict across = psf->broad;
    for (int64_t j = 0; j < side; j++) {
        const float *restrict p = psf->value + j * pitch;
        across[j * pitch] = (1.0f - 2.0f * c) * p[0] + c * p[1];
        for (int64_t i = 1; i + 1 < pitch; i++) across[j * pitch + i] = (1.0f - 2.0f * c) * p[i] + c * (p[i - 1] + p[i + 1]);
        across[j * pitch + pitch - 1] = (1.0f - 2.0f * c) * p[pitch - 1] + c * p[pitch - 2];
    }
    double gi = 0, pi = 0, gp = 0, pp = 0, gg = 0, vgg = 0, vgp = 0, vpp = 0;
    for (int64_t j = 0; j < side; j++) {
        const float *restrict here = across + j * pitch, *restrict p = psf->value + j * pitch;
        const float *restrict above = j > 0 ? here - pitch : here, *restrict below = j + 1 < side ? here + pitch : here;
        const float up = j > 0 ? c : 0.0f, down = j + 1 < side ? c : 0.0f;
        const int64_t first = (j + offset) * stamp->pitch + offset;
        const float *restrict weight = stamp->weight + first, *restrict value = stamp->value + first;
        const float *restrict variance = stamp->variance + first;
        float rgi = 0, rpi = 0, rgp = 0, rpp = 0, rgg = 0, rvgg = 0, rvgp = 0, rvpp = 0;
#pragma omp simd reduction(+ : rgi, rpi, rgp, rpp, rgg, rvgg, rvgp, rvpp)
        for (int64_t i = 0; i < pitch; i++) {
            const float g = (1.0f - 2.0f * c) * here[i] + up * above[i] + down * below[i], w = weight[i], v = w * variance[i];
            rgi += w * g * value[i];
            rpi += w * p[i] * value[i];
            rgp += w * g * p[i];
            rpp += w * p[i] * p[i];
            rgg += w * g * g;
            rvgg += v * g * g;
            rvgp += v * g * p[i];
            rvpp += v * p[i] * p[i];
        }
        gi += rgi; pi += rpi; gp += rgp; pp += rpp; gg += rgg; vgg += rvgg; vgp += rvgp; vpp += rvpp;
    }
    /* gi / pi = gp / pp + e (response), e the broadening in units of the kernel's second moment, 2 c per axis */
    const double ratio = gi / pi, response = (gg - gp) / pp - gp / pp * (gp - pp) / pp;
    const double power = vgg - 2.0 * ratio * vgp + ratio * ratio * vpp;
    if (!(pi > 0.0) || !(response > 0.0)) return;
    out[RSP_EXCESS] = 2.0 * c * (ratio - gp / pp) / response;
    out[RSP_EXCESS_ERR] = 2.0 * c * sqrt(correlation * fmax(power, 0.0)) / (pi * response);
}

/* ---- one source ---- */

typedef struct {
    rsp_stamp stamp, psf_stamp;
    rsp_moved_psf psf;
    float *ones;
    float psf_plane[RSP_MAX_PSF * RSP_PSF_WIDE]; /* zero beyond the PSF */
    double *circle;
} workspace;

/* Sum of squares of the values of n rows. */
RSP_SIMD static double sum_squares(const float *restrict value, int64_t n_rows, int64_t pitch) {
    double sum = 0.0;
    for (int64_t j = 0; j < n_rows; j++) {
        float row = 0.0f;
#pragma omp simd reduction(+ : row)
        for (int64_t i = 0; i < pitch; i++) row += value[j * pitch + i] * value[j * pitch + i];
        sum += (double)row;
    }
    return sum;
}

/* Adaptive moments of the PSF itself, which is the start for the source's. Returns 0 if they exist. */
static int measure_psf_shape(workspace *w, const float *psf, int64_t side, rsp_ellipse *shape, double *out) {
    double error[3];
    w->psf_stamp.half = side / 2;
    w->psf_stamp.side = side;
    w->psf_stamp.pitch = rsp_vectors(side + 7);
    w->psf_stamp.value = w->psf_stamp.parent = w->psf_plane;
    w->psf_stamp.variance = w->ones;
    for (int64_t y = 0; y < side; y++)
        memcpy(w->psf_plane + y * w->psf_stamp.pitch, psf + y * side, (size_t)side * sizeof(float));
    *shape = (rsp_ellipse){0.0, 0.0, 2.0, 2.0, 0.0};
    if (rsp_adaptive_moments(&w->psf_stamp, shape, error, NULL)) return 1;
    out[RSP_IXX_PSF] = shape->xx;
    out[RSP_IYY_PSF] = shape->yy;
    out[RSP_IXY_PSF] = shape->xy;
    return 0;
}

static uint32_t fit_psf_model(workspace *w, const rsp_sources *sources, int64_t i, double max_shift, double *out,
                              psf_fit *fit) {
    const double correlation = sources->correlation ? sources->correlation[i] : 1.0;
    uint32_t flags = 0;
    rsp_move_psf(&w->psf, fit->x, fit->y);
    const fit_sums at_start = sum_products(&w->stamp, &w->psf, w->stamp.value, w->ones);
    const double whole = sum_squares(w->psf.value, w->psf.side, w->psf.pitch);
    if (!(at_start.pp > 0.2 * whole)) return RSP_NO_PIXELS | RSP_NO_CENTROID;
    if (!(at_start.pp > 0.9 * whole)) flags |= RSP_PSF_CUT;
    if (max_shift > 0.0) {
        fit_position(&w->stamp, &w->psf, w->ones, max_shift, at_start, fit);
        if (!fit->moved) {
            flags |= RSP_NO_CENTROID;
            rsp_move_psf(&w->psf, fit->x, fit->y);
        }
    }
    out[RSP_PSF_AREA] = 1.0 / whole;
    propagate_errors(&w->stamp, &w->psf, w->ones, fit, correlation, out);
    measure_excess(&w->stamp, &w->psf, correlation, out);
    return flags;
}

static uint32_t measure_shape(workspace *w, const rsp_pixels *pixels, const rsp_sources *sources, int64_t i,
                              const psf_fit *fit, rsp_ellipse shape, int64_t half, double *out) {
    const double correlation = sources->correlation ? sources->correlation[i] : 1.0;
    const double smallest = 3.0 * pow(shape.xx * shape.yy - shape.xy * shape.xy, 0.25);
    double error[3], share = NAN, kron[4];
    uint32_t flags = 0;
    shape.dx = fit->x;
    shape.dy = fit->y;
    const rsp_ellipse psf_shape = shape;
    if (rsp_adaptive_moments(&w->stamp, &shape, error, &share)) {
        flags |= RSP_NO_SHAPE;
        shape = psf_shape;
    } else {
        out[RSP_IXX] = shape.xx;
        out[RSP_IYY] = shape.yy;
        out[RSP_IXY] = shape.xy;
        for (int k = 0; k < 3; k++) out[RSP_IXX_ERR + k] = error[k] * sqrt(correlation);
        out[RSP_BLENDEDNESS] = 1.0 - share;
    }
    const int64_t reach = (int64_t)ceil(6.0 * sqrt(fmax(shape.xx, shape.yy))) + 2;
    if (reach > half) rsp_stamp_fill(&w->stamp, pixels, sources, i, rsp_min(reach, MAX_HALF));
    if (rsp_kron_sum(&w->stamp, &shape, smallest, kron)) flags |= RSP_KRON_SMALLEST;
    if (kron[3] > 0.5) flags |= RSP_KRON_CUT;
    out[RSP_KRON_RADIUS] = kron[0];
    out[RSP_KRON_FLUX] = kron[1];
    out[RSP_KRON_FLUX_ERR] = sqrt(correlation * kron[2]);
    return flags;
}

static void measure_one(workspace *w, const rsp_pixels *pixels, const rsp_sources *sources, int64_t i, double max_shift,
                        int64_t n_radii, const double *radii, int64_t half, double *out, double *apertures,
                        uint32_t *flags, uint32_t *masks) {
    const double x = sources->xy[2 * i], y = sources->xy[2 * i + 1];
    const double correlation = sources->correlation ? sources->correlation[i] : 1.0;
    const float *psf = sources->psf + i * sources->psf_side * sources->psf_side;
    rsp_ellipse shape;
    for (int k = 0; k < RSP_N_MEASURED; k++) out[k] = NAN;
    for (int64_t k = 0; k < 3 * n_radii; k++) apertures[k] = NAN;
    masks[0] = masks[1] = 0;
    out[RSP_X] = x;
    out[RSP_Y] = y;
    *flags = RSP_OFF_IMAGE | RSP_NO_CENTROID | RSP_NO_PIXELS | RSP_NO_SHAPE | RSP_KRON_SMALLEST;
    if (!(x > -0.5 && y > -0.5 && x < (double)pixels->nx - 0.5 && y < (double)pixels->ny - 0.5)) return;
    w->stamp.x = lrint(x);
    w->stamp.y = lrint(y);
    rsp_stamp_fill(&w->stamp, pixels, sources, i, half);
    masks[0] = w->stamp.here | w->stamp.centre;
    masks[1] = w->stamp.centre;
    psf_fit fit = {x - (double)w->stamp.x, y - (double)w->stamp.y, 0.0, 0};
    *flags = 0;
    if (!isfinite(sum_squares(psf, sources->psf_side, sources->psf_side)) || measure_psf_shape(w, psf, sources->psf_side, &shape, out)) {
        *flags |= RSP_NO_PSF | RSP_NO_PIXELS | RSP_NO_CENTROID | RSP_NO_SHAPE | RSP_KRON_SMALLEST;
        shape = (rsp_ellipse){fit.x, fit.y, NAN, NAN, NAN};
    } else {
        rsp_set_psf(&w->psf, psf, sources->psf_side);
        *flags |= fit_psf_model(w, sources, i, max_shift, out, &fit);
        out[RSP_X] = (double)w->stamp.x + fit.x;
        out[RSP_Y] = (double)w->stamp.y + fit.y;
    }
    for (int64_t k = 0; k < n_radii; k++) {
        rsp_circle_sum(&w->stamp, fit.x, fit.y, radii[k], w->circle, apertures + 3 * k);
        apertures[3 * k + 1] = sqrt(correlation * apertures[3 * k + 1]);
    }
    if (!(*flags & RSP_NO_PSF)) *flags |= measure_shape(w, pixels, sources, i, &fit, shape, half, out);
}

RSP_API rsp_status rsp_measure(const rsp_pixels *pixels, const rsp_sources *sources, double max_shift, int64_t n_radii,
                               const double *restrict radii, double *restrict out_values, double *restrict out_apertures,
                               uint32_t *restrict out_flags, uint32_t *restrict out_masks) {
    RSP_CHECK(pixels->ny > 0 && pixels->nx > 0 && sources->n >= 0 && n_radii >= 0, RSP_BAD_SHAPE);
    RSP_CHECK(sources->psf_side % 2 == 1 && sources->psf_side >= 3 && sources->psf_side <= RSP_MAX_PSF, RSP_BAD_SHAPE);
    RSP_CHECK(max_shift >= 0.0 && max_shift <= 4.0, RSP_BAD_ARGUMENT);
    int64_t half = sources->psf_side / 2;
    for (int64_t k = 0; k < n_radii; k++) {
        RSP_CHECK(radii[k] > 0.0 && radii[k] < MAX_HALF - 8, RSP_BAD_ARGUMENT);
        half = rsp_max(half, (int64_t)ceil(radii[k] + max_shift) + 1);
    }
    rsp_status status = RSP_OK;
    const size_t area = (size_t)((2 * MAX_HALF + 1) * (2 * MAX_HALF + 32));
    workspace *w = calloc(1, sizeof *w);
    RSP_NEED(w, RSP_NO_MEMORY);
    status = rsp_stamp_allocate(&w->stamp, MAX_HALF);
    if (status != RSP_OK) goto done;
    w->ones = malloc(area * sizeof *w->ones);
    w->circle = malloc((size_t)(5 * (2 * MAX_HALF + 2)) * sizeof *w->circle);
    RSP_NEED(w->ones && w->circle, RSP_NO_MEMORY);
    for (size_t i = 0; i < area; i++) w->ones[i] = 1.0f;
    for (int64_t i = 0; i < sources->n; i++)
        measure_one(w, pixels, sources, i, max_shift, n_radii, radii, half, out_values + i * RSP_N_MEASURED,
                    out_apertures + 3 * i * n_radii, out_flags + i, out_masks + 2 * i);
done:
    if (w) {
        rsp_stamp_free(&w->stamp);
        free(w->ones);
        free(w->circle);
    }
    free(w);
    return status;
}
