/* testing.h: a few lines of test framework. A test is a function without arguments; CHECK counts and tells. */
#ifndef RSP_TESTING_H
#define RSP_TESTING_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rsp.h"

extern int checks_done, checks_failed; /* defined in main.c */

#define CHECK(condition)                                                            \
    do {                                                                            \
        checks_done++;                                                              \
        if (!(condition)) {                                                         \
            checks_failed++;                                                        \
            printf("%s:%d: %s: not %s\n", __FILE__, __LINE__, __func__, #condition); \
        }                                                                           \
    } while (0)

#define CHECK_CLOSE(value, wanted, tolerance)                                            \
    do {                                                                                 \
        double value_ = (value), wanted_ = (wanted);                                     \
        checks_done++;                                                                   \
        if (!(fabs(value_ - wanted_) <= (tolerance))) {                                  \
            checks_failed++;                                                             \
            printf("%s:%d: %s: %s = %.9g, wanted %.9g +- %g\n", __FILE__, __LINE__, __func__, #value, \
                   value_, wanted_, (double)(tolerance));                                \
        }                                                                                \
    } while (0)

/* A small reproducible generator (xorshift64*): uniform in [0, 1). */
static inline double random_uniform(uint64_t *state) {
    *state ^= *state >> 12; *state ^= *state << 25; *state ^= *state >> 27;
    return (double)((*state * 2685821657736338717ULL) >> 11) / 9007199254740992.0;
}

#endif
