"""`fmexp score`: the test part once, and a second look says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fmexp import fm
from fmexp.analysis.reproduce import reproduce
from fmexp.analysis.score import score
from fmexp.config.compose import compose, parse_arguments
from fmexp.data.loading import load
from fmexp.errors import DataError, UserError
from fmexp.record.queries import StoredRuns
from fmexp.training.fitting import fit, loss_units
from tests.data_support import lines
from tests.record_support import copy_store, uri_of
from tests.recorded_support import record

RUN = ["data=planted", "data.rows=500", "training.epochs=5", "model.k=2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    folder = copy_store(empty_store, tmp_path_factory.mktemp("trained"))
    record(
        folder,
        first=RUN,
        second=[*RUN, "model.k=3"],
        labels=[*RUN, "task=classification"],
        no_test=[*RUN, "split.test=0"],
    )
    return folder


@pytest.fixture
def scored(tmp_path: Path, trained: Path) -> Path:
    """A store in which nobody has looked yet."""
    shutil.copy(trained / "mlflow.db", tmp_path)
    return tmp_path


def look(folder: Path, run: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert score(run, uri_of(folder), folder) == 0
    return capsys.readouterr().out


def test_the_score_is_the_models_error_on_the_test_rows(
    scored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = look(scored, "first", capsys)
    config = compose(parse_arguments(RUN)).config
    data = load(config.data, config.split, config.task)
    parameters = fit(config, data).parameters
    assert data.test is not None
    assert parameters is not None
    error = np.square(fm.scores(parameters, data.test.features) - data.test.target)
    with StoredRuns(uri_of(scored)) as records:
        noted = records.find("first").metrics
    assert noted["test/mse"] == pytest.approx(error.mean() * loss_units(config.task, data))
    assert noted["test/rmse"] == pytest.approx(noted["test/mse"] ** 0.5)
    assert "on 100 rows (95 %)" in said
    assert "looked at for the first time" in said


def test_a_second_look_says_so_by_whichever_model(
    scored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "for the first time" in look(scored, "first", capsys)
    assert "looked at once before (first 20" in look(scored, "first", capsys)
    assert "looked at 2 times before" in (said := look(scored, "second", capsys))
    assert "2 models in all" in said
    with StoredRuns(uri_of(scored)) as records:
        assert len(records.find("first").tags["fmexp.scored"].split()) == 2


def test_a_classifier_is_scored_by_log_loss(
    scored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = look(scored, "labels", capsys)
    assert "test/logloss" in said
    assert "test/auc" in said


def test_without_a_test_part_it_says_so(scored: Path) -> None:
    with pytest.raises(DataError, match=r"no_test .* kept no test part \(split.test=0\)"):
        score("no_test", uri_of(scored), scored)
    with pytest.raises(UserError, match="no run 'frist'"):
        score("frist", uri_of(scored), scored)


def test_a_second_table_that_has_moved_is_found_beside_the_first(
    tmp_path: Path,
    empty_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy_store(empty_store, tmp_path)
    old, new = tmp_path / "old", tmp_path / "new"
    new.mkdir()
    (old / "more").mkdir(parents=True)
    (old / "t.csv").write_bytes(lines("item,y", *(f"i{i % 9},{i % 7}" for i in range(90))))
    (old / "more" / "i[1].csv").write_bytes(lines("item,a", *(f"i{i},{i * i}.5" for i in range(9))))
    monkeypatch.chdir(old)
    joins = "data.joins={item: 'more/i[1].csv'}"
    record(
        tmp_path, run=["data=csv", "data.path=t.csv", "data.target=y", "training.epochs=2", joins]
    )
    monkeypatch.chdir(tmp_path)
    (old / "t.csv").rename(new / "t.csv")
    (old / "more" / "i[1].csv").rename(tmp_path / "elsewhere.csv")
    with pytest.raises(DataError, match=r"joins\.item: more/i\[1\]\.csv is missing: put it beside"):
        score("run", uri_of(tmp_path), new, new / "t.csv")
    (tmp_path / "elsewhere.csv").rename(new / "i[1].csv")
    assert reproduce("run", uri_of(tmp_path), new) == 0
    assert score("run", uri_of(tmp_path), new, new / "t.csv") == 0
    assert "looked at for the first time" in capsys.readouterr().out
    (new / "i[1].csv").write_bytes(lines("item,a", *(f"i{i},{i}.5" for i in range(9))))
    with pytest.raises(DataError, match="holds other data than"):
        score("run", uri_of(tmp_path), new, new / "t.csv")
