/* piece.h: the end of detrending, for one piece of a row of the assembled detector: bias, dark, flat, variance and mask. */
#ifndef RSP_PIECE_H
#define RSP_PIECE_H

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=off") /* products are rounded before they are added, whichever way a pixel goes */
#elif defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif
#include "internal.h"
#include "lanes.h"

enum { PIECE = 512, BLOCK = 32 }; /* pixels that stay in L1; that are looked at together */

/* What one piece of a row needs. bias, dark, flat not given point to constants, the others may be NULL. */
typedef struct {
    const uint16_t *raw; /* in the order of the detector, or NULL: then value */
    const float *value, *column, *bias, *dark, *flat;
    const uint16_t *dark_noise;
    const uint8_t *defects;
    float level, dark_step;
} piece;

typedef uint16_t shorts __attribute__((vector_size(16), aligned(2), may_alias));
#define WIDEN(from) __builtin_convertvector(__builtin_convertvector(*(const shorts *)(from), ints), floats)

/* Raw less its level, and the pedestal with its Poisson noise, of eight pixels. */
INLINE void terms(const rsp_detrend_options *o, const piece *p, int64_t t, const int direct, const int prepared, floats *raw,
                  floats *signal, floats *pedestal, floats *dark_noise) {
    if (direct) *raw = WIDEN(p->raw + t);
    else *raw = LOAD(p->value + t);
    *signal = *raw - p->level;
    if (p->column) *signal -= LOAD(p->column + t);
    *pedestal = LOAD(p->bias + t);
    if (prepared) {
        *dark_noise = (floats){0};
        if (p->dark_noise) *dark_noise = p->dark_step * WIDEN(p->dark_noise + t);
    } else {
        floats dark = (float)o->dark_time * LOAD(p->dark + t);
        ints warm = dark > 0.0f;
        *pedestal += dark;
        *dark_noise = MASKED(warm, dark);
    }
}

/* Eight pixels, whatever they hold. prepared: flat holds 1/flat, negative at defects, NaN where there is none. */
INLINE void careful(const rsp_amplifier *a, const rsp_detrend_options *o, const piece *p, int64_t t, const int direct,
                    const int prepared, floats *image, floats *variance, ints *mask) {
    const floats infinite = (floats){0} + INFINITY, one = (floats){0} + 1.0f;
    floats raw, signal, pedestal, dark_noise, inverse = LOAD(p->flat + t);
    terms(o, p, t, direct, prepared, &raw, &signal, &pedestal, &dark_noise);
    ints bad, usable;
    if (prepared) {
        bad = ~(ints)(inverse > 0.0f);
        inverse = ABSOLUTE(inverse);
        usable = inverse < infinite;
        inverse = CHOOSE(usable, inverse, one);
    } else {
        usable = (inverse > (float)o->min_flat) & (inverse < infinite);
        inverse = one / CHOOSE(usable, inverse, one);
        bad = ~usable;
        for (int i = 0; i < VECTOR && p->defects; i++) bad[i] |= p->defects[t + i] ? -1 : 0;
    }
    ints known = ABSOLUTE(pedestal) < infinite, finite = ABSOLUTE(raw) < infinite, saturated = raw >= (float)a->saturation;
    ints suspect = (raw >= (float)a->suspect) & ~saturated;
    bad |= ~known;
    floats electrons = signal * (float)a->gain - MASKED(known, pedestal);
    ints positive = electrons > 0.0f;
    floats v = (MASKED(positive, electrons) + MASKED(known, dark_noise) + (float)a->constant_variance) * inverse * inverse;
    *image = electrons * inverse;
    *variance = CHOOSE(finite & ~bad, v, infinite);
    *mask = (saturated & (int32_t)o->sat_bit) | (suspect & (int32_t)o->suspect_bit) | (bad & (int32_t)o->bad_bit)
          | (~finite & (int32_t)o->nan_bit);
}

/* Eight pixels as they nearly always are; sets lanes of `odd` that turn out to need `careful`. */
INLINE void quick(const rsp_amplifier *a, const rsp_detrend_options *o, const piece *p, int64_t t, const int direct,
                  const int prepared, floats *image, floats *variance, ints *odd) {
    const floats infinite = (floats){0} + INFINITY;
    floats raw, signal, pedestal, dark_noise, flat = LOAD(p->flat + t);
    terms(o, p, t, direct, prepared, &raw, &signal, &pedestal, &dark_noise);
    floats inverse = flat, electrons = signal * (float)a->gain - pedestal;
    if (!prepared) inverse = 1.0f / flat;
    ints positive = electrons > 0.0f;
    *image = electrons * inverse;
    *variance = (MASKED(positive, electrons) + dark_noise + (float)a->constant_variance) * inverse * inverse;
    /* a flat or pedestal that is no number shows in the image, an infinite flat in a variance of zero */
    ints good = (flat > (prepared ? 0.0f : (float)o->min_flat)) & (ABSOLUTE(*image) < infinite) & (*variance > 0.0f)
              & (*variance < infinite) & (raw < (float)fmin(a->saturation, a->suspect));
    *odd |= ~good;
}

/* Whether a lane of `odd` or a byte of the defects is set, for `count` pixels. */
INLINE int any(const ints *odd, const uint8_t *defects, const int count) {
    uint64_t part[4], found[4] = {0};
    memcpy(part, odd, sizeof part);
    if (defects) memcpy(found, defects, (size_t)count);
    return (part[0] | part[1] | part[2] | part[3] | found[0] | found[1] | found[2] | found[3]) != 0;
}

/* One piece of a row; returns how many pixels have no bit set. */
INLINE int64_t write_piece(const rsp_amplifier *a, const rsp_detrend_options *o, const piece *p, int64_t count, const int direct,
                           const int prepared, float *image, float *variance, uint32_t *mask) {
    int64_t n_bad = 0, t = 0;
    while (t + VECTOR <= count) {
        const uint8_t *defects = prepared ? NULL : p->defects;
        int width = t + BLOCK <= count ? BLOCK : VECTOR;
        ints odd = {0};
        if (width == BLOCK) { /* one question for many pixels */
            floats e[BLOCK / VECTOR], v[BLOCK / VECTOR];
            for (int k = 0; k < BLOCK / VECTOR; k++) quick(a, o, p, t + k * VECTOR, direct, prepared, e + k, v + k, &odd);
            for (int k = 0; k < BLOCK / VECTOR; k++) {
                STORE(image + t + k * VECTOR, e[k]);
                STORE(variance + t + k * VECTOR, v[k]);
                *(ints *)(mask + t + k * VECTOR) = (ints){0};
            }
            if (!any(&odd, defects ? defects + t : NULL, BLOCK)) {
                t += BLOCK;
                continue;
            }
        }
        for (int64_t end = t + width; t < end; t += VECTOR) {
            floats e, v;
            ints m = {0};
            odd = m;
            quick(a, o, p, t, direct, prepared, &e, &v, &odd);
            if (any(&odd, defects ? defects + t : NULL, VECTOR)) {
                careful(a, o, p, t, direct, prepared, &e, &v, &m);
                for (int i = 0; i < VECTOR; i++) n_bad += m[i] != 0;
            }
            STORE(image + t, e);
            STORE(variance + t, v);
            *(ints *)(mask + t) = m;
        }
    }
    return t - n_bad;
}

/* The pixels of a row that do not fill a vector, by way of padded copies. */
INLINE int64_t write_rest(const rsp_amplifier *a, const rsp_detrend_options *o, const piece *p, int64_t first, int64_t count,
                          const int direct, const int prepared, float *image, float *variance, uint32_t *mask) {
    float planes[5][VECTOR] = {{0}}, e[VECTOR], v[VECTOR];
    uint16_t raw[VECTOR] = {0}, dark_noise[VECTOR] = {0};
    uint8_t defects[VECTOR] = {0};
    uint32_t m[VECTOR];
    int64_t n = count - first, n_good = 0;
    const float *from[5] = {direct ? NULL : p->value, p->column, p->bias, p->dark, p->flat};
    for (int i = 0; i < 5; i++)
        if (from[i]) memcpy(planes[i], from[i] + first, (size_t)n * sizeof(float));
    if (direct) memcpy(raw, p->raw + first, (size_t)n * sizeof *raw);
    if (p->dark_noise) memcpy(dark_noise, p->dark_noise + first, (size_t)n * sizeof *dark_noise);
    if (p->defects) memcpy(defects, p->defects + first, (size_t)n);
    piece rest = {raw, planes[0], p->column ? planes[1] : NULL, planes[2], planes[3], planes[4], dark_noise, defects, p->level,
                  p->dark_step};
    floats e8, v8;
    ints m8;
    careful(a, o, &rest, 0, direct, prepared, &e8, &v8, &m8);
    STORE(e, e8);
    STORE(v, v8);
    *(ints *)m = m8;
    memcpy(image + first, e, (size_t)n * sizeof(float));
    memcpy(variance + first, v, (size_t)n * sizeof(float));
    memcpy(mask + first, m, (size_t)n * sizeof(uint32_t));
    for (int64_t i = 0; i < n; i++) n_good += m[i] == 0;
    return n_good;
}

#endif
