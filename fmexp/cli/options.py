"""Options that several commands share, and the store that they speak of."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

RUN_NAMES = "run id, its beginning, run name, trial number of the newest sweep, or latest"


def add_run(parser: argparse.ArgumentParser, also: str = "") -> None:
    """The run that the command is about."""
    parser.add_argument("run", help=f"{RUN_NAMES}{also}")


def add_data(parser: argparse.ArgumentParser) -> None:
    """Where the data are, if not where the run found them."""
    parser.add_argument("--data", type=Path, help="the table, if it is not where the run found it")


def add_encoding(parser: argparse.ArgumentParser, otherwise: str) -> None:
    """How delimited text is encoded."""
    parser.add_argument("--encoding", help=f"of text (default: {otherwise})")


def add_joins(parser: argparse.ArgumentParser, what: str) -> None:
    """Second tables, by the column that joins."""
    parser.add_argument(
        "--join", action="append", default=[], metavar="KEY=FILE", type=_join, help=what
    )


def _join(word: str) -> tuple[str, str]:
    key, sign, path = word.partition("=")
    if not (key and sign and path):
        raise argparse.ArgumentTypeError(f"expected KEY=FILE, got {word!r}")
    return key, path


def add_store(parser: argparse.ArgumentParser) -> None:
    """The MLflow store."""
    parser.add_argument("--uri", help="MLflow store (default: as `fmexp run` would choose)")


def store_uri(arguments: argparse.Namespace) -> str:
    """The store's URI; what killed commands left behind here has been sent when this returns."""
    from fmexp.record.locate import locate_store
    from fmexp.record.patience import patience
    from fmexp.record.spool_tracker import drain

    store = locate_store(arguments.uri, None, os.environ)
    drained = drain(Path.cwd(), store.uri, min(10.0, patience()))
    for note in drained.notes:
        print(f"fmexp: {note}", file=sys.stderr)
    for trouble in drained.troubles:
        print(f"fmexp: {trouble}; `fmexp doctor` shows what waits", file=sys.stderr)
    return store.uri
