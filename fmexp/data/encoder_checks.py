"""Whether an encoder that was read from a file is one: its types, and its numbers."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from fmexp.data.cells import THOUSANDS
from fmexp.data.dates import PARTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fmexp.data.encode import Encoder


def check(encoder: Encoder) -> None:
    """Refuse an encoder that `Encoder.to_json` cannot have written.

    Raises:
        ValueError: what is wrong.
    """
    _texts("target_name and labels", [encoder.target_name, *(encoder.labels or ())])
    _numbers("target_offset and target_range", [encoder.target_offset, *encoder.target_range])
    _scales("target_scale", [encoder.target_scale])
    if encoder.labels is not None and len(encoder.labels) != 2:
        raise ValueError("labels must be two")
    for column in encoder.numeric:
        _texts("the name of a column", [column.name])
        _numbers(f"offset and fill of {column.name}", [column.offset, column.fill or 0.0])
        _scales(f"scale of {column.name}", [column.scale])
    for field in encoder.categorical:
        _texts("a column and its categories", [field.name, *field.categories])
        if field.part not in (None, *PARTS) or field.weight not in (None, "sqrt", "mean", "one"):
            raise ValueError(f"part and weight of {field.name} must be known ones")
        if field.separator is not None and not (field.separator and field.weight):
            raise ValueError(f"{field.name} must have a separator that is not empty, and a weight")
        if field.without is not None and not isinstance(field.without, str):
            raise ValueError(f"without of {field.name} must be a column")
    text = encoder.text
    _texts("what text says of cells", [text.encoding, text.decimal, *text.missing])
    if text.decimal not in (".", ",") or text.thousands not in THOUSANDS or not text.encoding:
        raise ValueError(f"text must have a decimal sign and a separator that are known: {text}")
    for join in encoder.joins:
        _texts("a joined table's key and keys", [join.key, *join.keys])
        for name, cells in join.columns.items():
            if len(cells) != len(join.keys):
                raise ValueError(f"the joined column {name} must have a cell for each key")
            numbers = [cell for cell in cells if not isinstance(cell, str | None)]
            _numbers(f"the joined column {name}", numbers)
            if numbers and any(isinstance(cell, str) for cell in cells):
                raise ValueError(f"the joined column {name} must hold numbers or texts")
    block = encoder.block
    if block is not None:
        if not 0 <= block.n_features < 2**31 or block.first not in (0, 1):
            raise ValueError("block must have n_features from 0 and first 0 or 1")
        _scales("scales of the block", block.scales or ())
        if block.scales is not None and len(block.scales) != block.n_features:
            raise ValueError("block must have a scale for each feature")


def _texts(what: str, values: Iterable[Any]) -> None:
    for value in values:
        if not isinstance(value, str):
            raise ValueError(f"{what} must be text, got {value!r}")


def _numbers(what: str, values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise ValueError(f"{what} must be finite numbers, got {value!r}")


def _scales(what: str, values: Iterable[Any]) -> None:
    values = list(values)
    _numbers(what, values)
    if not all(values):
        raise ValueError(f"{what} must not be 0")
