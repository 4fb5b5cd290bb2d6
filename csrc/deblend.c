/* deblend.c: shares out the light of blended peaks, pixel by pixel, in proportion to a template of each.
 *
 * All peaks of a footprint are first fitted together as point sources. A peak that this fits, or that is faint, has that
 * PSF as template; another one has its image, less the point sources, made symmetric about the peak (the smaller of a
 * pixel and its mirror image; Lupton 2005) and falling outwards. Cost: a few hundred operations per pixel of a template
 * and per pair of neighbours. */
#include "stamp.h"

enum { SWEEPS = 40, LARGEST = 100 };

typedef struct { /* pixels of a template or child, relative to the footprint's box, half open */
    int64_t x0, y0, x1, y1;
} area_box;

typedef struct {
    area_box box;
    float *value;
    double flux, power; /* of the fitted PSF; sum of P^2 */
    int point;
} template;

typedef struct { /* one footprint, planes [ny][nx] on its box */
    int64_t nx, ny, x0, y0, n;
    float *image, *variance, *sum;
    int32_t *owner; /* peak in this footprint, -1 outside the footprint */
    const double *xy;
    template *templates;
} blend;

static int64_t area_of(area_box b) { return rsp_max(0, b.x1 - b.x0) * rsp_max(0, b.y1 - b.y0); }

static area_box common(area_box a, area_box b) {
    return (area_box){rsp_max(a.x0, b.x0), rsp_max(a.y0, b.y0), rsp_min(a.x1, b.x1), rsp_min(a.y1, b.y1)};
}

static float *pixel_of(const template *t, int64_t x, int64_t y) {
    return t->value + (y - t->box.y0) * (t->box.x1 - t->box.x0) + x - t->box.x0;
}

/* Copy a footprint out of the image; other pixels of its box are zero. */
static rsp_status open_blend(blend *b, const rsp_pixels *pixels, const rsp_footprints *found, int64_t f) {
    const int32_t *box = found->boxes + 4 * f;
    b->x0 = box[0];
    b->y0 = box[1];
    b->nx = box[2] - box[0];
    b->ny = box[3] - box[1];
    b->n = found->starts[f + 1] - found->starts[f];
    b->xy = found->xy + 2 * found->starts[f];
    const size_t area = (size_t)(b->nx * b->ny);
    b->image = calloc(3 * area, sizeof(float));
    b->owner = malloc(area * sizeof *b->owner);
    b->templates = calloc((size_t)b->n, sizeof *b->templates);
    if (!b->image || !b->owner || !b->templates) return rsp_fail(RSP_NO_MEMORY, "blend of %lld peaks", (long long)b->n);
    b->variance = b->image + area;
    b->sum = b->variance + area;
    for (int64_t y = 0; y < b->ny; y++)
        for (int64_t x = 0; x < b->nx; x++) {
            const int64_t p = (y + b->y0) * pixels->nx + x + b->x0, k = y * b->nx + x;
            b->owner[k] = pixels->labels[p] == f + 1 ? found->owners[p] - 1 - (int32_t)found->starts[f] : -1;
            if (b->owner[k] < 0 || !isfinite(pixels->image[p])) continue;
            b->image[k] = pixels->image[p];
            b->variance[k] = isfinite(pixels->variance[p]) ? pixels->variance[p] : 0.0f;
        }
    return RSP_OK;
}

static void close_blend(blend *b) {
    for (int64_t k = 0; b->templates && k < b->n; k++) free(b->templates[k].value);
    free(b->templates);
    free(b->image);
    free(b->owner);
    memset(b, 0, sizeof *b);
}

/* The PSF about peak k, cut to the footprint's pixels. */
static rsp_status place_psf(blend *b, rsp_moved_psf *psf, int64_t k) {
    template *t = b->templates + k;
    const double x = b->xy[2 * k] - (double)b->x0, y = b->xy[2 * k + 1] - (double)b->y0;
    const int64_t half = psf->side / 2, cx = lrint(x), cy = lrint(y);
    const area_box whole = {0, 0, b->nx, b->ny};
    t->box = common((area_box){cx - half, cy - half, cx + half + 1, cy + half + 1}, whole);
    t->value = malloc((size_t)rsp_max(1, area_of(t->box)) * sizeof(float));
    if (!t->value) return rsp_fail(RSP_NO_MEMORY, "template of a peak");
    rsp_move_psf(psf, x - (double)cx, y - (double)cy);
    for (int64_t j = t->box.y0; j < t->box.y1; j++)
        for (int64_t i = t->box.x0; i < t->box.x1; i++) {
            const float v = psf->value[(j - cy + half) * psf->pitch + i - cx + half];
            const float kept = b->owner[j * b->nx + i] >= 0 ? fmaxf(v, 0.0f) : 0.0f;
            *pixel_of(t, i, j) = kept;
            t->power += (double)kept * kept;
            t->flux += (double)kept * b->image[j * b->nx + i]; /* the product with the image, until solved */
        }
    return RSP_OK;
}

static double overlap(const template *a, const template *c) {
    const area_box box = common(a->box, c->box);
    double sum = 0.0;
    for (int64_t y = box.y0; y < box.y1; y++) {
        const float *restrict p = pixel_of(a, box.x0, y), *restrict q = pixel_of(c, box.x0, y);
        float row = 0.0f;
#pragma omp simd reduction(+ : row)
        for (int64_t x = 0; x < box.x1 - box.x0; x++) row += p[x] * q[x];
        sum += row;
    }
    return sum;
}

typedef struct {
    int32_t a, c;
    double product;
} pair;

/* Fluxes >= 0 of all peaks as point sources, by Gauss-Seidel on the normal equations. */
static rsp_status fit_points(blend *b) {
    int64_t n = 0, room = 16 * b->n;
    rsp_status status = RSP_OK;
    double *flux = calloc((size_t)b->n, sizeof *flux), *pull = calloc((size_t)b->n, sizeof *pull);
    pair *pairs = malloc((size_t)room * sizeof *pairs);
    RSP_NEED(flux && pull && pairs, RSP_NO_MEMORY);
    for (int64_t a = 0; a < b->n; a++)
        for (int64_t c = 0; c < b->n; c++) {
            if (a == c) continue;
            const area_box box = common(b->templates[a].box, b->templates[c].box);
            if (box.x0 >= box.x1 || box.y0 >= box.y1) continue;
            if (n == room) {
                pair *grown = realloc(pairs, (size_t)(2 * room) * sizeof *pairs);
                RSP_NEED(grown, RSP_NO_MEMORY);
                pairs = grown;
                room *= 2;
            }
            pairs[n++] = (pair){(int32_t)a, (int32_t)c, overlap(b->templates + a, b->templates + c)};
        }
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        double change = 0.0, largest = 0.0;
        int64_t i = 0;
        for (int64_t a = 0; a < b->n; a++) {
            double rest = b->templates[a].flux;
            for (; i < n && pairs[i].a == a; i++) rest -= pairs[i].product * flux[pairs[i].c];
            const double next = b->templates[a].power > 0.0 ? fmax(0.0, rest / b->templates[a].power) : 0.0;
            change = fmax(change, fabs(next - flux[a]));
            largest = fmax(largest, next);
            flux[a] = next;
        }
        if (change < 1e-4 * largest) break;
    }
    for (int64_t a = 0; a < b->n; a++) b->templates[a].flux = flux[a];
done:
    free(flux);
    free(pull);
    free(pairs);
    return status;
}

static void add_point(const blend *b, const template *t, float factor, float *plane) {
    for (int64_t y = t->box.y0; y < t->box.y1; y++)
        for (int64_t x = t->box.x0; x < t->box.x1; x++) plane[y * b->nx + x] += factor * *pixel_of(t, x, y);
}

/* A peak is a point source if it is faint, or if the squared misfit, less noise, of its own pixels near it is small
 * against the squared model. Uses b->sum for the model of all peaks. */
static void judge_points(blend *b, const float *snr, float faint, float misfit, double radius) {
    for (int64_t k = 0; k < b->n; k++) add_point(b, b->templates + k, (float)b->templates[k].flux, b->sum);
    for (int64_t k = 0; k < b->n; k++) {
        template *t = b->templates + k;
        const double x = b->xy[2 * k] - (double)b->x0, y = b->xy[2 * k + 1] - (double)b->y0;
        double residual = 0.0, model = 0.0;
        for (int64_t j = t->box.y0; j < t->box.y1; j++)
            for (int64_t i = t->box.x0; i < t->box.x1; i++) {
                const int64_t p = j * b->nx + i;
                if (b->owner[p] != k || hypot((double)i - x, (double)j - y) > radius) continue;
                const double r = (double)b->image[p] - (double)b->sum[p], m = t->flux * (double)*pixel_of(t, i, j);
                residual += r * r - (double)b->variance[p];
                model += m * m;
            }
        t->point = t->flux > 0.0 && (snr[k] < faint || residual < (double)(misfit * misfit) * model);
    }
}

/* Value of the plane if (x, y) is in the footprint, else zero. */
static float value_at(const blend *b, const float *plane, int64_t x, int64_t y) {
    if (x < 0 || y < 0 || x >= b->nx || y >= b->ny || b->owner[y * b->nx + x] < 0) return 0.0f;
    return plane[y * b->nx + x];
}

/* Symmetric and falling outwards: ring after ring, each pixel at most the one next further in. */
static rsp_status symmetric_template(blend *b, const float *plane, int64_t k) {
    template *t = b->templates + k;
    const double x = b->xy[2 * k] - (double)b->x0, y = b->xy[2 * k + 1] - (double)b->y0;
    const int64_t cx = lrint(x), cy = lrint(y), mirror_x = lrint(2.0 * x), mirror_y = lrint(2.0 * y);
    const int64_t reach = rsp_min(LARGEST, rsp_max(b->nx, b->ny)), side = 2 * reach + 1;
    float *work = calloc((size_t)(side * side), sizeof *work);
    if (!work) return rsp_fail(RSP_NO_MEMORY, "template of half side %lld", (long long)reach);
    int64_t r = 0;
    for (; r <= reach; r++) {
        float top = 0.0f;
        for (int64_t dy = -r; dy <= r; dy++)
            for (int64_t dx = -r; dx <= r; dx += llabs(dy) == r ? 1 : rsp_max(1, 2 * r)) {
                const float here = value_at(b, plane, cx + dx, cy + dy);
                const float there = value_at(b, plane, mirror_x - cx - dx, mirror_y - cy - dy);
                float v = fmaxf(0.0f, fminf(here, there));
                const int64_t in_x = dx - (2 * llabs(dx) >= llabs(dy) ? (dx > 0) - (dx < 0) : 0);
                const int64_t in_y = dy - (2 * llabs(dy) >= llabs(dx) ? (dy > 0) - (dy < 0) : 0);
                if (r == 0) v = fmaxf(v, fmaxf(0.0f, here));
                else v = fminf(v, work[(in_y + reach) * side + in_x + reach]);
                work[(dy + reach) * side + dx + reach] = v;
                top = fmaxf(top, v);
            }
        if (!(top > 0.0f)) break;
    }
    free(t->value);
    t->box = common((area_box){cx - r, cy - r, cx + r + 1, cy + r + 1}, (area_box){0, 0, b->nx, b->ny});
    if (r > reach) t->box = common((area_box){cx - reach, cy - reach, cx + reach + 1, cy + reach + 1}, (area_box){0, 0, b->nx, b->ny});
    t->value = malloc((size_t)rsp_max(1, area_of(t->box)) * sizeof(float));
    if (!t->value) {
        free(work);
        return rsp_fail(RSP_NO_MEMORY, "template of a peak");
    }
    for (int64_t j = t->box.y0; j < t->box.y1; j++)
        for (int64_t i = t->box.x0; i < t->box.x1; i++)
            *pixel_of(t, i, j) = b->owner[j * b->nx + i] >= 0 ? work[(j - cy + reach) * side + i - cx + reach] : 0.0f;
    free(work);
    return RSP_OK;
}

/* Templates in the image's unit, and their sum in b->sum. */
static rsp_status make_templates(blend *b, rsp_moved_psf *psf, const float *snr, float faint, float misfit) {
    const size_t area = (size_t)(b->nx * b->ny);
    rsp_status status = RSP_OK;
    for (int64_t k = 0; k < b->n && status == RSP_OK; k++) status = place_psf(b, psf, k);
    if (status == RSP_OK) status = fit_points(b);
    if (status != RSP_OK) return status;
    double peak = 0.0;
    for (int64_t i = 0; i < psf->side * psf->pitch; i++) peak = fmax(peak, (double)psf->value[i]);
    judge_points(b, snr, faint, misfit, 1.4 * sqrt(1.0 / (M_PI * peak)));
    memcpy(b->sum, b->image, area * sizeof(float));
    for (int64_t k = 0; k < b->n; k++)
        if (b->templates[k].point) add_point(b, b->templates + k, -(float)b->templates[k].flux, b->sum);
    for (int64_t k = 0; k < b->n; k++) {
        template *t = b->templates + k;
        if (!t->point) status = symmetric_template(b, b->sum, k);
        else
            for (int64_t i = 0; i < area_of(t->box); i++) t->value[i] *= (float)t->flux;
        if (status != RSP_OK) return status;
    }
    memset(b->sum, 0, area * sizeof(float));
    for (int64_t k = 0; k < b->n; k++) add_point(b, b->templates + k, 1.0f, b->sum);
    return RSP_OK;
}

/* The boxes of the children: the template, and the pixels that are the peak's where no template reaches. */
static void child_boxes(const blend *b, area_box *boxes) {
    for (int64_t k = 0; k < b->n; k++) boxes[k] = b->templates[k].box;
    for (int64_t y = 0; y < b->ny; y++)
        for (int64_t x = 0; x < b->nx; x++) {
            const int32_t k = b->owner[y * b->nx + x];
            if (k < 0) continue;
            boxes[k].x0 = rsp_min(boxes[k].x0, x);
            boxes[k].y0 = rsp_min(boxes[k].y0, y);
            boxes[k].x1 = rsp_max(boxes[k].x1, x + 1);
            boxes[k].y1 = rsp_max(boxes[k].y1, y + 1);
        }
}

/* Child k: the image times the template's share; where templates are far below the noise, the owner has all. */
static void share_out(const blend *b, int64_t k, area_box box, float *out) {
    const template *t = b->templates + k;
    for (int64_t y = box.y0; y < box.y1; y++)
        for (int64_t x = box.x0; x < box.x1; x++, out++) {
            const int64_t p = y * b->nx + x;
            *out = 0.0f;
            if (b->owner[p] < 0) continue;
            if (!(b->sum[p] > 0.02f * sqrtf(b->variance[p]))) *out = b->owner[p] == k ? b->image[p] : 0.0f;
            else if (x >= t->box.x0 && x < t->box.x1 && y >= t->box.y0 && y < t->box.y1)
                *out = b->image[p] * (*pixel_of(t, x, y) / b->sum[p]);
        }
}

RSP_API rsp_status rsp_deblend(const rsp_pixels *pixels, const rsp_footprints *found, int64_t psf_side,
                               const float *restrict psfs, int64_t max_peaks, int64_t max_area, float faint, float misfit,
                               int64_t capacity, int32_t *restrict out_boxes, int64_t *restrict out_offsets,
                               float *restrict out_values, uint8_t *restrict out_flags, int64_t *restrict out_n) {
    RSP_CHECK(pixels->ny > 0 && pixels->nx > 0 && pixels->labels && found->n >= 0, RSP_BAD_SHAPE);
    RSP_CHECK(psf_side % 2 == 1 && psf_side >= 3 && psf_side <= RSP_MAX_PSF, RSP_BAD_SHAPE);
    RSP_CHECK(capacity >= 0 && misfit >= 0.0f, RSP_BAD_ARGUMENT);
    rsp_status status = RSP_OK;
    int64_t used = 0, n_blends = 0;
    blend b = {0};
    area_box *boxes = NULL;
    rsp_moved_psf *psf = malloc(sizeof *psf);
    RSP_NEED(psf, RSP_NO_MEMORY);
    for (int64_t f = 0; f < found->n; f++) {
        const int64_t first = found->starts[f], n = found->starts[f + 1] - first;
        for (int64_t k = first; k < first + n; k++) {
            memset(out_boxes + 4 * k, 0, 4 * sizeof *out_boxes);
            out_offsets[k] = -1;
            out_flags[k] = 0;
        }
        if (n < 2) continue;
        const float *stamp = psfs + n_blends++ * psf_side * psf_side;
        if (n > max_peaks || found->areas[f] > max_area || !isfinite(stamp[psf_side * psf_side / 2])) {
            memset(out_flags + first, RSP_LEFT_BLENDED, (size_t)n);
            continue;
        }
        rsp_set_psf(psf, stamp, psf_side);
        status = open_blend(&b, pixels, found, f);
        if (status == RSP_OK) status = make_templates(&b, psf, found->snr + first, faint, misfit);
        if (status != RSP_OK) goto done;
        area_box *grown = realloc(boxes, (size_t)n * sizeof *boxes);
        RSP_NEED(grown, RSP_NO_MEMORY);
        boxes = grown;
        child_boxes(&b, boxes);
        for (int64_t k = 0; k < n; k++) {
            int32_t *box = out_boxes + 4 * (first + k);
            box[0] = (int32_t)(boxes[k].x0 + b.x0);
            box[1] = (int32_t)(boxes[k].y0 + b.y0);
            box[2] = (int32_t)(boxes[k].x1 + b.x0);
            box[3] = (int32_t)(boxes[k].y1 + b.y0);
            out_offsets[first + k] = used;
            out_flags[first + k] = b.templates[k].point ? RSP_SHARED_AS_POINT : 0;
            if (used + area_of(boxes[k]) <= capacity) share_out(&b, k, boxes[k], out_values + used);
            used += area_of(boxes[k]);
        }
        close_blend(&b);
    }
    *out_n = used;
    if (used > capacity) status = rsp_fail(RSP_FULL, "%lld pixels, room for %lld", (long long)used, (long long)capacity);
done:
    close_blend(&b);
    free(boxes);
    free(psf);
    return status;
}
