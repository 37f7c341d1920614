"""`fmexp predict`: predictions for the rows of a file."""

from __future__ import annotations

import argparse
from pathlib import Path

from fmexp.cli.options import add_encoding, add_run, add_store, store_uri


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the rows, and where the predictions go."""
    add_run(parser, ", or a folder")
    parser.add_argument("--data", required=True, help="CSV, Parquet or libsvm text")
    parser.add_argument("--out", type=Path, help="the file to write, Parquet where it is called "
                        ".parquet (default: CSV on standard output)")  # fmt: skip
    parser.add_argument("--with", dest="carry", metavar="COLUMNS", default="",
                        help="columns of the data to write too: id,date or all")  # fmt: skip
    parser.add_argument("--join", action="append", default=[], metavar="KEY=FILE", type=_join,
                        help="a newer second table than the model keeps (data.joins)")  # fmt: skip
    add_encoding(parser, "the training table's")
    add_store(parser)


def _join(word: str) -> tuple[str, str]:
    key, sign, path = word.partition("=")
    if not (key and sign and path):
        raise argparse.ArgumentTypeError(f"expected KEY=FILE, got {word!r}")
    return key, path


def main(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    from fmexp.analysis.predict import Request, predict_file

    carry = tuple(filter(None, arguments.carry.split(",")))
    request = Request(
        arguments.data, arguments.out, arguments.encoding, carry, dict(arguments.join)
    )
    return predict_file(arguments.run, store_uri(arguments), request)
