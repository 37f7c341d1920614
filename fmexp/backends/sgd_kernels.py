"""The compiled loops of numpy_sgd: a pass of per-sample SGD, scores, losses.

The same bits on every x86-64 CPU, and `source`: see `compiled`. Nothing here checks a bound: `sgd`
checks every array before it enters. All k factors of a feature, padded, are one vector.

With a row x, s = sum_j v_j x_j and g = learning rate * dloss/dy_hat:

    v_j <- v_j (1 - lr reg_V + g x_j^2) - g x_j s        for the j with x_j != 0
    w_j <- w_j (1 - lr reg_w) - g x_j                    for the j with x_j != 0
    w0  <- w0 (1 - lr reg_w0) - g

With a cap on the steps, lr is min(learning rate, limit / G) on each row, with limit = 1 for squared
error, 4 for log loss, and G = |d y_hat / d parameters|^2. With a_j = v_j x_j, q = sum_j a_j^2,
A = sum_j x_j^2 a_j and B = sum_j x_j^2 a_j^2, each of k numbers,

    G  = 1 + |x|^2 + sum_f (|x|^2 s_f^2 - 2 s_f A_f + B_f)
       = 1 + m + sum_f ((m - 2) s_f^2 + q_f)                              for m entries that are 1
      <= 1 + |x|^2 (1 + |s|^2) + sqrt(sum_j x_j^4) sum_f (s_f^2 + 2 q_f)
      <= 1 + |x|^2 (1 + 2 sum_f (s_f^2 + q_f))

(docs/fm.md), and G is computed only where a bound says that it may matter: such a row asks, and is
scored once more, closely: with A and B. Where FEW rows ask one after the other, the next MANY are
scored closely at once. Either way gives the same bits. Without a cap, limit is infinite.

A factor that is 0 everywhere stays 0, so the padded lanes never matter.

With weights of the rows, lr is the row's weight times the learning rate (before the cap), and its
loss counts so much; rows of weight 0 are passed over. `weighted` is known when a kernel is
compiled, so that rows without weights cost nothing: `row_weights` is then any number.
"""

# Compiled by Numba, whose types are not Python's:
# mypy: disable-error-code="misc,no-any-return,no-untyped-call,no-untyped-def,untyped-decorator"
# mypy: disable-error-code="call-arg"

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from fmexp.backends.compiled import (
    CACHE_LINE,
    SOURCE,
    any_above,
    cast,
    compile_cached,
    exp_minus,
    fill,
    fold,
    get,
    inlined,
    lane_sum,
    load,
    log_one_plus,
    pointer,
    prefetch,
    put,
    store,
    where_not_zero,
    zero_vector,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NEAR = 2**20
"""Bytes of a table that stays close to the core; rows of a larger one are asked for in advance."""

MAX_LANES = 64
"""Lanes of the widest vector; more factors are taken in blocks of this many."""

FEW, MANY = 8, 512
"""Where FEW rows one after the other ask for G, the next MANY are scored closely at once."""


def lanes_of(k: int) -> int:
    """Lanes for k factors: 4, 8, 16, 32, 64, then multiples of 64."""
    return next((lanes for lanes in (4, 8, 16, 32, MAX_LANES) if k <= lanes), -(-k // 64) * 64)


def table_width(lanes: int, dtype: np.dtype[Any]) -> int:
    """Numbers in a row of the table of factors.

    Lanes that fill whole cache lines are all of it. Where they do not, w_j comes next: it is in the
    line that is there already. Elsewhere it would take a line of its own, so w is an array.
    """
    return 2 * lanes if lanes * dtype.itemsize < CACHE_LINE else lanes


@inlined
def _log_loss(score: float, target: float) -> tuple[float, float]:
    """Log loss of a logit and its derivative, float64."""
    small = exp_minus(abs(score))
    loss = max(score, 0.0) - target * score + log_one_plus(small)
    return loss, (1.0 if score >= 0.0 else small) / (1.0 + small) - target


@inlined
def _loss_and_step(
    score: Any, w0: Any, target: Any, rate: Any, logistic: bool
) -> tuple[float, Any]:
    """A row's loss (float64), and g = rate * dloss/dy_hat. `score` is y_hat without w0.

    w0 joins last, since the row before this one has only just changed it.
    """
    if logistic:
        loss, slope = _log_loss(np.float64(score + w0), np.float64(target))
        return loss, rate * cast(slope, rate)
    error = score + (w0 - target)
    return np.float64(error) * np.float64(error), rate * error


@inlined
def _bound(pairs: Any, energy: Any, norm: Any, fourth: Any, one: Any) -> Any:
    """At least G, from sum_f (s_f^2 - q_f), sum_f (s_f^2 + q_f), |x|^2 and sum_j x_j^4."""
    two = one + one
    of_s, of_q = (energy + pairs) / two, (energy - pairs) / two
    return one + norm * (one + of_s) + np.sqrt(fourth) * (of_s + two * of_q)


@inlined
def _first_look(rate: Any, most: Any, largest: Any, one_hot: bool, one: Any, four: Any) -> Any:
    """What `_may_ask` compares with in each of 4 lanes, and the weight of s^2; see there.

    `largest` is at least |x|^2 of each row (of one-hot rows, the number of entries), and `rate` at
    least its rate: the learning rate times the `heaviest` weight.
    """
    two = one + one
    if one_hot:
        weight, most_of_sum = largest - one, most / rate - one - largest
    else:
        weight, most_of_sum = two, ((most / rate - one) / largest - one) / two
    rounding = cast(0.999, one)
    return fill(most_of_sum * rounding / (two * two), four), fill(weight, four)


@inlined
def _may_ask(s: Any, squares: Any, calm: Any, weight: Any) -> bool:
    """Whether rate * G of a row may be above `most`: a first look, at sums over the factors.

    sum_f (weight s_f^2 - (s_f^2 - q_f)) is what G of one-hot rows and the last bound need; the
    second part is on its way to the score. No quarter of the sum may exceed `calm`.
    """
    square = s * s
    return any_above(weight * fold(square, calm) - fold(square - squares, calm), calm)


@inlined
def _asks(s: Any, squares: Any, norm: Any, fourth: Any, rate: Any, most: Any, one: Any) -> bool:
    """The same, a second look: at |x|^2 and sum_j x_j^4 of the row itself."""
    pairs, energy = lane_sum(s * s - squares), lane_sum(s * s + squares)
    return rate * _bound(pairs, energy, norm, fourth, one) > most


@inlined
def _after_asking(t: int, in_a_row: int, last: int, closely_until: int) -> tuple[int, int, int]:
    """`recent`, now that row t asked: how many did in a row, the last, and until when closely."""
    in_a_row = in_a_row + 1 if t == last + 1 else 1
    return in_a_row, t, t + MANY if in_a_row == FEW else closely_until


@inlined
def _squared_slope(s: Any, A: Any, B: Any, norm: Any, one: Any) -> Any:
    """G. Its sum over the factors is of squares, so what rounding makes negative is 0."""
    of_V = lane_sum(fill(norm, s) * (s * s) + (B - (s + s) * A))
    return (one + norm) + max(one - one, of_V)


@inlined
def _keeps(rate: Any, reg_w0: Any, reg_w: Any, reg_V: Any, one: Any) -> Any:
    """What L2 leaves of w0, w_j and v_j in a step."""
    return one - rate * reg_w0, one - rate * reg_w, one - rate * reg_V


@inlined
def _keeps_capped(rate: Any, reg_w0: Any, reg_w: Any, reg_V: Any, one: Any) -> Any:
    """The same numbers, in another form: of one form, LLVM would compute both on every row."""
    zero = one - one
    return one + rate * (zero - reg_w0), one + rate * (zero - reg_w), one + rate * (zero - reg_V)


@inlined
def _step_of_row(
    row_weights: Any, i: int, weighted: bool, rate: Any, keeps: Any, regs: Any, one: Any
) -> Any:
    """A row's weight, its rate, and what L2 leaves in its step."""
    if weighted:
        row_rate = rate * get(row_weights, i)
        return get(row_weights, i), row_rate, _keeps(row_rate, *regs, one)
    return one, rate, keeps


# Sparse rows. A table has rows of `width` numbers: v_j, and w_j if there is room (`table_width`);
# w_j is at `weights[j * step]`. `x = one if one_hot` costs nothing: one_hot is known when a kernel
# is compiled, as are width, lanes and step.
#
# A pass updates `table`, `weights` and `bias` ([w0]). `order` is a permutation of the rows, or
# empty for as they come; one-hot rows have no `values`; `largest` is at least |x|^2 of each row,
# and `heaviest` at least its weight.


@inlined
def _score_sparse_row(
    indices: Any, values: Any, one_hot: bool, table: Any, width: int, weights: Any, step: int,
    begin: int, end: int, zeros: Any, one: Any, closely: bool,
) -> Any:  # fmt: skip
    """What a row's forward pass gives: s, q, the score without w0, and (closely) G.

    The score is sum_j w_j x_j + 1/2 sum_f (s_f^2 - q_f), with q_f = sum_j v_jf^2 x_j^2.
    """
    s, squares, linear = zeros, zeros, one - one
    A, B, norm = zeros, zeros, one - one
    for entry in range(begin, end):
        j = np.int64(get(indices, entry))
        x = one if one_hot else get(values, entry)
        a = load(table, j * width, zeros) * fill(x, zeros)
        s += a
        squares += a * a
        linear += get(weights, j * step) * x
        if closely:
            square = fill(x * x, zeros)
            A += a * square
            B += (a * a) * square
            norm += x * x
    pairs = lane_sum(s * s - squares)
    G = _squared_slope(s, A, B, norm, one) if closely else one
    return s, squares, linear + pairs / (one + one), G


@inlined
def _ask_sparse(
    values: Any, one_hot: bool, begin: int, end: int, s: Any, squares: Any, rate: Any, most: Any,
    one: Any, t: int, recent: Any,
) -> Any:  # fmt: skip
    """Of a row that may ask: whether it does, G of one-hot rows, and `_after_asking`."""
    if one_hot:
        m = cast(end - begin, one)
        of_V = (m - one) * lane_sum(s * s) - lane_sum(s * s - squares)
        return True, (one + m) + of_V, recent
    norm, fourth = one - one, one - one
    for entry in range(begin, end):
        square = get(values, entry) * get(values, entry)
        norm += square
        fourth += square * square
    asks = _asks(s, squares, norm, fourth, rate, most, one)
    return asks, one, _after_asking(t, *recent) if asks else recent


@inlined
def _step_sparse(
    indices: Any, values: Any, one_hot: bool, table: Any, width: int, weights: Any, step: int,
    begin: int, end: int, s: Any, g: Any, keeps: Any, zeros: Any, one: Any,
) -> None:  # fmt: skip
    """The step of a row's v_j and w_j."""
    _keep_w0, keep_w, keep_V = keeps
    s *= fill(g, zeros)
    for entry in range(begin, end):
        j = np.int64(get(indices, entry))
        x = one if one_hot else get(values, entry)
        scale = fill(keep_V + g * (x * x), zeros)
        store(table, j * width, load(table, j * width, zeros) * scale - s * fill(x, zeros))
        put(weights, j * step, get(weights, j * step) * keep_w - g * x)


@inlined
def _announce_sparse_rows(
    indptr: Any, indices: Any, values: Any, one_hot: bool, target: Any, row_weights: Any,
    weighted: bool, order: Any, shuffled: bool, table: Any, width: int, weights: Any, step: int,
    line: int, near: bool, t: int,
) -> None:  # fmt: skip
    """Prefetch what visits t + 8, 16 and 24 will read; not of a table that is `near`.

    A row number leads to a row pointer, that to feature numbers, these to rows of the table: each
    is asked for when the one before it has arrived. `line` is the numbers in a cache line.
    """
    row = get(order, t + 24) if shuffled else t + 24
    prefetch(indptr, row)
    prefetch(target, row)
    if weighted:
        prefetch(row_weights, row)
    row = get(order, t + 16) if shuffled else t + 16
    begin, end = get(indptr, row), get(indptr, row + 1)
    for entry in range(begin, end, 16):
        prefetch(indices, entry)
    prefetch(indices, end - 1)
    if not one_hot:
        for entry in range(begin, end, line):
            prefetch(values, entry)
        prefetch(values, end - 1)
    if near:
        return
    row = get(order, t + 8) if shuffled else t + 8
    for entry in range(get(indptr, row), get(indptr, row + 1)):
        j = np.int64(get(indices, entry))
        for column in range(0, width, line):
            prefetch(table, j * width + column)
        if step == 1:
            prefetch(weights, j)


@functools.cache
def train_sparse(
    lanes: int, dtype: str, one_hot: bool, logistic: bool, weighted: bool = False
) -> Callable[..., tuple[float, int]]:
    """One pass over CSR rows: sum of the losses, each taken before its update; steps capped."""
    source, number = SOURCE, np.dtype(dtype).type
    one, zero = number(1), number(0)
    width, line = table_width(lanes, np.dtype(dtype)), CACHE_LINE // np.dtype(dtype).itemsize
    step = 1 if width == lanes else width

    def one_pass(
        indptr, indices, values, target, row_weights, heaviest, order, table, weights, largest,
        bias, learning_rate, limit, reg_w0, reg_w, reg_V,
    ):  # fmt: skip
        assert source
        shuffled, n_rows, zeros = len(order) > 0, len(target), zero_vector(zero, lanes)
        near, top = table.size * table.itemsize <= NEAR, number(learning_rate) * number(heaviest)
        starts, ids, xs = pointer(indptr), pointer(indices), pointer(values)
        ys, visits, V, w = pointer(target), pointer(order), pointer(table), pointer(weights)
        us, rate, w0 = pointer(row_weights) if weighted else ys, number(learning_rate), bias[0]
        regs, n_capped, total = (number(reg_w0), number(reg_w), number(reg_V)), 0, 0.0
        most, keeps, recent = number(limit), _keeps(rate, *regs, one), (0, -1, 0)
        calm, weight = _first_look(top, most, number(largest), one_hot, one, zero_vector(zero, 4))
        for t in range(n_rows):
            i = get(visits, t) if shuffled else t
            if (shuffled or not near) and t + 24 < n_rows:
                _announce_sparse_rows(
                    starts, ids, xs, one_hot, ys, us, weighted, visits, shuffled, V, width, w, step,
                    line, near, t,
                )  # fmt: skip
            u, row_rate, row_keeps = _step_of_row(us, i, weighted, rate, keeps, regs, one)
            if u == zero:
                continue
            begin, end = get(starts, i), get(starts, i + 1)
            asks, G = not one_hot and t < recent[2], one
            if not asks:
                s, squares, score, _G = _score_sparse_row(
                    ids, xs, one_hot, V, width, w, step, begin, end, zeros, one, closely=False
                )
                if _may_ask(s, squares, calm, weight):
                    asks, G, recent = _ask_sparse(
                        xs, one_hot, begin, end, s, squares, row_rate, most, one, t, recent
                    )
            if asks and not one_hot:
                s, squares, score, G = _score_sparse_row(
                    ids, xs, one_hot, V, width, w, step, begin, end, zeros, one, closely=True
                )
            if asks and row_rate * G > most:
                row_rate, n_capped = most / G, n_capped + 1
                row_keeps = _keeps_capped(row_rate, *regs, one)
            loss, g = _loss_and_step(score, w0, get(ys, i), row_rate, logistic)
            total, w0 = total + loss * np.float64(u), w0 * row_keeps[0] - g
            _step_sparse(
                ids, xs, one_hot, V, width, w, step, begin, end, s, g, row_keeps, zeros, one
            )
        bias[0] = w0
        return total, n_capped

    return compile_cached(one_pass)


@functools.cache
def score_sparse(lanes: int, dtype: str, one_hot: bool) -> Callable[..., None]:
    """Scores of CSR rows into `scores` (float64); arguments as `train_sparse`."""
    source, number = SOURCE, np.dtype(dtype).type
    one, zero = number(1), number(0)
    width = table_width(lanes, np.dtype(dtype))
    step = 1 if width == lanes else width

    def score(indptr, indices, values, table, weights, bias, scores):
        assert source
        starts, ids, xs = pointer(indptr), pointer(indices), pointer(values)
        V, w, zeros, w0 = pointer(table), pointer(weights), zero_vector(zero, lanes), bias[0]
        for i in range(len(scores)):
            begin, end = get(starts, i), get(starts, i + 1)
            _s, _squares, without_w0, _G = _score_sparse_row(
                ids, xs, one_hot, V, width, w, step, begin, end, zeros, one, closely=False
            )
            scores[i] = without_w0 + w0

    return compile_cached(score)


# More than MAX_LANES factors: the same in blocks of MAX_LANES. `sums` is scratch for s.


@inlined
def _score_wide_row(
    indices: Any, values: Any, one_hot: bool, table: Any, lanes: int, weights: Any, sums: Any,
    begin: int, end: int, zeros: Any, one: Any,
) -> Any:  # fmt: skip
    """The score without w0, and what `_bound` asks for; s goes into `sums`."""
    pairs, energy, linear = one - one, one - one, one - one
    norm, fourth = one - one, one - one
    for block in range(0, lanes, MAX_LANES):
        s, squares = zeros, zeros
        for entry in range(begin, end):
            row = np.int64(get(indices, entry)) * lanes
            x = one if one_hot else get(values, entry)
            a = load(table, row + block, zeros) * fill(x, zeros)
            s += a
            squares += a * a
        store(sums, block, s)
        pairs += lane_sum(s * s - squares)
        energy += lane_sum(s * s + squares)
    for entry in range(begin, end):
        x = one if one_hot else get(values, entry)
        linear += get(weights, np.int64(get(indices, entry))) * x
        norm += x * x
        fourth += (x * x) * (x * x)
    return linear + pairs / (one + one), (pairs, energy, norm, fourth)


@inlined
def _squared_slope_wide(
    indices: Any, values: Any, one_hot: bool, table: Any, lanes: int, sums: Any, begin: int,
    end: int, zeros: Any, one: Any,
) -> Any:  # fmt: skip
    """As `_squared_slope_sparse`."""
    squares, norm = zeros, one - one
    for entry in range(begin, end):
        row = np.int64(get(indices, entry)) * lanes
        x = one if one_hot else get(values, entry)
        xs = fill(x, zeros)
        for block in range(0, lanes, MAX_LANES):
            slope = (load(sums, block, zeros) - load(table, row + block, zeros) * xs) * xs
            squares += slope * slope
        norm += x * x
    return (one + norm) + lane_sum(squares)


@functools.cache
def train_wide(
    dtype: str, one_hot: bool, logistic: bool, weighted: bool = False
) -> Callable[..., tuple[float, int]]:
    """As `train_sparse`, for more than MAX_LANES factors."""
    source, number = SOURCE, np.dtype(dtype).type
    one, zero = number(1), number(0)

    def one_pass(
        indptr, indices, values, target, row_weights, order, table, weights, sums, bias,
        learning_rate, limit, reg_w0, reg_w, reg_V,
    ):  # fmt: skip
        assert source
        shuffled, n_rows, zeros = len(order) > 0, len(target), zero_vector(zero, MAX_LANES)
        lanes = len(sums)
        starts, ids = pointer(indptr), pointer(indices)
        xs, ys = pointer(values), pointer(target)
        visits, V, w, all_s = pointer(order), pointer(table), pointer(weights), pointer(sums)
        us, rate, w0 = pointer(row_weights) if weighted else ys, number(learning_rate), bias[0]
        regs, n_capped, total = (number(reg_w0), number(reg_w), number(reg_V)), 0, 0.0
        most, keeps = number(limit), _keeps(rate, *regs, one)
        for t in range(n_rows):
            i = get(visits, t) if shuffled else t
            u, row_rate, row_keeps = _step_of_row(us, i, weighted, rate, keeps, regs, one)
            if u == zero:
                continue
            keep_w0, keep_w, keep_V = row_keeps
            begin, end = get(starts, i), get(starts, i + 1)
            score, sizes = _score_wide_row(
                ids, xs, one_hot, V, lanes, w, all_s, begin, end, zeros, one
            )
            if row_rate * _bound(*sizes, one) > most:
                G = _squared_slope_wide(ids, xs, one_hot, V, lanes, all_s, begin, end, zeros, one)
                if row_rate * G > most:
                    row_rate = most / G
                    keep_w0, keep_w, keep_V = _keeps_capped(row_rate, *regs, one)
                    n_capped += 1
            loss, g = _loss_and_step(score, w0, get(ys, i), row_rate, logistic)
            total += loss * np.float64(u)
            w0 = w0 * keep_w0 - g
            for entry in range(begin, end):
                j = np.int64(get(ids, entry))
                x = one if one_hot else get(xs, entry)
                scale, gx = fill(keep_V + g * (x * x), zeros), fill(g * x, zeros)
                for block in range(j * lanes, j * lanes + lanes, MAX_LANES):
                    s = load(all_s, block - j * lanes, zeros)
                    store(V, block, load(V, block, zeros) * scale - s * gx)
                put(w, j, get(w, j) * keep_w - g * x)
        bias[0] = w0
        return total, n_capped

    return compile_cached(one_pass)


@functools.cache
def score_wide(dtype: str, one_hot: bool) -> Callable[..., None]:
    """As `score_sparse`, for more than MAX_LANES factors."""
    source, number = SOURCE, np.dtype(dtype).type
    one, zero = number(1), number(0)

    def score(indptr, indices, values, table, weights, sums, bias, scores):
        assert source
        starts, ids, xs = pointer(indptr), pointer(indices), pointer(values)
        V, w, all_s = pointer(table), pointer(weights), pointer(sums)
        zeros, w0, lanes = zero_vector(zero, MAX_LANES), bias[0], len(sums)
        for i in range(len(scores)):
            begin, end = get(starts, i), get(starts, i + 1)
            without_w0, _sizes = _score_wide_row(
                ids, xs, one_hot, V, lanes, w, all_s, begin, end, zeros, one
            )
            scores[i] = without_w0 + w0

    return compile_cached(score)


# Dense rows (n_rows, n). w is (n,), V is (n, lanes). The linear part goes eight features at a time.


@inlined
def _score_dense_row(
    features: Any, row: int, n: int, w: Any, V: Any, lanes: int, zeros: Any, eight: Any, one: Any,
    closely: bool, squared: Any, norm: Any,
) -> Any:  # fmt: skip
    """As `_score_sparse_row`, for the row that begins at features[row].

    Four partial sums each, since an addition takes four cycles. Closely, `squared` holds x^2.
    """
    s0, s1, s2, s3 = zeros, zeros, zeros, zeros
    q0, q1, q2, q3 = zeros, zeros, zeros, zeros
    A0, A1, B0, B1 = zeros, zeros, zeros, zeros
    fours, eights = n - n % 4, n - n % 8
    for j in range(0, fours, 4):
        a0 = load(V, j * lanes, zeros) * fill(get(features, row + j), zeros)
        a1 = load(V, (j + 1) * lanes, zeros) * fill(get(features, row + j + 1), zeros)
        a2 = load(V, (j + 2) * lanes, zeros) * fill(get(features, row + j + 2), zeros)
        a3 = load(V, (j + 3) * lanes, zeros) * fill(get(features, row + j + 3), zeros)
        s0 += a0
        s1 += a1
        s2 += a2
        s3 += a3
        q0 += a0 * a0
        q1 += a1 * a1
        q2 += a2 * a2
        q3 += a3 * a3
        if closely:
            b0 = a0 * fill(get(squared, j), zeros)
            b1 = a1 * fill(get(squared, j + 1), zeros)
            b2 = a2 * fill(get(squared, j + 2), zeros)
            b3 = a3 * fill(get(squared, j + 3), zeros)
            A0 = (A0 + b0) + b2
            A1 = (A1 + b1) + b3
            B0 = (B0 + b0 * a0) + b2 * a2
            B1 = (B1 + b1 * a1) + b3 * a3
    for j in range(fours, n):
        a0 = load(V, j * lanes, zeros) * fill(get(features, row + j), zeros)
        s0 += a0
        q0 += a0 * a0
        if closely:
            b0 = a0 * fill(get(squared, j), zeros)
            A0 += b0
            B0 += b0 * a0
    products = eight
    for j in range(0, eights, 8):
        products += load(w, j, eight) * load(features, row + j, eight)
    linear = lane_sum(products)
    for j in range(eights, n):
        linear += get(w, j) * get(features, row + j)
    s = (s0 + s1) + (s2 + s3)
    squares = (q0 + q1) + (q2 + q3)
    pairs = lane_sum(s * s - squares)
    G = _squared_slope(s, A0 + A1, B0 + B1, norm, one) if closely else one
    return s, squares, linear + pairs / (one + one), G


@inlined
def _square_dense(features: Any, row: int, n: int, squared: Any, eight: Any) -> Any:
    """The squares of a row into `squared`; returns their sum and the sum of their squares."""
    norms, fourths, eights = eight, eight, n - n % 8
    for j in range(0, eights, 8):
        x8 = load(features, row + j, eight)
        store(squared, j, x8 * x8)
        norms += x8 * x8
        fourths += (x8 * x8) * (x8 * x8)
    norm, fourth = lane_sum(norms), lane_sum(fourths)
    for j in range(eights, n):
        square = get(features, row + j) * get(features, row + j)
        put(squared, j, square)
        norm += square
        fourth += square * square
    return norm, fourth


@inlined
def _step_dense(
    features: Any, row: int, n: int, w: Any, V: Any, lanes: int, scales: Any, s: Any, g: Any,
    keeps: Any, zeros: Any, eight: Any, one: Any,
) -> None:  # fmt: skip
    """As `_step_sparse`."""
    _keep_w0, keep_w, keep_V = keeps
    ones, zero, eights = fill(one, eight), one - one, n - n % 8
    g8, keep_w8, keep_V8 = fill(g, eight), fill(keep_w, eight), fill(keep_V, eight)
    for j in range(0, eights, 8):
        x8 = load(features, row + j, eight)
        store(scales, j, where_not_zero(x8, keep_V8, ones) + g8 * (x8 * x8))
        store(w, j, load(w, j, eight) * where_not_zero(x8, keep_w8, ones) - g8 * x8)
    for j in range(eights, n):
        x = get(features, row + j)
        put(scales, j, (keep_V if x != zero else one) + g * (x * x))
        put(w, j, get(w, j) * (keep_w if x != zero else one) - g * x)
    s *= fill(g, zeros)
    for j in range(n):
        v = load(V, j * lanes, zeros) * fill(get(scales, j), zeros)
        store(V, j * lanes, v - s * fill(get(features, row + j), zeros))


@inlined
def _announce_dense_row(
    features: Any, target: Any, row_weights: Any, weighted: bool, n: int, row: int
) -> None:
    """Prefetch what a visit will read."""
    prefetch(target, row)
    if weighted:
        prefetch(row_weights, row)
    for j in range(0, n, 8):
        prefetch(features, row * n + j)
    prefetch(features, row * n + n - 1)


@functools.cache
def train_dense(
    lanes: int, dtype: str, logistic: bool, weighted: bool = False
) -> Callable[..., tuple[float, int]]:
    """As `train_sparse`, over dense rows. `scales` is scratch, as long as w."""
    source, number = SOURCE, np.dtype(dtype).type
    one, zero = number(1), number(0)

    def one_pass(
        features, target, row_weights, heaviest, order, weights, factors, scales, largest, bias,
        learning_rate, limit, reg_w0, reg_w, reg_V,
    ):  # fmt: skip
        assert source
        shuffled, n_rows, n = len(order) > 0, len(target), len(weights)
        xs, ys, visits = pointer(features), pointer(target), pointer(order)
        w, V, v_scales = pointer(weights), pointer(factors), pointer(scales)
        us, rate, w0 = pointer(row_weights) if weighted else ys, number(learning_rate), bias[0]
        regs, n_capped, total = (number(reg_w0), number(reg_w), number(reg_V)), 0, 0.0
        most, keeps, recent = number(limit), _keeps(rate, *regs, one), (0, -1, 0)
        top = rate * number(heaviest)
        calm, weight = _first_look(top, most, number(largest), False, one, zero_vector(zero, 4))
        zeros, eight = zero_vector(zero, lanes), zero_vector(zero, 8)
        for t in range(n_rows):
            i = get(visits, t) if shuffled else t
            row = i * n
            if shuffled and t + 4 < n_rows:
                _announce_dense_row(xs, ys, us, weighted, n, get(visits, t + 4))
            u, row_rate, row_keeps = _step_of_row(us, i, weighted, rate, keeps, regs, one)
            if u == zero:
                continue
            asks, G, norm = t < recent[2], one, one
            if asks:
                norm, _fourth = _square_dense(xs, row, n, v_scales, eight)
            else:
                s, squares, score, _G = _score_dense_row(
                    xs, row, n, w, V, lanes, zeros, eight, one, False, v_scales, one
                )
                if _may_ask(s, squares, calm, weight):
                    norm, fourth = _square_dense(xs, row, n, v_scales, eight)
                    asks = _asks(s, squares, norm, fourth, row_rate, most, one)
                    recent = _after_asking(t, *recent) if asks else recent
            if asks:
                s, squares, score, G = _score_dense_row(
                    xs, row, n, w, V, lanes, zeros, eight, one, True, v_scales, norm
                )
            if asks and row_rate * G > most:
                row_rate, n_capped = most / G, n_capped + 1
                row_keeps = _keeps_capped(row_rate, *regs, one)
            loss, g = _loss_and_step(score, w0, get(ys, i), row_rate, logistic)
            total, w0 = total + loss * np.float64(u), w0 * row_keeps[0] - g
            _step_dense(xs, row, n, w, V, lanes, v_scales, s, g, row_keeps, zeros, eight, one)
        bias[0] = w0
        return total, n_capped

    return compile_cached(one_pass)


@functools.cache
def score_dense(lanes: int, dtype: str) -> Callable[..., None]:
    """Scores of dense rows into `scores` (float64); arguments as `train_dense`."""
    source, number = SOURCE, np.dtype(dtype).type
    one, zero = number(1), number(0)

    def score(features, weights, factors, bias, scores):
        assert source
        xs, w, V, n = pointer(features), pointer(weights), pointer(factors), len(weights)
        zeros, eight, w0 = zero_vector(zero, lanes), zero_vector(zero, 8), bias[0]
        for i in range(len(scores)):
            _s, _squares, without_w0, _G = _score_dense_row(
                xs, i * n, n, w, V, lanes, zeros, eight, one, False, w, one
            )
            scores[i] = without_w0 + w0

    return compile_cached(score)


# Around the passes


@functools.cache
def total_loss(logistic: bool, weighted: bool = False) -> Callable[..., float]:
    """Sum of the losses of scores and targets, each times its row's weight; all float64."""
    source = SOURCE

    def total(scores, target, row_weights):
        assert source
        sum_of_losses = 0.0
        for i in range(len(target)):
            if logistic:
                loss, _slope = _log_loss(scores[i], target[i])
            else:
                loss = (scores[i] - target[i]) * (scores[i] - target[i])
            if weighted:
                loss *= row_weights[i]
            sum_of_losses += loss
        return sum_of_losses

    return compile_cached(total)


@functools.cache
def shuffle() -> Callable[..., None]:
    """Fisher and Yates' shuffle of an order in place: a third of the time of NumPy's.

    `state` is four random 64-bit numbers, from which xoshiro256++ (Blackman and Vigna 2021) makes
    one for each row; the upper half of its product with the number of rows left (below 2^32) is
    where that row goes.
    """
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    by17, by19, by23, by41, by45 = map(np.uint64, (17, 19, 23, 41, 45))

    def shuffle_in_place(order, state):
        a, b, c, d = state[0], state[1], state[2], state[3]
        for i in range(len(order) - 1, 0, -1):
            random = a + d
            random = ((random << by23) | (random >> by41)) + a
            shifted = b << by17
            c ^= a
            d ^= b
            b ^= c
            a ^= d
            c ^= shifted
            d = (d << by45) | (d >> by19)
            left = np.uint64(i + 1)
            j = np.int64(((random >> half) * left + (((random & low) * left) >> half)) >> half)
            kept = order[i]
            order[i] = order[j]
            order[j] = kept

    return compile_cached(shuffle_in_place)


@functools.cache
def largest_squared_norm() -> Callable[..., float]:
    """The largest |x|^2 of CSR rows; of one-hot rows, the most entries."""

    def largest_of(indptr, values, one_hot):
        largest = 0.0
        for row in range(len(indptr) - 1):
            norm = 0.0
            if one_hot:
                norm += indptr[row + 1] - indptr[row]
            else:
                for entry in range(indptr[row], indptr[row + 1]):
                    norm += values[entry] * values[entry]
            if norm > largest:
                largest = norm
        return largest

    return compile_cached(largest_of)


@functools.cache
def first_bad_row() -> Callable[..., int]:
    """The first CSR row with a feature number out of range or twice in it; -1 if there is none."""

    def check(indptr, indices, last_seen):
        for row in range(len(indptr) - 1):
            for entry in range(indptr[row], indptr[row + 1]):
                feature = indices[entry]
                if feature < 0 or feature >= len(last_seen) or last_seen[feature] == row:
                    return row
                last_seen[feature] = row
        return -1

    return compile_cached(check)
