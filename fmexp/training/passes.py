"""One pass over the training rows at a time: in which order, and of how many rows at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fmexp.backends.base import Shuffles, TakesChunks, TakesWeights
from fmexp.data.features import chunks

if TYPE_CHECKING:
    from collections.abc import Callable

    from fmexp.backends.base import Trainer


def passes(
    trainer: Trainer, n_rows: int, generator: np.random.Generator | None
) -> Callable[[float], float]:
    """The function that makes one pass at a learning rate and returns the mean loss of the rows.

    More than one chunk of rows is shuffled chunk by chunk: the chunks, and the rows within each.
    So an order never takes more memory than a chunk's, and rows that are mapped from a file are
    read from one place of it at a time.

    Args:
        trainer: what trains.
        n_rows: the number of training rows.
        generator: what shuffles them before each pass; None for rows as they come.
    """
    shuffle = None if generator is None else shuffler(trainer, generator)
    several = list(chunks(n_rows))
    if len(several) > 1 and isinstance(trainer, TakesChunks):
        total = trainer.total_weight if isinstance(trainer, TakesWeights) else n_rows
        return lambda rate: _over_chunks(trainer, rate, several, shuffle) / total
    if shuffle is None:
        return lambda rate: trainer.train_epoch(rate, None)
    order = np.arange(n_rows)

    def shuffled(rate: float) -> float:
        shuffle(order)  # in place: a new order costs up to four times as much
        return trainer.train_epoch(rate, order)

    return shuffled


def shuffler(trainer: Trainer, generator: np.random.Generator) -> Callable[[np.ndarray], None]:
    """What shuffles row numbers (int64) in place: the trainer's own way if it has one."""
    if isinstance(trainer, Shuffles):
        return lambda order: trainer.shuffle(order, generator)
    return generator.shuffle


def _over_chunks(
    trainer: TakesChunks,
    rate: float,
    several: list[slice],
    shuffle: Callable[[np.ndarray], None] | None,
) -> float:
    """One pass over chunks of rows; the sum of their losses. Only one order exists at a time."""
    if shuffle is not None:
        numbers = np.arange(len(several))
        shuffle(numbers)
        several = [several[number] for number in numbers]
    total = 0.0
    for chunk in several:
        order = None
        if shuffle is not None:
            order = np.arange(chunk.stop - chunk.start)
            shuffle(order)
        total += trainer.train_chunk(rate, chunk, order)
    return total
