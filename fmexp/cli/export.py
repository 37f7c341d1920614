"""`fmexp export`: a run's model for `mlflow models serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fmexp.cli.options import add_run, add_store, store_uri

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, and a name in the registry."""
    add_run(parser)
    parser.add_argument("--register", metavar="NAME", help="put it into MLflow's model registry")
    add_store(parser)


def main(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    from fmexp.analysis.export import export

    return export(arguments.run, store_uri(arguments), arguments.register)
