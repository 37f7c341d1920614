"""The strongest interactions that a model learned, by name, and whether other seeds find them."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fmexp.analysis import stored_run
from fmexp.errors import UserError
from fmexp.training.fitting import fit

if TYPE_CHECKING:
    from pathlib import Path

    from fmexp.data.encode import Encoder
    from fmexp.fm import Learned
    from fmexp.model import Model
    from fmexp.record.queries import StoredRun, StoredRuns

SHOWN = 12
MOST_FEATURES = 2000
"""Of more features, those with the longest v are looked at."""


@dataclass(frozen=True)
class Interaction:
    """A pair of features.

    Attributes:
        first: name of a feature.
        second: name of another.
        weight: <v_i, v_j>, in the units of encoded features and target.
        others: the same from trainings with other seeds.
    """

    first: str
    second: str
    weight: float
    others: tuple[float, ...]


def strongest(model: Model, others: list[Learned]) -> list[Interaction]:
    """The SHOWN pairs of largest |<v_i, v_j>|; two categories of one column never meet.

    >>> from types import SimpleNamespace
    >>> numbers = (SimpleNamespace(width=1),) * 3
    >>> encoder = SimpleNamespace(numeric=numbers, categorical=(), block=None,
    ...                           feature_names=["a", "b", "c"], n_features=3)
    >>> V = np.array([[1.0], [2.0], [-3.0]])
    >>> pairs = strongest(SimpleNamespace(encoder=encoder, parameters=SimpleNamespace(V=V)), [])
    >>> [(x.first, x.second, x.weight) for x in pairs]
    [('b', 'c', -6.0), ('a', 'c', -3.0), ('a', 'b', 2.0)]
    """
    V, names = _vectors(model.parameters), model.encoder.feature_names
    theirs_V = [_vectors(other) for other in others]
    longest = np.sort(np.argsort(-np.square(V).sum(axis=1), kind="stable")[:MOST_FEATURES])
    weights = V[longest] @ V[longest].T
    columns = _column_of_feature(model.encoder)[longest]
    weights[columns[:, None] == columns] = 0.0
    first, second = np.triu_indices(len(longest), 1)
    sizes = np.abs(weights[first, second])
    pairs = []
    for at in np.argsort(-sizes, kind="stable")[:SHOWN]:
        i, j = longest[first[at]], longest[second[at]]
        if sizes[at] > 0:
            theirs = tuple(float(other[i] @ other[j]) for other in theirs_V)
            pairs.append(Interaction(names[i], names[j], float(V[i] @ V[j]), theirs))
    return pairs


def _vectors(learned: Learned) -> np.ndarray:
    """V; of samples all side by side, so that inner products are the means of theirs."""
    V = learned.V
    if V.ndim == 2:
        return V
    n_samples, n_features, k = V.shape
    return np.asarray(np.moveaxis(V, 0, 1).reshape(n_features, n_samples * k) / np.sqrt(n_samples))


def other_seeds(records: StoredRuns, record: StoredRun, folder: Path) -> tuple[list[Learned], str]:
    """The winner's parameters from its other seeds, trained again; or why there are none.

    A trial over several seeds keeps the model of one of them.
    """
    if not records.has_artifact(record, "curve.csv"):
        return [], "its curve.csv is missing"
    with records.artifact(record, "curve.csv").open(newline="", encoding="utf-8") as file:
        seeds = {int(row["seed"]) for row in csv.DictReader(file) if "seed" in row}
    if not seeds:
        return [], "the sweep trained each point with one seed; hydra.sweeper.seeds=5 would tell"
    try:
        config = stored_run.read_config(records, record)
        data = stored_run.load_data(config, record, folder=folder)
    except UserError as error:
        return [], f"it cannot be trained again: {error}"
    fits = [fit(replace(config, seed=seed), data) for seed in sorted(seeds - {config.seed})]
    return [fitted.parameters for fitted in fits if fitted.parameters is not None], ""


def _column_of_feature(encoder: Encoder) -> np.ndarray:
    """The number of the column that each feature is of; int64, shape (n_features,)."""
    if encoder.block is not None:
        return np.arange(encoder.n_features)
    widths = [c.width for c in encoder.numeric] + [c.width for c in encoder.categorical]
    return np.repeat(np.arange(len(widths)), widths)
