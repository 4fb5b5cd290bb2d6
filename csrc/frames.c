/* frames.c: calibration frames combined straight from their raw pixels.
 *
 * Pieces of a row of all frames are corrected into scratch that fits L2, and combined from there: a frame costs its two bytes
 * per pixel of memory traffic, and is never written as floats. Bound by the clipped mean (combine.c). */
#include "combiner.h"
#include "lanes.h"

enum { PIECE = 512, MAX_ORDER = 8 };

typedef struct {
    rsp_combiner *combiner;
    float *value;         /* [n][PIECE] */
    const float **pointer;/* [n] */
    int64_t *clipped;     /* [n] */
    float factor[PIECE];
} room;

/* Raw pixels of detector columns first .. first + count of the amplifier, as floats. */
INLINE void load(const rsp_amplifier *a, int64_t y, int64_t first, int64_t count, float *restrict out) {
    int64_t at = y * a->raw_stride + (a->flip_x ? a->nx - first - count : first);
#define LOAD_AS(type)                                                                    \
    do {                                                                                 \
        const type *restrict raw = (const type *)a->raw + at;                            \
        if (a->flip_x)                                                                   \
            for (int64_t t = 0; t < count; t++) out[t] = (float)raw[count - 1 - t];      \
        else                                                                             \
            for (int64_t t = 0; t < count; t++) out[t] = (float)raw[t];                  \
    } while (0)
    if (a->raw_type == RSP_RAW_UINT16) LOAD_AS(uint16_t);
    else if (a->raw_type == RSP_RAW_INT32) LOAD_AS(int32_t);
    else LOAD_AS(float);
#undef LOAD_AS
}

/* The polynomial at `count` pixels of a row of the detector. */
INLINE void evaluate(const double *factor, int64_t order, double v, double u0, double step, int64_t count, float *restrict out) {
    float row[MAX_ORDER + 1];
    for (int64_t i = 0; i <= order; i++) {
        double sum = 0.0;
        for (int64_t j = order; j >= 0; j--) sum = sum * v + factor[j * (order + 1) + i];
        row[i] = (float)sum;
    }
    for (int64_t t = 0; t < count; t++) out[t] = row[order];
    for (int64_t i = order - 1; i >= 0; i--)
        for (int64_t t = 0; t < count; t++) out[t] = out[t] * (float)(u0 + step * (double)t) + row[i];
}

/* One piece of a row of one frame. bias, dark: of these pixels, or NULL. */
INLINE void correct(const rsp_amplifier *a, int64_t y, int64_t first, int64_t count, const float *bias, const float *dark,
                    float time, const float *restrict factor, float *restrict out) {
    const float level = a->row_level[y], gain = (float)a->gain, saturation = (float)a->saturation;
    load(a, y, first, count, out);
    for (int64_t t = 0; t < count; t++) out[t] = out[t] < saturation ? (out[t] - level) * gain : NAN;
    if (a->column_level && a->flip_x)
        for (int64_t t = 0; t < count; t++) out[t] -= gain * a->column_level[a->nx - 1 - first - t];
    else if (a->column_level)
        for (int64_t t = 0; t < count; t++) out[t] -= gain * a->column_level[first + t];
    if (bias)
        for (int64_t t = 0; t < count; t++) out[t] -= bias[t];
    if (dark)
        for (int64_t t = 0; t < count; t++) out[t] -= time * dark[t];
    for (int64_t t = 0; t < count; t++) out[t] *= factor[t];
}

typedef struct {
    int64_t n, ny, nx;
    const rsp_amplifier *frame;
    const rsp_frames_options *options;
    const double *factor, *dark_time;
    const float *bias, *dark;
} problem;

/* Correct detector columns first .. first + count (in the amplifier) of raw row y of all frames. */
RSP_SIMD static void correct_all(const problem *p, room *r, int64_t y, int64_t row, int64_t first, int64_t count) {
    const int64_t order = p->options->order, terms = (order + 1) * (order + 1), x = p->frame->x0 + first, at = row * p->nx + x;
    const double step = 2.0 / (double)p->nx;
    for (int64_t i = 0; i < p->n; i++) {
        evaluate(p->factor + i * terms, order, (double)(2 * row + 1) / (double)p->ny - 1.0, step * ((double)x + 0.5) - 1.0, step,
                 count, r->factor);
        correct(p->frame + i, y, first, count, p->bias ? p->bias + at : NULL, p->dark ? p->dark + at : NULL, (float)p->dark_time[i],
                r->factor, r->value + i * PIECE);
    }
}

static void combine_row(const problem *p, room *r, int64_t y, float *restrict out_mean, float *restrict out_variance,
                        int32_t *restrict out_clipped) {
    const rsp_amplifier *a = p->frame;
    const int64_t block = p->options->block, wide = (p->nx + block - 1) / block, high = (p->ny + block - 1) / block;
    const int64_t row = a->y0 + (a->flip_y ? a->ny - 1 - y : y);
    for (int64_t first = 0; first < a->nx; first += PIECE) {
        const int64_t count = rsp_min(PIECE, a->nx - first);
        correct_all(p, r, y, row, first, count);
        for (int64_t t = 0; t < count;) {
            const int64_t x = a->x0 + first + t, part = rsp_min(count - t, block - x % block), at = row * p->nx + x;
            for (int64_t i = 0; i < p->n; i++) r->pointer[i] = r->value + i * PIECE + t;
            rsp_combiner_run(r->combiner, r->pointer, part, out_mean + at, out_variance + at, r->clipped);
            for (int64_t i = 0; i < p->n; i++)
                out_clipped[(i * high + row / block) * wide + x / block] += (int32_t)r->clipped[i];
            t += part;
        }
    }
}

static rsp_status check(int64_t n, const rsp_amplifier *frame, const rsp_frames_options *o, int64_t ny, int64_t nx) {
    RSP_CHECK(n > 0 && ny > 0 && nx > 0 && o->block > 0, RSP_BAD_SHAPE);
    RSP_CHECK(o->order >= 0 && o->order <= MAX_ORDER, RSP_BAD_ARGUMENT);
    for (int64_t i = 0; i < n; i++) {
        const rsp_amplifier *a = frame + i;
        RSP_CHECK(a->nx > 0 && a->ny > 0 && a->raw_stride >= a->nx, RSP_BAD_SHAPE);
        RSP_CHECK(a->x0 >= 0 && a->y0 >= 0 && a->x0 + a->nx <= nx && a->y0 + a->ny <= ny, RSP_BAD_SHAPE);
        RSP_CHECK(a->nx == frame->nx && a->ny == frame->ny && a->x0 == frame->x0 && a->y0 == frame->y0, RSP_BAD_SHAPE);
        RSP_CHECK(a->flip_x == frame->flip_x && a->flip_y == frame->flip_y, RSP_BAD_SHAPE);
        RSP_CHECK(a->raw_type >= RSP_RAW_UINT16 && a->raw_type <= RSP_RAW_FLOAT && a->gain > 0.0, RSP_BAD_ARGUMENT);
    }
    RSP_CHECK(o->first_row >= 0 && o->n_rows >= 0 && o->first_row + o->n_rows <= frame->ny, RSP_BAD_SHAPE);
    return RSP_OK;
}

RSP_API rsp_status rsp_frames_combine(int64_t n, const rsp_amplifier *frame, const rsp_frames_options *options,
        const double *factor, const double *dark_time, const float *bias, const float *dark, const double *weight,
        const double *noise, const rsp_combine_options *clip, int64_t ny, int64_t nx, float *restrict out_mean,
        float *restrict out_variance, int32_t *restrict out_clipped) {
    rsp_status status = check(n, frame, options, ny, nx);
    if (status != RSP_OK) return status;
    problem p = {n, ny, nx, frame, options, factor, dark_time, bias, dark};
    room r = {0};
    status = rsp_combiner_open(n, weight, noise, clip, &r.combiner);
    if (status != RSP_OK) return status;
    r.value = malloc((size_t)n * PIECE * sizeof(float));
    r.pointer = malloc((size_t)n * sizeof *r.pointer);
    r.clipped = malloc((size_t)n * sizeof *r.clipped);
    RSP_NEED(r.value && r.pointer && r.clipped, RSP_NO_MEMORY);
    for (int64_t y = 0; y < options->n_rows; y++)
        combine_row(&p, &r, options->first_row + y, out_mean, out_variance, out_clipped);
done:
    free(r.value);
    free(r.pointer);
    free(r.clipped);
    rsp_combiner_close(r.combiner);
    return status;
}
