"""`fmexp predict`: predictions for the rows of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fmexp.cli.options import add_encoding, add_run, add_store, store_uri

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the rows, and where the predictions go."""
    add_run(parser, ", or a folder")
    parser.add_argument("--data", required=True, help="CSV, Parquet or libsvm text")
    parser.add_argument("--out", type=Path, help="the CSV to write (default: standard output)")
    add_encoding(parser, "the training table's")
    add_store(parser)


def main(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    from fmexp.analysis.predict import predict_file

    uri = store_uri(arguments)
    return predict_file(arguments.run, arguments.data, arguments.out, uri, arguments.encoding)
