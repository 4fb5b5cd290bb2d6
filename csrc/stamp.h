/* stamp.h: the pixels about one source, as the measurements see them. Private to the core. */
#ifndef RSP_STAMP_H
#define RSP_STAMP_H
#include "internal.h"

/* A square of side 2 half + 1 about pixel (x, y). Where a neighbour's footprint lies, `value` is zero; in the source's
 * own blend it is the source's share; where there are no data it is zero and `missing` one. */
typedef struct {
    int64_t half, side, pitch, x, y; /* row j starts at j * pitch; the rest of a row is zero, for whole vectors */
    float *value;    /* light of this source, image unit */
    float *parent;   /* all light */
    float *variance; /* 0 where missing */
    float *weight;   /* 1 where a fit may look, 0 where data are missing or a neighbour's */
    float *missing;  /* 1 where there are no data */
    uint32_t here, centre; /* union of the mask over the source's own footprint, and over the 3x3 about its centre */
} rsp_stamp;

/* n rounded up to whole vectors of eight floats: short loops then have no scalar rest, which would cost more. */
static inline int64_t rsp_vectors(int64_t n) { return (n + 7) & ~(int64_t)7; }

/* Planes for stamps up to this half side; free with rsp_stamp_free. */
rsp_status rsp_stamp_allocate(rsp_stamp *stamp, int64_t largest_half);
void rsp_stamp_free(rsp_stamp *stamp);
void rsp_stamp_fill(rsp_stamp *stamp, const rsp_pixels *pixels, const rsp_sources *sources, int64_t i, int64_t half);

enum { RSP_SHIFT_TAPS = 11 };

/* Weights of the pixels -5 .. 5 about the nearest one for a source d right of a pixel centre, |d| <= 0.5; their derivative. */
void rsp_shift_taps(double d, double *weight, double *slope);

enum { RSP_MAX_PSF = 129, RSP_PSF_MARGIN = 10, RSP_PSF_WIDE = RSP_MAX_PSF + 7 + 2 * RSP_PSF_MARGIN };

/* A PSF, and what rsp_move_psf made of it: planes [side][pitch]. */
typedef struct {
    int64_t side, pitch; /* of the planes below; columns from side to pitch are zero */
    float padded[RSP_PSF_WIDE * RSP_PSF_WIDE], along_x[RSP_PSF_WIDE * RSP_PSF_WIDE], slope_x[RSP_PSF_WIDE * RSP_PSF_WIDE];
    float value[RSP_PSF_WIDE * RSP_PSF_WIDE], dx[RSP_PSF_WIDE * RSP_PSF_WIDE], dy[RSP_PSF_WIDE * RSP_PSF_WIDE];
    float broad[RSP_PSF_WIDE * RSP_PSF_WIDE];
} rsp_moved_psf;

void rsp_set_psf(rsp_moved_psf *psf, const float *stamp, int64_t side);

/* value, dx, dy: the PSF and its derivatives with respect to the position, for a source at (x, y) from the middle pixel,
 * both within +-4.5 pixels. */
void rsp_move_psf(rsp_moved_psf *psf, double x, double y);

/* An ellipse: second moments [pixel^2] about a centre given relative to the stamp's middle pixel. */
typedef struct {
    double dx, dy, xx, yy, xy;
} rsp_ellipse;

/* Adaptive moments; starts from ellipse->xx .. and leaves the result there. Returns 0, or 1 where none was found.
 * out_error: standard errors of xx, yy, xy; out_share: weighted light of the source over all light (may be NULL). */
int rsp_adaptive_moments(const rsp_stamp *stamp, rsp_ellipse *ellipse, double out_error[3], double *out_share);

/* Sum in a circle with exact areas of the pixels in it: out = flux, variance, area without data (off the stamp too). */
void rsp_circle_sum(const rsp_stamp *stamp, double dx, double dy, double radius, double *work, double out[3]);

/* Kron radius (first radial moment within 6 sigma), and the sum in the ellipse of 2.5 of them, at least `smallest`:
 * out = radius, flux, variance, area without data. Returns 0, or 1 where the smallest aperture had to be taken. */
int rsp_kron_sum(const rsp_stamp *stamp, const rsp_ellipse *ellipse, double smallest, double out[4]);

#endif
