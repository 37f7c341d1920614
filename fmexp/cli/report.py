"""`fmexp report`: one self-contained HTML page of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fmexp.cli.options import add_store, store_uri

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sweep, and where the page goes."""
    parser.add_argument("sweep", help="name, run id, its beginning, or latest")
    parser.add_argument("--out", type=Path, help="the page to write (default: report-NAME.html)")
    add_store(parser)


def main(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    from fmexp.analysis.report.command import report

    return report(arguments.sweep, store_uri(arguments), Path.cwd(), arguments.out)
