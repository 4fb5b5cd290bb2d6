/* streaks.c: votes of lit cells for straight lines (Hough 1962; in the normal form of Duda and Hart 1972, CACM 15, 11). Bound by one
 * increment in cache per cell and angle. */
#include "internal.h"

enum { AT_ONCE = 256 };

RSP_SIMD static void vote(int64_t n, const float *restrict x, const float *restrict y, float cosine, float sine, float first, int64_t n_rho,
                          int32_t *restrict out) {
    int32_t bin[AT_ONCE];
    for (int64_t from = 0; from < n; from += AT_ONCE) {
        const int64_t count = rsp_min(AT_ONCE, n - from);
        for (int64_t i = 0; i < count; i++) bin[i] = (int32_t)(x[from + i] * cosine + y[from + i] * sine - first + 0.5f);
        for (int64_t i = 0; i < count; i++)
            if (bin[i] >= 0 && bin[i] < n_rho) out[bin[i]]++;
    }
}

RSP_API rsp_status rsp_streaks_hough(int64_t n, const float *restrict x, const float *restrict y, int64_t n_theta, int64_t n_rho,
                                     double first_rho, int32_t *restrict out_votes) {
    RSP_CHECK(n >= 0 && n_theta > 0 && n_rho > 0, RSP_BAD_SHAPE);
    RSP_CHECK(isfinite(first_rho), RSP_BAD_ARGUMENT);
    memset(out_votes, 0, (size_t)(n_theta * n_rho) * sizeof *out_votes);
    for (int64_t k = 0; k < n_theta; k++) {
        const double theta = 3.14159265358979323846 * (double)k / (double)n_theta;
        vote(n, x, y, (float)cos(theta), (float)sin(theta), (float)first_rho, n_rho, out_votes + k * n_rho);
    }
    return RSP_OK;
}
