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
"""

# Compiled by Numba, whose types are not Python's:
# mypy: disable-error-code="misc,no-any-return,no-untyped-call,no-untyped-def,untyped-decorator"
# mypy: disable-error-code="call-arg"

from __future__ import annotations

import functools
import hashlib
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

NEAR = 2**20
"""Bytes of a table that stays close to the core; rows of a larger one are asked for in advance."""

MAX_LANES = 64
"""Lanes of the widest vector; more factors are taken in blocks of this many."""

FEW, MANY = 8, 512
"""Where FEW rows one after the other ask for G, the next MANY are scored closely at once."""

SOURCE = int(hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12], 16)
"""Digest of this file; kernels elsewhere that use its parts enclose it, for Numba's cache."""


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


@intrinsic
def _pointer(typing: Any, array: Any) -> Any:  # noqa: ARG001
    """Where an array begins.

    Kernels work on pointers, since Numba counts references to arrays that are handed to a helper:
    two atomic operations each, which cost more than the helper.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        return cgutils.create_struct_proxy(array)(context, builder, value=args[0]).data

    return types.CPointer(array.dtype)(array), generate


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
def _load(typing: Any, start: Any, offset: Any, like: Any) -> Any:  # noqa: ARG001
    """The vector start[offset : offset + lanes]."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        address = builder.bitcast(builder.gep(args[0], [args[1]]), like.llvm.as_pointer())
        return builder.load(address, align=start.dtype.bitwidth // 8)

    return like(start, offset, like), generate


@intrinsic
def _store(typing: Any, start: Any, offset: Any, vector: Any) -> Any:  # noqa: ARG001
    """start[offset : offset + lanes] = vector."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        address = builder.bitcast(builder.gep(args[0], [args[1]]), vector.llvm.as_pointer())
        builder.store(args[2], address, align=start.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(start, offset, vector), generate


def _folded(builder: Any, rest: Any, lanes: int, to: int) -> Any:
    """The upper half of the lanes is added to the lower half until `to` lanes are left."""
    while lanes > to:
        lanes //= 2
        halves = (list(range(lanes)), list(range(lanes, 2 * lanes)))
        masks = [ir.Constant(ir.VectorType(ir.IntType(32), lanes), half) for half in halves]
        undefined = ir.Constant(rest.type, ir.Undefined)
        low, high = (builder.shuffle_vector(rest, undefined, mask) for mask in masks)
        rest = builder.fadd(low, high)
    return rest


@intrinsic
def _sum(typing: Any, vector: Any) -> Any:  # noqa: ARG001
    """Sum of the lanes; see `_folded`."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        lane = _folded(builder, args[0], vector.lanes, 1)
        return builder.extract_element(lane, ir.Constant(ir.IntType(32), 0))

    return vector.dtype(vector), generate


@intrinsic
def _fold(typing: Any, vector: Any, like: Any) -> Any:  # noqa: ARG001
    """The lanes added up to as many as `like` has; see `_folded`."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        return _folded(builder, args[0], vector.lanes, like.lanes)

    return like(vector, like), generate


@intrinsic
def _where_not_zero(typing: Any, condition: Any, then: Any, otherwise: Any) -> Any:  # noqa: ARG001
    """Lane by lane: `then` where `condition` is not zero (or NaN), else `otherwise`."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        zero = ir.Constant(condition.llvm, [0.0] * condition.lanes)
        return builder.select(builder.fcmp_unordered("!=", args[0], zero), args[1], args[2])

    return then(condition, then, otherwise), generate


@intrinsic
def _any_above(typing: Any, vector: Any, threshold: Any) -> Any:  # noqa: ARG001
    """Whether a lane of a vector is above the same lane of another, which is seldom so.

    LLVM is told that, and moves what follows out of the way.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        bits, boolean = ir.IntType(vector.lanes), ir.IntType(1)
        above = builder.bitcast(builder.fcmp_ordered(">", *args), bits)
        expect = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(boolean, [boolean, boolean]), "llvm.expect.i1"
        )
        found = builder.icmp_unsigned("!=", above, ir.Constant(bits, 0))
        return builder.call(expect, [found, ir.Constant(boolean, 0)])

    return types.boolean(vector, threshold), generate


@intrinsic
def _at(typing: Any, start: Any, offset: Any) -> Any:  # noqa: ARG001
    """start[offset]."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        return builder.load(builder.gep(args[0], [args[1]]))

    return start.dtype(start, offset), generate


@intrinsic
def _put(typing: Any, start: Any, offset: Any, x: Any) -> Any:  # noqa: ARG001
    """start[offset] = x; see `_at`."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        builder.store(args[2], builder.gep(args[0], [args[1]]))
        return context.get_dummy_value()

    return types.void(start, offset, start.dtype), generate


@intrinsic
def _prefetch(typing: Any, start: Any, offset: Any) -> Any:  # noqa: ARG001
    """Ask for the cache line of start[offset]; never faults, changes nothing but time.

    To read, although tables are written: a line that is asked for to write leaves the caches of
    the other cores, and trials on several threads share their feature rows.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        int32, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        prefetch = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [pointer, int32, int32, int32]),
            "llvm.prefetch.p0",
        )
        address = builder.bitcast(builder.gep(args[0], [args[1]]), pointer)
        to_read, keep, data = (ir.Constant(int32, number) for number in (0, 3, 1))
        builder.call(prefetch, [address, to_read, keep, data])
        return context.get_dummy_value()

    return types.void(start, offset), generate


@intrinsic
def _cast(typing: Any, x: Any, like: Any) -> Any:  # noqa: ARG001
    """Return x as a number of the type of `like`."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        return context.cast(builder, args[0], x, like)

    return like(x, like), generate


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
    """Numbers in a row of the table of factors.

    Lanes that fill whole cache lines are all of it. Where they do not, w_j comes next: it is in the
    line that is there already. Elsewhere it would take a line of its own, so w is an array.
    """
    return 2 * lanes if lanes * dtype.itemsize < CACHE_LINE else lanes


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
def _loss_and_step(
    score: Any, w0: Any, target: Any, rate: Any, logistic: bool
) -> tuple[float, Any]:
    """A row's loss (float64), and g = rate * dloss/dy_hat. `score` is y_hat without w0.

    w0 joins last, since the row before this one has only just changed it.
    """
    if logistic:
        loss, slope = _log_loss(np.float64(score + w0), np.float64(target))
        return loss, rate * _cast(slope, rate)
    error = score + (w0 - target)
    return np.float64(error) * np.float64(error), rate * error


@_inlined
def _bound(pairs: Any, energy: Any, norm: Any, fourth: Any, one: Any) -> Any:
    """At least G, from sum_f (s_f^2 - q_f), sum_f (s_f^2 + q_f), |x|^2 and sum_j x_j^4."""
    two = one + one
    of_s, of_q = (energy + pairs) / two, (energy - pairs) / two
    return one + norm * (one + of_s) + np.sqrt(fourth) * (of_s + two * of_q)


@_inlined
def _first_look(rate: Any, most: Any, largest: Any, one_hot: bool, one: Any, four: Any) -> Any:
    """What `_may_ask` compares with in each of 4 lanes, and the weight of s^2; see there.

    `largest` is at least |x|^2 of each row; of one-hot rows that is the number of entries.
    """
    two = one + one
    if one_hot:
        weight, most_of_sum = largest - one, most / rate - one - largest
    else:
        weight, most_of_sum = two, ((most / rate - one) / largest - one) / two
    rounding = _cast(0.999, one)
    return _fill(most_of_sum * rounding / (two * two), four), _fill(weight, four)


@_inlined
def _may_ask(s: Any, squares: Any, calm: Any, weight: Any) -> bool:
    """Whether rate * G of a row may be above `most`: a first look, at sums over the factors.

    sum_f (weight s_f^2 - (s_f^2 - q_f)) is what G of one-hot rows and the last bound need; the
    second part is on its way to the score. No quarter of the sum may exceed `calm`.
    """
    square = s * s
    return _any_above(weight * _fold(square, calm) - _fold(square - squares, calm), calm)


@_inlined
def _squared_slope(s: Any, A: Any, B: Any, norm: Any, one: Any) -> Any:
    """G. Its sum over the factors is of squares, so what rounding makes negative is 0."""
    of_V = _sum(_fill(norm, s) * (s * s) + (B - (s + s) * A))
    return (one + norm) + (of_V if of_V > one - one else one - one)


@_inlined
def _keeps(rate: Any, reg_w0: Any, reg_w: Any, reg_V: Any, one: Any) -> Any:
    """What L2 leaves of w0, w_j and v_j in a step."""
    return one - rate * reg_w0, one - rate * reg_w, one - rate * reg_V


@_inlined
def _keeps_capped(rate: Any, reg_w0: Any, reg_w: Any, reg_V: Any, one: Any) -> Any:
    """The same numbers, in another form: of one form, LLVM would compute both on every row."""
    zero = one - one
    return one + rate * (zero - reg_w0), one + rate * (zero - reg_w), one + rate * (zero - reg_V)


# Sparse rows. A table has rows of `width` numbers: v_j, and w_j if there is room (`table_width`);
# w_j is at `weights[j * step]`. `x = one if one_hot` costs nothing: one_hot is known when a kernel
# is compiled, as are width, lanes and step.


@_inlined
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
        j = np.int64(_at(indices, entry))
        x = one if one_hot else _at(values, entry)
        a = _load(table, j * width, zeros) * _fill(x, zeros)
        s += a
        squares += a * a
        linear += _at(weights, j * step) * x
        if closely:
            square = _fill(x * x, zeros)
            A += a * square
            B += (a * a) * square
            norm += x * x
    pairs = _sum(s * s - squares)
    G = _squared_slope(s, A, B, norm, one) if closely else one
    return s, squares, linear + pairs / (one + one), G


@_inlined
def _asks_sparse(
    values: Any, begin: int, end: int, s: Any, squares: Any, rate: Any, most: Any, one: Any
) -> bool:
    """Whether rate * G of a row may be above `most`: a second look, at its own x."""
    norm, fourth = one - one, one - one
    for entry in range(begin, end):
        square = _at(values, entry) * _at(values, entry)
        norm += square
        fourth += square * square
    pairs, energy = _sum(s * s - squares), _sum(s * s + squares)
    return rate * _bound(pairs, energy, norm, fourth, one) > most


@_inlined
def _step_sparse(
    indices: Any, values: Any, one_hot: bool, table: Any, width: int, weights: Any, step: int,
    begin: int, end: int, s: Any, g: Any, keeps: Any, zeros: Any, one: Any,
) -> None:  # fmt: skip
    """The step of a row's v_j and w_j."""
    _keep_w0, keep_w, keep_V = keeps
    s *= _fill(g, zeros)
    for entry in range(begin, end):
        j = np.int64(_at(indices, entry))
        x = one if one_hot else _at(values, entry)
        scale = _fill(keep_V + g * (x * x), zeros)
        _store(table, j * width, _load(table, j * width, zeros) * scale - s * _fill(x, zeros))
        _put(weights, j * step, _at(weights, j * step) * keep_w - g * x)


@_inlined
def _announce_sparse_rows(
    indptr: Any, indices: Any, values: Any, one_hot: bool, target: Any, order: Any, shuffled: bool,
    table: Any, width: int, weights: Any, step: int, line: int, near: bool, t: int,
) -> None:  # fmt: skip
    """Prefetch what visits t + 8, 16 and 24 will read; not of a table that is `near`.

    A row number leads to a row pointer, that to feature numbers, these to rows of the table: each
    is asked for when the one before it has arrived. `line` is the numbers in a cache line.
    """
    row = _at(order, t + 24) if shuffled else t + 24
    _prefetch(indptr, row)
    _prefetch(target, row)
    row = _at(order, t + 16) if shuffled else t + 16
    begin, end = _at(indptr, row), _at(indptr, row + 1)
    for entry in range(begin, end, 16):
        _prefetch(indices, entry)
    _prefetch(indices, end - 1)
    if not one_hot:
        for entry in range(begin, end, line):
            _prefetch(values, entry)
        _prefetch(values, end - 1)
    if near:
        return
    row = _at(order, t + 8) if shuffled else t + 8
    for entry in range(_at(indptr, row), _at(indptr, row + 1)):
        j = np.int64(_at(indices, entry))
        for column in range(0, width, line):
            _prefetch(table, j * width + column)
        if step == 1:
            _prefetch(weights, j)


@functools.cache
def train_sparse(
    lanes: int, dtype: str, one_hot: bool, logistic: bool
) -> Callable[..., tuple[float, int]]:
    """One pass over CSR rows: sum of the losses, each taken before its update; steps capped.

    `table`, `weights` and `bias` ([w0]) are updated; `order` is a permutation of the rows, or empty
    for as they come; one-hot rows have no `values`; `largest` is at least |x|^2 of each row.
    """
    number = np.dtype(dtype).type
    one, zero = number(1), number(0)
    width, line = table_width(lanes, np.dtype(dtype)), CACHE_LINE // np.dtype(dtype).itemsize
    step = 1 if width == lanes else width

    def one_pass(
        indptr, indices, values, target, order, table, weights, largest, bias, learning_rate,
        limit, reg_w0, reg_w, reg_V,
    ):  # fmt: skip
        shuffled, n_rows, zeros = len(order) > 0, len(target), _zeros(zero, lanes)
        near = table.size * table.itemsize <= NEAR
        far = shuffled or not near
        starts, ids = _pointer(indptr), _pointer(indices)
        xs, ys = _pointer(values), _pointer(target)
        visits, V, w = _pointer(order), _pointer(table), _pointer(weights)
        rate, w0, total = number(learning_rate), bias[0], 0.0
        regs, n_capped = (number(reg_w0), number(reg_w), number(reg_V)), 0
        most, keeps = number(limit), _keeps(rate, *regs, one)
        calm, weight = _first_look(rate, most, number(largest), one_hot, one, _zeros(zero, 4))
        in_a_row, last_asked, closely_until = 0, -1, 0
        for t in range(n_rows):
            i = _at(visits, t) if shuffled else t
            if far and t + 24 < n_rows:
                _announce_sparse_rows(
                    starts, ids, xs, one_hot, ys, visits, shuffled, V, width, w, step, line, near, t
                )
            begin, end = _at(starts, i), _at(starts, i + 1)
            asks, G = not one_hot and t < closely_until, one
            if not asks:
                s, squares, score, _G = _score_sparse_row(
                    ids, xs, one_hot, V, width, w, step, begin, end, zeros, one, closely=False
                )
                if _may_ask(s, squares, calm, weight):
                    if one_hot:
                        m = _cast(end - begin, one)
                        of_V = (m - one) * _sum(s * s) - _sum(s * s - squares)
                        asks, G = True, (one + m) + of_V
                    elif _asks_sparse(xs, begin, end, s, squares, rate, most, one):
                        in_a_row = in_a_row + 1 if t == last_asked + 1 else 1
                        asks, last_asked = True, t
                        if in_a_row == FEW:
                            closely_until = t + MANY
            if asks and not one_hot:
                s, squares, score, G = _score_sparse_row(
                    ids, xs, one_hot, V, width, w, step, begin, end, zeros, one, closely=True
                )
            row_rate, row_keeps = rate, keeps
            if asks and rate * G > most:
                row_rate = most / G
                row_keeps = _keeps_capped(row_rate, *regs, one)
                n_capped += 1
            loss, g = _loss_and_step(score, w0, _at(ys, i), row_rate, logistic)
            total += loss
            w0 = w0 * row_keeps[0] - g
            _step_sparse(
                ids, xs, one_hot, V, width, w, step, begin, end, s, g, row_keeps, zeros, one
            )
        bias[0] = w0
        return total, n_capped

    return _compile(one_pass)


@functools.cache
def score_sparse(lanes: int, dtype: str, one_hot: bool) -> Callable[..., None]:
    """Scores of CSR rows into `scores` (float64); arguments as `train_sparse`."""
    number = np.dtype(dtype).type
    one, zero = number(1), number(0)
    width = table_width(lanes, np.dtype(dtype))
    step = 1 if width == lanes else width

    def score(indptr, indices, values, table, weights, bias, scores):
        starts, ids, xs = _pointer(indptr), _pointer(indices), _pointer(values)
        V, w, zeros, w0 = _pointer(table), _pointer(weights), _zeros(zero, lanes), bias[0]
        for i in range(len(scores)):
            begin, end = _at(starts, i), _at(starts, i + 1)
            _s, _squares, without_w0, _G = _score_sparse_row(
                ids, xs, one_hot, V, width, w, step, begin, end, zeros, one, closely=False
            )
            scores[i] = without_w0 + w0

    return _compile(score)


# More than MAX_LANES factors: the same in blocks of MAX_LANES. `sums` is scratch for s.


@_inlined
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
            row = np.int64(_at(indices, entry)) * lanes
            x = one if one_hot else _at(values, entry)
            a = _load(table, row + block, zeros) * _fill(x, zeros)
            s += a
            squares += a * a
        _store(sums, block, s)
        pairs += _sum(s * s - squares)
        energy += _sum(s * s + squares)
    for entry in range(begin, end):
        x = one if one_hot else _at(values, entry)
        linear += _at(weights, np.int64(_at(indices, entry))) * x
        norm += x * x
        fourth += (x * x) * (x * x)
    return linear + pairs / (one + one), (pairs, energy, norm, fourth)


@_inlined
def _squared_slope_wide(
    indices: Any, values: Any, one_hot: bool, table: Any, lanes: int, sums: Any, begin: int,
    end: int, zeros: Any, one: Any,
) -> Any:  # fmt: skip
    """As `_squared_slope_sparse`."""
    squares, norm = zeros, one - one
    for entry in range(begin, end):
        row = np.int64(_at(indices, entry)) * lanes
        x = one if one_hot else _at(values, entry)
        xs = _fill(x, zeros)
        for block in range(0, lanes, MAX_LANES):
            slope = (_load(sums, block, zeros) - _load(table, row + block, zeros) * xs) * xs
            squares += slope * slope
        norm += x * x
    return (one + norm) + _sum(squares)


@functools.cache
def train_wide(dtype: str, one_hot: bool, logistic: bool) -> Callable[..., tuple[float, int]]:
    """As `train_sparse`, for more than MAX_LANES factors."""
    number = np.dtype(dtype).type
    one, zero = number(1), number(0)

    def one_pass(
        indptr, indices, values, target, order, table, weights, sums, bias, learning_rate, limit,
        reg_w0, reg_w, reg_V,
    ):  # fmt: skip
        shuffled, n_rows, zeros = len(order) > 0, len(target), _zeros(zero, MAX_LANES)
        lanes = len(sums)
        starts, ids = _pointer(indptr), _pointer(indices)
        xs, ys = _pointer(values), _pointer(target)
        visits, V, w, all_s = _pointer(order), _pointer(table), _pointer(weights), _pointer(sums)
        rate, w0, total = number(learning_rate), bias[0], 0.0
        regs, n_capped = (number(reg_w0), number(reg_w), number(reg_V)), 0
        most, keeps = number(limit), _keeps(rate, *regs, one)
        for t in range(n_rows):
            i = _at(visits, t) if shuffled else t
            begin, end = _at(starts, i), _at(starts, i + 1)
            score, sizes = _score_wide_row(
                ids, xs, one_hot, V, lanes, w, all_s, begin, end, zeros, one
            )
            row_rate, (keep_w0, keep_w, keep_V) = rate, keeps
            if rate * _bound(*sizes, one) > most:
                G = _squared_slope_wide(ids, xs, one_hot, V, lanes, all_s, begin, end, zeros, one)
                if rate * G > most:
                    row_rate = most / G
                    keep_w0, keep_w, keep_V = _keeps_capped(row_rate, *regs, one)
                    n_capped += 1
            loss, g = _loss_and_step(score, w0, _at(ys, i), row_rate, logistic)
            total += loss
            w0 = w0 * keep_w0 - g
            for entry in range(begin, end):
                j = np.int64(_at(ids, entry))
                x = one if one_hot else _at(xs, entry)
                scale, gx = _fill(keep_V + g * (x * x), zeros), _fill(g * x, zeros)
                for block in range(j * lanes, j * lanes + lanes, MAX_LANES):
                    s = _load(all_s, block - j * lanes, zeros)
                    _store(V, block, _load(V, block, zeros) * scale - s * gx)
                _put(w, j, _at(w, j) * keep_w - g * x)
        bias[0] = w0
        return total, n_capped

    return _compile(one_pass)


@functools.cache
def score_wide(dtype: str, one_hot: bool) -> Callable[..., None]:
    """As `score_sparse`, for more than MAX_LANES factors."""
    number = np.dtype(dtype).type
    one, zero = number(1), number(0)

    def score(indptr, indices, values, table, weights, sums, bias, scores):
        starts, ids, xs = _pointer(indptr), _pointer(indices), _pointer(values)
        V, w, all_s = _pointer(table), _pointer(weights), _pointer(sums)
        zeros, w0, lanes = _zeros(zero, MAX_LANES), bias[0], len(sums)
        for i in range(len(scores)):
            begin, end = _at(starts, i), _at(starts, i + 1)
            without_w0, _sizes = _score_wide_row(
                ids, xs, one_hot, V, lanes, w, all_s, begin, end, zeros, one
            )
            scores[i] = without_w0 + w0

    return _compile(score)


# Dense rows (n_rows, n). w is (n,), V is (n, lanes). The linear part goes eight features at a time.


@_inlined
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
        a0 = _load(V, j * lanes, zeros) * _fill(_at(features, row + j), zeros)
        a1 = _load(V, (j + 1) * lanes, zeros) * _fill(_at(features, row + j + 1), zeros)
        a2 = _load(V, (j + 2) * lanes, zeros) * _fill(_at(features, row + j + 2), zeros)
        a3 = _load(V, (j + 3) * lanes, zeros) * _fill(_at(features, row + j + 3), zeros)
        s0 += a0
        s1 += a1
        s2 += a2
        s3 += a3
        q0 += a0 * a0
        q1 += a1 * a1
        q2 += a2 * a2
        q3 += a3 * a3
        if closely:
            x0, x1 = _fill(_at(squared, j), zeros), _fill(_at(squared, j + 1), zeros)
            x2, x3 = _fill(_at(squared, j + 2), zeros), _fill(_at(squared, j + 3), zeros)
            A0 = (A0 + a0 * x0) + a2 * x2
            A1 = (A1 + a1 * x1) + a3 * x3
            B0 = (B0 + (a0 * a0) * x0) + (a2 * a2) * x2
            B1 = (B1 + (a1 * a1) * x1) + (a3 * a3) * x3
    for j in range(fours, n):
        a0 = _load(V, j * lanes, zeros) * _fill(_at(features, row + j), zeros)
        s0 += a0
        q0 += a0 * a0
        if closely:
            x0 = _fill(_at(squared, j), zeros)
            A0 += a0 * x0
            B0 += (a0 * a0) * x0
    products = eight
    for j in range(0, eights, 8):
        products += _load(w, j, eight) * _load(features, row + j, eight)
    linear = _sum(products)
    for j in range(eights, n):
        linear += _at(w, j) * _at(features, row + j)
    s = (s0 + s1) + (s2 + s3)
    squares = (q0 + q1) + (q2 + q3)
    pairs = _sum(s * s - squares)
    G = _squared_slope(s, A0 + A1, B0 + B1, norm, one) if closely else one
    return s, squares, linear + pairs / (one + one), G


@_inlined
def _square_dense(features: Any, row: int, n: int, squared: Any, eight: Any) -> Any:
    """The squares of a row into `squared`; returns their sum and the sum of their squares."""
    norms, fourths, eights = eight, eight, n - n % 8
    for j in range(0, eights, 8):
        x8 = _load(features, row + j, eight)
        _store(squared, j, x8 * x8)
        norms += x8 * x8
        fourths += (x8 * x8) * (x8 * x8)
    norm, fourth = _sum(norms), _sum(fourths)
    for j in range(eights, n):
        square = _at(features, row + j) * _at(features, row + j)
        _put(squared, j, square)
        norm += square
        fourth += square * square
    return norm, fourth


@_inlined
def _step_dense(
    features: Any, row: int, n: int, w: Any, V: Any, lanes: int, scales: Any, s: Any, g: Any,
    keeps: Any, zeros: Any, eight: Any, one: Any,
) -> None:  # fmt: skip
    """As `_step_sparse`."""
    _keep_w0, keep_w, keep_V = keeps
    ones, zero, eights = _fill(one, eight), one - one, n - n % 8
    g8, keep_w8, keep_V8 = _fill(g, eight), _fill(keep_w, eight), _fill(keep_V, eight)
    for j in range(0, eights, 8):
        x8 = _load(features, row + j, eight)
        _store(scales, j, _where_not_zero(x8, keep_V8, ones) + g8 * (x8 * x8))
        _store(w, j, _load(w, j, eight) * _where_not_zero(x8, keep_w8, ones) - g8 * x8)
    for j in range(eights, n):
        x = _at(features, row + j)
        _put(scales, j, (keep_V if x != zero else one) + g * (x * x))
        _put(w, j, _at(w, j) * (keep_w if x != zero else one) - g * x)
    s *= _fill(g, zeros)
    for j in range(n):
        v = _load(V, j * lanes, zeros) * _fill(_at(scales, j), zeros)
        _store(V, j * lanes, v - s * _fill(_at(features, row + j), zeros))


@functools.cache
def train_dense(lanes: int, dtype: str, logistic: bool) -> Callable[..., tuple[float, int]]:
    """As `train_sparse`, over dense rows. `scales` is scratch, as long as w."""
    number = np.dtype(dtype).type
    one, zero = number(1), number(0)

    def one_pass(
        features, target, order, weights, factors, scales, largest, bias, learning_rate, limit,
        reg_w0, reg_w, reg_V,
    ):  # fmt: skip
        shuffled, n_rows, n = len(order) > 0, len(target), len(weights)
        xs, ys, visits = _pointer(features), _pointer(target), _pointer(order)
        w, V, v_scales = _pointer(weights), _pointer(factors), _pointer(scales)
        rate, w0, total = number(learning_rate), bias[0], 0.0
        regs, n_capped = (number(reg_w0), number(reg_w), number(reg_V)), 0
        most, keeps = number(limit), _keeps(rate, *regs, one)
        calm, weight = _first_look(rate, most, number(largest), False, one, _zeros(zero, 4))
        zeros, eight = _zeros(zero, lanes), _zeros(zero, 8)
        in_a_row, last_asked, closely_until = 0, -1, 0
        for t in range(n_rows):
            i = _at(visits, t) if shuffled else t
            row = i * n
            if shuffled and t + 4 < n_rows:
                ahead = _at(visits, t + 4)
                _prefetch(ys, ahead)
                for j in range(0, n, 8):
                    _prefetch(xs, ahead * n + j)
                _prefetch(xs, ahead * n + n - 1)
            asks, G, norm = t < closely_until, one, one
            if asks:
                norm, _fourth = _square_dense(xs, row, n, v_scales, eight)
            else:
                s, squares, score, _G = _score_dense_row(
                    xs, row, n, w, V, lanes, zeros, eight, one, False, v_scales, one
                )
                if _may_ask(s, squares, calm, weight):
                    norm, fourth = _square_dense(xs, row, n, v_scales, eight)
                    pairs, energy = _sum(s * s - squares), _sum(s * s + squares)
                    if rate * _bound(pairs, energy, norm, fourth, one) > most:
                        in_a_row = in_a_row + 1 if t == last_asked + 1 else 1
                        asks, last_asked = True, t
                        if in_a_row == FEW:
                            closely_until = t + MANY
            if asks:
                s, squares, score, G = _score_dense_row(
                    xs, row, n, w, V, lanes, zeros, eight, one, True, v_scales, norm
                )
            row_rate, row_keeps = rate, keeps
            if asks and rate * G > most:
                row_rate = most / G
                row_keeps = _keeps_capped(row_rate, *regs, one)
                n_capped += 1
            loss, g = _loss_and_step(score, w0, _at(ys, i), row_rate, logistic)
            total += loss
            w0 = w0 * row_keeps[0] - g
            _step_dense(xs, row, n, w, V, lanes, v_scales, s, g, row_keeps, zeros, eight, one)
        bias[0] = w0
        return total, n_capped

    return _compile(one_pass)


@functools.cache
def score_dense(lanes: int, dtype: str) -> Callable[..., None]:
    """Scores of dense rows into `scores` (float64); arguments as `train_dense`."""
    number = np.dtype(dtype).type
    one, zero = number(1), number(0)

    def score(features, weights, factors, bias, scores):
        xs, w, V, n = _pointer(features), _pointer(weights), _pointer(factors), len(weights)
        zeros, eight, w0 = _zeros(zero, lanes), _zeros(zero, 8), bias[0]
        for i in range(len(scores)):
            _s, _squares, without_w0, _G = _score_dense_row(
                xs, i * n, n, w, V, lanes, zeros, eight, one, False, w, one
            )
            scores[i] = without_w0 + w0

    return _compile(score)


# Around the passes


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

    return _compile(shuffle_in_place)


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

    return _compile(largest_of)


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
