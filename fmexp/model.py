"""A trained model as it is kept: parameters and preprocessing, saved, loaded, applied to tables.

docs/model-format.md describes the files and holds a script that needs neither fmexp nor pickle.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fmexp import fm
from fmexp.data import new_rows
from fmexp.data.encode import Encoder
from fmexp.data.memory import as_table
from fmexp.errors import DataError

if TYPE_CHECKING:
    from fmexp.config.schema import Config
    from fmexp.data.dataset import Dataset
    from fmexp.data.features import Features

FORMAT = 1
ARRAYS, DESCRIPTION = "parameters.npz", "model.json"


@dataclass(frozen=True)
class Model:
    """Parameters with all that turns a raw table into predictions.

    Attributes:
        parameters: float64, in the encoder's features and target units.
        encoder: the column contract and its statistics.
        task: regression or classification.
        clip: whether predictions stay within the training target's range.
    """

    parameters: fm.Parameters
    encoder: Encoder
    task: fm.Task
    clip: bool = False

    @staticmethod
    def of(config: Config, data: Dataset, parameters: fm.Parameters) -> Model:
        """The model that a run trained."""
        return Model(parameters, data.encoder, config.task, config.model.clip)

    def predict(self, table: Any) -> np.ndarray:
        """Predictions for raw rows: the target's own units, or the probability of the second label.

        Args:
            table: mapping of columns, pandas or pyarrow table (columns in any order, further
                ones are ignored, unknown categories allowed), two-dimensional array (columns in
                the model's order), scipy matrix, or the path of a file with such columns.

        Returns:
            float64, shape (n_rows,).

        Raises:
            DataError: a column is missing or a cell is no finite number.
        """
        if isinstance(table, str | Path):
            found = [self.predict(batch) for batch in new_rows.batches(table, self.encoder)]
            return np.concatenate([np.zeros(0), *found])
        return self.predict_features(self.encoder.features(as_table(table, self.encoder)))

    def predict_features(self, features: Features) -> np.ndarray:
        """Predictions for encoded rows, as `predict` gives them; float64, shape (n_rows,)."""
        said = fm.predictions(self.task, fm.scores(self.parameters, features))
        if self.task == "classification":
            return said
        said = self.encoder.decode_target(said)
        return np.clip(said, *self.encoder.target_range) if self.clip else said

    def save(self, folder: str | Path) -> None:
        """Write the model's two files into a folder, which is made; `fmexp.load` reads them."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        w0, w, V = self.parameters.w0, self.parameters.w, self.parameters.V
        np.savez(folder / ARRAYS, w0=np.float64(w0), w=w, V=V)
        description = {
            "format": FORMAT,
            "task": self.task,
            "clip": self.clip,
            "encoder": self.encoder.to_json(),
        }
        text = json.dumps(description, ensure_ascii=False, allow_nan=False, indent=1)
        (folder / DESCRIPTION).write_text(text + "\n", encoding="utf-8")


def load(folder: Path) -> Model:
    """The model that `Model.save` wrote.

    Raises:
        DataError: the folder holds no model, or one of another format.
    """
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
            parameters = fm.Parameters(float(arrays["w0"]), arrays["w"], arrays["V"])
        if description["format"] != FORMAT:
            raise DataError(
                f"{folder} holds a model of format {description['format']}, this fmexp reads "
                f"{FORMAT}: use the fmexp that wrote it"
            )
        encoder = Encoder.from_json(description["encoder"])
        task = cast("fm.Task", description["task"])
        model = Model(parameters, encoder, task, description["clip"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder} holds no model that can be read ({DESCRIPTION} and {ARRAYS} were "
            f"expected): {error}"
        ) from error
    if parameters.w.shape != (encoder.n_features,) or len(parameters.V) != encoder.n_features:
        raise DataError(f"{folder}: parameters and encoder disagree on the number of features")
    return model
