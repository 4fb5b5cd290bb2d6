/* shift.c: a PSF stamp moved by fractions of a pixel with Lanczos-5, and its derivatives with respect to the position.
 * A separable interpolation of 11 taps along each axis; bound by arithmetic. */
#include "stamp.h"

enum { TAPS = 11, MARGIN = RSP_PSF_MARGIN };

static double lanczos(double t) {
    const double a = M_PI * t;
    if (fabs(t) < 1e-8) return 1.0;
    return fabs(t) < 5.0 ? 5.0 * sin(a) * sin(a / 5.0) / (a * a) : 0.0;
}

static double lanczos_slope(double t) {
    const double a = M_PI * t;
    if (fabs(t) < 1e-4) return -M_PI * M_PI * t * (1.0 + 1.0 / 25.0) / 3.0;
    if (!(fabs(t) < 5.0)) return 0.0;
    return 5.0 * M_PI * (cos(a) * sin(a / 5.0) + sin(a) * cos(a / 5.0) / 5.0) / (a * a) - 2.0 * lanczos(t) / t;
}

/* Weights of the pixels -5 .. 5 about the nearest one for a source d right of a pixel centre, and their derivative. */
static void shift_taps(double d, float *weight, float *slope) {
    double w[TAPS], s[TAPS], total = 0.0, change = 0.0;
    for (int t = 0; t < TAPS; t++) {
        w[t] = lanczos(d + (t - TAPS / 2));
        s[t] = lanczos_slope(d + (t - TAPS / 2));
        total += w[t];
        change += s[t];
    }
    for (int t = 0; t < TAPS; t++) {
        weight[t] = (float)(w[t] / total);
        slope[t] = (float)((s[t] - w[t] * change / total) / total);
    }
}

void rsp_set_psf(rsp_moved_psf *psf, const float *stamp, int64_t side) {
    psf->side = side;
    psf->pitch = side + 2 * MARGIN;
    memset(psf->padded, 0, (size_t)(psf->pitch * psf->pitch) * sizeof(float));
    for (int64_t y = 0; y < side; y++)
        memcpy(psf->padded + (y + MARGIN) * psf->pitch + MARGIN, stamp + y * side, (size_t)side * sizeof(float));
}

RSP_SIMD void rsp_move_psf(rsp_moved_psf *psf, double x, double y) {
    const int64_t side = psf->side, pitch = psf->pitch, ix = lrint(x), iy = lrint(y);
    float wx[TAPS], sx[TAPS], wy[TAPS], sy[TAPS];
    shift_taps(x - (double)ix, wx, sx);
    shift_taps(y - (double)iy, wy, sy);
    for (int64_t j = 0; j < pitch; j++) {
        const float *restrict from = psf->padded + j * pitch + MARGIN - ix - TAPS / 2;
        float *restrict to = psf->along_x + j * side, *restrict slope = psf->slope_x + j * side;
#pragma omp simd
        for (int64_t i = 0; i < side; i++) {
            float v = 0.0f, s = 0.0f;
            for (int t = 0; t < TAPS; t++) {
                v += wx[t] * from[i + t];
                s += sx[t] * from[i + t];
            }
            to[i] = v;
            slope[i] = s;
        }
    }
    for (int64_t j = 0; j < side; j++) {
        const int64_t first = (j + MARGIN - iy - TAPS / 2) * side;
        const float *restrict from = psf->along_x + first, *restrict from_slope = psf->slope_x + first;
        float *restrict value = psf->value + j * side, *restrict dx = psf->dx + j * side, *restrict dy = psf->dy + j * side;
#pragma omp simd
        for (int64_t i = 0; i < side; i++) {
            float v = 0.0f, gx = 0.0f, gy = 0.0f;
            for (int t = 0; t < TAPS; t++) {
                v += wy[t] * from[i + t * side];
                gx += wy[t] * from_slope[i + t * side];
                gy += sy[t] * from[i + t * side];
            }
            value[i] = v;
            dx[i] = gx;
            dy[i] = gy;
        }
    }
}
