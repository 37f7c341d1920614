"""`fmexp reproduce`: train again from the record, and compare with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fmexp.cli.options import add_data, add_run, add_store, store_uri

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, and where its data are."""
    add_run(parser)
    add_data(parser)
    add_store(parser)


def main(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    from fmexp.analysis.reproduce import reproduce

    return reproduce(arguments.run, store_uri(arguments), Path.cwd(), arguments.data)
