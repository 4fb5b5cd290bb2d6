/* warp.c: resampling of image, variance and mask in one pass, and of PSF stamps with the same kernel.
 *
 * Kernel: Lanczos-3 (Duchon 1979), separable, its six weights per axis normalised to unit sum. Bound: arithmetic. A
 * tile of 32 x 32 output pixels sees a source patch that fits L1; per pixel 2 planes x 6 rows of one 8-wide load and FMA.
 * The taps are the vector's lanes (6 of 8 in use), because the rows of a window are contiguous and its columns are not. */
#include <float.h>
#include "internal.h"

#define INLINE static inline __attribute__((always_inline))
#define TILE 32
#define PHASES 512
#define WIDE 8
#define TINY_WEIGHT 1e-6f /* taps below it do not count: a shift by whole pixels keeps its edges */

typedef float vec __attribute__((vector_size(4 * WIDE)));
typedef int32_t pick __attribute__((vector_size(4 * WIDE)));

typedef struct {
    vec weight[PHASES + 1]; /* taps -2 .. +3 at phase p / PHASES; linear between: 2e-6. Two lanes are zero */
} kernel_table;

typedef struct { /* what the kernel reads */
    const float *image, *variance;
    const uint32_t *mask;
    int64_t ny, nx;
} source_planes;

typedef struct { /* one row of a tile: where its pixels come from, with which weights, and what they become */
    vec wx[TILE], wy[TILE], wx2[TILE], wy2[TILE];
    double x[TILE], y[TILE];
    int32_t ix[TILE], iy[TILE], kx[TILE], ky[TILE], fast[TILE], inside[TILE];
    float rx[TILE], ry[TILE], scale[TILE];
    int64_t at[TILE];
    float image[TILE], variance[TILE];
    uint32_t mask[TILE];
} tile_row;

typedef struct { /* pixels near bad ones, on the part of the source that a tile sees */
    uint8_t *flag, *near;
    int64_t x0, y0, nx, ny;
    uint32_t planes; /* OR of the masks */
    int any;         /* whether a pixel is bad */
    int whole;       /* whether no part of the tile's patch is off the source */
} near_map;

/* sinc(x) sinc(x / a), zero from |x| = a on, exact at whole numbers. */
static double lanczos(double x, double a) {
    if (fabs(x) >= a) return 0.0;
    if (fabs(x) < 1e-12) return 1.0;
    if (fabs(x - round(x)) < 1e-12) return 0.0;
    return a * sin(M_PI * x) * sin(M_PI * x / a) / (M_PI * M_PI * x * x);
}

/* The 2 a weights of taps 1 - a .. a at a fraction of a pixel, with unit sum. */
static void lanczos_weights(double fraction, int a, double *restrict out_weight) {
    double sum = 0.0;
    for (int k = 0; k < 2 * a; k++) sum += out_weight[k] = lanczos(k + 1 - a - fraction, a);
    for (int k = 0; k < 2 * a; k++) out_weight[k] /= sum;
}

static void fill_table(kernel_table *table) {
    for (int p = 0; p <= PHASES; p++) {
        double weight[6];
        lanczos_weights((double)p / PHASES, 3, weight);
        for (int k = 0; k < WIDE; k++) table->weight[p][k] = k < 6 ? (float)weight[k] : 0.0f;
    }
}

/* Power coefficients in t of the cubic through four values at t = -1, 0, 1, 2. */
INLINE void cubic(const double *p, double *restrict c) {
    c[0] = p[1];
    c[1] = p[2] - 0.5 * p[1] - (1.0 / 6.0) * (2.0 * p[0] + p[3]);
    c[2] = 0.5 * (p[0] + p[2]) - p[1];
    c[3] = (1.0 / 6.0) * (p[3] - p[0]) + 0.5 * (p[1] - p[2]);
}

/* The same on a tile: out_c[i][j] is the coefficient of (row / 32)^i (column / 32)^j. */
INLINE void bicubic(const double *grid, int64_t gnx, double out_c[4][4]) {
    double rows[4][4];
    for (int i = 0; i < 4; i++) cubic(grid + i * gnx, rows[i]);
    for (int j = 0; j < 4; j++) {
        const double column[4] = {rows[0][j], rows[1][j], rows[2][j], rows[3][j]};
        double c[4];
        cubic(column, c);
        for (int i = 0; i < 4; i++) out_c[i][j] = c[i];
    }
}

/* One row of a tile's bicubic at its 32 columns. */
INLINE void evaluate(double c[4][4], double v, double *restrict out) {
    double row[4];
    for (int j = 0; j < 4; j++) row[j] = ((c[3][j] * v + c[2][j]) * v + c[1][j]) * v + c[0][j];
    for (int j = 0; j < TILE; j++) {
        const double t = (double)j / TILE;
        out[j] = ((row[3] * t + row[2]) * t + row[1]) * t + row[0];
    }
}

/* The same in single precision, for the factor. */
INLINE void evaluate_factor(double c[4][4], double v, float *restrict out) {
    float row[4];
    for (int j = 0; j < 4; j++) row[j] = (float)(((c[3][j] * v + c[2][j]) * v + c[1][j]) * v + c[0][j]);
    for (int j = 0; j < TILE; j++) {
        const float t = (float)j / TILE;
        out[j] = ((row[3] * t + row[2]) * t + row[1]) * t + row[0];
    }
}

/* Whole pixels and phases; NaN and far positions go to -4, which is outside of every image. */
INLINE void split(int64_t ny, int64_t nx, tile_row *restrict r) {
    const double right = nx - 0.5, top = ny - 0.5;
    float px[TILE], py[TILE];
    for (int j = 0; j < TILE; j++) {
        const int inside = (r->x[j] >= -0.5) & (r->x[j] <= right) & (r->y[j] >= -0.5) & (r->y[j] <= top);
        const double x = inside ? r->x[j] : -4.0, y = inside ? r->y[j] : -4.0, fx = floor(x), fy = floor(y);
        r->inside[j] = inside;
        r->ix[j] = (int32_t)fx;
        r->iy[j] = (int32_t)fy;
        px[j] = (float)(x - fx) * PHASES;
        py[j] = (float)(y - fy) * PHASES;
    }
    for (int j = 0; j < TILE; j++) {
        const int32_t kx = (int32_t)px[j], ky = (int32_t)py[j];
        r->kx[j] = kx < PHASES - 1 ? kx : PHASES - 1;
        r->ky[j] = ky < PHASES - 1 ? ky : PHASES - 1;
        r->rx[j] = px[j] - (float)r->kx[j];
        r->ry[j] = py[j] - (float)r->ky[j];
    }
}

INLINE void weigh(const kernel_table *table, tile_row *restrict r) {
    for (int j = 0; j < TILE; j++) {
        const vec *tx = table->weight + r->kx[j], *ty = table->weight + r->ky[j];
        r->wx[j] = tx[0] + r->rx[j] * (tx[1] - tx[0]);
        r->wy[j] = ty[0] + r->ry[j] * (ty[1] - ty[0]);
        r->wx2[j] = r->wx[j] * r->wx[j];
        r->wy2[j] = r->wy[j] * r->wy[j];
    }
}

/* Which pixels have a clean window of 8 x 6 source pixels (8: the load is wider than the kernel; 0 x NaN is NaN). */
INLINE void classify(const source_planes *s, const near_map *near, tile_row *restrict r) {
    const int64_t nx = s->nx;
    if (near->whole && !near->any) {
        for (int j = 0; j < TILE; j++) {
            const int32_t x = r->ix[j] - 2, y = r->iy[j] - 2;
            const int fast = (x >= 0) & (y >= 0) & (x <= (int32_t)nx - WIDE) & (y <= (int32_t)s->ny - 6);
            r->fast[j] = fast;
            r->at[j] = fast ? y * nx + x : 0;
        }
        return;
    }
    for (int j = 0; j < TILE; j++) {
        int64_t x = r->ix[j] - 2 - near->x0, y = r->iy[j] - 2 - near->y0;
        int covered = (x >= 0) & (y >= 0) & (x + WIDE <= near->nx) & (y + 6 <= near->ny);
        r->fast[j] = covered && !(near->any && near->near[y * near->nx + x]);
        r->at[j] = r->fast[j] ? (r->iy[j] - 2) * nx + r->ix[j] - 2 : 0;
    }
}

/* Sums over the lanes of eight vectors: lane p of the result is the sum of the lanes of v[p]. */
INLINE void lane_sums(const vec *v, float *restrict out_sum) {
    const pick even = {0, 8, 2, 10, 4, 12, 6, 14}, odd = {1, 9, 3, 11, 5, 13, 7, 15};
    const pick low = {0, 1, 8, 9, 4, 5, 12, 13}, high = {2, 3, 10, 11, 6, 7, 14, 15};
    const pick first = {0, 1, 2, 3, 8, 9, 10, 11}, second = {4, 5, 6, 7, 12, 13, 14, 15};
    vec pair[4], four[2], all;
    for (int i = 0; i < 4; i++)
        pair[i] = __builtin_shuffle(v[2 * i], v[2 * i + 1], even) + __builtin_shuffle(v[2 * i], v[2 * i + 1], odd);
    for (int i = 0; i < 2; i++)
        four[i] = __builtin_shuffle(pair[2 * i], pair[2 * i + 1], low) +
                  __builtin_shuffle(pair[2 * i], pair[2 * i + 1], high);
    all = __builtin_shuffle(four[0], four[1], first) + __builtin_shuffle(four[0], four[1], second);
    memcpy(out_sum, &all, sizeof all);
}

/* Weighted sums of one plane over the windows of eight pixels. */
INLINE void window_sums(const float *plane, int64_t nx, const int64_t *at, const vec *wx, const vec *wy,
                        float *restrict out) {
    vec sum[WIDE];
    for (int p = 0; p < WIDE; p++) {
        const float *first = plane + at[p];
        vec column = {0};
        for (int i = 0; i < 6; i++) {
            vec pixels;
            memcpy(&pixels, first + i * nx, sizeof pixels);
            column += wy[p][i] * pixels;
        }
        sum[p] = column * wx[p];
    }
    lane_sums(sum, out);
}

/* The bits of the four pixels that enclose the position: the planes that do not decide on the value. */
INLINE uint32_t nearest_bits(const source_planes *s, int64_t ix, int64_t iy) {
    int64_t x0 = rsp_max(ix, 0), x1 = rsp_min(ix + 1, s->nx - 1), y0 = rsp_max(iy, 0), y1 = rsp_min(iy + 1, s->ny - 1);
    return s->mask[y0 * s->nx + x0] | s->mask[y0 * s->nx + x1] | s->mask[y1 * s->nx + x0] | s->mask[y1 * s->nx + x1];
}

INLINE void fast_row(const source_planes *s, uint32_t planes, tile_row *restrict r) {
    for (int j = 0; j < TILE; j += WIDE) {
        window_sums(s->image, s->nx, r->at + j, r->wx + j, r->wy + j, r->image + j);
        window_sums(s->variance, s->nx, r->at + j, r->wx2 + j, r->wy2 + j, r->variance + j);
    }
    memset(r->mask, 0, sizeof r->mask);
    for (int j = 0; planes && j < TILE; j++) {
        const uint32_t *m = s->mask + r->at[j] + (r->fast[j] ? 2 * s->nx + 2 : 0);
        r->mask[j] = m[0] | m[1] | m[s->nx] | m[s->nx + 1];
    }
}

/* A pixel whose window leaves the image or holds bad pixels. */
static void slow_pixel(const source_planes *s, const rsp_warp_rules *rules, int j, tile_row *restrict r) {
    double value = 0.0, variance = 0.0, all = 0.0, bad = 0.0, squares = 0.0, known = 0.0;
    int leaves = 0, hole = 0;
    for (int i = 0; i < 36 && r->inside[j]; i++) {
        float w = r->wy[j][i / 6] * r->wx[j][i % 6];
        int64_t x = r->ix[j] - 2 + i % 6, y = r->iy[j] - 2 + i / 6;
        if (fabsf(w) < TINY_WEIGHT) continue;
        all += fabsf(w);
        squares += (double)w * w;
        if (x < 0 || y < 0 || x >= s->nx || y >= s->ny) {
            leaves = 1;
            continue;
        }
        float v = s->image[y * s->nx + x], u = s->variance[y * s->nx + x];
        uint32_t m = s->mask[y * s->nx + x];
        int known_variance = u > 0.0f && u <= FLT_MAX, finite = fabsf(v) <= FLT_MAX;
        hole |= !finite || ((m & rules->bad) && !(m & rules->interpolated));
        if (!known_variance || (m & rules->bad)) bad += fabsf(w);
        if (known_variance) variance += (double)w * w * u, known += (double)w * w;
        if (finite) value += (double)w * v;
    }
    uint32_t bits = r->inside[j] ? nearest_bits(s, r->ix[j], r->iy[j]) : 0;
    if (!r->inside[j] || leaves || hole || known <= 0.0 || bad > rules->max_bad * all) {
        r->image[j] = NAN;
        r->variance[j] = INFINITY;
        r->mask[j] = bits | rules->no_data | (!r->inside[j] ? 0 : leaves ? rules->edge : rules->rejected);
        return;
    }
    r->image[j] = (float)value;
    r->variance[j] = (float)(variance * squares / known); /* unknown ones count as the mean of the others */
    r->mask[j] = bits | (bad > 0.0 ? rules->interpolated : 0);
}

/* The part of the source that a tile sees: its corners' box, grown by the kernel and by what bends inside a tile. */
INLINE int tile_bounds(const double *gx, const double *gy, int64_t gnx, int64_t ny, int64_t nx, near_map *near) {
    double x0 = INFINITY, x1 = -INFINITY, y0 = INFINITY, y1 = -INFINITY;
    for (int i = 1; i < 3; i++)
        for (int j = 1; j < 3; j++) {
            double x = gx[i * gnx + j], y = gy[i * gnx + j];
            if (!(fabs(x) < 1e9 && fabs(y) < 1e9)) return 0;
            x0 = fmin(x0, x), x1 = fmax(x1, x), y0 = fmin(y0, y), y1 = fmax(y1, y);
        }
    near->whole = x0 >= 4.0 && y0 >= 4.0 && x1 <= nx - 8.0 && y1 <= ny - 8.0;
    near->x0 = rsp_max(0, (int64_t)floor(x0) - 4);
    near->y0 = rsp_max(0, (int64_t)floor(y0) - 4);
    near->nx = rsp_min(nx, (int64_t)floor(x1) + 8) - near->x0;
    near->ny = rsp_min(ny, (int64_t)floor(y1) + 6) - near->y0;
    return near->nx > 0 && near->ny > 0;
}

/* near(x, y): whether any of the 8 x 6 pixels from (x, y) on is bad. Separable, by doubling. */
INLINE void find_near(const source_planes *s, uint32_t bad_bits, near_map *near) {
    int64_t nx = near->nx, ny = near->ny;
    uint8_t *restrict flag = near->flag, *restrict result = near->near, any = 0;
    uint32_t planes = 0;
    for (int64_t y = 0; y < ny; y++) {
        int64_t at = (near->y0 + y) * s->nx + near->x0;
        const float *restrict v = s->image + at, *restrict u = s->variance + at;
        const uint32_t *restrict m = s->mask + at;
        uint8_t *restrict f = flag + y * nx;
        for (int64_t x = 0; x < nx; x++)
            f[x] = (uint8_t)(((m[x] & bad_bits) != 0) | !(fabsf(v[x]) <= FLT_MAX) |
                             !((u[x] > 0.0f) & (u[x] <= FLT_MAX)));
        for (int64_t x = 0; x < nx; x++) any |= f[x], planes |= m[x];
    }
    near->any = any;
    near->planes = planes;
    for (int64_t y = 0; any && y < ny; y++) {
        uint8_t *restrict f = flag + y * nx;
        for (int64_t step = 1; step < WIDE; step *= 2) {
#pragma GCC ivdep /* reads ahead of what it writes */
            for (int64_t x = 0; x < nx - step; x++) f[x] |= f[x + step];
        }
    }
    for (int64_t y = 0; any && y + 6 <= ny; y++) {
        const uint8_t *restrict f = flag + y * nx;
        for (int64_t x = 0; x < nx; x++)
            result[y * nx + x] = f[x] | f[nx + x] | f[2 * nx + x] | f[3 * nx + x] | f[4 * nx + x] | f[5 * nx + x];
    }
}

/* Where a tile lies in the output, and the factor on its pixels. */
typedef struct { /* its rows and columns in use; output pixel of its first; output width */
    int64_t row0, row1, column0, column1, x, y, nx;
} tile_place;

INLINE void finish_row(const tile_row *r, const tile_place *p, int64_t row, float *restrict out_image,
                       float *restrict out_variance, uint32_t *restrict out_mask) {
    const int64_t at = (p->y + row) * p->nx + p->x;
    for (int64_t j = p->column0; j < p->column1; j++) {
        const float scale = r->scale[j];
        out_image[at + j] = r->image[j] * scale;
        out_variance[at + j] = r->variance[j] * scale * scale;
        out_mask[at + j] = r->mask[j];
    }
}

INLINE void fill_tile(const tile_place *p, uint32_t no_data, float *restrict out_image, float *restrict out_variance,
                      uint32_t *restrict out_mask) {
    for (int64_t row = p->row0; row < p->row1; row++)
        for (int64_t at = (p->y + row) * p->nx + p->x + p->column0, j = p->column0; j < p->column1; j++, at++) {
            out_image[at] = NAN;
            out_variance[at] = INFINITY;
            out_mask[at] = no_data;
        }
}

static size_t largest_tile(const double *gx, const double *gy, int64_t gny, int64_t gnx, int64_t ny, int64_t nx) {
    size_t largest = 1;
    for (int64_t ty = 0; ty < gny - 3; ty++)
        for (int64_t tx = 0; tx < gnx - 3; tx++) {
            near_map near;
            if (tile_bounds(gx + ty * gnx + tx, gy + ty * gnx + tx, gnx, ny, nx, &near))
                largest = (size_t)rsp_max((int64_t)largest, near.nx * near.ny);
        }
    return largest;
}

RSP_API RSP_SIMD rsp_status rsp_warp(const float *image, const float *variance, const uint32_t *mask, int64_t ny,
                                     int64_t nx, const double *grid_x, const double *grid_y, const double *grid_scale,
                                     int64_t gny, int64_t gnx, const rsp_warp_rules *rules, int64_t row0, int64_t column0,
                                     int64_t out_ny, int64_t out_nx, float *out_image, float *out_variance,
                                     uint32_t *out_mask) {
    RSP_CHECK(ny > 0 && nx > 0 && out_ny > 0 && out_nx > 0, RSP_BAD_SHAPE);
    RSP_CHECK(row0 >= 0 && row0 < TILE && column0 >= 0 && column0 < TILE, RSP_BAD_ARGUMENT);
    RSP_CHECK((gny - 3) * TILE >= row0 + out_ny && (gnx - 3) * TILE >= column0 + out_nx, RSP_BAD_SHAPE);
    RSP_CHECK(ny < (1 << 30) && nx < (1 << 30) && rules->max_bad >= 0.0f, RSP_BAD_ARGUMENT);
    const source_planes source = {image, variance, mask, ny, nx};
    rsp_status status = RSP_OK;
    size_t largest = largest_tile(grid_x, grid_y, gny, gnx, ny, nx);
    tile_row *r = aligned_alloc(64, (sizeof *r + 63) / 64 * 64);
    kernel_table *table = aligned_alloc(64, (sizeof *table + 63) / 64 * 64);
    near_map near = {.flag = malloc(largest), .near = malloc(largest)};
    RSP_NEED(r && table && near.flag && near.near, RSP_NO_MEMORY);
    fill_table(table);
    for (int64_t ty = 0; ty < gny - 3; ty++)
        for (int64_t tx = 0; tx < gnx - 3; tx++) {
            const int64_t node = ty * gnx + tx;
            const tile_place p = {ty ? 0 : row0, rsp_min(TILE, row0 + out_ny - ty * TILE), tx ? 0 : column0,
                                  rsp_min(TILE, column0 + out_nx - tx * TILE), tx * TILE - column0, ty * TILE - row0,
                                  out_nx};
            if (!tile_bounds(grid_x + node, grid_y + node, gnx, ny, nx, &near)) {
                fill_tile(&p, rules->no_data, out_image, out_variance, out_mask);
            } else {
                double cx[4][4], cy[4][4], cs[4][4];
                bicubic(grid_x + node, gnx, cx);
                bicubic(grid_y + node, gnx, cy);
                bicubic(grid_scale + node, gnx, cs);
                find_near(&source, rules->bad, &near);
                for (int64_t row = p.row0; row < p.row1; row++) {
                    evaluate(cx, (double)row / TILE, r->x);
                    evaluate(cy, (double)row / TILE, r->y);
                    evaluate_factor(cs, (double)row / TILE, r->scale);
                    split(ny, nx, r);
                    weigh(table, r);
                    classify(&source, &near, r);
                    if (nx >= WIDE && ny >= 6) fast_row(&source, near.planes, r);
                    for (int j = (int)p.column0; j < p.column1; j++)
                        if (!r->fast[j]) slow_pixel(&source, rules, j, r);
                    finish_row(r, &p, row, out_image, out_variance, out_mask);
                }
            }
        }
done:
    free(r);
    free(table);
    free(near.flag);
    free(near.near);
    return status;
}

/* The stamp as a star at a fraction (cx, cy) of a pixel shows it: Lanczos-5. Pixel (0, 0) of the star is element
 * (size / 2 + BORDER) of a square of size + 2 BORDER, whose outermost eight are zero, so that windows need no bounds. */
#define BORDER (5 + WIDE)

INLINE void shift_stamp(const float *restrict stamp, int64_t k, double cx, double cy, float *restrict row,
                        float *restrict shifted) {
    double wx[10], wy[10];
    const int64_t n = k + 2 * BORDER;
    /* value at u = i - c = (i - 1) + (1 - c): taps of stamp pixels i - 5 .. i + 4 at phase 1 - c */
    lanczos_weights(1.0 - cx, 5, wx);
    lanczos_weights(1.0 - cy, 5, wy);
    memset(row, 0, sizeof *row * (size_t)(n * k));
    memset(shifted, 0, sizeof *shifted * (size_t)(n * n));
    for (int64_t y = 0; y < k; y++)
        for (int t = 0; t < 10; t++) {
            const float w = (float)wx[t];
            float *restrict to = row + y * n + BORDER + 5 - t;
            for (int64_t x = 0; x < k; x++) to[x] += w * stamp[y * k + x];
        }
    for (int64_t y = 0; y < k; y++)
        for (int t = 0; t < 10; t++) {
            const float w = (float)wy[t];
            float *restrict to = shifted + (y + BORDER + 5 - t) * n;
            for (int64_t x = 0; x < n; x++) to[x] += w * row[y * n + x];
        }
}

/* The shifted stamp at a position of its own pixels; zero off it. */
INLINE float sample_stamp(const float *shifted, int64_t n, const kernel_table *table, double x, double y) {
    if (!(x >= 3.0 && y >= 3.0 && x < (double)(n - WIDE) && y < (double)(n - WIDE))) return 0.0f;
    const int64_t ix = (int64_t)x, iy = (int64_t)y;
    const float px = (float)(x - (double)ix) * PHASES, py = (float)(y - (double)iy) * PHASES;
    const int kx = (int)rsp_min((int64_t)px, PHASES - 1), ky = (int)rsp_min((int64_t)py, PHASES - 1);
    const vec wx = table->weight[kx] + (px - (float)kx) * (table->weight[kx + 1] - table->weight[kx]);
    const vec wy = table->weight[ky] + (py - (float)ky) * (table->weight[ky + 1] - table->weight[ky]);
    vec column = {0};
    for (int i = 0; i < 6; i++) {
        vec pixels;
        memcpy(&pixels, shifted + (iy - 2 + i) * n + ix - 2, sizeof pixels);
        column += wy[i] * pixels;
    }
    column *= wx;
    return ((column[0] + column[1]) + (column[2] + column[3])) + (column[4] + column[5]);
}

RSP_API RSP_SIMD rsp_status rsp_warp_psf(const float *stamps, int64_t n, int64_t size, const double *phase,
                                         const double *affine, int64_t out_size, float *out_stamps) {
    RSP_CHECK(n > 0 && size > 0 && size % 2 == 1 && out_size > 0 && out_size % 2 == 1, RSP_BAD_SHAPE);
    rsp_status status = RSP_OK;
    const int64_t wide = size + 2 * BORDER, half = out_size / 2;
    const double middle = (double)(size / 2 + BORDER);
    kernel_table *table = aligned_alloc(64, (sizeof *table + 63) / 64 * 64);
    float *row = malloc(sizeof *row * (size_t)(wide * size)), *shifted = malloc(sizeof *shifted * (size_t)(wide * wide));
    RSP_NEED(table && row && shifted, RSP_NO_MEMORY);
    fill_table(table);
    for (int64_t s = 0; s < n; s++) {
        const double *c = phase + 2 * s, *a = affine + 4 * s;
        const float area = (float)fabs(a[0] * a[3] - a[1] * a[2]);
        shift_stamp(stamps + s * size * size, size, c[0], c[1], row, shifted);
        for (int64_t v = -half; v <= half; v++)
            for (int64_t u = -half; u <= half; u++)
                *out_stamps++ = area * sample_stamp(shifted, wide, table, middle + c[0] + a[0] * (double)u + a[1] * (double)v,
                                                    middle + c[1] + a[2] * (double)u + a[3] * (double)v);
    }
done:
    free(table);
    free(row);
    free(shifted);
    return status;
}
