/* status.c: the words for a failure. */
#include <stdarg.h>
#include <stdio.h>
#include "internal.h"

static _Thread_local char detail[256];

RSP_API const char *rsp_status_text(rsp_status status) {
    switch (status) {
    case RSP_OK: return "ok";
    case RSP_NO_MEMORY: return "out of memory";
    case RSP_BAD_SHAPE: return "sizes do not fit";
    case RSP_BAD_ARGUMENT: return "a parameter is outside its limits";
    case RSP_NO_GOOD_PIXELS: return "no good pixels";
    case RSP_FULL: return "an output array is too small";
    }
    return "unknown status";
}

RSP_API const char *rsp_detail(void) { return detail; }

rsp_status rsp_fail(rsp_status status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(detail, sizeof detail, format, arguments);
    va_end(arguments);
    return status;
}

RSP_API const char *rsp_simd_level(void) {
#if defined(__x86_64__) && !defined(RSP_NO_DISPATCH)
    if (__builtin_cpu_supports("x86-64-v4")) return "avx512";
    if (__builtin_cpu_supports("x86-64-v3")) return "avx2";
#endif
    return "baseline";
}
