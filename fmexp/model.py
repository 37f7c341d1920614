"""A trained model as it is kept: parameters and preprocessing, saved, loaded, applied to tables.

docs/model-format.md describes the files and holds a script that needs neither fmexp nor pickle.
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np

from fmexp import fm
from fmexp.data import encoder_checks, new_rows
from fmexp.data.encode import Encoder
from fmexp.data.memory import as_table
from fmexp.data.related import expanded
from fmexp.errors import DataError

if TYPE_CHECKING:
    from fmexp.config.schema import Config
    from fmexp.data.dataset import Dataset
    from fmexp.data.related import FeatureRows

FORMAT, SAMPLES_FORMAT = 1, 2
_LARGEST_RATIO = 100
"""Bytes that a byte of the file may unpack to; parameters hardly shrink at all."""

_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError,
            RecursionError, MemoryError, EOFError, NotImplementedError, struct.error, zlib.error,
            zipfile.BadZipFile, SyntaxError)  # fmt: skip
"""What reading a damaged model raises: NumPy, zipfile and JSON each have their own."""

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

    def predict_features(self, features: FeatureRows) -> np.ndarray:
        """Predictions for encoded rows, as `predict` gives them; float64, shape (n_rows,)."""
        return self.predict_features_with_stdev(features)[0]

    def predict_features_with_stdev(
        self, features: FeatureRows
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Predictions for encoded rows, as `predict_with_stdev` gives them."""
        stdev = None
        if isinstance(self.parameters, fm.Samples):
            from fmexp.backends.scoring import predictive  # Numba, which one model can do without

            posterior = predictive(self.parameters, features, self.task)
            predicted = posterior.mean
            stdev = posterior.stdev * self.encoder.target_scale if self.has_stdev else None
        else:
            predicted = fm.scores(self.parameters, expanded(features))
            predicted = fm.predictions(self.task, predicted)
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
        parameters = _learned(description["format"], _arrays(folder / ARRAYS), folder)
        encoder = Encoder.from_json(description["encoder"])
        encoder_checks.check(encoder)
        task = cast("fm.Task", description["task"])
        if task not in get_args(fm.Task) or not isinstance(description["clip"], bool):
            raise ValueError("task must be regression or classification, clip true or false")
        if (encoder.labels is None) == (task == "classification"):
            raise ValueError(f"labels do not go with task={task}")
        model = Model(parameters, encoder, task, description["clip"])
    except _DAMAGED as error:
        raise DataError(
            f"{folder} holds no model that can be read ({DESCRIPTION} and {ARRAYS} were "
            f"expected): {error}"
        ) from error
    n_features = encoder.n_features
    if parameters.w.shape[-1:] != (n_features,) or parameters.V.shape[-2:-1] != (n_features,):
        raise DataError(f"{folder}: parameters and encoder disagree on the number of features")
    return model


def _arrays(file: Path) -> dict[str, np.ndarray]:
    """The arrays of a file, of finite numbers; none that unpacks to far more than the file."""
    with zipfile.ZipFile(file) as zipped:
        unpacked = sum(entry.file_size for entry in zipped.infolist())
    if unpacked > _LARGEST_RATIO * file.stat().st_size:
        raise ValueError(f"{file.name} unpacks to {unpacked:,} bytes")
    with np.load(file, allow_pickle=False) as loaded:
        arrays = dict(loaded)
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise ValueError(f"{name} must hold finite numbers, got {array.dtype}")
    return {name: np.asarray(array, _type_of(array)) for name, array in arrays.items()}


def _type_of(array: np.ndarray) -> type:
    """Samples are kept in float32, everything else is computed in float64."""
    return np.float32 if array.dtype == np.float32 else np.float64


def _learned(kind: Any, arrays: dict[str, np.ndarray], folder: Path) -> fm.Learned:
    """What the arrays hold, as the format says.

    Raises:
        DataError: it is a format of another fmexp.
    """
    if kind == FORMAT:
        if (arrays["w0"].ndim, arrays["w"].ndim, arrays["V"].ndim) != (0, 1, 2):
            raise ValueError("w0 must be a number, w a vector, V a matrix")
        return fm.Parameters(float(arrays["w0"]), arrays["w"], arrays["V"])
    if kind == SAMPLES_FORMAT:
        if (arrays["w0"].ndim, arrays["w"].ndim, arrays["V"].ndim) != (1, 2, 3):
            raise ValueError("w0 must have a number for each sample, w a vector, V a matrix")
        return fm.Samples(arrays["w0"], arrays["w"], arrays["V"], arrays["noise_variance"])
    raise DataError(
        f"{folder} holds a model of format {kind}, this fmexp reads {FORMAT} and "
        f"{SAMPLES_FORMAT}: use the fmexp that wrote it"
    )
