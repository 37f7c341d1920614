"""One data configuration in, one encoded and split data set out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fmexp.data.dataset import Dataset
from fmexp.data.encoded_split import split_and_encode
from fmexp.data.features import SMALL_CHUNK_ROWS, chunks
from fmexp.data.learn import Learning
from fmexp.data.sources import Source, read
from fmexp.data.split import TEST, TRAIN, VALIDATION, SplitBy
from fmexp.errors import DataError

if TYPE_CHECKING:
    from fmexp.config.schema import Config, DataConfig, SplitConfig
    from fmexp.data.dataset import Part


TAKE_SHARED_RUNS = ("gibbs",)
"""Backends that compute on runs of features that rows share once for all of these rows."""


def load_for(config: Config) -> Dataset:
    """The data set that a run trains on, as its backend takes it; see `load`, `check_weights`."""
    shared = config.backend.name in TAKE_SHARED_RUNS
    data = load(config.data, config.split, config.task, shared=shared)
    check_weights(config, data.train)
    return data


def check_weights(config: Config, train: Part) -> None:
    """Refuse weights of rows that the backend cannot take.

    Raises:
        DataError: they are no whole numbers, and labels have latent scores.
    """
    weights = train.row_weights
    if weights is None or (config.backend.name, config.task) != ("gibbs", "classification"):
        return
    for some in chunks(len(weights), SMALL_CHUNK_ROWS):
        if len(wrong := weights[some][weights[some] % 1 > 0]):
            raise DataError(
                "backend=gibbs with task=classification needs weights that are whole numbers (a "
                "row of weight 3 has three latent scores, as three rows have), got "
                f"{wrong[0]:g}; use another backend"
            )


def load(data: DataConfig, split: SplitConfig, task: str, *, shared: bool = False) -> Dataset:
    """Read or generate the table, split its rows, learn the encoding and apply it.

    Args:
        data: which table.
        split: which rows are held out.
        task: regression or classification.
        shared: whether runs of features that rows share are kept once (`Related`).

    Raises:
        DataError: the table cannot be used as it is.
        MissingPackageError: the source needs a package that is not installed.
    """
    source = read(data, SplitBy.parse(split.by), task)
    learning = Learning(
        task,
        data.standardize,
        min_count=getattr(data, "min_count", 1),
        fill_missing=getattr(data, "missing", "error") == "mean",
        date_parts=tuple(getattr(data, "date_parts", ())),
        list_weight=getattr(data, "list_weight", "sqrt"),
        history=getattr(data, "history", None) or {},
        history_own=getattr(data, "history_own", True),
    )
    return prepare(data.name, source, split, learning, shared=shared)


def prepare(
    name: str, source: Source, split: SplitConfig, learning: Learning, *, shared: bool = False
) -> Dataset:
    """Split the rows of a raw table, learn the encoding and apply it; `shared` as for `load`.

    Raises:
        DataError: that cannot be done; a cache that was made for it is removed.
    """
    try:
        parts = split_and_encode(source, split, learning, shared)
    except DataError:
        if source.cache is not None and source.cache.is_new:
            source.cache.discard()
        raise
    columns_digest = source.columns_digest()
    return Dataset(
        name=name,
        source=source.description,
        train=parts.rows[TRAIN],
        validation=parts.rows.get(VALIDATION),
        test=parts.rows.get(TEST),
        encoder=parts.encoder,
        data_digest=source.data_digest or columns_digest,
        columns_digest=columns_digest,
        split_digest=parts.split_digest,
        test_digest=parts.test_digest,
        table=source.table,
        noise_floor=source.noise_floor,
        notes=tuple(source.schema.notes),
        weight_digest=source.weight_digest(),
    )
