/* moments.c: adaptive second moments, weighted by the Gaussian that has the object's own moments (Bernstein & Jarvis
 * 2002, AJ 123, 583). Each step removes the weight from the weighted moments as if the object were Gaussian, which is
 * exact for Gaussians and converges in a few steps for others. Bound by the exponential of each pixel. */
#include "stamp.h"

enum { STEPS = 40 };

typedef struct {
    double s0, xx, yy, xy, all;
} moment_sums;

/* exp(t) for t <= 0, relative error below 3e-7 (below 1e-38: some tiny number), in operations that vectorise: a limit on
 * the argument itself would become a branch. */
static inline __attribute__((always_inline)) float fast_exp(float t) {
    const float scaled = t * 1.44269504f;
    const int32_t n = (int32_t)(scaled - 0.5f); /* towards zero: scaled - n lies in [-0.5, 0.5] */
    const float f = (scaled - (float)n) * 0.69314718f;
    const float p = 1.0f + f * (1.0f + f * (0.5f + f * (0.16666667f + f * (0.041666667f + f * (0.0083333333f + f * 0.0013888889f)))));
    const int32_t bits = ((n > -126 ? n : -126) + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

/* The pixels of a stamp within `reach` sigma of an ellipse's centre, in whole vectors, and its Gaussian's exponents. */
typedef struct {
    int64_t y0, y1, x0;
    int32_t n;
    float a, b, c, u0;
} region;

static region region_of(const rsp_stamp *stamp, const rsp_ellipse *e, double reach) {
    const int64_t half = stamp->half;
    const double determinant = e->xx * e->yy - e->xy * e->xy;
    region r;
    r.x0 = rsp_max(-half, (int64_t)floor(e->dx - reach * sqrt(e->xx)));
    r.n = (int32_t)rsp_vectors(rsp_min(half, (int64_t)ceil(e->dx + reach * sqrt(e->xx))) - r.x0 + 1);
    r.y0 = rsp_max(-half, (int64_t)floor(e->dy - reach * sqrt(e->yy)));
    r.y1 = rsp_min(half, (int64_t)ceil(e->dy + reach * sqrt(e->yy)));
    r.a = (float)(-0.5 * e->yy / determinant);
    r.b = (float)(e->xy / determinant);
    r.c = (float)(-0.5 * e->xx / determinant);
    r.u0 = (float)((double)r.x0 - e->dx);
    return r;
}

/* Weighted sums about the ellipse's centre. */
RSP_SIMD static moment_sums weighted_sums(const rsp_stamp *stamp, const rsp_ellipse *e, double reach) {
    const region r = region_of(stamp, e, reach);
    moment_sums sums = {0};
    for (int64_t y = r.y0; y <= r.y1; y++) {
        const int64_t first = (y + stamp->half) * stamp->pitch + r.x0 + stamp->half;
        const float *restrict value = stamp->value + first, *restrict parent = stamp->parent + first;
        const float v = (float)((double)y - e->dy), row = r.c * v * v, tilt = r.b * v, a = r.a, u0 = r.u0;
        float s0 = 0.0f, sx = 0.0f, sxx = 0.0f, all = 0.0f;
#pragma omp simd reduction(+ : s0, sx, sxx, all)
        for (int32_t i = 0; i < r.n; i++) {
            const float u = u0 + (float)i, t = (a * u + tilt) * u + row;
            const float w = fast_exp(t), wi = w * value[i];
            s0 += wi;
            sx += wi * u;
            sxx += wi * u * u;
            all += w * fabsf(parent[i]);
        }
        sums.s0 += s0;
        sums.xx += sxx;
        sums.xy += (double)sx * v;
        sums.yy += (double)s0 * v * v;
        sums.all += all;
    }
    return sums;
}

/* Variances of the sums of W (x x - xx / 2) I and so on, the light in the weight, and the weighted fourth moment along
 * an axis in units of the squared second moment. */
RSP_SIMD static void noise_sums(const rsp_stamp *stamp, const rsp_ellipse *e, double reach, double power[3], double *own,
                                double *fourth) {
    const region r = region_of(stamp, e, reach);
    const float hxx = (float)(0.5 * e->xx), hyy = (float)(0.5 * e->yy), hxy = (float)(0.5 * e->xy);
    double x4 = 0.0, y4 = 0.0;
    power[0] = power[1] = power[2] = *own = 0.0;
    for (int64_t y = r.y0; y <= r.y1; y++) {
        const int64_t first = (y + stamp->half) * stamp->pitch + r.x0 + stamp->half;
        const float *restrict variance = stamp->variance + first, *restrict value = stamp->value + first;
        const float v = (float)((double)y - e->dy), row = r.c * v * v, tilt = r.b * v, a = r.a, u0 = r.u0;
        float pxx = 0.0f, pyy = 0.0f, pxy = 0.0f, light = 0.0f, s0 = 0.0f, sxxxx = 0.0f;
#pragma omp simd reduction(+ : pxx, pyy, pxy, light, s0, sxxxx)
        for (int32_t i = 0; i < r.n; i++) {
            const float u = u0 + (float)i, t = (a * u + tilt) * u + row;
            const float w = fast_exp(t), w2v = w * w * variance[i];
            const float qxx = u * u - hxx, qyy = v * v - hyy, qxy = u * v - hxy;
            pxx += w2v * qxx * qxx;
            pyy += w2v * qyy * qyy;
            pxy += w2v * qxy * qxy;
            light += w * fabsf(value[i]);
            s0 += w * value[i];
            sxxxx += w * value[i] * u * u * u * u;
        }
        x4 += sxxxx;
        y4 += (double)s0 * v * v * v * v;
        power[0] += pxx;
        power[1] += pyy;
        power[2] += pxy;
        *own += light;
    }
    *fourth = 0.5 * (x4 / (e->xx * e->xx) + y4 / (e->yy * e->yy));
}

/* One step: the moments of the Gaussian whose product with the weight has the measured moments. 0 if there is none. */
static int next_ellipse(const moment_sums *s, rsp_ellipse *e) {
    if (!(s->s0 > 0.0)) return 0;
    const double cxx = s->xx / s->s0, cyy = s->yy / s->s0, cxy = s->xy / s->s0;
    const double c_det = cxx * cyy - cxy * cxy, m_det = e->xx * e->yy - e->xy * e->xy;
    if (!(c_det > 0.0) || !(cxx > 0.0)) return 0;
    const double ixx = cyy / c_det - e->yy / m_det, iyy = cxx / c_det - e->xx / m_det;
    const double ixy = -cxy / c_det + e->xy / m_det, i_det = ixx * iyy - ixy * ixy;
    double xx = 2.0 * cxx, yy = 2.0 * cyy, xy = 2.0 * cxy; /* the plain step, where the better one does not exist */
    if (ixx > 0.0 && i_det > 0.0 && (iyy + ixx) / i_det < 4.0 * (e->xx + e->yy)) {
        xx = iyy / i_det;
        yy = ixx / i_det;
        xy = -ixy / i_det;
    }
    e->xx = xx;
    e->yy = yy;
    e->xy = xy;
    return 1;
}

int rsp_adaptive_moments(const rsp_stamp *stamp, rsp_ellipse *ellipse, double out_error[3], double *out_share) {
    const double reach = 4.0, largest = 0.25 * (double)(stamp->half * stamp->half);
    rsp_ellipse e = *ellipse;
    moment_sums sums = {0};
    out_error[0] = out_error[1] = out_error[2] = NAN;
    for (int step = 0; step < STEPS; step++) {
        const rsp_ellipse old = e;
        sums = weighted_sums(stamp, &e, reach);
        if (!next_ellipse(&sums, &e)) return 1;
        if (!(e.xx > 0.05 && e.yy > 0.05 && e.xx < largest && e.yy < largest)) return 1;
        if (!(e.xx * e.yy - e.xy * e.xy > 1e-4 * e.xx * e.yy)) return 1;
        const double change = fabs(e.xx - old.xx) + fabs(e.yy - old.yy) + fabs(e.xy - old.xy);
        if (change > 2e-4 * (e.xx + e.yy)) continue;
        double power[3], own, fourth;
        noise_sums(stamp, &e, reach, power, &own, &fourth);
        /* the fixed point M = 2 C(M) moves by 2 dC / (1 - 2 C'), C' = (<x^4> - <x^2>^2) / (2 M^2): 1/4 for a Gaussian */
        const double slope = fmin(0.42, fmax(0.2, 0.5 * (fourth / sums.s0 - 0.25)));
        for (int k = 0; k < 3; k++) out_error[k] = 2.0 / (1.0 - 2.0 * slope) * sqrt(power[k]) / sums.s0;
        if (out_share) *out_share = sums.all > 0.0 ? own / sums.all : 1.0;
        *ellipse = e;
        return 0;
    }
    return 1;
}
