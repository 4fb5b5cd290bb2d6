/* crosstalk.h: the sums over amplifiers of one tile (electronics.c). */
#ifndef RSP_CROSSTALK_H
#define RSP_CROSSTALK_H

#include "rsp.h"

/* clean = read + sum over sources of (linear + quadratic * source) * source, for the first `count` columns.
 *   read [n_sources][tile][8], clean [n_targets][tile][8] electron; columns up to the next even number are worked on too */
void rsp_crosstalk_tile(const rsp_sweep *what, int64_t count, const float *restrict read, float *restrict clean);

#endif
