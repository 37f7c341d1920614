"""One data configuration in, one encoded and split data set out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fmexp.data.dataset import CSR, Dataset, Features, Part, stack_rows
from fmexp.data.learn import Learning, learn
from fmexp.data.sources import Source, read
from fmexp.data.split import TEST, TRAIN, VALIDATION, Split, SplitBy, split_rows

if TYPE_CHECKING:
    from fmexp.config import DataConfig, SplitConfig
    from fmexp.data.encode import Encoder


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
    )
    return prepare(data.name, source, split, learning)


def prepare(name: str, source: Source, split: SplitConfig, learning: Learning) -> Dataset:
    """Split the rows of a raw table, learn the encoding and apply it."""
    table = source.table
    parts = split_rows(table, split)
    encoder = learn(
        lambda: map(table.take, parts.blocks(TRAIN)),
        source.target,
        source.numeric,
        source.categorical,
        learning,
        source.first,
    )
    train = _encoded(encoder, source, parts, TRAIN)
    assert train is not None
    return Dataset(
        name=name,
        source=source.description,
        train=train,
        validation=_encoded(encoder, source, parts, VALIDATION),
        test=_encoded(encoder, source, parts, TEST),
        encoder=encoder,
        data_digest=table.digest(),
        split_digest=parts.digest(),
        table=table,
        noise_floor=source.noise_floor,
        notes=source.notes,
    )


def _encoded(encoder: Encoder, source: Source, parts: Split, part: int) -> Part | None:
    """The rows of a part, None if it has none."""
    features, targets = [], []
    for rows in parts.blocks(part):
        block = source.table.take(rows)
        features.append(encoder.features(block))
        targets.append(encoder.target(block))
    if not targets:
        return None
    return Part(_stacked(features), np.concatenate(targets), parts.rows(part))


def _stacked(parts: list[Features]) -> Features:
    if len(parts) == 1:
        return parts[0]
    sparse = [part for part in parts if isinstance(part, CSR)]
    if sparse:
        return stack_rows(sparse)
    return np.concatenate([part for part in parts if not isinstance(part, CSR)])
