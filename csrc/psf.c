/* psf.c: a PSF whose pixels are polynomials of the position: drawn for stars, fitted to stars, and stars fitted with it.
 *
 * The model of star s on its own pixels is f M(d) sum_m terms[s][m] grid[m] + sky, where M moves a stamp by d as
 * rsp_move_psf does, in double precision. M is nearly a rotation, so the normal equations are nearly diagonal in the grid's
 * pixels: conjugate gradients with one small block per pixel converge in five to ten steps, and no matrix is ever formed.
 * The inverse blocks are also the errors of the coefficients. Bound by arithmetic: 22 + n_terms products per pixel. */
#include "stamp.h"

enum { TAPS = RSP_SHIFT_TAPS, REACH = 3, BORDER = TAPS / 2 + REACH, MAX_TERMS = 12, MAX_MODES = 8, N_STAR = 4, ROOM = 8 };

#define INLINE static inline __attribute__((always_inline))

typedef double taps[TAPS];

/* Planes of one star: [side][side], and two that have room for the taps. */
typedef struct {
    int64_t side, wide;
    double *padded;         /* [wide][wide]: zero about the stamp */
    double *along, *slope;  /* [wide][side]: moved along x; zero above and below the stamp */
    double *stamp, *model, *dx, *dy; /* [side][side] */
} planes;

static int allocate(planes *p, int64_t side) {
    const int64_t wide = side + 2 * BORDER, area = side * side;
    memset(p, 0, sizeof *p);
    p->side = side;
    p->wide = wide;
    p->padded = calloc((size_t)(wide * wide + 2 * (wide * side + ROOM) + 4 * area + ROOM), sizeof(double));
    if (!p->padded) return 0;
    p->along = p->padded + wide * wide + ROOM;
    p->slope = p->along + wide * side + ROOM;
    p->stamp = p->slope + wide * side;
    p->model = p->stamp + area;
    p->dx = p->model + area;
    p->dy = p->dx + area;
    return 1;
}

/* n sums of TAPS values, `step` apart. */
INLINE void slide(const double *restrict from, int64_t step, int64_t n, const double *w, double *restrict out) {
    const double w0 = w[0], w1 = w[1], w2 = w[2], w3 = w[3], w4 = w[4], w5 = w[5], w6 = w[6], w7 = w[7], w8 = w[8],
                 w9 = w[9], w10 = w[10];
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        const double *p = from + i;
        out[i] = ((w0 * p[0] + w1 * p[step]) + (w2 * p[2 * step] + w3 * p[3 * step])) +
                 ((w4 * p[4 * step] + w5 * p[5 * step]) + (w6 * p[6 * step] + w7 * p[7 * step])) +
                 (w8 * p[8 * step] + w9 * p[9 * step] + w10 * p[10 * step]);
    }
}

/* Rows moved along x. Whole vectors: what a row writes beyond its end, the next one writes over. */
INLINE void move_rows(const planes *p, int64_t ix, const double *wx, double *restrict out) {
    for (int64_t y = 0; y < p->side; y++)
        slide(p->padded + (y + BORDER) * p->wide + BORDER - ix - TAPS / 2, 1, rsp_vectors(p->side), wx,
              out + (y + BORDER) * p->side);
    memset(out + (p->side + BORDER) * p->side, 0, ROOM * sizeof(double));
}

INLINE void move_columns(const planes *p, const double *from, int64_t iy, const double *wy, double *restrict out) {
    slide(from + (BORDER - iy - TAPS / 2) * p->side, p->side, p->side * p->side, wy, out);
}

INLINE void pad(planes *p, const double *from) {
    for (int64_t y = 0; y < p->side; y++)
        memcpy(p->padded + (y + BORDER) * p->wide + BORDER, from + y * p->side, (size_t)p->side * sizeof(double));
}

/* Taps of one star's shift: whole pixels and weights, along x then y. */
typedef struct {
    int64_t ix, iy;
    taps wx, wy, sx, sy;
} shift;

static void set_shift(shift *s, const double *d) {
    s->ix = lrint(d[0]);
    s->iy = lrint(d[1]);
    rsp_shift_taps(d[0] - (double)s->ix, s->wx, s->sx);
    rsp_shift_taps(d[1] - (double)s->iy, s->wy, s->sy);
}

/* The polynomial at one star's place. */
RSP_SIMD static void evaluate(const double *restrict grid, const double *restrict terms, int64_t n_terms, int64_t area,
                              double *restrict out) {
#pragma omp simd
    for (int64_t k = 0; k < area; k++) out[k] = terms[0] * grid[k];
    for (int64_t m = 1; m < n_terms; m++) {
        const double t = terms[m], *plane = grid + m * area;
#pragma omp simd
        for (int64_t k = 0; k < area; k++) out[k] += t * plane[k];
    }
}

RSP_SIMD static void draw(planes *p, const double *from, const shift *s, double *out) {
    pad(p, from);
    move_rows(p, s->ix, s->wx, p->along);
    move_columns(p, p->along, s->iy, s->wy, out);
}

/* Model and its derivatives with respect to the star's position. */
RSP_SIMD static void draw_with_slopes(planes *p, const double *from, const shift *s) {
    pad(p, from);
    move_rows(p, s->ix, s->wx, p->along);
    move_rows(p, s->ix, s->sx, p->slope);
    move_columns(p, p->along, s->iy, s->wy, p->model);
    move_columns(p, p->slope, s->iy, s->wy, p->dx);
    move_columns(p, p->along, s->iy, s->sy, p->dy);
}

/* The transpose of draw. */
RSP_SIMD static void draw_back(planes *p, const double *from, const shift *s, double *out) {
    taps fx, fy;
    for (int k = 0; k < TAPS; k++) {
        fx[k] = s->wx[TAPS - 1 - k];
        fy[k] = s->wy[TAPS - 1 - k];
    }
    pad(p, from);
    move_rows(p, -s->ix, fx, p->along);
    move_columns(p, p->along, -s->iy, fy, out);
}

static int shifts_fit(const double *shifts, int64_t n) {
    for (int64_t i = 0; i < 2 * n; i++)
        if (!(fabs(shifts[i]) < REACH - 0.5)) return 0;
    return 1;
}

RSP_API rsp_status rsp_psf_draw(int64_t n, int64_t side, int64_t n_terms, const double *grid, const double *terms,
                                const double *shifts, double *restrict out_model) {
    RSP_CHECK(n >= 0 && side > 0 && side % 2 == 1 && side <= RSP_MAX_PSF, RSP_BAD_SHAPE);
    RSP_CHECK(n_terms > 0 && n_terms <= MAX_TERMS, RSP_BAD_SHAPE);
    RSP_CHECK(shifts_fit(shifts, n), RSP_BAD_ARGUMENT);
    planes p;
    if (!allocate(&p, side)) return rsp_fail(RSP_NO_MEMORY, "stamps of side %lld", (long long)side);
    for (int64_t i = 0; i < n; i++) {
        shift s;
        set_shift(&s, shifts + 2 * i);
        evaluate(grid, terms + i * n_terms, n_terms, side * side, p.stamp);
        draw(&p, p.stamp, &s, out_model + i * side * side);
    }
    free(p.padded);
    return RSP_OK;
}

/* ---- the grid ---- */

typedef struct {
    const rsp_psf_stars *stars;
    const double *precision; /* [n_terms][area] */
    shift *shifts;           /* [n] */
    double *scaled;          /* [n][area] weight times flux^2 */
    double *inverse;         /* [n_terms][n_terms][area] */
    planes p;
} equations;

/* out[m] += terms[m] * plane */
RSP_SIMD static void spread(const double *restrict plane, const double *restrict terms, int64_t n_terms, int64_t area,
                            double *restrict out) {
    for (int64_t m = 0; m < n_terms; m++) {
        const double t = terms[m];
        double *restrict to = out + m * area;
#pragma omp simd
        for (int64_t k = 0; k < area; k++) to[k] += t * plane[k];
    }
}

RSP_SIMD static void multiply(const double *restrict by, int64_t n, double *restrict inout) {
#pragma omp simd
    for (int64_t k = 0; k < n; k++) inout[k] *= by[k];
}

RSP_SIMD static double dot(const double *restrict a, const double *restrict b, int64_t n) {
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < n; k++) sum += a[k] * b[k];
    return sum;
}

RSP_SIMD static void add_scaled(double factor, const double *restrict x, int64_t n, double *restrict inout) {
#pragma omp simd
    for (int64_t k = 0; k < n; k++) inout[k] += factor * x[k];
}

/* The matrix of the normal equations times x. */
static void apply(equations *e, const double *x, double *restrict out) {
    const rsp_psf_stars *stars = e->stars;
    const int64_t area = stars->side * stars->side, n_terms = stars->n_terms;
    memcpy(out, x, (size_t)(n_terms * area) * sizeof(double));
    multiply(e->precision, n_terms * area, out);
    for (int64_t i = 0; i < stars->n; i++) {
        const double *terms = stars->terms + i * n_terms;
        evaluate(x, terms, n_terms, area, e->p.stamp);
        draw(&e->p, e->p.stamp, e->shifts + i, e->p.model);
        multiply(e->scaled + i * area, area, e->p.model);
        draw_back(&e->p, e->p.model, e->shifts + i, e->p.stamp);
        spread(e->p.stamp, terms, n_terms, area, out);
    }
}

/* z = blocks^-1 r */
RSP_SIMD static void precondition(const double *restrict inverse, const double *restrict r, int64_t n_terms, int64_t area,
                                  double *restrict z) {
    memset(z, 0, (size_t)(n_terms * area) * sizeof(double));
    for (int64_t a = 0; a < n_terms; a++)
        for (int64_t b = 0; b < n_terms; b++) {
            const double *restrict block = inverse + (a * n_terms + b) * area, *restrict from = r + b * area;
            double *restrict to = z + a * area;
#pragma omp simd
            for (int64_t k = 0; k < area; k++) to[k] += block[k] * from[k];
        }
}

/* Inverse of a symmetric positive matrix in place, by Gauss and Jordan; 0 if it is singular. */
static int invert(double *m, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const double pivot = m[i * n + i];
        if (!(pivot > 0.0 && isfinite(pivot))) return 0;
        m[i * n + i] = 1.0;
        for (int64_t j = 0; j < n; j++) m[i * n + j] /= pivot;
        for (int64_t k = 0; k < n; k++) {
            if (k == i) continue;
            const double factor = m[k * n + i];
            m[k * n + i] = 0.0;
            for (int64_t j = 0; j < n; j++) m[k * n + j] -= factor * m[i * n + j];
        }
    }
    return 1;
}

/* Per pixel of the grid: inverse of precision + sum over stars of terms terms^T (taps^2 weight flux^2). */
static rsp_status make_blocks(equations *e) {
    const rsp_psf_stars *stars = e->stars;
    const int64_t area = stars->side * stars->side, n = stars->n_terms;
    double block[MAX_TERMS * MAX_TERMS];
    memset(e->inverse, 0, (size_t)(n * n * area) * sizeof(double));
    for (int64_t i = 0; i < stars->n; i++) {
        shift squared = e->shifts[i];
        const double *terms = stars->terms + i * n;
        for (int k = 0; k < TAPS; k++) {
            squared.wx[k] *= squared.wx[k];
            squared.wy[k] *= squared.wy[k];
        }
        draw_back(&e->p, e->scaled + i * area, &squared, e->p.stamp);
        for (int64_t a = 0; a < n; a++)
            for (int64_t b = 0; b < n; b++) add_scaled(terms[a] * terms[b], e->p.stamp, area, e->inverse + (a * n + b) * area);
    }
    for (int64_t k = 0; k < area; k++) {
        for (int64_t c = 0; c < n * n; c++) block[c] = e->inverse[c * area + k];
        for (int64_t a = 0; a < n; a++) block[a * n + a] += e->precision[a * area + k];
        if (!invert(block, n))
            return rsp_fail(RSP_BAD_ARGUMENT, "rsp_psf_solve: no data and no prior at pixel %lld", (long long)k);
        for (int64_t c = 0; c < n * n; c++) e->inverse[c * area + k] = block[c];
    }
    return RSP_OK;
}

/* The right-hand side: the stars' light brought back to the grid, and the prior. */
static void make_right(equations *e, const double *target, double *restrict out) {
    const rsp_psf_stars *stars = e->stars;
    const int64_t area = stars->side * stars->side, n_terms = stars->n_terms;
    memcpy(out, target, (size_t)(n_terms * area) * sizeof(double));
    multiply(e->precision, n_terms * area, out);
    for (int64_t i = 0; i < stars->n; i++) {
        const double flux = stars->flux[i], sky = stars->sky[i], *data = stars->data + i * area, *w = stars->weight + i * area;
        for (int64_t k = 0; k < area; k++) e->p.model[k] = w[k] > 0.0 ? flux * w[k] * (data[k] - sky) : 0.0;
        draw_back(&e->p, e->p.model, e->shifts + i, e->p.stamp);
        spread(e->p.stamp, stars->terms + i * n_terms, n_terms, area, out);
    }
}

static void solve(equations *e, const double *target, double tolerance, int64_t most, double *work, double *inout_grid,
                  int64_t *out_steps) {
    const int64_t n_terms = e->stars->n_terms, area = e->stars->side * e->stars->side, n = n_terms * area;
    double *r = work, *z = work + n, *direction = work + 2 * n, *image = work + 3 * n;
    make_right(e, target, r);
    precondition(e->inverse, r, n_terms, area, z);
    const double limit = tolerance * tolerance * dot(r, z, n);
    apply(e, inout_grid, image);
    add_scaled(-1.0, image, n, r);
    precondition(e->inverse, r, n_terms, area, z);
    memcpy(direction, z, (size_t)n * sizeof(double));
    double energy = dot(r, z, n);
    for (*out_steps = 0; *out_steps < most && energy > limit; ++*out_steps) {
        apply(e, direction, image);
        const double alpha = energy / dot(direction, image, n), last = energy;
        add_scaled(alpha, direction, n, inout_grid);
        add_scaled(-alpha, image, n, r);
        precondition(e->inverse, r, n_terms, area, z);
        energy = dot(r, z, n);
        for (int64_t k = 0; k < n; k++) direction[k] = z[k] + energy / last * direction[k];
    }
}

RSP_API rsp_status rsp_psf_solve(const rsp_psf_stars *stars, const double *precision, const double *target, double tolerance,
                                 int64_t most, double *inout_grid, double *restrict out_covariance, int64_t *out_steps) {
    RSP_CHECK(stars->n > 0 && stars->side > 0 && stars->side % 2 == 1 && stars->side <= RSP_MAX_PSF, RSP_BAD_SHAPE);
    RSP_CHECK(stars->n_terms > 0 && stars->n_terms <= MAX_TERMS, RSP_BAD_SHAPE);
    RSP_CHECK(tolerance > 0.0 && most > 0, RSP_BAD_ARGUMENT);
    RSP_CHECK(shifts_fit(stars->shift, stars->n), RSP_BAD_ARGUMENT);
    const int64_t n = stars->n, area = stars->side * stars->side, n_terms = stars->n_terms;
    rsp_status status = RSP_OK;
    equations e = {.stars = stars, .precision = precision, .inverse = out_covariance};
    double *work = malloc((size_t)(4 * n_terms * area) * sizeof(double));
    e.scaled = malloc((size_t)(n * area) * sizeof(double));
    e.shifts = malloc((size_t)n * sizeof(shift));
    const int held = allocate(&e.p, stars->side);
    RSP_NEED(work && e.scaled && e.shifts && held, RSP_NO_MEMORY);
    for (int64_t i = 0; i < n; i++) {
        const double flux2 = stars->flux[i] * stars->flux[i];
        set_shift(e.shifts + i, stars->shift + 2 * i);
        for (int64_t k = i * area; k < (i + 1) * area; k++) e.scaled[k] = flux2 * stars->weight[k];
    }
    status = make_blocks(&e);
    if (status == RSP_OK) solve(&e, target, tolerance, most, work, inout_grid, out_steps);
done:
    free(work);
    free(e.scaled);
    free(e.shifts);
    free(e.p.padded);
    return status;
}

/* ---- the stars ---- */

RSP_SIMD static double star_chi2(const double *restrict model, const double *restrict data, const double *restrict weight,
                                 double flux, double sky, int64_t n) {
    double chi2 = 0.0;
#pragma omp simd reduction(+ : chi2)
    for (int64_t k = 0; k < n; k++) {
        const double w = weight[k], r = w > 0.0 ? data[k] - sky - flux * model[k] : 0.0;
        chi2 += w * r * r;
    }
    return chi2;
}

/* Sums over a star's pixels of the products of (P, f P_x, f P_y, 1), and of these with the residual. */
RSP_SIMD static void star_sums(const planes *p, const double *restrict data, const double *restrict weight, double flux,
                                 double sky, double normal[N_STAR][N_STAR], double right[N_STAR]) {
    const double *restrict m = p->model, *restrict x = p->dx, *restrict y = p->dy;
    double pp = 0, px = 0, py = 0, p1 = 0, xx = 0, xy = 0, x1 = 0, yy = 0, y1 = 0, one = 0, rp = 0, rx = 0, ry = 0, r1 = 0;
#pragma omp simd reduction(+ : pp, px, py, p1, xx, xy, x1, yy, y1, one, rp, rx, ry, r1)
    for (int64_t k = 0; k < p->side * p->side; k++) {
        const double w = weight[k], r = w > 0.0 ? data[k] - sky - flux * m[k] : 0.0, wr = w * r;
        const double wm = w * m[k], wx = w * x[k], wy = w * y[k];
        pp += wm * m[k]; px += wm * x[k]; py += wm * y[k]; p1 += wm;
        xx += wx * x[k]; xy += wx * y[k]; x1 += wx;
        yy += wy * y[k]; y1 += wy;
        one += w;
        rp += wr * m[k]; rx += wr * x[k]; ry += wr * y[k]; r1 += wr;
    }
    const double n[N_STAR][N_STAR] = {{pp, flux * px, flux * py, p1},
                                      {flux * px, flux * flux * xx, flux * flux * xy, flux * x1},
                                      {flux * py, flux * flux * xy, flux * flux * yy, flux * y1},
                                      {p1, flux * x1, flux * y1, one}};
    memcpy(normal, n, sizeof n);
    right[0] = rp;
    right[1] = flux * rx;
    right[2] = flux * ry;
    right[3] = r1;
}

/* One Newton step of (flux, dx, dy, sky): positions move at most half a pixel. Returns 0 where the matrix is singular. */
static int step_star(double normal[N_STAR][N_STAR], const double right[N_STAR], const double *prior, double star[N_STAR]) {
    double change[N_STAR] = {0};
    normal[3][3] += prior[1];
    if (!invert(&normal[0][0], N_STAR)) return 0;
    for (int a = 0; a < N_STAR; a++)
        for (int b = 0; b < N_STAR; b++)
            change[a] += normal[a][b] * (right[b] + (b == 3 ? prior[1] * (prior[0] - star[3]) : 0.0));
    star[0] = fmax(star[0] + change[0], 0.1 * star[0]);
    for (int a = 1; a < 3; a++) star[a] = fmin(fmax(star[a] + fmin(fmax(change[a], -0.5), 0.5), 0.6 - REACH), REACH - 0.6);
    star[3] += change[3];
    return 1;
}

RSP_API rsp_status rsp_psf_refit(const rsp_psf_stars *stars, const double *grid, const double *sky_prior, int64_t steps,
                                 double *out_stars, double *restrict out_chi2) {
    RSP_CHECK(stars->n >= 0 && stars->side > 0 && stars->side % 2 == 1 && stars->side <= RSP_MAX_PSF, RSP_BAD_SHAPE);
    RSP_CHECK(stars->n_terms > 0 && stars->n_terms <= MAX_TERMS && steps >= 0, RSP_BAD_SHAPE);
    RSP_CHECK(shifts_fit(stars->shift, stars->n), RSP_BAD_ARGUMENT);
    const int64_t area = stars->side * stars->side;
    planes p;
    if (!allocate(&p, stars->side)) return rsp_fail(RSP_NO_MEMORY, "stamps of side %lld", (long long)stars->side);
    for (int64_t i = 0; i < stars->n; i++) {
        double *star = out_stars + N_STAR * i, normal[N_STAR][N_STAR], right[N_STAR];
        const double *data = stars->data + i * area, *weight = stars->weight + i * area;
        star[0] = stars->flux[i];
        star[1] = stars->shift[2 * i];
        star[2] = stars->shift[2 * i + 1];
        star[3] = stars->sky[i];
        evaluate(grid, stars->terms + i * stars->n_terms, stars->n_terms, area, p.stamp);
        for (int64_t step = 0;; step++) {
            shift s;
            set_shift(&s, star + 1);
            if (step == steps) {
                draw(&p, p.stamp, &s, p.model);
                out_chi2[i] = star_chi2(p.model, data, weight, star[0], star[3], area);
                break;
            }
            draw_with_slopes(&p, p.stamp, &s);
            star_sums(&p, data, weight, star[0], star[3], normal, right);
            if (!step_star(normal, right, sky_prior + 2 * i, star)) {
                out_chi2[i] = NAN;
                break;
            }
        }
    }
    free(p.padded);
    return RSP_OK;
}

/* ---- the stars' shapes ---- */

/* normal += weighted products of the planes, right += those with the residual; a plane of ones, the sky, comes last. */
RSP_SIMD static void plane_sums(const double *restrict planes, int64_t n_planes, const double *restrict residual,
                                const double *restrict weight, int64_t area, double *restrict work, double *normal,
                                double *right) {
    for (int64_t a = 0; a <= n_planes; a++) {
        const double *plane = planes + a * area;
        double sum = 0.0, light = 0.0;
#pragma omp simd reduction(+ : sum, light)
        for (int64_t k = 0; k < area; k++) {
            work[k] = a < n_planes ? weight[k] * plane[k] : weight[k];
            sum += work[k];
            light += work[k] * residual[k];
        }
        right[a] = light;
        normal[a * (n_planes + 1) + n_planes] = normal[n_planes * (n_planes + 1) + a] = sum;
        for (int64_t b = 0; b <= a && b < n_planes; b++)
            normal[a * (n_planes + 1) + b] = normal[b * (n_planes + 1) + a] = dot(work, planes + b * area, area);
    }
}

RSP_API rsp_status rsp_psf_modes(const rsp_psf_stars *stars, const double *grid, const double *sky_prior, int64_t n_modes,
                                 const double *modes, double *restrict out_amplitude, double *restrict out_covariance) {
    RSP_CHECK(stars->n >= 0 && stars->side > 0 && stars->side % 2 == 1 && stars->side <= RSP_MAX_PSF, RSP_BAD_SHAPE);
    RSP_CHECK(stars->n_terms > 0 && stars->n_terms <= MAX_TERMS && n_modes > 0 && n_modes <= MAX_MODES, RSP_BAD_SHAPE);
    RSP_CHECK(shifts_fit(stars->shift, stars->n), RSP_BAD_ARGUMENT);
    const int64_t area = stars->side * stars->side, n_planes = n_modes + 3, n = n_planes + 1;
    rsp_status status = RSP_OK;
    planes p = {0};
    double *drawn = malloc((size_t)((n_planes + 2) * area) * sizeof(double)), *residual = drawn + n_planes * area;
    RSP_NEED(drawn && allocate(&p, stars->side), RSP_NO_MEMORY);
    for (int64_t i = 0; i < stars->n; i++) {
        double normal[(MAX_MODES + 4) * (MAX_MODES + 4)], right[MAX_MODES + 4];
        const double flux = stars->flux[i], *data = stars->data + i * area, *weight = stars->weight + i * area;
        shift s;
        set_shift(&s, stars->shift + 2 * i);
        for (int64_t m = 0; m < n_modes; m++) draw(&p, modes + m * area, &s, drawn + m * area);
        evaluate(grid, stars->terms + i * stars->n_terms, stars->n_terms, area, p.stamp);
        draw_with_slopes(&p, p.stamp, &s);
        for (int k = 0; k < 3; k++)
            memcpy(drawn + (n_modes + k) * area, k == 0 ? p.model : k == 1 ? p.dx : p.dy, (size_t)area * sizeof(double));
        for (int64_t k = 0; k < area; k++) residual[k] = weight[k] > 0.0 ? data[k] - stars->sky[i] - flux * p.model[k] : 0.0;
        plane_sums(drawn, n_planes, residual, weight, area, residual + area, normal, right);
        for (int64_t a = 0; a < n_planes; a++) { /* all but the sky in units of the flux */
            right[a] *= flux;
            for (int64_t b = 0; b < n; b++) normal[a * n + b] *= flux;
            for (int64_t b = 0; b < n; b++) normal[b * n + a] *= flux;
        }
        normal[n * n - 1] += sky_prior[2 * i + 1];
        right[n - 1] += sky_prior[2 * i + 1] * (sky_prior[2 * i] - stars->sky[i]);
        const int known = invert(normal, n);
        for (int64_t a = 0; a < n_modes; a++) {
            out_amplitude[i * n_modes + a] = known ? dot(normal + a * n, right, n) : 0.0;
            for (int64_t b = 0; b < n_modes; b++)
                out_covariance[(i * n_modes + a) * n_modes + b] = known ? normal[a * n + b] : a == b ? INFINITY : 0.0;
        }
    }
done:
    free(drawn);
    free(p.padded);
    return status;
}
