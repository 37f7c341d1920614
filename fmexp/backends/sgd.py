"""Per-sample SGD: one update per row, by compiled loops, with the same bits on every CPU."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fmexp.backends import sgd_kernels
from fmexp.backends.compiled import NONE, aligned_zeros
from fmexp.config.schema import NumpySgdConfig
from fmexp.data.features import CSR, SMALL_CHUNK_ROWS, chunks
from fmexp.data.related import expanded
from fmexp.errors import DataError
from fmexp.fm import CURVATURE, Parameters

if TYPE_CHECKING:
    from fmexp.config.schema import Config
    from fmexp.data.dataset import Part
    from fmexp.data.features import Features

_Arrays = tuple[np.ndarray, ...]
"""Feature rows as the kernels take them: (X,) of shape (n_rows, n_features), or CSR as (indptr of
shape (n_rows + 1,), indices and values of shape (nnz,)); one-hot rows have no values: (0,)."""

_Step = tuple[float, ...]
"""Learning rate, the limit of rate times G, reg_w0, reg_w, reg_V."""

_AS_THEY_COME = np.zeros(0, np.int64)


_Heard = tuple[np.ndarray, np.ndarray | float, float]
"""Targets, weights (1 where rows have none), and the largest weight of all rows (else 1)."""


def start(config: Config, train: Part, parameters: Parameters) -> SgdTrainer:
    """See `fmexp.backends.base.Start`."""
    return SgdTrainer(config, train, parameters)


class SgdTrainer:
    """See `fmexp.backends.base.Trainer`. Checks every array before a kernel sees it."""

    capped_steps = 0
    """See `CapsSteps`."""

    def __init__(self, config: Config, train: Part, parameters: Parameters) -> None:
        training = config.training
        assert isinstance(config.backend, NumpySgdConfig)
        limit = 1.0 / CURVATURE[config.task] if training.cap_steps else np.inf
        regularization = training.reg_w0, training.reg_w, training.reg_V
        self._step = tuple(float(x) for x in (limit, *regularization))
        logistic = config.task == "classification"
        dtype = np.dtype(config.backend.dtype)
        wide = sgd_kernels.lanes_of(parameters.k) > sgd_kernels.MAX_LANES
        features = expanded(train.features)
        sparse = isinstance(features, CSR) or wide
        layout = SparseLayout if sparse else DenseLayout
        weighted = train.row_weights is not None
        self._row_weights: np.ndarray | None = None
        self._heaviest = 1.0
        if train.row_weights is not None:
            self._row_weights = _column(train.row_weights, len(features), dtype, "weights")
            self._heaviest = float(self._row_weights.max())
        self.total_weight = train.total_weight
        self._make_layout = partial(layout, dtype=dtype, logistic=logistic, weighted=weighted)
        self._layout = self._averaged = self._make_layout(parameters)
        self._bias = self._averaged_bias = np.array([parameters.w0], dtype)
        self._rows = self._layout.training_arrays(features)
        self._target = _column(train.target, len(features), dtype)
        self._logistic = logistic
        self._seen: tuple[Features, _Arrays] = features, self._rows
        self._load_kernels()

    def _load_kernels(self) -> None:
        """Load or compile the kernels, on no rows, so that training does not wait for it."""
        none = slice(0, 0)
        self.train_chunk(0.0, none, None)
        total_loss = sgd_kernels.total_loss(self._logistic, self._row_weights is not None)
        total_loss(self._scores(self._rows, none), NONE, NONE)
        sgd_kernels.shuffle()(_AS_THEY_COME, np.ones(4, np.uint64))

    def train_epoch(self, learning_rate: float, order: np.ndarray | None) -> float:
        """See `Trainer`."""
        whole = slice(0, len(self._target))
        return self.train_chunk(learning_rate, whole, order) / self.total_weight

    def train_chunk(self, learning_rate: float, chunk: slice, order: np.ndarray | None) -> float:
        """See `TakesChunks`."""
        target = self._target[chunk]
        order = _AS_THEY_COME if order is None else _row_numbers(order, len(target))
        rows, step = self._layout.view(self._rows, chunk), (float(learning_rate), *self._step)
        weights = 1.0 if self._row_weights is None else self._row_weights[chunk]
        heard = target, weights, self._heaviest
        total, n_capped = self._layout.train(rows, heard, order, self._bias, step)
        self.capped_steps += n_capped
        return total

    def shuffle(self, order: np.ndarray, generator: np.random.Generator) -> None:
        """See `Shuffles`."""
        sgd_kernels.shuffle()(order, generator.bit_generator.random_raw(4))

    def average(self, weight: float) -> None:
        """See `Averages`."""
        if self._averaged is self._layout:
            self._averaged = self._make_layout(self.parameters())
            self._averaged_bias = self._bias.copy()
        self._averaged_bias += weight * (self._bias - self._averaged_bias)
        for mean, now in (
            (self._averaged.weights(), self._layout.weights()),
            (self._averaged.factors(), self._layout.factors()),
        ):
            mean += weight * (now - mean)

    def loss(self, part: Part) -> float:
        """See `Trainer`."""
        target = _column(part.target, len(part.features), np.dtype(np.float64))
        rows, weights = self._checked(expanded(part.features)), NONE
        if part.row_weights is not None:
            weights = _column(part.row_weights, len(target), np.dtype(np.float64), "weights")
        total_loss = sgd_kernels.total_loss(self._logistic, weights is not NONE)
        total = 0.0
        for chunk in chunks(len(target), SMALL_CHUNK_ROWS):
            total += total_loss(self._scores(rows, chunk), target[chunk], weights[chunk])
        return total / part.total_weight

    def scores(self, features: Features) -> np.ndarray:
        """See `Trainer`."""
        return self._scores(self._checked(features), slice(0, len(features)))

    def _checked(self, features: Features) -> _Arrays:
        """The rows as the kernels take them: checked once, not after every epoch."""
        if self._seen[0] is not features:
            self._seen = features, self._layout.arrays(features)
        return self._seen[1]

    def _scores(self, rows: _Arrays, chunk: slice) -> np.ndarray:
        out = np.empty(chunk.stop - chunk.start)
        self._averaged.score(self._averaged.view(rows, chunk), self._averaged_bias, out)
        return out

    def parameters(self) -> Parameters:
        """See `Trainer`."""
        w, V = self._averaged.weights(), self._averaged.factors()
        return Parameters(float(self._averaged_bias[0]), w.astype(np.float64), V.astype(np.float64))


class DenseLayout:
    """Dense rows: w and V in arrays of their own, V padded to whole vectors."""

    def __init__(
        self,
        parameters: Parameters,
        dtype: np.dtype[Any],
        logistic: bool,
        weighted: bool = False,
    ) -> None:
        self._lanes, self._k = sgd_kernels.lanes_of(parameters.k), parameters.k
        self._dtype = dtype
        self._w = aligned_zeros(1, len(parameters.w), dtype)[0]
        self._V = aligned_zeros(len(parameters.w), self._lanes, dtype)
        self._scales = np.empty_like(self._w)
        self._largest = np.inf
        self._w[:] = parameters.w
        self._V[:, : self._k] = parameters.V
        self._train = sgd_kernels.train_dense(self._lanes, dtype.name, logistic, weighted)

    def arrays(self, features: Features) -> _Arrays:
        """The feature rows as the kernels take them."""
        rows = features.to_dense() if isinstance(features, CSR) else np.asarray(features)
        if rows.ndim != 2 or rows.shape[1] != len(self._w):
            raise _wrong_shape(rows.shape, len(self._w))
        return (np.ascontiguousarray(rows, self._dtype),)

    def training_arrays(self, features: Features) -> _Arrays:
        """The same of the rows to train on: the cap asks how large the largest is."""
        (rows,) = self.arrays(features)
        with np.errstate(over="ignore"):
            each = (np.square(rows[c]).sum(1) for c in chunks(len(rows), SMALL_CHUNK_ROWS))
            self._largest = float(max(norms.max() for norms in each))
        return (rows,)

    def view(self, rows: _Arrays, chunk: slice) -> _Arrays:
        """A chunk of what `arrays` gave, without a copy."""
        return (rows[0][chunk],)

    def train(
        self, rows: _Arrays, heard: _Heard, order: np.ndarray, bias: np.ndarray, step: _Step
    ) -> tuple[float, int]:
        """One pass: the sum of the losses, and how many steps were capped."""
        given = *rows, *heard, order, self._w, self._V, self._scales, self._largest
        return self._train(*given, bias, *step)

    def score(self, rows: _Arrays, bias: np.ndarray, out: np.ndarray) -> None:
        """Scores into `out`, float64 of shape (n_rows,)."""
        kernel = sgd_kernels.score_dense(self._lanes, self._dtype.name)
        kernel(*rows, self._w, self._V, bias, out)

    def weights(self) -> np.ndarray:
        """View of w, shape (n_features,)."""
        return np.asarray(self._w)

    def factors(self) -> np.ndarray:
        """View of V without the padding, shape (n_features, k)."""
        return np.asarray(self._V[:, : self._k])


class SparseLayout:
    """CSR rows: v_j on whole cache lines, w_j beside it if there is room (`table_width`)."""

    def __init__(
        self,
        parameters: Parameters,
        dtype: np.dtype[Any],
        logistic: bool,
        weighted: bool = False,
    ) -> None:
        self._lanes, self._k = sgd_kernels.lanes_of(parameters.k), parameters.k
        self._dtype, self._kind = dtype, (logistic, weighted)
        width = sgd_kernels.table_width(self._lanes, dtype)
        n_features = len(parameters.w)
        self._table = aligned_zeros(n_features, width, dtype)
        apart = width == self._lanes
        self._w = np.zeros(n_features, dtype) if apart else self._table[:, self._lanes]
        wide = self._lanes > sgd_kernels.MAX_LANES
        self._sums = np.zeros(self._lanes, dtype) if wide else None
        self._largest = np.inf
        self.factors()[:] = parameters.V
        self.weights()[:] = parameters.w

    def arrays(self, features: Features) -> _Arrays:
        """The feature rows as the kernels take them; no values for one-hot rows."""
        rows = features if isinstance(features, CSR) else CSR.from_dense(np.asarray(features))
        rows = rows.without_zeros()  # L2 counts what is stored
        if rows.n_features != len(self._table):
            raise _wrong_shape(rows.shape, len(self._table))
        indptr = np.ascontiguousarray(rows.indptr, np.int64)
        indices = np.ascontiguousarray(rows.indices, np.int32)
        values = np.zeros(0) if rows.values is None else rows.values
        values = np.ascontiguousarray(values, self._dtype)
        check_sparse(indptr, indices, None if rows.values is None else values, rows.n_features)
        return indptr, indices, values

    def training_arrays(self, features: Features) -> _Arrays:
        """The same of the rows to train on: the cap asks how large the largest is."""
        rows = indptr, _, values = self.arrays(features)
        largest = sgd_kernels.largest_squared_norm()(indptr, values, _is_one_hot(rows))
        self._largest = float(largest)
        return rows

    def view(self, rows: _Arrays, chunk: slice) -> _Arrays:
        """A chunk of what `arrays` gave, without a copy."""
        indptr, indices, values = rows
        return indptr[chunk.start : chunk.stop + 1], indices, values

    def train(
        self, rows: _Arrays, heard: _Heard, order: np.ndarray, bias: np.ndarray, step: _Step
    ) -> tuple[float, int]:
        """One pass: the sum of the losses, and how many steps were capped."""
        dtype, one_hot = self._dtype.name, _is_one_hot(rows)
        target, weights, _ = heard
        of_model = order, self._table, self._w
        if self._sums is not None:
            wide = sgd_kernels.train_wide(dtype, one_hot, *self._kind)
            return wide(*rows, target, weights, *of_model, self._sums, bias, *step)
        kernel = sgd_kernels.train_sparse(self._lanes, dtype, one_hot, *self._kind)
        return kernel(*rows, *heard, *of_model, self._largest, bias, *step)

    def score(self, rows: _Arrays, bias: np.ndarray, out: np.ndarray) -> None:
        """Scores into `out`, float64 of shape (n_rows,)."""
        dtype, one_hot, table, w = self._dtype.name, _is_one_hot(rows), self._table, self._w
        if self._sums is not None:
            sgd_kernels.score_wide(dtype, one_hot)(*rows, table, w, self._sums, bias, out)
        else:
            sgd_kernels.score_sparse(self._lanes, dtype, one_hot)(*rows, table, w, bias, out)

    def weights(self) -> np.ndarray:
        """View of w, shape (n_features,)."""
        return np.asarray(self._w)

    def factors(self) -> np.ndarray:
        """View of V without the padding, shape (n_features, k)."""
        return np.asarray(self._table[:, : self._k])


def _is_one_hot(rows: _Arrays) -> bool:
    return len(rows[2]) < len(rows[1])


def _column(
    target: np.ndarray, n_rows: int, dtype: np.dtype[Any], what: str = "targets"
) -> np.ndarray:
    """The target, or the rows' weights, as the kernels take them."""
    if target.shape != (n_rows,):
        raise DataError(f"expected {n_rows:,} {what}, one a row, got shape {target.shape}")
    return np.ascontiguousarray(target, dtype)


def _row_numbers(order: np.ndarray, n_rows: int) -> np.ndarray:
    """The visiting order as the kernels take it."""
    order = np.ascontiguousarray(order, np.int64)
    if len(order) != n_rows or order.min() < 0 or order.max() >= n_rows:
        raise ValueError(f"order must be a permutation of {n_rows} rows")
    return order


def check_sparse(
    indptr: np.ndarray, indices: np.ndarray, values: np.ndarray | None, n_features: int
) -> None:
    """Refuse CSR arrays that would lead a kernel out of bounds, or count a feature twice.

    Raises:
        DataError: naming the first row that is wrong.
    """
    falls = any((np.diff(indptr[b.start : b.stop + 1]) < 0).any() for b in chunks(len(indptr) - 1))
    if indptr[0] != 0 or indptr[-1] != len(indices) or falls:
        raise DataError("expected row pointers that rise from 0 to the number of entries")
    if values is not None and len(values) != len(indices):
        raise DataError(f"expected {len(indices):,} values, one an entry, got {len(values):,}")
    row = sgd_kernels.first_bad_row()(indptr, indices, np.full(n_features, -1, np.int64))
    if row >= 0:
        found = indices[indptr[row] : indptr[row + 1]].tolist()
        raise DataError(
            f"expected feature numbers from 0 to {n_features - 1:,}, each once in a row; "
            f"row {row:,} has {found[:20]}"
        )


def _wrong_shape(shape: tuple[int, ...], n_features: int) -> DataError:
    return DataError(f"expected rows of {n_features:,} features, got an array of shape {shape}")
