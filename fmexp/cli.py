"""The command line: argparse in front, nothing heavy imported before a command is known."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path

from fmexp import __version__
from fmexp.errors import FmexpError

RUN_HELP = """\
usage: fmexp run [flags] [key=value ...]      one tracked run
       fmexp run -m [flags] [key=value ...]   a sweep (see -m below)

Train a Factorization Machine and record it in MLflow. Every key of the configuration can be set:

  fmexp run model.k=4 training.learning_rate=0.05 training.epochs=100
  fmexp run backend=torch_adam                      numpy_sgd (default) | torch_adam
  fmexp run data=csv data.path=table.csv data.target=price
  fmexp run data=planted data.rows=5000             diabetes (default) | planted | gaussian | ...
  fmexp run +experiment=notebook_numpy              a ready-made configuration
  fmexp run tracking=none                           keep nothing

Hydra's flags work:
  --cfg job              show the configuration, run nothing
  --info defaults-tree   how it is put together
  --config-dir DIR       your own configuration files beside fmexp's
  -m, --multirun         a sweep over values

Exit codes: 0 done; 1 the work failed; 2 the input is wrong; 130 interrupted.
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    logging.basicConfig(format="fmexp: %(message)s")
    try:
        if sys.platform == "win32":
            raise FmexpError("fmexp runs on Linux and macOS; on Windows use it within WSL")
        if argv[:1] == ["run"]:
            return _run(argv[1:])
        arguments = _parser().parse_args(argv)
        return int(arguments.command(arguments))
    except FmexpError as error:
        print(_marked(error), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("fmexp: interrupted", file=sys.stderr)
        return 130


def _marked(error: FmexpError) -> str:
    """The message with the program's name before it; several lines become a list."""
    lines = str(error).splitlines()
    if len(lines) == 1:
        return f"fmexp: {lines[0]}"
    return "\n  ".join(["fmexp:", *lines])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fmexp", description="Train Factorization Machines, track and compare every attempt."
    )
    parser.add_argument("--version", action="version", version=f"fmexp {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    commands.add_parser("run", help="one tracked run, or a sweep with -m", add_help=False)
    ui = commands.add_parser("ui", help="MLflow's UI on the store that the runs went to")
    _add_store(ui)
    ui.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    ui.add_argument("--port", type=int, default=5000, help="default: %(default)s")
    ui.set_defaults(command=_ui)
    doctor = commands.add_parser("doctor", help="versions, store, spool: what is wrong, what to do")
    _add_store(doctor)
    doctor.set_defaults(command=_doctor)
    return parser


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--uri", help="MLflow store (default: as `fmexp run` would choose)")


def _run(argv: list[str]) -> int:
    if "-h" in argv or "--help" in argv:
        print(RUN_HELP, end="")
        return 0
    from fmexp import compose
    from fmexp.commands import run_once

    began = time.monotonic()
    arguments = compose.parse_arguments(argv)
    composed = compose.compose(arguments)
    if compose.asks_hydra(arguments):
        compose.show(argv)
        return 0
    return run_once(composed, Path.cwd(), began)


def _ui(arguments: argparse.Namespace) -> int:
    from fmexp.tracking.locate import locate_store
    from fmexp.ui import serve

    store = locate_store(arguments.uri, None, os.environ)
    return serve(store.uri, arguments.host, arguments.port, Path.cwd())


def _doctor(arguments: argparse.Namespace) -> int:
    from fmexp.doctor import doctor

    return doctor(arguments.uri, Path.cwd())
