/* The known limit: per-sample SGD for a Factorization Machine with explicit vectors, squared loss.
 *
 * Compiled by kernels.py for each number type and each k, with everything that the compiler may do:
 *     gcc -O3 -march=native -ffast-math -DREAL=float -DK=8 -shared -fPIC limit.c -o limit.so
 * The sums of a row stay in registers; a feature's factors are one vector. No prefetch.
 */
#include <stdint.h>

typedef REAL vec __attribute__((vector_size(K * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));

static inline REAL sum(vec v) {
    REAL total = 0;
    for (int f = 0; f < K; f++) total += v[f];
    return total;
}

/* CSR rows; row j of the table begins with v_j, w_j is weights[j * step]. values NULL: all are 1.
 * order NULL: as they come. */
static inline __attribute__((always_inline)) double csr(
    const int64_t *indptr, const int32_t *indices, const REAL *values, const REAL *target,
    const int64_t *order, int64_t n_rows, REAL *table, int64_t width, REAL *weights,
    int64_t step, REAL *bias, REAL rate, REAL reg_w, REAL reg_V) {
    double total = 0;
    REAL w0 = *bias, keep_w = 1 - rate * reg_w, keep_V = 1 - rate * reg_V;
    for (int64_t t = 0; t < n_rows; t++) {
        int64_t i = order ? order[t] : t, begin = indptr[i], end = indptr[i + 1];
        vec s = {0}, q = {0};
        REAL linear = 0;
        for (int64_t e = begin; e < end; e++) {
            REAL x = values ? values[e] : 1;
            vec a = *(vec *)(table + indices[e] * width) * x;
            s += a;
            q += a * a;
            linear += weights[indices[e] * step] * x;
        }
        REAL error = linear + (REAL)0.5 * sum(s * s - q) - target[i] + w0, g = rate * error;
        total += (double)error * error;
        w0 -= g;
        s *= g;
        for (int64_t e = begin; e < end; e++) {
            REAL *v = table + indices[e] * width, *w = weights + indices[e] * step;
            REAL x = values ? values[e] : 1;
            *(vec *)v = *(vec *)v * (keep_V + g * x * x) - s * x;
            *w = *w * keep_w - g * x;
        }
    }
    *bias = w0;
    return total;
}

double train_csr(
    const int64_t *indptr, const int32_t *indices, const REAL *values, const REAL *target,
    const int64_t *order, int64_t n_rows, REAL *table, int64_t width, REAL *weights,
    int64_t step, REAL *bias, REAL rate, REAL reg_w, REAL reg_V) {
    return csr(indptr, indices, values, target, order, n_rows, table, width, weights, step, bias,
               rate, reg_w, reg_V);
}

double train_one_hot(
    const int64_t *indptr, const int32_t *indices, const REAL *target, const int64_t *order,
    int64_t n_rows, REAL *table, int64_t width, REAL *weights, int64_t step, REAL *bias,
    REAL rate, REAL reg_w, REAL reg_V) {
    return csr(indptr, indices, 0, target, order, n_rows, table, width, weights, step, bias, rate,
               reg_w, reg_V);
}

/* Dense rows of n numbers; V is (n, K). Four partial sums hide the latency of an addition. */
double train_dense(const REAL *X, const REAL *target, int64_t n_rows, int64_t n, REAL *w, REAL *V,
                   REAL *bias, REAL rate, REAL reg_w, REAL reg_V) {
    double total = 0;
    REAL w0 = *bias, keep_w = 1 - rate * reg_w, keep_V = 1 - rate * reg_V;
    for (int64_t i = 0; i < n_rows; i++) {
        const REAL *x = X + i * n;
        vec s[4] = {{0}}, q[4] = {{0}};
        int64_t fours = n - n % 4;
        for (int64_t j = 0; j < fours; j += 4)
            for (int p = 0; p < 4; p++) {
                vec a = *(vec *)(V + (j + p) * K) * x[j + p];
                s[p] += a;
                q[p] += a * a;
            }
        for (int64_t j = fours; j < n; j++) {
            vec a = *(vec *)(V + j * K) * x[j];
            s[0] += a;
            q[0] += a * a;
        }
        REAL linear = 0;
        for (int64_t j = 0; j < n; j++) linear += w[j] * x[j];
        vec all = s[0] + s[1] + (s[2] + s[3]);
        REAL pairs = sum(all * all - (q[0] + q[1] + (q[2] + q[3])));
        REAL error = linear + (REAL)0.5 * pairs - target[i] + w0, g = rate * error;
        total += (double)error * error;
        w0 -= g;
        for (int64_t j = 0; j < n; j++) w[j] = w[j] * keep_w - g * x[j];
        all *= g;
        for (int64_t j = 0; j < n; j++)
            *(vec *)(V + j * K) = *(vec *)(V + j * K) * (keep_V + g * x[j] * x[j]) - all * x[j];
    }
    *bias = w0;
    return total;
}
