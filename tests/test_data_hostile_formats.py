"""LIBSVM texts and Parquet files that break other tools: each works, or says what is wrong."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fmexp.errors import DataError
from tests.data_support import load_libsvm, load_parquet

if TYPE_CHECKING:
    from pathlib import Path


LIBSVM_REFUSED = {
    "no target": (b"1:2 3:4\n", "line 1: expected the target, a finite number, got '1:2'"),
    "text": (b"1 1:2\n1 a:2\n", "line 2: expected number:value .*got 'a:2'"),
    "no value": (b"1 1:\n", "line 1: expected number:value .*got '1:'"),
    "negative index": (b"1 -1:3\n", "line 1: expected number:value .*got '-1:3'"),
    "broken index": (b"1 1.5:3\n", "got '1.5:3'"),
    "index too large": (b"1 99999999999:3\n", "got '99999999999:3'"),
    "repeated index": (b"1 2:3 4:5 2:6\n", "line 1: feature 2 stands here twice"),
    "nan": (b"1 1:nan\n", "got '1:nan'"),
    "infinite target": (b"inf 1:2\n", "line 1: expected the target"),
    "1e400": (b"1 1:1e400\n", "got '1:1e400'"),
    "a csv": (b"a,b,y\n1,2,3\n", "line 1: expected the target, a finite number, got 'a,b,y'"),
    "query ids": (b"1 qid:3 1:2\n", "got 'qid:3'"),
    "binary": (b"\x00\x01" * 50, "this file is binary"),
    "empty": (b"", "is empty"),
    "comments only": (b"# nothing\n", "holds no rows"),
}


@pytest.mark.parametrize("case", LIBSVM_REFUSED)
def test_libsvm_text_is_refused_with_the_reason(tmp_path: Path, case: str) -> None:
    content, reason = LIBSVM_REFUSED[case]
    (tmp_path / "t.svm").write_bytes(content)
    with pytest.raises(DataError, match=reason):
        load_libsvm(tmp_path / "t.svm")


@pytest.mark.parametrize(
    ("content", "first"),
    [
        (b"1 1:2 3:4\n2 2:5\n3\n4 9:1\n", 1),
        (b"1 0:2 2:4\n2 1:5\n3 # none\n4 8:1", 0),
        (b"1 3:4 1:2\r\n2 2:5\r\n\r\n3  \r\n4\t9:1e0\r\n", 1),
    ],
)
def test_libsvm_text_is_taken_from_0_and_from_1(tmp_path: Path, content: bytes, first: int) -> None:
    (tmp_path / "t.svm").write_bytes(content)
    data = load_libsvm(tmp_path / "t.svm")
    assert data.encoder.block.first == first
    assert data.train.features.shape == (4, 9)
    rows = [
        data.train.features.indices[i:j].tolist() for i, j in pairwise(data.train.features.indptr)
    ]
    assert rows == [[0, 2], [1], [], [8]]


def test_parquet_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"a,y\n1,2\n")
    with pytest.raises(DataError, match=r"t.parquet: expected a Parquet file"):
        load_parquet(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ([1.0, None, 2.0], "row 2, column 'a': expected a finite number, got a missing value"),
        ([1.0, 2.0, float("inf")], "row 3, column 'a': expected a finite number, got inf"),
        ([[1.5], [2.5]] * 2, "column 'a': expected numbers, texts or lists of texts, got list"),
    ],
)
def test_parquet_cells_that_are_no_numbers_are_refused(
    tmp_path: Path, cells: list[Any], reason: str
) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(
        pa.table({"a": cells, "y": [1.0, 2.0, 3.0, 4.0][: len(cells)]}), tmp_path / "t.parquet"
    )
    with pytest.raises(DataError, match=reason):
        load_parquet(tmp_path / "t.parquet")


def test_parquet_kinds_are_taken_as_csv_would(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table(
        {
            "id": pa.array([7, None, 7], pa.int64()),
            "name": pa.array(["x", "y", None]).dictionary_encode(),
            "flag": [True, False, True],
            "half": pa.array(np.array([0.5, 1.5, 2.5], np.float16)),
            "y": pa.array([1, 2, 3], pa.int8()),
        }
    )
    parquet.write_table(table, tmp_path / "t.parquet")
    data = load_parquet(tmp_path / "t.parquet", categorical=["id", "name"])
    assert data.encoder.feature_names == [
        "flag",
        "half",
        "id=",
        "id=7",
        "name=",
        "name=x",
        "name=y",
    ]
