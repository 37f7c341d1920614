"""Gibbs sampling: an epoch is a sweep of a Markov chain, predictions are means over its samples."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from fmexp import fm
from fmexp.backends import gibbs_kernels, probit_kernels
from fmexp.backends.compiled import NONE
from fmexp.backends.gibbs_chain import Chain
from fmexp.backends.gibbs_columns import columns_of
from fmexp.backends.gibbs_prior import prior_scales
from fmexp.backends.scoring import Predictive, Scorer
from fmexp.config.schema import GibbsConfig
from fmexp.data.budget import claim
from fmexp.data.features import SMALL_CHUNK_ROWS, chunks
from fmexp.data.loading import check_weights
from fmexp.data.related import Related
from fmexp.errors import DataError

if TYPE_CHECKING:
    from fmexp.config.schema import Config
    from fmexp.data.dataset import Part
    from fmexp.data.related import FeatureRows

ROWS_PER_KEY = 5
"""Rows of a key, on average, from which a block takes no longer than its features of each row."""


def start(config: Config, train: Part, parameters: fm.Parameters) -> GibbsTrainer:
    """See `fmexp.backends.base.Start`."""
    return GibbsTrainer(config, train, parameters)


class GibbsTrainer:
    """See `fmexp.backends.base.Trainer` and `DrawsSamples`.

    What is kept of a sweep is rounded to float32, and everything that is said of held-out rows is
    said by what is kept: `loss`, `scores`, and later the stored model, agree.
    """

    def __init__(self, config: Config, train: Part, parameters: fm.Parameters) -> None:
        backend, n_rows = config.backend, len(train.features)
        assert isinstance(backend, GibbsConfig)
        if train.target.shape != (n_rows,):
            raise DataError(f"expected {n_rows:,} targets, got shape {train.target.shape}")
        n_features = len(parameters.w)
        groups = np.zeros(n_features, np.int64) if train.groups is None else train.groups
        epochs = config.training.epochs
        self.burn_in = epochs // 5 if backend.burn_in is None else backend.burn_in
        self._keep = kept_sweeps(epochs, self.burn_in, backend.kept)
        self._task = config.task
        self.total_weight = train.total_weight
        check_weights(config, train)
        features, target, weights = _counted(train, config.task)
        if isinstance(features, Related):
            features = features.shared_by(ROWS_PER_KEY)
        if isinstance(features, Related):  # what a key gathers then lies side by side
            order = features.by_key()
            features, target = features.take(order), target[order]
            weights = weights if weights is None else weights[order]
        own = features.own if isinstance(features, Related) else features
        blocks = features.blocks if isinstance(features, Related) else ()
        n_keys = sum(len(block.rows) for block in blocks)
        _claim(n_rows, len(self._keep), n_features, parameters.k, n_keys)
        scales = prior_scales(features, parameters.k, weights)
        if config.model.start == "normal":  # of the size that the priors expect
            V = parameters.V * (scales[1] / (config.model.init_stdev or 1.0))
            parameters = fm.Parameters(parameters.w0, parameters.w, V)
        self._chain = Chain(
            columns_of(own, n_features),
            np.ascontiguousarray(target, np.float64),
            config.task,
            parameters,
            groups,
            scales,
            config.seed,
            threads(backend),
            blocks,
            weights,
        )
        self._kept: list[fm.Samples] = []
        self._seen: tuple[FeatureRows, Predictive] | None = None

    def train_epoch(self, learning_rate: float, order: np.ndarray | None) -> float:  # noqa: ARG002
        """One sweep; the mean loss of the current sample. Neither rate nor order mean anything."""
        loss = self._chain.sweep()
        if self._chain.sweeps in self._keep:
            self._kept.append(self._sample())
        return loss

    def loss(self, part: Part) -> float:
        """Mean loss of the mean over the samples; of the current state before there are any."""
        said, target, weights = self._said(part.features), part.target, part.row_weights
        if self._task == "classification":
            kernel = probit_kernels.label_loss(weights is not None)
            total = float(kernel(said, target, NONE if weights is None else weights))
        else:
            squares = np.square(said - target)
            total = float((squares if weights is None else squares * weights).sum())
        return total / part.total_weight

    def scores(self, features: FeatureRows) -> np.ndarray:
        """Mean of y_hat over the samples; of the current state before there are any."""
        kept = self._kept or [self._sample()]
        scorer = Scorer(features, kept[0].at(0))
        return np.asarray(sum(scorer(each.at(0)) for each in kept) / len(kept))

    def parameters(self) -> fm.Samples:
        """The samples; the current state alone before there are any."""
        kept = self._kept or [self._sample()]
        names = ("w0", "w", "V", "noise_variance")
        return fm.Samples(*(np.concatenate([getattr(x, name) for x in kept]) for name in names))

    def _sample(self) -> fm.Samples:
        """The current state as it is kept."""
        now, single = self._chain.parameters(), np.float32
        variance = np.array([1.0 / self._chain.alpha], single)
        w0, w, V = np.array([now.w0], single), now.w[None].astype(single), now.V[None]
        return fm.Samples(w0, w, V.astype(single), variance)

    def _said(self, features: FeatureRows) -> np.ndarray:
        """The predictive mean of rows; of the same rows again only new samples are looked at."""
        if self._seen is None or self._seen[0] is not features:
            self._seen = features, Predictive(features, self._task)
        known = self._seen[1]
        if self._kept:
            return self._by(known, self._kept[known.samples :])
        said = self._by(known, [self._sample()])
        known.forget()
        return said

    @staticmethod
    def _by(known: Predictive, samples: list[fm.Samples]) -> np.ndarray:
        for sample in samples:
            known.add(sample.at(0), float(sample.noise_variance[0]))
        return known.mean


def _counted(train: Part, task: fm.Task) -> tuple[FeatureRows, np.ndarray, np.ndarray | None]:
    """Features, target and weights of the rows whose weight is above 0.

    Raises:
        DataError: the weights of a classification are too large.
    """
    weights = train.row_weights
    if weights is None:
        return train.features, train.target, None
    rows = np.flatnonzero(weights)
    features, weights = train.features, np.ascontiguousarray(weights[rows], np.float64)
    if len(rows) < len(train.target):
        features = features[rows] if isinstance(features, np.ndarray) else features.take(rows)
    if task == "classification":
        drawn = [float(weights[some].sum()) for some in chunks(len(rows), SMALL_CHUNK_ROWS)]
        claim(8.0 * max(drawn), "the latent scores of rows with weights", "make these smaller")
    return features, train.target[rows], weights


def kept_sweeps(epochs: int, burn_in: int, kept: int) -> frozenset[int]:
    """The sweeps, counted from 1, whose states are kept: evenly spaced after the burn-in, the last.

    >>> sorted(kept_sweeps(epochs=10, burn_in=2, kept=4))
    [4, 6, 8, 10]
    """
    left = max(epochs - burn_in, 0)
    number = min(kept, left)
    return frozenset(burn_in + (i + 1) * left // number for i in range(number))


def threads(backend: GibbsConfig) -> int:
    """How many threads may work: as set, as OMP_NUM_THREADS says, or one for each core at hand."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    at_hand = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
    return backend.threads or (int(said) if said.isdecimal() and int(said) else len(at_hand))


def _claim(n_rows: int, n_samples: int, n_features: int, k: int, n_keys: int = 0) -> None:
    """Say before training what will be large, and refuse what memory does not hold.

    Raises:
        DataError: there is not so much.
    """
    lanes = gibbs_kernels.lanes_of(k)
    padded = -(-k // lanes) * lanes
    of_keys = 8.0 * n_keys * (gibbs_kernels.key_size(lanes) + lanes)
    claim(8.0 * n_rows * (padded + 2) + of_keys, "the row sums of backend=gibbs", "lower model.k")
    samples = 4.0 * n_samples * (1 + n_features * (k + 1))
    claim(samples, f"{n_samples} samples", "lower backend.kept or model.k")
