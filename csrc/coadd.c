/* coadd.c: the clipped weighted mean of warps that overlap in part.
 *
 * One weight per input, so that the mean's PSF is the weighted mean of the inputs' PSFs. An input is judged against the
 * mean of the others (leave one out, exact from the sums in O(1)): an artifact then shows in full even among three
 * inputs. Where the sky varies from pixel to pixel the others' range over 5 x 5 pixels is tolerated, so that stars
 * survive changes of seeing. Reads 12 bytes per input and pixel; a strip of 4096 columns is read twice in a row, the
 * second time from the cache. */
#include <float.h>
#include "internal.h"

#define INLINE static inline __attribute__((always_inline))
#define STRIP 4096
#define HALO 2
#define ROWS (2 * HALO + 1)
#define WIDTH (STRIP + 2 * HALO)

typedef struct { /* sums over the inputs of one row of a strip and its halo */
    float value[WIDTH], weight[WIDTH], variance[WIDTH]; /* sum w v, sum w, sum w^2 V */
    int32_t n[WIDTH];
    uint32_t used[WIDTH], lost[WIDTH]; /* OR of the masks of inputs that count, and of those that do not */
    int32_t doubt[WIDTH];              /* whether an input may have to be clipped */
} row_sums;

typedef struct {
    row_sums row[ROWS]; /* row y is at y modulo ROWS */
} strip;

typedef struct { /* what all functions here need */
    const rsp_coadd_input *input;
    int64_t n;
    const rsp_coadd_rules *rules;
    float *weight; /* [n], relative to the largest */
} stack;

INLINE row_sums *row_of(strip *s, int64_t y) { return s->row + (y + ROWS * HALO) % ROWS; }

/* The columns first <= x < last of an input that lie within a strip with halo; returns the pointer offset of x = 0. */
INLINE int64_t overlap(const rsp_coadd_input *e, int64_t y, int64_t x0, int64_t x1, int64_t *first, int64_t *last) {
    *first = rsp_max(e->x0, x0);
    *last = y >= e->y0 && y < e->y0 + e->ny ? rsp_min(e->x0 + e->nx, x1) : *first;
    return (y - e->y0) * e->nx - e->x0;
}

/* A group of inputs that are taken together over the columns they share, so that the sums are loaded and stored once.
 * The order of additions in a pixel stays that of the inputs. */
#define GROUP 5

typedef struct { const float *v, *u; const uint32_t *m; float w; int64_t first, last; } segment; /* v[0]: first */

typedef struct { /* one row's sums, from some column on */
    float *value, *weight, *variance;
    int32_t *n;
    uint32_t *used, *lost;
    int32_t *doubt;
} sums;

INLINE sums sums_from(row_sums *r, int64_t i) {
    return (sums){r->value + i, r->weight + i, r->variance + i, r->n + i, r->used + i, r->lost + i, r->doubt + i};
}

/* Add n pixels of `count` (a constant) inputs, from column `from` on. */
INLINE void add_inputs(const segment *e, const int count, int64_t from, int64_t n, sums s) {
    float *restrict value = s.value, *restrict weight = s.weight, *restrict variance = s.variance;
    int32_t *restrict number = s.n;
    uint32_t *restrict used = s.used, *restrict lost = s.lost;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float sum = value[i], all = weight[i], noise = variance[i];
        int32_t ns = number[i];
        uint32_t in = used[i], out = lost[i];
        for (int k = 0; k < count; k++) {
            const float v = e[k].v[from - e[k].first + i], u = e[k].u[from - e[k].first + i], w = e[k].w;
            const uint32_t m = e[k].m[from - e[k].first + i];
            const int ok = (fabsf(v) <= FLT_MAX) & (u <= FLT_MAX);
            const uint32_t keep = (uint32_t)-ok;
            sum += w * (ok ? v : 0.0f);
            noise += w * w * (ok ? u : 0.0f);
            all += ok ? w : 0.0f;
            ns += ok;
            in |= m & keep;
            out |= m & ~keep;
        }
        value[i] = sum, weight[i] = all, variance[i] = noise, number[i] = ns, used[i] = in, lost[i] = out;
    }
}

/* Mark the pixels where one of the inputs lies beyond kappa sigma of the mean of the others. NaN compares false. */
INLINE void doubt_inputs(const segment *e, const int count, int64_t from, int64_t n, float kappa2, sums s) {
    const float *restrict value = s.value, *restrict weight = s.weight, *restrict variance = s.variance;
    int32_t *restrict doubt = s.doubt;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        const float sum = value[i], all = weight[i], total = variance[i];
        int32_t doubted = doubt[i];
        for (int k = 0; k < count; k++) {
            const float v = e[k].v[from - e[k].first + i], u = e[k].u[from - e[k].first + i], w = e[k].w;
            const float rest = all - w, d = v * all - sum, noise = u * (rest * rest - w * w) + total; /* of d */
            doubted |= (d * d > kappa2 * noise) & (u <= FLT_MAX);
        }
        doubt[i] = doubted;
    }
}

/* Inputs k .. k + GROUP over columns first .. last of row y; those without a pixel there are left out. */
INLINE int take_group(const stack *c, int64_t *k, int64_t y, int64_t x0, segment *out_segment) {
    int count = 0;
    for (; *k < c->n && count < GROUP; (*k)++) {
        const rsp_coadd_input *e = c->input + *k;
        int64_t first, last, at = overlap(e, y, x0 - HALO, x0 + STRIP + HALO, &first, &last) + first;
        if (first < last)
            out_segment[count++] = (segment){e->image + at, e->variance + at, e->mask + at, c->weight[*k], first, last};
    }
    return count;
}

/* Do `one` for each input of a group over the columns that not all share, and all at once over those that they do: in each
 * pixel the inputs come in their order. */
#define FOR_GROUP(e, count, DO)                                                                  \
    do {                                                                                         \
        int64_t low = (e)[0].first, high = (e)[0].last;                                          \
        for (int k_ = 1; k_ < (count); k_++)                                                     \
            low = rsp_max(low, (e)[k_].first), high = rsp_min(high, (e)[k_].last);               \
        if ((count) < GROUP || low >= high) low = high = INT64_MAX;                              \
        for (int k_ = 0; k_ < (count); k_++) {                                                   \
            DO((e) + k_, 1, (e)[k_].first, rsp_min(low, (e)[k_].last));                          \
            if (high < INT64_MAX) DO((e) + k_, 1, high, (e)[k_].last);                           \
        }                                                                                        \
        if (high < INT64_MAX) DO((e), GROUP, low, high);                                         \
    } while (0)

/* Sums of row y over columns x0 - HALO .. x0 + STRIP + HALO. */
INLINE void add_row(const stack *c, strip *s, int64_t y, int64_t x0) {
    row_sums *r = row_of(s, y);
    segment e[GROUP];
    int count;
    memset(r, 0, sizeof *r);
#define ADD(e, count, from, to) add_inputs(e, count, from, (to) - (from), sums_from(r, (from) - x0 + HALO))
    for (int64_t k = 0; (count = take_group(c, &k, y, x0, e)) > 0;) FOR_GROUP(e, count, ADD);
#undef ADD
}

/* Pixels of row y of which an input lies beyond kappa sigma of the mean of the others; the row is still in cache. */
INLINE void doubt_row(const stack *c, strip *s, int64_t y, int64_t x0) {
    row_sums *r = row_of(s, y);
    const float kappa2 = c->rules->kappa * c->rules->kappa;
    const int32_t min_inputs = c->rules->min_inputs;
    segment e[GROUP];
    int count;
#define TEST(e, count, from, to) doubt_inputs(e, count, from, (to) - (from), kappa2, sums_from(r, (from) - x0 + HALO))
    for (int64_t k = 0; (count = take_group(c, &k, y, x0, e)) > 0;) FOR_GROUP(e, count, TEST);
#undef TEST
    for (int64_t i = 0; i < WIDTH; i++) r->doubt[i] &= r->n[i] >= min_inputs;
}

/* Value of input k at a pixel; 0 if it has none there. */
static int sample(const stack *c, int64_t k, int64_t y, int64_t x, float *v, float *u) {
    const rsp_coadd_input *e = c->input + k;
    if (x < e->x0 || x >= e->x0 + e->nx || y < e->y0 || y >= e->y0 + e->ny) return 0;
    *v = e->image[(y - e->y0) * e->nx + x - e->x0];
    *u = e->variance[(y - e->y0) * e->nx + x - e->x0];
    return fabsf(*v) <= FLT_MAX && *u <= FLT_MAX;
}

/* Range of the mean of the inputs that are not out, over the pixel and its neighbours. */
static double range_around(const stack *c, strip *s, int64_t y, int64_t x, int64_t x0, const uint8_t *out) {
    double low = INFINITY, high = -INFINITY;
    for (int64_t v = y - HALO; v <= y + HALO; v++)
        for (int64_t u = x - HALO; u <= x + HALO; u++) {
            const row_sums *r = row_of(s, v);
            double value = r->value[u - x0 + HALO], weight = r->weight[u - x0 + HALO];
            for (int64_t k = 0; k < c->n; k++) {
                float p, q;
                if (!out[k] || !sample(c, k, v, u, &p, &q)) continue;
                value -= (double)c->weight[k] * p;
                weight -= c->weight[k];
            }
            if (weight < 1e-5 * r->weight[u - x0 + HALO] || weight <= 0.0) continue;
            low = fmin(low, value / weight);
            high = fmax(high, value / weight);
        }
    return high >= low ? high - low : 0.0;
}

/* The sums of one pixel over the inputs that are not out. */
typedef struct { double value, weight, variance; int64_t n; } pixel_sums;

static pixel_sums sums_at(const stack *c, int64_t y, int64_t x, const uint8_t *out) {
    pixel_sums p = {0.0, 0.0, 0.0, 0};
    for (int64_t k = 0; k < c->n; k++) {
        float v, u;
        if (out[k] || !sample(c, k, y, x, &v, &u)) continue;
        double w = c->weight[k];
        p.value += w * v, p.weight += w, p.variance += w * w * u, p.n++;
    }
    return p;
}

/* The input farthest beyond its tolerance, or -1. */
static int64_t worst_input(const stack *c, strip *s, int64_t y, int64_t x, int64_t x0, const pixel_sums *p,
                           uint8_t *out) {
    const rsp_coadd_rules *rules = c->rules;
    int64_t worst = -1;
    double excess = 1.0;
    for (int64_t k = 0; k < c->n; k++) {
        float v, u;
        if (out[k] || !sample(c, k, y, x, &v, &u)) continue;
        double w = c->weight[k], rest = p->weight - w, others = (p->variance - w * w * u) / (rest * rest);
        double away = fabs(v - (p->value - w * v) / rest), limit = rules->kappa * sqrt(fmax(u + others, 0.0));
        if (!(away > excess * limit)) continue;
        out[k] = 1;
        double range = range_around(c, s, y, x, x0, out);
        out[k] = 0;
        /* 4: what noise makes of 25 pixels */
        limit += rules->tolerance * fmax(0.0, range - 4.0 * sqrt(fmax(others, 0.0)));
        if (away > excess * limit) excess = away / limit, worst = k;
    }
    return worst;
}

/* Clip the worst input of a pixel in doubt until none is beyond its tolerance or a third is gone; how many went. */
static int64_t clip_pixel(const stack *c, strip *s, int64_t y, int64_t x, int64_t x0, uint8_t *out, pixel_sums *p,
                          int64_t *restrict out_clipped) {
    int64_t n_clipped = 0, worst;
    memset(out, 0, (size_t)c->n);
    *p = sums_at(c, y, x, out);
    const int64_t most = rsp_max(1, p->n / 3);
    while (n_clipped < most && p->n >= c->rules->min_inputs && (worst = worst_input(c, s, y, x, x0, p, out)) >= 0) {
        out[worst] = 1;
        out_clipped[worst]++;
        n_clipped++;
        *p = sums_at(c, y, x, out);
    }
    return n_clipped;
}

/* Share of the weight at a pixel that was lost to saturation. */
static double lost_share(const stack *c, int64_t y, int64_t x, double used) {
    double lost = 0.0;
    for (int64_t k = 0; k < c->n; k++) {
        const rsp_coadd_input *e = c->input + k;
        float v, u;
        if (x < e->x0 || x >= e->x0 + e->nx || y < e->y0 || y >= e->y0 + e->ny || sample(c, k, y, x, &v, &u)) continue;
        if (e->mask[(y - e->y0) * e->nx + x - e->x0] & c->rules->saturated) lost += c->weight[k];
    }
    return lost / (lost + used);
}

INLINE void finish_row(const stack *c, strip *s, int64_t y, int64_t x0, int64_t x1, int64_t nx, uint8_t *out,
                       float *restrict out_image, float *restrict out_variance, uint32_t *restrict out_mask,
                       uint16_t *restrict out_count, int64_t *restrict out_clipped) {
    row_sums *r = row_of(s, y);
    const rsp_coadd_rules *rules = c->rules;
    const int64_t at = y * nx + x0;
    for (int64_t i = 0; i < x1 - x0; i++) {
        const int any = r->n[i + HALO] > 0;
        const float inverse = 1.0f / (any ? r->weight[i + HALO] : 1.0f);
        const uint32_t lost = r->lost[i + HALO];
        out_image[at + i] = any ? r->value[i + HALO] * inverse : NAN;
        out_variance[at + i] = any ? r->variance[i + HALO] * inverse * inverse : INFINITY;
        out_count[at + i] = (uint16_t)r->n[i + HALO];
        out_mask[at + i] = (r->used[i + HALO] & rules->carry) | (lost & (rules->rejected | rules->edge)) |
                           (any ? 0 : rules->no_data);
        r->doubt[i + HALO] |= (lost & rules->saturated) != 0;
    }
    for (int64_t i = 0; i < x1 - x0; i++) {
        if (!r->doubt[i + HALO]) continue;
        pixel_sums p;
        int64_t n_clipped = clip_pixel(c, s, y, x0 + i, x0, out, &p, out_clipped);
        if (n_clipped) {
            out_image[at + i] = (float)(p.value / p.weight);
            out_variance[at + i] = (float)(p.variance / (p.weight * p.weight));
            out_count[at + i] = (uint16_t)p.n;
            out_mask[at + i] |= rules->clipped;
        }
        if ((r->lost[i + HALO] & rules->saturated) && lost_share(c, y, x0 + i, p.weight) > rules->max_saturated)
            out_mask[at + i] |= rules->saturated;
    }
}

RSP_API RSP_SIMD rsp_status rsp_coadd(const rsp_coadd_input *input, int64_t n, int64_t ny, int64_t nx,
                                      const rsp_coadd_rules *rules, float *out_image, float *out_variance,
                                      uint32_t *out_mask, uint16_t *out_count, int64_t *out_clipped) {
    RSP_CHECK(n > 0 && n <= 65535 && ny > 0 && nx > 0, RSP_BAD_SHAPE);
    RSP_CHECK(rules->kappa > 0.0f && rules->tolerance >= 0.0f && rules->min_inputs >= 3, RSP_BAD_ARGUMENT);
    double largest = 0.0;
    for (int64_t k = 0; k < n; k++) {
        RSP_CHECK(input[k].nx >= 0 && input[k].ny >= 0, RSP_BAD_SHAPE);
        RSP_CHECK(input[k].weight > 0.0 && input[k].weight <= DBL_MAX, RSP_BAD_ARGUMENT);
        largest = fmax(largest, input[k].weight);
    }
    rsp_status status = RSP_OK;
    strip *s = malloc(sizeof *s);
    uint8_t *out = malloc((size_t)n);
    float *weight = malloc(sizeof *weight * (size_t)n);
    RSP_NEED(s && out && weight, RSP_NO_MEMORY);
    for (int64_t k = 0; k < n; k++) {
        weight[k] = (float)(input[k].weight / largest);
        out_clipped[k] = 0;
    }
    const stack c = {input, n, rules, weight};
    for (int64_t x0 = 0; x0 < nx; x0 += STRIP) {
        const int64_t x1 = rsp_min(nx, x0 + STRIP);
        for (int64_t y = -HALO; y < HALO; y++) add_row(&c, s, y, x0), doubt_row(&c, s, y, x0);
        for (int64_t y = 0; y < ny; y++) {
            add_row(&c, s, y + HALO, x0);
            doubt_row(&c, s, y + HALO, x0);
            finish_row(&c, s, y, x0, x1, nx, out, out_image, out_variance, out_mask, out_count, out_clipped);
        }
    }
done:
    free(s);
    free(out);
    free(weight);
    return status;
}
