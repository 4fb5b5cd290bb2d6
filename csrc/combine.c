/* combine.c: the clipped mean of N registered inputs, pixel by pixel.
 *
 * Bound by memory for few inputs (4 to 12 bytes per input and pixel), by the sorting network's min/max for many. Pixels
 * lie in SIMD lanes: a tile of TILE pixels of all inputs is copied into scratch that fits L1, a Batcher network sorts all
 * its pixels at once (pruned to what the median needs where no input is missing), and the sums run over deviations from
 * the median, so that single precision loses nothing. Each pixel depends on its own inputs alone. */
#include "internal.h"

enum { TILE = 64 };
#define INLINE static inline __attribute__((always_inline))

typedef struct {
    int32_t a, b;
} exchange; /* b < 0 in a pruned list: keep the smaller only, at a; a < 0: keep the larger only, at b (both one's complement) */

typedef struct {
    int64_t n, n_network, n_pruned, pruned_for;
    exchange *network, *pruned;
    uint8_t *live;                                   /* [n] while pruning */
    float *value, *variance, *weight, *sorted, *used; /* [n][TILE], inputs that are present somewhere in the tile */
    double *range;   /* [n + 1] expected range between the quartile order statistics of so many unit Gaussians */
    int32_t *source; /* [n] which input sits in row i of the scratch */
    void *block;
} work;

typedef struct {
    float centre[TILE], k_low[TILE], k_high[TILE], spread[TILE]; /* k are squared */
    float sum_w[TILE], sum_wd[TILE], sum_wdd[TILE], sum_wwv[TILE];
    float valid[TILE], kept[TILE];
    uint32_t rejected[TILE], flags[TILE];
} lanes;

/* ---- sorting network ---- */

static int64_t batcher(int64_t n, exchange *out) {
    int64_t count = 0;
    for (int64_t p = 1; p < n; p *= 2)
        for (int64_t k = p; k >= 1; k /= 2)
            for (int64_t j = k % p; j + k < n; j += 2 * k)
                for (int64_t i = 0; i < rsp_min(k, n - j - k); i++)
                    if ((i + j) / (2 * p) == (i + j + k) / (2 * p)) {
                        if (out) out[count] = (exchange){(int32_t)(i + j), (int32_t)(i + j + k)};
                        count++;
                    }
    return count;
}

static int64_t quartile(int64_t n) { return (n - 1) / 4; }

/* The part of the network on which the middle (and the quartiles) of the first n rows depend. */
static void prune(work *w, int64_t n, int quartiles) {
    if (w->pruned_for == n) return;
    memset(w->live, 0, (size_t)w->n);
    w->live[(n - 1) / 2] = w->live[n / 2] = 1;
    if (quartiles) w->live[quartile(n)] = w->live[n - 1 - quartile(n)] = 1;
    int64_t first = w->n_network;
    for (int64_t i = w->n_network - 1; i >= 0; i--) {
        exchange e = w->network[i];
        if (e.b >= n || !(w->live[e.a] || w->live[e.b])) continue;
        int low = w->live[e.a], high = w->live[e.b];
        w->live[e.a] = w->live[e.b] = 1;
        w->pruned[--first] = (exchange){high && !low ? ~e.a : e.a, low && !high ? ~e.b : e.b};
    }
    w->n_pruned = w->n_network - first;
    memmove(w->pruned, w->pruned + first, (size_t)w->n_pruned * sizeof *w->pruned);
    w->pruned_for = n;
}

INLINE void sort_full(const work *w, int64_t n) {
    for (int64_t i = 0; i < w->n_network; i++) {
        if (w->network[i].b >= n) continue; /* rows beyond n would hold infinity: exchanging them does nothing */
        float *restrict a = w->sorted + w->network[i].a * TILE, *restrict b = w->sorted + w->network[i].b * TILE;
        for (int t = 0; t < TILE; t++) {
            float low = a[t] < b[t] ? a[t] : b[t], high = b[t] > a[t] ? b[t] : a[t];
            a[t] = low;
            b[t] = high;
        }
    }
}

INLINE void sort_middle(const work *w) {
    for (int64_t i = 0; i < w->n_pruned; i++) {
        exchange e = w->pruned[i];
        float *restrict a = w->sorted + (e.a < 0 ? ~e.a : e.a) * TILE, *restrict b = w->sorted + (e.b < 0 ? ~e.b : e.b) * TILE;
        if (e.a >= 0 && e.b >= 0) {
            for (int t = 0; t < TILE; t++) {
                float low = a[t] < b[t] ? a[t] : b[t], high = b[t] > a[t] ? b[t] : a[t];
                a[t] = low;
                b[t] = high;
            }
        } else if (e.b < 0) {
            for (int t = 0; t < TILE; t++) a[t] = a[t] < b[t] ? a[t] : b[t];
        } else {
            for (int t = 0; t < TILE; t++) b[t] = b[t] > a[t] ? b[t] : a[t];
        }
    }
}

/* ---- one tile ---- */

typedef struct {
    const float *const *image, *const *variance;
    const uint32_t *const *mask;
    const double *weight, *noise;
    const rsp_combine_options *options;
} inputs;

/* Copy one input's `count` pixels from `first` into row `row` of the scratch; returns 0 if none of them is valid. */
INLINE int load_row(const inputs *in, work *w, lanes *l, int64_t source, int64_t row, int64_t first, int count) {
    const rsp_combine_options *o = in->options;
    float *restrict value = w->value + row * TILE, *restrict weight = w->weight + row * TILE;
    float *restrict variance = w->variance + row * TILE, *restrict sorted = w->sorted + row * TILE;
    float frame = in->weight ? (float)in->weight[source] : 1.0f;
    float pixel[TILE], noise[TILE];
    uint32_t bits[TILE];
    for (int t = 0; t < TILE; t++) pixel[t] = NAN, noise[t] = 1.0f, bits[t] = 0;
    memcpy(pixel, in->image[source] + first, (size_t)count * sizeof(float));
    if (in->variance) memcpy(noise, in->variance[source] + first, (size_t)count * sizeof(float));
    if (in->mask) memcpy(bits, in->mask[source] + first, (size_t)count * sizeof(uint32_t));
    int by_variance = in->variance && !in->weight, n_valid = 0;
    for (int t = 0; t < TILE; t++) {
        int finite = fabsf(pixel[t]) < INFINITY;
        int present = finite & ((bits[t] & o->absent_bits) == 0);
        int ok = present & ((bits[t] & o->reject_bits) == 0) & (noise[t] > 0.0f) & (noise[t] < INFINITY) & (frame > 0.0f);
        l->rejected[t] |= (uint32_t)(present & !ok) * o->rejected_bit;
        l->flags[t] |= bits[t];
        value[t] = ok ? pixel[t] : 0.0f;
        sorted[t] = ok ? pixel[t] : INFINITY;
        variance[t] = ok ? noise[t] : 1.0f;
        weight[t] = ok ? (by_variance ? 1.0f / noise[t] : frame) : 0.0f;
        l->valid[t] += ok ? 1.0f : 0.0f;
        n_valid += ok;
    }
    return n_valid;
}

/* Median (and squared spread from the quartiles) of the valid values in each lane. */
INLINE void middle(const inputs *in, work *w, lanes *l, int64_t n, int complete) {
    int estimate = !in->variance && !in->noise;
    if (complete) {
        prune(w, n, estimate);
        sort_middle(w);
        const float *a = w->sorted + (n - 1) / 2 * TILE, *b = w->sorted + n / 2 * TILE;
        for (int t = 0; t < TILE; t++) l->centre[t] = a[t] + 0.5f * (b[t] - a[t]);
    } else {
        sort_full(w, n);
        for (int t = 0; t < TILE; t++) {
            int64_t m = (int64_t)l->valid[t];
            float a = m ? w->sorted[(m - 1) / 2 * TILE + t] : 0.0f, b = m ? w->sorted[m / 2 * TILE + t] : 0.0f;
            l->centre[t] = a + 0.5f * (b - a);
        }
    }
    for (int t = 0; t < TILE; t++) l->spread[t] = 0.0f;
    if (!estimate) return;
    for (int t = 0; t < TILE; t++) {
        int64_t m = (int64_t)l->valid[t];
        if (m < 2) continue;
        float s = (w->sorted[(m - 1 - quartile(m)) * TILE + t] - w->sorted[quartile(m) * TILE + t]) / (float)w->range[m];
        l->spread[t] = s * s;
    }
}

/* Sums of the values within kappa sigma of the centre. */
INLINE void sums(const inputs *in, work *w, lanes *l, int64_t n) {
    float relative = (float)(in->options->relative * in->options->relative);
    int given = in->variance != NULL, model = !given && in->noise;
    for (int t = 0; t < TILE; t++) l->sum_w[t] = l->sum_wd[t] = l->sum_wdd[t] = l->sum_wwv[t] = l->kept[t] = 0.0f;
    for (int64_t i = 0; i < n; i++) {
        const float *restrict value = w->value + i * TILE, *restrict weight = w->weight + i * TILE;
        const float *restrict variance = w->variance + i * TILE;
        float *restrict used = w->used + i * TILE;
        float floor = model ? (float)in->noise[2 * w->source[i]] : 0.0f;
        float slope = model ? (float)in->noise[2 * w->source[i] + 1] : 0.0f;
        for (int t = 0; t < TILE; t++) {
            float c = l->centre[t], d = value[t] - c;
            float v = given ? variance[t] : model ? floor + slope * (c > 0.0f ? c : 0.0f) : l->spread[t];
            float k = d < 0.0f ? l->k_low[t] : l->k_high[t];
            float s = v + relative * c * c, g = d * d <= k * (s > 1e-30f ? s : 1e-30f) ? weight[t] : 0.0f; /* inf * 0 is NaN */
            used[t] = g;
            l->kept[t] += g > 0.0f ? 1.0f : 0.0f;
            l->sum_w[t] += g;
            l->sum_wd[t] += g * d;
            l->sum_wdd[t] += g * d * d;
            l->sum_wwv[t] += g * (g * (model ? v : variance[t]));
        }
    }
}

/* Clip about the median, then about the mean of what is left, `iterations` times in all. */
INLINE void clip(const inputs *in, work *w, lanes *l, int64_t n) {
    int estimate = !in->variance && !in->noise;
    float start[TILE], spread[TILE];
    memcpy(start, l->centre, sizeof start);
    memcpy(spread, l->spread, sizeof spread);
    for (int retry = 0; retry < 2; retry++) {
        for (int k = 0; k < rsp_max(1, in->options->iterations); k++) {
            if (k) {
                for (int t = 0; t < TILE; t++) {
                    float mean = l->sum_w[t] > 0.0f ? l->sum_wd[t] / l->sum_w[t] : 0.0f;
                    float s = l->kept[t] > 1.5f ? (l->sum_wdd[t] / l->sum_w[t] - mean * mean) * l->kept[t] / (l->kept[t] - 1.0f)
                                                : l->spread[t];
                    l->centre[t] += mean;
                    if (estimate) l->spread[t] = s > 0.0f ? s : 0.0f;
                }
            }
            sums(in, w, l, n);
        }
        int dead = 0; /* lanes whose inputs were all clipped (two camps): they keep them all, and say so */
        for (int t = 0; t < TILE; t++) dead += l->kept[t] < 0.5f && l->valid[t] > 0.5f;
        if (!dead || retry) break;
        for (int t = 0; t < TILE; t++)
            if (l->kept[t] < 0.5f && l->valid[t] > 0.5f) {
                l->k_low[t] = l->k_high[t] = INFINITY;
                l->flags[t] |= in->options->clipped_bit;
                l->rejected[t] |= in->options->clipped_bit;
            }
        memcpy(l->centre, start, sizeof start);
        memcpy(l->spread, spread, sizeof spread);
    }
}

INLINE uint32_t majority(const inputs *in, int64_t n, int64_t pixel) {
    const rsp_combine_options *o = in->options;
    uint32_t result = 0;
    for (uint32_t left = o->majority_bits; left; left &= left - 1) {
        uint32_t bit = left & (~left + 1);
        int64_t present = 0, set = 0;
        for (int64_t i = 0; i < n; i++) {
            uint32_t m = in->mask[i][pixel];
            if (m & o->absent_bits) continue;
            present++;
            set += (m & bit) != 0;
        }
        if (set > 0 && (double)set >= o->majority_fraction * (double)present) result |= bit;
    }
    return result;
}

INLINE void store_masks(const inputs *in, const work *w, lanes *l, int64_t n_rows, int64_t first, int count,
                        uint32_t *restrict out_mask, int64_t *restrict out_clipped) {
    const rsp_combine_options *o = in->options;
    uint32_t clipped[TILE] = {0}, carried[TILE] = {0};
    for (int64_t i = 0; i < n_rows; i++) {
        const float *weight = w->weight + i * TILE, *used = w->used + i * TILE;
        int64_t lost = 0;
        for (int t = 0; t < TILE; t++) {
            uint32_t gone = (weight[t] > 0.0f) & (used[t] == 0.0f);
            clipped[t] |= gone;
            lost += gone;
        }
        if (out_clipped) out_clipped[w->source[i]] += lost;
        if (!out_mask || !in->mask) continue;
        const uint32_t *mask = in->mask[w->source[i]] + first;
        for (int t = 0; t < count; t++) carried[t] |= used[t] > 0.0f ? mask[t] & o->or_bits : 0;
    }
    if (!out_mask) return;
    for (int t = 0; t < count; t++) {
        uint32_t m = carried[t] | l->rejected[t] | (clipped[t] ? o->clipped_bit : 0) | (l->kept[t] > 0.5f ? 0 : o->no_data_bit);
        if (in->mask && (l->flags[t] & o->majority_bits)) m |= majority(in, w->n, first + t);
        out_mask[first + t] = m;
    }
}

RSP_SIMD static void combine_tile(const inputs *in, work *w, int64_t first, int count, float *restrict out_mean,
                                  float *restrict out_variance, uint16_t *restrict out_count,
                                  uint32_t *restrict out_mask, int64_t *restrict out_clipped) {
    const rsp_combine_options *o = in->options;
    lanes l;
    memset(&l, 0, sizeof l);
    int64_t n = 0, total = 0;
    for (int64_t i = 0; i < w->n; i++) {
        w->source[n] = (int32_t)i;
        int valid = load_row(in, w, &l, i, n, first, count);
        total += valid;
        n += valid > 0;
    }
    int complete = total == n * count && count == TILE;
    for (int t = 0; t < TILE; t++) {
        int clips = o->iterations > 0 && l.valid[t] >= (float)o->min_inputs;
        l.k_low[t] = clips ? (float)(o->kappa_low * o->kappa_low) : INFINITY;
        l.k_high[t] = clips ? (float)(o->kappa_high * o->kappa_high) : INFINITY;
    }
    if (n) {
        middle(in, w, &l, n, complete);
        clip(in, w, &l, n);
    }
    int estimate = !in->variance && !in->noise;
    float mean[TILE], variance[TILE];
    for (int t = 0; t < TILE; t++) {
        float sw = l.sum_w[t], d = l.sum_wd[t] / sw, m = l.kept[t];
        float scatter = m > 1.5f ? (l.sum_wdd[t] / sw - d * d) * m / (m - 1.0f) : INFINITY;
        float v = l.sum_wwv[t] / sw / sw; /* estimate: the noise is one here, so this is sum w^2 / (sum w)^2 */
        mean[t] = m > 0.5f ? l.centre[t] + d : NAN;
        variance[t] = m > 0.5f ? (estimate ? v * (scatter > 0.0f ? scatter : 0.0f) : v) : INFINITY;
    }
    memcpy(out_mean + first, mean, (size_t)count * sizeof(float));
    memcpy(out_variance + first, variance, (size_t)count * sizeof(float));
    if (out_count)
        for (int t = 0; t < count; t++) out_count[first + t] = (uint16_t)l.kept[t];
    if (out_mask || out_clipped) store_masks(in, w, &l, n, first, count, out_mask, out_clipped);
}

/* ---- set-up ---- */

/* Inverse of the normal distribution, by bisection: it is called a few hundred times per call. */
static double normal_quantile(double p) {
    double low = -9.0, high = 9.0;
    for (int i = 0; i < 60; i++) {
        double middle_ = 0.5 * (low + high);
        if (0.5 * erfc(-middle_ / sqrt(2.0)) < p) low = middle_;
        else high = middle_;
    }
    return 0.5 * (low + high);
}

static rsp_status work_open(work *w, int64_t n, int estimate) {
    memset(w, 0, sizeof *w);
    w->n = n;
    w->n_network = batcher(n, NULL);
    size_t plane = (size_t)n * TILE * sizeof(float), pairs = (size_t)(w->n_network + 1) * sizeof(exchange);
    pairs = (pairs + 63) / 64 * 64;
    size_t rows = ((size_t)n * 5 + 63) / 64 * 64, ranges = ((size_t)(n + 1) * sizeof(double) + 63) / 64 * 64;
    w->block = aligned_alloc(64, 5 * plane + 2 * pairs + rows + ranges);
    if (!w->block) return rsp_fail(RSP_NO_MEMORY, "clipped mean of %lld inputs", (long long)n);
    char *at = w->block;
    float **planes[] = {&w->value, &w->variance, &w->weight, &w->sorted, &w->used};
    for (int i = 0; i < 5; i++, at += plane) *planes[i] = (float *)at;
    w->network = (exchange *)at, at += pairs;
    w->pruned = (exchange *)at, at += pairs;
    w->range = (double *)at, at += ranges;
    w->source = (int32_t *)at, at += (size_t)n * sizeof(int32_t);
    w->live = (uint8_t *)at;
    batcher(n, w->network);
    for (int64_t m = 2; m <= n && estimate; m++) /* Blom's expected order statistics */
        w->range[m] = 2.0 * normal_quantile(((double)(m - quartile(m)) - 0.375) / ((double)m + 0.25));
    return RSP_OK;
}

RSP_API rsp_status rsp_combine_clipped_mean(int64_t n, int64_t n_pixels, const float *const *image,
        const float *const *variance, const uint32_t *const *mask, const double *weight, const double *noise,
        const rsp_combine_options *options, float *restrict out_mean, float *restrict out_variance,
        uint16_t *restrict out_count, uint32_t *restrict out_mask, int64_t *restrict out_clipped) {
    RSP_CHECK(n > 0 && n <= 65535 && n_pixels >= 0, RSP_BAD_SHAPE);
    RSP_CHECK(options->kappa_low > 0.0 && options->kappa_high > 0.0 && options->relative >= 0.0, RSP_BAD_ARGUMENT);
    RSP_CHECK(options->majority_fraction >= 0.0 && options->iterations >= 0, RSP_BAD_ARGUMENT);
    work w;
    inputs in = {image, variance, mask, weight, variance ? NULL : noise, options};
    rsp_status status = work_open(&w, n, !variance && !noise);
    if (status != RSP_OK) return status;
    if (out_clipped) memset(out_clipped, 0, (size_t)n * sizeof *out_clipped);
    for (int64_t first = 0; first < n_pixels; first += TILE)
        combine_tile(&in, &w, first, (int)rsp_min(TILE, n_pixels - first), out_mean, out_variance, out_count, out_mask,
                     out_clipped);
    free(w.block);
    return RSP_OK;
}
