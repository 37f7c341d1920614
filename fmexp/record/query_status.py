"""How runs ended in MLflow, asked by a process that does not load it itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def ended_in_store(
    uri: str, experiment: str, folder: Path, keys: list[str]
) -> dict[str, dict[str, str]]:
    """The tags of those of these runs that have ended, by key; none where nothing can be known."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "fmexp.record.query_status"],
        input=json.dumps([uri, experiment, str(folder), keys]),
        capture_output=True, text=True, check=False, start_new_session=True,
    )  # fmt: skip
    found: dict[str, dict[str, str]] = json.loads(done.stdout) if done.returncode == 0 else {}
    return found


def main() -> None:
    """Read what is asked from stdin, print the answer."""
    from fmexp.record.mlflow_store import Store

    uri, experiment, folder, keys = json.load(sys.stdin)
    answers = os.dup(1)
    os.dup2(2, 1)  # what MLflow prints must not be taken for an answer
    store = Store(uri, experiment, Path(folder))
    found = {key: tags for key in keys if (tags := store.ended(key))}
    os.write(answers, json.dumps(found).encode())
    os._exit(0)  # the interpreter's own way out costs half a second after MLflow


if __name__ == "__main__":
    main()
