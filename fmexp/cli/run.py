"""`fmexp run`: help, flags, and the recorder that is started before anything heavy is loaded."""

from __future__ import annotations

import time
from pathlib import Path

from fmexp import __version__

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

On several machines: +cluster=slurm | ray | hosts; docs/scale.md goes there step by step.

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


def main(argv: list[str]) -> int:
    """One run, a sweep with -m, or what a flag of Hydra's asks for; returns the exit code."""
    if "-h" in argv or "--help" in argv:
        print(RUN_HELP, end="")
        return 0
    if "--version" in argv:
        print(f"fmexp {__version__}")
        return 0
    from fmexp.record.spool_tracker import dismiss_recorder, start_recorder_ahead

    began = time.monotonic()
    if not RECORDS_NOTHING.intersection(argv):
        start_recorder_ahead()
    try:
        from fmexp.cli.jobs import run_many, run_once
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
