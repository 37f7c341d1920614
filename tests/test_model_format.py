"""The stored model: two files, no pickle, the same bits when read back or read by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from fmexp import fm, model
from fmexp.data.learn import Learning, learn
from fmexp.data.schema import Schema
from fmexp.data.table import Table, Text
from fmexp.errors import DataError

DOCUMENT = Path(__file__).parents[1] / "docs" / "model-format.md"


def a_model(task: str = "regression", *, clip: bool = False, fill: bool = False) -> model.Model:
    stream = np.random.default_rng(3)
    numbers = stream.normal(size=60)
    numbers[:5] = np.nan if fill else 0
    names = Text(stream.integers(4, size=60).astype(np.int32), ["red", "blue", "green", "x y"])
    y = stream.normal(size=60) if task == "regression" else stream.integers(2, size=60) * 1.0
    table = Table({"size": numbers, "colour": names, "y": y})
    learning = Learning(task, fill_missing=fill)
    encoder = learn(lambda: [table], Schema("y", ["size"], ["colour"]), learning)
    parameters = fm.initial_parameters(encoder.n_features, 3, 0.5, seed=1)
    return model.Model(parameters, encoder, task, clip)


ROWS = {"colour": ["blue", "red", "never seen", "x y"], "size": [0.5, -1.25, 3.0, 0.0]}


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_a_loaded_model_predicts_the_same_bits(tmp_path: Path, task: str) -> None:
    kept = a_model(task)
    kept.save(tmp_path / "model")
    assert model.load(tmp_path / "model").encoder == kept.encoder
    assert (model.load(tmp_path / "model").predict(ROWS) == kept.predict(ROWS)).all()


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("fill", [False, True])
def test_the_documented_script_predicts_the_same_bits(
    tmp_path: Path, task: str, fill: bool
) -> None:
    kept = a_model(task, clip=True, fill=fill)
    kept.save(tmp_path / "model")
    script = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(script[1], names)  # type: ignore[index]
    rows = ROWS | ({"size": [0.5, np.nan, 3.0, 0.0]} if fill else {})
    assert (names["predict"](tmp_path / "model", rows) == kept.predict(rows)).all()  # type: ignore[operator]


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_the_documented_script_reads_samples_too(tmp_path: Path, task: str) -> None:
    one, g = a_model(task, clip=True), np.random.default_rng(0)
    shape = (5, *one.parameters.V.shape)
    w0, w, V = g.normal(size=5), g.normal(size=shape[:2]), g.normal(size=shape)
    drawn = fm.Samples(*(np.float32(x) for x in (w0, w, V, np.ones(5))))
    kept = model.Model(drawn, one.encoder, one.task, one.clip)
    kept.save(tmp_path / "model")
    script = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(script[1], names)  # type: ignore[index]
    found = names["predict"](tmp_path / "model", ROWS)  # type: ignore[operator]
    np.testing.assert_allclose(found, kept.predict(ROWS), rtol=1e-12)
    assert (model.load(tmp_path / "model").predict(ROWS) == kept.predict(ROWS)).all()


def test_the_model_folder_holds_no_pickle(tmp_path: Path) -> None:
    a_model().save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "parameters.npz"]
    with np.load(tmp_path / "parameters.npz", allow_pickle=False) as arrays:
        assert {name: arrays[name].dtype for name in arrays} == dict.fromkeys(
            ["w0", "w", "V"], "f8"
        )


def test_clip_holds_predictions_within_the_training_targets() -> None:
    rows = {"size": [-1e3, 1e3], "colour": ["red", "blue"]}
    kept, clipped = a_model(), a_model(clip=True)
    low, high = clipped.encoder.target_range
    assert (np.abs(kept.predict(rows)) > 10).any()
    assert ((clipped.predict(rows) >= low) & (clipped.predict(rows) <= high)).all()


def test_column_order_and_further_columns_do_not_matter() -> None:
    kept = a_model()
    turned = {"further": [1, 2, 3, 4], "size": ROWS["size"], "colour": ROWS["colour"]}
    assert (kept.predict(turned) == kept.predict(ROWS)).all()


def test_a_missing_column_is_named() -> None:
    with pytest.raises(DataError, match="no column 'colour'"):
        a_model().predict({"size": [1.0]})


def test_a_missing_number_is_refused_where_training_had_none() -> None:
    with pytest.raises(DataError, match=r"'size' must hold finite numbers, got missing values"):
        a_model().predict({"size": [1.0, None], "colour": ["red", "red"]})


def test_pandas_pyarrow_and_dict_give_the_same_predictions() -> None:
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    kept = a_model()
    expected = kept.predict(ROWS)
    assert (kept.predict(pandas.DataFrame(ROWS)) == expected).all()
    assert (kept.predict(pyarrow.table(ROWS)) == expected).all()


@pytest.mark.parametrize("spoil", ["format", "task", "encoder"])
def test_a_folder_that_holds_no_model_is_refused(tmp_path: Path, spoil: str) -> None:
    a_model().save(tmp_path)
    stored = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    del stored[spoil]
    (tmp_path / "model.json").write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(DataError, match="holds no model"):
        model.load(tmp_path)


def test_another_format_says_so(tmp_path: Path) -> None:
    a_model().save(tmp_path)
    text = (tmp_path / "model.json").read_text(encoding="utf-8")
    (tmp_path / "model.json").write_text(
        text.replace('"format": 1', '"format": 9'), encoding="utf-8"
    )
    with pytest.raises(DataError, match="format 9"):
        model.load(tmp_path)
