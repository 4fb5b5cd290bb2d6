/* brighter_fatter.c: charge that crossed a border between pixels because the charges around had moved it, moved back.
 *
 * The shift of each border is a convolution of the charges with a kernel given as a sum of products of a column and a row: rows
 * are filtered down the columns into one row per term, and these along the row. Bound by arithmetic: n_terms * (rows + columns)
 * multiplications per pixel and kernel. Rows are kept in a ring, padded by their edge values, so the image is changed in place
 * and read and written once. Every pixel's sums run in one fixed order: nothing depends on how the image is cut. */
#include "internal.h"
#include "lanes.h"
#ifdef __linux__
#include <sys/mman.h>
#endif

enum { PIECE = 512, TERMS_AT_ONCE = 5, WIDE = 2 * VECTOR, SUMS = 8, STEP = SUMS * VECTOR, REACH = 8, LONGEST = 64, MOST_TERMS = 64,
       BLOCK_X = 128, BLOCK_Y = 32 };

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

/* Copy row y of the charges into the ring, its ends repeated, and to `keep`. */
static void enter_row(const field *f, const float *charge, int64_t y, float *keep) {
    float *row = ring_row(f, y);
    const float *from = charge + y * f->nx;
    memcpy(row + f->before, from, (size_t)f->nx * sizeof *row);
    for (int64_t x = 0; x < f->before; x++) row[x] = from[0];
    for (int64_t x = f->before + f->nx; x < f->wide; x++) row[x] = from[f->nx - 1];
    if (keep) memcpy(keep + y * f->nx, row + f->before, (size_t)f->nx * sizeof *row);
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

/* Both kernels with their columns as mix_rows() reads them, and room for the rows. */
typedef struct {
    const rsp_separable *east, *north; /* north NULL: east is the potential */
    float *column[2];
    field f;
    rows r;
    float *buffer;
    int64_t reach;  /* of the kernels, to the farthest side */
} engine;

/* One pass over an image of f.ny rows: shifts from `charge`, charges moved from `measured`; both NULL: as the image was, which is
 * then copied to `keep` (or NULL). largest [blocks]: largest change of each block so far, or NULL. */
static void transport(engine *e, const float *charge, const float *measured, float *image, float *variance, float *keep,
                      float *largest) {
    const field *f = &e->f;
    rows r = e->r;
    const int64_t nx = f->nx, ny = f->ny, ahead = f->rows - f->below - 1, across = (nx + BLOCK_X - 1) / BLOCK_X;
    const int scalar = e->north == NULL;
    const float *from = charge ? charge : image;
    memset(r.below, 0, (size_t)nx * sizeof(float));
    r.east[-1] = 0.0f;
    for (int64_t y = 0; y < rsp_min(ny, ahead); y++) enter_row(f, from, y, keep);
    if (scalar) convolve_row(f, e->east, e->column[0], 0, r.shift_east);
    for (int64_t y = 0; y < ny; y++) {
        float *here = image + y * nx, *swap = r.shift_east;
        if (y + ahead < ny) enter_row(f, from, y + ahead, keep);
        if (scalar) {
            if (y + 1 < ny) convolve_row(f, e->east, e->column[0], y + 1, r.next);
        } else {
            convolve_row(f, e->east, e->column[0], y, r.shift_east);
            convolve_row(f, e->north, e->column[1], y, r.shift_north);
        }
        cross_east(nx, scalar, r.shift_east, here, r.east);
        if (y + 1 < ny) cross_north(nx, scalar, scalar ? r.shift_east : r.shift_north, r.next, here, here + nx, r.north);
        else memset(r.north, 0, (size_t)nx * sizeof(float));
        changes(nx, r.east - 1, r.east, r.north, r.below, r.change);
        for (int64_t x = 0; x < nx; x += BLOCK_X) {
            const float size = settle(rsp_min(BLOCK_X, nx - x), r.change + x, (measured ? measured + y * nx : here) + x, here + x,
                                      variance + y * nx + x);
            float *most = largest ? &largest[y / BLOCK_Y * across + x / BLOCK_X] : NULL;
            if (most && size > *most) *most = size;
        }
        if (scalar) r.shift_east = r.next, r.next = swap;
        swap = r.below;
        r.below = r.north;
        r.north = swap;
    }
}

/* ---- later passes: where the last one changed much --------------------------------------------------------- */

/* Planes of a block and its surroundings. */
typedef struct {
    float *charge, *measured, *image, *variance;
} tile;

typedef struct {
    int64_t x0, x1, y0, y1;
} box;

/* The box grown on all sides, inside the image. */
static box grown(box b, int64_t margin, int64_t ny, int64_t nx) {
    return (box){rsp_max(0, b.x0 - margin), rsp_min(nx, b.x1 + margin), rsp_max(0, b.y0 - margin), rsp_min(ny, b.y1 + margin)};
}

/* Largest change among a block and its neighbours. */
static float around(const float *largest, int64_t down, int64_t across, int64_t j, int64_t i) {
    float most = 0.0f;
    for (int64_t v = rsp_max(0, j - 1); v <= rsp_min(down - 1, j + 1); v++)
        for (int64_t u = rsp_max(0, i - 1); u <= rsp_min(across - 1, i + 1); u++)
            most = largest[v * across + u] > most ? largest[v * across + u] : most;
    return most;
}

/* One block again: the new image of the block to `out`, [BLOCK_Y][BLOCK_X]; returns the largest change. */
static float again(engine *e, box block, box outer, int64_t nx, float share, const float *measured, const float *image, tile t,
                   float *out) {
    const int64_t wide = outer.x1 - outer.x0, high = outer.y1 - outer.y0;
    for (int64_t y = 0; y < high; y++) {
        const int64_t at = (outer.y0 + y) * nx + outer.x0;
        memcpy(t.measured + y * wide, measured + at, (size_t)wide * sizeof(float));
        memcpy(t.image + y * wide, image + at, (size_t)wide * sizeof(float));
    }
    for (int64_t i = 0; i < wide * high; i++) t.charge[i] = share * t.measured[i] + (1.0f - share) * t.image[i];
    e->f.ny = high;
    e->f.nx = wide;
    transport(e, t.charge, t.measured, t.image, t.variance, NULL, NULL);
    float largest = 0.0f;
    for (int64_t y = block.y0; y < block.y1; y++)
        for (int64_t x = block.x0; x < block.x1; x++) {
            const float now = t.image[(y - outer.y0) * wide + x - outer.x0], change = fabsf(now - image[y * nx + x]);
            out[(y - block.y0) * BLOCK_X + x - block.x0] = now;
            largest = change > largest ? change : largest;
        }
    return largest;
}

static void take_over(box block, int64_t nx, const float *now, float *image, float *variance) {
    for (int64_t y = block.y0; y < block.y1; y++)
        for (int64_t x = block.x0; x < block.x1; x++) {
            const int64_t i = y * nx + x;
            const float value = now[(y - block.y0) * BLOCK_X + x - block.x0], v = variance[i] + (value - image[i]);
            image[i] = value;
            variance[i] = v > 0.0f ? v : 0.0f;
        }
}

/* A pass over the blocks that changed by more than the tolerance, or have such a neighbour. All of them see the image as the pass
 * before left it. Returns the number of blocks, -1 without memory. */
static int64_t pass_again(engine *e, const rsp_brighter_fatter_options *o, int64_t ny, int64_t nx, const float *measured,
                          float *image, float *variance, tile t, float *largest) {
    const int64_t down = (ny + BLOCK_Y - 1) / BLOCK_Y, across = (nx + BLOCK_X - 1) / BLOCK_X;
    const int64_t margin = 2 + e->reach;
    int64_t n = 0;
    int64_t *block = malloc((size_t)(down * across) * sizeof *block);
    float *now = NULL, *change = NULL;
    if (!block) return -1;
    for (int64_t k = 0; k < down * across; k++)
        if (around(largest, down, across, k / across, k % across) > (float)o->tolerance) block[n++] = k;
    now = malloc((size_t)(rsp_max(n, 1) * BLOCK_X * BLOCK_Y) * sizeof *now);
    change = calloc((size_t)(down * across), sizeof *change);
    if (!now || !change) n = -1;
    for (int64_t pass = 0; pass < 2; pass++)
        for (int64_t k = 0; k < n; k++) {
            const int64_t y = block[k] / across * BLOCK_Y, x = block[k] % across * BLOCK_X;
            const box b = {x, rsp_min(nx, x + BLOCK_X), y, rsp_min(ny, y + BLOCK_Y)};
            float *mine = now + k * BLOCK_X * BLOCK_Y;
            if (pass == 0) change[block[k]] = again(e, b, grown(b, margin, ny, nx), nx, (float)o->measured_share, measured, image, t, mine);
            else take_over(b, nx, mine, image, variance);
        }
    if (n >= 0) memcpy(largest, change, (size_t)(down * across) * sizeof *largest);
    free(block);
    free(now);
    free(change);
    return n;
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

static int start(engine *e, int64_t ny, int64_t nx, const rsp_separable *east, const rsp_separable *north) {
    const rsp_separable *n = north ? north : east;
    const int64_t room = (nx + PIECE - 1) / PIECE * PIECE + STEP;
    *e = (engine){.east = east, .north = north};
    e->f = (field){.ny = ny, .nx = nx, .before = rsp_max(east->before, n->before), .below = rsp_max(east->below, n->below)};
    e->f.wide = e->f.before + room + rsp_max(east->after, n->after) + LONGEST;
    e->f.rows = e->f.below + rsp_max(east->above, n->above) + 3;
    e->reach = rsp_max(rsp_max(e->f.before, e->f.below), rsp_max(rsp_max(east->after, n->after), rsp_max(east->above, n->above)));
    e->column[0] = grouped_columns(east);
    e->column[1] = north ? grouped_columns(north) : NULL;
    e->buffer = calloc((size_t)(7 * room + VECTOR), sizeof *e->buffer);
    e->f.ring = malloc((size_t)(e->f.rows * e->f.wide) * sizeof *e->f.ring);
    e->f.term = calloc((size_t)TERMS_AT_ONCE * TERM_STRIDE, sizeof *e->f.term);
    if (!e->column[0] || (north && !e->column[1]) || !e->buffer || !e->f.ring || !e->f.term) return 0;
    float *b = e->buffer + VECTOR; /* east[-1] is 0: nothing comes in from the left */
    e->r = (rows){b, b + room, b + 2 * room, b + 3 * room, b + 4 * room, b + 5 * room, b + 6 * room};
    return 1;
}

static void stop(engine *e) {
    free(e->column[0]);
    free(e->column[1]);
    free(e->f.ring);
    free(e->f.term);
    free(e->buffer);
}

/* A whole image, in large pages where the system has them: first touches of small ones cost as much as the copy. */
static float *large_pages(int64_t n) {
    const size_t page = (size_t)1 << 21, size = ((size_t)n * sizeof(float) + page - 1) / page * page;
    float *memory = aligned_alloc(page, size);
#ifdef MADV_HUGEPAGE
    if (memory) madvise(memory, size, MADV_HUGEPAGE); /* advice: no harm if it is not taken */
#endif
    return memory;
}

/* All passes. Only those after the first need copies. */
static rsp_status correct(engine *e, const rsp_brighter_fatter_options *o, float *image, float *variance, int64_t *out_passes,
                          double *out_change) {
    const int64_t ny = e->f.ny, nx = e->f.nx, side = 2 * (LONGEST + 2);
    const int64_t n_blocks = ((ny + BLOCK_Y - 1) / BLOCK_Y) * ((nx + BLOCK_X - 1) / BLOCK_X), n_tile = (BLOCK_X + side) * (BLOCK_Y + side);
    rsp_status status = RSP_OK;
    float *measured = NULL, *room = NULL, *largest = calloc((size_t)n_blocks, sizeof *largest);
    RSP_NEED(largest, RSP_NO_MEMORY);
    if (o->passes > 1) {
        measured = large_pages(ny * nx);
        room = calloc((size_t)(4 * n_tile), sizeof *room);
        RSP_NEED(measured && room, RSP_NO_MEMORY);
    }
    transport(e, NULL, NULL, image, variance, measured, largest);
    for (*out_passes = 1; *out_passes < o->passes; ++*out_passes) {
        const tile t = {room, room + n_tile, room + 2 * n_tile, room + 3 * n_tile};
        const int64_t n = pass_again(e, o, ny, nx, measured, image, variance, t, largest);
        RSP_NEED(n >= 0, RSP_NO_MEMORY);
        if (n == 0) break;
    }
    *out_change = 0.0;
    for (int64_t k = 0; k < n_blocks; k++) *out_change = largest[k] > *out_change ? largest[k] : *out_change;
done:
    free(measured);
    free(room);
    free(largest);
    return status;
}

RSP_API rsp_status rsp_brighter_fatter(int64_t ny, int64_t nx, const rsp_brighter_fatter_options *options,
        const rsp_separable *east, const rsp_separable *north, const uint32_t *restrict mask, const uint8_t *restrict defects,
        float *restrict image, float *restrict variance, int64_t *restrict out_n_excluded, int64_t *restrict out_passes,
        double *restrict out_change) {
    RSP_CHECK(ny > 0 && nx > 0, RSP_BAD_SHAPE);
    RSP_CHECK(fits(east) && (!north || fits(north)), RSP_BAD_SHAPE);
    RSP_CHECK(options->passes > 0 && options->tolerance >= 0.0 && isfinite(options->level), RSP_BAD_ARGUMENT);
    RSP_CHECK(options->measured_share >= 0.0 && options->measured_share <= 1.0, RSP_BAD_ARGUMENT);
    const uint32_t bits = options->exclude_bits;
    rsp_status status = RSP_OK;
    excluded_list list = {0};
    engine e;
    RSP_NEED(start(&e, ny, nx, east, north), RSP_NO_MEMORY);
    RSP_NEED(list_excluded(ny * nx, mask, defects, image, variance, bits, &list), RSP_NO_MEMORY);
    for (int64_t k = 0; k < list.n; k++)
        list.pixel[k].fill = fill_of(ny, nx, mask, defects, image, bits, list.pixel[k].index, (float)options->level);
    for (int64_t k = 0; k < list.n; k++) image[list.pixel[k].index] = list.pixel[k].fill;
    status = correct(&e, options, image, variance, out_passes, out_change);
    for (int64_t k = 0; k < list.n; k++) {
        image[list.pixel[k].index] = list.pixel[k].value;
        variance[list.pixel[k].index] = list.pixel[k].variance;
    }
    *out_n_excluded = list.n;
done:
    stop(&e);
    free(list.pixel);
    return status;
}
