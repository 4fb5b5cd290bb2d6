/* cosmic.c: cosmic rays by a directional Laplacian which the PSF bounds. One vectorised sweep over the image finds
 * the few pixels that may be hit (bound by arithmetic: six directions, some 60 operations per pixel); the rest looks at
 * those pixels and their neighbours only.
 *
 * With p a pixel less its sky and m the mean of two opposite neighbours at distance d, a Gaussian PSF of width s gives
 * m / p = exp(-d^2 / 2 s^2) cosh(d x / s^2) at a distance x from its centre along that direction: never less than
 * r = exp(-d^2 / 2 s^2). The bound m >= r p is linear, so it holds for every sum of PSFs: for stars of any brightness,
 * blends and galaxies. Where p - m / r is positive beyond the noise, the light did not come through the telescope.
 * After van Dokkum (2001, PASP 113, 1420): his Laplacian is the case r = 1; the bound replaces his fine structure. */
#include "internal.h"

enum { DIRECTIONS = 6, NEAREST = 4, DEAD = 6 /* sigma below the sky */, FIRST_LIST = 1024 };

/* Right, down, the two diagonals, and two pixels right and down, for tracks that are two pixels wide: one neighbour of each
 * opposite pair. */
static const int STEP_X[DIRECTIONS] = {1, 0, 1, 1, 2, 0}, STEP_Y[DIRECTIONS] = {0, 1, 1, -1, 0, 2};

typedef struct {
    int64_t ny, nx;
    const rsp_cosmic_options *options;
    const float *image, *variance, *sky;
    uint32_t *mask;
    double slope[DIRECTIONS]; /* 1 / r of each direction */
} cosmic_state;

typedef struct {
    int64_t *index;
    int64_t n, capacity;
} pixel_list;

static int append(pixel_list *list, int64_t index) {
    if (list->n == list->capacity) {
        const int64_t capacity = rsp_max(FIRST_LIST, 2 * list->capacity);
        int64_t *grown = realloc(list->index, (size_t)capacity * sizeof *grown);
        if (!grown) return 0;
        list->index = grown;
        list->capacity = capacity;
    }
    list->index[list->n++] = index;
    return 1;
}

/* Mark in out_maybe what passes the tests of is_hit() with all pairs as they are; rows y-2 to y+2 exist. A little more
 * passes here than there, for the last bits of float arithmetic depend on the machine. */
RSP_SIMD static void sweep_row(const cosmic_state *state, int64_t y, uint8_t *restrict out_maybe) {
    const int64_t nx = state->nx;
    const float *image = state->image + y * nx, *variance = state->variance + y * nx, *sky = state->sky + y * nx;
    const float slack = 0.999f;
    const float peak = slack * (float)(state->options->peak * state->options->peak);
    const float edge = slack * (float)(state->options->edge * state->options->edge);
    const float relative = (float)(state->options->relative * state->options->relative);
    const float near = (float)state->options->contrast / slack, far = slack * near * near;
    const float axis = (float)state->slope[0], diagonal = (float)state->slope[2], two = (float)state->slope[4];
#pragma omp simd
    for (int64_t x = 2; x < nx - 2; x++) {
        const float s = sky[x], p = image[x] - s, own = variance[x] + relative * p * p;
        int hit = 0;
#define TEST(slope, contrast, step) do {                                                                            \
            const float m = 0.5f * (image[x + (step)] + image[x - (step)]) - s, excess = p - (slope) * m;           \
            const float noise = own + 0.25f * (slope) * (slope) * (variance[x + (step)] + variance[x - (step)]);    \
            hit |= (excess > 0) & (excess * excess > edge * noise) & ((slope) * m < contrast * p);                  \
        } while (0)
        TEST(axis, near, 1);
        TEST(axis, near, nx);
        TEST(diagonal, near, nx + 1);
        TEST(diagonal, near, nx - 1);
        TEST(two, far, 2);
        TEST(two, far, 2 * nx);
#undef TEST
        out_maybe[x] = (uint8_t)(hit & (p > 0) & (p * p > peak * variance[x]));
    }
}

/* Usable: inside the image, none of the bits, finite. */
static inline int usable(const cosmic_state *state, int64_t x, int64_t y, uint32_t bits) {
    if (x < 0 || y < 0 || x >= state->nx || y >= state->ny) return 0;
    const int64_t i = y * state->nx + x;
    return !(state->mask[i] & bits) && isfinite(state->image[i]) && isfinite(state->variance[i]);
}

static inline int exceeds(double value, double sigmas, double variance) {
    return value > 0 && value * value > sigmas * sigmas * variance;
}

/* Far below the sky: a dead pixel that no mask knew, which would make its neighbours look steep. */
static inline int is_dead(const cosmic_state *state, int64_t i) {
    return exceeds((double)state->sky[i] - state->image[i], DEAD, state->variance[i]);
}

/* Excess over the sky and its variance of a neighbour; 0 where there is none. One that is hit counts as the most that
 * light can be there: the least m / r among directions with two pixels that are not hit; as it is where there is none.
 * (A mean of its neighbours would do on the sky, but beside a star it is too low: a hit would eat the star.) */
static int neighbour(const cosmic_state *state, int64_t x, int64_t y, double *out_value, double *out_variance) {
    const uint32_t skip = state->options->skip_bits, hit = state->options->hit_bit;
    if (!usable(state, x, y, skip)) return 0;
    const int64_t nx = state->nx, here = y * nx + x;
    *out_value = (double)state->image[here] - state->sky[here];
    *out_variance = state->variance[here];
    if (!(state->mask[here] & hit)) return !is_dead(state, here);
    double least = INFINITY;
    for (int k = 0; k < NEAREST; k++) {
        const int64_t u = STEP_X[k], v = STEP_Y[k], a = here + v * nx + u, b = here - v * nx - u;
        if (!usable(state, x + u, y + v, skip | hit) || !usable(state, x - u, y - v, skip | hit)) continue;
        if (is_dead(state, a) || is_dead(state, b)) continue;
        const double half = 0.5 * state->slope[k];
        const double excess_a = (double)state->image[a] - state->sky[a];
        const double bound = half * (excess_a + ((double)state->image[b] - state->sky[b]));
        if (bound >= least) continue;
        *out_value = least = bound;
        *out_variance = half * half * ((double)state->variance[a] + state->variance[b]);
    }
    return 1;
}

/* The tests: p stands `peak` sigma above the sky; in some direction it stands `edge` sigma above what the PSF allows,
 * and that is less than `contrast` of p, for real PSFs have finer structure than a Gaussian. Edges of saturated stars and
 * bleed trails are no optics: pixels within `margin` of saturated ones are never hit. */
static int is_hit(const cosmic_state *state, int64_t x, int64_t y, double peak, double edge, double contrast) {
    const rsp_cosmic_options *options = state->options;
    if (!usable(state, x, y, options->skip_bits | options->hit_bit)) return 0;
    const int64_t i = y * state->nx + x;
    const double p = (double)state->image[i] - state->sky[i], variance = state->variance[i];
    if (!exceeds(p, peak, variance)) return 0;
    int found = 0;
    for (int k = 0; k < DIRECTIONS && !found; k++) {
        double a, b, variance_a, variance_b;
        if (!neighbour(state, x + STEP_X[k], y + STEP_Y[k], &a, &variance_a)) continue;
        if (!neighbour(state, x - STEP_X[k], y - STEP_Y[k], &b, &variance_b)) continue;
        const double slope = state->slope[k], bound = 0.5 * slope * (a + b), excess = p - bound;
        const double noise = variance + options->relative * options->relative * p * p
                             + 0.25 * slope * slope * (variance_a + variance_b);
        found = exceeds(excess, edge, noise) && bound < (k < NEAREST ? contrast : contrast * contrast) * p;
    }
    if (!found) return 0;
    for (int64_t v = rsp_max(0, y - options->margin); v <= rsp_min(state->ny - 1, y + options->margin); v++)
        for (int64_t u = rsp_max(0, x - options->margin); u <= rsp_min(state->nx - 1, x + options->margin); u++)
            if (state->mask[v * state->nx + u] & options->saturated_bit) return 0;
    return 1;
}

/* All pixels that pass by themselves, in order. The border, where the sweep has no neighbours, is tested one by one. */
static int seeds(const cosmic_state *state, uint8_t *maybe, pixel_list *list) {
    const rsp_cosmic_options *options = state->options;
    const int64_t ny = state->ny, nx = state->nx;
    for (int64_t y = 0; y < ny; y++) {
        const int inner = y > 1 && y < ny - 2 && nx > 4;
        memset(maybe, !inner, (size_t)nx);
        maybe[0] = maybe[nx - 1] = maybe[rsp_min(1, nx - 1)] = maybe[rsp_max(0, nx - 2)] = 1;
        if (inner) sweep_row(state, y, maybe);
        for (int64_t x = 0; x < nx; x++) {
            uint64_t eight;
            while (x + 8 <= nx && (memcpy(&eight, maybe + x, 8), eight == 0)) x += 8;
            if (x >= nx || !maybe[x]) continue;
            if (is_hit(state, x, y, options->peak, options->edge, options->contrast) && !append(list, y * nx + x)) return 0;
        }
    }
    return 1;
}

/* Set the hit bit of the list's pixels from `first` on, dropping those that have it already. */
static void mark(const cosmic_state *state, pixel_list *list, int64_t first) {
    int64_t n = first;
    for (int64_t k = first; k < list->n; k++) {
        uint32_t *mask = &state->mask[list->index[k]];
        if (*mask & state->options->hit_bit) continue;
        *mask |= state->options->hit_bit;
        list->index[n++] = list->index[k];
    }
    list->n = n;
}

/* The contrast for a neighbour (u, v) of a hit (x, y): light may be there too where it is brighter, as in a star that is hit. */
static double contrast_from(const cosmic_state *state, int64_t x, int64_t y, int64_t u, int64_t v) {
    const int64_t hit = y * state->nx + x;
    if (u < 0 || v < 0 || u >= state->nx || v >= state->ny) return state->options->contrast;
    const int64_t i = v * state->nx + u;
    const double its = (double)state->image[i] - state->sky[i];
    return its <= (double)state->image[hit] - state->sky[hit] ? state->options->grow_contrast : state->options->contrast;
}

/* Try the neighbours of the pixels [first, last) of the list; append what passes, and mark it once all are tried. */
static int grow(const cosmic_state *state, pixel_list *list, int64_t first, int64_t last) {
    const rsp_cosmic_options *options = state->options;
    for (int64_t k = first; k < last; k++) {
        const int64_t y = list->index[k] / state->nx, x = list->index[k] % state->nx;
        for (int64_t v = y - 1; v <= y + 1; v++)
            for (int64_t u = x - 1; u <= x + 1; u++)
                if (is_hit(state, u, v, options->grow_peak, options->grow_edge, contrast_from(state, x, y, u, v)) && !append(list, v * state->nx + u))
                    return 0;
    }
    mark(state, list, last);
    return 1;
}

RSP_API rsp_status rsp_cosmic(int64_t ny, int64_t nx, const rsp_cosmic_options *options, const float *restrict image,
                              const float *restrict variance, const float *restrict sky, uint32_t *restrict mask,
                              int64_t *restrict out_n_hit) {
    RSP_CHECK(ny > 0 && nx > 0, RSP_BAD_SHAPE);
    RSP_CHECK(options->peak > 0 && options->edge > 0, RSP_BAD_ARGUMENT);
    RSP_CHECK(options->grow_peak > 0 && options->grow_edge > 0, RSP_BAD_ARGUMENT);
    RSP_CHECK(options->sigma > 0 && options->relative >= 0 && options->contrast > 0 && options->grow_contrast > 0, RSP_BAD_ARGUMENT);
    RSP_CHECK(options->margin >= 0 && options->rounds >= 0 && options->hit_bit != 0, RSP_BAD_ARGUMENT);
    const double axis = exp(0.5 / (options->sigma * options->sigma)), diagonal = axis * axis, two = diagonal * diagonal;
    const cosmic_state state = {ny, nx, options, image, variance, sky, mask, {axis, axis, diagonal, diagonal, two, two}};
    rsp_status status = RSP_OK;
    pixel_list list = {0};
    *out_n_hit = 0;
    uint8_t *maybe = malloc((size_t)nx);
    RSP_NEED(maybe, RSP_NO_MEMORY);
    RSP_NEED(seeds(&state, maybe, &list), RSP_NO_MEMORY);
    mark(&state, &list, 0);
    int64_t first = 0;
    for (int64_t round = 0; round < options->rounds && first < list.n; round++) {
        const int64_t last = list.n;
        RSP_NEED(grow(&state, &list, first, last), RSP_NO_MEMORY);
        first = last;
    }
    *out_n_hit = list.n;
done:
    free(maybe);
    free(list.index);
    return status;
}
