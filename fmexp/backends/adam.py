"""Adam on whole batches, in PyTorch: gradients in closed form, no autograd, CPU or CUDA."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, embedding_bag

from fmexp.backends.adam_step import Adam
from fmexp.config.schema import TorchAdamConfig
from fmexp.data.features import CSR
from fmexp.data.related import expanded
from fmexp.errors import ConfigError
from fmexp.fm import Parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fmexp.config.schema import Config
    from fmexp.data.dataset import Part
    from fmexp.data.features import Features


def start(config: Config, train: Part, parameters: Parameters) -> AdamTrainer:
    """See `fmexp.backends.base.Start`."""
    return AdamTrainer(config, train, parameters)


class AdamTrainer:
    """See `fmexp.backends.base.Trainer`.

    With S = (X V, X w + w0 - 1/2 X^2 |V|^2) of shape (n_rows, k + 1), the scores are the last
    column plus half the squares of the others. With r = dloss/dy_hat and R = r (S_1 ... S_k, 1)
    the gradient is X^T R, less V (X^2)^T r. So an epoch is two products with the feature rows and
    a dozen operations on small tensors.
    """

    def __init__(self, config: Config, train: Part, parameters: Parameters) -> None:
        backend, training = config.backend, config.training
        assert isinstance(backend, TorchAdamConfig)
        self._classification = config.task == "classification"
        self._device = _device(backend.device)
        self._dtype: torch.dtype = getattr(torch, backend.dtype)
        self._table = self._averaged = _Table(parameters, self._device, self._dtype)
        self._gradient = _Table.zeros_like(self._table)
        self._adam = Adam(self._table.all)
        self._reg_w0, self._reg_w, self._reg_V = training.reg_w0, training.reg_w, training.reg_V
        self._rows, self._target = self._moved(train)
        self._row_weights, self.total_weight = train.row_weights, train.total_weight
        self._batch_size = min(backend.batch_size or len(self._target), len(self._target))
        self._seen = train, self._rows, self._target

    @torch.inference_mode()
    def train_epoch(self, learning_rate: float, order: np.ndarray | None) -> float:
        """See `Trainer`."""
        losses, sizes = [], []
        for rows, target, size in self._batches(order):
            sums, scores = _sums_and_scores(rows, self._table)
            losses.append(self._mean_loss(scores, target, rows.shares))
            sizes.append(size)
            slopes = (torch.sigmoid(scores) if self._classification else scores) - target
            slopes = slopes.div_(len(target)) if rows.shares is None else slopes.mul_(rows.shares)
            self._set_gradient(rows, sums, slopes)
            self._adam.step(self._gradient.all, learning_rate)
        means = torch.stack(losses).tolist()  # the only wait for the device in an epoch
        return float(np.dot(means, sizes)) / sum(sizes)

    @torch.inference_mode()
    def average(self, weight: float) -> None:
        """See `Averages`."""
        if self._averaged is self._table:
            self._averaged = _Table.zeros_like(self._table)
        self._averaged.all.lerp_(self._table.all, weight)

    @torch.inference_mode()
    def loss(self, part: Part) -> float:
        """See `Trainer`."""
        if self._seen[0] is not part:
            self._seen = part, *self._moved(part)
        _, rows, target = self._seen
        scores = _sums_and_scores(rows, self._averaged)[1]
        return float(self._mean_loss(scores, target, rows.shares))

    @torch.inference_mode()
    def scores(self, features: Features) -> np.ndarray:
        """See `Trainer`."""
        _, scores = _sums_and_scores(self._rows_of(features), self._averaged)
        return scores.to("cpu", torch.float64).numpy()

    def parameters(self) -> Parameters:
        """See `Trainer`."""
        return self._averaged.parameters()

    def gradients(self) -> Parameters:
        """The gradient of the last step, for tests."""
        return self._gradient.parameters()

    def _set_gradient(self, rows: _Rows, sums: torch.Tensor, slopes: torch.Tensor) -> None:
        """The gradient of the mean over the rows, as `fmexp.fm.gradients` defines it.

        `slopes` is dloss/dscore times the row's share in the mean; `sums` is overwritten.
        """
        table, gradient = self._table, self._gradient
        sums[:, table.k] = 1.0
        sums *= slopes[:, None]
        rows.set_gradient(gradient, sums, table, self._reg_w, self._reg_V)
        if self._reg_w0:
            gradient.w0.add_(table.w0, alpha=self._reg_w0)

    def _batches(self, order: np.ndarray | None) -> Iterator[tuple[_Rows, torch.Tensor, float]]:
        """The batches of an epoch, each with its size: the sum of its rows' weights.

        All rows at once need no order: their mean is what counts.
        """
        rows, target, size, weights = (
            self._rows, self._target, self._batch_size, self._row_weights,
        )  # fmt: skip
        if size == len(target):
            yield rows, target, self.total_weight
            return
        if order is not None:
            rows = rows.taken(order)
            target = target[torch.from_numpy(order).to(self._device)]
            weights = None if weights is None else weights[order]
        for begin in range(0, len(target), size):
            end = min(begin + size, len(target))
            batch, total = rows.between(begin, end), float(end - begin)
            if weights is not None:
                total = float(weights[begin:end].sum())
                if total == 0:
                    continue
                batch.shares = self._tensor(weights[begin:end] / total)
            yield batch, target[begin:end], total

    def _mean_loss(
        self, scores: torch.Tensor, target: torch.Tensor, shares: torch.Tensor | None
    ) -> torch.Tensor:
        """Mean over the rows, on the device."""
        if self._classification:
            how = "mean" if shares is None else "sum"
            return binary_cross_entropy_with_logits(scores, target, shares, reduction=how)
        squares = (scores - target).square_()
        return squares.mean() if shares is None else torch.dot(squares, shares)

    def _moved(self, part: Part) -> tuple[_Rows, torch.Tensor]:
        """A part's rows and targets where training happens."""
        rows = self._rows_of(expanded(part.features))
        if part.row_weights is not None:
            rows.shares = self._tensor(part.row_weights / part.total_weight)
        return rows, self._tensor(part.target)

    def _tensor(self, numbers: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(numbers).to(self._device, self._dtype)

    def _rows_of(self, features: Features) -> _Rows:
        if isinstance(features, CSR):
            return _SparseRows.of(features, self._device, self._dtype)
        return _DenseRows.of(torch.as_tensor(features).to(self._device, self._dtype))


def _sums_and_scores(rows: _Rows, table: _Table) -> tuple[torch.Tensor, torch.Tensor]:
    """S (n_rows, k + 1), and the scores (n_rows,)."""
    sums, k = rows.sums(table), table.k
    square_of_sums = sums[:, :k].square().sum(1)
    return sums, torch.add(sums[:, k], square_of_sums, alpha=0.5)


class _Table:
    """Parameters, or their gradient, as rows of k + 1 numbers of one tensor.

    Rows 0 to n - 1 are (v_j, w_j), row n is (0, w0), and the rows after it are (0, |v_j|^2), which
    dense rows need: `all` (the first n + 1) is what Adam moves, `W` is the whole.
    """

    def __init__(self, parameters: Parameters, device: torch.device, dtype: torch.dtype) -> None:
        n, k = parameters.V.shape
        W = np.zeros((2 * n + 1, k + 1))
        W[:n, :k], W[:n, k], W[n, k] = parameters.V, parameters.w, parameters.w0
        self._view(torch.as_tensor(W).to(device, dtype))

    @classmethod
    def zeros_like(cls, table: _Table) -> _Table:
        """All zero, for gradients and means."""
        zeros = cls.__new__(cls)
        zeros._view(torch.zeros_like(table.W))
        return zeros

    def _view(self, W: torch.Tensor) -> None:
        n, self.k = len(W) // 2, W.shape[1] - 1
        self.W, self.all, self.features = W, W[: n + 1], W[:n]
        self.V, self.w, self.w0 = W[:n, : self.k], W[:n, self.k], W[n, self.k]
        self.unused, self.squares = W[n, : self.k], W[n + 1 :, self.k]
        self.squares_column = self.squares[:, None]
        self._of_V = torch.ones_like(W[0])
        self._of_V[self.k] = 0.0

    def squared_lengths(self) -> torch.Tensor:
        """|v_j|^2, shape (n_features,)."""
        torch.square(self.features, out=self._room)
        return torch.mv(self._room, self._of_V)

    @cached_property
    def _room(self) -> torch.Tensor:
        """For the squares: a new tensor at each step would cost more than they do."""
        return torch.empty_like(self.features)

    def parameters(self) -> Parameters:
        """A float64 copy."""
        w0, w, V = (
            x.to("cpu", torch.float64, copy=True).numpy() for x in (self.w0, self.w, self.V)
        )
        return Parameters(float(w0), np.ascontiguousarray(w), np.ascontiguousarray(V))


class _DenseRows:
    """Dense feature rows, kept as (X, 1, -1/2 X^2) so that one product is all of S.

    `shares` are those of the rows in the mean, where rows have weights; None: 1 / n_rows each.
    """

    shares: torch.Tensor | None = None

    def __init__(self, wide: torch.Tensor) -> None:
        self._wide, self._n = wide, wide.shape[1] // 2

    @classmethod
    def of(cls, X: torch.Tensor) -> _DenseRows:
        """Rows that are on their device already."""
        return cls(torch.cat([X, torch.ones_like(X[:, :1]), -0.5 * X.square()], dim=1))

    def sums(self, table: _Table) -> torch.Tensor:
        """S."""
        table.squares.copy_(table.squared_lengths())
        return torch.mm(self._wide, table.W)

    def set_gradient(
        self, gradient: _Table, R: torch.Tensor, table: _Table, reg_w: float, reg_V: float
    ) -> None:
        """X^T R and sum of r, less V (X^2)^T r, plus L2 by the share of rows with a feature."""
        torch.mm(self._wide.t(), R, out=gradient.W)
        gradient.V.addcmul_(table.V, gradient.squares_column, value=2.0)
        gradient.unused.zero_()
        if reg_w or reg_V:
            gradient.w.addcmul_(self._present, table.w, value=reg_w)
            gradient.V.addcmul_(self._present[:, None], table.V, value=reg_V)

    @cached_property
    def _present(self) -> torch.Tensor:
        """The share of rows in which a feature is not zero, shape (n_features,)."""
        present = (self._wide[:, : self._n] != 0).to(self._wide.dtype)
        return present.mean(0) if self.shares is None else self.shares @ present

    def taken(self, order: np.ndarray) -> _DenseRows:
        """The rows in another order."""
        return _DenseRows(self._wide[torch.from_numpy(order).to(self._wide.device)])

    def between(self, begin: int, end: int) -> _DenseRows:
        """Rows begin to end."""
        return _DenseRows(self._wide[begin:end])


class _SparseRows:
    """CSR feature rows: gathers from the table, scatters into the gradient.

    `ids` and `values` (None: all 1) are (n_rows, length) where all rows have as many entries, as
    one-hot rows do; else they are (n_entries,), and `indptr` says where rows begin. That one stays
    in the host's memory: where a batch begins must not wait for a device. `rows` is the row of
    each entry. `_v` is (v_j, 0) of each entry once `sums` was called, where a batch has fewer
    entries than there are features: one pass over them costs less than one over the table.
    `shares` is as of `_DenseRows`.
    """

    shares: torch.Tensor | None = None

    def __init__(
        self,
        ids: torch.Tensor,
        values: torch.Tensor | None,
        rows: torch.Tensor,
        indptr: np.ndarray | None,
    ) -> None:
        self._ids, self._values, self._rows, self._indptr = ids, values, rows, indptr
        self._offsets = None if indptr is None else torch.from_numpy(indptr[:-1]).to(ids.device)
        self._v: torch.Tensor | None = None

    @classmethod
    def of(cls, features: CSR, device: torch.device, dtype: torch.dtype) -> _SparseRows:
        """Rows moved to the device."""
        ids = torch.as_tensor(features.indices).to(device, torch.int64)
        values = None
        if features.values is not None:
            values = torch.as_tensor(features.values).to(device, dtype)
        lengths = np.diff(features.indptr)
        rows = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)).to(device)
        if len(lengths) and lengths[0] > 0 and (lengths == lengths[0]).all():
            shape = (len(lengths), int(lengths[0]))
            return cls(ids.view(shape), None if values is None else values.view(shape), rows, None)
        return cls(ids, values, rows, np.asarray(features.indptr, np.int64))

    def sums(self, table: _Table) -> torch.Tensor:
        """S."""
        S, k = self._bag(table.features, self._values), table.k
        if self._indptr is None and self._ids.numel() < len(table.w):
            self._v = torch.embedding(table.features, self._ids.view(-1))
            self._v[:, k] = 0.0
            parts = self._v if self._values is None else self._v * self._values.view(-1, 1)
            sum_of_squares = torch.linalg.vector_norm(parts.view(len(S), -1), dim=1).square_()
        else:
            squared_values = None if self._values is None else self._values.square()
            sum_of_squares = self._bag(table.squared_lengths()[:, None], squared_values)[:, 0]
        S[:, k] += torch.add(table.w0, sum_of_squares, alpha=-0.5)
        return S

    def set_gradient(
        self, gradient: _Table, R: torch.Tensor, table: _Table, reg_w: float, reg_V: float
    ) -> None:
        """X^T R and sum of r, less V (X^2)^T r, plus L2 by the share of rows with a feature."""
        entries, ids, k = torch.embedding(R, self._rows), self._ids.view(-1), table.k
        slopes, shares = entries[:, k], None
        if self.shares is not None:
            shares = self.shares[self._rows]
        if self._values is None:
            of_V = (reg_V / len(R) if shares is None else shares * reg_V) - slopes
            if reg_w:
                slopes += table.w[ids].mul_(reg_w / len(R) if shares is None else shares * reg_w)
        else:
            x = self._values.view(-1)
            present = (x != 0).to(x.dtype)
            present = present.div_(len(R)) if shares is None else present.mul_(shares)
            entries *= x[:, None]
            of_V = torch.addcmul(present * reg_V, slopes, x, value=-1.0)
            slopes += table.w[ids].mul_(present).mul_(reg_w)
        if self._v is None:
            of_V = torch.zeros_like(table.w).index_add_(0, ids, of_V)
            torch.mul(table.features, of_V[:, None], out=gradient.features)
            gradient.w.zero_()
        else:
            entries.addcmul_(self._v, of_V[:, None])
            gradient.features.zero_()
        gradient.features.index_add_(0, ids, entries)
        torch.sum(R[:, k], 0, out=gradient.w0)

    def _bag(self, matrix: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        """The sum over a row's entries of weight times the feature's row of `matrix`."""
        return embedding_bag(
            self._ids, matrix, self._offsets, mode="sum", per_sample_weights=weights
        )

    def taken(self, order: np.ndarray) -> _SparseRows:
        """The rows in another order."""
        rows, indptr, index = self._rows, None, torch.from_numpy(order)
        if self._indptr is not None:
            lengths = np.diff(self._indptr)[order]
            indptr = np.concatenate([[0], np.cumsum(lengths)])
            shift = np.repeat(self._indptr[order] - indptr[:-1], lengths)
            index = torch.from_numpy(shift + np.arange(len(shift)))
            rows = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)).to(rows.device)
        index = index.to(rows.device)
        values = None if self._values is None else self._values.index_select(0, index)
        return _SparseRows(self._ids.index_select(0, index), values, rows, indptr)

    def between(self, begin: int, end: int) -> _SparseRows:
        """Rows begin to end."""
        entries, indptr = slice(begin, end), None
        if self._indptr is None:
            rows = self._rows[: (end - begin) * self._ids.shape[1]]
        else:
            entries = slice(int(self._indptr[begin]), int(self._indptr[end]))
            indptr = self._indptr[begin : end + 1] - self._indptr[begin]
            rows = self._rows[entries] - begin
        values = None if self._values is None else self._values[entries]
        return _SparseRows(self._ids[entries], values, rows, indptr)


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
