/* covariance.c: covariances of neighbouring pixels in the difference of two flats.
 *
 * One pass over memory: the difference of a row is made and masked, and kept with the rows before it in a ring that stays in the
 * nearest cache; all products of the row with that ring are summed there, ROWS x SHIFTS lags at a time in registers. Bound by
 * arithmetic: one multiply-add per pixel and lag, lags to the left and to the right apart. Pairs of pixels are counted with the
 * rows' bits, 64 at a time, where any is masked. */
#include "internal.h"
#include "lanes.h"

enum { MAX_LAGS = 32, ROWS = 4, SHIFTS = 3, WIDE = 8, MARGIN = MAX_LAGS + SHIFTS + WIDE };
typedef float wide __attribute__((vector_size(4 * WIDE), aligned(4), may_alias));

typedef struct {
    int64_t nx, stride; /* pixels of a row; floats of one with its margins */
    int64_t words;      /* 64-bit words of a row's bits, two of them behind the row */
    int64_t slots, shifts; /* n_lags and 2 n_lags - 1 rounded up to whole groups */
    float *rows;        /* [slots][stride], zero where masked, in margins, and before the first row */
    uint64_t *bits;     /* [slots][words], one where used */
    int64_t *good;      /* [slots] pixels used */
    uint8_t *use;       /* [8 * ceil(nx / 8)] of the row at hand */
    double *products;   /* [slots][shifts] */
} ring;

/* The difference of row y into its slot; adds to the sums of both images, of the difference and of the ratio. */
INLINE void take_row(const ring *r, int64_t slot, const rsp_flat_pair *pair, int64_t y, double *sums) {
    const int64_t at = y * pair->stride, nx = r->nx;
    const float *restrict first = pair->first + at, *restrict second = pair->second + at;
    const uint32_t *restrict mask1 = pair->first_mask + at, *restrict mask2 = pair->second_mask + at;
    const double *p = pair->ratio, v = pair->ny > 1 ? 2.0 * (double)y / (double)(pair->ny - 1) - 1.0 : 0.0;
    const float c0 = (float)(p[0] + (p[2] + p[5] * v) * v), c1 = (float)(p[1] + p[4] * v), c2 = (float)p[3];
    const float step = nx > 1 ? 2.0f / (float)(nx - 1) : 0.0f, limit = pair->limit;
    const uint32_t skip = pair->skip_bits;
    float *restrict out = r->rows + slot * r->stride + MARGIN;
    uint8_t *restrict use = r->use;
    double sum1 = 0.0, sum2 = 0.0, sum3 = 0.0, sum4 = 0.0;
#pragma omp simd reduction(+ : sum1, sum2, sum3, sum4)
    for (int64_t x = 0; x < nx; x++) {
        const float u = (float)(int32_t)x * step - 1.0f, ratio = c0 + (c1 + c2 * u) * u, d = first[x] - ratio * second[x];
        const int good = (fabsf(d) <= limit) & (((mask1[x] | mask2[x]) & skip) == 0); /* NaN is not good */
        use[x] = (uint8_t)good;
        out[x] = good ? d : 0.0f;
        sum1 += good ? first[x] : 0.0f;
        sum2 += good ? second[x] : 0.0f;
        sum3 += good ? d : 0.0f;
        sum4 += good ? ratio : 0.0f;
    }
    sums[0] += sum1, sums[1] += sum2, sums[2] += sum3, sums[3] += sum4;
    uint8_t *bits = (uint8_t *)(r->bits + slot * r->words);
    r->good[slot] = 0;
    for (int64_t k = 0; 8 * k < nx; k++) { /* eight bytes of 0 or 1 to eight bits; little-endian, as all our machines */
        uint64_t bytes;
        memcpy(&bytes, use + 8 * k, 8);
        bits[k] = (uint8_t)((bytes * 0x0102040810204080ULL) >> 56);
        r->good[slot] += __builtin_popcount(bits[k]);
    }
}

/* Products of the row at `now` with ROWS earlier ones, at SHIFTS shifts from `shift` on. */
INLINE void add_group(const ring *r, const float *now, const float *const *before, int64_t shift, double *products) {
    wide sum[ROWS][SHIFTS] = {{{0}}};
    for (int64_t x = 0; x < r->nx; x += WIDE) {
        wide pixel[ROWS];
#pragma GCC unroll 8
        for (int j = 0; j < ROWS; j++) pixel[j] = *(const wide *)(before[j] + x);
#pragma GCC unroll 8
        for (int i = 0; i < SHIFTS; i++) {
            const wide other = *(const wide *)(now + x + shift + i);
#pragma GCC unroll 8
            for (int j = 0; j < ROWS; j++) sum[j][i] += pixel[j] * other;
        }
    }
    for (int j = 0; j < ROWS; j++)
        for (int i = 0; i < SHIFTS; i++) {
            double total = 0.0;
            for (int k = 0; k < WIDE; k++) total += (double)sum[j][i][k];
            products[j * r->shifts + i] += total;
        }
}

RSP_SIMD static void add_row(const ring *r, int64_t y, int64_t n_lags, const rsp_flat_pair *pair, double *sums) {
    const float *before[MAX_LAGS + ROWS];
    take_row(r, y % r->slots, pair, y, sums);
    for (int64_t j = 0; j < r->slots; j++) before[j] = r->rows + ((y - j + r->slots) % r->slots) * r->stride + MARGIN;
    for (int64_t j = 0; j < r->slots; j += ROWS)
        for (int64_t i = 0; i < r->shifts; i += SHIFTS)
            add_group(r, before[0], before + j, i - (n_lags - 1), r->products + j * r->shifts + i);
}

/* Pairs of used pixels: x in the row `before`, x + shift in `now`. */
INLINE int64_t pairs_of_bits(const uint64_t *before, const uint64_t *now, int64_t shift, int64_t words) {
    const uint64_t *fixed = shift < 0 ? now : before, *moved = shift < 0 ? before : now;
    const int64_t by = llabs(shift);
    int64_t count = 0;
    for (int64_t w = 0; w + 1 < words; w++)
        count += __builtin_popcountll(fixed[w] & (by ? moved[w] >> by | moved[w + 1] << (64 - by) : moved[w]));
    return count;
}

RSP_SIMD static void count_row(const ring *r, int64_t y, int64_t n_lags, int64_t *out_count) {
    const int64_t now = y % r->slots, width = 2 * n_lags - 1;
    for (int64_t j = 0; j < n_lags && j <= y; j++) {
        const int64_t before = (y - j) % r->slots;
        const int whole = r->good[now] == r->nx && r->good[before] == r->nx;
        for (int64_t i = -(n_lags - 1); i < n_lags; i++)
            out_count[j * width + n_lags - 1 + i] += whole ? rsp_max(0, r->nx - llabs(i))
                : pairs_of_bits(r->bits + before * r->words, r->bits + now * r->words, i, r->words);
    }
}

RSP_API rsp_status rsp_covariance(const rsp_flat_pair *pair, int64_t n_lags, double *restrict out_product,
        int64_t *restrict out_count, double *restrict out_sums) {
    RSP_CHECK(pair && out_product && out_count && out_sums, RSP_BAD_ARGUMENT);
    RSP_CHECK(pair->nx > 0 && pair->ny > 0 && pair->stride >= pair->nx, RSP_BAD_SHAPE);
    RSP_CHECK(n_lags >= 1 && n_lags <= MAX_LAGS, RSP_BAD_ARGUMENT);
    RSP_CHECK(pair->nx < 1 << 24, RSP_BAD_SHAPE);
    RSP_CHECK(pair->limit > 0.0f, RSP_BAD_ARGUMENT);
    const int64_t width = 2 * n_lags - 1, nx = pair->nx;
    ring r = {.nx = nx, .stride = nx + 2 * MARGIN, .words = (nx + 63) / 64 + 1,
              .slots = (n_lags + ROWS - 1) / ROWS * ROWS, .shifts = (width + SHIFTS - 1) / SHIFTS * SHIFTS};
    rsp_status status = RSP_OK;
    r.rows = calloc((size_t)(r.slots * r.stride), sizeof *r.rows);
    r.bits = calloc((size_t)(r.slots * r.words), sizeof *r.bits);
    r.good = calloc((size_t)r.slots, sizeof *r.good);
    r.use = calloc((size_t)(nx + 7), 1);
    r.products = calloc((size_t)(r.slots * r.shifts), sizeof *r.products);
    RSP_NEED(r.rows && r.bits && r.good && r.use && r.products, RSP_NO_MEMORY);
    memset(out_count, 0, (size_t)(n_lags * width) * sizeof *out_count);
    memset(out_sums, 0, 4 * sizeof *out_sums);
    for (int64_t y = 0; y < pair->ny; y++) {
        add_row(&r, y, n_lags, pair, out_sums);
        count_row(&r, y, n_lags, out_count);
    }
    for (int64_t j = 0; j < n_lags; j++)
        memcpy(out_product + j * width, r.products + j * r.shifts, (size_t)width * sizeof(double));
done:
    free(r.rows);
    free(r.bits);
    free(r.good);
    free(r.use);
    free(r.products);
    return status;
}
