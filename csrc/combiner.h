/* combiner.h: the clipped mean of combine.c in pieces, for kernels that make their inputs as they go. */
#ifndef RSP_COMBINER_H
#define RSP_COMBINER_H

#include "internal.h"

typedef struct rsp_combiner rsp_combiner;

/* weight, noise, options as in rsp_combine_clipped_mean (no variances, no masks); they must stay until the end. */
rsp_status rsp_combiner_open(int64_t n, const double *weight, const double *noise, const rsp_combine_options *options,
                             rsp_combiner **out_combiner);
void rsp_combiner_close(rsp_combiner *combiner);

/* out_mean, out_variance [n_pixels]; out_clipped [n] pixels clipped in each input, of these n_pixels. */
void rsp_combiner_run(rsp_combiner *combiner, const float *const *image, int64_t n_pixels, float *restrict out_mean,
                      float *restrict out_variance, int64_t *restrict out_clipped);

#endif
