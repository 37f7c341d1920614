"""The Markov chain of the Gibbs sampler: everything it holds, and one sweep over it.

docs/fm.md derives each conditional. What costs time is in `gibbs_kernels`; the priors' parameters,
the noise and the bias are few numbers, drawn here with NumPy (`gibbs_prior`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fmexp import fm
from fmexp.backends import gibbs_kernels, gibbs_prior, probit_kernels
from fmexp.backends.compiled import NONE, aligned_zeros
from fmexp.backends.gibbs_prior import FEATURES, HYPER, LATENT, stream
from fmexp.backends.gibbs_relations import Relation
from fmexp.backends.side_by_side import SideBySide
from fmexp.data.features import SMALL_CHUNK_ROWS, chunks

if TYPE_CHECKING:
    from collections.abc import Callable

    from fmexp.backends.gibbs_columns import Columns, Ranges
    from fmexp.data.related import Block

REBUILD = 50
"""Sweeps after which errors and row sums are computed anew from the parameters."""

NOISE_FEATURES = 1 << 12
"""Features whose random numbers come from one stream."""


class Chain:
    """Parameters under sampling, with each row's error and sums kept up to date.

    Attributes:
        w0: the bias.
        alpha: precision of the noise, in the encoder's units; 1 for classification.
        sweeps: how many were made.
        latent: z of each row for classification; else the target.
        errors: y_hat - latent of each row.
    """

    def __init__(
        self,
        columns: Columns,
        target: np.ndarray,
        task: fm.Task,
        parameters: fm.Parameters,
        groups: np.ndarray,
        scales: tuple[float, float],
        seed: int,
        threads: int = 1,
        relations: tuple[Block, ...] = (),
        row_weights: np.ndarray | None = None,
    ) -> None:
        """Start at `parameters`; see `gibbs_prior` for the model.

        Args:
            columns: the training rows, without what is in relation blocks.
            target: float64, shape (n_rows,); 0 or 1 for classification.
            task: regression or classification.
            parameters: where the chain starts; left untouched.
            groups: the group of each feature, counted from 0, shape (n_features,).
            scales: of w and of V, see `gibbs_prior.prior_scales`.
            seed: of all that is drawn.
            threads: how many may work; the result does not depend on it.
            relations: features of the training rows that are drawn on keys, in ascending order.
            row_weights: float64, shape (n_rows,), all above 0: a row of weight 2 is two rows (so
                whole numbers for classification); None: all are 1.
        """
        self._columns, self._target, self._task = columns, target, task
        self._groups, self._n_groups = groups.astype(np.int64), int(groups.max()) + 1
        self._seed, self.k = seed, parameters.k
        self._scales = np.append(np.full(self.k, scales[1]), scales[0])
        n_rows, n_features, double = len(target), columns.n_features, np.dtype(np.float64)
        self._lanes = gibbs_kernels.lanes_of(self.k)
        self._blocks = range(-(-self.k // self._lanes))
        self._sums = [aligned_zeros(n_rows, self._lanes, double) for _ in self._blocks]
        self._V = [aligned_zeros(n_features, self._lanes, double) for _ in self._blocks]
        for b, V in enumerate(self._V):
            V[:, : self._width(b)] = parameters.V[:, self._span(b)]
        self._w = np.array(parameters.w, double)
        self.latent = np.zeros(n_rows) if task == "classification" else target
        self.w0, self.alpha, self.sweeps = float(parameters.w0), 1.0, 0
        self.errors = np.empty(n_rows)
        self._at_once = SideBySide(threads)
        self._parts = self._in_order(relations, row_weights)
        weighted = row_weights is not None
        self._row_weights = NONE if row_weights is None else row_weights
        self._total_weight = n_rows if row_weights is None else float(row_weights.sum())
        self._draw = gibbs_kernels.draw_features(self._lanes, columns.kind, weighted=weighted)
        self._shift = gibbs_kernels.shift(weighted)
        self._draw_z = probit_kernels.draw_latent(weighted)
        self._load_kernels()
        self.rebuild()
        self._draw_noise()

    def _load_kernels(self) -> None:
        """Load or compile what `rebuild` does not call: it is no time of training."""
        parts, self._parts = self._parts, [([[(0, 0)]], one) for _, one in self._parts]
        nothing = np.zeros((self._n_groups, self.k + 1))
        self._draw_block(0, nothing, nothing)
        self._parts = parts

    def _in_order(
        self, blocks: tuple[Block, ...], row_weights: np.ndarray | None
    ) -> list[tuple[Ranges, Relation | None]]:
        """All features in ascending order, by ranges: relation blocks, and what is between them."""
        columns, several = self._columns, self._at_once.several
        found: list[tuple[Ranges, Relation | None]] = []
        end = 0
        for block in blocks:
            one = Relation(block, self._lanes, self._at_once, row_weights)
            found += [(columns.chunks(end, block.first, several), None), (one.ranges, one)]
            end = block.last
        return [*found, (columns.chunks(end, columns.n_features, several), None)]

    def sweep(self) -> float:
        """Draw everything once; the mean loss of the training rows afterwards, as `fm.losses`."""
        self.sweeps += 1
        generator = stream(self._seed, self.sweeps, HYPER)
        self._draw_bias(generator)
        mean, precision = self._draw_groups(generator)
        for b in self._blocks:
            self._draw_block(b, mean, precision)
        if self.sweeps % REBUILD == 0:
            self.rebuild()
        return self._draw_noise(generator) / self._total_weight

    def parameters(self) -> fm.Parameters:
        """A copy of the parameters as they are."""
        V = [V[:, : self._width(b)] for b, V in enumerate(self._V)]
        return fm.Parameters(self.w0, self._w.copy(), np.concatenate(V, axis=1))

    def rebuild(self) -> None:
        """Compute errors and row sums from the parameters, so that rounding does not add up."""
        columns = self._columns
        np.subtract(self.w0, self.latent, out=self.errors)
        add = gibbs_kernels.add_features(self._lanes, columns.kind)
        nothing = np.zeros(columns.n_features)
        for b in self._blocks:
            self._sums[b][:] = 0.0
            sums, V, w = self._sums[b], self._V[b], nothing if b else self._w
            for ranges, one in self._parts:
                if one is None:
                    self._at_once.over_ranges(
                        add, ranges, columns.starts, columns.rows, columns.values, self.errors,
                        sums, V, w,
                    )  # fmt: skip
                else:
                    one.add(self.errors, sums, V[one.features], w[one.features])
            squares = gibbs_kernels.add_squares(self._lanes)
            self._over_rows(squares, self.errors, sums)

    def _span(self, b: int) -> slice:
        return slice(b * self._lanes, min((b + 1) * self._lanes, self.k))

    def _width(self, b: int) -> int:
        return min(self._lanes, self.k - b * self._lanes)

    def _draw_bias(self, generator: np.random.Generator) -> None:
        """Draw w0, and move the errors with it."""
        total = sum(errors for errors, _ in self._shifted(0.0))
        mean, precision = gibbs_prior.bias_change(total, self._total_weight, self.w0, self.alpha)
        change = mean + float(gibbs_prior.normals(generator, ())) / math.sqrt(precision)
        self.w0 += change
        self._shifted(change)

    def _draw_groups(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw mu and lambda, each of shape (n_groups, k + 1), w last."""
        table = np.column_stack([self.parameters().V, self._w])
        return gibbs_prior.draw_groups(generator, table, self._groups, self._n_groups, self._scales)

    def _draw_block(self, b: int, mean: np.ndarray, precision: np.ndarray) -> None:
        """Draw (v_j, w_j) of each feature, for the factors of one block."""
        columns, width = self._columns, self._width(b)
        used = [*range(width), self._lanes]  # the padding stays at exactly 0
        wanted = [*range(b * self._lanes, b * self._lanes + width), self.k]
        shape = (self._n_groups, self._lanes + 1)
        mu, tau = np.zeros(shape), np.ones(shape)
        mu[:, used], tau[:, used] = mean[:, wanted], precision[:, wanted]
        noise = np.zeros((columns.n_features, self._lanes + 1), np.float32)
        for chunk, some in enumerate(chunks(columns.n_features, NOISE_FEATURES)):
            generator = stream(self._seed, self.sweeps, FEATURES + b, chunk)
            drawn = gibbs_prior.normals(generator, (some.stop - some.start, width + 1))
            noise[some, :width], noise[some, -1] = drawn[:, :-1], drawn[:, -1]
        state = self.errors, self._sums[b]
        for ranges, one in self._parts:
            some = slice(None) if one is None else one.features
            V, w, groups = self._V[b][some], self._w[some], self._groups[some]
            drawn_from = V, w, groups, mu, tau, noise[some], self.alpha
            if one is None:
                self._at_once.over_ranges(
                    self._draw, ranges, columns.starts, columns.rows, columns.values, *state,
                    *drawn_from, self._row_weights,
                )  # fmt: skip
            else:
                one.draw(ranges, *state, *drawn_from)

    def _draw_noise(self, generator: np.random.Generator | None = None) -> float:
        """Draw alpha, or the latent scores; the sum of the rows' losses before.

        Without a generator only the latent scores, as a chain begins.
        """
        if self._task == "classification":
            return self._draw_latent()
        squared_errors = float(sum(squares for _, squares in self._shifted(0.0)))
        if generator is not None:
            self.alpha = self._draw_alpha(generator, squared_errors)
        return squared_errors

    def _draw_alpha(self, generator: np.random.Generator, squared_errors: float) -> float:
        shape, rate = gibbs_prior.noise_precision(squared_errors, self._total_weight)
        return float(gibbs_prior.gammas(generator, shape)) / rate

    def _draw_latent(self) -> float:
        weights = self._row_weights

        def draw(first: int, last: int) -> float:
            chunk = first // SMALL_CHUNK_ROWS
            n = last - first if weights is NONE else int(weights[first:last].sum())
            uniforms = stream(self._seed, self.sweeps, LATENT, chunk).random(n)
            arguments = first, last, self.errors, self.latent, self._target, uniforms, weights
            return float(self._draw_z(*arguments))

        return float(sum(self._over_rows(draw)))

    def _shifted(self, by: float) -> list[tuple[float, float]]:
        """Move all errors; piece by piece their sum and that of their squares, by the weights."""
        return self._over_rows(self._shift, self.errors, by, self._row_weights)

    def _over_rows(self, kernel: Callable[..., Any], *arguments: Any) -> list[Any]:
        return self._at_once.over_rows(kernel, len(self.errors), *arguments)
