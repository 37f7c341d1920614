"""The compiled loops of the Gibbs sampler: features, errors and row sums, columns.

Float64, and the same bits on every x86-64 CPU and for every number of threads: no fastmath, no
contraction, sums in a written-down order; `source`: see `compiled`. Nothing here checks a bound:
every array is checked before it enters.

Factors are drawn `lanes` (4 or 8) at a time: eight numbers are a cache line, and the matrix of a
feature's 8 x 8 products stays in registers. `gibbs_plain` is the readable twin of all of it.
"""

# Compiled by Numba, whose types are not Python's:
# mypy: disable-error-code="misc,no-any-return,no-untyped-call,no-untyped-def,untyped-decorator"

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir

from fmexp.backends.compiled import (
    SOURCE,
    Vector,
    compile_cached,
    fill,
    get,
    inlined,
    intrinsic,
    lane_sum,
    load,
    pointer,
    prefetch,
    put,
    store,
    zero_vector,
)

if TYPE_CHECKING:
    from collections.abc import Callable

LANES = 8
"""Most factors that are drawn together."""

AHEAD = 16
"""Entries of a column by which the rows' sums are asked for in advance."""


def lanes_of(k: int) -> int:
    """Factors drawn together, padding included."""
    return 4 if k <= 4 else LANES


@intrinsic
def _products(typing: Any, vector: Any) -> Any:  # noqa: ARG001
    """All products of two lanes, row by row: a vector of lanes^2 numbers."""
    n = vector.lanes
    table = Vector(vector.dtype, n * n)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        mask_type = ir.VectorType(ir.IntType(32), n * n)
        undefined = ir.Constant(vector.llvm, ir.Undefined)
        rows = ir.Constant(mask_type, [i for i in range(n) for _ in range(n)])
        columns = ir.Constant(mask_type, [i for _ in range(n) for i in range(n)])
        left, right = (builder.shuffle_vector(args[0], undefined, m) for m in (rows, columns))
        return builder.fmul(left, right)

    return table(vector), generate


# ---------------------------------------------------------------------------------------------
# The features


@inlined
def _solve(Q: Any, d: Any, z: Any, at: int, n: int) -> None:
    """Replace d by Q^-1 d + L^-T z[at:], with Q = L L'; the lower triangle of Q becomes L."""
    for i in range(n):
        for j in range(i + 1):
            rest = get(Q, i * n + j)
            for f in range(j):
                rest -= get(Q, i * n + f) * get(Q, j * n + f)
            if i == j:
                put(Q, i * n + i, np.sqrt(rest))
            else:
                put(Q, i * n + j, rest / get(Q, j * n + j))
        rest = get(d, i)
        for f in range(i):
            rest -= get(Q, i * n + f) * get(d, f)
        put(d, i, rest / get(Q, i * n + i))
    for i in range(n):
        put(d, i, get(d, i) + np.float64(get(z, at + i)))
    for i in range(n - 1, -1, -1):
        rest = get(d, i)
        for f in range(i + 1, n):
            rest -= get(Q, f * n + i) * get(d, f)
        put(d, i, rest / get(Q, i * n + i))


# `x = 1.0 if one_hot` costs nothing: kinds are known when a kernel is compiled.


@inlined
def _gather(
    ids: Any, xs: Any, es: Any, ss: Any, begin: int, end: int, v: Any, lanes: int, one_hot: bool,
    dense: bool,
) -> Any:  # fmt: skip
    """Over a column's entries, sums of h h', h x, x x, h e and x e, with h = x (s - x v)."""
    zeros = v - v
    hh, hx, xx, he, xe = _products(zeros), zeros, 0.0, zeros, 0.0
    for p in range(begin, end):
        if not dense and p + AHEAD < end:
            ahead = np.int64(get(ids, p + AHEAD))
            prefetch(ss, ahead * lanes)
            prefetch(es, ahead)
        i = p - begin if dense else np.int64(get(ids, p))
        x, e = 1.0 if one_hot else get(xs, p), get(es, i)
        x_ = fill(x, zeros)
        h = x_ * (load(ss, i * lanes, zeros) - x_ * v)
        hh += _products(h)
        hx += h * x_
        xx += x * x
        he += h * fill(e, zeros)
        xe += x * e
    return hh, hx, xx, he, xe


@inlined
def _move(
    ids: Any, xs: Any, es: Any, ss: Any, begin: int, end: int, v: Any, dv: Any, dw: float,
    lanes: int, one_hot: bool, dense: bool,
) -> None:  # fmt: skip
    """Move a column's errors and row sums by a change of (v, w)."""
    for p in range(begin, end):
        i = p - begin if dense else np.int64(get(ids, p))
        x, s = 1.0 if one_hot else get(xs, p), load(ss, i * lanes, v)
        x_ = fill(x, v)
        h = x_ * (s - x_ * v)
        put(es, i, get(es, i) + (lane_sum(h * dv) + x * dw))
        store(ss, i * lanes, s + x_ * dv)


@functools.cache
def draw_features(lanes: int, kind: str) -> Callable[..., None]:
    """Draw (v_j, w_j) of features first..last - 1 in turn; see `gibbs_plain.draw_features`.

    Of the compiled function's arguments, `errors`, `sums`, `V` and `weights` are updated;
    `rows` and `values` are the columns (`gibbs_columns`), of which kind "one-hot" has no values and
    "dense" no rows; `mean` and `precision` are by group, (n_groups, lanes + 1), w last; `noise` is
    float32, (n_features, lanes + 1).
    """
    source, zero, one_hot, dense = SOURCE, 0.0, kind == "one-hot", kind == "dense"
    n = lanes + 1

    def draw(
        first, last, starts, rows, values, errors, sums, V, weights, groups, mean, precision, noise,
        alpha,
    ):  # fmt: skip
        assert source
        ids, xs, es, ss = pointer(rows), pointer(values), pointer(errors), pointer(sums)
        vs, ws, z = pointer(V), pointer(weights), pointer(noise)
        mu, lam = pointer(mean), pointer(precision)
        matrix, change, table = np.empty(n * n), np.empty(n), np.empty(lanes * lanes)
        Q, d, products = pointer(matrix), pointer(change), pointer(table)
        zeros = zero_vector(zero, lanes)
        alphas = fill(alpha, zeros)
        for j in range(first, last):
            begin, end, g = starts[j], starts[j + 1], groups[j] * n
            v, w = load(vs, j * lanes, zeros), get(ws, j)
            hh, hx, xx, he, xe = _gather(ids, xs, es, ss, begin, end, v, lanes, one_hot, dense)
            store(products, 0, hh)
            for a in range(lanes):
                for b in range(a):
                    put(Q, a * n + b, alpha * get(products, a * lanes + b))
                put(Q, a * n + a, alpha * get(products, a * lanes + a) + get(lam, g + a))
            store(Q, lanes * n, alphas * hx)
            put(Q, lanes * n + lanes, alpha * xx + get(lam, g + lanes))
            slope = load(lam, g, zeros) * (load(mu, g, zeros) - v) - alphas * he
            store(d, 0, slope)
            put(d, lanes, get(lam, g + lanes) * (get(mu, g + lanes) - w) - alpha * xe)
            _solve(Q, d, z, j * n, n)
            dv, dw = load(d, 0, zeros), get(d, lanes)
            store(vs, j * lanes, v + dv)
            put(ws, j, w + dw)
            _move(ids, xs, es, ss, begin, end, v, dv, dw, lanes, one_hot, dense)

    return compile_cached(draw)


@functools.cache
def add_features(lanes: int, kind: str) -> Callable[..., None]:
    """Add features first..last - 1 to empty row sums, and to errors all that is not |s|^2 / 2."""
    source, zero, one_hot, dense = SOURCE, 0.0, kind == "one-hot", kind == "dense"

    def add(first, last, starts, rows, values, errors, sums, V, weights):
        assert source
        ids, xs, es, ss = pointer(rows), pointer(values), pointer(errors), pointer(sums)
        vs, zeros = pointer(V), zero_vector(zero, lanes)
        for j in range(first, last):
            begin, end = starts[j], starts[j + 1]
            v = load(vs, j * lanes, zeros)
            square, w = lane_sum(v * v) * 0.5, weights[j]
            for p in range(begin, end):
                if not dense and p + AHEAD < end:
                    ahead = np.int64(get(ids, p + AHEAD))
                    prefetch(ss, ahead * lanes)
                    prefetch(es, ahead)
                i = p - begin if dense else np.int64(get(ids, p))
                x = 1.0 if one_hot else get(xs, p)
                store(ss, i * lanes, load(ss, i * lanes, zeros) + fill(x, zeros) * v)
                put(es, i, get(es, i) + x * (w - x * square))

    return compile_cached(add)


@functools.cache
def add_squares(lanes: int) -> Callable[..., None]:
    """Add |s|^2 / 2 to the errors of rows first..last - 1."""
    source, zero = SOURCE, 0.0

    def add(first, last, errors, sums):
        assert source
        ss, zeros = pointer(sums), zero_vector(zero, lanes)
        for i in range(first, last):
            s = load(ss, i * lanes, zeros)
            errors[i] += lane_sum(s * s) * 0.5

    return compile_cached(add)


@functools.cache
def shift() -> Callable[..., Any]:
    """Add a number to the errors of rows first..last - 1; returns their sum and that of squares."""
    source, zero = SOURCE, 0.0

    def shift_by(first, last, errors, by):
        assert source
        es, eight = pointer(errors), zero_vector(zero, 8)
        plain, squares, step, i = eight, eight, fill(by, eight), first
        while i + 8 <= last:
            e = load(es, i, eight) + step
            store(es, i, e)
            plain += e
            squares += e * e
            i += 8
        total, total_squares = lane_sum(plain), lane_sum(squares)
        for r in range(i, last):
            e = errors[r] + by
            errors[r] = e
            total += e
            total_squares += e * e
        return total, total_squares

    return compile_cached(shift_by)


# ---------------------------------------------------------------------------------------------
# Columns


@functools.cache
def to_columns(with_values: bool) -> Callable[..., None]:
    """Write the entries of CSR rows column by column; `free` is where each column begins."""
    source = SOURCE

    def write(indptr, indices, values, free, rows, column_values):
        assert source
        for i in range(len(indptr) - 1):
            for entry in range(indptr[i], indptr[i + 1]):
                j = indices[entry]
                at = free[j]
                rows[at] = i
                if with_values:
                    column_values[at] = values[entry]
                free[j] = at + 1

    return compile_cached(write)


@functools.cache
def last_neighbours() -> Callable[..., Any]:
    """Of each feature, the largest smaller feature that some row holds beside it; -1 for none.

    Returns the first row whose features do not ascend, or -1.
    """
    source = SOURCE

    def find(indptr, indices, neighbour):
        assert source
        for i in range(len(indptr) - 1):
            for entry in range(indptr[i] + 1, indptr[i + 1]):
                j = indices[entry]
                if j <= indices[entry - 1]:
                    return i
                neighbour[j] = max(neighbour[j], indices[entry - 1])
        return -1

    return compile_cached(find)
