"""A task without a Factorization Machine, and a sweep of it: `python -m tests.parabola 8`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import yaml

from fmexp.record.tracker import Outcome, RunStart
from fmexp.sweep.launch import run
from fmexp.sweep.options import read_options
from fmexp.sweep.search import Application, Search
from fmexp.sweep.space import Dimension, Space
from fmexp.sweep.study import SweepPlan
from fmexp.sweep.task import Evaluation


class Parabola:
    """Its loss falls to (x - 0.3)^2 within 30 steps of 5 ms."""

    def evaluate(self, point, reporter):
        for step in range(1, 31):
            loss = (point["x"] - 0.3) ** 2 + 1 / step
            reporter.log(step, {"loss": loss})
            if reporter.should_stop():
                return Evaluation(Outcome.INTERRUPTED)
            if reporter.should_prune(step, loss):
                return Evaluation(Outcome.PRUNED, reason=f"at step {step}")
            time.sleep(0.005)
        return Evaluation(Outcome.COMPLETED, loss, metrics={"loss": loss}, memo={"x": point["x"]})

    def complete(self, memo, folder):
        (folder / "won.txt").write_text(str(memo["x"]))


def open_task(settings):
    return Parabola()


def search(n_trials: int, n_jobs: int = 1, uri: str = "") -> Search:
    conf = Path(__file__).resolve().parent.parent / "hydra_plugins/fmexp_sweeper/conf"
    options = yaml.safe_load((conf / "hydra/sweeper/fmexp_base.yaml").read_text())
    del options["defaults"]
    options["tracking"] = {"name": "none"}
    options |= {"n_trials": n_trials, "n_jobs": n_jobs, "sampler": {"name": "random", "seed": 1}}
    options["pruner"] = {"name": "median", "n_startup_trials": 2, "n_warmup_steps": 0}
    application = Application(
        "parabola", {}, {}, "tests.parabola:open_task", open_task, False, lambda: 0.15,
        RunStart("", {}, {}), {}, uri, "test", ["again"], [],
    )  # fmt: skip
    space = Space([Dimension("x", "float", -9.0, 9.0)])
    plan = SweepPlan("loss", "minimize", "", 30, {})
    return Search(application, read_options(options), options, space, {}, [{"x": 0.5}], plan)


if __name__ == "__main__":
    store = Path("mlflow.db").resolve()
    sys.exit(run(search(int(sys.argv[1]), 2, f"sqlite:///{store}"), Path()))
