"""`fmexp refit`: a run's configuration on all rows, for as many epochs as were best."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmexp.cli.options import add_data, add_run, add_store, store_uri
from fmexp.errors import UserError

if TYPE_CHECKING:
    import argparse

    from fmexp.record.queries import StoredRun

REFIT_OF = "fmexp.refit_of"
"""Tag: id of the run whose configuration was trained again on all rows."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, and where its data are."""
    add_run(parser)
    add_data(parser)
    add_store(parser)


def main(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    return refit(arguments.run, store_uri(arguments), Path.cwd(), arguments.data)


def refit(run: str, uri: str, folder: Path, data_file: Path | None = None) -> int:
    """Train on training, validation and test rows together, and record it; the exit code.

    Args:
        run: id, beginning of an id, name or `latest`; a sweep stands for its winner.
        uri: absolute tracking URI, of the run and of the record of the refit.
        folder: where data are looked for that are not where they were.
        data_file: where the data are.

    Raises:
        UserError: no such run, it held nothing out, or its data are not to be found.
        StoreError: the store does not answer.
    """
    from fmexp.analysis import stored_run
    from fmexp.cli.jobs import run_once
    from fmexp.config.checks import parse
    from fmexp.config.compose import Composed, resolve
    from fmexp.record.passwords import without_password
    from fmexp.record.queries import StoredRuns

    began = time.monotonic()
    with StoredRuns(uri) as records:
        record = records.find_trained(run)
        tree = stored_run.read_tree(records, record)
        data = stored_run.load_data(
            stored_run.read_config(records, record), record, data_file, folder
        )
    if "path" in tree["data"]:
        tree["data"]["path"] = data.source
    tree = _on_all_rows(tree, record)
    tracking = {"name": "mlflow", "experiment": "fmexp", "tags": {}} | tree["tracking"]
    tracking |= {"name": "mlflow", "uri": uri, "run_name": f"refit of {record.name}"}
    tracking["tags"] = {**tracking["tags"], REFIT_OF: record.run_id}
    tracking.setdefault("prediction_rows", 1000)
    config = parse(resolve(tree | {"tracking": tracking}))
    kept = tree | {"tracking": tracking | {"uri": without_password(uri)}}
    return run_once(Composed(config, kept, frozenset({"tracking.uri"})), folder, began)


def _on_all_rows(tree: dict[str, Any], record: StoredRun) -> dict[str, Any]:
    """The configuration with no part held out, and as many epochs as were best with one.

    Raises:
        UserError: nothing was held out, or columns or files decide what is.
    """
    best = record.metrics.get("best/epoch")
    if best is None:
        raise UserError(f"{record} held no rows out to judge epochs by: there is no best epoch")
    split, training = dict(tree["split"]), dict(tree["training"])
    if str(split["by"]).partition(":")[0] in ("files", "column"):
        raise UserError(
            f"{record} has its parts from split.by={split['by']}: refit cannot join them"
        )
    split |= {"validation": 0.0, "test": 0.0}
    training |= {"epochs": max(1, round(best))}
    training["early_stopping"] = {**training["early_stopping"], "patience": None}
    if (training.get("average_from") or 0) > training["epochs"]:
        training["average_from"] = None  # the best epoch came before any was averaged
    return tree | {"split": split, "training": training}
