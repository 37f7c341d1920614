"""Questions to MLflow by a process that does not load it itself: another one is asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fmexp.errors import StoreError
from fmexp.record.passwords import without_password
from fmexp.record.patience import left, patience


def ended_in_store(
    uri: str, experiment: str, folder: Path, keys: list[str]
) -> dict[str, dict[str, str]]:
    """The tags of those of these runs that have ended, by key; none where nothing can be known."""
    try:
        found: dict[str, dict[str, str]] = _ask(
            "ended", uri, experiment, str(folder), keys, seconds=patience()
        )
    except StoreError:
        return {}
    return found


def summary(uri: str) -> str:
    """How many experiments a store has, and which of its runs are still RUNNING.

    Args:
        uri: absolute tracking URI; goes by a pipe, since everybody may read a command line.

    Raises:
        StoreError: it does not answer before the patience is over; why.
    """
    return str(_ask("summary", uri, seconds=left()))


def close_running(
    uri: str, experiment: str, folder: Path, parent: str, keys: list[str]
) -> list[str]:
    """End the runs of these keys that are RUNNING as interrupted; their ids.

    Args:
        uri: absolute tracking URI.
        experiment: theirs.
        folder: where the store's lock lies.
        parent: key of the run that they lie under, or that is one of them.
        keys: of runs that nobody works on.
    """
    try:
        closed: list[str] = _ask(
            "close", uri, experiment, str(folder), parent, keys, seconds=patience()
        )
    except StoreError:
        return []
    return closed


def _ask(question: str, *arguments: Any, seconds: float) -> Any:
    command = [sys.executable, "-P", "-m", "fmexp.record.query_status"]
    try:
        done = subprocess.run(  # noqa: S603 -- our own module
            command, input=json.dumps([question, *arguments]), timeout=seconds,
            capture_output=True, text=True, check=False, start_new_session=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise StoreError(f"no answer within {seconds:g} s") from None
    if done.returncode:
        line = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise StoreError(without_password(line))
    return json.loads(done.stdout)


def main() -> None:
    """Read a question from stdin, print the answer."""
    question, uri, *arguments = json.load(sys.stdin)
    answers = os.dup(1)
    os.dup2(2, 1)  # what MLflow prints must not be taken for an answer
    from fmexp.record import mlflow_store

    answer: Any
    if question == "summary":
        answer = mlflow_store.summary(uri)
    elif question == "close":
        experiment, folder, parent, keys = arguments
        answer = mlflow_store.Store(uri, experiment, Path(folder)).close_running(parent, keys)
    else:
        experiment, folder, keys = arguments
        store = mlflow_store.Store(uri, experiment, Path(folder))
        answer = {key: tags for key in keys if (tags := store.ended(key))}
    os.write(answers, json.dumps(answer).encode())
    os._exit(0)  # the interpreter's own way out costs half a second after MLflow


if __name__ == "__main__":
    main()
