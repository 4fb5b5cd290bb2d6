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

enum { RSP_RAW_UINT16 = 0, RSP_RAW_INT32 = 1, RSP_RAW_FLOAT = 2 };

/* One amplifier of a detector: its raw data region and where that goes. */
typedef struct {
    const void *raw;         /* first pixel of the data region, ADU */
    int32_t raw_type;        /* RSP_RAW_... */
    int32_t flip_x, flip_y;  /* not 0: columns, rows run backwards in raw */
    int64_t raw_stride;      /* pixels from one raw row to the next */
    int64_t nx, ny, x0, y0;  /* size of the data region; place of its first pixel in the assembled detector */
    double gain;             /* electron/ADU */
    double constant_variance;/* electron^2: read noise squared, and that of the level subtracted */
    double saturation, suspect; /* ADU: raw pixels at or above it are saturated, suspect; inf: none */
    const float *row_level;  /* [ny] ADU, subtracted from each raw row */
    const float *column_level; /* [nx] ADU, subtracted from each raw column too, or NULL */
} rsp_amplifier;

/* Calibration planes of the assembled detector, [ny*nx] each; NULL where there is none.
 * Not prepared: bias electron, dark electron/s, flat (relative response), defects (not 0: bad).
 * Prepared (by rsp_detrend_prepare): bias = bias + dark * time, flat = 1/flat, negative at defects, NaN where the flat cannot be
 * used; dark_noise in units of dark_step electron^2; dark and defects are not read. */
typedef struct {
    const float *bias, *dark, *flat;
    const uint8_t *defects;
    const uint16_t *dark_noise;
    double dark_step;        /* electron^2 */
    int32_t prepared;
} rsp_calibration;

typedef struct {
    double dark_time;        /* s */
    double min_flat;         /* flats not above it are bad; >= 0 */
    uint32_t sat_bit, suspect_bit, bad_bit, nan_bit; /* saturated; suspect and not saturated; defect or no calibration; raw value
                              * not finite */
} rsp_detrend_options;

/* Detrend one amplifier into its place in the planes of the detector, [ny*nx]:
 *   electrons = (raw - row_level - column_level) * gain - bias - dark * time
 *   out_image = electrons / flat, electron (electrons where the flat is bad)
 *   out_variance = (max(electrons, 0) + max(dark * time, 0) + constant_variance) / flat^2; inf where bad_bit or nan_bit is set
 *   out_mask; out_good: number of pixels without any bit.  RSP_BAD_SHAPE, RSP_BAD_ARGUMENT. */
rsp_status rsp_detrend_amplifier(const rsp_amplifier *amplifier, const rsp_calibration *calibration,
        const rsp_detrend_options *options, int64_t ny, int64_t nx, float *restrict out_image, float *restrict out_variance,
        uint32_t *restrict out_mask, int64_t *restrict out_good);

/* The flat alone, in place, for images that were detrended without one: what moves charges has its turn before.
 * image /= flat, variance /= flat^2 [n_pixels]; where the flat cannot be used or there is a defect: bad_bit, variance inf.
 * out_good: number of pixels without any bit. */
rsp_status rsp_detrend_flatten(const rsp_calibration *calibration, const rsp_detrend_options *options, int64_t n_pixels,
        float *restrict image, float *restrict variance, uint32_t *restrict mask, int64_t *restrict out_good);

/* Combine the planes for many exposures of one dark time: fewer bytes per pixel. calibration->dark_step is the unit of
 * out_dark_noise (which may be NULL: then the caller adds the dark's mean noise to constant_variance).
 * out_good: pixels with a usable flat that are no defects. */
rsp_status rsp_detrend_prepare(const rsp_calibration *calibration, const rsp_detrend_options *options, int64_t n_pixels,
        float *restrict out_pedestal, float *restrict out_inverse_flat, uint16_t *restrict out_dark_noise,
        int64_t *restrict out_good);

/* ---- electronics ------------------------------------------------------------------------------------------- */

/* What happens to the charge of one amplifier between its pixels and the converter, and the order in which it was read. */
typedef struct {
    int32_t reverse_x, reverse_y; /* not 0: the last column, row of the data region was read first */
    uint32_t dither;         /* key of the random numbers between -0.5 and 0.5 ADU that are added to raw pixels; 0: none */
    const float *linearity;  /* [n_linearity] electron, to be added to a charge of i * linearity_step; NULL: nothing */
    int64_t n_linearity;     /* >= 2 */
    double linearity_step;   /* electron */
    int64_t prescan;         /* pixels read before the first of the data region */
    double inefficiency;     /* of one serial transfer; times the transfers of the last pixel at most 0.1 */
    double offset_scale, offset_fade; /* memory of the output amplifier: share of the charge; factor per pixel, < 1 */
    double trap_size, trap_level, trap_keep; /* electron; electron, > trap_size; share kept per pixel, < 1 */
} rsp_electronics;

typedef struct {
    int64_t n_targets, n_sources; /* amplifiers of the detector; these and those of others that speak into them */
    int64_t tile;            /* columns worked on at a time: a multiple of 8 up to 512; changes no bit */
    const float *linear, *quadratic; /* [n_targets * n_sources] dimensionless, 1/electron: added times source, source^2; or both NULL */
    double ghost_limit;      /* electron: larger ghosts of saturated pixels get ghost_bit */
    uint32_t ghost_bit;
} rsp_sweep;

/* Detrend all amplifiers of a detector together, in this order: electrons = (raw - levels + dither) * gain; crosstalk:
 *   electrons += sum over sources of (linear + quadratic * source) * source, read at the same moment;
 * linearity: += table(electrons); deferred charge given back (products/electronics.py has the model); the rest as
 * rsp_detrend_amplifier, whose outputs these are.
 *   amplifiers, electronics  [n_sources], the detector's own first; with crosstalk all of one size
 * RSP_NO_MEMORY, RSP_BAD_SHAPE, RSP_BAD_ARGUMENT. */
rsp_status rsp_electronics_detrend(const rsp_sweep *what, const rsp_amplifier *amplifiers, const rsp_electronics *electronics,
        const rsp_calibration *calibration, const rsp_detrend_options *options, int64_t ny, int64_t nx,
        float *restrict out_image, float *restrict out_variance, uint32_t *restrict out_mask, int64_t *restrict out_good);

/* ---- combine ----------------------------------------------------------------------------------------------- */

/* How the inputs of one pixel are combined. An input is ABSENT where its value is not finite or its mask has an
 * absent_bit; REJECTED where its mask has a reject_bit, its variance is not positive and finite, or its weight is not
 * positive; else VALID. A valid input is CLIPPED where it lies more than kappa sigma from the centre. */
typedef struct {
    double kappa_low, kappa_high; /* clip below, above; in sigma */
    double relative;         /* fraction of |centre| added in quadrature to sigma: spares star cores as the seeing changes */
    double majority_fraction;/* of the inputs present */
    int32_t iterations;      /* 0: no clipping; the first is about the median, further ones about the mean of what is left */
    int32_t min_inputs;      /* pixels with fewer valid inputs are not clipped */
    uint32_t absent_bits, reject_bits; /* of the inputs' masks */
    uint32_t or_bits;        /* carried into out_mask from the inputs that were used */
    uint32_t majority_bits;  /* carried where at least majority_fraction of the inputs present have them, used or not */
    uint32_t clipped_bit, rejected_bit, no_data_bit; /* set in out_mask where an input was clipped, was rejected; no input used */
} rsp_combine_options;

/* Weighted clipped mean of n inputs, pixel by pixel.
 *   image     [n] pointers to n_pixels floats, any unit U
 *   variance  [n] pointers to n_pixels floats, U^2, or NULL
 *   mask      [n] pointers to n_pixels masks, or NULL
 *   weight    [n] weight of each input, or NULL: 1/variance of the pixel where variance is given, else 1. (Weights per
 *             pixel from a variance that holds the source's own Poisson noise bias bright fluxes: for coadds give weights.)
 *   noise     [n][2] floor U^2, slope U: variance = floor + slope * max(centre, 0); used where variance is NULL; or NULL
 * sigma^2 of a value is its variance, else its noise, else is estimated in each pixel: from the quartiles in the first
 * iteration, from the scatter of what is left in later ones (for about eight inputs and more).
 * Pixels whose inputs would all be clipped keep all of them and get clipped_bit.
 *   out_mean     [n_pixels] U, NaN where no input was used
 *   out_variance [n_pixels] U^2, of the mean: sum w^2 v / (sum w)^2; v estimated from the scatter if neither variance nor noise
 *                is given (inf for one input); inf where no input was used
 *   out_count    [n_pixels] inputs used, or NULL;  out_mask [n_pixels] or NULL
 *   out_clipped  [n] number of pixels clipped in each input, or NULL
 * n <= 65535. RSP_NO_MEMORY, RSP_BAD_SHAPE, RSP_BAD_ARGUMENT. */
rsp_status rsp_combine_clipped_mean(int64_t n, int64_t n_pixels, const float *const *image,
        const float *const *variance, const uint32_t *const *mask, const double *weight, const double *noise,
        const rsp_combine_options *options, float *restrict out_mean, float *restrict out_variance,
        uint16_t *restrict out_count, uint32_t *restrict out_mask, int64_t *restrict out_clipped);

/* ---- frames ------------------------------------------------------------------------------------------------ */

typedef struct {
    int64_t first_row, n_rows; /* rows of the raw data region to work on */
    int64_t order;             /* of the polynomial, 0 to 8 */
    int64_t block;             /* side of the blocks of the detector in which clipped pixels are counted, pixel */
} rsp_frames_options;

/* Clipped mean of n raw frames of one amplifier, corrected as they are read, into its place in the planes of the detector [ny*nx]:
 *   value = ((raw - row_level - column_level) * gain - bias - dark_time * dark) * factor(u, v); not a number where raw is saturated
 *   frame     [n] as in rsp_detrend_amplifier, alike but for raw and levels; constant_variance is not read
 *   factor    [n][order+1][order+1] of v^j u^i; u = (2 x + 1) / nx - 1, v = (2 y + 1) / ny - 1 in pixels of the detector
 *   dark_time [n] s;  bias, dark [ny*nx] electron, electron/s, or NULL
 *   weight [n], noise [n][2], clip: as in rsp_combine_clipped_mean, in the unit of the values
 *   out_mean, out_variance [ny*nx], NaN and inf where no frame was used
 *   out_clipped [n][ceil(ny/block)][ceil(nx/block)]: pixels clipped are added
 * RSP_NO_MEMORY, RSP_BAD_SHAPE, RSP_BAD_ARGUMENT. */
rsp_status rsp_frames_combine(int64_t n, const rsp_amplifier *frame, const rsp_frames_options *options, const double *factor,
        const double *dark_time, const float *bias, const float *dark, const double *weight, const double *noise,
        const rsp_combine_options *clip, int64_t ny, int64_t nx, float *restrict out_mean, float *restrict out_variance,
        int32_t *restrict out_clipped);

/* ---- cosmic ------------------------------------------------------------------------------------------------ */

/* Find pixels hit by cosmic rays: those too steep for the PSF. Round 0 takes pixels that stand `peak` sigma above the sky
 * and, in one of four directions, `edge` sigma above the mean of their two neighbours over exp(-d^2 / (2 sigma^2)), which a
 * PSF of width sigma never exceeds. Then neighbours of what was found are tried with grow_peak and grow_edge, pixels found
 * before counting as the most that light can be there, by the same rule from their neighbours that are not hit.
 *   image, variance, sky [ny*nx]: unit, unit^2, unit; the image holds the sky; what is not finite, or neighbours 6 sigma below
 *   the sky (dead), are not used
 *   mask [ny*nx], changed in place: hit_bit is set; hit_bits set before count as hit */
typedef struct {
    double sigma;              /* width of the narrowest PSF, pixel integration included; pixel */
    double peak, edge;         /* sigma */
    double grow_peak, grow_edge; /* sigma */
    double contrast;           /* ... and the pixel is more than 1 / contrast times what that PSF allows (its square where the
                                * neighbours are two pixels away); > 0, <= 1 to matter */
    double grow_contrast;      /* the same for a neighbour of a hit that is not brighter than that */
    double relative;           /* of the pixel's excess, added to its noise in the edge test: error of flat and PSF */
    int64_t rounds;            /* of growing at most */
    int64_t margin;            /* pixels so near to saturated ones are never hit; pixel */
    uint32_t skip_bits, saturated_bit, hit_bit;
} rsp_cosmic_options;
/*   out_n_hit: pixels newly marked.  RSP_NO_MEMORY, RSP_BAD_SHAPE, RSP_BAD_ARGUMENT. */
rsp_status rsp_cosmic(int64_t ny, int64_t nx, const rsp_cosmic_options *options, const float *restrict image,
        const float *restrict variance, const float *restrict sky, uint32_t *restrict mask, int64_t *restrict out_n_hit);

/* ---- brighter-fatter --------------------------------------------------------------------------------------- */

/* A kernel as a sum of products: K[dy][dx] = sum over k of column[k][below + dy] * row[k][before + dx], with dy from -below
 * to above, dx from -before to after, at most 64 each way. 1/electron. With symmetry 1 (-1) each column is equal (opposite) to
 * itself turned upside down; only its first half, and the middle, are then read. */
typedef struct {
    int64_t n_terms, before, after, below, above;
    int32_t symmetry;          /* 0: none */
    const float *row, *column; /* [n_terms][before + after + 1], [n_terms][below + above + 1] */
} rsp_separable;

typedef struct {
    uint32_t exclude_bits;   /* pixels with one of them, that are not finite or are defects keep value and variance, and are
                              * the mean of their neighbours for the others */
    double level;            /* electron, where such a pixel has no neighbour within 8 pixels */
    int64_t passes;          /* convolutions at most, >= 1 */
    double tolerance;        /* electron; further passes go over blocks of 32 x 128 pixels that a pass changed by more in some
                              * pixel, and their neighbours, until there is none; >= 0 */
    double measured_share;   /* 0 to 1: shifts of later passes come from this share of the charge as measured, the rest as corrected */
} rsp_brighter_fatter_options;

/* Move charge back that crossed a border between pixels because the charges around had shifted it.
 *   shift of the border between a pixel and the next one to the right, above = sum over d of east[d], north[d] * charge[pixel + d],
 *   in pixels; with north NULL east is a potential P: the shift is that of the pixel less that of the next one
 *   moved back = shift / 2 * (image[pixel] + image[next]) / 2, so that the sum over the image stays; none at the image's edge,
 *   beyond which charges are as at the edge
 *   image [ny*nx] electron, variance electron^2 (which changes by as much): in place; mask [ny*nx]; defects [ny*nx] or NULL
 *   out_n_excluded pixels; out_passes made; out_change electron: the largest of the last pass that had a block to go over.
 * RSP_NO_MEMORY, RSP_BAD_SHAPE, RSP_BAD_ARGUMENT. */
rsp_status rsp_brighter_fatter(int64_t ny, int64_t nx, const rsp_brighter_fatter_options *options, const rsp_separable *east,
        const rsp_separable *north, const uint32_t *restrict mask, const uint8_t *restrict defects, float *restrict image,
        float *restrict variance, int64_t *restrict out_n_excluded, int64_t *restrict out_passes, double *restrict out_change);

/* ---- saturation -------------------------------------------------------------------------------------------- */

/* Set bits within `radius` pixels (a disc) of every pixel that has one of from_bits on entry. mask [ny*nx] in place;
 * out_n: pixels newly set. RSP_NO_MEMORY, RSP_BAD_SHAPE, RSP_BAD_ARGUMENT. */
rsp_status rsp_saturation_grow(int64_t ny, int64_t nx, uint32_t from_bits, int64_t radius, uint32_t set_bits,
        uint32_t *restrict mask, int64_t *restrict out_n);

/* Bleed trails of one amplifier, the box x0 <= x < x1, y0 <= y < y1. A trail is a run of at least `length` saturated pixels of a
 * column; it is grown by `beyond` pixels at its ends, inside the box, and `beside` on both sides. One that reaches the row that is
 * read first has flooded the serial register: edge_rows rows there are set, edge_reach pixels to both sides, inside the box. */
typedef struct {
    int64_t x0, y0, x1, y1, length, beyond, beside, edge_rows, edge_reach;
    int32_t read_at_top;       /* not 0: the last row is read first */
    uint32_t saturated_bits, set_bits;
} rsp_trail_options;
/*   mask [ny*nx] in place; out_n: pixels newly set. RSP_NO_MEMORY, RSP_BAD_SHAPE, RSP_BAD_ARGUMENT. */
rsp_status rsp_saturation_trails(int64_t ny, int64_t nx, const rsp_trail_options *options, uint32_t *restrict mask,
        int64_t *restrict out_n);

/* ---- fringe ------------------------------------------------------------------------------------------------ */

/* Sums over the good pixels of the my x mx cells of an image (rows j * ny / my to (j + 1) * ny / my, columns likewise), for the fit of
 * level + amplitude * pattern in each: number of pixels, and the sums of v, p, p^2, v p, v^2, where v = image - level of the cell and
 * p the pattern (NULL: zero). Pixels with a bit of `bad`, with `exclude` [ny*nx] (may be NULL) not zero, not finite in image or pattern, or with
 * |v - amplitude * p| not below the cell's limit are left out.
 *   image, level [my*mx], limit [my*mx], amplitude * pattern: one unit; cells with a level that is not finite are all zero
 *   out_sums [my*mx][6].  RSP_BAD_SHAPE, RSP_BAD_ARGUMENT. */
rsp_status rsp_fringe_cells(int64_t ny, int64_t nx, const float *restrict image, const uint32_t *restrict mask,
        const uint8_t *restrict exclude, uint32_t bad, const float *restrict pattern, int64_t my, int64_t mx,
        const float *restrict level, const float *restrict limit, double amplitude, double *restrict out_sums);

/* image -= amplitude * pattern, where that is finite. */
rsp_status rsp_fringe_subtract(int64_t n_pixels, double amplitude, const float *restrict pattern, float *restrict image);

/* ---- streaks ----------------------------------------------------------------------------------------------- */

/* Votes of n points for lines x cos(theta) + y sin(theta) = rho, theta = pi * k / n_theta, rho = first_rho + 0 .. n_rho - 1, each
 * rounded to the nearest. x, y, rho in one unit. out_votes [n_theta][n_rho]. RSP_BAD_SHAPE, RSP_BAD_ARGUMENT. */
rsp_status rsp_streaks_hough(int64_t n, const float *restrict x, const float *restrict y, int64_t n_theta, int64_t n_rho,
        double first_rho, int32_t *restrict out_votes);

/* ---- interpolate ------------------------------------------------------------------------------------------- */

/* Fill the pixels that have one of `fill_bits` from good neighbours, and set `done_bit` in their mask.
 * A neighbour is good if it has none of `avoid_bits` (which include fill_bits), a finite value and a finite variance.
 * The value is that of a parabolic surface fitted to the good pixels within `radius`, weighted by exp(-r^2 / (2 sigma^2)),
 * so that the core of a star is filled too. Where these do not determine one, the window grows by a pixel at a time: a
 * plane or the weighted mean serve after two steps, if there are four good pixels, and nothing beyond `max_radius`. The variance is the weighted mean of theirs times `inflation`. Pixels without four good neighbours within max_radius are left as they are. Only values that were
 * good on entry are used: the order of the pixels does not matter.
 *   image, variance [ny*nx]: unit, unit^2; mask [ny*nx]; all three changed in place
 *   radius, max_radius: pixel, 1 <= radius <= max_radius <= 64; sigma: pixel, > 0; inflation >= 1
 *   out_n_filled: pixels filled */
typedef struct {
    int64_t radius, max_radius;
    double sigma, inflation;
    uint32_t fill_bits, avoid_bits, done_bit;
} rsp_interpolate_options;
rsp_status rsp_interpolate(int64_t ny, int64_t nx, const rsp_interpolate_options *options, float *restrict image,
        uint32_t *restrict mask, float *restrict variance, int64_t *restrict out_n_filled);

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

/* Signal to noise of a point source at each pixel: the image filtered with P = sum over t of columns[t][y] rows[t][x]
 * (n_signal terms of 2 half + 1 taps), over the root of the variance filtered with P^2 (n_noise terms). Left out are
 * pixels with a bit of `never`, or with a bit of `reject` and none of `rescue`, or that are not finite, or without
 * variance. `correlation` [gy][gx] > 0 scales the variance on a coarse grid over the image. Both [ny][nx]: out_level, the
 * filtered image, and out_snr, 0 where no pixel counts. */
rsp_status rsp_detect_filter(int64_t ny, int64_t nx, const float *restrict image, const uint32_t *restrict mask,
        const float *restrict variance, uint32_t reject, uint32_t rescue, uint32_t never, int64_t half,
        int64_t n_signal, const float *restrict signal_rows, const float *restrict signal_columns,
        int64_t n_noise, const float *restrict noise_rows, const float *restrict noise_columns,
        int64_t gy, int64_t gx, const float *restrict correlation, float *restrict out_level,
        float *restrict out_snr);

/* Footprints: 8-connected pixels with snr > low, at least min_area of them, the highest >= high; numbered from 1 in the
 * order of their first pixel. out_labels [ny][nx], 0 = none; out_boxes [capacity][4] x0, y0, x1, y1 half open;
 * out_areas [capacity] pixels; out_n. The bits `detected` of inout_mask [ny][nx] are cleared, then set in footprints.
 * RSP_FULL if there are more than capacity: out_n is the number, nothing else is written. */
rsp_status rsp_detect_footprints(int64_t ny, int64_t nx, const float *restrict snr, float low, float high,
        int64_t min_area, uint32_t detected, int64_t capacity, uint32_t *restrict inout_mask,
        int32_t *restrict out_labels, int32_t *restrict out_boxes, int64_t *restrict out_areas,
        int64_t *restrict out_n);

/* Peaks: local maxima of `level` [ny][nx], the filtered image in any unit. (Not of snr: its noise, which follows the
 * light, levels the dips between bright neighbours.) Kept are each footprint's highest, and every one with snr >=
 * threshold whose drop to the saddle towards a higher one is >= min_drop sigma (its level over its snr being sigma)
 * and >= contrast * saddle. A flat top counts as one peak, at its middle. out_owners [ny][nx]: number + 1 of the peak that a footprint's pixel
 * climbs to, 0 outside; out_xy [capacity][2] position by parabola, pixel; out_snr [capacity], the highest at
 * the peak's 3x3 pixels; peaks of footprint f
 * (label f + 1) are out_starts[f] .. out_starts[f + 1] - 1, highest first (out_starts [n_footprints + 1]).
 * RSP_FULL if there are more than capacity: out_n is the number. */
rsp_status rsp_detect_peaks(int64_t ny, int64_t nx, const float *restrict level, const float *restrict snr,
        const int32_t *restrict labels, int64_t n_footprints, const int32_t *restrict boxes, float threshold,
        float min_drop, float contrast, int64_t capacity, int32_t *restrict out_owners, double *restrict out_xy, float *restrict out_snr,
        int64_t *restrict out_starts, int64_t *restrict out_n);

/* ---- deblend ----------------------------------------------------------------------------------------------- */

typedef struct {                /* an image for measuring: all planes [ny][nx] */
    int64_t ny, nx;
    const float *image, *variance;  /* [unit], [unit^2] */
    const uint32_t *mask;
    const int32_t *labels;      /* footprint + 1, 0 = none; may be NULL */
    uint32_t never, reject, rescue; /* pixels with a bit of never, or of reject and none of rescue, are missing */
} rsp_pixels;

typedef struct {                /* what detection found, see rsp_detect_footprints and rsp_detect_peaks */
    int64_t n;                  /* footprints */
    const int32_t *boxes;       /* [n][4] */
    const int64_t *areas;       /* [n] pixels */
    const int64_t *starts;      /* [n + 1] first peak of each */
    const int32_t *owners;      /* [ny][nx] peak + 1 */
    const double *xy;           /* [peaks][2] pixel */
    const float *snr;           /* [peaks] */
} rsp_footprints;

enum {                          /* how a peak was treated */
    RSP_LEFT_BLENDED = 1,       /* too many peaks, too large, or no PSF */
    RSP_SHARED_AS_POINT = 2     /* its template is the PSF */
};

/* Share out the light of each footprint with several peaks, in every pixel in proportion to their templates; children
 * sum to the image. psfs [footprints with several peaks][psf_side][psf_side]. Peaks below `faint` sigma, or whose rms
 * misfit of the PSF is below `misfit` of it, have the PSF as template, others a symmetric one that falls outwards.
 * Out, per peak: out_boxes [4] x0, y0, x1, y1 half open; out_offsets of its first pixel in out_values [capacity], -1 =
 * no child; out_flags. out_n: pixels used. RSP_FULL if more than capacity. */
rsp_status rsp_deblend(const rsp_pixels *pixels, const rsp_footprints *found, int64_t psf_side,
        const float *restrict psfs, int64_t max_peaks, int64_t max_area, float faint, float misfit,
        int64_t capacity, int32_t *restrict out_boxes, int64_t *restrict out_offsets,
        float *restrict out_values, uint8_t *restrict out_flags, int64_t *restrict out_n);

/* ---- measure ----------------------------------------------------------------------------------------------- */

typedef struct {                /* n sources */
    int64_t n;
    const double *xy;           /* [n][2] positions, pixel */
    const int32_t *footprints;  /* [n] index of the source's footprint, -1 = none */
    const int32_t *child_boxes; /* [n][4] x0, y0, x1, y1, half open; may be NULL as the next two */
    const int64_t *child_offsets; /* [n] first pixel in child_values, -1 = no child: the image counts */
    const float *child_values;  /* packed pixels of children [unit] */
    int64_t psf_side;           /* odd */
    const float *psf;           /* [n][psf_side][psf_side] PSF centred on its middle pixel, sum 1; NaN = unknown */
    const double *correlation;  /* [n] factor on the variance of sums; may be NULL: 1 */
} rsp_sources;

typedef enum {                  /* columns of the table of measured values, NaN = not measured */
    RSP_X = 0, RSP_Y, RSP_X_ERR, RSP_Y_ERR, RSP_XY_COV,     /* position, pixel */
    RSP_PSF_FLUX, RSP_PSF_FLUX_ERR, RSP_PSF_AREA,           /* unit; effective area 1 / sum P^2, pixel */
    RSP_EXCESS, RSP_EXCESS_ERR,                             /* second moment beyond the PSF's, per axis, pixel^2 */
    RSP_IXX, RSP_IYY, RSP_IXY, RSP_IXX_ERR, RSP_IYY_ERR, RSP_IXY_ERR,   /* adaptive moments, pixel^2 */
    RSP_IXX_PSF, RSP_IYY_PSF, RSP_IXY_PSF,
    RSP_BLENDEDNESS,                                        /* share of weighted light that is not the source's */
    RSP_KRON_RADIUS, RSP_KRON_FLUX, RSP_KRON_FLUX_ERR,      /* first radial moment, pixel; flux within 2.5 of it */
    RSP_N_MEASURED
} rsp_measured;

enum {                          /* why a value is missing or doubtful */
    RSP_NO_CENTROID = 1,        /* the position was not fitted: the given one stands */
    RSP_NO_PIXELS = 2,          /* less than a fifth of the PSF's weight has data: no PSF flux */
    RSP_PSF_CUT = 4,            /* less than nine tenths has data */
    RSP_NO_SHAPE = 8,           /* no adaptive moments */
    RSP_KRON_SMALLEST = 16,     /* no Kron radius: the smallest aperture was taken */
    RSP_KRON_CUT = 32,          /* data are missing in the Kron aperture */
    RSP_NO_PSF = 64,
    RSP_OFF_IMAGE = 128
};

/* Measure each source: PSF fit (position within max_shift of the given one; 0 keeps it), circular apertures of n_radii
 * radii [pixel] with exact pixel areas, adaptive moments, Kron flux. out_values [n][RSP_N_MEASURED]; out_apertures
 * [n][n_radii][3]: flux, its error, area without data [pixel]; out_flags [n]; out_masks [n][2]: union of the mask over
 * the source's footprint, and over the 3x3 pixels at its centre. */
rsp_status rsp_measure(const rsp_pixels *pixels, const rsp_sources *sources, double max_shift, int64_t n_radii,
        const double *restrict radii, double *restrict out_values, double *restrict out_apertures,
        uint32_t *restrict out_flags, uint32_t *restrict out_masks);

/* The sky left about n positions xy [n][2], pixel: the mean between the radii inner and outer [pixel] of pixels in no footprint,
 * clipped at `clip` of their own sigma. out [n][3]: level per pixel [unit], its error from the variances, pixels used. */
rsp_status rsp_local_background(const rsp_pixels *pixels, int64_t n, const double *restrict xy, double inner, double outer,
        double clip, double *restrict out);

/* ---- psf --------------------------------------------------------------------------------------------------- */

/* A PSF here is a grid [n_terms][side][side] (side odd, <= 129; 1 <= n_terms <= 12): at a place whose polynomial terms are t it
 * is the stamp sum_m t[m] grid[m], sampled at the image's pixels, for a source on the middle pixel's centre. It is moved by
 * shifts below 2.5 pixels as rsp_measure moves it, zero outside of the stamp. */
typedef struct {                /* n stars, each cut about its own middle pixel */
    int64_t n, side, n_terms;
    const double *data;         /* [n][side][side] [unit]; not read where the weight is 0 */
    const double *weight;       /* [n][side][side] inverse variance [unit^-2], 0 = left out */
    const double *terms;        /* [n][n_terms] */
    const double *flux, *sky;   /* [n] [unit], [n] [unit] what lies under the star */
    const double *shift;        /* [n][2] x, y of the star from the middle pixel [pixel] */
} rsp_psf_stars;

/* out_model [n][side][side]: the PSF, of flux one, on the pixels of n stars with terms [n][n_terms] and shifts [n][2]. */
rsp_status rsp_psf_draw(int64_t n, int64_t side, int64_t n_terms, const double *grid, const double *terms,
        const double *shifts, double *restrict out_model);

/* The grid that minimises sum weight (data - sky - flux PSF)^2 + sum precision (grid - target)^2, the prior: its inverse
 * variances and its mean, both as the grid. inout_grid: a start, then the solution, by at most
 * `most` steps of conjugate gradients, until the residual (in the norm of the inverse blocks) has fallen to `tolerance` of
 * the right-hand side's. out_covariance [n_terms][n_terms][side][side]: of the coefficients of each pixel, correlations between
 * pixels neglected; out_steps. RSP_BAD_ARGUMENT where a pixel has neither data nor prior. */
rsp_status rsp_psf_solve(const rsp_psf_stars *stars, const double *precision, const double *target, double tolerance,
        int64_t most, double *inout_grid, double *restrict out_covariance, int64_t *out_steps);

/* Newton steps on each star's flux, shift and sky with the grid held; sky_prior [n][2] mean [unit] and inverse variance
 * [unit^-2] of the sky. out_stars [n][4]: flux, x, y, sky, the shift within 2.4 pixels; out_chi2 [n] after the last
 * step, NaN where a star has too few pixels. */
rsp_status rsp_psf_refit(const rsp_psf_stars *stars, const double *grid, const double *sky_prior, int64_t steps,
        double *out_stars, double *restrict out_chi2);

/* How much of each mode [n_modes][side][side] (n_modes <= 8) a star shows beyond the grid, in units of its flux, while its flux,
 * shift and sky are free too. out_amplitude [n][n_modes]; out_covariance [n][n_modes][n_modes], inf on the diagonal where a
 * star has too few pixels. */
rsp_status rsp_psf_modes(const rsp_psf_stars *stars, const double *grid, const double *sky_prior, int64_t n_modes,
        const double *modes, double *restrict out_amplitude, double *restrict out_covariance);

/* ---- warp -------------------------------------------------------------------------------------------------- */

typedef struct {
    uint32_t bad;          /* planes that make a source pixel bad */
    uint32_t interpolated; /* plane of bad pixels whose value may be used; set where one was used */
    uint32_t no_data;      /* plane of output pixels without a value (NaN, variance inf) */
    uint32_t rejected;     /* plane, with no_data: the value was refused because of bad pixels */
    uint32_t edge;         /* plane, with no_data: the window leaves the source although the position is inside */
    float max_bad;         /* largest share of the weights' absolute sum that may fall on bad pixels */
} rsp_warp_rules;

/* Resample image, variance and mask in one pass with a Lanczos-3 kernel (weights of unit sum per axis).
 * grid_x, grid_y [gny * gnx]: source pixel coordinates at output nodes 32 pixels apart, and grid_scale: the factor from
 * source to output values there (unit conversion times source area per output area); cubic in between. Output pixel (0, 0)
 * is row0 rows and column0 columns (< 32) after node (1, 1); one more node is needed before and two after.
 * Values are scaled; the variance is sum(w^2 V) scale^2. A pixel becomes no_data where its window leaves the source, holds
 * a value that is not finite or bad and not interpolated, or has more than max_bad on bad pixels. The output mask is the
 * OR of the four pixels around the position. */
rsp_status rsp_warp(const float *image, const float *variance, const uint32_t *mask, int64_t ny, int64_t nx,
                    const double *grid_x, const double *grid_y, const double *grid_scale, int64_t gny, int64_t gnx,
                    const rsp_warp_rules *rules, int64_t row0, int64_t column0, int64_t out_ny, int64_t out_nx,
                    float *out_image, float *out_variance, uint32_t *out_mask);

/* Resample n PSF stamps [size * size] (size odd) as rsp_warp resamples a star on the centre of an output pixel.
 * phase [n * 2]: the star's position (x, y) in the source less the whole pixel below it; affine [n * 4]: d(source x, y) by
 * d(output x, y), row by row. out_stamps [n * out_size * out_size], flux kept, not normalised. */
rsp_status rsp_warp_psf(const float *stamps, int64_t n, int64_t size, const double *phase, const double *affine,
                        int64_t out_size, float *out_stamps);

/* ---- coadd ------------------------------------------------------------------------------------------------- */

typedef struct { /* one warp; its pixels without a value have a NaN image or an inf variance */
    const float *image;    /* [ny * nx], unit U */
    const float *variance; /* [ny * nx], U^2 */
    const uint32_t *mask;  /* [ny * nx] */
    int64_t x0, y0, nx, ny; /* where it lies: output pixel of its first, may be negative; size */
    double weight;          /* relative weight, > 0 */
} rsp_coadd_input;

typedef struct {
    float kappa;         /* an input is clipped beyond kappa sigma + tolerance * range of the mean of the others */
    float tolerance;     /* on that range, over 5 x 5 pixels and less what noise makes of it */
    float max_saturated; /* `saturated` is set where more than this share of the weight was lost with it */
    int32_t min_inputs;  /* >= 3: pixels with fewer are not clipped */
    uint32_t carry;      /* planes carried from the inputs in use */
    uint32_t rejected, edge; /* planes carried from inputs without a value */
    uint32_t saturated, clipped, no_data; /* planes to set */
} rsp_coadd_rules;

/* Weighted clipped mean of n inputs that each cover a part of the output [ny * nx]. Neighbours up to 2 pixels outside of
 * the output are used where inputs have them, so that parts of an image equal the whole.
 * out_image: U, NaN where no input; out_variance: U^2, sum w^2 V / (sum w)^2, inf where no input; out_mask; out_count:
 * inputs in use; out_clipped [n]: pixels in which each was clipped. */
rsp_status rsp_coadd(const rsp_coadd_input *input, int64_t n, int64_t ny, int64_t nx, const rsp_coadd_rules *rules,
                     float *out_image, float *out_variance, uint32_t *out_mask, uint16_t *out_count,
                     int64_t *out_clipped);

/* ---- covariance -------------------------------------------------------------------------------------------- */

/* A rectangle of two flats of nearly the same light, and how their difference is made:
 *   d = first - ratio * second; ratio = c[0] + c[1] u + c[2] v + c[3] u^2 + c[4] u v + c[5] v^2, u and v from -1 at the first
 *   to 1 at the last column and row. Left out are pixels with one of skip_bits in either mask, or |d| not within limit. */
typedef struct {
    int64_t nx, ny, stride;  /* size; pixels from one row to the next, of all four planes */
    const float *first, *second; /* unit U */
    const uint32_t *first_mask, *second_mask;
    double ratio[6];
    float limit;             /* U, > 0 */
    uint32_t skip_bits;
} rsp_flat_pair;

/* Products of neighbouring pixels of the difference, summed over the rectangle, for n_lags <= 32:
 *   out_product [n_lags][2 n_lags - 1] U^2: at [j][n_lags - 1 + i] the sum of d(x, y) d(x + i, y + j) over the
 *   out_count   [n_lags][2 n_lags - 1] pairs of used pixels (row j = 0 holds each pair twice, at i and -i)
 *   out_sums    [4] sums over the used pixels of first, second, d, ratio; their number is out_count[n_lags - 1]
 * Products of a row are summed in single precision. nx < 2^24. RSP_NO_MEMORY, RSP_BAD_SHAPE, RSP_BAD_ARGUMENT. */
rsp_status rsp_covariance(const rsp_flat_pair *pair, int64_t n_lags, double *restrict out_product,
        int64_t *restrict out_count, double *restrict out_sums);

#endif
