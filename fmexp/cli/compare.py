"""`fmexp compare`: what differs between runs, and is one really better."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fmexp.cli.options import RUN_NAMES, add_data, add_store, store_uri

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The runs, by name, by sweep, or the best."""
    parser.add_argument("runs", nargs="*", metavar="RUN", help=RUN_NAMES)
    parser.add_argument("--sweep", help="compare the best trials of this sweep")
    parser.add_argument("--best", type=int, metavar="N", help="how many of the best")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_data(parser)
    add_store(parser)


def main(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    from fmexp.analysis.compare.command import compare

    return compare(
        arguments.runs, arguments.sweep, arguments.best, store_uri(arguments), Path.cwd(),
        arguments.data, arguments.json,
    )  # fmt: skip
