"""The items of each user in the training part as features, against loops over rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fmexp import fm
from fmexp.analysis.predict import Request, predict_file
from fmexp.config.schema import SplitConfig
from fmexp.data import budget, cache, encoded_split, features, sparse_rows
from fmexp.data.features import CSR
from fmexp.data.learn import Learning
from fmexp.data.memory import as_table, from_table
from fmexp.data.related import Related, expanded
from fmexp.errors import DataError
from fmexp.model import Model, load
from tests.data_support import PARTS, lines, load_csv

if TYPE_CHECKING:
    from pathlib import Path

    from fmexp.data.dataset import Dataset, Part

DRAW = np.random.default_rng(5)
ROWS = [(f"{u}", f"i{i}", y) for u, i, y in DRAW.integers([0, 0, 1], [25, 40, 6], (400, 3))]
KEYS: dict[str, Any] = {"history": {"user": "item"}, "categorical": ["user", "item"]}


def loaded(
    folder: Path, rows: list[Any] = ROWS, split: SplitConfig = PARTS, **keys: Any
) -> Dataset:
    (folder / "t.csv").write_bytes(lines("user,item,y", *(f"{u},{i},{y}" for u, i, y in rows)))
    return load_csv(folder / "t.csv", split, **(KEYS | keys))


def histories(data: Dataset) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in data.train.rows:
        user, item, _ = ROWS[row]
        found.setdefault(user, set()).add(item)
    return found


def of_history(data: Dataset, part: Part) -> list[dict[str, float]]:
    """The features of each row that are its user's history, by item."""
    names, prefix = data.encoder.feature_names, "history:item="
    X = expanded(part.features).to_dense()  # type: ignore[union-attr]
    return [
        {names[j].removeprefix(prefix): row[j] for j in np.flatnonzero(row) if prefix in names[j]}
        for row in X
    ]


@pytest.mark.parametrize("own", [True, False])
def test_rows_have_the_training_items_of_their_user(tmp_path: Path, own: bool) -> None:
    data = loaded(tmp_path, history_own=own)
    known, sizes = histories(data), set()
    for part in (data.train, data.validation, data.test):
        assert part is not None
        for row, found in zip(part.rows, of_history(data, part), strict=True):
            user, item, _ = ROWS[row]
            expected = known.get(user, set()) - (set() if own else {item})
            assert found == pytest.approx(dict.fromkeys(expected, len(expected) ** -0.5))
            sizes.add(len(expected))
    assert len(sizes) > 5


def test_held_out_rows_are_in_no_history(tmp_path: Path) -> None:
    before = loaded(tmp_path)
    rows = [*ROWS]
    for part in (before.validation, before.test):
        assert part is not None
        for row in part.rows:
            rows[row] = ("7", "never seen" if row % 2 else "i3", 9e9)
    after = loaded(tmp_path, rows)
    assert before.encoder.to_json() == after.encoder.to_json()
    for name in ("indptr", "indices", "values"):
        assert (getattr(before.train.features, name) == getattr(after.train.features, name)).all()


def test_rows_that_share_histories_are_the_expanded_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sparse_rows, "SHARED_FROM", 2)
    expected = loaded(tmp_path)
    in_memory = loaded(tmp_path, shared=True)
    monkeypatch.setattr(cache, "SMALLEST", 0)
    for module in (encoded_split, features):
        monkeypatch.setattr(module, "CHUNK_ROWS", 64)
    same = SplitConfig(0.2, 0.2, "group:user", 0)
    pairs = [(expected, in_memory)]
    expected = loaded(tmp_path, split=same)
    pairs += [(expected, loaded(tmp_path, split=same, shared=True)) for _ in range(2)]
    for one, other in pairs:
        for part in ("train", "validation", "test"):
            rows, shared = getattr(one, part).features, getattr(other, part).features
            assert isinstance(shared, Related)
            assert (rows.to_dense() == shared.expand().to_dense()).all()


def trained(data: Dataset, folder: Path) -> Model:
    parameters = fm.initial_parameters(data.encoder.n_features, 3, 0.5, 0)
    Model(parameters, data.encoder, "regression").save(folder / "model")
    return load(folder / "model")


@pytest.mark.parametrize("own", [True, False])
def test_a_stored_model_gives_new_rows_their_users_history(tmp_path: Path, own: bool) -> None:
    data = loaded(tmp_path, history_own=own, drop=["item"], categorical=["user"])
    model = trained(data, tmp_path)
    assert model.encoder == data.encoder
    expected = model.predict_features(data.validation.features)  # type: ignore[union-attr]
    predicted = model.predict(tmp_path / "t.csv")
    assert (predicted[data.validation.rows] == expected).all()  # type: ignore[union-attr]
    frame = {"user": [float(u) for u, _, _ in ROWS], "item": [i for _, i, _ in ROWS]}
    assert (model.predict(frame) == predicted).all()
    assert model.encoder.own_columns == (["user"] if own else ["user", "item"])
    request = Request(str(tmp_path / "t.csv"), tmp_path / "out.csv", None, ("all",))
    predict_file(str(tmp_path), "", request)
    assert (tmp_path / "out.csv").read_text().startswith("user,item,y,y_pred\n")


def test_a_user_whom_training_did_not_have_has_no_history(tmp_path: Path) -> None:
    model = trained(loaded(tmp_path), tmp_path)
    encoder = model.encoder
    rows = encoder.features(as_table({"user": ["new", "", "7"], "item": ["i1"] * 3}, encoder))
    assert isinstance(rows, CSR)
    assert np.diff(rows.indptr).tolist()[:2] == [1, 1]  # the item alone
    assert np.diff(rows.indptr)[2] > 3


def test_items_of_few_users_are_left_out(tmp_path: Path) -> None:
    data = loaded(tmp_path, min_count=8)
    known = histories(data)
    users_of = {i: sum(i in items for items in known.values()) for _, i, _ in ROWS}
    few = {item for item, n in users_of.items() if n < 8}
    assert few
    for row, found in zip(data.train.rows, of_history(data, data.train), strict=True):
        assert set(found) == known[ROWS[row][0]] - few


def test_a_table_in_memory_has_histories_too(tmp_path: Path) -> None:
    frame = {"user": [int(u) for u, _, _ in ROWS], "item": [i for _, i, _ in ROWS]}
    y = [float(y) for _, _, y in ROWS]
    data = from_table(frame | {"y": y}, "y", PARTS, Learning(history={"user": "item"}))
    expected = loaded(tmp_path)
    assert (data.train.features.to_dense() == expected.train.features.to_dense()).all()  # type: ignore[union-attr]


def test_histories_that_memory_does_not_hold_are_refused_with_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "STATED", 1000)
    monkeypatch.setattr(budget, "available", lambda: 40_000.0)
    said = r"encoded rows need about \d+\.\d kB of .*, 40.0 kB are .*: use fewer, or backend=gibbs"
    with pytest.raises(DataError, match=said):
        loaded(tmp_path)
    monkeypatch.setattr(sparse_rows, "SHARED_FROM", 2)
    assert isinstance(loaded(tmp_path, shared=True).train.features, Related)
    monkeypatch.setattr(budget, "available", lambda: 2_000.0)
    with pytest.raises(DataError, match=r"the histories of 'user' need about \d+\.\d kB"):
        loaded(tmp_path)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"history": {"usr": "item"}}, r"data.history names 'usr', .*did you mean 'user'"),
        ({"history": {"user": "y"}}, "data.history names 'y', which is a number"),
        ({"history": {"user": "user"}}, "expected a column of users, and one of items"),
        ({"lists": {"item": "|"}}, "expected one item a cell, but data.lists names 'item'"),
        ({"numeric": ["user"], "categorical": None}, "data.history names 'user', which is a"),
    ],
)
def test_histories_that_cannot_be_are_refused(tmp_path: Path, keys: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        loaded(tmp_path, **({"categorical": None} | keys))
