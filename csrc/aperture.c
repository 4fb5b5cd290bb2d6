/* aperture.c: sums in circles, with exact areas, in Kron's ellipse, and the sky in a ring. */
#include "stamp.h"

/* Arc sine of 0 <= u <= 1 to 1e-13, for loops that libm's function would keep from being vectorised: a Chebyshev fit of
 * (asin u - u) / u^3 in u^2 below one half, and asin u = pi / 2 - 2 asin sqrt((1 - u) / 2) above. */
static inline __attribute__((always_inline)) double arc_sine(double u) {
    const int far = u > 0.5;
    const double s = far ? 0.5 * (1.0 - u) : u * u, t = far ? sqrt(s) : u;
    double p = 0.02845799059060924;
    p = p * s + 0.0009565658230878964;
    p = p * s + 0.016909026876136008;
    p = p * s + 0.01689320747183473;
    p = p * s + 0.022413524875749238;
    p = p * s + 0.03037987492364179;
    p = p * s + 0.04464290867116374;
    p = p * s + 0.07499999950788896;
    p = p * s + 0.16666666666744237;
    const double near = t + t * s * p;
    return far ? M_PI_2 - 2.0 * near : near;
}

/* The part of a circle about the origin within [0, x] x [0, y] is x y inside the circle, and outside
 *   y min(x, X(y)) + G(min(x, r)) - G(min(x, X(y)))  with X(y) = sqrt(r^2 - y^2), G(t) = integral of sqrt(r^2 - t^2).
 * G is needed at grid lines only, so that a pixel costs four such corners and no arc sine. */
static inline __attribute__((always_inline)) double circle_integral(double t, double r) {
    const double u = t < r ? t / r : 1.0;
    return 0.5 * r * r * (u * sqrt(1.0 - u * u) + arc_sine(u));
}

/* The edges of n pixels from x on: |x|, its sign, and G(|x|). */
RSP_SIMD static void column_edges(double x, double r, int64_t n, double *restrict edge, double *restrict integral,
                                  double *restrict sign) {
#pragma omp simd
    for (int64_t i = 0; i <= n; i++) {
        const double at = x + (double)i;
        edge[i] = fabs(at);
        sign[i] = at < 0.0 ? -1.0 : 1.0;
        integral[i] = circle_integral(edge[i], r);
    }
}

/* F at all column edges for one row edge y; edge[], integral[] are |x| and G(|x|) with their signs in sign[]. */
RSP_SIMD static void corner_row(double y, double r, int64_t n, const double *restrict edge,
                                const double *restrict integral, const double *restrict sign, double *restrict out) {
    const double h = fabs(y), chord = h < r ? sqrt(r * r - h * h) : 0.0, below = circle_integral(chord, r);
    const double turn = y < 0.0 ? -1.0 : 1.0;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        const double inside = edge[i] * h, outside = h * chord + integral[i] - below;
        out[i] = turn * sign[i] * (edge[i] <= chord ? inside : outside);
    }
}

RSP_SIMD static void sum_row(int64_t n, const double *restrict low, const double *restrict high,
                             const float *restrict value, const float *restrict variance, const float *restrict missing,
                             double *restrict sums) {
    double flux = 0.0, power = 0.0, absent = 0.0, area = 0.0;
#pragma omp simd reduction(+ : flux, power, absent, area)
    for (int64_t i = 0; i < n; i++) {
        const double w = (high[i + 1] - high[i]) - (low[i + 1] - low[i]);
        flux += w * (double)value[i];
        power += w * w * (double)variance[i];
        absent += w * (double)missing[i];
        area += w;
    }
    sums[0] += flux;
    sums[1] += power;
    sums[2] += absent;
    sums[3] += area;
}

void rsp_circle_sum(const rsp_stamp *stamp, double dx, double dy, double radius, double *work, double out[3]) {
    const int64_t half = stamp->half, side = stamp->side, pitch = stamp->pitch;
    const int64_t x0 = rsp_max(-half, (int64_t)floor(dx - radius + 0.5)), x1 = rsp_min(half, (int64_t)ceil(dx + radius - 0.5));
    const int64_t y0 = rsp_max(-half, (int64_t)floor(dy - radius + 0.5)), y1 = rsp_min(half, (int64_t)ceil(dy + radius - 0.5));
    const int64_t n = rsp_max(0, x1 - x0 + 1);
    double *edge = work, *integral = edge + side + 1, *sign = integral + side + 1;
    double *low = sign + side + 1, *high = low + side + 1, sums[4] = {0.0};
    column_edges((double)x0 - 0.5 - dx, radius, n, edge, integral, sign);
    corner_row((double)y0 - 0.5 - dy, radius, n + 1, edge, integral, sign, low);
    for (int64_t y = y0; y <= y1 && n > 0; y++) {
        corner_row((double)y + 0.5 - dy, radius, n + 1, edge, integral, sign, high);
        const int64_t first = (y + half) * pitch + x0 + half;
        sum_row(n, low, high, stamp->value + first, stamp->variance + first, stamp->missing + first, sums);
        double *swap = low;
        low = high;
        high = swap;
    }
    out[0] = sums[0];
    out[1] = sums[1];
    out[2] = sums[2] + fmax(0.0, M_PI * radius * radius - sums[3]); /* what lies beyond the stamp */
    if (out[2] < 1e-9 * radius * radius) out[2] = 0.0;
}

typedef struct { /* elliptical radius rho^2 = a x^2 + 2 b x y + c y^2, with the area of a circle of that radius */
    double a, b, c, reach_x, reach_y;
} metric;

static metric metric_of(const rsp_ellipse *e) {
    const double root = sqrt(e->xx * e->yy - e->xy * e->xy);
    return (metric){e->yy / root, -e->xy / root, e->xx / root, sqrt(e->xx / root), sqrt(e->yy / root)};
}

/* Sums over pixels with rho < radius, with edges softened over a pixel: light, light x rho, variance, missing, area. */
RSP_SIMD static void ellipse_sum(const rsp_stamp *stamp, const rsp_ellipse *e, metric m, double radius, double sums[5]) {
    const int64_t half = stamp->half;
    const int64_t x0 = rsp_max(-half, (int64_t)floor(e->dx - radius * m.reach_x - 1.0));
    const int64_t last = rsp_min(half, (int64_t)ceil(e->dx + radius * m.reach_x + 1.0));
    const int32_t n = (int32_t)rsp_vectors(last - x0 + 1), inside = (int32_t)(half - x0); /* zeros beyond the side */
    const int64_t y0 = rsp_max(-half, (int64_t)floor(e->dy - radius * m.reach_y - 1.0));
    const int64_t y1 = rsp_min(half, (int64_t)ceil(e->dy + radius * m.reach_y + 1.0));
    const float a = (float)m.a, b = (float)m.b, c = (float)m.c, limit = (float)radius;
    memset(sums, 0, 5 * sizeof *sums);
    for (int64_t y = y0; y <= y1; y++) {
        const int64_t first = (y + half) * stamp->pitch + x0 + half;
        const float *restrict value = stamp->value + first, *restrict variance = stamp->variance + first;
        const float *restrict missing = stamp->missing + first;
        const float v = (float)((double)y - e->dy), u0 = (float)((double)x0 - e->dx);
        float light = 0.0f, moment = 0.0f, power = 0.0f, absent = 0.0f, area = 0.0f;
#pragma omp simd reduction(+ : light, moment, power, absent, area)
        for (int32_t x = 0; x < n; x++) {
            const float u = u0 + (float)x, p = a * u + b * v, q = b * u + c * v;
            const float rho = sqrtf(u * p + v * q + 1e-12f), slope = sqrtf(p * p + q * q) / rho;
            const float edge = 0.5f + (limit - rho) / slope, w = 0.5f * (1.0f + fabsf(edge) - fabsf(edge - 1.0f)); /* 0..1 */
            light += w * value[x];
            moment += w * value[x] * rho;
            power += w * w * variance[x];
            absent += w * missing[x];
            area += x <= inside ? w : 0.0f;
        }
        sums[0] += light;
        sums[1] += moment;
        sums[2] += power;
        sums[3] += absent;
        sums[4] += area;
    }
}

int rsp_kron_sum(const rsp_stamp *stamp, const rsp_ellipse *ellipse, double smallest, double out[4]) {
    const metric m = metric_of(ellipse);
    const double sigma = pow(ellipse->xx * ellipse->yy - ellipse->xy * ellipse->xy, 0.25);
    double sums[5];
    ellipse_sum(stamp, ellipse, m, 6.0 * sigma, sums);
    const double radius = sums[1] / sums[0];
    const int usable = sums[0] > 0.0 && radius > 0.0 && radius < 6.0 * sigma;
    const double limit = usable ? fmax(2.5 * radius, smallest) : smallest;
    ellipse_sum(stamp, ellipse, m, limit, sums);
    out[0] = usable ? radius : limit / 2.5;
    out[1] = sums[0];
    out[2] = sums[2];
    out[3] = sums[3] + fmax(0.0, M_PI * limit * limit - sums[4] - 0.5);
    return !usable;
}

/* ---- ring ---- */

enum { RING_ROUNDS = 5 };

typedef struct { float *value, *variance, *use; } ring; /* use: 1 where a pixel counts, else all three are 0 */

/* The pixels of the rows of a ring; returns their number. Bound by memory: rows far apart. */
RSP_SIMD static int64_t collect_ring(const rsp_pixels *p, double x, double y, const double radius[2], ring out) {
    int64_t n = 0;
    const int64_t y0 = rsp_max(0, (int64_t)ceil(y - radius[1])), y1 = rsp_min(p->ny - 1, (int64_t)floor(y + radius[1]));
    const double inner = radius[0] * radius[0];
    const uint32_t never = p->never, reject = p->reject, rescue = p->rescue;
    const int32_t labelled = p->labels ? -1 : 0;
    for (int64_t j = y0; j <= y1; j++) {
        const double dy = (double)j - y, reach = sqrt(fmax(0.0, radius[1] * radius[1] - dy * dy));
        const int64_t x0 = rsp_max(0, (int64_t)ceil(x - reach)), x1 = rsp_min(p->nx - 1, (int64_t)floor(x + reach));
        const int64_t first = j * p->nx + x0, width = rsp_max(0, x1 - x0 + 1);
        const float *restrict image = p->image + first, *restrict noise = p->variance + first;
        const uint32_t *restrict mask = p->mask + first;
        const int32_t *restrict labels = p->labels ? p->labels + first : (const int32_t *)mask;
        float *restrict value = out.value + n, *restrict variance = out.variance + n, *restrict use = out.use + n;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) {
            const double dx = (double)(x0 + i) - x;
            const uint32_t m = mask[i];
            const float v = image[i], u = noise[i];
            const int32_t ok = -((dx * dx + dy * dy >= inner) & ((labels[i] & labelled) == 0) & ((m & never) == 0) &
                                 (((m & reject) == 0) | ((m & rescue) != 0)) & (fabsf(v) < 3.0e38f) & (u > 0.0f) & (u < 3.0e38f));
            value[i] = rsp_only(v, ok);
            variance[i] = rsp_only(u, ok);
            use[i] = rsp_only(1.0f, ok);
        }
        n += width;
    }
    return n;
}

/* Clipped mean of the pixels that count: mean, error, number. */
RSP_SIMD static void clipped_mean(ring pixels, int64_t n, double clip, double out[3]) {
    const float *restrict value = pixels.value, *restrict variance = pixels.variance, *restrict use = pixels.use;
    double middle = 0.0, limit = HUGE_VAL;
    out[0] = out[1] = NAN;
    out[2] = 0.0;
    for (int round = 0; round < RING_ROUNDS; round++) {
        double sum = 0.0, square = 0.0, power = 0.0, count = 0.0;
#pragma omp simd reduction(+ : sum, square, power, count)
        for (int64_t i = 0; i < n; i++) {
            const double d = (double)value[i] - middle, w = fabs(d) <= limit ? (double)use[i] : 0.0;
            sum += w * (double)value[i];
            square += w * d * d;
            power += w * (double)variance[i];
            count += w;
        }
        if (!(count > 0.0)) return;
        const double mean = sum / count, shift = mean - middle, done = count == out[2];
        out[0] = mean;
        out[1] = sqrt(power) / count;
        out[2] = count;
        if (done) return;
        limit = clip * sqrt(fmax(square / count - shift * shift, 0.0));
        middle = mean;
    }
}

RSP_API rsp_status rsp_local_background(const rsp_pixels *pixels, int64_t n, const double *restrict xy, double inner, double outer,
                                        double clip, double *restrict out) {
    RSP_CHECK(pixels->ny > 0 && pixels->nx > 0 && n >= 0, RSP_BAD_SHAPE);
    RSP_CHECK(inner >= 0.0 && outer > inner && outer < 1e4 && clip > 0.0, RSP_BAD_ARGUMENT);
    rsp_status status = RSP_OK;
    const double radius[2] = {inner, outer};
    const size_t side = 2 * (size_t)outer + 3;
    float *planes = malloc(3 * side * side * sizeof *planes);
    RSP_NEED(planes, RSP_NO_MEMORY);
    const ring pixels_of = {planes, planes + side * side, planes + 2 * side * side};
    for (int64_t i = 0; i < n; i++) {
        const double x = xy[2 * i], y = xy[2 * i + 1];
        const int64_t found = isfinite(x) && isfinite(y) && fabs(x) < 1e9 && fabs(y) < 1e9
                                  ? collect_ring(pixels, x, y, radius, pixels_of) : 0;
        clipped_mean(pixels_of, found, clip, out + 3 * i);
    }
done:
    free(planes);
    return status;
}
