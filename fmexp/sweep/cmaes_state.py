"""Optuna's CMA-ES, whose state lies in the study as a pickle, without what a pickle could run.

This reaches into Optuna: `_restore_optimizer` is where `CmaEsSampler` reads the state.
"""

from __future__ import annotations

import io
import pickle
from numbers import Real
from typing import TYPE_CHECKING, Any

import cmaes  # type: ignore[import-untyped]
import numpy as np
from optuna.samplers import CmaEsSampler

from fmexp.errors import UserError

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_STATE = "cma:optimizer"
"""Begins the attributes of a trial that hold a state, in pieces."""

_RESAMPLING = 1000
"""cmaes draws a point anew up to a hundred times when it lies outside the bounds."""

_NEEDED = {
    ("cmaes._cma", "CMA"),
    *((module, name) for module in ("numpy._core.multiarray", "numpy.core.multiarray")
      for name in ("_reconstruct", "scalar")),
    ("numpy", "ndarray"), ("numpy", "dtype"),
    ("numpy._core.numeric", "_frombuffer"),  # of pickle's protocol 5, Python 3.14's default
}  # fmt: skip
"""All that a state is made of."""


class SafeCmaEsSampler(CmaEsSampler):
    """Reads only states that hold numbers: a study may be another's."""

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> Any:
        """The newest state; None where there is none.

        Raises:
            UserError: it holds something else.
        """
        for trial in reversed(completed_trials):
            pieces = {k: x for k, x in trial.system_attrs.items() if k.startswith(_STATE)}
            if pieces:
                try:
                    text = "".join(pieces[f"{_STATE}:{i}"] for i in range(len(pieces)))
                    return _checked(_Numbers(io.BytesIO(bytes.fromhex(text))).load())
                except Exception as error:  # damaged pickles raise errors of all kinds
                    raise UserError(
                        f"trial {trial.number} of the study holds no state of CMA-ES "
                        f"({type(error).__name__}: {error}): give another "
                        "hydra.sweeper.study_name, or another hydra/sweeper/sampler"
                    ) from error
        return None


class _Numbers(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NEEDED:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of one")
        return super().find_class(module, name)


def _checked(state: Any) -> Any:
    """A state as cmaes makes them: of finite numbers, and one that draws in finite time."""
    if not isinstance(state, cmaes.CMA):
        raise TypeError(f"expected a cmaes.CMA, got {type(state).__name__}")
    for name, value in vars(state).items():
        if isinstance(value, np.ndarray | Real) and not _is_finite(name, value):
            raise ValueError(f"{name} must hold finite numbers")
    if vars(state)["_n_max_resampling"] > _RESAMPLING:
        raise ValueError("it would draw without end")
    return state


def _is_finite(name: str, value: Any) -> bool:
    may_be_infinite = name in ("_bounds", "_funhist_values")
    return np.asarray(value).dtype.kind in "fiub" and (may_be_infinite or np.isfinite(value).all())
