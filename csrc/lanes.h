/* lanes.h: eight pixels at a time, in the compiler's own vectors. For loops that it turns into branches otherwise. */
#ifndef RSP_LANES_H
#define RSP_LANES_H

#include <stdint.h>

#define INLINE static inline __attribute__((always_inline)) /* compiled for the instruction set of the clone that calls */

enum { VECTOR = 8 };
typedef float floats __attribute__((vector_size(32), aligned(4), may_alias)); /* wherever they lie in memory */
typedef int32_t ints __attribute__((vector_size(32), aligned(4), may_alias)); /* comparisons give 0 or all ones */

#define LOAD(from) (*(const floats *)(from))
#define STORE(to, x) (*(floats *)(to) = (x))
#define MASKED(mask, x) ((floats)((ints)(x) & (mask)))                             /* x where the mask is set, else 0 */
#define CHOOSE(mask, x, y) ((floats)(((ints)(x) & (mask)) | ((ints)(y) & ~(mask)))) /* x where the mask is set, else y */
#define ABSOLUTE(x) ((floats)((ints)(x) & 0x7fffffff))

#endif
