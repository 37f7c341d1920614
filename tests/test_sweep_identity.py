"""Two folders with one table at different paths work on one study: the content is what counts."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from fmexp.cli.parser import main
from fmexp.sweep.storage import open_storage
from fmexp.sweep.trial_status import counts
from tests.sweep_support import FAST

TABLE = "x,y,price\n" + "".join(f"{i},{i % 7},{i * 0.5 + i % 7}\n" for i in range(60))


@pytest.fixture
def sweep(tmp_path, monkeypatch, capsys):
    """A sweep as a host does it: in a folder of its own, on a study that all share."""

    def sweep(host: str, table: str, n_trials: int, *overrides: str, content: str = TABLE, code=0):
        folder = tmp_path / host
        (folder / table).parent.mkdir(parents=True)
        (folder / table).write_text(content)
        monkeypatch.chdir(folder)
        words = (
            "run", "-m", *FAST, "data=csv", "data.target=price", f"data.path={folder / table}",
            "tracking=none", "hydra.sweeper.study_name=shared",
            f"hydra.sweeper.n_trials={n_trials}",
            f"hydra.sweeper.storage=journal://{tmp_path}/shared.journal", *overrides,
        )  # fmt: skip
        assert main(list(words)) == code
        printed = capsys.readouterr()
        return printed.err if code else printed.out

    return sweep


def studies(tmp_path: Path) -> dict[str, int]:
    """How many trials count in each study of the shared journal: workers drop what is too many."""
    storage = open_storage(f"journal://{tmp_path}/shared.journal", tmp_path)
    names = optuna.get_all_study_names(storage)
    trials = {name: optuna.load_study(study_name=name, storage=storage).trials for name in names}
    return {name: sum(map(counts, trials[name])) for name in names}


def test_the_same_table_elsewhere_under_another_name_goes_on_with_the_study(sweep, tmp_path):
    sweep("a", "prices.csv", 2)
    again = sweep("b", "deep/other.csv", 4)
    assert "continuing the study shared; 2 of 4 trials" in again
    assert studies(tmp_path) == {"shared": 4}


def test_without_a_name_the_same_table_at_another_path_goes_on_too(sweep, tmp_path):
    sweep("a", "prices.csv", 2, "hydra.sweeper.study_name=null")
    assert "continuing" in sweep("b", "deep/prices.csv", 4, "hydra.sweeper.study_name=null")
    assert list(studies(tmp_path).values()) == [4]


def test_workers_of_their_own_process_read_the_table_of_their_own_machine(sweep, tmp_path):
    pytest.importorskip("torch")
    torch = ("backend=torch_adam",)
    sweep("a", "prices.csv", 1, *torch)
    (tmp_path / "a" / "prices.csv").unlink()
    sweep("b", "prices.csv", 3, "hydra.sweeper.n_jobs=2", *torch)
    assert studies(tmp_path) == {"shared": 3}


def test_another_table_is_refused_with_both_digests(sweep):
    sweep("a", "prices.csv", 2)
    longer = TABLE + "1,1,1\n"
    said = sweep("b", "prices.csv", 2, content=longer, code=2)
    assert "other data (prices.csv) (data of digest" in said
    there, _, here = said.partition("data of digest ")[2].partition(" there, ")
    assert there != here[:16]
