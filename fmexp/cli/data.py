"""`fmexp data FILE`: what would be made of a table, and the run to start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fmexp.cli.options import add_encoding, add_joins

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file and what is known of it."""
    parser.add_argument("file", help="a file, a folder of files, or a glob")
    parser.add_argument("--target", help="the column to predict (default: by its name)")
    parser.add_argument("--weight", help="the column of the rows' weights, if there is one")
    parser.add_argument("--delimiter", help="of text (default: found out)")
    add_encoding(parser, "found out")
    add_joins(parser, "a second table, by a column that both have (data.joins)")


def main(arguments: argparse.Namespace) -> int:
    """Print the report; returns the exit code."""
    from fmexp.analysis.preview import Options, inspect

    options = Options(
        arguments.target,
        arguments.delimiter,
        arguments.encoding,
        arguments.weight,
        dict(arguments.join),
    )
    print(inspect(arguments.file, options))
    return 0
