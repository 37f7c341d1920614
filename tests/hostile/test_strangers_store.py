"""A database file that somebody has prepared, as the store of a run."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/theirs", "sftp://a:b@127.0.0.1:9/x"])
def test_a_store_cannot_have_artifacts_sent_to_a_server_of_its_choice(address, store_folder, fmexp):
    with closing(sqlite3.connect(store_folder / "mlflow.db")) as db:
        db.execute("insert into experiments (name, artifact_location, lifecycle_stage) "
                   "values ('fmexp', ?, 'active')", [address])  # fmt: skip
        db.commit()
    said = fmexp("run", "training.epochs=1", code=1)
    assert "would send its artifacts to" in said
    assert "Nothing is lost" in said
    assert "a:b" not in said


@pytest.mark.parametrize("address", ["foo://x", "", "file:///nobody/knows", "../../x", "s3://no/x"])
def test_a_store_with_strange_artifact_addresses_ends_in_a_sentence(address, store_folder, fmexp):
    fmexp("run", "training.epochs=1")
    with closing(sqlite3.connect(store_folder / "mlflow.db")) as db:
        db.execute("update runs set artifact_uri = ?", [address])
        db.commit()
    Path(store_folder / "t.csv").write_text("a\n1\n")
    process = fmexp.start("predict", "latest", "--data", "t.csv")
    _, err = process.communicate(timeout=120)
    assert process.returncode in (1, 2)
    assert "Traceback" not in err
