"""`fmexp reproduce`: the right verdict, from the record alone."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from fmexp.analysis.reproduce import Verdict, judge, reproduce
from fmexp.errors import UserError
from fmexp.record.queries import StoredRuns
from fmexp.record.tracker import Outcome
from tests import recorded_support
from tests.record_support import copy_store, uri_of
from tests.recorded_support import record

SMALL = ["data=planted", "data.rows=300", "training.epochs=6"]
RUNS = {
    "sgd": SMALL,
    "decay": [*SMALL, "training.learning_rate_decay=0.1", "training.reg_V=0.01", "model.k=9"],
    "early": [*SMALL, "training.epochs=200", "training.early_stopping.patience=3"],
    "labels": [*SMALL, "task=classification", "backend.dtype=float32"],
    "adam": [*SMALL, "backend=torch_adam", "backend.batch_size=64"],
    "gibbs": [*SMALL, "backend=gibbs", "data.columns=30", "data.fields=3"],
    "gibbs_labels": [*SMALL, "backend=gibbs", "task=classification", "backend.kept=3"],
    "one_hot": [*SMALL, "data.columns=30", "data.fields=3", "seed=5"],
    "too_fast": [*SMALL, "training.learning_rate=5", "training.cap_steps=false"],
}


def random_run(number: int) -> list[str]:
    """Overrides drawn at random, for the soak."""
    dice = random.Random(number)
    backend = dice.choice(["numpy_sgd", "torch_adam"])
    draws = {
        "backend": backend,
        "backend.dtype": dice.choice(["float32", "float64"]),
        "task": dice.choice(["regression", "classification"]),
        "data.rows": dice.randrange(50, 500),
        "data.fields": dice.choice([0, 2, 5]),
        "model.k": dice.randrange(1, 40),
        "training.learning_rate": dice.choice([0.001, 0.01, 0.05]),
        "training.shuffle": dice.choice(["true", "false"]),
        "training.reg_V": dice.choice([0, 0.1]),
        "split.validation": dice.choice([0, 0.2]),
        "seed": dice.randrange(1000),
    }
    if backend == "torch_adam":
        draws["backend.batch_size"] = dice.choice(["null", 32])
    return [*SMALL, *(f"{key}={value}" for key, value in draws.items())]


RUNS |= {f"random_{i}": random_run(i) for i in range(int(os.environ.get("FMEXP_REPRODUCE", "0")))}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """Runs of several kinds, and one on a CSV that then moves from `a` to `b`."""
    folder = copy_store(empty_store, tmp_path_factory.mktemp("reproduced"))
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    lines = [f"{i % 7},{i % 3},{(i % 7) * 0.5 + i % 3}" for i in range(100)]
    (folder / "a/table.csv").write_text("x,z,y\n" + "\n".join(lines) + "\n")
    csv = ["data=csv", f"data.path={folder}/a/table.csv", "data.target=y", "training.epochs=3"]
    record(folder, **RUNS, csv=csv)
    shutil.move(folder / "a/table.csv", folder / "b/table.csv")
    return folder


def verdict(folder: Path, run: str, where: Path | None = None, data: Path | None = None) -> Verdict:
    """The verdict in a folder of its own: nothing but the record is known there."""
    with StoredRuns(uri_of(folder)) as records:
        return judge(records, records.find(run), where or folder / "a", data)


@pytest.mark.parametrize("run", RUNS)
def test_runs_of_both_backends_come_out_bit_for_bit(recorded: Path, run: str) -> None:
    found = verdict(recorded, run)
    assert found.kind == "identical", found.words
    assert found.exit_code == 0


@pytest.fixture
def altered(recorded: Path) -> Iterator[Callable[[str, str, Callable[[str], str]], None]]:
    """Changes a text artifact of a run until the test has ended."""
    kept: list[tuple[Path, bytes]] = []

    def alter(run: str, name: str, change: Callable[[str], str]) -> None:
        with StoredRuns(uri_of(recorded)) as records:
            (path,) = recorded.glob(f"mlruns/*/{records.find(run).run_id}/artifacts/{name}")
        kept.append((path, path.read_bytes()))
        path.write_text(change(path.read_text()))

    yield alter
    for path, content in kept:
        path.write_bytes(content)


def test_data_that_moved_are_found_beside_or_named(recorded: Path) -> None:
    lost = verdict(recorded, "csv")
    assert lost.kind == "not possible"
    assert "--data FILE" in lost.words
    assert "a/table.csv" in lost.words
    assert verdict(recorded, "csv", where=recorded / "b").kind == "identical"
    assert verdict(recorded, "csv", data=recorded / "b/table.csv").kind == "identical"


def test_one_digit_in_the_last_row_is_other_data(recorded: Path, tmp_path: Path) -> None:
    text = (recorded / "b/table.csv").read_text().rstrip("\n")
    (tmp_path / "table.csv").write_text(text[:-1] + "7\n")
    found = verdict(recorded, "csv", where=tmp_path)
    assert found.kind == "not possible"
    assert "holds other data than csv" in found.words


def test_another_seed_is_different_and_the_configuration_is_suspected(
    recorded: Path, altered: Callable[..., None]
) -> None:
    altered("sgd", "config.yaml", lambda text: text.replace("\nseed: 0", "\nseed: 1"))
    found = verdict(recorded, "sgd")
    assert found.kind == "different"
    assert "fmexp.config_hash" in found.words
    assert found.exit_code == 1


@pytest.mark.parametrize(("run", "package"), [("decay", "numba"), ("adam", "torch")])
def test_a_last_bit_is_within_and_another_version_may_explain_it(
    recorded: Path, altered: Callable[..., None], run: str, package: str
) -> None:
    def last_digit(text: str) -> str:
        lines = text.splitlines()
        epoch, loss, *rest = lines[3].split(",")
        lines[3] = ",".join([epoch, repr(float(loss) * (1 + 1e-15)), *rest])
        return "\n".join(lines) + "\n"

    with StoredRuns(uri_of(recorded)) as records:
        records.note(records.find(run), {f"fmexp.{package}": "0.1.2"}, {})
    assert verdict(recorded, run).kind == "identical"  # another version alone proves nothing
    altered(run, "curve.csv", last_digit)
    found = verdict(recorded, run)
    assert found.kind == "within"
    assert "train/mse of epoch 3" in found.words
    assert f"{package} was 0.1.2" in found.words


def test_nothing_in_a_strangers_record_is_executed_or_looked_up(
    recorded: Path, altered: Callable[..., None], tmp_path: Path
) -> None:
    trap = tmp_path / "executed"
    altered("early", "config.yaml", lambda _: f"!!python/object/apply:os.system ['touch {trap}']")
    assert verdict(recorded, "early").kind == "not possible"
    assert not trap.exists()

    def everywhere(text: str) -> str:
        def fill(node: object) -> object:
            is_tree = isinstance(node, dict)
            return {k: fill(v) for k, v in node.items()} if is_tree else "${oc.env:HOME}"

        return yaml.safe_dump(fill(yaml.safe_load(text)))

    altered("labels", "config.yaml", everywhere)
    found = verdict(recorded, "labels")
    assert found.kind == "not possible"
    assert "${oc.env:HOME}" in found.words
    assert os.environ["HOME"] not in found.words


def test_a_reference_in_a_path_is_only_a_text(
    recorded: Path, altered: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TABLES", str(recorded / "b"))
    path = f"{recorded}/a/table.csv"
    altered("csv", "config.yaml", lambda text: text.replace(path, "${oc.env:TABLES}/table.csv"))
    assert verdict(recorded, "csv").kind == "not possible"


def test_a_run_that_was_stopped_is_stopped_after_the_same_epoch(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watch_until(epoch: int, *_: float) -> Outcome | None:
        return Outcome.INTERRUPTED if epoch == 4 else None

    run = recorded_support.one_run.run
    monkeypatch.setattr(recorded_support.one_run, "run", lambda *args: run(*args[:-1], watch_until))
    record(recorded, stopped=SMALL)
    found = verdict(recorded, "stopped")
    assert (found.kind, found.words.startswith("bit for bit: all 8 losses")) == ("identical", True)


def test_a_run_that_started_from_another_cannot_be_had_from_its_record_alone(
    recorded: Path, altered: Callable[..., None]
) -> None:
    altered("sgd", "config.yaml", lambda text: text.replace("start: normal", "start: latest"))
    found = verdict(recorded, "sgd")
    assert found.kind == "not possible"
    assert "started from the model of latest" in found.words


def test_an_unknown_run_is_the_users_mistake(recorded: Path) -> None:
    with pytest.raises(UserError, match="no run 'nobody'"):
        reproduce("nobody", uri_of(recorded), recorded)
