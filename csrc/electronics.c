/* electronics.c: all amplifiers of a detector at once, where they spoke into each other: raw to electrons, crosstalk, linearity,
 * deferred charge, then assembly, bias, dark, flat, variance and mask as in detrend.c, in one pass over memory.
 *
 * What is read at the same moment stands at the same place of each amplifier's tile. A tile has eight rows, one per lane of a
 * vector, and some columns, one vector each, in the order in which they were read: crosstalk works on whole vectors, and deferred
 * charge, which goes from pixel to pixel along a row, on eight rows side by side. Columns come in pieces, so that the tiles of all
 * amplifiers stay in cache; what an amplifier remembers goes on from piece to piece: the size of the tile changes no bit.
 * Bound by arithmetic with crosstalk: 4 n flops per pixel and n amplifiers, twice that for a quadratic term. */
#include "piece.h"
#include "crosstalk.h"

enum { ROWS = VECTOR, SATURATED = 1, SUSPECT = 2, NOT_FINITE = 4, GHOST = 8 };

/* What one amplifier remembers from the pixels read before, one row per lane; electrons. */
typedef struct {
    floats remembered, held, given, before, before_that;
} memory;

typedef struct {
    const rsp_sweep *w;          /* of the amplifiers that are worked on together */
    const rsp_amplifier *amplifiers;
    const rsp_electronics *electronics;
    const rsp_calibration *calibration;
    const rsp_detrend_options *options;
    int64_t nx;                  /* of the detector */
    float *image, *variance;
    uint32_t *mask;
    /* scratch */
    float *read, *clean;         /* [n_sources][tile][ROWS], [n_targets][tile][ROWS] electron */
    uint8_t *flags;              /* [n_sources][tile][ROWS] */
    int *any;                    /* [n_sources] whether a flag is set in the tile */
    memory *memories;            /* [n_targets] */
    float *row;                  /* [ROWS][tile] */
    float *zero, *one;           /* [PIECE] */
} sweep;

#define SWAP(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)

/* Eight rows of eight pixels to eight columns, or back. */
INLINE void transpose(floats v[VECTOR]) {
    floats a[VECTOR], b[VECTOR];
    for (int i = 0; i < 4; i++) {
        a[2 * i] = SWAP(v[2 * i], v[2 * i + 1], 0, 8, 2, 10, 4, 12, 6, 14);
        a[2 * i + 1] = SWAP(v[2 * i], v[2 * i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
    }
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 2; k++) {
            b[4 * i + k] = SWAP(a[4 * i + k], a[4 * i + 2 + k], 0, 1, 8, 9, 4, 5, 12, 13);
            b[4 * i + 2 + k] = SWAP(a[4 * i + k], a[4 * i + 2 + k], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (int k = 0; k < 4; k++) {
        v[k] = SWAP(b[k], b[4 + k], 0, 1, 2, 3, 8, 9, 10, 11);
        v[4 + k] = SWAP(b[k], b[4 + k], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

/* Uniform in -0.5..0.5 for eight pixels of a row, from their place and the amplifier's key alone (a mixing of bits after
 * C. Wellons' search for good constants). */
typedef uint32_t words __attribute__((vector_size(32)));
INLINE void dither(uint32_t key, uint32_t place, floats *values) {
    const words lanes = {0, 1, 2, 3, 4, 5, 6, 7};
    words x = (place + lanes) * 0x9e3779b9u + key;
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    x ^= (x >> 16) + key;
    x *= 0x7feb352du;
    x ^= x >> 15;
    *values += __builtin_convertvector((ints)(x >> 8), floats) * (1.0f / 16777216.0f) - 0.5f;
}

INLINE void load_eight(const rsp_amplifier *a, const int type, int64_t at, int count, floats *raw) {
    if (count == VECTOR) {
        if (type == RSP_RAW_UINT16) *raw = WIDEN((const uint16_t *)a->raw + at);
        else if (type == RSP_RAW_INT32) *raw = __builtin_convertvector(*(const ints *)((const int32_t *)a->raw + at), floats);
        else *raw = LOAD((const float *)a->raw + at);
        return;
    }
    *raw = (floats){0};
    for (int i = 0; i < count; i++)
        (*raw)[i] = type == RSP_RAW_UINT16 ? (float)((const uint16_t *)a->raw)[at + i]
                  : type == RSP_RAW_INT32  ? (float)((const int32_t *)a->raw)[at + i] : ((const float *)a->raw)[at + i];
}

/* The flags of raw pixels side by side; those of the next one stand `step` further on. */
static void note(const rsp_amplifier *a, const float *raw, int count, uint8_t *flags, int64_t step) {
    for (int i = 0; i < count; i++) {
        int flag = raw[i] >= (float)a->saturation ? SATURATED : raw[i] >= (float)a->suspect ? SUSPECT : 0;
        flags[i * step] = (uint8_t)(flag | (isfinite(raw[i]) ? 0 : NOT_FINITE));
    }
}

/* Pixels first .. first + count of rows y .. y + ROWS in read-out order, in electrons; rows past the last repeat it. Values that
 * are not finite become zero and are flagged. */
INLINE void load_tile(const sweep *s, int64_t j, int64_t y, int64_t first, int64_t count, const int type) {
    const rsp_amplifier *a = s->amplifiers + j;
    const rsp_electronics *e = s->electronics + j;
    float *tile = s->read + j * s->w->tile * ROWS;
    uint8_t *flags = s->flags + j * s->w->tile * ROWS;
    const floats infinite = (floats){0} + INFINITY;
    const float limit = (float)fmin(a->saturation, a->suspect), gain = (float)a->gain;
    int64_t rows[ROWS], step = e->reverse_x ? -1 : 1;
    for (int r = 0; r < ROWS; r++) {
        int64_t line = rsp_min(y + r, a->ny - 1);
        rows[r] = e->reverse_y ? a->ny - 1 - line : line;
    }
    s->any[j] = 0;
    memset(flags, 0, (size_t)(count * ROWS));
    for (int64_t t = 0; t < count; t += VECTOR) {
        int n = (int)rsp_min(VECTOR, count - t);
        int64_t x = e->reverse_x ? a->nx - first - t - n : first + t, start = e->reverse_x ? t + n - 1 : t;
        floats v[VECTOR];
        ints odd = {0};
        for (int r = 0; r < ROWS; r++) {
            floats raw;
            load_eight(a, type, rows[r] * a->raw_stride + x, n, &raw);
            ints seldom = ~((raw < limit) & (ABSOLUTE(raw) < infinite));
            odd |= seldom;
            v[r] = raw - a->row_level[rows[r]];
            if (e->dither) dither(e->dither, (uint32_t)(rows[r] * a->nx + x), v + r);
        }
        uint64_t part[4];
        memcpy(part, &odd, sizeof part);
        if (part[0] | part[1] | part[2] | part[3]) {
            s->any[j] = 1;
            for (int r = 0; r < ROWS; r++) {
                float values[VECTOR];
                load_eight(a, type, rows[r] * a->raw_stride + x, n, (floats *)values);
                note(a, values, n, flags + start * ROWS + r, step * ROWS);
            }
        }
        transpose(v);
        for (int i = 0; i < n; i++) {
            if (a->column_level) v[i] -= a->column_level[x + i];
            v[i] *= gain;
            if (type == RSP_RAW_FLOAT) v[i] = MASKED(ABSOLUTE(v[i]) < infinite, v[i]);
            STORE(tile + (start + step * i) * ROWS, v[i]);
        }
    }
}

/* Where a source is saturated or not finite its ghost is not well known: flag it in each target if it is large. */
static void flag_ghosts(const sweep *s, int64_t j, int64_t count) {
    int64_t size = s->w->tile * ROWS, m = s->w->n_sources;
    for (int64_t at = 0; at < count * ROWS; at++) {
        if (!(s->flags[j * size + at] & (SATURATED | NOT_FINITE))) continue;
        float source = s->read[j * size + at];
        for (int64_t i = 0; i < s->w->n_targets; i++) {
            float ghost = (s->w->linear[i * m + j] + s->w->quadratic[i * m + j] * source) * source;
            if (i == j || !(fabsf(ghost) > s->w->ghost_limit)) continue;
            s->flags[i * size + at] |= GHOST;
            s->any[i] = 1;
        }
    }
}

/* Add the correction of each charge, from straight lines through a fine table; beyond the ends the end values hold. */
INLINE void straighten(const rsp_electronics *e, int64_t n, float *restrict charge) {
    const float *restrict table = e->linearity;
    const float inverse = (float)(1.0 / e->linearity_step), last = (float)(e->n_linearity - 1);
    const int top = (int)e->n_linearity - 2;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float at = charge[i] * inverse;
        at = at > 0.0f ? at : 0.0f;
        at = at < last ? at : last;
        int k = (int)at;
        k = k < top ? k : top;
        charge[i] += table[k] + (at - (float)k) * (table[k + 1] - table[k]);
    }
}

#define LOWER(a, b) CHOOSE((a) < (b), a, b)
#define HIGHER(a, b) CHOOSE((a) > (b), a, b)

/* Give every pixel back what it left to later ones: the output amplifier's memory, the trap, the transfers, each exactly undone.
 *   offset:    what was read is q + max(fade * remembered, scale * q): so remembered = max(fade * remembered, scale/(1+scale) read)
 *   trap:      took what q / level of its size exceeds what it held: linear in q up to `level`, so linear in what was read
 *   transfers: n of them leave the shares n c (1-c)^n and n (n+1)/2 c^2 (1-c)^n to the next two pixels */
INLINE void restore(const rsp_electronics *e, memory *m, int64_t first, int64_t count, float *charge) {
    const float scale = (float)(e->offset_scale / (1.0 + e->offset_scale)), fade = (float)e->offset_fade;
    const float size = (float)e->trap_size, slope = size > 0.0f ? (float)(e->trap_size / e->trap_level) : 0.0f;
    const float steepness = slope / (1.0f - slope), share = 1.0f / (1.0f - slope), keep = (float)e->trap_keep;
    const double c = e->inefficiency, rate = -log1p(-c);
    const floats zero = {0};
    floats remembered = m->remembered, held = m->held, given = m->given, before = m->before, before_that = m->before_that;
    for (int64_t t = 0; t < count; t++) {
        floats read = LOAD(charge + t * ROWS);
        floats faded = remembered * fade, fresh = read * scale;
        remembered = HIGHER(faded, fresh);
        read -= remembered;
        floats taken = read * steepness - held * share, room = size - held;
        taken = HIGHER(taken, zero);
        taken = LOWER(taken, room);
        floats arrived = read + taken - given;
        held += taken;
        given = held * (1.0f - keep);
        held *= keep;
        double n = (double)(first + t + e->prescan + 1);
        float x = (float)(n * rate);                                       /* the exponential of a small number, less one */
        float lost = x * (1.0f + x * (0.5f + x * (1.0f / 6.0f + x * (1.0f / 24.0f + x * (1.0f / 120.0f)))));
        float late = (float)((n - 1.0) * c * (1.0 - c * (n - 1.0) * (1.0 - 0.5 * c * (n - 1.0))));
        float later = (float)(0.5 * (n - 2.0) * (n - 1.0) * c * c * (1.0 - c * (n - 2.0)));
        floats left = arrived - late * before - later * before_that;
        before_that = before;
        before = left + left * lost;
        STORE(charge + t * ROWS, before);
    }
    *m = (memory){remembered, held, given, before, before_that};
}

/* One piece of a row of the detector; the pixels that do not fill a vector are those read last. */
INLINE int64_t write_row(const sweep *s, const rsp_amplifier *a, const float *value, int64_t at, int64_t count, int backwards,
                         const int prepared) {
    const rsp_calibration *c = s->calibration;
    int64_t rest = count % VECTOR, n_good = 0;
    piece p = {.value = value, .bias = c->bias ? c->bias + at : s->zero, .dark = c->dark ? c->dark + at : s->zero,
               .flat = c->flat ? c->flat + at : s->one, .dark_noise = prepared && c->dark_noise ? c->dark_noise + at : NULL,
               .defects = !prepared && c->defects ? c->defects + at : NULL, .dark_step = (float)c->dark_step};
    float *image = s->image + at, *variance = s->variance + at;
    uint32_t *mask = s->mask + at;
    if (rest) n_good += write_rest(a, s->options, &p, backwards ? 0 : count - rest, backwards ? rest : count, 0, prepared, image,
                                   variance, mask);
    if (rest && backwards) {
        p.value += rest, p.bias += c->bias ? rest : 0, p.dark += c->dark ? rest : 0, p.flat += c->flat ? rest : 0;
        p.dark_noise += p.dark_noise ? rest : 0, p.defects += p.defects ? rest : 0;
        image += rest, variance += rest, mask += rest;
    }
    return n_good + write_piece(a, s->options, &p, count - rest, 0, prepared, image, variance, mask);
}

/* Set the bits of flagged pixels; returns how many of these had none. */
static int64_t mark(const sweep *s, int64_t i, int64_t t, int lane, int64_t at) {
    const rsp_detrend_options *o = s->options;
    int flag = s->flags[i * s->w->tile * ROWS + t * ROWS + lane], was_good = s->mask[at] == 0;
    s->mask[at] |= (flag & SATURATED ? o->sat_bit : 0) | (flag & SUSPECT ? o->suspect_bit : 0)
                 | (flag & NOT_FINITE ? o->nan_bit : 0) | (flag & GHOST ? s->w->ghost_bit : 0);
    if (flag & NOT_FINITE) s->image[at] = NAN, s->variance[at] = INFINITY;
    return was_good && s->mask[at];
}

/* A clean tile to its place in the detector. */
INLINE int64_t write_tile(const sweep *s, int64_t i, const float *tile, int64_t y, int64_t first, int64_t count,
                          const int prepared) {
    const rsp_amplifier *a = s->amplifiers + i;
    const rsp_electronics *e = s->electronics + i;
    int backwards = !a->flip_x != !e->reverse_x, downwards = !a->flip_y != !e->reverse_y;
    int64_t n_good = 0, height = rsp_min(ROWS, a->ny - y), step = backwards ? -1 : 1;
    int64_t x = a->x0 + (backwards ? a->nx - first - count : first);
    for (int64_t t = 0; t < count; t += VECTOR) {
        int n = (int)rsp_min(VECTOR, count - t);
        int64_t start = backwards ? count - 1 - t : t;
        floats v[VECTOR];
        for (int k = 0; k < VECTOR; k++) v[k] = k < n ? LOAD(tile + (start + step * k) * ROWS) : (floats){0};
        transpose(v);
        for (int r = 0; r < ROWS; r++) STORE(s->row + r * s->w->tile + t, v[r]);
    }
    rsp_amplifier plain = {.gain = 1.0, .constant_variance = a->constant_variance, .saturation = INFINITY, .suspect = INFINITY};
    for (int64_t r = 0; r < height; r++) {
        int64_t line = a->y0 + (downwards ? a->ny - 1 - y - r : y + r);
        n_good += write_row(s, &plain, s->row + r * s->w->tile, line * s->nx + x, count, backwards, prepared);
        for (int64_t t = 0; t < count && s->any[i]; t++)
            if (s->flags[(i * s->w->tile + t) * ROWS + r])
                n_good -= mark(s, i, t, (int)r, line * s->nx + x + (backwards ? count - 1 - t : t));
    }
    return n_good;
}

/* One tile of all amplifiers. */
INLINE int64_t sweep_tile(const sweep *s, int64_t y, int64_t first, int64_t count, const int prepared) {
    int64_t size = s->w->tile * ROWS, n_good = 0;
    for (int64_t j = 0; j < s->w->n_sources; j++) {
        if (s->amplifiers[j].raw_type == RSP_RAW_UINT16) load_tile(s, j, y, first, count, RSP_RAW_UINT16);
        else if (s->amplifiers[j].raw_type == RSP_RAW_INT32) load_tile(s, j, y, first, count, RSP_RAW_INT32);
        else load_tile(s, j, y, first, count, RSP_RAW_FLOAT);
    }
    if (s->w->linear) {
        rsp_crosstalk_tile(s->w, count, s->read, s->clean);
        for (int64_t j = 0; j < s->w->n_sources; j++)
            if (s->any[j]) flag_ghosts(s, j, count);
    }
    for (int64_t i = 0; i < s->w->n_targets; i++) {
        const rsp_electronics *e = s->electronics + i;
        float *tile = (s->w->linear ? s->clean : s->read) + i * size;
        if (e->linearity) straighten(e, count * ROWS, tile);
        if (e->inefficiency > 0.0 || e->offset_scale > 0.0 || e->trap_size > 0.0) restore(e, s->memories + i, first, count, tile);
        n_good += write_tile(s, i, tile, y, first, count, prepared);
    }
    return n_good;
}

RSP_SIMD static int64_t sweep_all(const sweep *s) {
    int64_t n_good = 0, ny = s->amplifiers->ny, nx = s->amplifiers->nx;
    for (int64_t y = 0; y < ny; y += ROWS) {
        memset(s->memories, 0, (size_t)s->w->n_targets * sizeof *s->memories);
        for (int64_t first = 0; first < nx; first += s->w->tile) {
            int64_t count = rsp_min(s->w->tile, nx - first);
            n_good += s->calibration->prepared ? sweep_tile(s, y, first, count, 1) : sweep_tile(s, y, first, count, 0);
        }
    }
    return n_good;
}

static rsp_status check_amplifier(const rsp_amplifier *a, const rsp_electronics *e, int64_t ny, int64_t nx) {
    RSP_CHECK(a->nx > 0 && a->ny > 0 && a->raw_stride >= a->nx, RSP_BAD_SHAPE);
    RSP_CHECK(a->x0 >= 0 && a->y0 >= 0 && a->x0 + a->nx <= nx && a->y0 + a->ny <= ny, RSP_BAD_SHAPE);
    RSP_CHECK(a->raw_type >= RSP_RAW_UINT16 && a->raw_type <= RSP_RAW_FLOAT, RSP_BAD_ARGUMENT);
    RSP_CHECK(a->gain > 0.0 && a->constant_variance >= 0.0, RSP_BAD_ARGUMENT);
    RSP_CHECK(!e->linearity || (e->n_linearity >= 2 && e->linearity_step > 0.0), RSP_BAD_ARGUMENT);
    RSP_CHECK(e->prescan >= 0 && e->inefficiency >= 0.0 && e->inefficiency * (double)(a->nx + e->prescan) <= 0.1, RSP_BAD_ARGUMENT);
    RSP_CHECK(e->offset_scale >= 0.0 && e->offset_fade >= 0.0 && e->offset_fade < 1.0, RSP_BAD_ARGUMENT);
    RSP_CHECK(e->trap_size >= 0.0 && e->trap_keep >= 0.0 && e->trap_keep < 1.0, RSP_BAD_ARGUMENT);
    RSP_CHECK(e->trap_size == 0.0 || e->trap_level > e->trap_size, RSP_BAD_ARGUMENT);
    return RSP_OK;
}

RSP_API rsp_status rsp_electronics_detrend(const rsp_sweep *what, const rsp_amplifier *amplifiers,
        const rsp_electronics *electronics, const rsp_calibration *calibration, const rsp_detrend_options *options, int64_t ny,
        int64_t nx, float *restrict out_image, float *restrict out_variance, uint32_t *restrict out_mask,
        int64_t *restrict out_good) {
    RSP_CHECK(what->n_targets > 0 && what->n_sources >= what->n_targets, RSP_BAD_SHAPE);
    RSP_CHECK(what->tile > 0 && what->tile % VECTOR == 0 && what->tile <= PIECE, RSP_BAD_ARGUMENT);
    RSP_CHECK(what->linear ? what->quadratic != NULL : what->n_sources == what->n_targets, RSP_BAD_ARGUMENT);
    RSP_CHECK(options->min_flat >= 0.0 && (calibration->flat || options->min_flat < 1.0), RSP_BAD_ARGUMENT);
    for (int64_t j = 0; j < what->n_sources; j++) {
        int own = j < what->n_targets;
        rsp_status found = check_amplifier(amplifiers + j, electronics + j, own ? ny : INT64_MAX, own ? nx : INT64_MAX);
        if (found) return found;
        RSP_CHECK(!what->linear || (amplifiers[j].nx == amplifiers->nx && amplifiers[j].ny == amplifiers->ny), RSP_BAD_SHAPE);
    }
    rsp_status status = RSP_OK;
    int64_t group = what->linear ? what->n_targets : 1, sources = what->linear ? what->n_sources : 1, tile = what->tile;
    rsp_sweep part = *what;
    sweep s = {.w = &part, .calibration = calibration, .options = options, .nx = nx, .image = out_image, .variance = out_variance,
               .mask = out_mask};
    s.read = malloc((size_t)((sources + group) * tile * ROWS + ROWS * tile + 2 * PIECE) * sizeof(float));
    s.flags = malloc((size_t)(sources * tile * ROWS));
    s.any = calloc((size_t)sources, sizeof *s.any);
    s.memories = malloc((size_t)group * sizeof *s.memories);
    RSP_NEED(s.read && s.flags && s.any && s.memories, RSP_NO_MEMORY);
    s.clean = s.read + sources * tile * ROWS;
    s.row = s.clean + group * tile * ROWS;
    s.zero = s.row + ROWS * tile;
    s.one = s.zero + PIECE;
    for (int t = 0; t < PIECE; t++) s.zero[t] = 0.0f, s.one[t] = 1.0f;
    part.n_targets = group, part.n_sources = sources;
    *out_good = 0;
    for (int64_t i = 0; i < what->n_targets; i += group) {
        s.amplifiers = amplifiers + i, s.electronics = electronics + i;
        *out_good += sweep_all(&s);
    }
done:
    free(s.read);
    free(s.flags);
    free(s.any);
    free(s.memories);
    return status;
}
