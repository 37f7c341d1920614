"""`fmexp compare` on real records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fmexp.analysis.compare.choose import choose, n_choices
from fmexp.analysis.compare.command import compare, gather
from fmexp.analysis.compare.show import Comparison, shorter
from fmexp.errors import UserError
from fmexp.record.queries import StoredRun, StoredRuns
from tests.record_support import copy_store, uri_of
from tests.recorded_support import record

PLANTED = ["data=planted", "data.rows=2000", "data.noise=0.3", "training.epochs=20"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A good and a poor run on the same data, the good one's twin with another seed, others."""
    folder = copy_store(empty_store, tmp_path_factory.mktemp("compared"))
    record(
        folder,
        other_split=[*PLANTED, "split.seed=7"],
        nothing_held_out=[*PLANTED, "split.validation=0"],
        nothing_again=[*PLANTED, "split.validation=0", "model.k=2"],
        good=[*PLANTED, "model.k=5"],
        twin=[*PLANTED, "model.k=5", "seed=1"],
        poor=[*PLANTED, "model.k=1", "training.learning_rate=0.00001"],
        poor_twin=[*PLANTED, "model.k=1", "training.learning_rate=0.00001", "seed=1"],
    )
    return folder


@pytest.fixture
def records(recorded: Path) -> Iterator[StoredRuns]:
    with StoredRuns(uri_of(recorded)) as opened:
        yield opened


def compared(records: StoredRuns, folder: Path, *names: str) -> Comparison:
    return gather(records, list(names), None, None, folder, None)


def test_a_better_model_is_called_better_over_rows_and_seeds(
    records: StoredRuns, recorded: Path
) -> None:
    found = compared(records, recorded, "good", "poor")
    (judged,) = found.judged
    assert judged is not None
    assert (judged.rows, judged.seeds, judged.choices) == (400, 2, 1)
    assert judged.is_real
    assert judged.mean > 0
    assert "A is better than B by" in found.as_text()


def test_errors_are_those_of_the_recorded_models(records: StoredRuns, recorded: Path) -> None:
    found = compared(records, recorded, "good", "poor")
    for each in found.candidates:
        errors = each.errors[0]
        assert np.mean(errors) == pytest.approx(each.record.metrics["best/val_mse"], rel=1e-12)


def test_only_what_differs_is_shown(records: StoredRuns, recorded: Path) -> None:
    shown = compared(records, recorded, "good", "poor").as_text()
    keys = [line.split()[0] for line in shown.splitlines() if line[:1].isalpha()]
    assert {"model.k", "training.learning_rate", "best/val_mse", "parameters"} <= set(keys)
    assert not {"seed", "data.rows", "training.epochs"} & set(keys)


def test_a_run_against_itself_with_another_seed_is_no_difference_of_models(
    records: StoredRuns, recorded: Path
) -> None:
    found = compared(records, recorded, "good", "twin")
    (judged,) = found.judged
    assert judged is not None
    assert judged.mean == 0  # over both seeds they are the same model
    assert "No difference between A and B can be told apart from noise" in found.as_text()


def test_unlike_splits_are_refused_and_named(records: StoredRuns, recorded: Path) -> None:
    with pytest.raises(UserError, match=r"split digest differ \(split.seed: 0 and 7\)"):
        compared(records, recorded, "good", "other_split")


def test_without_held_out_rows_it_says_that_it_cannot_tell(
    records: StoredRuns, recorded: Path
) -> None:
    found = compared(records, recorded, "nothing_held_out", "nothing_again")
    assert found.judged == [None]
    assert "train/mse by epoch" in found.as_text()
    assert "cannot be told: these runs held no rows out" in found.as_text()


def test_one_run_twice_is_no_comparison(records: StoredRuns, recorded: Path) -> None:
    with pytest.raises(UserError, match="compare needs 2 to 26 finished runs, got 1"):
        compared(records, recorded, "good", "good")


def test_lost_data_leave_the_table_and_say_what_is_missing(
    records: StoredRuns, recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> None:
        raise UserError("the data are missing")

    monkeypatch.setattr("fmexp.analysis.stored_run.load_data", lost)
    found = compared(records, recorded, "good", "poor")
    assert found.judged == [None]
    assert "cannot be told: the data are missing" in found.as_text()
    assert json.loads(found.as_json())["comparisons"] == []


def test_json_holds_the_same(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = compare(["good", "poor"], None, None, uri_of(recorded), recorded, as_json=True)
    tree = json.loads(capsys.readouterr().out)
    assert code == 0
    assert [run["params"]["model.k"] for run in tree["runs"]] == ["5", "1"]
    (found,) = tree["comparisons"]
    assert found["is_real"]
    assert found["mean"] > found["half_width"] > 0


def test_the_best_of_all_are_corrected_for_having_been_picked(
    records: StoredRuns, recorded: Path
) -> None:
    chosen = choose(records, [], None, 3)
    losses = [each.metrics["best/val_mse"] for each in chosen.records]
    assert {each.name for each in chosen.records[:2]} == {"good", "twin"}
    assert losses == sorted(losses)
    found = gather(records, [], None, 3, recorded, None)
    assert [judged and judged.choices for judged in found.judged] == [6, 6]
    assert "(allowing for 6 comparisons to pick from)" in found.as_text()


def fake(name: str, parent: str | None, trial: int) -> StoredRun:
    tags = {"fmexp.trial": str(trial), "fmexp.outcome": "completed"} | (
        {"mlflow.parentRunId": parent} if parent else {}
    )
    return StoredRun(name, name, "1", "FINISHED", 0, {}, tags, {"best/val_mse": 1.0})


class FakeStore:
    """Sweeps S of 20 trials and T of 3."""

    def find(self, name: str) -> StoredRun:
        return fake(name, None, 0)

    def children(self, sweep: StoredRun) -> list[StoredRun]:
        return [fake(f"{i}", sweep.run_id, i) for i in range({"S": 20, "T": 3}[sweep.run_id])]


class StoreAfterASweep:
    """Sweep S of 3 trials, whose best result its own record repeats."""

    def find_trained(self, name: str) -> StoredRun:
        return fake(name, "S", 1)

    def on_same_data(self, record: StoredRun) -> list[StoredRun]:  # noqa: ARG002
        sweep = replace(fake("S", None, 0), tags={"fmexp.kind": "sweep"})
        return [sweep, *(fake(f"{i}", "S", i) for i in range(3))]


def test_a_sweep_is_not_compared_with_its_own_winner() -> None:
    chosen = choose(StoreAfterASweep(), [], None, 5)  # type: ignore[arg-type]
    assert [record.name for record in chosen.records] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("a", "b", "n"),
    [
        (("S", 4), ("S", 0), 19),
        (("S", 4), ("S", 5), 190),
        (("S", 4), ("T", 1), 60),
        (("S", 4), ("T", 0), 20),
        (("S", 4), (None, 9), 20),
        ((None, 8), (None, 9), 1),
    ],
)
def test_the_number_of_comparisons_to_pick_from(
    a: tuple[str | None, int], b: tuple[str | None, int], n: int
) -> None:
    pair = fake("a", *a), fake("b", *b)
    assert n_choices(FakeStore(), *pair, picked_from=0) == n  # type: ignore[arg-type]
    assert n_choices(FakeStore(), *reversed(pair), picked_from=0) == n  # type: ignore[arg-type]


def test_numbers_are_shown_to_six_digits_unless_that_makes_them_equal() -> None:
    assert shorter(["0.0035938136638046258", "0.01", ""]) == ["0.00359381", "0.01", ""]
    close = ["0.12345678901", "0.12345678902"]
    assert shorter(close) == close
    assert shorter(["1000000000", "a.csv.of.dots"]) == ["1000000000", "a.csv.of.dots"]
