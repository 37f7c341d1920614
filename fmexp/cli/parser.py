"""The command line: argparse in front, nothing heavy imported before a command is known."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
import time
from pathlib import Path

from fmexp import __version__
from fmexp.errors import FmexpError, UserError
from fmexp.record.plain_output import plain_output
from fmexp.record.safe_files import check_work_folder

RUN_HELP = """\
usage: fmexp run [flags] [key=value ...]      one tracked run
       fmexp run -m [flags] [key=value ...]   a sweep

Train a Factorization Machine and record it in MLflow. Every key of the configuration can be set:

  fmexp run model.k=4 training.learning_rate=0.01 training.epochs=100
  fmexp run backend=torch_adam                      numpy_sgd (default) | torch_adam
  fmexp run data=csv data.path=table.csv data.target=price
  fmexp run data=planted data.rows=5000             diabetes (default) | planted | gaussian | ...
  fmexp run +experiment=notebook_numpy              a ready-made configuration
  fmexp run tracking=none                           keep nothing

A sweep searches model.k and training.learning_rate, or the keys that you give several values, with
Optuna. The same command again goes on where it stopped:

  fmexp run -m hydra.sweeper.n_trials=50 hydra.sweeper.n_jobs=2
  fmexp run -m model.k=2,4,8
  fmexp run -m 'model.k=choice(2,4,8)' 'training.learning_rate=tag(log,interval(0.001,0.1))'
  fmexp run -m hydra/sweeper/sampler=random hydra/sweeper/pruner=median

Hydra's flags work:
  --cfg job              show the configuration, run nothing
  --info defaults-tree   how it is put together
  --config-dir DIR       your own configuration files beside fmexp's
  --config-name NAME     one of them in place of fmexp's config.yaml
  --shell-completion install=bash | zsh | fish
                         what completes keys and values: eval "$(fmexp run -sc install=bash)"
  -m, --multirun         a sweep

Exit codes: 0 done; 1 the work failed; 2 the input is wrong; 130 interrupted.
"""

RECORDS_NOTHING = {"tracking=none", "--cfg", "-c", "--info", "-i", "--hydra-help"}
RUN_NAMES = "run id, its beginning, run name, trial number of the newest sweep, or latest"


def entry() -> int:
    """`main` as a process, which leaves without looking once more for garbage in all it loaded."""
    code = main()
    gc.freeze()
    return code


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    with plain_output():
        return _guarded(sys.argv[1:] if argv is None else argv)


def _guarded(argv: list[str]) -> int:
    """A command with its errors in words."""
    gc.set_threshold(100_000)  # what a start makes stays: no looking for garbage in it
    warnings = logging.StreamHandler()
    warnings.setFormatter(logging.Formatter("fmexp: %(message)s"))
    logging.getLogger("fmexp").addHandler(warnings)
    try:
        return _dispatch(argv)
    except FmexpError as error:
        print(_marked(error), file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # fmexp compare ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("fmexp: interrupted", file=sys.stderr)
        return 130
    finally:
        logging.getLogger("fmexp").removeHandler(warnings)


def _dispatch(argv: list[str]) -> int:
    if sys.platform == "win32":
        raise UserError("fmexp runs on Linux and macOS; on Windows use it within WSL")
    parser, commands = _parser()
    if {"-sc", "--shell-completion"}.intersection(argv):
        from fmexp.cli.completion import complete

        return complete([word for word in argv if "=" in word], commands)
    if argv[:1] == ["run"]:
        return _run(argv[1:])
    arguments = parser.parse_args(argv or ["--help"])
    check_work_folder(Path.cwd())
    return int(arguments.command(arguments))


def _marked(error: FmexpError) -> str:
    """The message with the program's name before it; several lines become a list."""
    lines = str(error).splitlines()
    if len(lines) == 1:
        return f"fmexp: {lines[0]}"
    return "\n  ".join(["fmexp:", *lines])


def _parser() -> tuple[argparse.ArgumentParser, list[str]]:
    """The parser of all commands but run, and the names of all."""
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
    data = commands.add_parser("data", help="what would be made of a table, and the run to start")
    data.add_argument("file", help="a file, a folder of files, or a glob")
    data.add_argument("--target", help="the column to predict (default: by its name)")
    data.add_argument("--delimiter", help="of text (default: found out)")
    data.add_argument("--encoding", default="utf-8", help="of text (default: %(default)s)")
    data.add_argument("--missing", choices=["error", "mean"], default="error",
                      help="what becomes of missing numbers (default: %(default)s)")  # fmt: skip
    data.set_defaults(command=_data)
    predict = commands.add_parser("predict", help="predictions for the rows of a file")
    predict.add_argument("run", help=f"{RUN_NAMES}, or a folder")
    predict.add_argument("--data", required=True, help="CSV, Parquet or libsvm text")
    predict.add_argument("--out", type=Path, help="the CSV to write (default: standard output)")
    predict.add_argument("--encoding", default="utf-8", help="of text (default: %(default)s)")
    _add_store(predict)
    predict.set_defaults(command=_predict)
    compare = commands.add_parser("compare", help="what differs, and is A really better than B")
    compare.add_argument("runs", nargs="*", metavar="RUN", help=RUN_NAMES)
    compare.add_argument("--sweep", help="compare the best trials of this sweep")
    compare.add_argument("--best", type=int, metavar="N", help="how many of the best")
    compare.add_argument("--json", action="store_true", help="print JSON")
    _add_data(compare)
    compare.set_defaults(command=_compare)
    report = commands.add_parser("report", help="one self-contained HTML page of a sweep")
    report.add_argument("sweep", help="run name, run id, its beginning, or latest")
    report.add_argument("--out", type=Path, help="the page to write (default: report-NAME.html)")
    _add_store(report)
    report.set_defaults(command=_report)
    reproduce = commands.add_parser("reproduce", help="train again from the record, and compare")
    reproduce.add_argument("run", help=RUN_NAMES)
    _add_data(reproduce)
    reproduce.set_defaults(command=_reproduce)
    refit = commands.add_parser("refit", help="train a run's configuration again on all rows")
    refit.add_argument("run", help=RUN_NAMES)
    _add_data(refit)
    refit.set_defaults(command=_refit)
    score = commands.add_parser("score", help="score the untouched test part, once")
    score.add_argument("run", help=RUN_NAMES)
    _add_data(score)
    score.set_defaults(command=_score)
    export = commands.add_parser("export", help="a run's model for `mlflow models serve`")
    export.add_argument("run", help=RUN_NAMES)
    export.add_argument("--register", metavar="NAME", help="put it into MLflow's model registry")
    _add_store(export)
    export.set_defaults(command=_export)
    return parser, list(commands.choices)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="the table, if it is not where the run found it")
    _add_store(parser)


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--uri", help="MLflow store (default: as `fmexp run` would choose)")


def _store(arguments: argparse.Namespace) -> str:
    """The store's URI; what killed commands left behind here has been sent when this returns."""
    from fmexp.record.locate import locate_store
    from fmexp.record.spool_tracker import drain

    store = locate_store(arguments.uri, None, os.environ)
    drained = drain(Path.cwd(), store.uri, patience_seconds=10)
    for note in drained.notes:
        print(f"fmexp: {note}", file=sys.stderr)
    for trouble in drained.troubles:
        print(f"fmexp: {trouble}; `fmexp doctor` shows what waits", file=sys.stderr)
    return store.uri


def _run(argv: list[str]) -> int:
    if "-h" in argv or "--help" in argv:
        print(RUN_HELP, end="")
        return 0
    if "--version" in argv:
        print(f"fmexp {__version__}")
        return 0
    check_work_folder(Path.cwd())
    from fmexp.record.spool_tracker import dismiss_recorder, start_recorder_ahead

    began = time.monotonic()
    if not RECORDS_NOTHING.intersection(argv):
        start_recorder_ahead()
    try:
        from fmexp.cli.commands import run_many, run_once
        from fmexp.config import compose

        arguments = compose.parse_arguments(argv)
        if arguments.cfg or arguments.info or arguments.hydra_help:
            text = compose.as_yaml(arguments)
            if arguments.cfg == "job":
                print(text, end="")
            else:
                compose.refuse_foreign_code(arguments)
                compose.ask_hydra(argv)
            return 0
        composed = compose.compose(arguments)
        if composed.config.tracking.name == "none":
            dismiss_recorder()
        if arguments.multirun:
            return run_many(composed, arguments, Path.cwd())
        return run_once(composed, Path.cwd(), began)
    finally:
        dismiss_recorder()


def _ui(arguments: argparse.Namespace) -> int:
    from fmexp.cli.ui import serve

    return serve(_store(arguments), arguments.host, arguments.port, Path.cwd())


def _doctor(arguments: argparse.Namespace) -> int:
    from fmexp.cli.doctor import doctor

    return doctor(arguments.uri, Path.cwd())


def _data(arguments: argparse.Namespace) -> int:
    from fmexp.cli.data import Options, main

    options = Options(arguments.target, arguments.delimiter, arguments.encoding, arguments.missing)
    return main(arguments.file, options)


def _predict(arguments: argparse.Namespace) -> int:
    from fmexp.analysis.predict import predict_file

    return predict_file(
        arguments.run, arguments.data, arguments.out, _store(arguments), arguments.encoding
    )


def _compare(arguments: argparse.Namespace) -> int:
    from fmexp.analysis.compare.command import compare

    return compare(
        arguments.runs, arguments.sweep, arguments.best, _store(arguments), Path.cwd(),
        arguments.data, arguments.json,
    )  # fmt: skip


def _reproduce(arguments: argparse.Namespace) -> int:
    from fmexp.analysis.reproduce import reproduce

    return reproduce(arguments.run, _store(arguments), Path.cwd(), arguments.data)


def _refit(arguments: argparse.Namespace) -> int:
    from fmexp.cli.refit import refit

    return refit(arguments.run, _store(arguments), Path.cwd(), arguments.data)


def _score(arguments: argparse.Namespace) -> int:
    from fmexp.analysis.score import score

    return score(arguments.run, _store(arguments), Path.cwd(), arguments.data)


def _export(arguments: argparse.Namespace) -> int:
    from fmexp.analysis.export import export

    return export(arguments.run, _store(arguments), arguments.register)


def _report(arguments: argparse.Namespace) -> int:
    from fmexp.analysis.report.command import report
    from fmexp.record.locate import locate_store

    store = locate_store(arguments.uri, None, os.environ)
    return report(arguments.sweep, store.uri, Path.cwd(), arguments.out)
