/* internal.h: what the kernels share among themselves. */
#ifndef RSP_INTERNAL_H
#define RSP_INTERNAL_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "rsp.h"

/* Public symbols; everything else stays hidden (-fvisibility=hidden). */
#define RSP_API __attribute__((visibility("default")))

/* One binary, several instruction sets: the loader picks the best clone for the machine it runs on. */
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(RSP_NO_DISPATCH)
#define RSP_SIMD __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define RSP_SIMD
#endif

/* Keep the text of a failure for rsp_detail() and hand the status on: return rsp_fail(RSP_BAD_SHAPE, "nx is %lld", ...). */
rsp_status rsp_fail(rsp_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Check an argument: on failure store the condition's text and leave the function. For use before anything is allocated. */
#define RSP_CHECK(condition, status)                                     \
    do {                                                                 \
        if (!(condition)) return rsp_fail(status, "%s: not %s", __func__, #condition); \
    } while (0)

/* The same where memory is held: set `status` and go to the one clean-up exit, labelled done. */
#define RSP_NEED(condition, why)                                         \
    do {                                                                 \
        if (!(condition)) {                                              \
            status = rsp_fail(why, "%s: not %s", __func__, #condition);  \
            goto done;                                                   \
        }                                                                \
    } while (0)

static inline int64_t rsp_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t rsp_max(int64_t a, int64_t b) { return a > b ? a : b; }

/* The value where all bits of `mask` are set, 0 where none is: in vector loops without a branch, and without the masked loads and
 * stores that compilers make of `?:`, which are slow on some machines. */
static inline __attribute__((always_inline)) float rsp_only(float value, int32_t mask) {
    union { float f; int32_t i; } both = {value};
    both.i &= mask;
    return both.f;
}

#endif
