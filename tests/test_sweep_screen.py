"""What a sweep prints, and what it is called."""

from __future__ import annotations

import optuna

from fmexp.sweep.progress import difference, newness, short_keys
from tests.sweep_support import left_in, study_in, sweep_here

TABLE = "item,shop,price\n" + "".join(f"{i % 5},{i % 3},{i % 7}\n" for i in range(60))


def csv(folder, name):
    """The overrides for a table of that name."""
    (folder / name).write_text(TABLE)
    return "data=csv", f"data.path={name}", "data.target=price"


def test_three_points_are_three_trials(tmp_path, monkeypatch, capsys):
    printed = sweep_here(tmp_path, monkeypatch, capsys, "model.k=2,4,8")
    study = study_in(tmp_path)
    assert sorted(t.params["model.k"] for t in study.trials) == [2, 4, 8]
    assert study.trials[0].params == {"model.k": 8}  # the configuration as composed
    assert "each of 3 points once" in printed
    assert "3 of 3 trials: 3 completed" in printed
    assert "go on" not in printed


def test_what_was_searched_whole_is_not_told_to_go_on(tmp_path, monkeypatch, capsys):
    printed = sweep_here(tmp_path, monkeypatch, capsys, "model.k=2,4", "hydra.sweeper.n_trials=2")
    assert "done; 2 of 2 trials" in printed
    assert "go on" not in printed


def test_the_configuration_as_composed_is_tried_only_where_the_space_holds_it(
    tmp_path, monkeypatch, capsys
):
    sweep_here(tmp_path, monkeypatch, capsys, "model.k=2,4")
    assert [t.params for t in study_in(tmp_path).trials] == [{"model.k": 2}, {"model.k": 4}]


def test_the_table_has_a_column_for_each_key_under_its_header(tmp_path, monkeypatch, capsys):
    printed = sweep_here(tmp_path, monkeypatch, capsys, "hydra.sweeper.n_trials=3")
    lines = printed.splitlines()
    header = next(i for i, line in enumerate(lines) if line.split()[:1] == ["trial"])
    assert lines[header].split() == ["trial", "best/val_mse", "behind", "k", "learning_rate"]
    ends = [i for i, (a, b) in enumerate(zip(lines[header] + " ", lines[header][1:] + "  ",
                                             strict=False)) if a != " " and b == " "]  # fmt: skip
    for row in lines[header + 1 : header + 4]:
        assert len(row.split()) == 5
        assert all(row[end] != " " and row[end + 1 : end + 2] in ("", " ") for end in ends)


def test_keys_are_as_short_as_they_can_be_told_apart():
    assert short_keys(["model.k", "data.k", "training.reg_V"]) == ["model.k", "data.k", "reg_V"]


def test_a_sweep_is_called_after_its_table_and_says_which_other_table_it_is_unlike(
    tmp_path, monkeypatch, capsys
):
    one = ("model.k=2", "training.learning_rate=0.01")
    sweep_here(tmp_path, monkeypatch, capsys, *csv(tmp_path, "diamonds.csv"), *one)
    printed = sweep_here(tmp_path, monkeypatch, capsys, *one, "data=planted")
    (unlike,) = [line for line in printed.splitlines() if line.startswith("a new study")]
    assert "other data (diamonds.csv there, planted here)" in unlike
    assert unlike.startswith("a new study: unlike diamonds-price-")
    assert len(unlike) < 120


BASE = {
    "config": {"data": "csv", "data.path": "/a/t.csv", "model.k": 8},
    "inputs": {"data": {"digest": "1", "is": "t.csv"}, "split": {"digest": "2", "is": ""}},
    "space": {"model.k": "2 to 64"}, "objective": "o", "direction": "minimize", "seeds": 1,
}  # fmt: skip
PLANTED = {"data": {"digest": "9", "is": "planted"}, "split": {"digest": "9", "is": ""}}


def test_a_difference_names_few_keys_and_none_of_the_data_where_those_are_others():
    other = {**BASE["config"], "data": "planted", "data.rows": 5, "training.epochs": 5}
    del other["data.path"]
    assert difference(BASE, {**BASE, "config": other, "inputs": PLANTED}) == (
        "other data (t.csv there, planted here), training.epochs (only here)"
    )
    many = {f"training.{i}": i for i in range(99)}
    assert difference(BASE, {**BASE, "config": BASE["config"] | many}).endswith("95 keys more")


def test_a_new_study_is_set_against_the_newest_on_its_own_data():
    studies = {
        "old": BASE | {"seeds": 2},
        "mine": BASE | {"seeds": 3},
        "new": BASE | {"inputs": PLANTED},
    }
    assert newness(studies, BASE).startswith("a new study: unlike mine in seeds (3 there, 1 here)")


def test_a_stopped_sweep_counts_its_trials_as_its_continuation_does(tmp_path, monkeypatch, capsys):
    first = sweep_here(tmp_path, monkeypatch, capsys, "hydra.sweeper.n_trials=2")
    study = study_in(tmp_path)
    study.enqueue_trial({"model.k": 3})
    running = study.ask()
    again = sweep_here(tmp_path, monkeypatch, capsys, "hydra.sweeper.n_trials=3")
    assert running.number == 2
    assert "2 of 2 trials: 2 completed" in first
    assert "2 of 3 trials: 2 completed; 1 begun or planned" in again
    assert "3 of 3 trials: 3 completed" in again


def test_optunas_list_of_studies_stays_readable(tmp_path, monkeypatch, capsys):
    sweep_here(tmp_path, monkeypatch, capsys, "hydra.sweeper.n_trials=1")
    (summary,) = optuna.get_all_study_summaries(study_in(tmp_path)._storage)
    assert len(str(summary.user_attrs)) < 100
    assert len(left_in(tmp_path).counted) == 1
