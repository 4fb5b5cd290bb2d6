/* detect.c: footprints (8-connected pixels above a level) and their peaks.
 *
 * Footprints by runs and union-find. Peaks by topological persistence (Edelsbrunner, Letscher & Zomorodian 2002): every
 * local maximum owns the pixels that climb to it; where two such basins touch lies their saddle; a maximum counts only
 * if it stands out from the saddle towards a higher one. This is done on the filtered image, not on its S/N. Touches the few pixels inside footprints; bound by memory. */
#include "internal.h"

enum { FLAT_REACH = 40 }; /* a flat top is looked at this far, pixel */

typedef struct {
    int64_t y, x0, x1; /* half open */
    int64_t parent;
} run;

static int64_t find_root(run *runs, int64_t i) {
    while (runs[i].parent != i) {
        runs[i].parent = runs[runs[i].parent].parent;
        i = runs[i].parent;
    }
    return i;
}

/* The earlier run becomes the root, so that footprints are numbered in the order of their first pixel. */
static void join_runs(run *runs, int64_t a, int64_t b) {
    a = find_root(runs, a);
    b = find_root(runs, b);
    if (a < b) runs[b].parent = a;
    else runs[a].parent = b;
}

/* Append the runs of one row and join them with those of the row before, [previous, row_start). */
static rsp_status add_row(const float *restrict row, int64_t nx, int64_t y, float low, int64_t previous, run **runs,
                          int64_t *n, int64_t *room) {
    const int64_t row_start = *n;
    int64_t above = previous;
    for (int64_t x = 0; x < nx; x++) {
        if (!(row[x] > low)) continue;
        const int64_t x0 = x;
        while (x < nx && row[x] > low) x++;
        if (*n == *room) {
            run *grown = realloc(*runs, (size_t)(2 * *room) * sizeof **runs);
            if (!grown) return rsp_fail(RSP_NO_MEMORY, "%s: %lld runs", __func__, (long long)*n);
            *runs = grown;
            *room *= 2;
        }
        (*runs)[*n] = (run){y, x0, x, *n};
        while (above < row_start && (*runs)[above].x1 < x0) above++;
        for (int64_t k = above; k < row_start && (*runs)[k].x0 <= x; k++) join_runs(*runs, k, *n);
        (*n)++;
    }
    return RSP_OK;
}

static float highest(const float *restrict v, int64_t n) {
    float top = -INFINITY;
    for (int64_t i = 0; i < n; i++)
        if (v[i] > top) top = v[i];
    return top;
}

RSP_API rsp_status rsp_detect_footprints(int64_t ny, int64_t nx, const float *restrict snr, float low, float high,
                                         int64_t min_area, uint32_t detected, int64_t capacity,
                                         uint32_t *restrict inout_mask, int32_t *restrict out_labels,
                                         int32_t *restrict out_boxes, int64_t *restrict out_areas,
                                         int64_t *restrict out_n) {
    RSP_CHECK(ny > 0 && nx > 0, RSP_BAD_SHAPE);
    RSP_CHECK(low <= high && capacity >= 0, RSP_BAD_ARGUMENT);
    rsp_status status = RSP_OK;
    int64_t n = 0, room = 4096, previous = 0, *area = NULL, *number = NULL;
    float *top = NULL;
    run *runs = malloc((size_t)room * sizeof *runs);
    RSP_NEED(runs, RSP_NO_MEMORY);
    for (int64_t y = 0; y < ny; y++) {
        const int64_t row_start = n;
        status = add_row(snr + y * nx, nx, y, low, previous, &runs, &n, &room);
        if (status != RSP_OK) goto done;
        previous = row_start;
    }
    area = calloc((size_t)n + 1, sizeof *area);
    number = malloc(((size_t)n + 1) * sizeof *number);
    top = malloc(((size_t)n + 1) * sizeof *top);
    RSP_NEED(area && number && top, RSP_NO_MEMORY);
    for (int64_t i = 0; i < n; i++) top[i] = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        const int64_t root = find_root(runs, i);
        area[root] += runs[i].x1 - runs[i].x0;
        top[root] = fmaxf(top[root], highest(snr + runs[i].y * nx + runs[i].x0, runs[i].x1 - runs[i].x0));
    }
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++)
        number[i] = runs[i].parent == i && top[i] >= high && area[i] >= min_area ? kept++ : -1;
    *out_n = kept;
    if (kept > capacity) {
        status = rsp_fail(RSP_FULL, "%lld footprints, room for %lld", (long long)kept, (long long)capacity);
        goto done;
    }
    memset(out_labels, 0, (size_t)(ny * nx) * sizeof *out_labels);
    for (int64_t i = 0; i < ny * nx; i++) inout_mask[i] &= ~detected;
    for (int64_t k = 0; k < kept; k++) {
        int32_t *box = out_boxes + 4 * k;
        box[0] = box[1] = INT32_MAX;
        box[2] = box[3] = 0;
    }
    for (int64_t i = 0; i < n; i++) {
        const int64_t root = find_root(runs, i), k = number[root];
        if (k < 0) continue;
        int32_t *box = out_boxes + 4 * k;
        box[0] = (int32_t)rsp_min(box[0], runs[i].x0);
        box[1] = (int32_t)rsp_min(box[1], runs[i].y);
        box[2] = (int32_t)rsp_max(box[2], runs[i].x1);
        box[3] = (int32_t)rsp_max(box[3], runs[i].y + 1);
        out_areas[k] = area[root];
        for (int64_t x = runs[i].x0; x < runs[i].x1; x++) {
            out_labels[runs[i].y * nx + x] = (int32_t)(k + 1);
            inout_mask[runs[i].y * nx + x] |= detected;
        }
    }
done:
    free(runs);
    free(area);
    free(number);
    free(top);
    return status;
}

/* ---- peaks ---- */

typedef struct {
    int32_t a, b; /* two maxima whose basins touch, a < b */
    float saddle;
} pass;

typedef struct {
    pass *slots;
    int64_t room, n; /* room is a power of two */
} pass_table;

typedef struct { /* the maxima of one footprint, and what became of them */
    int64_t *pixel;
    float *level, *snr;
    int32_t *chief; /* union-find: the highest maximum of the merged ones */
    int32_t *into;  /* itself if kept, else the maximum that took it over */
    int64_t n, room;
} maxima;

static void put_pass(pass_table *table, int32_t a, int32_t b, float saddle) {
    uint64_t h = ((uint64_t)(uint32_t)a << 32 | (uint32_t)b) * 0x9E3779B97F4A7C15ULL;
    for (h >>= 20;; h++) {
        pass *slot = table->slots + (h & (uint64_t)(table->room - 1));
        if (slot->b == 0) { /* b > a >= 0 in every used slot */
            *slot = (pass){a, b, saddle};
            table->n++;
            return;
        }
        if (slot->a == a && slot->b == b) {
            if (saddle > slot->saddle) slot->saddle = saddle;
            return;
        }
    }
}

static rsp_status add_pass(pass_table *table, int32_t a, int32_t b, float saddle) {
    if (2 * (table->n + 1) > table->room) {
        pass_table larger = {calloc((size_t)(2 * table->room), sizeof(pass)), 2 * table->room, 0};
        if (!larger.slots) return rsp_fail(RSP_NO_MEMORY, "%s: %lld saddles", __func__, (long long)table->n);
        for (int64_t i = 0; i < table->room; i++)
            if (table->slots[i].b) put_pass(&larger, table->slots[i].a, table->slots[i].b, table->slots[i].saddle);
        free(table->slots);
        *table = larger;
    }
    put_pass(table, a < b ? a : b, a < b ? b : a, saddle);
    return RSP_OK;
}

/* The step (3 (dy + 1) + dx + 1; 4: none) by which a pixel climbs: to the highest of the 3x3 about it inside its footprint,
 * of equals to the first. (The footprint is cut in S/N, so a pixel outside it can be higher.) */
static int32_t climb(const float *restrict level, const int32_t *restrict labels, int64_t ny, int64_t nx, int64_t y, int64_t x) {
    const int64_t here = y * nx + x;
    const int32_t label = labels[here];
    const int inside = y > 0 && y + 1 < ny && x > 0 && x + 1 < nx;
    float top = level[here];
    int32_t best = 4;
    for (int32_t step = 0; step < 9; step++) { /* equals: earlier pixels win over this one, not over each other */
        const int64_t dy = step / 3 - 1, dx = step % 3 - 1, p = here + dy * nx + dx;
        if (!inside && (y + dy < 0 || y + dy >= ny || x + dx < 0 || x + dx >= nx)) continue;
        const int higher = (level[p] > top) | ((level[p] == top) & (best == 4) & (step < 4));
        if (higher & (labels[p] == label)) top = level[p], best = step;
    }
    return best;
}

static rsp_status add_maximum(maxima *all, int64_t pixel, float level, float snr) {
    if (all->n == all->room) {
        const int64_t room = 2 * all->room + 64;
        int64_t *pixels = realloc(all->pixel, (size_t)room * sizeof *pixels);
        if (pixels) all->pixel = pixels;
        float *levels = realloc(all->level, (size_t)room * sizeof *levels);
        if (levels) all->level = levels;
        float *snrs = realloc(all->snr, (size_t)room * sizeof *snrs);
        if (snrs) all->snr = snrs;
        int32_t *chief = realloc(all->chief, (size_t)room * sizeof *chief);
        if (chief) all->chief = chief;
        int32_t *into = realloc(all->into, (size_t)room * sizeof *into);
        if (into) all->into = into;
        if (!pixels || !levels || !snrs || !chief || !into)
            return rsp_fail(RSP_NO_MEMORY, "%s: %lld maxima", __func__, (long long)all->n);
        all->room = room;
    }
    all->pixel[all->n] = pixel;
    all->level[all->n] = level;
    all->snr[all->n] = snr;
    all->chief[all->n] = all->into[all->n] = (int32_t)all->n;
    all->n++;
    return RSP_OK;
}

/* The highest of the 3x3 pixels about a pixel. */
static float highest_near(const float *restrict plane, int64_t ny, int64_t nx, int64_t y, int64_t x) {
    float top = plane[y * nx + x];
    for (int64_t j = rsp_max(0, y - 1); j <= rsp_min(ny - 1, y + 1); j++)
        for (int64_t i = rsp_max(0, x - 1); i <= rsp_min(nx - 1, x + 1); i++)
            if (plane[j * nx + i] > top) top = plane[j * nx + i];
    return top;
}

/* Number the maxima of a footprint; owner[] of its pixels becomes the number + 1 of the maximum they climb to. */
static rsp_status find_basins(int64_t ny, int64_t nx, const float *level, const float *snr, const int32_t *labels,
                              int32_t label, const int32_t *box, int32_t *owner, maxima *all) {
    all->n = 0;
    for (int64_t y = box[1]; y < box[3]; y++)
        for (int64_t x = box[0]; x < box[2]; x++) {
            const int64_t p = y * nx + x;
            if (labels[p] != label) continue;
            const int32_t step = climb(level, labels, ny, nx, y, x);
            if (step == 4) {
                const rsp_status status = add_maximum(all, p, level[p], highest_near(snr, ny, nx, y, x));
                if (status != RSP_OK) return status;
                owner[p] = (int32_t)all->n;
            } else owner[p] = -step - 1; /* until resolved */
        }
    for (int64_t y = box[1]; y < box[3]; y++)
        for (int64_t x = box[0]; x < box[2]; x++) {
            int64_t p = y * nx + x;
            if (labels[p] != label || owner[p] > 0) continue;
            while (owner[p] < 0) {
                const int32_t step = -owner[p] - 1;
                p += (step / 3 - 1) * nx + step % 3 - 1;
            }
            const int32_t top = owner[p];
            for (p = y * nx + x; owner[p] < 0;) {
                const int32_t step = -owner[p] - 1;
                owner[p] = top;
                p += (step / 3 - 1) * nx + step % 3 - 1;
            }
        }
    return RSP_OK;
}

static rsp_status find_passes(int64_t ny, int64_t nx, const float *level, const int32_t *labels, int32_t label,
                              const int32_t *box, const int32_t *owner, pass_table *table) {
    static const int64_t dy[4] = {0, 1, 1, 1}, dx[4] = {1, -1, 0, 1};
    memset(table->slots, 0, (size_t)table->room * sizeof *table->slots);
    table->n = 0;
    for (int64_t y = box[1]; y < box[3]; y++)
        for (int64_t x = box[0]; x < box[2]; x++) {
            const int64_t p = y * nx + x;
            if (labels[p] != label) continue;
            for (int k = 0; k < 4; k++) {
                const int64_t j = y + dy[k], i = x + dx[k];
                if (j >= ny || i < 0 || i >= nx) continue;
                const int64_t q = j * nx + i;
                if (labels[q] != label || owner[q] == owner[p]) continue;
                const rsp_status status = add_pass(table, owner[p] - 1, owner[q] - 1, fminf(level[p], level[q]));
                if (status != RSP_OK) return status;
            }
        }
    return RSP_OK;
}

static int higher_pass(const void *left, const void *right) {
    const pass *a = left, *b = right;
    if (a->saddle != b->saddle) return a->saddle > b->saddle ? -1 : 1;
    if (a->a != b->a) return a->a < b->a ? -1 : 1;
    return (a->b > b->b) - (a->b < b->b);
}

static int32_t chief_of(maxima *all, int32_t i) {
    while (all->chief[i] != i) {
        all->chief[i] = all->chief[all->chief[i]];
        i = all->chief[i];
    }
    return i;
}

/* From the highest saddle down: the lower of two maxima that meet stays only if it stands out from the saddle. */
static void merge_maxima(maxima *all, pass_table *table, float threshold, float min_drop, float contrast) {
    int64_t n = 0;
    for (int64_t i = 0; i < table->room; i++)
        if (table->slots[i].b) table->slots[n++] = table->slots[i];
    qsort(table->slots, (size_t)n, sizeof *table->slots, higher_pass);
    for (int64_t i = 0; i < n; i++) {
        int32_t a = chief_of(all, table->slots[i].a), b = chief_of(all, table->slots[i].b);
        if (a == b) continue;
        if (all->level[b] > all->level[a] || (all->level[b] == all->level[a] && b < a)) {
            const int32_t swap = a;
            a = b;
            b = swap;
        }
        const float saddle = table->slots[i].saddle, drop = all->level[b] - saddle;
        if (!(all->snr[b] >= threshold && drop * all->snr[b] >= min_drop * all->level[b] && drop >= contrast * saddle))
            all->into[b] = a;
        all->chief[b] = a;
    }
}

/* The shift of a parabola's top through three values, at most half a pixel. */
static double parabola_top(float left, float middle, float right) {
    const double bend = (double)left - 2.0 * (double)middle + (double)right;
    if (!(bend < 0.0)) return 0.0;
    const double shift = 0.5 * ((double)left - (double)right) / bend;
    return shift > 0.5 ? 0.5 : shift < -0.5 ? -0.5 : shift;
}

/* Where a maximum is: by parabolas; where the top is flat, the mean of what is nearly as high about it. */
static void locate(int64_t ny, int64_t nx, const float *level, const int32_t *owner, int32_t own, int64_t pixel,
                   double *restrict xy) {
    const int64_t y = pixel / nx, x = pixel % nx;
    const float top = level[pixel];
    int flat = 0;
    for (int64_t j = rsp_max(0, y - 1); j <= rsp_min(ny - 1, y + 1); j++)
        for (int64_t i = rsp_max(0, x - 1); i <= rsp_min(nx - 1, x + 1); i++) flat += level[j * nx + i] >= 0.999f * top;
    xy[0] = (double)x + (x > 0 && x < nx - 1 ? parabola_top(level[pixel - 1], top, level[pixel + 1]) : 0.0);
    xy[1] = (double)y + (y > 0 && y < ny - 1 ? parabola_top(level[pixel - nx], top, level[pixel + nx]) : 0.0);
    if (flat < 3) return;
    double sum = 0.0, sum_x = 0.0, sum_y = 0.0;
    for (int64_t j = rsp_max(0, y - FLAT_REACH); j <= rsp_min(ny - 1, y + FLAT_REACH); j++)
        for (int64_t i = rsp_max(0, x - FLAT_REACH); i <= rsp_min(nx - 1, x + FLAT_REACH); i++) {
            if (owner[j * nx + i] != own || level[j * nx + i] < 0.99f * top) continue;
            sum += 1.0;
            sum_x += (double)i;
            sum_y += (double)j;
        }
    xy[0] = sum_x / sum;
    xy[1] = sum_y / sum;
}

typedef struct {
    float level;
    int32_t index;
} ranked;

static int higher_peak(const void *left, const void *right) {
    const ranked *a = left, *b = right;
    if (a->level != b->level) return a->level > b->level ? -1 : 1;
    return (a->index > b->index) - (a->index < b->index);
}

/* Pixels of dropped maxima go to those that took them over; owner[] becomes the peak's number + 1. */
static void give_pixels(int64_t nx, const int32_t *labels, int32_t label, const int32_t *box, const maxima *all,
                        const int32_t *rank, int32_t *owner) {
    for (int64_t y = box[1]; y < box[3]; y++)
        for (int64_t x = box[0]; x < box[2]; x++) {
            const int64_t p = y * nx + x;
            if (labels[p] != label) continue;
            int32_t m = owner[p] - 1;
            while (all->into[m] != m) m = all->into[m];
            owner[p] = rank[m];
        }
}

RSP_API rsp_status rsp_detect_peaks(int64_t ny, int64_t nx, const float *restrict level, const float *restrict snr,
                                    const int32_t *restrict labels, int64_t n_footprints, const int32_t *restrict boxes,
                                    float threshold, float min_drop, float contrast, int64_t capacity, int32_t *restrict out_owners,
                                    double *restrict out_xy, float *restrict out_snr, int64_t *restrict out_starts,
                                    int64_t *restrict out_n) {
    RSP_CHECK(ny > 0 && nx > 0 && n_footprints >= 0, RSP_BAD_SHAPE);
    RSP_CHECK(capacity >= 0 && min_drop >= 0.0f && contrast >= 0.0f, RSP_BAD_ARGUMENT);
    rsp_status status = RSP_OK;
    maxima all = {0};
    pass_table table = {calloc(256, sizeof(pass)), 256, 0};
    ranked *order = NULL;
    int32_t *rank = NULL;
    int64_t n = 0;
    RSP_NEED(table.slots, RSP_NO_MEMORY);
    memset(out_owners, 0, (size_t)(ny * nx) * sizeof *out_owners);
    for (int64_t f = 0; f < n_footprints; f++) {
        const int32_t *box = boxes + 4 * f, label = (int32_t)(f + 1);
        out_starts[f] = n;
        status = find_basins(ny, nx, level, snr, labels, label, box, out_owners, &all);
        if (status != RSP_OK) goto done;
        if (all.n > 1) {
            status = find_passes(ny, nx, level, labels, label, box, out_owners, &table);
            if (status != RSP_OK) goto done;
            merge_maxima(&all, &table, threshold, min_drop, contrast);
        }
        ranked *order_now = realloc(order, (size_t)all.n * sizeof *order);
        if (order_now) order = order_now;
        int32_t *rank_now = realloc(rank, (size_t)all.n * sizeof *rank);
        if (rank_now) rank = rank_now;
        RSP_NEED(order_now && rank_now, RSP_NO_MEMORY);
        int64_t kept = 0;
        for (int64_t i = 0; i < all.n; i++)
            if (all.into[i] == i) order[kept++] = (ranked){all.level[i], (int32_t)i};
        qsort(order, (size_t)kept, sizeof *order, higher_peak);
        for (int64_t i = 0; i < kept; i++) rank[order[i].index] = (int32_t)(n + i + 1);
        give_pixels(nx, labels, label, box, &all, rank, out_owners);
        for (int64_t i = 0; i < kept && n + i < capacity; i++) {
            out_snr[n + i] = all.snr[order[i].index];
            locate(ny, nx, level, out_owners, (int32_t)(n + i + 1), all.pixel[order[i].index], out_xy + 2 * (n + i));
        }
        n += kept;
    }
    out_starts[n_footprints] = n;
    *out_n = n;
    if (n > capacity) status = rsp_fail(RSP_FULL, "%lld peaks, room for %lld", (long long)n, (long long)capacity);
done:
    free(all.pixel);
    free(all.level);
    free(all.snr);
    free(all.chief);
    free(all.into);
    free(table.slots);
    free(order);
    free(rank);
    return status;
}
