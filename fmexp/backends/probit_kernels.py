"""The normal distribution, compiled: latent scores of a probit model, probabilities, log losses.

Elementary functions of our own, so that the bits are the same on every x86-64 CPU. `source` is as
in `gibbs_kernels`, and `gibbs_plain` the readable twin.
"""

# Compiled by Numba, whose types are not Python's:
# mypy: disable-error-code="misc,no-any-return,no-untyped-call,no-untyped-def,untyped-decorator"

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba.core import types

from fmexp.backends.compiled import (
    SOURCE,
    compile_cached,
    exp_minus,
    inlined,
    intrinsic,
    log_one_plus,
    power_of_two,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_SQRT_HALF = 0.7071067811865476
_LN2 = 0.6931471805599453
_HALF_LOG_2_PI = 0.9189385332046727
_FAR = -35.0
"""Scores on the wrong side beyond this, where Phi is below 1e-267, take the tail's limit."""

_BELOW_ONE = 1.0 - 2.0**-53

_ATANH = tuple(1.0 / (2 * i + 1) for i in range(12))

# Rational approximations of erf and erfc: Cody (1969), from his CALERF.
_ERF = (
    (1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2, 3.77485237685302021e2,
     3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3,
     2.84423683343917062e3),
)  # fmt: skip
_ERFC = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e1,
     2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
     1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2,
     1.62138957456669019e3, 3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3,
     1.23033935480374942e3),
)  # fmt: skip
_ERFC_FAR = (
    (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1,
     1.25781726111229246e-1, 1.60837851487422766e-2, 6.58749161529837803e-4),
    (1.0, 2.56852019228982242e0, 1.87295284992346725e0, 5.27905102951428412e-1,
     6.05183413124413191e-2, 2.33520497626869185e-3),
)  # fmt: skip
_ONE_OVER_SQRT_PI = 5.6418958354775628695e-1

# Inverse of the normal distribution function: Wichura (1988), algorithm AS 241, PPND16.
_PPND_MIDDLE = (
    (2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4,
     4.5921953931549871457e4, 1.3731693765509461125e4, 1.9715909503065514427e3,
     1.3314166789178437745e2, 3.3871328727963666080e0),
    (5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4,
     2.1213794301586595867e4, 5.3941960214247511077e3, 6.8718700749205790830e2,
     4.2313330701600911252e1, 1.0),
)  # fmt: skip
_PPND_TAIL = (
    (7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1,
     1.27045825245236838258e0, 3.64784832476320460504e0, 5.76949722146069140550e0,
     4.63033784615654529590e0, 1.42343711074968357734e0),
    (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2,
     1.48103976427480074590e-1, 6.89767334985100004550e-1, 1.67638483018380384940e0,
     2.05319162663775882187e0, 1.0),
)  # fmt: skip
_PPND_FAR = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3,
     2.65321895265761230930e-2, 2.96560571828504891230e-1, 1.78482653991729133580e0,
     5.46378491116411436990e0, 6.65790464350110377720e0),
    (2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5,
     7.86869131145613259100e-4, 1.48753612908506148525e-2, 1.36929880922735805310e-1,
     5.99832206555887937690e-1, 1.0),
)  # fmt: skip


@intrinsic
def _bits(typing: Any, x: Any) -> Any:  # noqa: ARG001
    """The bits of a float64 as an int64."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:  # noqa: ARG001
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), generate


@inlined
def _ratio(coefficients: Any, x: float) -> float:
    """A polynomial over another, the highest power first."""
    above, below = coefficients
    numerator, denominator = above[0], below[0]
    for i in range(1, len(above)):
        numerator = numerator * x + above[i]
        denominator = denominator * x + below[i]
    return numerator / denominator


@inlined
def _log(x: float) -> float:
    """log(x) of a normal float64 above 0: that of its power of two, and 2 atanh of the rest."""
    exponent = (_bits(x) >> 52) - 1023
    m = x * power_of_two(-exponent)  # in [1, 2)
    if m > 1.4142135623730951:
        m *= 0.5
        exponent += 1
    z = (m - 1.0) / (m + 1.0)
    square = z * z
    series = _ATANH[11]
    for i in range(10, -1, -1):
        series = series * square + _ATANH[i]
    return exponent * _LN2 + 2.0 * z * series


@inlined
def _upper_tail(x: float) -> float:
    """1 - Phi(x) for x >= 0: erfc(x / sqrt 2) / 2."""
    t = x * _SQRT_HALF
    if t <= 0.46875:
        return 0.5 - 0.5 * t * _ratio(_ERF, t * t)
    square = t * t
    if t <= 4.0:
        return 0.5 * exp_minus(square) * _ratio(_ERFC, t)
    inverse = 1.0 / square
    rest = _ONE_OVER_SQRT_PI - inverse * _ratio(_ERFC_FAR, inverse)
    return 0.5 * exp_minus(square) * rest / t


@inlined
def _quantile(p: float) -> float:
    """Phi^-1(p) for 0 < p < 1."""
    q = p - 0.5
    if abs(q) <= 0.425:
        return q * _ratio(_PPND_MIDDLE, 0.180625 - q * q)
    r = np.sqrt(-_log(p if q < 0.0 else 1.0 - p))
    tail = _ratio(_PPND_TAIL, r - 1.6) if r <= 5.0 else _ratio(_PPND_FAR, r - 5.0)
    return -tail if q < 0.0 else tail


@inlined
def _beyond(m: float, u: float) -> Any:
    """|z| for a score of m on the right side and a uniform u in (0, 1]; and -log Phi(m)."""
    if m < _FAR:
        return -_log(u) / -m, 0.5 * m * m + _log(-m) + _HALF_LOG_2_PI
    if m < 0.0:
        inside = _upper_tail(-m)
        return m - _quantile(u * inside), -_log(inside)
    outside = _upper_tail(m)
    p = min(u * (1.0 - outside), _BELOW_ONE)
    return max(m - _quantile(p), 0.0), -log_one_plus(-outside)


@functools.cache
def draw_latent(weighted: bool = False) -> Callable[..., Any]:
    """Draw z of rows first..last - 1, and move the errors with it; see `gibbs_plain.draw_latent`.

    `errors` (y_hat - z) and `latent` (z) are updated; `labels` are 0 or 1; `uniforms`, of the rows
    from `first` on, lie in [0, 1). Returns the sum of -log Phi(score) of what came.

    A row of weight 3 has three z, each from a uniform of its own; `latent` is their mean, and the
    parameters ask for no more: sum_r (y_hat - z_r)^2 is 3 (y_hat - mean)^2 and a constant.
    """
    source = SOURCE

    def draw(first, last, errors, latent, labels, uniforms, row_weights):
        assert source
        total, at = 0.0, 0
        for i in range(first, last):
            score = errors[i] + latent[i]
            sign = 1.0 if labels[i] > 0.5 else -1.0
            m = sign * score
            beyond, loss = _beyond(m, 1.0 - uniforms[at])
            at += 1
            if weighted:
                for _ in range(1, int(row_weights[i])):
                    another, _loss = _beyond(m, 1.0 - uniforms[at])
                    beyond += another
                    at += 1
                beyond /= row_weights[i]
                loss *= row_weights[i]
            total += loss
            latent[i] = sign * beyond
            errors[i] = score - sign * beyond
        return total

    return compile_cached(draw)


@functools.cache
def label_loss(weighted: bool = False) -> Callable[..., Any]:
    """Sum of -log of the probability, the mean of several Phi(score), of the labels that came."""
    source = SOURCE

    def total_of(probability, labels, row_weights):
        assert source
        total = 0.0
        for i in range(len(labels)):
            p = probability[i] if labels[i] > 0.5 else 1.0 - probability[i]
            loss = -_log(max(p, 1e-300))
            total += row_weights[i] * loss if weighted else loss
        return total

    return compile_cached(total_of)


@functools.cache
def add_probability() -> Callable[..., Any]:
    """Add Phi(score) of each row to `total`."""
    source = SOURCE

    def add(scores, total):
        assert source
        for i in range(len(scores)):
            tail = _upper_tail(abs(scores[i]))
            total[i] += tail if scores[i] < 0.0 else 1.0 - tail

    return compile_cached(add)
