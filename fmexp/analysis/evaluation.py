"""A model's error on each row that was held out from its training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fmexp.data.features import SMALL_CHUNK_ROWS, chunks
from fmexp.training.metrics import log_losses

if TYPE_CHECKING:
    from fmexp.data.dataset import Dataset, Part
    from fmexp.model import Model


def row_errors(model: Model, data: Dataset, part: Part) -> np.ndarray:
    """Squared error, in the target's own units, or log loss of each row.

    The raw rows go through the model's own preprocessing, so models with unlike preprocessing can
    be compared on the same rows.

    Args:
        model: the model.
        data: the table that `part` is of.
        part: the rows.

    Returns:
        float64, shape (n_rows,).
    """
    y = data.encoder.decode_target(part.target) if model.task == "regression" else part.target
    predicted = np.concatenate(
        [
            model.predict_features(model.encoder.features(data.table.take(part.rows[chunk])))
            for chunk in chunks(len(part.rows), SMALL_CHUNK_ROWS)
        ]
    )
    if model.task == "classification":
        return log_losses(y, predicted)
    return np.asarray(np.square(predicted - y))
