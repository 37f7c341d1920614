"""The script that `mlflow models serve` runs: a stored model behind MLflow's pyfunc interface.

MLflow keeps a copy of this file with the model (models-from-code), so that nothing is pickled.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from fmexp.model import load

if TYPE_CHECKING:
    import numpy as np


class Served(PythonModel):  # type: ignore[misc] # MLflow's types are not read
    """Predictions as `fmexp predict` gives them."""

    def load_context(self, context: Any) -> None:
        """Load the model's folder."""
        self.model = load(Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: Any, params: Any = None) -> np.ndarray:  # noqa: ARG002
        """One prediction per row of a table."""
        return self.model.predict(model_input)


set_model(Served())
