"""A run's model for use outside: in Python, or as a model that MLflow can serve."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shlex
import shutil
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fmexp import __version__
from fmexp.analysis import stored_run
from fmexp.analysis.predict import find_model
from fmexp.data.table import BLOCK
from fmexp.record.locate import locate_store
from fmexp.record.mlflow_errors import in_store_errors
from fmexp.record.passwords import without_password
from fmexp.record.queries import StoredRuns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fmexp.data.encode import Encoder
    from fmexp.model import Model

SERVED = Path(__file__).with_name("served.py")
NAME = "served"


def load(run: str | Path, uri: str | None = None) -> Model:
    """The model of a run or folder: `fmexp.load("latest").predict(table)`.

    Args:
        run: run id, the beginning of one, run name, `latest`, or a folder with `model/`.
        uri: MLflow store; None for the one that `fmexp run` would choose.

    Raises:
        UserError: there is no such run or folder, or it holds no model.
        StoreError: the store does not answer.
    """
    return find_model(str(run), locate_store(uri, None, os.environ).uri)


def export(run: str, uri: str, register: str | None) -> int:
    """Add a model that MLflow can serve to a run, and perhaps to the registry; the exit code.

    Args:
        run: id, beginning of an id, name or `latest`; a sweep stands for its winner.
        uri: absolute tracking URI.
        register: the registered model's name; a new version where there is one of that name.

    Raises:
        UserError: there is no such run, or it has no model.
        StoreError: the store does not answer, or refuses the name.
    """
    with StoredRuns(uri) as records:
        record = records.find_trained(run)
        model = stored_run.load_model(records, record)
        folder = records.artifact(record, "model")
        with _quiet():
            made = _log_model(uri, record.run_id, folder, model.encoder, register)
    version = made.registered_model_version
    address = f"models:/{register}/{version}" if register else made.model_uri
    print(f"model    {made.model_uri} of {record}")
    if register:
        print(f"registry {register}, version {version}")
    print(f"serve    {_environment(uri)} mlflow models serve --env-manager local -m {address}")
    return 0


def _environment(uri: str) -> str:
    """What `mlflow models serve` needs of the environment, as a shell takes it."""
    store = f"MLFLOW_TRACKING_URI={shlex.quote(without_password(uri))}"
    if shutil.which("mlflow"):
        return store
    return f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH {store}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without MLflow's advice on type hints and examples, which is for authors of models."""
    logger = logging.getLogger("mlflow")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _log_model(uri: str, run_id: str, folder: Path, encoder: Encoder, register: str | None) -> Any:
    """Log folder and script as a pyfunc model of the run; what MLflow says of it."""
    import mlflow
    from mlflow.models import Model

    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    with in_store_errors(without_password(uri), "did not take the model"):
        return Model.log(  # pyfunc.log_model would reopen the run and end it anew
            artifact_path=None,
            name=NAME,
            flavor=mlflow.pyfunc,
            python_model=str(SERVED),
            artifacts={"model": str(folder)},
            signature=_signature(encoder),
            pip_requirements=[f"fmexp=={__version__}"],
            registered_model_name=register,
            run_id=run_id,
        )


def _signature(encoder: Encoder) -> Any:
    """The columns that a table must have: numbers and names; predictions are numbers."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    kinds = dict.fromkeys(encoder.own_columns, DataType.string)
    kinds |= {c.name: DataType.double for c in encoder.numeric if not c.date and c.name in kinds}
    if encoder.block is not None:
        kinds = {BLOCK: DataType.string}
    columns: list[Any] = [ColSpec(kind, name) for name, kind in kinds.items()]
    return ModelSignature(Schema(columns), Schema([TensorSpec(np.dtype(np.float64), (-1,))]))
