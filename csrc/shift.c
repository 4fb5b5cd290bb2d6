/* shift.c: a PSF stamp moved by fractions of a pixel, and its derivatives with respect to the position.
 *
 * Separable interpolation with 11 taps: a sinc in the window exp(b (sqrt(1 - u^2) - 1)) (Barnett, Magland & af Klinteberg
 * 2019). For Moffat PSFs of FWHM >= 2 pixels it is right to 1.5e-4 of the flux and 2e-4 pixel in one dimension;
 * Lanczos-5 is 3 to 40 times worse (1e-3 and 2e-3 pixel). Bound by arithmetic. */
#include "stamp.h"

enum { TAPS = RSP_SHIFT_TAPS, MARGIN = RSP_PSF_MARGIN };
static const double SHARPNESS = 9.0;

void rsp_shift_taps(double d, double *weight, double *slope) {
    double total = 0.0, change = 0.0;
    const double sine = sin(M_PI * d), cosine = cos(M_PI * d), reach = 0.5 * TAPS;
    for (int k = 0; k < TAPS; k++) {
        const int t = k - TAPS / 2;
        const double u = d + t, a = M_PI * u, sign = t % 2 ? -1.0 : 1.0;
        const double sinc = fabs(a) < 1e-4 ? 1.0 - a * a / 6.0 : sign * sine / a;
        const double sinc_slope = fabs(a) < 1e-4 ? -M_PI * a / 3.0 : M_PI * (sign * cosine - sinc) / a;
        const double root = sqrt(fmax(1.0 - u * u / (reach * reach), 1e-12));
        const double window = exp(SHARPNESS * (root - 1.0));
        weight[k] = sinc * window;
        slope[k] = sinc_slope * window - weight[k] * SHARPNESS * u / (reach * reach * root);
        total += weight[k];
        change += slope[k];
    }
    for (int k = 0; k < TAPS; k++) {
        weight[k] /= total;
        slope[k] = slope[k] / total - weight[k] * change / total;
    }
}

static void single_taps(double d, float *weight, float *slope) {
    double w[TAPS], s[TAPS];
    rsp_shift_taps(d, w, s);
    for (int k = 0; k < TAPS; k++) {
        weight[k] = (float)w[k];
        slope[k] = (float)s[k];
    }
}

void rsp_set_psf(rsp_moved_psf *psf, const float *stamp, int64_t side) {
    psf->side = side;
    psf->pitch = rsp_vectors(side);
    const int64_t wide = psf->pitch + 2 * MARGIN;
    memset(psf->padded, 0, (size_t)(wide * wide) * sizeof(float));
    memset(psf->along_x, 0, (size_t)(wide * psf->pitch) * sizeof(float)); /* the rows above and below the PSF stay so */
    memset(psf->slope_x, 0, (size_t)(wide * psf->pitch) * sizeof(float));
    for (int64_t y = 0; y < side; y++)
        memcpy(psf->padded + (y + MARGIN) * wide + MARGIN, stamp + y * side, (size_t)side * sizeof(float));
}

/* n sums of TAPS neighbours, `step` apart, with these weights. */
static inline __attribute__((always_inline)) void weigh(const float *restrict from, int64_t step, int64_t n,
                                                        const float *w, float *restrict out) {
    const float w0 = w[0], w1 = w[1], w2 = w[2], w3 = w[3], w4 = w[4], w5 = w[5], w6 = w[6], w7 = w[7], w8 = w[8],
                w9 = w[9], w10 = w[10];
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        const float *p = from + i;
        out[i] = ((w0 * p[0] + w1 * p[step]) + (w2 * p[2 * step] + w3 * p[3 * step])) +
                 ((w4 * p[4 * step] + w5 * p[5 * step]) + (w6 * p[6 * step] + w7 * p[7 * step])) +
                 (w8 * p[8 * step] + w9 * p[9 * step] + w10 * p[10 * step]);
    }
}

RSP_SIMD void rsp_move_psf(rsp_moved_psf *psf, double x, double y) {
    const int64_t pitch = psf->pitch, wide = pitch + 2 * MARGIN, ix = lrint(x), iy = lrint(y);
    float wx[TAPS], sx[TAPS], wy[TAPS], sy[TAPS];
    single_taps(x - (double)ix, wx, sx);
    single_taps(y - (double)iy, wy, sy);
    for (int64_t j = MARGIN; j < psf->side + MARGIN; j++) {
        const float *row = psf->padded + j * wide + MARGIN - ix - TAPS / 2;
        weigh(row, 1, pitch, wx, psf->along_x + j * pitch);
        weigh(row, 1, pitch, sx, psf->slope_x + j * pitch);
    }
    for (int64_t j = 0; j < psf->side; j++) {
        const int64_t first = (j + MARGIN - iy - TAPS / 2) * pitch, row = j * pitch;
        weigh(psf->along_x + first, pitch, pitch, wy, psf->value + row);
        weigh(psf->along_x + first, pitch, pitch, sy, psf->dy + row);
        weigh(psf->slope_x + first, pitch, pitch, wy, psf->dx + row);
        for (int64_t i = psf->side; i < pitch; i++) psf->value[row + i] = psf->dx[row + i] = psf->dy[row + i] = 0.0f;
    }
}
