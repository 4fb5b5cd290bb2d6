/* brighter_fatter.c: charge that crossed a border between pixels because the charges around had moved it, moved back.
 *
 * The shift of each border is a convolution of the charges with a kernel given as a sum of products of a column and a row: rows
 * are filtered down the columns into one row per term, and these along the row. Bound by arithmetic: n_terms * (rows + columns)
 * multiplications per pixel and kernel. Rows are kept in a ring, padded by their edge values, so the image is changed in place
 * and read and written once. Every pixel's sums run in one fixed order: nothing depends on how the image is cut. */
#include "internal.h"
#include "lanes.h"

enum { PIECE = 512, TERMS_AT_ONCE = 5, WIDE = 2 * VECTOR, SUMS = 8, STEP = SUMS * VECTOR, REACH = 8, LONGEST = 64, MOST_TERMS = 64 };

/* ---- pixels that cannot be used: filled for the time of the correction -------------------------------------- */

typedef struct {
    int64_t index;
    float value, variance, fill;
} excluded_pixel;

typedef struct {
    excluded_pixel *pixel;
    int64_t n, capacity;
} excluded_list;

static inline int is_excluded(const uint32_t *mask, const uint8_t *defects, const float *image, uint32_t bits, int64_t i) {
    return (mask[i] & bits) != 0 || (defects && defects[i]) || !isfinite(image[i]);
}

/* How many of eight pixels are excluded is asked first: hardly any is. */
RSP_SIMD static int any_excluded(int64_t n, const uint32_t *restrict mask, const uint8_t *restrict defects,
                                 const float *restrict image, uint32_t bits) {
    uint32_t found = 0, defect = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t word;
        memcpy(&word, &image[i], sizeof word);
        found |= (mask[i] & bits) | ((word & 0x7f800000u) == 0x7f800000u);
    }
    if (defects)
        for (int64_t i = 0; i < n; i++) defect |= defects[i];
    return (found | defect) != 0;
}

static int list_excluded(int64_t n, const uint32_t *mask, const uint8_t *defects, const float *image,
                         const float *variance, uint32_t bits, excluded_list *list) {
    for (int64_t first = 0; first < n; first += PIECE) {
        const int64_t count = rsp_min(PIECE, n - first);
        if (!any_excluded(count, mask + first, defects ? defects + first : NULL, image + first, bits)) continue;
        for (int64_t i = first; i < first + count; i++) {
            if (!is_excluded(mask, defects, image, bits, i)) continue;
            if (list->n == list->capacity) {
                const int64_t capacity = rsp_max(1024, 2 * list->capacity);
                excluded_pixel *grown = realloc(list->pixel, (size_t)capacity * sizeof *grown);
                if (!grown) return 0;
                list->pixel = grown;
                list->capacity = capacity;
            }
            list->pixel[list->n++] = (excluded_pixel){i, image[i], variance[i], 0.0f};
        }
    }
    return 1;
}

/* The mean of the usable pixels in the smallest square that has three of them; `level` where there is none in reach. */
static float fill_of(int64_t ny, int64_t nx, const uint32_t *mask, const uint8_t *defects, const float *image, uint32_t bits,
                     int64_t index, float level) {
    const int64_t y = index / nx, x = index % nx;
    for (int64_t r = 1; r <= REACH; r++) {
        double sum = 0.0;
        int64_t count = 0;
        for (int64_t v = rsp_max(0, y - r); v <= rsp_min(ny - 1, y + r); v++)
            for (int64_t u = rsp_max(0, x - r); u <= rsp_min(nx - 1, x + r); u++)
                if (!is_excluded(mask, defects, image, bits, v * nx + u)) {
                    sum += image[v * nx + u];
                    count++;
                }
        if (count >= 3) return (float)(sum / (double)count);
    }
    return level;
}

/* ---- shifts of the borders ---------------------------------------------------------------------------------- */

typedef struct {
    int64_t ny, nx, wide;   /* wide: of a padded row */
    int64_t before, below, rows;  /* pixels kept on the left; rows below the present one; rows in the ring */
    float *ring;            /* [rows][wide]: row y at y % rows */
    float *term;            /* [TERMS_AT_ONCE][PIECE + LONGEST + WIDE] */
} field;

enum { TERM_STRIDE = PIECE + LONGEST + WIDE };

static float *ring_row(const field *f, int64_t y) {
    y = rsp_max(0, rsp_min(f->ny - 1, y));
    return f->ring + (y % f->rows) * f->wide;
}

/* Copy row y of the charges into the ring, its ends repeated. */
static void enter_row(const field *f, const float *charge, int64_t y) {
    float *row = ring_row(f, y);
    const float *from = charge + y * f->nx;
    memcpy(row + f->before, from, (size_t)f->nx * sizeof *row);
    for (int64_t x = 0; x < f->before; x++) row[x] = from[0];
    for (int64_t x = f->before + f->nx; x < f->wide; x++) row[x] = from[f->nx - 1];
}

/* Pairs of rows: a symmetric kernel has half as many; a middle row is its own partner, with half of its coefficient. */
static inline int64_t pairs_of(const rsp_separable *s) {
    const int64_t n_rows = s->below + s->above + 1;
    return s->symmetry ? (n_rows + 1) / 2 : n_rows;
}

/* Rows that have the same coefficients, or opposite ones, are added first. */
typedef struct {
    const float *a, *b;
} pair;

/* out[k][x] = sum over i of coefficient[i][k] * (in[i].a[x] + sign * in[i].b[x]): rows around a pixel into n_out terms. */
INLINE void mix_rows(int64_t n_in, const pair *in, const int sign, int64_t at, const float *coefficient, const int n_out, int64_t n,
                     float *out) {
    for (int64_t x = 0; x < n; x += WIDE) {
        floats sum[TERMS_AT_ONCE][2];
        for (int k = 0; k < n_out; k++) sum[k][0] = sum[k][1] = (floats){0};
        const float *c = coefficient;
        for (int64_t i = 0; i < n_in; i++, c += n_out) {
            const float *from = in[i].a + at + x, *with = in[i].b + at + x;
            floats a = LOAD(from), b = LOAD(from + VECTOR);
            if (sign > 0) a += LOAD(with), b += LOAD(with + VECTOR);
            if (sign < 0) a -= LOAD(with), b -= LOAD(with + VECTOR);
            for (int k = 0; k < n_out; k++) {
                sum[k][0] += c[k] * a;
                sum[k][1] += c[k] * b;
            }
        }
        for (int k = 0; k < n_out; k++) {
            STORE(out + k * TERM_STRIDE + x, sum[k][0]);
            STORE(out + k * TERM_STRIDE + x + VECTOR, sum[k][1]);
        }
    }
}

/* out[x] (+)= sum over k and t of row[k][t] * term[k][x + t]. */
INLINE void filter_terms(const int n_terms, int64_t taps, const float *row, const float *term, int64_t n, int more, float *out) {
    for (int64_t x = 0; x < n; x += STEP) {
        floats sum[SUMS];
        for (int j = 0; j < SUMS; j++) sum[j] = more ? LOAD(out + x + j * VECTOR) : (floats){0};
        for (int k = 0; k < n_terms; k++) {
            const float *from = term + k * TERM_STRIDE + x, *c = row + k * taps;
            for (int64_t t = 0; t < taps; t++)
                for (int j = 0; j < SUMS; j++) sum[j] += c[t] * LOAD(from + t + j * VECTOR);
        }
        for (int j = 0; j < SUMS; j++) STORE(out + x + j * VECTOR, sum[j]);
    }
}

INLINE void convolve(const field *f, const rsp_separable *s, const pair *in, const int sign, const float *column, float *out) {
    const int64_t n_in = pairs_of(s), taps = s->before + s->after + 1;
    for (int64_t first = 0; first < f->nx; first += PIECE) {
        const int64_t n = rsp_min(PIECE, (f->nx - first + STEP - 1) / STEP * STEP);
        const int64_t at = first + f->before - s->before, n_term = n + taps - 1;
        for (int64_t k = 0; k < s->n_terms; k += TERMS_AT_ONCE) {
            const float *c = column + k * n_in, *row = s->row + k * taps;
#define WITH(number) case number: \
                mix_rows(n_in, in, sign, at, c, number, n_term, f->term); \
                filter_terms(number, taps, row, f->term, n, k > 0, out + first); \
                break
            switch (rsp_min(TERMS_AT_ONCE, s->n_terms - k)) { WITH(1); WITH(2); WITH(3); WITH(4); WITH(5); }
#undef WITH
        }
    }
}

/* One row of a convolution, of the pixels in row y; out has room for nx rounded up to PIECE. */
RSP_SIMD static void convolve_row(const field *f, const rsp_separable *s, const float *column, int64_t y, float *out) {
    pair in[LONGEST];
    const int64_t n_in = pairs_of(s);
    for (int64_t i = 0; i < n_in; i++) in[i] = (pair){ring_row(f, y + i - s->below), ring_row(f, y + s->above - i)};
    if (s->symmetry == 0) convolve(f, s, in, 0, column, out);
    else if (s->symmetry < 0) convolve(f, s, in, -1, column, out);
    else convolve(f, s, in, 1, column, out);
}

/* ---- transport ---------------------------------------------------------------------------------------------- */

typedef struct {
    float *east, *north;        /* [nx + pad]: charge that goes back across the right, the upper border of each pixel of a row */
    float *below, *change;      /* [nx + pad]: north of the row before; what settles */
    float *shift_east, *shift_north, *next; /* rows of shifts; potential: of this row (in shift_east) and the next one */
} rows;

/* Half of the shift times the mean of the two charges; the scalar kernel's shift is this pixel's potential less the next one's. */
RSP_SIMD static void cross_east(int64_t nx, int scalar, const float *restrict shift, const float *restrict here,
                                float *restrict out) {
    if (scalar)
        for (int64_t x = 0; x < nx - 1; x++) out[x] = 0.25f * (shift[x] - shift[x + 1]) * (here[x] + here[x + 1]);
    else
        for (int64_t x = 0; x < nx - 1; x++) out[x] = 0.25f * shift[x] * (here[x] + here[x + 1]);
    out[nx - 1] = 0.0f;
}

RSP_SIMD static void cross_north(int64_t nx, int scalar, const float *restrict shift, const float *restrict next,
                                 const float *restrict here, const float *restrict above, float *restrict out) {
    if (scalar)
        for (int64_t x = 0; x < nx; x++) out[x] = 0.25f * (shift[x] - next[x]) * (here[x] + above[x]);
    else
        for (int64_t x = 0; x < nx; x++) out[x] = 0.25f * shift[x] * (here[x] + above[x]);
}

/* The charge that a pixel's borders brought in goes back: it leaves by its own borders, and comes from those before. */
RSP_SIMD static void changes(int64_t nx, const float *restrict left, const float *restrict east, const float *restrict north,
                             const float *restrict below, float *restrict out) {
    for (int64_t x = 0; x < nx; x++) out[x] = (left[x] - east[x]) + (below[x] - north[x]);
}

#define LARGER(a, b) CHOOSE((a) > (b), a, b)

/* image = measured + change, its variance changed by as much; the largest change of the image. */
RSP_SIMD static float settle(int64_t nx, const float *change, const float *measured, float *image, float *variance) {
    floats most = {0};
    for (int64_t x = 0; x < nx; x += VECTOR) {
        floats old = {0}, from = {0}, v = {0}, move = {0};
        const int64_t n = rsp_min(VECTOR, nx - x);
        if (n == VECTOR) old = LOAD(image + x), from = LOAD(measured + x), v = LOAD(variance + x), move = LOAD(change + x);
        else
            for (int i = 0; i < n; i++) old[i] = image[x + i], from[i] = measured[x + i], v[i] = variance[x + i], move[i] = change[x + i];
        const floats now = from + move, step = now - old;
        v += step;
        v = LARGER(v, (floats){0});
        most = LARGER(most, ABSOLUTE(step));
        if (n == VECTOR) STORE(image + x, now), STORE(variance + x, v);
        else
            for (int i = 0; i < n; i++) image[x + i] = now[i], variance[x + i] = v[i];
    }
    float largest = 0.0f;
    for (int i = 0; i < VECTOR; i++) largest = most[i] > largest ? most[i] : largest;
    return largest;
}

/* One pass: shifts from `charge` (as `image` was, where it is NULL), charges moved from `measured` (likewise). */
static float transport(const field *f, const rsp_separable *east, const rsp_separable *north, float *const *column,
                       const float *charge, const float *measured, float *image, float *variance, rows r) {
    const int64_t nx = f->nx, ny = f->ny, ahead = f->rows - f->below - 1;
    const int scalar = north == NULL;
    float largest = 0.0f;
    if (!charge) charge = image;
    memset(r.below, 0, (size_t)nx * sizeof(float));
    for (int64_t y = 0; y < rsp_min(ny, ahead); y++) enter_row(f, charge, y);
    if (scalar) convolve_row(f, east, column[0], 0, r.shift_east);
    for (int64_t y = 0; y < ny; y++) {
        float *here = image + y * nx;
        if (y + ahead < ny) enter_row(f, charge, y + ahead);
        if (scalar) {
            if (y + 1 < ny) convolve_row(f, east, column[0], y + 1, r.next);
        } else {
            convolve_row(f, east, column[0], y, r.shift_east);
            convolve_row(f, north, column[1], y, r.shift_north);
        }
        cross_east(nx, scalar, r.shift_east, here, r.east);
        if (y + 1 < ny) cross_north(nx, scalar, scalar ? r.shift_east : r.shift_north, r.next, here, here + nx, r.north);
        else memset(r.north, 0, (size_t)nx * sizeof(float));
        changes(nx, r.east - 1, r.east, r.north, r.below, r.change);
        const float size = settle(nx, r.change, measured ? measured + y * nx : here, here, variance + y * nx);
        largest = size > largest ? size : largest;
        float *swap = r.below;
        r.below = r.north;
        r.north = swap;
        swap = r.shift_east;
        if (scalar) r.shift_east = r.next, r.next = swap;
    }
    return largest;
}

/* ---- the kernel --------------------------------------------------------------------------------------------- */

static int fits(const rsp_separable *s) {
    return s->n_terms > 0 && s->n_terms <= MOST_TERMS && s->before >= 0 && s->after >= 0 && s->below >= 0 && s->above >= 0
           && s->before + s->after < LONGEST && s->below + s->above < LONGEST;
}

/* The columns in the order in which mix_rows() reads them: groups of terms, in each [pair][term]. */
static float *grouped_columns(const rsp_separable *s) {
    const int64_t n_rows = s->below + s->above + 1, n_in = pairs_of(s);
    float *out = malloc((size_t)(s->n_terms * n_in) * sizeof *out), *to = out;
    if (!out) return NULL;
    for (int64_t k = 0; k < s->n_terms; k += TERMS_AT_ONCE)
        for (int64_t i = 0; i < n_in; i++)
            for (int64_t j = k; j < rsp_min(k + TERMS_AT_ONCE, s->n_terms); j++)
                *to++ = (s->symmetry && 2 * i == n_rows - 1 ? 0.5f : 1.0f) * s->column[j * n_rows + i];
    return out;
}

/* All passes. The first needs no copy: its charges stand in the ring. */
static rsp_status correct(const field *f, const rsp_brighter_fatter_options *o, const rsp_separable *east,
                          const rsp_separable *north, float *const *column, float *image, float *variance, rows r,
                          int64_t *out_passes, double *out_change) {
    const int64_t n = f->ny * f->nx;
    float *measured = NULL, *charge = NULL;
    if (o->passes > 1) {
        measured = malloc((size_t)n * sizeof *measured);
        charge = malloc((size_t)n * sizeof *charge);
        if (!measured || !charge) {
            free(measured);
            free(charge);
            return rsp_fail(RSP_NO_MEMORY, "two images of %lld pixels for a second pass", (long long)n);
        }
        memcpy(measured, image, (size_t)n * sizeof *measured);
    }
    *out_change = transport(f, east, north, column, NULL, NULL, image, variance, r);
    *out_passes = 1;
    while (*out_passes < o->passes && *out_change > o->tolerance) {
        const float own = (float)o->measured_share, other = 1.0f - own;
        for (int64_t i = 0; i < n; i++) charge[i] = own * measured[i] + other * image[i];
        *out_change = transport(f, east, north, column, charge, measured, image, variance, r);
        ++*out_passes;
    }
    free(measured);
    free(charge);
    return RSP_OK;
}

RSP_API rsp_status rsp_brighter_fatter(int64_t ny, int64_t nx, const rsp_brighter_fatter_options *options,
        const rsp_separable *east, const rsp_separable *north, const uint32_t *restrict mask, const uint8_t *restrict defects,
        float *restrict image, float *restrict variance, int64_t *restrict out_n_excluded, int64_t *restrict out_passes,
        double *restrict out_change) {
    RSP_CHECK(ny > 0 && nx > 0, RSP_BAD_SHAPE);
    RSP_CHECK(fits(east) && (!north || fits(north)), RSP_BAD_SHAPE);
    RSP_CHECK(options->passes > 0 && isfinite(options->level), RSP_BAD_ARGUMENT);
    RSP_CHECK(options->measured_share >= 0.0 && options->measured_share <= 1.0, RSP_BAD_ARGUMENT);
    rsp_status status = RSP_OK;
    excluded_list list = {0};
    const rsp_separable *n = north ? north : east;
    const int64_t after = rsp_max(east->after, n->after), above = rsp_max(east->above, n->above);
    const int64_t room = (nx + PIECE - 1) / PIECE * PIECE + STEP;
    field f = {.ny = ny, .nx = nx, .before = rsp_max(east->before, n->before), .below = rsp_max(east->below, n->below)};
    f.wide = f.before + room + after + LONGEST;
    f.rows = f.below + above + 3;
    float *column[2] = {grouped_columns(east), north ? grouped_columns(north) : NULL};
    float *buffer = calloc((size_t)(7 * room + VECTOR), sizeof *buffer), *edge = buffer ? buffer + VECTOR : NULL;
    f.ring = malloc((size_t)(f.rows * f.wide) * sizeof *f.ring);
    f.term = calloc((size_t)TERMS_AT_ONCE * TERM_STRIDE, sizeof *f.term);
    RSP_NEED(column[0] && (column[1] || !north) && f.ring && f.term && buffer, RSP_NO_MEMORY);
    RSP_NEED(list_excluded(ny * nx, mask, defects, image, variance, options->exclude_bits, &list), RSP_NO_MEMORY);
    for (int64_t k = 0; k < list.n; k++)
        list.pixel[k].fill = fill_of(ny, nx, mask, defects, image, options->exclude_bits, list.pixel[k].index,
                                     (float)options->level);
    for (int64_t k = 0; k < list.n; k++) image[list.pixel[k].index] = list.pixel[k].fill;
    /* east[-1] is 0: nothing comes in from the left */
    rows r = {edge, edge + room, edge + 2 * room, edge + 3 * room, edge + 4 * room, edge + 5 * room, edge + 6 * room};
    status = correct(&f, options, east, north, column, image, variance, r, out_passes, out_change);
    for (int64_t k = 0; k < list.n; k++) {
        image[list.pixel[k].index] = list.pixel[k].value;
        variance[list.pixel[k].index] = list.pixel[k].variance;
    }
    *out_n_excluded = list.n;
done:
    free(column[0]);
    free(column[1]);
    free(f.ring);
    free(f.term);
    free(buffer);
    free(list.pixel);
    return status;
}
