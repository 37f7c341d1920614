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

FORMAT, SAMPLES_FORMAT = 1, 2
ARRAYS, DESCRIPTION = "parameters.npz", "model.json"


@dataclass(frozen=True)
class Model:
    """Parameters with all that turns a raw table into predictions.

    Attributes:
        parameters: float64, in the encoder's features and target units; or samples of them.
        encoder: the column contract and its statistics.
        task: regression or classification.
        clip: whether predictions stay within the training target's range.
    """

    parameters: fm.Learned
    encoder: Encoder
    task: fm.Task
    clip: bool = False

    @staticmethod
    def of(config: Config, data: Dataset, parameters: fm.Learned) -> Model:
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
        return self.predict_with_stdev(table)[0]

    def predict_with_stdev(self, table: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """Predictions as `predict` gives them, and how far targets may be from them.

        Returns:
            Predictions, and in regression by a model that holds samples the standard deviation of
            a target: that of y_hat over the samples and the noise's together. Elsewhere None.
        """
        if isinstance(table, str | Path):
            nothing: list[np.ndarray] = [np.zeros(0)]
            parts = [self.predict_with_stdev(x) for x in new_rows.batches(table, self.encoder)]
            stdevs = [stdev for _, stdev in parts if stdev is not None]
            means = np.concatenate(nothing + [mean for mean, _ in parts])
            return means, np.concatenate(nothing + stdevs) if self.has_stdev else None
        return self.predict_features_with_stdev(
            self.encoder.features(as_table(table, self.encoder))
        )

    @property
    def has_stdev(self) -> bool:
        """Whether predictions come with a standard deviation."""
        return isinstance(self.parameters, fm.Samples) and self.task == "regression"

    def predict_features(self, features: Features) -> np.ndarray:
        """Predictions for encoded rows, as `predict` gives them; float64, shape (n_rows,)."""
        return self.predict_features_with_stdev(features)[0]

    def predict_features_with_stdev(
        self, features: Features
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Predictions for encoded rows, as `predict_with_stdev` gives them."""
        stdev = None
        if isinstance(self.parameters, fm.Samples):
            from fmexp.backends.scoring import predictive  # Numba, which one model can do without

            posterior = predictive(self.parameters, features, self.task)
            predicted = posterior.mean
            stdev = posterior.stdev * self.encoder.target_scale if self.has_stdev else None
        else:
            predicted = fm.predictions(self.task, fm.scores(self.parameters, features))
        if self.task == "classification":
            return predicted, None
        predicted = self.encoder.decode_target(predicted)
        return np.clip(predicted, *self.encoder.target_range) if self.clip else predicted, stdev

    def save(self, folder: str | Path) -> None:
        """Write the model's two files into a folder, which is made; `fmexp.load` reads them."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        learned = self.parameters
        arrays: dict[str, Any] = {"w0": np.asarray(learned.w0), "w": learned.w, "V": learned.V}
        if isinstance(learned, fm.Samples):
            arrays["noise_variance"] = learned.noise_variance
        np.savez(folder / ARRAYS, **arrays)
        description = {
            "format": SAMPLES_FORMAT if isinstance(learned, fm.Samples) else FORMAT,
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
            parameters = _learned(description["format"], dict(arrays), folder)
        encoder = Encoder.from_json(description["encoder"])
        task = cast("fm.Task", description["task"])
        model = Model(parameters, encoder, task, description["clip"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder} holds no model that can be read ({DESCRIPTION} and {ARRAYS} were "
            f"expected): {error}"
        ) from error
    n_features = encoder.n_features
    if parameters.w.shape[-1:] != (n_features,) or parameters.V.shape[-2:-1] != (n_features,):
        raise DataError(f"{folder}: parameters and encoder disagree on the number of features")
    return model


def _learned(kind: Any, arrays: dict[str, np.ndarray], folder: Path) -> fm.Learned:
    """What the arrays hold, as the format says.

    Raises:
        DataError: it is a format of another fmexp.
    """
    if kind == FORMAT:
        return fm.Parameters(float(arrays["w0"]), arrays["w"], arrays["V"])
    if kind == SAMPLES_FORMAT:
        return fm.Samples(arrays["w0"], arrays["w"], arrays["V"], arrays["noise_variance"])
    raise DataError(
        f"{folder} holds a model of format {kind}, this fmexp reads {FORMAT} and "
        f"{SAMPLES_FORMAT}: use the fmexp that wrote it"
    )
