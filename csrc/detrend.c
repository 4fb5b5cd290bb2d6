/* detrend.c: raw amplifier segments to an assembled image in electrons with variance and mask, in one pass.
 *
 * Bound by memory: 27 bytes per pixel with bias, dark, flat and defects (raw u2; three f4 and one u1 in; image, variance, mask
 * out), 22 with prepared planes. Rows are worked on in pieces that stay in L1; nothing is written twice. */
#include "internal.h"
#include "piece.h"

typedef struct {
    float value[PIECE], column[PIECE]; /* ADU: raw, level of the column */
    float zero[PIECE], one[PIECE];     /* stand in for planes that are not given */
} scratch;

/* Raw pixels to floats in the order of the assembled detector. */
INLINE void load_raw(const rsp_amplifier *a, int64_t y, int64_t first, int64_t count, float *restrict out) {
    int64_t at = y * a->raw_stride + (a->flip_x ? a->nx - first - count : first);
#define LOAD_AS(type)                                                                          \
    do {                                                                                       \
        const type *restrict raw = (const type *)a->raw + at;                                  \
        if (a->flip_x)                                                                         \
            for (int64_t t = 0; t < count; t++) out[t] = (float)raw[count - 1 - t];            \
        else                                                                                   \
            for (int64_t t = 0; t < count; t++) out[t] = (float)raw[t];                        \
    } while (0)
    if (a->raw_type == RSP_RAW_UINT16) LOAD_AS(uint16_t);
    else if (a->raw_type == RSP_RAW_INT32) LOAD_AS(int32_t);
    else LOAD_AS(float);
#undef LOAD_AS
}

INLINE void load_columns(const rsp_amplifier *a, int64_t first, int64_t count, float *restrict out) {
    for (int64_t t = 0; t < count; t++) out[t] = a->column_level[a->flip_x ? a->nx - 1 - first - t : first + t];
}

INLINE int64_t detrend_row(const rsp_amplifier *a, const rsp_calibration *c, const rsp_detrend_options *o, int64_t y, int64_t nx,
                           scratch *s, const int direct, const int prepared, float *image, float *variance, uint32_t *mask) {
    int64_t n_good = 0, row = (a->y0 + (a->flip_y ? a->ny - 1 - y : y)) * nx + a->x0;
    for (int64_t first = 0; first < a->nx; first += PIECE) {
        int64_t count = rsp_min(PIECE, a->nx - first), at = row + first;
        if (!direct) load_raw(a, y, first, count, s->value);
        if (a->column_level) load_columns(a, first, count, s->column);
        piece p = {.raw = direct ? (const uint16_t *)a->raw + y * a->raw_stride + first : NULL, .value = s->value,
                   .column = a->column_level ? s->column : NULL, .bias = c->bias ? c->bias + at : s->zero,
                   .dark = c->dark ? c->dark + at : s->zero, .flat = c->flat ? c->flat + at : s->one,
                   .dark_noise = prepared && c->dark_noise ? c->dark_noise + at : NULL,
                   .defects = !prepared && c->defects ? c->defects + at : NULL, .level = a->row_level[y],
                   .dark_step = (float)c->dark_step};
        n_good += write_piece(a, o, &p, count, direct, prepared, image + at, variance + at, mask + at);
        if (count % VECTOR)
            n_good += write_rest(a, o, &p, count / VECTOR * VECTOR, count, direct, prepared, image + at, variance + at, mask + at);
    }
    return n_good;
}

RSP_SIMD static int64_t detrend_rows(const rsp_amplifier *a, const rsp_calibration *c, const rsp_detrend_options *o, int64_t nx,
                                     scratch *s, float *image, float *variance, uint32_t *mask) {
    int64_t n_good = 0;
    int direct = a->raw_type == RSP_RAW_UINT16 && !a->flip_x;
    for (int64_t y = 0; y < a->ny; y++) {
        if (c->prepared && direct) n_good += detrend_row(a, c, o, y, nx, s, 1, 1, image, variance, mask);
        else if (c->prepared) n_good += detrend_row(a, c, o, y, nx, s, 0, 1, image, variance, mask);
        else if (direct) n_good += detrend_row(a, c, o, y, nx, s, 1, 0, image, variance, mask);
        else n_good += detrend_row(a, c, o, y, nx, s, 0, 0, image, variance, mask);
    }
    return n_good;
}

RSP_API rsp_status rsp_detrend_amplifier(const rsp_amplifier *amplifier, const rsp_calibration *calibration,
        const rsp_detrend_options *options, int64_t ny, int64_t nx, float *restrict out_image, float *restrict out_variance,
        uint32_t *restrict out_mask, int64_t *restrict out_good) {
    const rsp_amplifier *a = amplifier;
    RSP_CHECK(a->nx > 0 && a->ny > 0 && a->raw_stride >= a->nx, RSP_BAD_SHAPE);
    RSP_CHECK(a->x0 >= 0 && a->y0 >= 0 && a->x0 + a->nx <= nx && a->y0 + a->ny <= ny, RSP_BAD_SHAPE);
    RSP_CHECK(a->raw_type >= RSP_RAW_UINT16 && a->raw_type <= RSP_RAW_FLOAT, RSP_BAD_ARGUMENT);
    RSP_CHECK(a->gain > 0.0 && a->constant_variance >= 0.0 && options->min_flat >= 0.0, RSP_BAD_ARGUMENT);
    scratch s;
    memset(&s, 0, sizeof s);
    for (int t = 0; t < PIECE; t++) s.one[t] = 1.0f;
    if (!calibration->flat && options->min_flat >= 1.0) return rsp_fail(RSP_BAD_ARGUMENT, "min_flat >= 1 without a flat");
    *out_good = detrend_rows(a, calibration, options, nx, &s, out_image, out_variance, out_mask);
    return RSP_OK;
}

RSP_SIMD static int64_t prepare(int64_t n, const rsp_calibration *c, const rsp_detrend_options *o, float *restrict out_pedestal,
                                float *restrict out_inverse_flat, uint16_t *restrict out_dark_noise) {
    int64_t n_good = 0;
    const float time = (float)o->dark_time, minimum = (float)o->min_flat;
    const double steps = c->dark_step > 0.0 ? 1.0 / c->dark_step : 0.0;
    for (int64_t i = 0; i < n; i++) {
        float dark = c->dark ? time * c->dark[i] : 0.0f, flat = c->flat ? c->flat[i] : 1.0f;
        int usable = flat > minimum && flat < INFINITY, defect = c->defects && c->defects[i];
        out_pedestal[i] = (c->bias ? c->bias[i] : 0.0f) + dark;
        out_inverse_flat[i] = usable ? (defect ? -1.0f : 1.0f) / flat : NAN;
        n_good += usable && !defect;
        if (!out_dark_noise) continue;
        double noise = dark > 0.0f ? (double)dark * steps + 0.5 : 0.0;
        out_dark_noise[i] = noise < 65535.0 ? (uint16_t)noise : 65535;
    }
    return n_good;
}

RSP_API rsp_status rsp_detrend_prepare(const rsp_calibration *calibration, const rsp_detrend_options *options, int64_t n_pixels,
        float *restrict out_pedestal, float *restrict out_inverse_flat, uint16_t *restrict out_dark_noise,
        int64_t *restrict out_good) {
    RSP_CHECK(n_pixels > 0, RSP_BAD_SHAPE);
    RSP_CHECK(!calibration->prepared && options->min_flat >= 0.0, RSP_BAD_ARGUMENT);
    RSP_CHECK(!out_dark_noise || calibration->dark_step > 0.0, RSP_BAD_ARGUMENT);
    *out_good = prepare(n_pixels, calibration, options, out_pedestal, out_inverse_flat, out_dark_noise);
    return RSP_OK;
}

RSP_SIMD static int64_t flatten(int64_t n, const rsp_calibration *c, const rsp_detrend_options *o, float *restrict image,
                                float *restrict variance, uint32_t *restrict mask) {
    int64_t n_good = 0;
    const float minimum = (float)o->min_flat;
    for (int64_t i = 0; i < n; i++) {
        float flat = c->flat ? c->flat[i] : 1.0f, inverse;
        int usable, bad = !c->prepared && c->defects && c->defects[i];
        if (c->prepared) {
            bad |= !(flat > 0.0f);
            inverse = fabsf(flat);
            usable = inverse < INFINITY;
        } else {
            usable = (flat > minimum) & (flat < INFINITY);
            inverse = 1.0f / (usable ? flat : 1.0f);
        }
        inverse = usable ? inverse : 1.0f;
        bad |= !usable;
        image[i] *= inverse;
        variance[i] = bad ? INFINITY : variance[i] * inverse * inverse;
        mask[i] |= bad ? o->bad_bit : 0;
        n_good += mask[i] == 0;
    }
    return n_good;
}

RSP_API rsp_status rsp_detrend_flatten(const rsp_calibration *calibration, const rsp_detrend_options *options, int64_t n_pixels,
        float *restrict image, float *restrict variance, uint32_t *restrict mask, int64_t *restrict out_good) {
    RSP_CHECK(n_pixels > 0, RSP_BAD_SHAPE);
    RSP_CHECK(options->min_flat >= 0.0, RSP_BAD_ARGUMENT);
    *out_good = flatten(n_pixels, calibration, options, image, variance, mask);
    return RSP_OK;
}
