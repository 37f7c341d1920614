"""The compiled loops of the Gibbs sampler: features, errors and row sums, columns.

Float64, and the same bits on every x86-64 CPU and for every number of threads: no fastmath, no
contraction, sums in a written-down order; `source`: see `compiled`. Nothing here checks a bound:
every array is checked before it enters.

With weights of the rows, each counts as often as its weight says in every sum over rows. `weighted`
is known when a kernel is compiled; rows without weights have empty `row_weights`.

Factors are drawn `lanes` (4 or 8) at a time: eight numbers are a cache line, and the matrix of a
feature's 8 x 8 products stays in registers. `gibbs_plain` is the readable twin, but for
relation blocks of weighted rows, which tests compare with rows written out.
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

AHEAD, KEYS_AHEAD = 16, 4
"""Entries of a column by which the rows' sums, and the keys' tables, are asked for in advance."""

ERROR, SHIFT, COUNT, ROOT, BESIDE = 0, 1, 2, 3, 8
"""Where a key's numbers stand in what a key has beside its vectors (see `key_size`)."""


def lanes_of(k: int) -> int:
    """Factors drawn together, padding included."""
    return 4 if k <= 4 else LANES


def key_size(lanes: int) -> int:
    """Numbers that are kept of each key of a relation block.

    Over the key's rows: the scatter of their sums, sum (s - m)(s - m)' with m their mean, lanes^2
    numbers; m; sum e (s - m); then at ERROR sum e, at SHIFT by how much its rows' errors move where
    s = m, at COUNT how many rows it has, at ROOT the root of that. All sums over rows count a row
    by its weight.
    """
    return lanes * lanes + 2 * lanes + BESIDE


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
    ids: Any, xs: Any, es: Any, ss: Any, us: Any, begin: int, end: int, v: Any, lanes: int,
    one_hot: bool, dense: bool, weighted: bool,
) -> Any:  # fmt: skip
    """Over a column's entries, sums of h h', h x, x x, h e and x e, with h = x (s - x v)."""
    zeros = v - v
    hh, hx, xx, he, xe = _products(zeros), zeros, 0.0, zeros, 0.0
    for p in range(begin, end):
        if not dense and p + AHEAD < end:
            ahead = np.int64(get(ids, p + AHEAD))
            prefetch(ss, ahead * lanes)
            prefetch(es, ahead)
            if weighted:
                prefetch(us, ahead)
        i = p - begin if dense else np.int64(get(ids, p))
        x, e, u = 1.0 if one_hot else get(xs, p), get(es, i), get(us, i) if weighted else 1.0
        x_ = fill(x, zeros)
        h = x_ * (load(ss, i * lanes, zeros) - x_ * v)
        uh = fill(u, zeros) * h
        hh += fill(u, hh) * _products(h)
        hx += uh * x_
        xx += u * (x * x)
        he += uh * fill(e, zeros)
        xe += u * (x * e)
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


@inlined
def _key_of(ids: Any, ks: Any, p: int, begin: int, end: int, size: int, dense: bool) -> Any:
    """Where the key of entry p is in the table of keys; a later one is asked for in advance."""
    if not dense and p + KEYS_AHEAD < end:
        ahead = np.int64(get(ids, p + KEYS_AHEAD)) * size
        for line in range(0, size, 8):
            prefetch(ks, ahead + line)
    return (p - begin if dense else np.int64(get(ids, p))) * size


@inlined
def _gather_keys(
    ids: Any, xs: Any, ks: Any, begin: int, end: int, v: Any, lanes: int, one_hot: bool, dense: bool
) -> Any:
    """What `_gather` finds over all rows, of a column of a relation block, from its keys."""
    zeros = v - v
    hh, hx, xx, he, xe = _products(zeros), zeros, 0.0, zeros, 0.0
    size, mean = lanes * lanes + 2 * lanes + BESIDE, lanes * lanes
    for p in range(begin, end):
        at = _key_of(ids, ks, p, begin, end, size, dense)
        beside = at + mean + 2 * lanes
        x, e, n = 1.0 if one_hot else get(xs, p), get(ks, beside + ERROR), get(ks, beside + COUNT)
        x_ = fill(x, zeros)
        h = x_ * (load(ks, at + mean, zeros) - x_ * v)
        hh += _products(fill(get(ks, beside + ROOT), zeros) * h)
        hh += fill(x * x, hh) * load(ks, at, hh)
        hx += fill(n, zeros) * h * x_
        xx += n * (x * x)
        he += h * fill(e, zeros) + x_ * load(ks, at + mean + lanes, zeros)
        xe += x * e
    return hh, hx, xx, he, xe


@inlined
def _move_keys(
    ids: Any, xs: Any, ks: Any, d: Any, begin: int, end: int, v: Any, lanes: int, one_hot: bool,
    dense: bool,
) -> None:  # fmt: skip
    """Move the keys of a relation block's column by a change d of (v, w)."""
    size, mean = lanes * lanes + 2 * lanes + BESIDE, lanes * lanes
    dv, dw = load(d, 0, v), get(d, lanes)
    for p in range(begin, end):
        at = _key_of(ids, ks, p, begin, end, size, dense)
        beside = at + mean + 2 * lanes
        x, m = 1.0 if one_hot else get(xs, p), load(ks, at + mean, v)
        x_ = fill(x, v)
        step = lane_sum(x_ * (m - x_ * v) * dv) + x * dw
        turned = v - v
        for f in range(lanes):
            turned += load(ks, at + f * lanes, v) * fill(get(d, f), v)
        store(ks, at + mean, m + x_ * dv)
        store(ks, at + mean + lanes, load(ks, at + mean + lanes, v) + x_ * turned)
        put(ks, beside + ERROR, get(ks, beside + ERROR) + get(ks, beside + COUNT) * step)
        put(ks, beside + SHIFT, get(ks, beside + SHIFT) + step)


@functools.cache
def draw_features(
    lanes: int, kind: str, by_key: bool = False, weighted: bool = False
) -> Callable[..., None]:
    """Draw (v_j, w_j) of features first..last - 1 in turn; see `gibbs_plain.draw_features`.

    With `by_key` the columns are those of a relation block, over its keys, and `sums` is the table
    of the keys (`key_size`), which is updated; `errors` is not looked at.

    Of the compiled function's arguments, `errors`, `sums`, `V` and `weights` are updated;
    `rows` and `values` are the columns (`gibbs_columns`), of which kind "one-hot" has no values and
    "dense" no rows; `mean` and `precision` are by group, (n_groups, lanes + 1), w last; `noise` is
    float32, (n_features, lanes + 1).
    """
    source, zero, one_hot, dense = SOURCE, 0.0, kind == "one-hot", kind == "dense"
    n = lanes + 1

    def draw(
        first, last, starts, rows, values, errors, sums, V, weights, groups, mean, precision, noise,
        alpha, row_weights,
    ):  # fmt: skip
        assert source
        ids, xs, es, ss = pointer(rows), pointer(values), pointer(errors), pointer(sums)
        vs, ws, z = pointer(V), pointer(weights), pointer(noise)
        mu, lam, us = pointer(mean), pointer(precision), pointer(row_weights)
        matrix, change, table = np.empty(n * n), np.empty(n), np.empty(lanes * lanes)
        Q, d, products = pointer(matrix), pointer(change), pointer(table)
        zeros = zero_vector(zero, lanes)
        alphas = fill(alpha, zeros)
        for j in range(first, last):
            begin, end, g = starts[j], starts[j + 1], groups[j] * n
            v, w = load(vs, j * lanes, zeros), get(ws, j)
            if by_key:
                found = _gather_keys(ids, xs, ss, begin, end, v, lanes, one_hot, dense)
            else:
                found = _gather(ids, xs, es, ss, us, begin, end, v, lanes, one_hot, dense, weighted)
            hh, hx, xx, he, xe = found
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
            if by_key:
                _move_keys(ids, xs, ss, d, begin, end, v, lanes, one_hot, dense)
            else:
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
def shift(weighted: bool = False) -> Callable[..., Any]:
    """Add a number to the errors of rows first..last - 1; returns their sum and that of squares."""
    source, zero = SOURCE, 0.0

    def shift_by(first, last, errors, by, row_weights):
        assert source
        us = pointer(row_weights)
        es, eight = pointer(errors), zero_vector(zero, 8)
        plain, squares, step, i = eight, eight, fill(by, eight), first
        while i + 8 <= last:
            e = load(es, i, eight) + step
            store(es, i, e)
            ue = load(us, i, eight) * e if weighted else e
            plain += ue
            squares += ue * e
            i += 8
        total, total_squares = lane_sum(plain), lane_sum(squares)
        for r in range(i, last):
            e = errors[r] + by
            errors[r] = e
            ue = row_weights[r] * e if weighted else e
            total += ue
            total_squares += ue * e
        return total, total_squares

    return compile_cached(shift_by)


# ---------------------------------------------------------------------------------------------
# Relation blocks: what the keys know of their rows, and the rows of their keys


@functools.cache
def gather_rows(lanes: int, weighted: bool = False) -> Callable[..., None]:
    """Fill the table of the keys first..last - 1 (`key_size`) from their rows, and their `means`.

    Key g has the rows order[starts[g]:starts[g + 1]].
    """
    source, zero, size = SOURCE, 0.0, key_size(lanes)

    def gather(first, last, starts, order, errors, sums, table, means, row_weights):
        assert source
        ids, es, ss, ks, ms = (
            pointer(order), pointer(errors), pointer(sums), pointer(table), pointer(means)
        )  # fmt: skip
        zeros, us = zero_vector(zero, lanes), pointer(row_weights)
        for g in range(first, last):
            begin, end, at = starts[g], starts[g + 1], g * size
            total, n = zeros, 0.0 if weighted else float(end - begin)
            for p in range(begin, end):
                if p + AHEAD < end:
                    prefetch(ss, np.int64(get(ids, p + AHEAD)) * lanes)
                    prefetch(es, np.int64(get(ids, p + AHEAD)))
                i = np.int64(get(ids, p))
                u = get(us, i) if weighted else 1.0
                total += fill(u, zeros) * load(ss, i * lanes, zeros)
                if weighted:
                    n += u
            mean = total * fill(1.0 / n, zeros) if begin < end else zeros
            scatter, of_errors, error = _products(zeros), zeros, 0.0
            for p in range(begin, end):
                i = np.int64(get(ids, p))
                e, away = get(es, i), load(ss, i * lanes, zeros) - mean
                u = get(us, i) if weighted else 1.0
                scatter += fill(u, scatter) * _products(away)
                of_errors += fill(u * e, zeros) * away
                error += u * e
            store(ks, at, scatter)
            store(ks, at + lanes * lanes, mean)
            store(ks, at + lanes * lanes + lanes, of_errors)
            store(ms, g * lanes, mean)
            beside = at + lanes * lanes + 2 * lanes
            put(ks, beside + ERROR, error)
            put(ks, beside + SHIFT, 0.0)
            put(ks, beside + COUNT, n)
            put(ks, beside + ROOT, np.sqrt(n))

    return compile_cached(gather)


@functools.cache
def move_rows(lanes: int) -> Callable[..., None]:
    """Move errors and sums of rows first..last - 1 by what their keys have moved since `means`."""
    source, zero, size = SOURCE, 0.0, key_size(lanes)

    def move(first, last, keys, errors, sums, table, means):
        assert source
        ids, es, ss, ks, ms = (
            pointer(keys), pointer(errors), pointer(sums), pointer(table), pointer(means)
        )  # fmt: skip
        zeros = zero_vector(zero, lanes)
        for i in range(first, last):
            g = np.int64(get(ids, i))
            at = g * size + lanes * lanes
            mean, s = load(ms, g * lanes, zeros), load(ss, i * lanes, zeros)
            moved = load(ks, at, zeros) - mean
            step = lane_sum(moved * (s - mean)) + get(ks, at + 2 * lanes + SHIFT)
            put(es, i, get(es, i) + step)
            store(ss, i * lanes, s + moved)

    return compile_cached(move)


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
def row_sums(with_values: bool) -> Callable[..., None]:
    """Add sum_j x_j v_j of each of some CSR rows to `out`; float64, shape (n_rows, k)."""
    source = SOURCE

    def add(indptr, indices, values, V, out):
        assert source
        for i in range(len(indptr) - 1):
            for entry in range(indptr[i], indptr[i + 1]):
                j, x = indices[entry], values[entry] if with_values else 1.0
                for f in range(V.shape[1]):
                    out[i, f] += x * V[j, f]

    return compile_cached(add)


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
