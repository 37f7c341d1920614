"""`fmexp run` as a user meets it: the command, its output, and what lies in MLflow afterwards."""

from __future__ import annotations

import csv
import signal
import time
from pathlib import Path

import pytest
import yaml

ARTIFACTS = {"config.yaml", "model", "curve.csv", "curve.png", "predictions.csv"}


def _artifacts(client, run_id: str, folder: Path) -> Path:
    return Path(client.download_artifacts(run_id, "", str(folder)))


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """One run of each backend in one folder."""
    from tests.conftest import Command

    pytest.importorskip("torch")
    fmexp = Command(tmp_path_factory.mktemp("runs"))
    fmexp("run", "training.epochs=50", "model.k=4", "tracking.tags.team=red")
    fmexp("run", "backend=torch_adam", "training.epochs=30", "training.learning_rate=0.05")
    return fmexp


@pytest.mark.parametrize(("number", "epochs"), [(0, 50), (1, 30)])
def test_a_run_leaves_the_whole_record(two_runs, number, epochs, tmp_path):
    runs, client = two_runs.runs(), two_runs.store
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    run = runs[number]
    for name in ("train/mse", "val/mse"):
        history = client.get_metric_history(run.info.run_id, name)
        assert sorted(m.step for m in history) == list(range(1, epochs + 1))
    assert run.data.params.keys() >= {
        "model.k",
        "training.learning_rate",
        "training.epochs",
        "seed",
    }
    assert run.data.params["training.epochs"] == str(epochs)
    assert run.data.metrics.keys() >= {"best/val_mse", "best/epoch", "time/fit_seconds"}
    tags = ("version", "config_hash", "data_digest", "split_digest", "numpy", "cpu", "outcome")
    assert {f"fmexp.{tag}" for tag in tags} <= run.data.tags.keys()
    assert run.data.tags["fmexp.outcome"] == "completed"
    assert run.data.tags.get("team") == ("red" if number == 0 else None)
    assert run.data.tags["mlflow.user"]
    assert "mlflow.note.content" in run.data.tags
    assert run.inputs.dataset_inputs[0].dataset.digest == run.data.tags["fmexp.data_digest"]
    folder = _artifacts(client, run.info.run_id, tmp_path)
    assert {path.name for path in folder.iterdir()} >= ARTIFACTS
    assert len((folder / "curve.csv").read_text().splitlines()) == epochs + 1
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_best_metrics_are_the_lowest_point_of_the_curve(two_runs):
    for run in two_runs.runs():
        history = two_runs.store.get_metric_history(run.info.run_id, "val/mse")
        best = min(history, key=lambda m: (m.value, m.step))
        assert run.data.metrics["best/val_mse"] == best.value
        assert run.data.metrics["best/epoch"] == best.step


def test_predictions_hold_training_and_validation_rows_only(two_runs, tmp_path):
    run = two_runs.runs()[0]
    folder = _artifacts(two_runs.store, run.info.run_id, tmp_path)
    with (folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 442 - round(0.2 * 442)
    assert {row["part"] for row in rows} == {"train", "validation"}
    held_out = [row for row in rows if row["part"] == "validation"]
    squares = [(float(r["y_pred"]) - float(r["progression"])) ** 2 for r in held_out]
    error = sum(squares) / len(squares)
    assert error == pytest.approx(run.data.metrics["best/val_mse"], rel=1e-9)


def test_the_spool_is_empty_after_a_run(two_runs):
    assert not [p for p in (two_runs.folder / ".fmexp" / "spool").glob("*/*") if p.is_dir()]


def test_untracked_run_leaves_nothing(fmexp):
    printed = fmexp("run", "tracking=none", "training.epochs=3")
    assert "val/mse" in printed
    assert "still getting better in its last epoch: try training.epochs=6 or" in printed
    assert list(fmexp.folder.iterdir()) == []


@pytest.mark.usefixtures("store_folder")
def test_unscaled_columns_diverge_with_the_cause_named(fmexp):
    table = "\n".join(f"{1e5 * (i % 7 + 1)},{i % 5},{i % 3}" for i in range(60))
    (fmexp.folder / "raw.csv").write_text(f"income,age,y\n{table}\n")
    printed = fmexp(
        "run", "data=csv", "data.path=raw.csv", "data.target=y", "data.standardize=false",
        "data.numeric=[income,age]", "training.cap_steps=false", code=1,
    )  # fmt: skip
    assert "diverged" in printed
    assert "income" in printed
    assert "learning_rate" in printed
    (run,) = fmexp.runs()
    assert run.info.status == "FAILED"
    assert run.data.tags["fmexp.outcome"] == "diverged"
    assert all(abs(value) < 1e300 for value in run.data.metrics.values())


@pytest.mark.usefixtures("store_folder")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_keeps_what_it_learned(fmexp, number):
    endless = ("run", "data=planted", "data.rows=50000", "training.epochs=1000000000")
    process = fmexp.start(*endless, start_new_session=True)
    spool = fmexp.folder / ".fmexp" / "spool"
    while not any(path.stat().st_size > 5000 for path in spool.glob("*/*/events.jsonl")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    (run,) = fmexp.runs()
    assert run.info.status == "KILLED"
    assert run.data.tags["fmexp.outcome"] == "interrupted"
    assert run.data.metrics["best/val_mse"] > 0


def test_config_artifact_runs_again_to_the_same_curve(two_runs, tmp_path):
    run = two_runs.runs()[0]
    folder = _artifacts(two_runs.store, run.info.run_id, tmp_path)
    stored = yaml.safe_load((folder / "config.yaml").read_text())
    assert stored["model"]["k"] == 4
    assert stored["tracking"]["name"] == "mlflow"


def test_command_line_beats_environment(fmexp):
    fmexp.env["MLFLOW_TRACKING_URI"] = f"sqlite:///{fmexp.folder}/env.db"
    fmexp.made_store = None
    fmexp("run", "training.epochs=2", f"tracking.uri=sqlite:///{fmexp.folder}/line.db")
    assert (fmexp.folder / "line.db").exists()
    assert not (fmexp.folder / "env.db").exists()
    assert not (fmexp.folder / "mlflow.db").exists()


@pytest.mark.usefixtures("store_folder")
def test_a_run_can_go_on_from_another(fmexp, refused):
    fmexp("run", "model.k=4")
    once = ("training.epochs=1", "training.learning_rate=0.001")
    fmexp("run", "model.k=4", "model.start=latest", *once)
    first, goes_on = fmexp.runs()
    best = first.data.metrics["best/val_mse"]
    assert goes_on.data.metrics["val/mse"] == pytest.approx(best, rel=0.2)
    assert "set model.k=4" in refused("run", "model.start=latest")
