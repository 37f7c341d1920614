"""A Hydra application of another's: hydra/sweeper=fmexp beside Hydra's own Optuna sweeper.

    .venv/bin/python benchmarks/sweep_application.py [--official PYTHON]

PYTHON is the interpreter of an environment with `pip install hydra-optuna-sweeper mlflow
'hydra-core<1.4'`: the two cannot be installed together, as that sweeper needs an older Optuna. The
function waits, and logs ten points of a curve: with fmexp by `trial.log`, there by
`mlflow.log_metric` into the run that a callback of the usual kind opens for each job. Sampler
random, n_jobs=1, an empty folder for each command, in turns, the shortest of three (of the 2 s
trials: one).

Of fmexp alone: what a further trial costs over a plain Optuna loop on the same kind of storage and
Hydra's own job runner; when the first trial begins; what a second worker gives.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from machine import describe_machine

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 3
FEW, MORE = 50, 150

APPLICATION = """
import os, sys, time
import hydra
from hydra.core.config_store import ConfigStore
from hydra.experimental.callback import Callback

ConfigStore.instance().store(name="config", node={"x": 0.5, "seconds": 0.01})

CPU = []

class MlflowCallback(Callback):
    def on_multirun_start(self, config, **kwargs):
        import mlflow
        mlflow.set_tracking_uri("sqlite:///" + os.path.abspath("mlflow.db"))
        mlflow.set_experiment("application")
        mlflow.start_run(run_name="sweep")

    def on_job_start(self, config, **kwargs):
        import mlflow
        mlflow.start_run(nested=True)
        mlflow.log_params({"x": config.x, "seconds": config.seconds})

    def on_job_end(self, config, job_return, **kwargs):
        import mlflow
        mlflow.log_metric("objective", job_return.return_value)
        mlflow.end_run()

    def on_multirun_end(self, config, **kwargs):
        import mlflow
        mlflow.end_run()

def logger():
    if "mlflow" in sys.modules:
        import mlflow
        return lambda step, loss: mlflow.log_metric("loss", loss, step=step)
    import fmexp
    trial = fmexp.current_trial()
    return lambda step, loss: trial.log(step, {"loss": loss})

@hydra.main(config_path=None, config_name="config", version_base="1.3")
def train(cfg):
    if not os.path.exists("began"):
        open("began", "w").close()
    CPU.append(time.process_time())
    log = logger()
    for step in range(1, 11):
        time.sleep(cfg.seconds / 10)
        log(step, (cfg.x - 0.3) ** 2 + 1 / step)
    return (cfg.x - 0.3) ** 2 + 0.1

if __name__ == "__main__":
    train()
    if len(CPU) > 20:
        open("cpu", "w").write(str(1000 * (CPU[-1] - CPU[9]) / (len(CPU) - 10)))
"""
SPACE = ("x=interval(0,1)", "hydra/sweeper/sampler=random", "hydra.sweeper.n_jobs=1")
FMEXP = ("hydra/sweeper=fmexp", *SPACE)
OFFICIAL = ("hydra/sweeper=optuna", *SPACE, "+hydra.callbacks.mlflow._target_=app.MlflowCallback")


def timed(python: str, *words: str) -> tuple[float, float]:
    """Seconds of the command, and until its function was called first."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "app.py").write_text(APPLICATION)
        began, clock = time.time(), time.perf_counter()
        done = subprocess.run(
            [python, "app.py", "-m", *words], cwd=folder, capture_output=True, text=True,
            check=False, env={**os.environ, "PYTHONPATH": folder},
        )  # fmt: skip
        seconds = time.perf_counter() - clock
        assert done.returncode == 0, done.stdout + done.stderr
        return seconds, Path(folder, "began").stat().st_mtime - began


def seconds(python: str, which: tuple[str, ...], n: int, each: float) -> float:
    """Of a command of `n` trials of `each` seconds."""
    return timed(python, *which, f"hydra.sweeper.n_trials={n}", f"seconds={each}")[0]


def beside(official: str) -> None:
    """Print the table of both sweepers."""
    both = ((official, OFFICIAL), (sys.executable, FMEXP))
    rounds = [[seconds(*which, n, 0.01) for n in (FEW, MORE) for which in both]
              for _ in range(ROUNDS)]  # fmt: skip
    theirs, ours, their_more, our_more = map(min, zip(*rounds, strict=True))
    slopes = [(more - few) / (MORE - FEW) for few, more in ((theirs, their_more), (ours, our_more))]
    longer = [seconds(*which, 20, 2.0) for which in both]
    print(f"{'':34}{'official':>10}{'fmexp':>10}{'ratio':>8}")
    for what, (a, b), least in (
        (f"{FEW} trials of 10 ms, s", (theirs, ours), 3),
        ("a further trial of 10 ms, s", slopes, 5),
        ("20 trials of 2 s, s", longer, 1),
    ):
        print(f"{what:34}{a:10.3f}{b:10.3f}{a / b:7.1f}x   (at least {least})")


def cpu_of_a_trial(*words: str) -> float:
    """Milliseconds of processor time from one call of the function to the next."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "app.py").write_text(APPLICATION)
        command = [sys.executable, "app.py", "-m", *words, "seconds=0"]
        kept = {**os.environ, "PYTHONPATH": folder}
        subprocess.run(command, cwd=folder, check=True, capture_output=True, env=kept)
        return float(Path(folder, "cpu").read_text())


def cpu_of_plain_optuna(n: int) -> float:
    """The same of a loop on a journal."""
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/optuna.journal"
        backend = JournalFileBackend(path, JournalFileOpenLock(path))
        storage = optuna.storages.JournalStorage(backend)
        study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(1))
        began = time.process_time()
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1) ** 2, n)
        return 1000 * (time.process_time() - began) / n


def cpu_of_hydra(*words: str) -> tuple[float, float]:
    """The same of Hydra's composing and of its job runner, each alone."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.utils import run_job
    from hydra.types import HydraContext, RunMode
    from omegaconf import open_dict

    class NoCallbacks:
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda **_: None

    n, job = 40, {"job_dir_key": "hydra.sweep.dir", "job_subdir_key": "hydra.sweep.subdir"}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.yaml").write_text("x: 0.5\nseconds: 0\n")
        with initialize_config_dir(folder, "app", version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            lines = [*words, f"hydra.sweep.dir={folder}"]
            master = hydra.compose_config("config", lines, RunMode.MULTIRUN)
            context, began = HydraContext(hydra.config_loader, NoCallbacks()), time.process_time()
            for _ in range(n):
                config = hydra.config_loader.load_sweep_config(master, [*words, "x=1"])
            composed = time.process_time()
            with open_dict(config):
                config.hydra.job.num, config.hydra.job.id = 0, "0"
            for _ in range(n):
                run_job(lambda cfg: cfg.x, config, hydra_context=context, **job)
            ran = time.process_time()
    return 1000 * (composed - began) / n, 1000 * (ran - composed) / n


def alone() -> None:
    """Print what a trial of fmexp's costs, when the first begins, and what two workers give."""
    quiet = (*FMEXP, "hydra/sweeper/tracking=none")
    bare = ("hydra.output_subdir=null", "hydra/job_logging=none")
    rounds = [
        (
            cpu_of_a_trial(*quiet, f"hydra.sweeper.n_trials={MORE}"),
            cpu_of_a_trial(*quiet, *bare, f"hydra.sweeper.n_trials={MORE}"),
            cpu_of_plain_optuna(MORE),
            *cpu_of_hydra(),
            *cpu_of_hydra(*bare),
        )
        for _ in range(ROUNDS)
    ]
    ours, least, optuna_s, compose, job, _, bare_job = map(min, zip(*rounds, strict=True))
    print(f"processor time of a further trial, without a record: {ours:.1f} ms; Hydra's job runner "
          f"alone {job:.1f}, a plain Optuna loop {optuna_s:.1f}, so {ours - job - optuna_s:.1f} ms "
          "more   (at most 15)")  # fmt: skip
    print(f"  without Hydra's files and logging: {least:.1f} ms, the runner alone {bare_job:.1f}; "
          f"composing anew would take {compose:.1f} ms more each")  # fmt: skip
    once = ("hydra.sweeper.n_trials=1", "seconds=0")
    first = min(timed(sys.executable, *FMEXP, *once)[1] for _ in range(ROUNDS))
    print(f"the first trial begins {first:.2f} s after the command   (at most 1.5)")
    times = []
    for n in (1, 2):
        words = ("hydra.sweeper.n_trials=16", "seconds=1", f"hydra.sweeper.n_jobs={n}")
        times.append(timed(sys.executable, *quiet, *words)[0])
    start = timed(sys.executable, *quiet, *once)[0]
    gain = (times[0] - start) / (times[1] - start)
    print(f"16 trials of 1 s: n_jobs=2 gives {gain:.2f}x   (at least 1.7)")


if __name__ == "__main__":
    print(describe_machine("mlflow", "optuna", "hydra-core"))
    print(f"load before: {os.getloadavg()[0]:.1f}")
    alone()
    if "--official" in sys.argv:
        beside(sys.argv[sys.argv.index("--official") + 1])
