"""One data configuration in, one encoded and split data set out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fmexp.data.dataset import Dataset
from fmexp.data.encoded_split import split_and_encode
from fmexp.data.learn import Learning
from fmexp.data.sources import Source, read
from fmexp.data.split import TEST, TRAIN, VALIDATION, SplitBy
from fmexp.errors import DataError

if TYPE_CHECKING:
    from fmexp.config.schema import DataConfig, SplitConfig


def load(data: DataConfig, split: SplitConfig, task: str) -> Dataset:
    """Read or generate the table, split its rows, learn the encoding and apply it.

    Args:
        data: which table.
        split: which rows are held out.
        task: regression or classification.

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
    )
    return prepare(data.name, source, split, learning)


def prepare(name: str, source: Source, split: SplitConfig, learning: Learning) -> Dataset:
    """Split the rows of a raw table, learn the encoding and apply it.

    Raises:
        DataError: that cannot be done; a cache that was made for it is removed.
    """
    try:
        parts = split_and_encode(source, split, learning)
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
    )
