/* main.c: runs the C tests of every kernel. Each test_<word>.c offers one function: void test_<word>(void). */
#include "testing.h"

int checks_done, checks_failed;

#define FOR_EACH_TEST(DO) \
    DO(background) \
    DO(deblend) \
    DO(detect) \
    DO(measure) \
    DO(psf) \
    DO(status) \
    DO(detrend) \
    DO(electronics) \
    DO(combine) \
    DO(frames) \
    DO(cosmic) \
    DO(brighter_fatter) \
    DO(saturation) \
    DO(fringe) \
    DO(streaks) \
    DO(interpolate) \
    DO(warp) \
    DO(coadd) \
    DO(covariance)

#define DECLARE(word) void test_##word(void);
FOR_EACH_TEST(DECLARE)

int main(void) {
#define RUN(word) test_##word();
    FOR_EACH_TEST(RUN)
    printf("C tests: %d passed, %d failed\n", checks_done - checks_failed, checks_failed);
    return checks_failed != 0;
}
