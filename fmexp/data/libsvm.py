"""Reading libsvm and libFM text: lines of `target number:value number:value ...`."""

from __future__ import annotations

import io
import re
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from fmexp.data import budget, files
from fmexp.data.arrow import arrow_values, in_data_errors
from fmexp.data.features import CSR
from fmexp.data.table import Table
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TARGET = "target"
"""The name that the target gets."""

CHUNK_BYTES = 1 << 22
MOST_MISTAKES = 10
FEATURE_BYTES = 200
"""What a feature takes at least: its name, statistics, and a weight with a few factors."""

LARGEST = 2**31 - 2
"""Largest number of a feature."""

_TO_LINES = bytes.maketrans(b" \t:\r", b"\n\n\n\n")
_NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_ENTRY = re.compile(rf"([0-9]+):({_NUMBER})")


def batches(file: Path) -> Iterator[Table]:
    """The rows, some at a time; the numbers of the features are as in the file.

    Raises:
        DataError: up to ten mistakes, each with its line.
    """
    files.head_of_text(file)
    rest, first_line = b"", 1
    for chunk in files.chunks(file, CHUNK_BYTES):
        whole, newline, rest = (rest + chunk).rpartition(b"\n")
        if newline:
            yield from _parse(file, whole, first_line)
            first_line += whole.count(b"\n") + 1
    yield from _parse(file, rest, first_line)


def training_batches(file: Path) -> Iterator[Table]:
    """As `batches`, of rows to train on: every feature up to the largest number gets parameters.

    Raises:
        DataError: also when there is not the memory for so many.
    """
    claimed = 0
    for table in batches(file):
        assert table.block is not None
        n_features = table.block.n_features
        if n_features > 2 * claimed:
            claimed = n_features
            if n_features * FEATURE_BYTES > budget.STATED:
                where = f"{file}, line {_line_with(file, n_features - 1)}"
                budget.claim(
                    n_features * FEATURE_BYTES,
                    f"{where}: a feature numbered {n_features - 1:,}: all features up to it",
                    "number the features without large gaps",
                )
        yield table


def _line_with(file: Path, feature: int) -> int:
    """The first line that has this feature."""
    number = 1
    for chunk in files.chunks(file, CHUNK_BYTES):
        at = re.search(rb"[ \t]0*%d:" % feature, chunk)
        if at:
            return number + chunk.count(b"\n", 0, at.start())
        number += chunk.count(b"\n")
    return number


def rows_of_texts(texts: list[str]) -> CSR:
    """Feature rows from texts `number:value number:value ...` without a target."""
    from pathlib import Path

    text = "\n".join(f"0 {text}" for text in texts).encode()
    tables = list(_parse(Path("the rows"), text, 1))
    block = tables[0].block if tables else None
    return block or CSR(np.zeros(1, np.int64), np.zeros(0, np.int32), None, 0)


def _parse(file: Path, text: bytes, first_line: int) -> Iterator[Table]:
    """One table of the rows of a text, none if there are no rows."""
    if b"#" in text:
        text = re.sub(rb"#[^\n]*", b"", text)
    lines = [line for line in text.split(b"\n") if line.strip()]
    if not lines:
        return
    counts = np.fromiter((line.count(b":") for line in lines), np.int64, len(lines))
    cells = np.fromiter((len(line.split()) for line in lines), np.int64, len(lines))
    numbers = _numbers(text)
    starts = np.concatenate([[0], np.cumsum(1 + 2 * counts)])
    if numbers is None or (cells != counts + 1).any() or len(numbers) != starts[-1]:
        raise _explain(file, text, first_line)
    is_target = np.zeros(len(numbers), bool)
    is_target[starts[:-1]] = True
    pairs = numbers[~is_target].reshape(-1, 2)
    features, values = pairs[:, 0], np.ascontiguousarray(pairs[:, 1])
    whole = (features >= 0) & (features <= LARGEST) & (features == np.floor(features))
    if not whole.all() or not np.isfinite(numbers).all():
        raise _explain(file, text, first_line)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    rows = np.repeat(np.arange(len(lines)), counts)
    indices = features.astype(np.int32)
    if (np.diff(rows * (LARGEST + 1) + indices) <= 0).any():
        order = np.lexsort((indices, rows))
        indices, values = indices[order], values[order]
        if (np.diff(rows * (LARGEST + 1) + indices) == 0).any():
            raise _explain(file, text, first_line)
    n_features = int(indices.max(initial=-1)) + 1
    block = CSR(indptr, indices, None if (values == 1).all() else values, n_features)
    yield Table({TARGET: numbers[is_target]}, block)


def _numbers(text: bytes) -> np.ndarray | None:
    """All numbers of a text, None where something is no number."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    try:
        with in_data_errors("expected numbers"):
            table = arrow_csv.read_csv(
                io.BytesIO(text.translate(_TO_LINES)),
                read_options=arrow_csv.ReadOptions(column_names=["x"]),
                parse_options=arrow_csv.ParseOptions(quote_char=False),
                convert_options=arrow_csv.ConvertOptions(
                    column_types={"x": pa.float64()}, null_values=[]
                ),
            )
    except DataError:
        return None
    return np.concatenate([arrow_values(chunk) for chunk in table["x"].chunks])


def _explain(file: Path, text: bytes, first_line: int) -> DataError:
    """What is wrong with the first lines that are."""
    lines = enumerate(text.decode("utf-8", "replace").split("\n"), first_line)
    mistakes = (f"line {number}: {what}" for number, line in lines if (what := _mistake(line)))
    return DataError("\n".join([f"{file} cannot be used:", *islice(mistakes, MOST_MISTAKES)]))


def _mistake(line: str) -> str:
    """What is wrong with one line, "" if nothing is."""
    if not line.strip():
        return ""
    target, *entries = line.split()
    if not re.fullmatch(_NUMBER, target) or not np.isfinite(float(target)):
        return f"expected the target, a finite number, got {target[:40]!r}"
    seen = set()
    for entry in entries:
        found = _ENTRY.fullmatch(entry)
        if not found or int(found[1]) > LARGEST or not np.isfinite(float(found[2])):
            return f"expected number:value (from 0 to {LARGEST:,}, finite), got {entry[:40]!r}"
        if int(found[1]) in seen:
            return f"feature {found[1]} stands here twice"
        seen.add(int(found[1]))
    return ""
