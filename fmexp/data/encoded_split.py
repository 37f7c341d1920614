"""A raw table split and encoded: in memory, or in files where the table itself is in files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fmexp.data import budget
from fmexp.data.cache import about_of, new_folder, read_about, write_about
from fmexp.data.dataset import Part
from fmexp.data.encode import Encoder
from fmexp.data.features import CHUNK_ROWS, SMALL_CHUNK_ROWS, chunks
from fmexp.data.fields import numbers_of
from fmexp.data.growing import GrowingArray, GrowingFeatures, mapped, read_features
from fmexp.data.learn import learn
from fmexp.data.related import expanded
from fmexp.data.split import TEST, TRAIN, VALIDATION, split_rows
from fmexp.data.table import digest, digest_of_cells
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fmexp.config.schema import SplitConfig
    from fmexp.data.learn import Learning
    from fmexp.data.sources import Source

NAMES = {TRAIN: "train", VALIDATION: "validation", TEST: "test"}


@dataclass(frozen=True)
class EncodedSplit:
    """Encoded rows of each part.

    Attributes:
        encoder: learned from the training rows.
        split_digest: hash of which row is in which part.
        test_digest: hash of the test part's row numbers and targets; "" without such a part.
        rows: by part; parts without rows are left out.
    """

    encoder: Encoder
    split_digest: str
    test_digest: str
    rows: dict[int, Part]


def split_and_encode(
    source: Source, split: SplitConfig, learning: Learning, shared: bool = False
) -> EncodedSplit:
    """Split the rows, learn the encoding from the training part and apply it to all.

    A table of more than CHUNK_ROWS rows that is mapped from files is encoded into files beside
    them, once for each split and way of learning. Runs of features that rows share are kept once,
    or written out for every row.

    Raises:
        DataError: there are too few rows, or the training rows cannot be learned from.
    """
    if source.cache is None or len(source.table) <= CHUNK_ROWS:
        part_of_row = np.zeros(len(source.table), np.uint8)
        return _make(source, split, learning, shared, part_of_row)
    schema = source.schema
    asked: list[Any] = [asdict(split), asdict(learning), schema.target, schema.numeric]
    asked += [schema.categorical, dict(schema.lists), shared]
    asked += [source.columns_digest()] if schema.joins else []
    asked += [{"weight": schema.weight}] if schema.weight else []
    key = digest([json.dumps(asked, sort_keys=True).encode()])[:16]
    folder = source.cache.folder / f"encoded-{key}"
    if read_about(folder) is None:
        with new_folder(folder) as made:
            _make_in_files(source, split, learning, shared, made)
    return _read(folder)


def _encoded_bytes(source: Source, encoder: Encoder, shared: bool) -> float:
    """About how much room the encoded rows take."""
    n_rows = len(source.table)
    if not encoder.sparse:
        return 8.0 * n_rows * encoder.n_features
    if source.table.block is not None:
        return 12.0 * len(source.table.block.indices) + 8 * n_rows
    has_values = encoder.numeric or any(field.separator for field in encoder.categorical)
    keys = len(encoder.shared_runs) if shared else 0
    n_entries = encoder.n_entries(source.table, shared)
    return n_rows * (8.0 + 4 * keys) + n_entries * (12 if has_values else 4)


def _make(
    source: Source,
    split: SplitConfig,
    learning: Learning,
    shared: bool,
    part_of_row: np.ndarray,
    folder: Path | None = None,
) -> EncodedSplit:
    """Split, learn, encode; into files of a folder, or into memory."""
    parts = split_rows(source.table, split, part_of_row)
    encoder = learn(
        lambda: map(source.table.take, parts.chunks(TRAIN)),
        source.schema,
        learning,
        source.first,
    )
    instead = "use fewer"
    if encoder.joins and not shared:
        instead += ", or backend=gibbs, which keeps once what rows share"
    budget.claim(_encoded_bytes(source, encoder, shared), "the encoded rows", instead, folder)
    encoded = {
        part: _encode(source, encoder, parts.chunks(part), folder, name, shared)
        for part, name in NAMES.items()
    }
    found = {part: rows for part, rows in encoded.items() if rows is not None}
    tested = ""
    if TEST in found:
        tested = digest_of_cells(source.table.columns[source.schema.target], parts.chunks(TEST))
    return EncodedSplit(encoder, parts.digest(), tested, found)


def _encode(
    source: Source,
    encoder: Encoder,
    row_chunks: Iterator[np.ndarray],
    folder: Path | None,
    name: str,
    shared: bool,
) -> Part | None:
    """The rows of a part, chunk by chunk; None where it has none."""
    growing = GrowingFeatures(folder, name)
    target = GrowingArray(np.float64, folder and folder / f"{name}-target.bin")
    numbers = GrowingArray(np.int64, folder and folder / f"{name}-rows.bin")
    weights = None
    if column := source.schema.weight:
        weights = GrowingArray(np.float64, folder and folder / f"{name}-weights.bin")
    unjoined = replace(source.table, references={})  # the encoder knows what is joined
    is_compact = not encoder.joins or (shared and encoder.shared_runs)
    size = CHUNK_ROWS if is_compact else SMALL_CHUNK_ROWS
    for rows in (some[piece] for some in row_chunks for piece in chunks(len(some), size)):
        chunk = unjoined.take(rows)
        made = encoder.feature_rows(chunk)
        growing.append(made if shared else expanded(made))
        target.append(encoder.target(chunk))
        numbers.append(rows)
        if weights is not None and column:
            weights.append(numbers_of(column, chunk.columns[column]))
    features = growing.finish()
    if features is None:
        return None
    given = None if weights is None else weights.finish()
    if given is not None:
        _check_sum(
            given, f"{source.description}: all weights (column {column!r}) of the {name} part"
        )
    return Part(features, target.finish(), numbers.finish(), encoder.groups, given)


def _check_sum(weights: np.ndarray, what: str) -> None:
    with np.errstate(over="ignore"):
        total = float(weights.sum())
    if total == 0:
        raise DataError(f"{what} are zero, so none of its rows counts")
    if total == np.inf:
        raise DataError(f"{what} add up to more than a floating-point number holds: divide them")


def _make_in_files(
    source: Source, split: SplitConfig, learning: Learning, shared: bool, made: Path
) -> None:
    part_of_row = np.memmap(made / "parts.bin", np.uint8, mode="w+", shape=len(source.table))
    parts = _make(source, split, learning, shared, part_of_row, made)
    part_of_row.flush()
    names = [NAMES[part] for part in parts.rows]
    encoder = parts.encoder.to_json()
    digests = {"split_digest": parts.split_digest, "test_digest": parts.test_digest}
    write_about(made, {"encoder": encoder, "parts": names, "shared": shared} | digests)


def _read(folder: Path) -> EncodedSplit:
    about = about_of(folder)
    encoder = Encoder.from_json(about["encoder"])
    found = {
        part: _read_part(folder, name, encoder, about["shared"])
        for part, name in NAMES.items()
        if name in about["parts"]
    }
    return EncodedSplit(encoder, about["split_digest"], about["test_digest"], found)


def _read_part(folder: Path, name: str, encoder: Encoder, shared: bool) -> Part:
    runs = [(run.first, run.rows) for run in encoder.shared_runs] if shared else []
    features = read_features(folder, name, encoder.n_features, runs)
    assert features is not None
    target = mapped(folder / f"{name}-target.bin", np.float64)
    rows = mapped(folder / f"{name}-rows.bin", np.int64)
    weights = folder / f"{name}-weights.bin"
    given = mapped(weights, np.float64) if weights.exists() else None
    return Part(features, target, rows, encoder.groups, given)
