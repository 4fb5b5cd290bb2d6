#include "testing.h"

enum { N = 300, ANGLES = 180, RHOS = 401 };

void test_streaks(void) {
    static float x[N], y[N];
    static int32_t votes[ANGLES * RHOS];
    for (int i = 0; i < N; i++) { x[i] = (float)i; y[i] = 50.0f - 0.5f * (float)i; } /* normal at atan(2) = 63.43 degrees */
    CHECK(rsp_streaks_hough(N, x, y, ANGLES, RHOS, -200.0, votes) == RSP_OK);
    int best = 0;
    int64_t total = 0;
    for (int k = 0; k < ANGLES * RHOS; k++) {
        total += votes[k];
        if (votes[k] > votes[best]) best = k;
    }
    CHECK(best / RHOS == 63 && abs(best % RHOS - 200 - 45) <= 2 && votes[best] > 60); /* 50 sin(63.43) = 44.7 */
    CHECK(total <= (int64_t)N * ANGLES && total > N * ANGLES / 2);
    CHECK(rsp_streaks_hough(0, x, y, 1, 1, 0.0, votes) == RSP_OK && votes[0] == 0);
    CHECK(rsp_streaks_hough(N, x, y, 0, RHOS, 0.0, votes) == RSP_BAD_SHAPE);
    CHECK(rsp_streaks_hough(N, x, y, 1, RHOS, NAN, votes) == RSP_BAD_ARGUMENT);
}
