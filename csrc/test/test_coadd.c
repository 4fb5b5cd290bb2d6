/* Truth: weighted means by hand, an artifact removed, a star of changing width kept, partial overlaps, bits. */
#include "testing.h"

enum { NY = 20, NX = 30, MANY = 5 };
static const rsp_coadd_rules rules = {.kappa = 4.5f, .tolerance = 1.0f, .max_saturated = 0.2f, .min_inputs = 3,
                                      .carry = 1, .rejected = 2, .edge = 4, .saturated = 8, .clipped = 16,
                                      .no_data = 32};

typedef struct {
    float image[MANY][NY * NX], variance[MANY][NY * NX], out[NY * NX], out_variance[NY * NX];
    uint32_t mask[MANY][NY * NX], out_mask[NY * NX];
    uint16_t count[NY * NX];
    int64_t clipped[MANY];
    rsp_coadd_input input[MANY];
} inputs;

static inputs *make_inputs(void) {
    inputs *s = malloc(sizeof *s);
    for (int k = 0; k < MANY; k++) {
        for (int i = 0; i < NY * NX; i++) {
            s->image[k][i] = (float)k;
            s->variance[k][i] = 4.0f;
            s->mask[k][i] = 0;
        }
        s->input[k] = (rsp_coadd_input){s->image[k], s->variance[k], s->mask[k], 0, 0, NX, NY, 1.0 + k};
    }
    return s;
}

static rsp_status run(inputs *s, int n) {
    return rsp_coadd(s->input, n, NY, NX, &rules, s->out, s->out_variance, s->out_mask, s->count, s->clipped);
}

static void test_weights(void) {
    inputs *s = make_inputs();
    CHECK(run(s, 3) == RSP_OK); /* weights 1 2 3, values 0 1 2 */
    CHECK_CLOSE(s->out[77], 8.0 / 6.0, 1e-6);
    CHECK_CLOSE(s->out_variance[77], 4.0 * 14.0 / 36.0, 1e-6);
    CHECK(s->count[77] == 3 && s->out_mask[77] == 0);
    free(s);
}

static void test_artifact(void) {
    inputs *s = make_inputs();
    for (int n = 3; n <= MANY; n++) {
        s->image[1][100] = 60.0f;
        CHECK(run(s, n) == RSP_OK);
        double value = 0.0, weight = 0.0;
        for (int k = 0; k < n; k++)
            if (k != 1) value += (1.0 + k) * k, weight += 1.0 + k;
        CHECK_CLOSE(s->out[100], value / weight, 1e-5);
        CHECK(s->count[100] == n - 1 && (s->out_mask[100] & 16) && s->clipped[1] == 1 && s->clipped[0] == 0);
        CHECK(!(s->out_mask[101] & 16));
    }
    CHECK(run(s, 2) == RSP_OK); /* two inputs: nobody knows which is right */
    CHECK(s->count[100] == 2 && !(s->out_mask[100] & 16));
    free(s);
}

static void test_star(void) { /* 5000 sigma, its width changes by a quarter: nothing is clipped */
    inputs *s = make_inputs();
    for (int k = 0; k < MANY; k++)
        for (int i = 0; i < NY * NX; i++) {
            double r2 = pow(i % NX - 14.3, 2) + pow(i / NX - 9.6, 2), w2 = pow(1.5 + 0.1 * k, 2);
            s->image[k][i] = (float)(2e4 / w2 * exp(-0.5 * r2 / w2));
        }
    CHECK(run(s, MANY) == RSP_OK);
    for (int k = 0; k < MANY; k++) CHECK(s->clipped[k] == 0);
    free(s);
}

static void test_parts_and_bits(void) {
    inputs *s = make_inputs();
    s->input[0].x0 = 10; /* hangs over the right edge, starts at column 10 */
    s->input[1].y0 = -5;
    s->input[2].nx = 0;
    s->image[1][8 * NX + 4] = NAN, s->variance[1][8 * NX + 4] = INFINITY, s->mask[1][8 * NX + 4] = 2 | 8;
    s->mask[1][5 * NX + 20] = 1;
    CHECK(run(s, 3) == RSP_OK);
    CHECK(s->count[0] == 1 && s->count[12] == 2 && s->count[16 * NX] == 0);
    CHECK(isnan(s->out[16 * NX]) && isinf(s->out_variance[16 * NX]) && s->out_mask[16 * NX] == 32);
    CHECK(s->out_mask[3 * NX + 4] == (2 | 8 | 32));
    CHECK(s->out_mask[20] == 1);
    s->input[1].weight = 0.0;
    CHECK(run(s, 3) == RSP_BAD_ARGUMENT);
    CHECK(run(s, 0) == RSP_BAD_SHAPE);
    free(s);
}

void test_coadd(void) {
    test_weights();
    test_artifact();
    test_star();
    test_parts_and_bits();
}
