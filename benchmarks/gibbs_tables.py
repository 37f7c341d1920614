"""The Gibbs sampler, nothing tuned, on other people's tables, beside SGD as shipped and swept.

    python benchmarks/gibbs_tables.py      # over three seeds
    python benchmarks/gibbs_tables.py 1    # over one

The tables, splits, RidgeCV (logistic regression for classes) and boosted trees are those of
defaults.py. `gibbs` is backend=gibbs as it is shipped; `sgd` numpy_sgd as it is
shipped; `sweep` the best of 20 random points of the default space of a sweep (model.k and learning
rate) by the validation part. Printed is the loss on the test part over that of predicting the
training mean, the share of test targets that the sampler's 90 % intervals hold, and the seconds of
training of the sampler and of the whole sweep.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from defaults import loss, losses_beside, real, test_loss
from machine import describe_machine
from threadpoolctl import threadpool_limits

from fmexp import fm
from fmexp.backends.scoring import predictive
from fmexp.config.schema import GibbsConfig
from fmexp.training import metrics
from fmexp.training.fitting import fit

if TYPE_CHECKING:
    from defaults import Problem

TRIALS = 20
COLUMNS = ("gibbs", "sgd", "sweep", "linear", "trees")


def sampled(problem: Problem, seed: int) -> dict[str, float]:
    """Test loss, coverage and seconds of the sampler."""
    config, data = problem.config, problem.data
    training = replace(config.training, shuffle=False, average_from=None, cap_steps=False)
    config = replace(
        config, seed=seed, backend=GibbsConfig("gibbs", None, 64, 1), training=training,
        model=replace(config.model, init_stdev=1.0),
    )  # fmt: skip
    done = fit(config, data)
    assert isinstance(done.parameters, fm.Samples)
    assert data.test is not None
    said, y = predictive(done.parameters, data.test.features, config.task), data.test.target
    if config.task == "regression":
        found = metrics.intervals(y, said.mean, said.stdev)
        return {
            "gibbs": loss(config, data, said.mean),
            "coverage": found["coverage_90"],
            "seconds": done.fit_seconds,
        }
    logit = np.log(said.mean) - np.log1p(-said.mean)
    return {"gibbs": loss(config, data, logit), "coverage": np.nan, "seconds": done.fit_seconds}


def swept(problem: Problem, seed: int) -> dict[str, float]:
    """Test loss of the best of some random points by the validation part, and their seconds."""
    g, best, chosen, seconds = np.random.default_rng(seed), np.inf, np.inf, 0.0
    for _ in range(TRIALS):
        config = replace(problem.config, seed=seed)
        rate = float(np.exp(g.uniform(np.log(0.0003), np.log(0.03))))
        k = int(np.exp(g.uniform(np.log(2), np.log(65))))
        config = replace(
            config,
            model=replace(config.model, k=k),
            training=replace(config.training, learning_rate=rate),
        )
        done = fit(config, problem.data)
        seconds += done.fit_seconds
        if done.parameters is not None and (done.best_validation or np.inf) < best:
            assert problem.data.test is not None
            best = done.best_validation or np.inf
            scores = fm.scores(done.parameters, problem.data.test.features)
            chosen = loss(config, problem.data, scores)
    return {"sweep": chosen, "sweep seconds": seconds}


def main() -> int:
    print(describe_machine("numba", "numpy", "scikit-learn"))
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    with threadpool_limits(1), tempfile.TemporaryDirectory() as scratch:
        for seed in range(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
            for problem in real(seed, Path(scratch)):
                row = sampled(problem, seed) | swept(problem, seed) | losses_beside(problem)
                row["sgd"] = test_loss(replace(problem.config, seed=seed), problem.data)
                found.setdefault((problem.name, problem.size), []).append(row)
                print(".", end="", file=sys.stderr, flush=True)
    print("| table | rows x columns | gibbs | sgd | sgd, 20 trials | linear | trees | 90 % | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    logs: dict[str, list[float]] = {name: [] for name in COLUMNS}
    for (name, size), rows in found.items():
        mean = sum(row["mean"] for row in rows)
        shares = {key: sum(row[key] for row in rows) / mean for key in COLUMNS}
        for key in COLUMNS:
            logs[key].append(float(np.log(min(shares[key], 2.0))))
        covered = np.mean([row["coverage"] for row in rows])
        seconds = [
            sum(row[key] for row in rows) / len(rows) for key in ("seconds", "sweep seconds")
        ]
        each = " | ".join(f"{shares[key]:.3f}" for key in COLUMNS)
        held = "" if np.isnan(covered) else f"{100 * covered:.0f}"
        print(f"| {name} | {size} | {each} | {held} | {seconds[0]:.1f}, {seconds[1]:.1f} |")
    for key in COLUMNS:
        better = sum(a < b for a, b in zip(logs["gibbs"], logs[key], strict=True))
        print(f"{key:7} geometric mean {np.exp(np.mean(logs[key])):.3f}; gibbs lower on {better}")
    print(f"of {len(found)} tables; shares above 2 count as 2 in the mean")
    return 0


if __name__ == "__main__":
    sys.exit(main())
