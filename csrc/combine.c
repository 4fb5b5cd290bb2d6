/* combine.c: the clipped mean of N registered inputs, pixel by pixel.
 *
 * Bound by memory for few inputs (4 to 12 bytes per input and pixel), by the sorting network's min/max for many. Pixels
 * lie in SIMD lanes: a tile of TILE pixels of all inputs is copied into scratch that fits L1, a Batcher network sorts all
 * its pixels at once (pruned to what the median needs where no input is missing), and the sums run over deviations from
 * the median, so that single precision loses nothing. Each pixel depends on its own inputs alone. */
#include "combiner.h"
#include "lanes.h"
#include "network.h"

enum { TILE = 64 };
#define LANES _Pragma("omp simd") for (int t = 0; t < TILE; t++)

/* Where the variance of a value comes from. Constant in each copy of the hot loops, so that they vectorise. */
typedef enum { GIVEN, MODEL, ESTIMATED } source_of_noise;

typedef struct {
    int64_t n, n_network, n_pruned, pruned_for;
    exchange *network, *pruned;
    uint8_t *live;                                   /* [n] while pruning */
    float *value, *variance, *weight, *sorted; /* [n][TILE], inputs that are valid somewhere in the tile */
    const float **weight_row;                 /* [n] weights of row i: in weight, or in frame_weight where all is valid */
    float *noise_row;                         /* [n][2] floor and slope of row i */
    float *frame_weight;                      /* [n][TILE] the inputs' own weights, repeated */
    double *range;   /* [n + 1] expected range between the quartile order statistics of so many unit Gaussians */
    int32_t *source; /* [n] which input sits in row i of the scratch */
    void *block;
} work;

typedef struct {
    float centre[TILE], k_low[TILE], k_high[TILE], spread[TILE], extra[TILE]; /* k, spread, extra are squared */
    float sum_w[TILE], sum_wd[TILE], sum_wdd[TILE], sum_wwv[TILE];
    float valid[TILE], kept[TILE];
    uint32_t rejected[TILE], flags[TILE];
} lanes;

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
        LANES {
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
            LANES {
                float low = a[t] < b[t] ? a[t] : b[t], high = b[t] > a[t] ? b[t] : a[t];
                a[t] = low;
                b[t] = high;
            }
        } else if (e.b < 0) {
            LANES a[t] = a[t] < b[t] ? a[t] : b[t];
        } else {
            LANES b[t] = b[t] > a[t] ? b[t] : a[t];
        }
    }
}

/* ---- one tile ---- */

typedef struct {
    const float *const *image, *const *variance;
    const uint32_t *const *mask;
    const double *weight, *noise;
    const rsp_combine_options *options;
    source_of_noise kind;
} inputs;

/* Copy one input's TILE pixels into row `row` and set bits in out_bad unless all of them are valid. (To read them again in
 * place would be slow: rows of images of a round size fall on the same few sets of the cache.) */
INLINE void use_row(const inputs *in, work *w, uint32_t *restrict out_flags, int64_t source, int64_t row, int64_t first,
                    ints *out_bad) {
    const float *x = in->image[source] + first;
    float *value = w->value + row * TILE, *sorted = w->sorted + row * TILE;
    const int32_t infinite = 0x7f800000; /* all exponent bits set: infinite or not a number */
    ints bad = *out_bad;
    for (int t = 0; t < TILE; t += VECTOR) {
        floats pixel = LOAD(x + t);
        ints exponent = (ints)pixel & infinite;
        bad |= exponent == infinite;
        *(floats *)(value + t) = pixel;
        *(floats *)(sorted + t) = pixel;
    }
    w->weight_row[row] = w->frame_weight + source * TILE;
    if (in->weight) bad |= (int32_t)(in->weight[source] > 0.0 ? 0 : -1);
    if (in->mask) {
        const uint32_t *m = in->mask[source] + first;
        const int32_t unwanted = (int32_t)(in->options->absent_bits | in->options->reject_bits);
        for (int t = 0; t < TILE; t += VECTOR) {
            ints bits = *(const ints *)(m + t);
            bad |= bits & unwanted;
            *(ints *)(out_flags + t) |= bits;
        }
    }
    if (in->variance) {
        const float *v = in->variance[source] + first;
        float *variance = w->variance + row * TILE, *weight = w->weight + row * TILE;
        for (int t = 0; t < TILE; t += VECTOR) {
            floats noise = LOAD(v + t);
            ints exponent = (ints)noise & infinite, positive = noise > 0.0f;
            bad |= (exponent == infinite) | ~positive;
            *(floats *)(variance + t) = noise;
            *(floats *)(weight + t) = 1.0f / noise;
        }
        if (!in->weight) w->weight_row[row] = weight;
    }
    *out_bad = bad;
}

static inline int any_set(const ints *x) {
    int64_t part[4];
    memcpy(part, x, sizeof part);
    return (part[0] | part[1] | part[2] | part[3]) != 0;
}

/* Copy one input's `count` pixels from `first` into row `row` of the scratch; returns how many of them are valid. */
INLINE int load_row(const inputs *in, work *w, lanes *restrict l, int64_t source, int64_t row, int64_t first, int count) {
    const rsp_combine_options *o = in->options;
    float *restrict value = w->value + row * TILE, *restrict weight = w->weight + row * TILE;
    float *restrict variance = w->variance + row * TILE, *restrict sorted = w->sorted + row * TILE;
    float frame = in->weight ? (float)in->weight[source] : 1.0f, pixel[TILE], noise[TILE];
    uint32_t bits[TILE];
    for (int t = 0; t < TILE; t++) pixel[t] = NAN, noise[t] = 1.0f, bits[t] = 0;
    memcpy(pixel, in->image[source] + first, (size_t)count * sizeof(float));
    if (in->variance) memcpy(noise, in->variance[source] + first, (size_t)count * sizeof(float));
    if (in->mask) memcpy(bits, in->mask[source] + first, (size_t)count * sizeof(uint32_t));
    const uint32_t absent = o->absent_bits, reject = o->reject_bits, rejected_bit = o->rejected_bit;
    int32_t n_valid = 0, by_variance = in->variance && !in->weight, usable = frame > 0.0f ? -1 : 0;
    _Pragma("omp simd reduction(+ : n_valid)") for (int t = 0; t < TILE; t++) {
        int32_t present = (fabsf(pixel[t]) < INFINITY ? -1 : 0) & ((bits[t] & absent) ? 0 : -1);
        int32_t ok = present & ((bits[t] & reject) ? 0 : -1) & (noise[t] > 0.0f ? -1 : 0) & (noise[t] < INFINITY ? -1 : 0) & usable;
        float one = by_variance ? 1.0f / noise[t] : frame;
        l->rejected[t] |= (uint32_t)(present & ~ok) & rejected_bit;
        l->flags[t] |= bits[t];
        value[t] = ok ? pixel[t] : 0.0f;
        sorted[t] = ok ? pixel[t] : INFINITY;
        variance[t] = ok ? noise[t] : 1.0f;
        weight[t] = ok ? one : 0.0f;
        l->valid[t] += ok ? 1.0f : 0.0f;
        n_valid -= ok;
    }
    w->weight_row[row] = weight;
    return n_valid;
}

/* Fetch the tile after this one: so many streams are beyond the machine's own prefetching. */
INLINE void prefetch(const inputs *in, int64_t source, int64_t first) {
    for (int t = TILE; t < 2 * TILE; t += 16) {
        __builtin_prefetch(in->image[source] + first + t);
        if (in->variance) __builtin_prefetch(in->variance[source] + first + t);
        if (in->mask) __builtin_prefetch(in->mask[source] + first + t);
    }
}

/* Median (and squared spread from the quartiles) of the valid values in each lane. */
INLINE void middle(work *w, lanes *l, int64_t n, int complete, int estimate) {
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
    for (int t = 0; t < TILE; t++) l->spread[t] = 1e-30f;
    if (!estimate) return;
    for (int t = 0; t < TILE; t++) {
        int64_t m = (int64_t)l->valid[t];
        if (m < 2) continue;
        float s = (w->sorted[(m - 1 - quartile(m)) * TILE + t] - w->sorted[quartile(m) * TILE + t]) / (float)w->range[m];
        l->spread[t] = s * s > 1e-30f ? s * s : 1e-30f; /* not zero: kappa may be infinite */
    }
}


/* Which of eight values of row i lie within kappa sigma: all ones or zero; also their deviations and variances. */
INLINE void within(const work *w, const lanes *l, int64_t i, int t, const source_of_noise kind, ints *keep,
                   floats *deviation, floats *variance) {
    floats centre = LOAD(l->centre + t), d = LOAD(w->value + i * TILE + t) - centre, v;
    if (kind == GIVEN) {
        v = LOAD(w->variance + i * TILE + t);
    } else if (kind == MODEL) {
        ints positive = centre > 0.0f;
        v = w->noise_row[2 * i] + w->noise_row[2 * i + 1] * MASKED(positive, centre);
    } else {
        v = LOAD(l->spread + t);
    }
    ints below = d < 0.0f, low = (ints)LOAD(l->k_low + t), high = (ints)LOAD(l->k_high + t);
    *deviation = d;
    *variance = v;
    *keep = d * d <= (floats)((low & below) | (high & ~below)) * (v + LOAD(l->extra + t));
}

/* Sums of the values within kappa sigma of the centre. plain: all weights are one and nothing is missing. */
INLINE void sums(const work *w, lanes *l, int64_t n, const source_of_noise kind, const int plain) {
    for (int t = 0; t < TILE; t += VECTOR) {
        floats zero = {0}, sw = zero, swd = zero, swdd = zero, swwv = zero;
        ints kept = {0};
        for (int64_t i = 0; i < n; i++) {
            floats d, v;
            ints keep;
            within(w, l, i, t, kind, &keep, &d, &v);
            if (plain) {
                floats gd = MASKED(keep, d);
                kept -= keep;
                swd += gd;
                swdd += gd * d;
                if (kind != ESTIMATED) swwv += MASKED(keep, v);
            } else {
                floats g = MASKED(keep, LOAD(w->weight_row[i] + t)), gd = g * d;
                kept -= g > 0.0f;
                sw += g;
                swd += gd;
                swdd += gd * d;
                if (kind == ESTIMATED) swwv += g * g;
                else swwv += g * (g * v);
            }
        }
        floats m = __builtin_convertvector(kept, floats);
        *(floats *)(l->kept + t) = m;
        *(floats *)(l->sum_w + t) = plain ? m : sw;
        *(floats *)(l->sum_wd + t) = swd;
        *(floats *)(l->sum_wdd + t) = swdd;
        *(floats *)(l->sum_wwv + t) = plain && kind == ESTIMATED ? m : swwv;
    }
}

/* The sums by the copy of the loop that fits. */
INLINE void take_sums(const inputs *in, const work *w, lanes *restrict l, int64_t n, int plain) {
    const float relative = (float)(in->options->relative * in->options->relative);
    LANES l->extra[t] = relative * l->centre[t] * l->centre[t];
    if (in->kind == GIVEN) sums(w, l, n, GIVEN, 0);
    else if (in->kind == MODEL && plain) sums(w, l, n, MODEL, 1);
    else if (in->kind == MODEL) sums(w, l, n, MODEL, 0);
    else if (plain) sums(w, l, n, ESTIMATED, 1);
    else sums(w, l, n, ESTIMATED, 0);
}

/* Recentre on the mean of what was kept. */
INLINE void recentre(lanes *restrict l, int estimate) {
    for (int t = 0; t < TILE; t++) {
        float m = l->kept[t], mean = m > 0.5f ? l->sum_wd[t] / l->sum_w[t] : 0.0f;
        float s = (l->sum_wdd[t] / l->sum_w[t] - mean * mean) * m / (m - 1.0f);
        l->centre[t] += mean;
        if (estimate && m > 1.5f) l->spread[t] = s > 1e-30f ? s : 1e-30f;
    }
}

/* Clip about the median, then about the mean of what is left, `iterations` times in all. */
INLINE void clip(const inputs *in, const work *w, lanes *l, int64_t n, int plain) {
    float start[TILE], spread[TILE];
    memcpy(start, l->centre, sizeof start);
    memcpy(spread, l->spread, sizeof spread);
    for (int retry = 0; retry < 2; retry++) {
        for (int k = 0; k < rsp_max(1, in->options->iterations); k++) {
            if (k) recentre(l, in->kind == ESTIMATED);
            take_sums(in, w, l, n, plain);
        }
        int dead = 0; /* lanes whose inputs were all clipped (two camps): they keep them all, and say so */
        for (int t = 0; t < TILE; t++) dead += l->kept[t] < 0.5f && l->valid[t] > 0.5f;
        if (!dead || retry) break;
        for (int t = 0; t < TILE; t++)
            if (l->kept[t] < 0.5f && l->valid[t] > 0.5f) {
                l->k_low[t] = l->k_high[t] = INFINITY;
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

/* Which inputs were clipped where: found again from the last centre, in tiles that lost any. */
INLINE void find_clipped(const inputs *in, const work *w, const lanes *l, int64_t i,
                         uint32_t *restrict out_lost /* [TILE], all ones or zero */) {
    for (int t = 0; t < TILE; t += VECTOR) {
        floats d, v;
        ints keep;
        if (in->kind == GIVEN) within(w, l, i, t, GIVEN, &keep, &d, &v);
        else if (in->kind == MODEL) within(w, l, i, t, MODEL, &keep, &d, &v);
        else within(w, l, i, t, ESTIMATED, &keep, &d, &v);
        ints valid = LOAD(w->weight_row[i] + t) > 0.0f;
        *(ints *)(out_lost + t) = valid & ~keep;
    }
}

INLINE void store_masks(const inputs *in, const work *w, const lanes *l, int64_t n, int64_t first, int count,
                        uint32_t *restrict out_mask, int64_t *restrict out_clipped) {
    const rsp_combine_options *o = in->options;
    const uint32_t or_bits = o->or_bits;
    const uint32_t or_majority = in->mask ? or_bits | o->majority_bits : 0;
    uint32_t any_lost = 0, any_flag = 0;
    for (int t = 0; t < TILE; t++) any_lost |= l->kept[t] < l->valid[t] ? 1 : 0, any_flag |= l->flags[t] & or_majority;
    if (!any_lost && !any_flag) {
        for (int t = 0; t < count && out_mask; t++) out_mask[first + t] = l->rejected[t] | (l->kept[t] > 0.5f ? 0 : o->no_data_bit);
        return;
    }
    uint32_t lost[TILE] = {0}, clipped[TILE] = {0}, carried[TILE] = {0};
    for (int64_t i = 0; i < n; i++) {
        if (any_lost) {
            find_clipped(in, w, l, i, lost);
            int32_t total = 0;
            for (int t = 0; t < TILE; t++) clipped[t] |= lost[t], total += (int32_t)(lost[t] & 1);
            if (out_clipped) out_clipped[w->source[i]] += total;
        }
        if (!any_flag) continue;
        const uint32_t *mask = in->mask[w->source[i]] + first;
        const float *weight = w->weight_row[i];
        for (int t = 0; t < count; t++) carried[t] |= weight[t] > 0.0f && !lost[t] ? mask[t] & or_bits : 0;
    }
    if (!out_mask) return;
    for (int t = 0; t < count; t++) {
        uint32_t m = carried[t] | l->rejected[t] | (clipped[t] & o->clipped_bit) | (l->kept[t] > 0.5f ? 0 : o->no_data_bit);
        if (any_flag && (l->flags[t] & o->majority_bits)) m |= majority(in, w->n, first + t);
        out_mask[first + t] = m;
    }
}

/* Fill the scratch; returns the number of rows, those inputs that are valid somewhere. complete: nothing is missing. */
INLINE int64_t load_tile(const inputs *in, work *w, lanes *l, int64_t first, int count, int *complete) {
    ints bad = {0};
    for (int64_t i = 0; i < w->n && count == TILE; i++) {
        w->source[i] = (int32_t)i;
        use_row(in, w, l->flags, i, i, first, &bad);
        prefetch(in, i, first);
    }
    int64_t n = w->n;
    *complete = count == TILE && !any_set(&bad);
    if (!*complete) {
        n = 0;
        for (int64_t i = 0; i < w->n; i++) {
            w->source[n] = (int32_t)i;
            n += load_row(in, w, l, i, n, first, count) > 0;
        }
    } else {
        for (int t = 0; t < TILE; t++) l->valid[t] = (float)n;
    }
    for (int64_t i = 0; i < n && in->kind == MODEL; i++) {
        float floor = (float)in->noise[2 * w->source[i]];
        w->noise_row[2 * i] = floor > 1e-30f ? floor : 1e-30f;
        w->noise_row[2 * i + 1] = (float)in->noise[2 * w->source[i] + 1];
    }
    return n;
}

RSP_SIMD static void combine_tile(const inputs *in, work *w, int64_t first, int count, float *restrict out_mean,
                                  float *restrict out_variance, uint16_t *restrict out_count,
                                  uint32_t *restrict out_mask, int64_t *restrict out_clipped) {
    const rsp_combine_options *o = in->options;
    lanes l;
    memset(l.valid, 0, sizeof l.valid);
    memset(l.kept, 0, sizeof l.kept);
    memset(l.rejected, 0, sizeof l.rejected);
    memset(l.flags, 0, sizeof l.flags);
    int complete;
    int64_t n = load_tile(in, w, &l, first, count, &complete);
    for (int t = 0; t < TILE; t++) {
        int clips = o->iterations > 0 && l.valid[t] >= (float)o->min_inputs;
        l.k_low[t] = clips ? (float)(o->kappa_low * o->kappa_low) : INFINITY;
        l.k_high[t] = clips ? (float)(o->kappa_high * o->kappa_high) : INFINITY;
    }
    if (n) {
        middle(w, &l, n, complete, in->kind == ESTIMATED);
        clip(in, w, &l, n, complete && !in->weight && !in->variance);
    }
    int estimate = in->kind == ESTIMATED;
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

static rsp_status work_open(work *w, int64_t n, const double *weight, int estimate) {
    memset(w, 0, sizeof *w);
    w->n = n;
    w->n_network = batcher(n, NULL);
    size_t plane = (size_t)n * TILE * sizeof(float), pairs = (size_t)(w->n_network + 1) * sizeof(exchange);
    pairs = (pairs + 63) / 64 * 64;
    size_t rows = ((size_t)n * (13 + sizeof(float *)) + 63) / 64 * 64;
    size_t ranges = ((size_t)(n + 1) * sizeof(double) + 63) / 64 * 64;
    w->block = aligned_alloc(64, 5 * plane + 2 * pairs + rows + ranges);
    if (!w->block) return rsp_fail(RSP_NO_MEMORY, "clipped mean of %lld inputs", (long long)n);
    char *at = w->block;
    float **planes[] = {&w->value, &w->variance, &w->weight, &w->sorted, &w->frame_weight};
    for (int i = 0; i < 5; i++, at += plane) *planes[i] = (float *)at;
    w->network = (exchange *)at, at += pairs;
    w->pruned = (exchange *)at, at += pairs;
    w->range = (double *)at, at += ranges;
    w->weight_row = (const float **)at, at += (size_t)n * sizeof(float *);
    w->source = (int32_t *)at, at += (size_t)n * sizeof(int32_t);
    w->noise_row = (float *)at, at += (size_t)n * 2 * sizeof(float);
    w->live = (uint8_t *)at;
    batcher(n, w->network);
    for (int64_t i = 0; i < n; i++)
        for (int t = 0; t < TILE; t++) w->frame_weight[i * TILE + t] = weight ? (float)weight[i] : 1.0f;
    for (int64_t m = 2; m <= n && estimate; m++) /* Blom's expected order statistics */
        w->range[m] = 2.0 * normal_quantile(((double)(m - quartile(m)) - 0.375) / ((double)m + 0.25));
    return RSP_OK;
}

struct rsp_combiner {
    work w;
    inputs in;
};

static rsp_status check(int64_t n, const rsp_combine_options *options) {
    RSP_CHECK(n > 0 && n <= 65535, RSP_BAD_SHAPE);
    RSP_CHECK(options->kappa_low > 0.0 && options->kappa_high > 0.0 && options->relative >= 0.0, RSP_BAD_ARGUMENT);
    RSP_CHECK(options->majority_fraction >= 0.0 && options->iterations >= 0, RSP_BAD_ARGUMENT);
    return RSP_OK;
}

static rsp_status combiner_open(rsp_combiner *c, int64_t n, const inputs *in) {
    rsp_status status = check(n, in->options);
    if (status != RSP_OK) return status;
    c->in = *in;
    return work_open(&c->w, n, in->weight, in->kind == ESTIMATED);
}

rsp_status rsp_combiner_open(int64_t n, const double *weight, const double *noise, const rsp_combine_options *options,
                             rsp_combiner **out_combiner) {
    inputs in = {.weight = weight, .noise = noise, .options = options, .kind = noise ? MODEL : ESTIMATED};
    rsp_combiner *c = calloc(1, sizeof *c);
    *out_combiner = NULL;
    if (!c) return rsp_fail(RSP_NO_MEMORY, "clipped mean of %lld inputs", (long long)n);
    rsp_status status = combiner_open(c, n, &in);
    if (status == RSP_OK) *out_combiner = c;
    else free(c);
    return status;
}

void rsp_combiner_close(rsp_combiner *c) {
    if (c) free(c->w.block);
    free(c);
}

void rsp_combiner_run(rsp_combiner *c, const float *const *image, int64_t n_pixels, float *restrict out_mean,
                      float *restrict out_variance, int64_t *restrict out_clipped) {
    c->in.image = image;
    memset(out_clipped, 0, (size_t)c->w.n * sizeof *out_clipped);
    for (int64_t first = 0; first < n_pixels; first += TILE)
        combine_tile(&c->in, &c->w, first, (int)rsp_min(TILE, n_pixels - first), out_mean, out_variance, NULL, NULL, out_clipped);
}

RSP_API rsp_status rsp_combine_clipped_mean(int64_t n, int64_t n_pixels, const float *const *image,
        const float *const *variance, const uint32_t *const *mask, const double *weight, const double *noise,
        const rsp_combine_options *options, float *restrict out_mean, float *restrict out_variance,
        uint16_t *restrict out_count, uint32_t *restrict out_mask, int64_t *restrict out_clipped) {
    RSP_CHECK(n_pixels >= 0, RSP_BAD_SHAPE);
    rsp_combiner c;
    inputs in = {image, variance, mask, weight, noise, options, variance ? GIVEN : noise ? MODEL : ESTIMATED};
    rsp_status status = combiner_open(&c, n, &in);
    if (status != RSP_OK) return status;
    if (out_clipped) memset(out_clipped, 0, (size_t)n * sizeof *out_clipped);
    for (int64_t first = 0; first < n_pixels; first += TILE)
        combine_tile(&c.in, &c.w, first, (int)rsp_min(TILE, n_pixels - first), out_mean, out_variance, out_count, out_mask,
                     out_clipped);
    free(c.w.block);
    return RSP_OK;
}
