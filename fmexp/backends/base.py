"""What every backend offers: one class that holds parameters and trains them epoch by epoch."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from fmexp.config import outside
from fmexp.errors import MissingPackageError

if TYPE_CHECKING:
    import numpy as np

    from fmexp.config.schema import Config
    from fmexp.data.dataset import Part
    from fmexp.data.features import Features
    from fmexp.fm import Learned, Parameters

MODULES = {
    "numpy_sgd": "fmexp.backends.sgd",
    "torch_adam": "fmexp.backends.adam",
    "gibbs": "fmexp.backends.gibbs",
}
"""Where each backend lives; imported only when it is used."""


class Trainer(Protocol):
    """Parameters under training, in a backend's own memory layout.

    A backend module offers `start(config, train, parameters) -> Trainer`, where `config` is the
    whole `fmexp.config.schema.Config` and `parameters` are the initial ones (left untouched).
    """

    def train_epoch(self, learning_rate: float, order: np.ndarray | None) -> float:
        """One pass over the training rows.

        Args:
            learning_rate: step size of this epoch.
            order: the visiting order, a permutation of the rows; None for as they come.

        Returns:
            Mean loss of the epoch, each row's taken just before the update that it is part of;
            squared error (y_hat - y)^2 or log loss, in the units of `Part.target`. May be
            non-finite: the caller decides what that means.
        """
        ...

    def loss(self, part: Part) -> float:
        """Mean loss of the rows of `part` with the parameters as they are; as `train_epoch`.

        Asked for after each epoch with the same part, which the backend may keep where it trains.
        """
        ...

    def scores(self, features: Features) -> np.ndarray:
        """y_hat (regression) or the logit (classification), float64, shape (n_rows,)."""
        ...

    def parameters(self) -> Learned:
        """A copy of what was learned until now: parameters in float64, or samples of them."""
        ...


@runtime_checkable
class TakesChunks(Protocol):
    """A trainer that can be given its rows chunk by chunk, so that few of them are in memory."""

    def train_chunk(self, learning_rate: float, chunk: slice, order: np.ndarray | None) -> float:
        """One pass over some rows that lie together.

        Args:
            learning_rate: step size.
            chunk: the rows.
            order: the visiting order, a permutation of the chunk's rows from 0; None for as they
                come.

        Returns:
            Sum of the losses of these rows, each times its weight; see `Trainer.train_epoch`.
        """
        ...


@runtime_checkable
class TakesWeights(Protocol):
    """A trainer that heeds `Part.row_weights`: a row counts as often as its weight says.

    All mean losses are then weighted means. How far a row moves the parameters: docs/fm.md.
    """

    total_weight: float
    """Sum of the training rows' weights; their number where they have none."""


@runtime_checkable
class Shuffles(Protocol):
    """A trainer with a faster way to shuffle than NumPy's."""

    def shuffle(self, order: np.ndarray, generator: np.random.Generator) -> None:
        """Shuffle row numbers (int64) in place; what comes out follows from the generator."""
        ...


@runtime_checkable
class Averages(Protocol):
    """A trainer that can keep a mean of its parameters (`training.average_from`)."""

    def average(self, weight: float) -> None:
        """Move the mean by `weight` of its distance to the parameters as they are.

        From the first call on, whose weight is 1, `loss`, `scores` and `parameters` are those of
        the mean; training goes on from where it was.
        """
        ...


@runtime_checkable
class DrawsSamples(Protocol):
    """A trainer whose epochs draw samples: `loss` and `scores` are of the mean over them.

    So the last epoch is the best one by definition, and no earlier state is gone back to.
    """

    burn_in: int
    """Epochs that are thrown away first, whose `loss` is of the current state alone."""


@runtime_checkable
class CapsSteps(Protocol):
    """A trainer that caps the steps of rows that ask for too large ones (`training.cap_steps`)."""

    capped_steps: int
    """Steps that were capped, since it was last set to 0."""


class Start(Protocol):
    """The function `start` of a backend module."""

    def __call__(self, config: Config, train: Part, parameters: Parameters) -> Trainer:
        """Move data and parameters to where the backend trains.

        Raises:
            MissingPackageError: the backend needs a package that is not installed.
            DataError: the feature rows are not as `Features` promises.
        """
        ...


def start(config: Config, train: Part, parameters: Parameters) -> Trainer:
    """Start the backend that the configuration names; see `Start`."""
    return load_backend(config.backend.name)(config, train, parameters)


def load_backend(name: str) -> Start:
    """The `start` of a backend's module.

    Raises:
        ConfigError: a backend of another package cannot be loaded.
        MissingPackageError: the package that the backend is made of is not installed.
    """
    require_backend(name)
    if name not in MODULES:
        return cast("Start", outside.load(name).start)
    return cast("Start", import_module(MODULES[name]).start)


def require_backend(name: str) -> None:
    """Refuse a backend whose package is not installed, without the seconds that loading takes.

    Raises:
        MissingPackageError: so it is.
    """
    if name == "torch_adam" and find_spec("torch") is None:
        raise MissingPackageError(
            f"backend={name} needs PyTorch, which is not installed: pip install 'fmexp[torch]'"
        )
