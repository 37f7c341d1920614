"""fit(): epochs, validation, early stopping and divergence, the same for every backend."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fmexp import fm
from fmexp.backends.base import Averages, CapsSteps, DrawsSamples, TakesWeights, start
from fmexp.data import budget
from fmexp.data.features import SMALL_CHUNK_ROWS, chunks
from fmexp.errors import ConfigError
from fmexp.record.tracker import Outcome
from fmexp.training import stability
from fmexp.training.passes import passes

if TYPE_CHECKING:
    from fmexp.backends.base import Trainer
    from fmexp.config.schema import Config, EarlyStoppingConfig
    from fmexp.data.dataset import Dataset, Part

_log = logging.getLogger(__name__)


class Watch(Protocol):
    """Called after each epoch; an outcome ends the training with it (PRUNED, INTERRUPTED)."""

    def __call__(
        self, epoch: int, train_loss: float, validation_loss: float | None
    ) -> Outcome | None:
        """Losses are means, in the target's own units (squared error) or log loss."""
        ...


@dataclass(frozen=True)
class Fit:
    """What a training came to.

    Losses are means per row, weighted where rows have weights: squared error in the target's own
    units, or log loss. All are finite.

    Attributes:
        outcome: COMPLETED, DIVERGED, or what `watch` said.
        reason: in words; "" when all epochs were run.
        parameters: those of `best_epoch`, without a validation part those of the last epoch; None
            when training diverged and no such epoch is left. A backend that draws samples gives
            these.
        train_losses: of each epoch, each row's taken just before its update.
        validation_losses: after each epoch; empty without a validation part.
        best_epoch: the epoch of the lowest validation loss, from 1; the last one of a backend that
            draws samples.
        best_validation: that loss.
        baseline: the loss of predicting the training mean, on the validation part if there is one,
            else on the training part.
        fit_seconds: time in the epochs, validation included.
        capped: share of the last epoch's steps that `training.cap_steps` made smaller.
    """

    outcome: Outcome
    reason: str
    parameters: fm.Learned | None
    train_losses: list[float]
    validation_losses: list[float]
    best_epoch: int | None
    best_validation: float | None
    baseline: float
    fit_seconds: float
    capped: float = 0.0

    @property
    def epochs(self) -> int:
        """Number of epochs with finite losses."""
        return len(self.train_losses)


@dataclass
class _Curves:
    """The losses of each epoch until now, and the best epoch with its parameters."""

    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best: float = math.inf
    best_epoch: int | None = None
    parameters: fm.Learned | None = None


@dataclass
class _Patience:
    """Early stopping: epochs without a relative gain of more than min_delta are counted."""

    stopping: EarlyStoppingConfig
    loss: float = math.inf
    epoch: int = 0

    def is_over(self, epoch: int, loss: float) -> bool:
        """Whether `patience` epochs have passed since the last gain; null never is."""
        if self.stopping.patience is None:
            return False
        if loss < self.loss * (1.0 - self.stopping.min_delta):
            self.loss, self.epoch = loss, epoch
        return epoch - self.epoch >= self.stopping.patience


def fit(
    config: Config,
    dataset: Dataset,
    watch: Watch | None = None,
    parameters: fm.Parameters | None = None,
) -> Fit:
    """Train on `dataset.train`; the losses on `dataset.validation` say which epoch is the best.

    Args:
        config: the whole configuration.
        dataset: encoded and split.
        watch: called after each epoch, may stop the training.
        parameters: where to start; None for what `model.start` says.

    Raises:
        ConfigError: early stopping without a validation part, or a mean of parameters or weights
            of rows with a backend that has none.
        MissingPackageError: the backend's package is not installed.
        DataError: feature rows that no kernel may see.
    """
    if config.training.early_stopping.patience is not None and dataset.validation is None:
        raise ConfigError(
            "training.early_stopping.patience needs a validation part: expected "
            f"split.validation > 0, got {config.split.validation:g}"
        )
    _claim_memory(dataset.encoder.n_features, config.model.k)
    if parameters is None:
        parameters = start_parameters(config, dataset)
    for caution in stability.cautions(config, dataset):
        _log.warning(caution)
    trainer = start(config, dataset.train, parameters)
    _refuse_unable(config, dataset, trainer)
    curves = _Curves()
    began = time.perf_counter()
    outcome, reason = _train(config, dataset, trainer, watch, curves)
    seconds = time.perf_counter() - began
    goes_back = dataset.validation is not None and not isinstance(trainer, DrawsSamples)
    learned = curves.parameters if goes_back else trainer.parameters()
    if learned is not None and not _is_finite(learned):
        outcome, learned = Outcome.DIVERGED, None
    if outcome is Outcome.DIVERGED:
        reason = stability.reason(config, dataset, parameters, len(curves.train))
    return Fit(
        outcome=outcome,
        reason=reason,
        parameters=learned,
        train_losses=curves.train,
        validation_losses=curves.validation,
        best_epoch=curves.best_epoch,
        best_validation=None if curves.best_epoch is None else curves.best,
        baseline=_baseline(config.task, dataset),
        fit_seconds=seconds,
        capped=trainer.capped_steps / len(dataset.train.target)
        if isinstance(trainer, CapsSteps)
        else 0.0,
    )


def _refuse_unable(config: Config, dataset: Dataset, trainer: Trainer) -> None:
    """Refuse a trainer that cannot do what is asked for.

    Raises:
        ConfigError: saying what it cannot do.
    """
    if config.training.average_from is not None and not isinstance(trainer, Averages):
        raise ConfigError(
            f"backend={config.backend.name} keeps no mean of its parameters: set "
            "training.average_from=null"
        )
    if dataset.train.row_weights is not None and not isinstance(trainer, TakesWeights):
        raise ConfigError(
            f"backend={config.backend.name} does not weight rows: set data.weight=null, or use "
            "another backend"
        )


def _claim_memory(n_features: int, k: int) -> None:
    """State the memory of the parameters, the best so far, and an optimiser's notes on each.

    Raises:
        DataError: there is not enough.
    """
    budget.claim(
        3 * 8 * n_features * (k + 1),
        f"the parameters of {n_features:,} features with model.k={k}",
        "set a smaller model.k, or use fewer features",
    )


def start_parameters(config: Config, dataset: Dataset) -> fm.Parameters:
    """The parameters before the first epoch, as `model.start` says.

    Raises:
        ConfigError: `model.start` is a run or folder, which the caller has to load.
    """
    model, train = config.model, dataset.train
    n_rows, n_features = train.features.shape
    if model.start == "notebook":
        return fm.notebook_parameters(n_features, model.k, n_rows, config.seed)
    if model.start != "normal":
        raise ConfigError(f"model.start={model.start} must be loaded first and given to fit()")
    if model.init_stdev == 0:
        _log.warning(
            "model.init_stdev=0: V starts at zero, where its gradient is zero, so it stays there "
            "and the model stays linear; any small value, such as 0.01, lets it learn"
        )
    return fm.initial_parameters(n_features, model.k, model.init_stdev, config.seed)


def _train(
    config: Config, dataset: Dataset, trainer: Trainer, watch: Watch | None, curves: _Curves
) -> tuple[Outcome, str]:
    """The epochs; fills `curves`."""
    training, validation = config.training, dataset.validation
    units, patience = loss_units(config.task, dataset), _Patience(training.early_stopping)
    generator = np.random.default_rng(config.seed) if training.shuffle else None
    one_pass = passes(trainer, len(dataset.train.target), generator)
    capping = trainer if isinstance(trainer, CapsSteps) else None
    sampling = trainer if isinstance(trainer, DrawsSamples) else None
    averaging = trainer if isinstance(trainer, Averages) else None  # asked once: it takes 30 us
    for epoch in range(1, training.epochs + 1):
        rate = training.learning_rate / (1.0 + training.learning_rate_decay * (epoch - 1))
        if capping is not None:
            capping.capped_steps = 0
        train_loss = one_pass(rate) * units
        if training.average_from is not None and epoch >= training.average_from:
            assert averaging is not None
            averaging.average(1.0 / (epoch - training.average_from + 1))
        loss = None if validation is None else trainer.loss(validation) * units
        if not math.isfinite(train_loss + (loss or 0.0)):
            return Outcome.DIVERGED, ""
        curves.train.append(train_loss)
        if loss is not None:
            curves.validation.append(loss)
            if sampling is not None or loss < curves.best:
                curves.best, curves.best_epoch = loss, epoch
                curves.parameters = None if sampling is not None else trainer.parameters()
        if watch is not None and (outcome := watch(epoch, train_loss, loss)) is not None:
            return outcome, f"{outcome} after epoch {epoch}"
        settled = sampling is None or epoch > sampling.burn_in
        if loss is not None and settled and patience.is_over(epoch, loss):
            return Outcome.COMPLETED, (
                f"stopped early after epoch {epoch}: no gain since epoch {patience.epoch}"
            )
    return Outcome.COMPLETED, ""


def loss_units(task: str, dataset: Dataset) -> float:
    """What a loss in the encoder's units is multiplied by for the target's own units."""
    return dataset.encoder.target_scale**2 if task == "regression" else 1.0


def _is_finite(parameters: fm.Learned) -> bool:
    arrays = (parameters.w0, parameters.w, parameters.V)
    return all(bool(np.isfinite(array).all()) for array in arrays)


def _baseline(task: fm.Task, dataset: Dataset) -> float:
    """Mean loss of predicting the training part's mean; see `Fit.baseline`."""
    part = dataset.train if dataset.validation is None else dataset.validation
    mean = _mean_target(dataset.train)
    if task == "classification":
        share = min(max(mean, 1e-15), 1.0 - 1e-15)
        mean = math.log(share / (1.0 - share))
    total = 0.0
    for chunk in chunks(len(part.target), SMALL_CHUNK_ROWS):
        constant = np.full(chunk.stop - chunk.start, mean)
        losses = fm.losses(task, constant, part.target[chunk])
        if part.row_weights is not None:
            losses *= part.row_weights[chunk]
        total += float(np.sum(losses))
    return total / part.total_weight * loss_units(task, dataset)


def _mean_target(part: Part) -> float:
    """The mean of the targets, by the rows' weights; chunk by chunk where there are some."""
    y, weights = part.target, part.row_weights
    if weights is None:
        return float(np.mean(y))
    rows = chunks(len(y), SMALL_CHUNK_ROWS)
    return sum(float(np.sum(y[chunk] * weights[chunk])) for chunk in rows) / part.total_weight
