"""What the compiled kernels of all backends share.

A SIMD vector for Numba, elementary functions, and compiling with a cache. The same bits on every
x86-64 CPU: no fastmath, no contraction, every sum in a written-down order, and an exponential of
our own (that of the C library depends on the CPU).

The inner loop of an FM runs over k factors; it is short, and LLVM does not vectorise it by itself
since it cannot rule out that the arrays overlap. So the factors of a feature (padded) are the lanes
of one value of an LLVM vector type, and there is no inner loop. LLVM maps lanes on whatever
registers the CPU has; they are independent, so this changes no bit.

Numba's cache looks for changes in the file of a kernel and in what the kernel encloses, so each
encloses `source`, the digest of this file.
"""

# Compiled by Numba, whose types are not Python's:
# mypy: disable-error-code="misc,no-any-return,no-untyped-call,no-untyped-def,untyped-decorator"

from __future__ import annotations

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

SOURCE = int(hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12], 16)
"""Digest of this file."""

CACHE_LINE = 64
"""Bytes."""


def compile_cached(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile with Numba; cache beside its file, in the home, or in a folder for scratch files."""
    jit = numba.njit(nogil=True, cache=True, error_model="numpy")
    try:
        return jit(function)
    except RuntimeError as error:  # neither that folder nor the home is writable
        if "cannot cache function" not in str(error):
            raise
        settings: Any = numba.config
        settings.CACHE_DIR = _scratch_folder()
        return jit(function)


NONE = np.zeros(0)
"""The weights of rows that have none."""


def _scratch_folder() -> str:
    """A folder that only this user can write: what lies in the cache is executed."""
    folder = Path(tempfile.gettempdir()) / f"fmexp-numba-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
    if folder.is_symlink() or state.st_uid != os.getuid() or state.st_mode & 0o077:
        return tempfile.mkdtemp(prefix="fmexp-numba-")
    return str(folder)


inlined = numba.njit(forceinline=True, error_model="numpy")


def aligned_zeros(n_rows: int, n_columns: int, dtype: np.dtype[Any]) -> np.ndarray:
    """Zeros of shape (n_rows, n_columns) that begin on a cache line."""
    n_bytes = n_rows * n_columns * dtype.itemsize
    raw = np.zeros(n_bytes + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + n_bytes].view(dtype).reshape(n_rows, n_columns)


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
def pointer(typing: Any, array: Any) -> Any:  # noqa: ARG001
    """Where an array begins.

    Kernels work on pointers, since Numba counts references to arrays that are handed to a helper:
    two atomic operations each, which cost more than the helper.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        return cgutils.create_struct_proxy(array)(context, builder, value=args[0]).data

    return types.CPointer(array.dtype)(array), generate


@intrinsic(prefer_literal=True)
def zero_vector(typing: Any, zero: Any, lanes: Any) -> Any:  # noqa: ARG001
    """A vector of zeros, of the dtype of `zero`; `lanes` is known when the kernel is compiled."""
    vector = Vector(zero, lanes.literal_value)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        return ir.Constant(vector.llvm, [0.0] * vector.lanes)

    return vector(zero, lanes), generate


@intrinsic
def fill(typing: Any, x: Any, like: Any) -> Any:  # noqa: ARG001
    """A vector with x in every lane."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        int32 = ir.IntType(32)
        undefined = ir.Constant(like.llvm, ir.Undefined)
        first = builder.insert_element(undefined, args[0], ir.Constant(int32, 0))
        mask = ir.Constant(ir.VectorType(int32, like.lanes), [0] * like.lanes)
        return builder.shuffle_vector(first, undefined, mask)

    return like(like.dtype, like), generate


@intrinsic
def load(typing: Any, start: Any, offset: Any, like: Any) -> Any:  # noqa: ARG001
    """The vector start[offset : offset + lanes]."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        address = builder.bitcast(builder.gep(args[0], [args[1]]), like.llvm.as_pointer())
        return builder.load(address, align=start.dtype.bitwidth // 8)

    return like(start, offset, like), generate


@intrinsic
def store(typing: Any, start: Any, offset: Any, vector: Any) -> Any:  # noqa: ARG001
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
def lane_sum(typing: Any, vector: Any) -> Any:  # noqa: ARG001
    """Sum of the lanes; see `_folded`."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        lane = _folded(builder, args[0], vector.lanes, 1)
        return builder.extract_element(lane, ir.Constant(ir.IntType(32), 0))

    return vector.dtype(vector), generate


@intrinsic
def fold(typing: Any, vector: Any, like: Any) -> Any:  # noqa: ARG001
    """The lanes added up to as many as `like` has; see `_folded`."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        return _folded(builder, args[0], vector.lanes, like.lanes)

    return like(vector, like), generate


@intrinsic
def where_not_zero(typing: Any, condition: Any, then: Any, otherwise: Any) -> Any:  # noqa: ARG001
    """Lane by lane: `then` where `condition` is not zero (or NaN), else `otherwise`."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        zero = ir.Constant(condition.llvm, [0.0] * condition.lanes)
        return builder.select(builder.fcmp_unordered("!=", args[0], zero), args[1], args[2])

    return then(condition, then, otherwise), generate


@intrinsic
def any_above(typing: Any, vector: Any, threshold: Any) -> Any:  # noqa: ARG001
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
def get(typing: Any, start: Any, offset: Any) -> Any:  # noqa: ARG001
    """start[offset]."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        return builder.load(builder.gep(args[0], [args[1]]))

    return start.dtype(start, offset), generate


@intrinsic
def put(typing: Any, start: Any, offset: Any, x: Any) -> Any:  # noqa: ARG001
    """start[offset] = x; see `get`."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        builder.store(args[2], builder.gep(args[0], [args[1]]))
        return context.get_dummy_value()

    return types.void(start, offset, start.dtype), generate


@intrinsic
def prefetch(typing: Any, start: Any, offset: Any) -> Any:  # noqa: ARG001
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
def cast(typing: Any, x: Any, like: Any) -> Any:  # noqa: ARG001
    """Return x as a number of the type of `like`."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        return context.cast(builder, args[0], x, like)

    return like(x, like), generate


@intrinsic
def power_of_two(typing: Any, n: Any) -> Any:  # noqa: ARG001
    """2.0**n for an int64 n from -1022 to 1023: the bits of the exponent, written directly."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        int64 = ir.IntType(64)
        biased = builder.add(args[0], ir.Constant(int64, 1023))
        return builder.bitcast(builder.shl(biased, ir.Constant(int64, 52)), ir.DoubleType())

    return types.float64(types.int64), generate


_LOG2_E = 1.4426950408889634
_LN2_HIGH = 6.93147180369123816490e-01  # its last 21 bits are 0: n * _LN2_HIGH is exact
_LN2_LOW = 1.90821492927058770002e-10
_EXP = tuple((-1.0) ** i / float(np.prod(np.arange(1.0, i + 1))) for i in range(14))
_ATANH = tuple(1.0 / (2 * i + 1) for i in range(19))


@inlined
def exp_minus(x: float) -> float:
    """e^-x for x >= 0, float64: e^-r for |r| <= ln(2)/2 by its series, times a power of two."""
    if not x < 708.0:
        return 0.0 * x  # NaN stays NaN
    n = np.int64(x * _LOG2_E + 0.5)
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    series = _EXP[13]
    for i in range(12, -1, -1):
        series = series * r + _EXP[i]
    return series * power_of_two(-n)


@inlined
def log_one_plus(x: float) -> float:
    """log(1 + x) for 0 <= x <= 1, float64: 2 atanh(z) with z = x / (2 + x) by its series."""
    z = x / (2.0 + x)
    square = z * z
    series = _ATANH[18]
    for i in range(17, -1, -1):
        series = series * square + _ATANH[i]
    return 2.0 * z * series
