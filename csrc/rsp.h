/* rsp.h: the C core of rsp_hpc, the one public header. cffi reads this very file, less its lines that begin with '#'.
 *
 * Conventions
 *   - The caller allocates; kernels fill. Inputs are const, outputs come last and are named out_.
 *   - Every function returns a status: RSP_OK, or why not. rsp_status_text() words it; rsp_detail() adds the values.
 *   - Images are C order, [y][x], row y starts at y * nx. Pixel (x, y) has its centre at (x, y), zero-based.
 *   - Pixels are float, variances float (inf = unknown), masks uint32_t; sizes int64_t; sums and positions double.
 *   - Mask bits arrive as arguments; this core knows no plane by name.
 *   - No files, no printing, no MPI, no writable globals but the thread-local text of the last error. */
#ifndef RSP_H
#define RSP_H
#include <stdint.h>

/* ---- status ------------------------------------------------------------------------------------------------ */

typedef enum {
    RSP_OK = 0,
    RSP_NO_MEMORY,      /* an allocation failed */
    RSP_BAD_SHAPE,      /* a size is not positive, or sizes do not fit each other */
    RSP_BAD_ARGUMENT,   /* a parameter is outside its limits */
    RSP_NO_GOOD_PIXELS, /* nothing was left to work on */
    RSP_FULL            /* an output array that the caller gave is too small; the count needed is returned */
} rsp_status;

const char *rsp_status_text(rsp_status status); /* static text, never NULL */
const char *rsp_detail(void);                   /* the values behind this thread's last failure, "" if none */
const char *rsp_simd_level(void);               /* "avx512", "avx2" or "baseline": what run-time dispatch chose */

/* ---- detrend ----------------------------------------------------------------------------------------------- */

/* ---- combine ----------------------------------------------------------------------------------------------- */

/* ---- cosmic ------------------------------------------------------------------------------------------------ */

/* ---- interpolate ------------------------------------------------------------------------------------------- */

/* ---- background -------------------------------------------------------------------------------------------- */

/* Sky level and noise [image unit] of the my x mx cells of an image; cell (j, i) holds rows j * ny / my to
 * (j + 1) * ny / my and columns likewise. Pixels with a bit of `bad`, that are not finite, or whose `exclude` [ny][nx]
 * (may be NULL) is not zero are left out. A normal distribution cut `lower` sigma below and `upper` sigma above its
 * mean is fitted. A cell without good pixels gets NaN; out_fraction is the share of good pixels. All out_ [my][mx]. */
rsp_status rsp_background_cells(int64_t ny, int64_t nx, const float *restrict image, const uint32_t *restrict mask,
        const uint8_t *restrict exclude, uint32_t bad, int64_t my, int64_t mx, float lower, float upper,
        float *restrict out_level, float *restrict out_noise, float *restrict out_fraction);

/* image = keep * image + sign * sky, keep 0 or 1, where sky is the natural bicubic spline through the cells' levels
 * [my][mx] placed at their centres, straight beyond the outermost. keep = 1, sign = -1 subtracts it in place. */
rsp_status rsp_background_apply(int64_t my, int64_t mx, const float *restrict level, int64_t ny, int64_t nx,
        float keep, float sign, float *restrict out_image);

/* ---- detect ------------------------------------------------------------------------------------------------ */

/* ---- deblend ----------------------------------------------------------------------------------------------- */

/* ---- measure ----------------------------------------------------------------------------------------------- */

/* ---- psf --------------------------------------------------------------------------------------------------- */

/* ---- warp -------------------------------------------------------------------------------------------------- */

/* ---- coadd ------------------------------------------------------------------------------------------------- */

#endif
