/* saturation.c: pixels around saturated ones, bleed trails along the columns. Bound by one reading of the mask; the rest costs as
 * much as there are pixels to grow from. */
#include "internal.h"

enum { BLOCK = 256 };

RSP_SIMD static uint32_t any_bits(int64_t n, const uint32_t *restrict mask) {
    uint32_t found = 0;
    for (int64_t i = 0; i < n; i++) found |= mask[i];
    return found;
}

RSP_API rsp_status rsp_saturation_grow(int64_t ny, int64_t nx, uint32_t from_bits, int64_t radius, uint32_t set_bits,
                                       uint32_t *restrict mask, int64_t *restrict out_n) {
    RSP_CHECK(ny > 0 && nx > 0, RSP_BAD_SHAPE);
    RSP_CHECK(radius >= 0, RSP_BAD_ARGUMENT);
    rsp_status status = RSP_OK;
    int64_t *list = NULL, n = 0, capacity = 0;
    *out_n = 0;
    for (int64_t first = 0; first < ny * nx; first += BLOCK) {
        const int64_t count = rsp_min(BLOCK, ny * nx - first);
        if (!(any_bits(count, mask + first) & from_bits)) continue;
        if (n + count > capacity) {
            capacity = 2 * capacity + 16 * BLOCK;
            int64_t *grown = realloc(list, (size_t)capacity * sizeof *grown);
            RSP_NEED(grown != NULL, RSP_NO_MEMORY);
            list = grown;
        }
        for (int64_t i = first; i < first + count; i++)
            if (mask[i] & from_bits) list[n++] = i;
    }
    for (int64_t k = 0; k < n; k++) {
        const int64_t y = list[k] / nx, x = list[k] % nx;
        for (int64_t v = rsp_max(0, y - radius); v <= rsp_min(ny - 1, y + radius); v++)
            for (int64_t u = rsp_max(0, x - radius); u <= rsp_min(nx - 1, x + radius); u++) {
                uint32_t *to = &mask[v * nx + u];
                if ((v - y) * (v - y) + (u - x) * (u - x) > radius * (radius + 1)) continue; /* a disc */
                *out_n += (*to & set_bits) != set_bits;
                *to |= set_bits;
            }
    }
done:
    free(list);
    return status;
}

/* Set bits in a box that is cut at the image's edges. */
static int64_t set_box(int64_t ny, int64_t nx, int64_t x0, int64_t x1, int64_t y0, int64_t y1, uint32_t bits, uint32_t *mask) {
    int64_t n = 0;
    for (int64_t y = rsp_max(0, y0); y < rsp_min(ny, y1); y++)
        for (int64_t x = rsp_max(0, x0); x < rsp_min(nx, x1); x++) {
            n += (mask[y * nx + x] & bits) != bits;
            mask[y * nx + x] |= bits;
        }
    return n;
}

RSP_API rsp_status rsp_saturation_trails(int64_t ny, int64_t nx, const rsp_trail_options *options, uint32_t *restrict mask,
                                         int64_t *restrict out_n) {
    const rsp_trail_options *o = options;
    RSP_CHECK(ny > 0 && nx > 0, RSP_BAD_SHAPE);
    RSP_CHECK(o->x0 >= 0 && o->y0 >= 0 && o->x0 < o->x1 && o->y0 < o->y1 && o->x1 <= nx && o->y1 <= ny, RSP_BAD_SHAPE);
    RSP_CHECK(o->length > 0 && o->beyond >= 0 && o->beside >= 0 && o->edge_rows >= 0 && o->edge_reach >= 0, RSP_BAD_ARGUMENT);
    rsp_status status = RSP_OK;
    int64_t *run = calloc((size_t)(o->x1 - o->x0), sizeof *run);  /* saturated pixels of the column that end at this row */
    int64_t (*trail)[3] = NULL, n = 0, capacity = 0;              /* x, y0, y1 */
    RSP_NEED(run != NULL, RSP_NO_MEMORY);
    *out_n = 0;
    for (int64_t y = o->y0; y <= o->y1; y++)
        for (int64_t x = o->x0; x < o->x1; x++) {
            int64_t *length = &run[x - o->x0];
            if (y < o->y1 && (mask[y * nx + x] & o->saturated_bits)) {
                ++*length;
                continue;
            }
            if (*length >= o->length) {
                if (n == capacity) {
                    capacity = 2 * capacity + 64;
                    void *grown = realloc(trail, (size_t)capacity * sizeof *trail);
                    RSP_NEED(grown != NULL, RSP_NO_MEMORY);
                    trail = grown;
                }
                trail[n][0] = x, trail[n][1] = y - *length, trail[n][2] = y;
                n++;
            }
            *length = 0;
        }
    for (int64_t k = 0; k < n; k++) {
        const int64_t x = trail[k][0], y0 = trail[k][1], y1 = trail[k][2];
        *out_n += set_box(ny, nx, x - o->beside, x + o->beside + 1, rsp_max(o->y0, y0 - o->beyond), rsp_min(o->y1, y1 + o->beyond),
                          o->set_bits, mask);
        const int at_edge = o->read_at_top ? y1 == o->y1 : y0 == o->y0;
        if (!at_edge || !o->edge_rows) continue;
        const int64_t first = o->read_at_top ? o->y1 - o->edge_rows : o->y0;
        *out_n += set_box(ny, nx, rsp_max(o->x0, x - o->edge_reach), rsp_min(o->x1, x + o->edge_reach + 1), rsp_max(o->y0, first),
                          rsp_min(o->y1, first + o->edge_rows), o->set_bits, mask);
    }
done:
    free(run);
    free(trail);
    return status;
}
