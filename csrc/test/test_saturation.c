#include "testing.h"

enum { NY = 40, NX = 30, SAT = 2, SET = 8 };

static uint32_t mask[NY * NX];

static int count(uint32_t bits) {
    int n = 0;
    for (int i = 0; i < NY * NX; i++) n += (mask[i] & bits) == bits;
    return n;
}

void test_saturation(void) {
    int64_t n;
    memset(mask, 0, sizeof mask);
    mask[0] = mask[20 * NX + 15] = SAT;
    CHECK(rsp_saturation_grow(NY, NX, SAT, 1, SET, mask, &n) == RSP_OK);
    CHECK(n == 13 && count(SET) == 13 && count(SAT) == 2); /* 9 around the one in the middle, 4 in the corner */
    memset(mask, 0, sizeof mask);
    mask[20 * NX + 15] = SAT;
    CHECK(rsp_saturation_grow(NY, NX, SAT, 2, SAT, mask, &n) == RSP_OK);
    CHECK(n == 20 && count(SAT) == 21); /* a disc: the corners of 5 x 5 are left out; growing does not grow itself */
    /* trails: 10 saturated pixels from the first row of an amplifier that begins at y = 20, read at its first row */
    memset(mask, 0, sizeof mask);
    for (int y = 20; y < 30; y++) mask[y * NX + 5] = SAT;
    for (int y = 3; y < 8; y++) mask[y * NX + 25] = SAT; /* too short, and another amplifier */
    rsp_trail_options o = {0, 20, NX, NY, 8, 3, 1, 2, 4, 0, SAT, SET};
    CHECK(rsp_saturation_trails(NY, NX, &o, mask, &n) == RSP_OK);
    CHECK(n == count(SET) && n == 3 * 13 + 2 * 9 - 3 * 2); /* trail 3 wide, 13 long; edge 9 wide, 2 high; overlap 3 x 2 */
    CHECK((mask[32 * NX + 5] & SET) && !(mask[33 * NX + 5] & SET) && !(mask[19 * NX + 5] & SET));
    CHECK((mask[20 * NX + 1] & SET) && (mask[21 * NX + 9] & SET) && !(mask[22 * NX + 9] & SET));
    memset(mask, 0, sizeof mask);
    for (int y = 20; y < 30; y++) mask[y * NX + 5] = SAT;
    o.read_at_top = 1;
    CHECK(rsp_saturation_trails(NY, NX, &o, mask, &n) == RSP_OK && n == 3 * 13);
    for (int y = 20; y < NY; y++) mask[y * NX + 5] = SAT;
    CHECK(rsp_saturation_trails(NY, NX, &o, mask, &n) == RSP_OK && (mask[39 * NX + 9] & SET) && (mask[38 * NX + 1] & SET));
    CHECK(rsp_saturation_grow(0, NX, SAT, 1, SET, mask, &n) == RSP_BAD_SHAPE);
    CHECK(rsp_saturation_grow(NY, NX, SAT, -1, SET, mask, &n) == RSP_BAD_ARGUMENT);
    o.x1 = NX + 1;
    CHECK(rsp_saturation_trails(NY, NX, &o, mask, &n) == RSP_BAD_SHAPE);
}
