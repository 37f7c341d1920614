"""`fmexp predict`: predictions for the rows of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fmexp.cli.options import add_encoding, add_joins, add_run, add_store, store_uri

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the rows, and where the predictions go."""
    add_run(parser, ", or a folder")
    parser.add_argument("--data", required=True, help="CSV, Parquet or libsvm text")
    parser.add_argument("--out", type=Path, help="the file to write, Parquet where it is called "
                        ".parquet (default: CSV on standard output)")  # fmt: skip
    parser.add_argument("--with", dest="carry", metavar="COLUMNS", default="",
                        help="columns of the data to write too: id,date or all")  # fmt: skip
    add_joins(parser, "a newer second table than the model keeps (data.joins)")
    add_encoding(parser, "the training table's")
    add_store(parser)


def main(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    from fmexp.analysis.predict import Request, predict_file

    carry = tuple(filter(None, arguments.carry.split(",")))
    request = Request(
        arguments.data, arguments.out, arguments.encoding, carry, dict(arguments.join)
    )
    return predict_file(arguments.run, store_uri(arguments), request)
