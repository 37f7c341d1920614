"""The command line: argparse in front, nothing heavy imported before a command is known."""

from __future__ import annotations

import argparse
import errno
import gc
import logging
import os
import resource
import sys
from functools import partial
from importlib import import_module
from pathlib import Path

from fmexp import __version__
from fmexp.errors import FmexpError, UserError
from fmexp.record.patience import begin
from fmexp.record.plain_output import plain_output
from fmexp.record.safe_files import check_work_folder
from fmexp.sweep import interrupt

COMMANDS = {
    "run": "one tracked run, or a sweep with -m",
    "ui": "MLflow's UI on the store that the runs went to",
    "doctor": "versions, store, spool: what is wrong, what to do",
    "data": "what would be made of a table, and the run to start",
    "predict": "predictions for the rows of a file",
    "compare": "what differs, and is A really better than B",
    "report": "one self-contained HTML page of a sweep",
    "reproduce": "train again from the record, and compare",
    "refit": "train a run's configuration again on all rows",
    "score": "score the untouched test part, once",
    "export": "a run's model for `mlflow models serve`",
}
"""Each is a module of this package with `add_arguments(parser)` and `main(arguments)`."""

_OUTPUT_LOST = {errno.ENOSPC, errno.EIO, errno.EBADF, errno.EDQUOT}
LEAST_ADDRESS_SPACE = 1 << 30
"""Bytes; a small sweep maps 0.85 GB."""


def entry() -> int:
    """`main` as a process, which leaves without looking once more for garbage in all it loaded."""
    interrupt.end_on_sigterm()
    code = main()
    gc.freeze()
    return code


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    with plain_output():
        return _guarded(sys.argv[1:] if argv is None else argv)


def _guarded(argv: list[str]) -> int:
    """A command with its errors in words."""
    begin()
    gc.set_threshold(100_000)  # what a start makes stays: no looking for garbage in it
    warnings = logging.StreamHandler()
    warnings.setFormatter(logging.Formatter("fmexp: %(message)s"))
    logging.getLogger("fmexp").addHandler(warnings)
    try:
        _refuse_undecodable(argv)
        try:
            return _dispatch(argv)
        finally:
            sys.stdout.flush()
    except FmexpError as error:
        print(_marked(error), file=sys.stderr)
        return error.exit_code
    except MemoryError:
        print("fmexp: there is not enough memory for this; use fewer rows or features, a smaller "
              "model.k, or a larger limit (ulimit -v)", file=sys.stderr)  # fmt: skip
        return 1
    except BrokenPipeError:  # fmexp compare ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is not None or error.errno not in _OUTPUT_LOST:
            raise
        print(f"fmexp: the output cannot be written: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except KeyboardInterrupt:
        print("fmexp: interrupted", file=sys.stderr)
        return 130
    finally:
        logging.getLogger("fmexp").removeHandler(warnings)


def _refuse_undecodable(argv: list[str]) -> None:
    """Refuse bytes that are no text: Python hands them on as characters that nothing can write.

    Raises:
        UserError: there are some.
    """
    for word in argv:
        if not word.isascii() and any("\ud800" <= c <= "\udfff" for c in word):
            raise UserError(
                f"{word!a} is not text in the encoding of this system "
                f"({sys.getfilesystemencoding()}); rename the file, or set LC_ALL=C.UTF-8"
            )


def _dispatch(argv: list[str]) -> int:
    """Import the command's module and run it; `run` reads its own words, as Hydra does."""
    if sys.platform == "win32":
        raise UserError("fmexp runs on Linux and macOS; on Windows use it within WSL")
    if {"-sc", "--shell-completion"}.intersection(argv):
        from fmexp.cli.completion import complete

        return complete([word for word in argv if "=" in word], list(COMMANDS))
    if argv[:1] == ["run"]:
        from fmexp.cli import run

        if not {"-h", "--help", "--version"}.intersection(argv):
            _check_surroundings()
        return run.main(argv[1:])
    arguments = _parser(argv).parse_args(argv or ["--help"])
    _check_surroundings()
    return int(arguments.main(arguments))


def _parser(argv: list[str]) -> argparse.ArgumentParser:
    """The parser of all commands, with the arguments of the one that is asked for."""
    parser = argparse.ArgumentParser(
        prog="fmexp", description="Train Factorization Machines, track and compare every attempt."
    )
    parser.add_argument("--version", action="version", version=f"fmexp {__version__}")
    parser.formatter_class = partial(argparse.HelpFormatter, max_help_position=28)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, what in COMMANDS.items():
        its_parser = commands.add_parser(name, help=what)
        if argv[:1] == [name]:
            command = import_module(f"fmexp.cli.{name}")
            command.add_arguments(its_parser)
            its_parser.set_defaults(main=command.main)
    return parser


def _check_surroundings() -> None:
    """Refuse what no command can work in, before it is begun.

    Raises:
        UserError: of the folder, see `check_work_folder`; or `ulimit -v` leaves so little that
            OpenBLAS would try for ever to get its buffers.
    """
    check_work_folder(Path.cwd())
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESS_SPACE:
        raise UserError(
            f"fmexp needs {LEAST_ADDRESS_SPACE >> 20} MiB of memory addresses, and the limit is "
            f"{limit >> 20} MiB: raise it (ulimit -v {LEAST_ADDRESS_SPACE >> 10})"
        )


def _marked(error: FmexpError) -> str:
    """The message with the program's name before it; several lines become a list."""
    lines = str(error).splitlines()
    if len(lines) == 1:
        return f"fmexp: {lines[0]}"
    return "\n  ".join(["fmexp:", *lines])
