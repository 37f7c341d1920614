"""The compiled loops of numpy_sgd: a pass of per-sample SGD, scores, losses.

The same bits on every x86-64 CPU: no fastmath, no contraction, every sum in a written-down order,
and an exponential of our own (that of the C library depends on the CPU).

All of it stands in this one file because Numba's cache looks for changes in this file only. Nothing
here checks a bound: `numpy_sgd` checks every array before it enters.

Part 1 is a SIMD vector for Numba. The inner loop of an FM runs over k factors; it is short, and
LLVM does not vectorise it by itself since it cannot rule out that the arrays overlap. So all k
factors of a feature (padded to K lanes) are one value of an LLVM vector type, and there is no inner
loop. LLVM maps K lanes on whatever registers the CPU has; lanes are independent, so this changes no
bit.

Part 2 is the kernels. With a row x, s = sum_j v_j x_j and g = learning rate * dloss/dy_hat:

    v_j <- v_j (1 - lr reg_V + g x_j^2) - g x_j s        for the j with x_j != 0
    w_j <- w_j (1 - lr reg_w) - g x_j                    for the j with x_j != 0
    w0  <- w0 (1 - lr reg_w0) - g

A factor that is 0 everywhere stays 0, so the padded lanes never matter.
"""

# Compiled by Numba, whose types are not Python's:
# mypy: disable-error-code="misc,no-any-return,no-untyped-call,no-untyped-def,untyped-decorator"

from __future__ import annotations

import functools
import operator
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic as numba_intrinsic
from numba.extending import lower_builtin, models, register_model

if TYPE_CHECKING:
    from collections.abc import Callable

intrinsic: Any = numba_intrinsic

CACHE_LINE = 64
"""Bytes."""

MAX_LANES = 64
"""Lanes of the widest vector; more factors are taken in blocks of this many."""


# ---------------------------------------------------------------------------------------------
# Part 1: a SIMD vector for Numba


class Vector(types.Type):
    """`lanes` numbers of one dtype. Lives inside kernels only, never as an argument."""

    def __init__(self, dtype: types.Type, lanes: int) -> None:
        self.dtype = dtype
        self.lanes = lanes
        super().__init__(name=f"Vector({dtype}, {lanes})")

    @property
    def llvm(self) -> ir.Type:
        """The LLVM type, for example <8 x double>."""
        return ir.VectorType(
            ir.FloatType() if self.dtype == types.float32 else ir.DoubleType(), self.lanes
        )


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    """Stored as the LLVM vector itself."""

    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.llvm)


def _define_operator(python_operator: Callable[..., Any], instruction: str) -> None:
    """Give two vectors of one type an arithmetic operator, lane by lane."""

    @infer_global(python_operator)
    class _Typing(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:  # noqa: ARG002
            if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
                return signature(args[0], *args)
            return None

    @lower_builtin(python_operator, Vector, Vector)
    def _lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        return getattr(builder, instruction)(*args)


for _operators, _instruction in (
    ((operator.add, operator.iadd), "fadd"),
    ((operator.sub, operator.isub), "fsub"),
    ((operator.mul, operator.imul), "fmul"),
):
    for _operator in _operators:
        _define_operator(_operator, _instruction)


def _address(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    """Pointer to element `offset` of a C-contiguous array."""
    data = cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
    return builder.gep(data, [offset])


@intrinsic(prefer_literal=True)
def _zeros(typing: Any, zero: Any, lanes: Any) -> Any:  # noqa: ARG001
    """A vector of zeros, of the dtype of `zero`; `lanes` is known when the kernel is compiled."""
    vector = Vector(zero, lanes.literal_value)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        return ir.Constant(vector.llvm, [0.0] * vector.lanes)

    return vector(zero, lanes), generate


@intrinsic
def _fill(typing: Any, x: Any, like: Any) -> Any:  # noqa: ARG001
    """A vector with x in every lane."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        int32 = ir.IntType(32)
        undefined = ir.Constant(like.llvm, ir.Undefined)
        first = builder.insert_element(undefined, args[0], ir.Constant(int32, 0))
        mask = ir.Constant(ir.VectorType(int32, like.lanes), [0] * like.lanes)
        return builder.shuffle_vector(first, undefined, mask)

    return like(like.dtype, like), generate


@intrinsic
def _load(typing: Any, array: Any, offset: Any, like: Any) -> Any:  # noqa: ARG001
    """The vector array.flat[offset : offset + lanes]."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        address = _address(context, builder, array, args[0], args[1])
        address = builder.bitcast(address, like.llvm.as_pointer())
        return builder.load(address, align=array.dtype.bitwidth // 8)

    return like(array, offset, like), generate


@intrinsic
def _store(typing: Any, array: Any, offset: Any, vector: Any) -> Any:  # noqa: ARG001
    """array.flat[offset : offset + lanes] = vector."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        address = _address(context, builder, array, args[0], args[1])
        address = builder.bitcast(address, vector.llvm.as_pointer())
        builder.store(args[2], address, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, offset, vector), generate


@intrinsic
def _sum(typing: Any, vector: Any) -> Any:  # noqa: ARG001
    """Sum of the lanes: the upper half is added to the lower half until one lane is left."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        int32, rest, lanes = ir.IntType(32), args[0], vector.lanes
        while lanes > 1:
            lanes //= 2
            halves = (list(range(lanes)), list(range(lanes, 2 * lanes)))
            masks = [ir.Constant(ir.VectorType(int32, lanes), half) for half in halves]
            undefined = ir.Constant(rest.type, ir.Undefined)
            low, high = (builder.shuffle_vector(rest, undefined, mask) for mask in masks)
            rest = builder.fadd(low, high)
        return builder.extract_element(rest, ir.Constant(int32, 0))

    return vector.dtype(vector), generate


@intrinsic
def _where_not_zero(typing: Any, condition: Any, then: Any, otherwise: Any) -> Any:  # noqa: ARG001
    """Lane by lane: `then` where `condition` is not zero (or NaN), else `otherwise`."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        zero = ir.Constant(condition.llvm, [0.0] * condition.lanes)
        return builder.select(builder.fcmp_unordered("!=", args[0], zero), args[1], args[2])

    return then(condition, then, otherwise), generate


@intrinsic
def _at(typing: Any, array: Any, offset: Any) -> Any:  # noqa: ARG001
    """array.flat[offset], without the handling of negative offsets that array[offset] has."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        return builder.load(_address(context, builder, array, args[0], args[1]))

    return array.dtype(array, offset), generate


@intrinsic
def _put(typing: Any, array: Any, offset: Any, x: Any) -> Any:  # noqa: ARG001
    """array.flat[offset] = x; see `_at`."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        builder.store(args[2], _address(context, builder, array, args[0], args[1]))
        return context.get_dummy_value()

    return types.void(array, offset, array.dtype), generate


@intrinsic
def _prefetch(typing: Any, array: Any, offset: Any) -> Any:  # noqa: ARG001
    """Ask for the cache line of array.flat[offset]; never faults, changes nothing but time."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        int32, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        prefetch = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [pointer, int32, int32, int32]),
            "llvm.prefetch.p0",
        )
        address = builder.bitcast(_address(context, builder, array, args[0], args[1]), pointer)
        to_write, keep, data = (ir.Constant(int32, number) for number in (1, 3, 1))
        builder.call(prefetch, [address, to_write, keep, data])
        return context.get_dummy_value()

    return types.void(array, offset), generate


@intrinsic
def _power_of_two(typing: Any, n: Any) -> Any:  # noqa: ARG001
    """2.0**n for an int64 n from -1022 to 1023: the bits of the exponent, written directly."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        int64 = ir.IntType(64)
        biased = builder.add(args[0], ir.Constant(int64, 1023))
        return builder.bitcast(builder.shl(biased, ir.Constant(int64, 52)), ir.DoubleType())

    return types.float64(types.int64), generate


# ---------------------------------------------------------------------------------------------
# How parameters lie in memory


def lanes_of(k: int) -> int:
    """Lanes for k factors: 4, 8, 16, 32, 64, then multiples of 64."""
    return next((lanes for lanes in (4, 8, 16, 32, MAX_LANES) if k <= lanes), -(-k // 64) * 64)


def aligned_zeros(n_rows: int, n_columns: int, dtype: np.dtype[Any]) -> np.ndarray:
    """Zeros of shape (n_rows, n_columns) that begin on a cache line."""
    n_bytes = n_rows * n_columns * dtype.itemsize
    raw = np.zeros(n_bytes + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + n_bytes].view(dtype).reshape(n_rows, n_columns)


def table_width(lanes: int, dtype: np.dtype[Any]) -> int:
    """Numbers in a row of the table of parameters: lanes, then w_j, up to a whole cache line.

    Four lanes of float32 and their weight take half a line.
    """
    line = CACHE_LINE // dtype.itemsize
    return line // 2 if lanes < line // 2 else -(-(lanes + 1) // line) * line


# ---------------------------------------------------------------------------------------------
# Part 2: the kernels


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile with Numba; cache beside this file, in the home, or in a folder for scratch files."""
    jit = numba.njit(nogil=True, cache=True, error_model="numpy")
    try:
        return jit(function)
    except RuntimeError as error:  # neither this file's folder nor the home is writable
        if "cannot cache function" not in str(error):
            raise
        settings: Any = numba.config
        settings.CACHE_DIR = _scratch_folder()
        return jit(function)


def _scratch_folder() -> str:
    """A folder that only this user can write: what lies in the cache is executed."""
    folder = Path(tempfile.gettempdir()) / f"fmexp-numba-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
    if folder.is_symlink() or state.st_uid != os.getuid() or state.st_mode & 0o077:
        return tempfile.mkdtemp(prefix="fmexp-numba-")
    return str(folder)


_inlined = numba.njit(forceinline=True, error_model="numpy")

_LOG2_E = 1.4426950408889634
_LN2_HIGH = 6.93147180369123816490e-01  # its last 21 bits are 0: n * _LN2_HIGH is exact
_LN2_LOW = 1.90821492927058770002e-10
_EXP = tuple((-1.0) ** i / float(np.prod(np.arange(1.0, i + 1))) for i in range(14))
_ATANH = tuple(1.0 / (2 * i + 1) for i in range(19))


@_inlined
def _exp_minus(x: float) -> float:
    """e^-x for x >= 0, float64: e^-r for |r| <= ln(2)/2 by its series, times a power of two."""
    if not x < 708.0:
        return 0.0 * x  # NaN stays NaN
    n = np.int64(x * _LOG2_E + 0.5)
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    series = _EXP[13]
    for i in range(12, -1, -1):
        series = series * r + _EXP[i]
    return series * _power_of_two(-n)


@_inlined
def _log_one_plus(x: float) -> float:
    """log(1 + x) for 0 <= x <= 1, float64: 2 atanh(z) with z = x / (2 + x) by its series."""
    z = x / (2.0 + x)
    square = z * z
    series = _ATANH[18]
    for i in range(17, -1, -1):
        series = series * square + _ATANH[i]
    return 2.0 * z * series


@_inlined
def _log_loss(score: float, target: float) -> tuple[float, float]:
    """Log loss of a logit and its derivative, float64."""
    small = _exp_minus(abs(score))
    loss = max(score, 0.0) - target * score + _log_one_plus(small)
    return loss, (1.0 if score >= 0.0 else small) / (1.0 + small) - target


@_inlined
def _sums_of_sparse_row(
    indices: Any,
    values: Any,
    one: Any,
    one_hot: bool,
    table: Any,
    w: int,
    begin: int,
    end: int,
    zeros: Any,
) -> Any:
    """(s = sum_j v_j x_j, sum_f (s_f^2 - sum_j v_jf^2 x_j^2), sum_j w_j x_j); w is in column w."""
    width = table.shape[1]
    s, squares, linear = zeros, zeros, one - one
    for entry in range(begin, end):
        row = np.int64(_at(indices, entry)) * width
        x = one if one_hot else _at(values, entry)
        a = _load(table, row, zeros) * _fill(x, zeros)
        s += a
        squares += a * a
        linear += _at(table, row + w) * x
    return s, _sum(s * s - squares), linear


@_inlined
def _sums_of_wide_row(
    indices: Any,
    values: Any,
    one: Any,
    one_hot: bool,
    table: Any,
    sums: Any,
    begin: int,
    end: int,
    zeros: Any,
) -> Any:
    """As `_sums_of_sparse_row`, block after block; s goes into `sums`."""
    width, lanes, pairs, linear = table.shape[1], len(sums), one - one, one - one
    for block in range(0, lanes, MAX_LANES):
        s, squares = zeros, zeros
        for entry in range(begin, end):
            row = np.int64(_at(indices, entry)) * width
            x = one if one_hot else _at(values, entry)
            a = _load(table, row + block, zeros) * _fill(x, zeros)
            s += a
            squares += a * a
        _store(sums, block, s)
        pairs += _sum(s * s - squares)
    for entry in range(begin, end):
        x = one if one_hot else _at(values, entry)
        linear += _at(table, np.int64(_at(indices, entry)) * width + lanes) * x
    return pairs, linear


@_inlined
def _announce_sparse_rows(
    indptr: Any, indices: Any, values: Any, target: Any, order: Any, table: Any, t: int, lanes: int
) -> None:
    """Prefetch what visits t + 8, 16 and 24 will read.

    A row number leads to a row pointer, that to feature numbers, these to rows of the table: each
    is asked for when the one before it has arrived.
    """
    line = 64 // table.itemsize
    row = _at(order, t + 24)
    _prefetch(indptr, row)
    _prefetch(target, row)
    row = _at(order, t + 16)
    begin, end = _at(indptr, row), _at(indptr, row + 1)
    for entry in range(begin, end, 16):
        _prefetch(indices, entry)
    for entry in range(begin, end, line):
        _prefetch(values, entry)
    row = _at(order, t + 8)
    for entry in range(_at(indptr, row), _at(indptr, row + 1)):
        first = np.int64(_at(indices, entry)) * table.shape[1]
        for column in range(0, lanes + 1, line):
            _prefetch(table, first + column)


@functools.cache
def train_sparse(lanes: int, dtype: str, one_hot: bool, logistic: bool) -> Callable[..., float]:
    """One pass over CSR rows; returns the sum of the losses, each taken before its update.

    Of the compiled function's arguments, `table` has rows of `table_width(lanes)`: v_j, w_j,
    padding; `bias` is [w0]; both are updated. `order` is a permutation of the rows, or empty for
    as they come. `values` is not read for one-hot rows.
    """
    number = np.dtype(dtype).type
    one, half, zero = number(1), number(0.5), number(0)

    def one_pass(
        indptr, indices, values, target, order, table, bias, learning_rate, reg_w0, reg_w, reg_V
    ):
        rate, w0, width, total = number(learning_rate), bias[0], table.shape[1], 0.0
        keep_w0 = one - rate * number(reg_w0)
        keep_w, keep_V = one - rate * number(reg_w), one - rate * number(reg_V)
        zeros = _zeros(zero, lanes)
        shuffled, n_rows = len(order) > 0, len(target)
        for t in range(n_rows):
            i = _at(order, t) if shuffled else t
            if shuffled and t + 24 < n_rows:
                _announce_sparse_rows(indptr, indices, values, target, order, table, t, lanes)
            begin, end = _at(indptr, i), _at(indptr, i + 1)
            s, pairs, linear = _sums_of_sparse_row(
                indices, values, one, one_hot, table, lanes, begin, end, zeros
            )
            score = (linear + half * pairs) + w0  # w0 last: the next row waits for it
            if logistic:
                loss, slope = _log_loss(np.float64(score), np.float64(_at(target, i)))
                g = rate * number(slope)
            else:
                error = score - _at(target, i)
                loss = np.float64(error) * np.float64(error)
                g = rate * error
            total += loss
            w0 = w0 * keep_w0 - g
            s *= _fill(g, zeros)
            for entry in range(begin, end):
                row = np.int64(_at(indices, entry)) * width
                x = one if one_hot else _at(values, entry)
                scale = _fill(keep_V + g * x * x, zeros)
                _store(table, row, _load(table, row, zeros) * scale - s * _fill(x, zeros))
                _put(table, row + lanes, _at(table, row + lanes) * keep_w - g * x)
        bias[0] = w0
        return total

    return _compile(one_pass)


@functools.cache
def train_wide(dtype: str, one_hot: bool, logistic: bool) -> Callable[..., float]:
    """As `train_sparse` for more than MAX_LANES factors: in blocks of MAX_LANES.

    `sums` is scratch for s, as long as a row's lanes.
    """
    number = np.dtype(dtype).type
    one, half, zero = number(1), number(0.5), number(0)

    def one_pass(
        indptr,
        indices,
        values,
        target,
        order,
        table,
        sums,
        bias,
        learning_rate,
        reg_w0,
        reg_w,
        reg_V,
    ):
        rate, w0, width, total = number(learning_rate), bias[0], table.shape[1], 0.0
        keep_w0 = one - rate * number(reg_w0)
        keep_w, keep_V = one - rate * number(reg_w), one - rate * number(reg_V)
        zeros, lanes = _zeros(zero, MAX_LANES), len(sums)
        shuffled = len(order) > 0
        for t in range(len(target)):
            i = _at(order, t) if shuffled else t
            begin, end = _at(indptr, i), _at(indptr, i + 1)
            pairs, linear = _sums_of_wide_row(
                indices, values, one, one_hot, table, sums, begin, end, zeros
            )
            score = (linear + half * pairs) + w0
            if logistic:
                loss, slope = _log_loss(np.float64(score), np.float64(_at(target, i)))
                g = rate * number(slope)
            else:
                error = score - _at(target, i)
                loss = np.float64(error) * np.float64(error)
                g = rate * error
            total += loss
            w0 = w0 * keep_w0 - g
            g_fill = _fill(g, zeros)
            for entry in range(begin, end):
                row = np.int64(_at(indices, entry)) * width
                x = one if one_hot else _at(values, entry)
                scale, x_fill = _fill(keep_V + g * x * x, zeros), _fill(x, zeros)
                for block in range(0, lanes, MAX_LANES):
                    step = _load(sums, block, zeros) * g_fill * x_fill
                    v = _load(table, row + block, zeros)
                    _store(table, row + block, v * scale - step)
                _put(table, row + lanes, _at(table, row + lanes) * keep_w - g * x)
        bias[0] = w0
        return total

    return _compile(one_pass)


@functools.cache
def score_sparse(lanes: int, dtype: str, one_hot: bool) -> Callable[..., None]:
    """Scores of CSR rows into `scores` (float64); arguments as `train_sparse`."""
    number = np.dtype(dtype).type
    one, half, zero = number(1), number(0.5), number(0)

    def score(indptr, indices, values, table, bias, scores):
        zeros, w0 = _zeros(zero, lanes), bias[0]
        for i in range(len(scores)):
            _s, pairs, linear = _sums_of_sparse_row(
                indices,
                values,
                one,
                one_hot,
                table,
                lanes,
                _at(indptr, i),
                _at(indptr, i + 1),
                zeros,
            )
            scores[i] = (linear + half * pairs) + w0

    return _compile(score)


@functools.cache
def score_wide(dtype: str, one_hot: bool) -> Callable[..., None]:
    """As `score_sparse` for more than MAX_LANES factors; see `train_wide`."""
    number = np.dtype(dtype).type
    one, half, zero = number(1), number(0.5), number(0)

    def score(indptr, indices, values, table, sums, bias, scores):
        zeros, w0 = _zeros(zero, MAX_LANES), bias[0]
        for i in range(len(scores)):
            pairs, linear = _sums_of_wide_row(
                indices,
                values,
                one,
                one_hot,
                table,
                sums,
                _at(indptr, i),
                _at(indptr, i + 1),
                zeros,
            )
            scores[i] = (linear + half * pairs) + w0

    return _compile(score)


@_inlined
def _sums_of_dense_row(features: Any, w: Any, V: Any, row: int, zeros: Any, line: Any) -> Any:
    """As `_sums_of_sparse_row`, for the dense row that begins at features.flat[row].

    Four partial sums each, since an addition takes four cycles; `line` is a vector of zeros of one
    cache line, for the linear part.
    """
    n, lanes = len(w), V.shape[1]
    s0, s1, s2, s3 = zeros, zeros, zeros, zeros
    q0, q1, q2, q3 = zeros, zeros, zeros, zeros
    fours = n - n % 4
    for j in range(0, fours, 4):
        at = j * lanes
        a0 = _load(V, at, zeros) * _fill(_at(features, row + j), zeros)
        a1 = _load(V, at + lanes, zeros) * _fill(_at(features, row + j + 1), zeros)
        a2 = _load(V, at + 2 * lanes, zeros) * _fill(_at(features, row + j + 2), zeros)
        a3 = _load(V, at + 3 * lanes, zeros) * _fill(_at(features, row + j + 3), zeros)
        s0 += a0
        s1 += a1
        s2 += a2
        s3 += a3
        q0 += a0 * a0
        q1 += a1 * a1
        q2 += a2 * a2
        q3 += a3 * a3
    for j in range(fours, n):
        a0 = _load(V, j * lanes, zeros) * _fill(_at(features, row + j), zeros)
        s0 += a0
        q0 += a0 * a0
    per_line = 64 // w.itemsize
    lines = n - n % per_line
    products = line
    for j in range(0, lines, per_line):
        products += _load(w, j, line) * _load(features, row + j, line)
    linear = _sum(products)
    for j in range(lines, n):
        linear += _at(w, j) * _at(features, row + j)
    s = (s0 + s1) + (s2 + s3)
    return s, _sum(s * s - ((q0 + q1) + (q2 + q3))), linear


@functools.cache
def train_dense(lanes: int, dtype: str, logistic: bool) -> Callable[..., float]:
    """As `train_sparse`, over dense rows (n_rows, n); w is (n,), V is (n, lanes)."""
    number = np.dtype(dtype).type
    one, half, zero = number(1), number(0.5), number(0)
    per_line = CACHE_LINE // np.dtype(dtype).itemsize

    def one_pass(features, target, order, w, V, bias, learning_rate, reg_w0, reg_w, reg_V):
        rate, w0, n, total = number(learning_rate), bias[0], len(w), 0.0
        keep_w0 = one - rate * number(reg_w0)
        keep_w, keep_V = one - rate * number(reg_w), one - rate * number(reg_V)
        zeros, line = _zeros(zero, lanes), _zeros(zero, per_line)
        ones, keep_line = _fill(one, line), _fill(keep_w, line)
        shuffled, n_rows = len(order) > 0, len(target)
        lines = n - n % per_line
        for t in range(n_rows):
            i = _at(order, t) if shuffled else t
            row = i * n
            if shuffled and t + 2 < n_rows:
                ahead = _at(order, t + 2) * n
                for j in range(0, n, per_line):
                    _prefetch(features, ahead + j)
            s, pairs, linear = _sums_of_dense_row(features, w, V, row, zeros, line)
            score = (linear + half * pairs) + w0  # w0 last: the next row waits for it
            if logistic:
                loss, slope = _log_loss(np.float64(score), np.float64(_at(target, i)))
                g = rate * number(slope)
            else:
                error = score - _at(target, i)
                loss = np.float64(error) * np.float64(error)
                g = rate * error
            total += loss
            w0 = w0 * keep_w0 - g
            g_line = _fill(g, line)
            for j in range(0, lines, per_line):
                x_line = _load(features, row + j, line)
                keep = _where_not_zero(x_line, keep_line, ones)
                _store(w, j, _load(w, j, line) * keep - g_line * x_line)
            for j in range(lines, n):
                x = _at(features, row + j)
                _put(w, j, _at(w, j) * (keep_w if x != zero else one) - g * x)
            s *= _fill(g, zeros)
            for j in range(n):
                x = _at(features, row + j)
                scale = _fill((keep_V if x != zero else one) + g * x * x, zeros)
                at = j * lanes
                _store(V, at, _load(V, at, zeros) * scale - s * _fill(x, zeros))
        bias[0] = w0
        return total

    return _compile(one_pass)


@functools.cache
def score_dense(lanes: int, dtype: str) -> Callable[..., None]:
    """Scores of dense rows into `scores` (float64); arguments as `train_dense`."""
    number = np.dtype(dtype).type
    half, zero = number(0.5), number(0)
    per_line = CACHE_LINE // np.dtype(dtype).itemsize

    def score(features, w, V, bias, scores):
        zeros, line, w0 = _zeros(zero, lanes), _zeros(zero, per_line), bias[0]
        for i in range(len(scores)):
            _s, pairs, linear = _sums_of_dense_row(features, w, V, i * len(w), zeros, line)
            scores[i] = (linear + half * pairs) + w0

    return _compile(score)


@functools.cache
def total_loss(logistic: bool) -> Callable[..., float]:
    """Sum of the losses of scores and targets, both float64."""

    def total(scores, target):
        sum_of_losses = 0.0
        for i in range(len(target)):
            if logistic:
                loss, _slope = _log_loss(scores[i], target[i])
            else:
                loss = (scores[i] - target[i]) * (scores[i] - target[i])
            sum_of_losses += loss
        return sum_of_losses

    return _compile(total)


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

    return _compile(check)
