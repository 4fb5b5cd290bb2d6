/* network.h: Batcher's odd-even merge sorting network for any number of rows. */
#ifndef RSP_NETWORK_H
#define RSP_NETWORK_H

#include <stdint.h>

/* Rows to put in order: the smaller goes to a. In a list that is pruned to a few rows one of the two may not be wanted: it is
 * then stored as one's complement, and only the other is written. */
typedef struct {
    int32_t a, b;
} exchange;

/* The network of n rows into `out`, or only counted where out is NULL; returns the number of exchanges. Without the
 * exchanges that touch rows from m on it sorts the first m. */
static inline int64_t batcher(int64_t n, exchange *out) {
    int64_t count = 0;
    for (int64_t p = 1; p < n; p *= 2)
        for (int64_t k = p; k >= 1; k /= 2)
            for (int64_t j = k % p; j + k < n; j += 2 * k)
                for (int64_t i = 0; i < (k < n - j - k ? k : n - j - k); i++)
                    if ((i + j) / (2 * p) == (i + j + k) / (2 * p)) {
                        if (out) out[count] = (exchange){(int32_t)(i + j), (int32_t)(i + j + k)};
                        count++;
                    }
    return count;
}

#endif
