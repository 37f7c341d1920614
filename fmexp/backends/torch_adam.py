"""Adam on whole batches, in PyTorch: gradients in closed form, no autograd, CPU or CUDA."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, embedding_bag, mse_loss

from fmexp.config import TorchAdamConfig
from fmexp.data.dataset import CSR
from fmexp.errors import ConfigError
from fmexp.fm import Parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fmexp.config import Config
    from fmexp.data.dataset import Features, Part


def start(config: Config, train: Part, parameters: Parameters) -> AdamTrainer:
    """See `fmexp.backends.base.Start`."""
    return AdamTrainer(config, train, parameters)


class AdamTrainer:
    """See `fmexp.backends.base.Trainer`.

    w0, V and w are views of one flat tensor, so that a step of Adam is a step on one tensor. V and
    w are one table of k + 1 columns: both are multiplied with the feature rows.
    """

    def __init__(self, config: Config, train: Part, parameters: Parameters) -> None:
        backend, training = config.backend, config.training
        assert isinstance(backend, TorchAdamConfig)
        self._classification = config.task == "classification"
        self._dtype = getattr(torch, backend.dtype)
        self._device = _device(backend.device)
        self._k = parameters.k
        self._theta = self._flat(parameters)
        self._w0, self._table = self._views(self._theta)
        self._gradient = torch.zeros_like(self._theta)
        self._d_w0, self._d_table = self._views(self._gradient)
        self._adam = _Adam(self._theta)
        self._reg_w0 = training.reg_w0
        self._reg = self._columns(training.reg_V, training.reg_w)
        self._rows, self._target = self._moved(train)
        self._batch_size = min(backend.batch_size or len(self._target), len(self._target))
        self._seen = train, self._rows, self._target

    def train_epoch(self, learning_rate: float, order: np.ndarray | None) -> float:
        """See `Trainer`."""
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        for rows, target in self._batches(order):
            scores, sums = self._scores_and_sums(rows)
            total += self._mean_loss(scores, target).double() * len(target)
            slopes = (torch.sigmoid(scores) if self._classification else scores) - target
            self._set_gradient(rows, slopes / len(target), sums)
            self._adam.step(self._gradient, learning_rate)
        return float(total) / len(self._target)

    def loss(self, part: Part) -> float:
        """See `Trainer`."""
        if self._seen[0] is not part:
            self._seen = part, *self._moved(part)
        _, rows, target = self._seen
        scores, _ = self._scores_and_sums(rows)
        return float(self._mean_loss(scores, target))

    def scores(self, features: Features) -> np.ndarray:
        """See `Trainer`."""
        scores, _ = self._scores_and_sums(self._rows_of(features))
        return scores.to("cpu", torch.float64).numpy()

    def parameters(self) -> Parameters:
        """See `Trainer`."""
        table = self._table.to("cpu", torch.float64, copy=True).numpy()
        w, V = table[:, self._k].copy(), table[:, : self._k].copy()
        return Parameters(float(self._w0), w, V)

    def gradients(self) -> Parameters:
        """The gradient of the last step, for tests."""
        table = self._d_table.to("cpu", torch.float64, copy=True).numpy()
        return Parameters(float(self._d_w0), table[:, self._k], table[:, : self._k])

    def _scores_and_sums(self, rows: _Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores (n_rows,), and features @ (V, w) of shape (n_rows, k + 1)."""
        V, k = self._table[:, : self._k], self._k
        sums = rows.times(self._table)
        square_of_sums = sums[:, :k].square().sum(1)
        sum_of_squares = rows.squares_times(V.square().sum(1))
        return self._w0 + sums[:, k] + 0.5 * (square_of_sums - sum_of_squares), sums

    def _set_gradient(self, rows: _Rows, slopes: torch.Tensor, sums: torch.Tensor) -> None:
        """The gradient of the mean over the rows, as `fmexp.fm.gradients` defines it.

        `slopes` is dloss/dscore / n_rows; `sums` is overwritten.
        """
        V, k = self._table[:, : self._k], self._k
        sums[:, k] = 1.0
        sums *= slopes[:, None]
        rows.transposed_times(sums, out=self._d_table)
        self._d_table[:, :k] -= V * rows.transposed_squares_times(slopes)[:, None]
        torch.sum(slopes, 0, keepdim=True, out=self._d_w0)
        if self._reg_w0:
            self._d_w0 += self._reg_w0 * self._w0
        if self._reg is not None:
            self._d_table += self._reg * rows.share_present(V.dtype)[:, None] * self._table

    def _batches(self, order: np.ndarray | None) -> Iterator[tuple[_Rows, torch.Tensor]]:
        """The batches of an epoch. All rows at once need no order: their mean is what counts."""
        rows, target, size = self._rows, self._target, self._batch_size
        if size == len(target):
            yield rows, target
            return
        if order is not None:
            rows = rows.taken(order)
            target = target[torch.from_numpy(order).to(self._device)]
        for begin in range(0, len(target), size):
            end = min(begin + size, len(target))
            yield rows.between(begin, end), target[begin:end]

    def _mean_loss(self, scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Mean over the rows, on the device."""
        if self._classification:
            return binary_cross_entropy_with_logits(scores, target)
        return mse_loss(scores, target)

    def _moved(self, part: Part) -> tuple[_Rows, torch.Tensor]:
        """A part's rows and targets where training happens."""
        target = torch.as_tensor(part.target).to(self._device, self._dtype)
        return self._rows_of(part.features), target

    def _rows_of(self, features: Features) -> _Rows:
        if isinstance(features, CSR):
            return _SparseRows.of(features, self._device, self._dtype)
        return _DenseRows(torch.as_tensor(features).to(self._device, self._dtype))

    def _flat(self, parameters: Parameters) -> torch.Tensor:
        """One tensor: w0, then the rows (v_j, w_j)."""
        table = np.column_stack([parameters.V, parameters.w])
        flat = np.concatenate([[parameters.w0], table.ravel()])
        return torch.as_tensor(flat).to(self._device, self._dtype)

    def _views(self, flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """w0 (1,) and the table (n_features, k + 1) inside a flat tensor."""
        return flat[:1], flat[1:].view(-1, self._k + 1)

    def _columns(self, reg_V: float, reg_w: float) -> torch.Tensor | None:
        """The L2 of each column of the table; None without L2."""
        if not reg_V and not reg_w:
            return None
        return torch.tensor([reg_V] * self._k + [reg_w], dtype=self._dtype, device=self._device)


class _Adam:
    """Adam (Kingma & Ba 2015, algorithm 1) on one tensor, as torch.optim.Adam computes it.

    Written out because torch.optim.Adam takes longer to begin a step than a small step takes.
    EPSILON is half of torch's default, as our gradients are half of those of the mean squared
    error: the steps are those that torch.optim.Adam takes on torch.nn.MSELoss.
    """

    BETA1, BETA2, EPSILON = 0.9, 0.999, 0.5e-8

    def __init__(self, theta: torch.Tensor) -> None:
        self._theta = theta
        self._mean = torch.zeros_like(theta)
        self._square = torch.zeros_like(theta)
        self._steps = 0

    def step(self, gradient: torch.Tensor, learning_rate: float) -> None:
        """Move theta."""
        self._steps += 1
        correction1 = 1.0 - self.BETA1**self._steps
        correction2 = 1.0 - self.BETA2**self._steps
        self._mean.lerp_(gradient, 1.0 - self.BETA1)
        self._square.mul_(self.BETA2).addcmul_(gradient, gradient, value=1.0 - self.BETA2)
        denominator = self._square.sqrt().div_(math.sqrt(correction2)).add_(self.EPSILON)
        self._theta.addcdiv_(self._mean, denominator, value=-learning_rate / correction1)


class _DenseRows:
    """Products with dense feature rows X of shape (n_rows, n_features)."""

    def __init__(self, X: torch.Tensor, X2: torch.Tensor | None = None) -> None:
        self._X = X
        self._X2 = X.square() if X2 is None else X2

    def times(self, matrix: torch.Tensor) -> torch.Tensor:
        """X @ matrix."""
        return self._X @ matrix

    def squares_times(self, column: torch.Tensor) -> torch.Tensor:
        """X^2 @ column."""
        return self._X2 @ column

    def transposed_times(self, matrix: torch.Tensor, out: torch.Tensor) -> None:
        """X^T @ matrix."""
        torch.mm(self._X.t(), matrix, out=out)

    def transposed_squares_times(self, column: torch.Tensor) -> torch.Tensor:
        """(X^2)^T @ column."""
        return self._X2.t() @ column

    def share_present(self, dtype: torch.dtype) -> torch.Tensor:
        """The share of rows in which a feature is not zero, shape (n_features,)."""
        return (self._X != 0).to(dtype).mean(0)

    def taken(self, order: np.ndarray) -> _DenseRows:
        """The rows in another order."""
        index = torch.from_numpy(order).to(self._X.device)
        return _DenseRows(self._X[index], self._X2[index])

    def between(self, begin: int, end: int) -> _DenseRows:
        """Rows begin to end."""
        return _DenseRows(self._X[begin:end], self._X2[begin:end])


class _SparseRows:
    """Products with CSR rows, by gathers and scatters of rows of the table.

    `indptr` stays in the host's memory as well: where a batch begins must not wait for a device.
    """

    def __init__(
        self, indptr: np.ndarray, indices: torch.Tensor, values: torch.Tensor | None, n: int
    ) -> None:
        self._indptr, self._indices, self._values, self._n_features = indptr, indices, values, n
        device = indices.device
        self._offsets = torch.from_numpy(indptr[:-1]).to(device)
        lengths = torch.from_numpy(np.diff(indptr)).to(device)
        numbers = torch.arange(len(indptr) - 1, device=device)
        self._rows = numbers.repeat_interleave(lengths, output_size=len(indices))

    @classmethod
    def of(cls, features: CSR, device: torch.device, dtype: torch.dtype) -> _SparseRows:
        """Rows moved to the device."""
        values = features.values
        return cls(
            np.asarray(features.indptr, np.int64),
            torch.as_tensor(features.indices).to(device, torch.int64),
            None if values is None else torch.as_tensor(values).to(device, dtype),
            features.n_features,
        )

    def times(self, matrix: torch.Tensor) -> torch.Tensor:
        """X @ matrix."""
        return embedding_bag(
            self._indices, matrix, self._offsets, mode="sum", per_sample_weights=self._values
        )

    def squares_times(self, column: torch.Tensor) -> torch.Tensor:
        """X^2 @ column."""
        squares = None if self._values is None else self._values.square()
        return embedding_bag(
            self._indices, column[:, None], self._offsets, mode="sum", per_sample_weights=squares
        )[:, 0]

    def transposed_times(self, matrix: torch.Tensor, out: torch.Tensor) -> None:
        """X^T @ matrix."""
        entries = matrix[self._rows]
        if self._values is not None:
            entries *= self._values[:, None]
        out.zero_().index_add_(0, self._indices, entries)

    def transposed_squares_times(self, column: torch.Tensor) -> torch.Tensor:
        """(X^2)^T @ column."""
        entries = column[self._rows]
        if self._values is not None:
            entries *= self._values.square()
        return column.new_zeros(self._n_features).index_add_(0, self._indices, entries)

    def share_present(self, dtype: torch.dtype) -> torch.Tensor:
        """The share of rows in which a feature is not zero, shape (n_features,)."""
        present = torch.ones_like(self._indices, dtype=dtype)
        if self._values is not None:
            present = (self._values != 0).to(dtype)
        counts = present.new_zeros(self._n_features).index_add_(0, self._indices, present)
        return counts / len(self._offsets)

    def taken(self, order: np.ndarray) -> _SparseRows:
        """The rows in another order."""
        lengths = np.diff(self._indptr)[order]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        shift = torch.from_numpy(self._indptr[order] - indptr[:-1]).to(self._rows.device)
        n_entries = len(self._indices)
        lengths_there = torch.from_numpy(lengths).to(self._rows.device)
        index = shift.repeat_interleave(lengths_there, output_size=n_entries)
        index += torch.arange(n_entries, device=self._rows.device)
        values = None if self._values is None else self._values[index]
        return _SparseRows(indptr, self._indices[index], values, self._n_features)

    def between(self, begin: int, end: int) -> _SparseRows:
        """Rows begin to end."""
        entries = slice(int(self._indptr[begin]), int(self._indptr[end]))
        indptr = self._indptr[begin : end + 1] - self._indptr[begin]
        values = None if self._values is None else self._values[entries]
        return _SparseRows(indptr, self._indices[entries], values, self._n_features)


_Rows = _DenseRows | _SparseRows


def _device(name: str) -> torch.device:
    """The device that `backend.device` names; auto is CUDA where there is one.

    Raises:
        ConfigError: cuda was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "backend.device=cuda: expected a CUDA device, torch finds none; "
            "use backend.device=auto or cpu"
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
