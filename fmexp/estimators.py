"""FMRegressor and FMClassifier: scikit-learn estimators over the same backends and the same fit().

scikit-learn comes with MLflow. For tables with names, ids or dates use `fmexp run data=csv`, or
encode them first, as with scikit-learn's OneHotEncoder: sparse matrices are welcome.
"""

from __future__ import annotations

import numbers
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy.sparse import issparse  # type: ignore[import-untyped]
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from fmexp.config import meaning
from fmexp.config.checks import parse
from fmexp.config.shipped import shipped
from fmexp.data.learn import Learning
from fmexp.data.memory import from_arrays
from fmexp.errors import ConfigError, DataError
from fmexp.model import Model
from fmexp.training.fitting import fit

if TYPE_CHECKING:
    from pathlib import Path

    from fmexp.config.schema import Config

_FORMATS = ("csr", "csc", "coo")
_BACKENDS = ("numpy_sgd", "torch_adam", "gibbs")
_SHIPPED = shipped()
_MODEL, _TRAINING = _SHIPPED["model"], _SHIPPED["training"]
_GIBBS = shipped(backend="gibbs")["backend"]


class _Estimator(BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """What both estimators share.

    Parameters have the names and the defaults of the configuration's keys, except that all rows
    are trained on unless `validation` holds some out.
    """

    _task: str

    def __init__(
        self,
        *,
        k: int = _MODEL["k"],
        init_stdev: float = _MODEL["init_stdev"],
        clip: bool = _MODEL["clip"],
        learning_rate: float = _TRAINING["learning_rate"],
        epochs: int = _TRAINING["epochs"],
        shuffle: bool = _TRAINING["shuffle"],
        reg_w0: float = _TRAINING["reg_w0"],
        reg_w: float = _TRAINING["reg_w"],
        reg_V: float = _TRAINING["reg_V"],
        learning_rate_decay: float = _TRAINING["learning_rate_decay"],
        average_from: int | None = _TRAINING["average_from"],
        cap_steps: bool = _TRAINING["cap_steps"],
        validation: float = 0.0,
        patience: int | None = _TRAINING["early_stopping"]["patience"],
        min_delta: float = _TRAINING["early_stopping"]["min_delta"],
        backend: str = "numpy_sgd",
        batch_size: int | None = None,
        burn_in: int | None = None,
        kept: int = _GIBBS["kept"],
        standardize: bool = True,
        random_state: Any = 0,
    ) -> None:
        self.k = k
        self.init_stdev = init_stdev
        self.clip = clip
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.shuffle = shuffle
        self.reg_w0 = reg_w0
        self.reg_w = reg_w
        self.reg_V = reg_V
        self.learning_rate_decay = learning_rate_decay
        self.average_from = average_from
        self.cap_steps = cap_steps
        self.validation = validation
        self.patience = patience
        self.min_delta = min_delta
        self.backend = backend
        self.batch_size = batch_size
        self.burn_in = burn_in
        self.kept = kept
        self.standardize = standardize
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def save(self, folder: str | Path) -> None:
        """Write the trained model into a folder that `fmexp.load` and `fmexp predict` read."""
        check_is_fitted(self)
        self.model_.save(folder)

    def _fit(self, X: Any, y: np.ndarray, sample_weight: Any) -> Self:
        """Train on numbers X, shape (n_rows, n_features), and what the task takes for targets.

        Raises:
            ValueError: parameters or data cannot be used, or training diverged.
        """
        names = getattr(self, "feature_names_in_", None)
        try:
            config = self._config()
            learning = Learning(self._task, self.standardize)
            data = from_arrays(X, y, config.split, learning, names, sample_weight)
            fitted = fit(config, data)
        except (ConfigError, DataError) as error:
            raise ValueError(_in_parameters(str(error))) from error
        if fitted.parameters is None:
            raise ValueError(_in_parameters(fitted.reason))
        self.model_ = Model.of(config, data, fitted.parameters)
        self.train_losses_ = np.array(fitted.train_losses)
        self.validation_losses_ = np.array(fitted.validation_losses)
        self.best_epoch_ = fitted.best_epoch
        return self

    def _config(self) -> Config:
        """The configuration that `fmexp run` would have.

        Raises:
            ConfigError: parameters are out of their limits; all of them are named.
        """
        if self.backend not in _BACKENDS:
            known = ", ".join(_BACKENDS)
            raise ConfigError(f"backend must be one of {known}, got {self.backend!r}")
        # the rows are at hand, so of the group `data` only `standardize` is read
        tree = shipped(backend=self.backend, data="diabetes", tracking="none")
        tree["seed"], tree["task"] = self._seed(), self._task
        tree["split"] |= {"validation": self.validation, "test": 0.0}
        tree["data"]["standardize"] = self.standardize
        for group in ("model", "training", "backend"):
            tree[group] |= {key: getattr(self, key) for key in tree[group] if hasattr(self, key)}
        tree["training"]["early_stopping"] = {
            "patience": self.patience,
            "min_delta": self.min_delta,
        }
        defaults = {f"training.{key}": x for key, x in _TRAINING.items()}
        defaults |= {f"model.{key}": x for key, x in _MODEL.items()}
        set_here = (k for k, x in defaults.items() if getattr(self, k.partition(".")[2], x) != x)
        meaning.refuse(set_here, self.backend)
        return parse(tree)

    def _seed(self) -> int:
        if isinstance(self.random_state, numbers.Integral):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31))

    def _predict(self, X: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """Targets, and their standard deviations if the model has any; or P(second class)."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse=_FORMATS, dtype=np.float64, reset=False)
        if issparse(X) and self.model_.encoder.block is None:
            X = X.toarray()
        return self.model_.predict_with_stdev(X)


def _in_parameters(message: str) -> str:
    """A message about configuration keys in the names of the estimators' parameters.

    >>> _in_parameters("training.early_stopping.patience needs a validation part")
    'patience needs a validation part'
    """
    keys = r"\b(?:model|training\.early_stopping|training|split|backend|data)\.([a-zA-Z_0-9]+)"
    return re.sub(r"\bseed\b", "random_state", re.sub(keys, r"\1", message))


class FMRegressor(RegressorMixin, _Estimator):  # type: ignore[misc]
    """A Factorization Machine for numbers, trained by any backend on squared error.

    Attributes:
        model_: the `fmexp.model.Model`; its `save` writes what `fmexp predict` reads.
        train_losses_: mean squared error of each epoch, in the target's units.
        validation_losses_: the same of the held-out rows; empty where `validation` is 0.
        best_epoch_: the epoch that was kept; None where `validation` is 0.

    >>> X = np.array([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
    >>> model = FMRegressor(k=2, learning_rate=0.1, epochs=200).fit(X, X[:, 0] * X[:, 1])
    >>> model.predict(X).round(1).tolist()
    [1.0, -1.0, -1.0, 1.0]
    """

    _task = "regression"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on rows X (array or scipy matrix, shape (n_rows, n_features)) with targets y.

        `sample_weight`, shape (n_rows,), is how much each row counts; docs/fm.md says how.
        """
        X, y = validate_data(
            self, X, y, accept_sparse=_FORMATS, dtype=np.float64, y_numeric=True,
            ensure_min_samples=2,
        )  # fmt: skip
        return self._fit(X, np.asarray(y, np.float64), sample_weight)

    def predict(
        self, X: Any, return_std: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Predicted targets, float64, shape (n_rows,).

        Args:
            X: as in `fit`.
            return_std: with backend="gibbs", give the standard deviations of the targets as well
                (those of the predictions over the samples, and the noise), shape (n_rows,).
        """
        mean, stdev = self._predict(X)
        if not return_std:
            return mean
        if stdev is None:
            raise ValueError(f'return_std needs backend="gibbs", got {self.backend!r}')
        return mean, stdev


class FMClassifier(ClassifierMixin, _Estimator):  # type: ignore[misc]
    """A Factorization Machine for two classes, trained by any backend on log loss.

    Attributes:
        classes_: the two labels, sorted; probabilities are in this order.
        model_: as of FMRegressor; it has the labels as texts.
        train_losses_: mean log loss of each epoch.
        validation_losses_: the same of the held-out rows; empty where `validation` is 0.
        best_epoch_: the epoch that was kept; None where `validation` is 0.
    """

    _task = "classification"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on rows X (array or scipy matrix, shape (n_rows, n_features)) with labels y.

        `sample_weight`, shape (n_rows,), is how much each row counts; docs/fm.md says how.
        """
        X, y = validate_data(self, X, y, accept_sparse=_FORMATS, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) > 2:
            raise ValueError(
                "Only binary classification is supported. The type of the target is "
                f"{type_of_target(y)}."
            )
        if len(self.classes_) < 2:
            raise ValueError(f"two classes are needed, y has one class: {self.classes_[0]!r}")
        self._fit(X, codes, sample_weight)
        labels = (str(self.classes_[0]), str(self.classes_[1]))
        self.model_ = replace(self.model_, encoder=replace(self.model_.encoder, labels=labels))
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each class, float64, shape (n_rows, 2)."""
        second = self._predict(X)[0]
        return np.stack([1.0 - second, second], axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """The more probable label of each row, shape (n_rows,)."""
        second = self._predict(X)[0]
        return np.asarray(self.classes_[(second >= 0.5).astype(int)])
