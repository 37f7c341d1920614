"""Which defaults serve many tables: candidates on several data sets and seeds (docs/defaults.md).

    python benchmarks/defaults.py [candidates, 60 unless told]

A candidate is a choice of learning rate, decay, init_stdev and L2 at 50 epochs of numpy_sgd. Its
regret on a data set is the logarithm of its loss on the test part over the best candidate's there
(0.05: 5 % worse), the mean over the seeds. Printed are the candidates of the smallest mean regret,
with the worst regret and the runs that diverged. Tests never see this: it is how conf/config.yaml
came about.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from machine import describe_machine

from fmexp import fm
from fmexp.config.compose import compose, parse_arguments
from fmexp.data.learn import Learning
from fmexp.data.loading import from_arrays, load
from fmexp.training.fitting import fit, loss_units

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fmexp.config.schema import Config
    from fmexp.data.dataset import Dataset

SEEDS = (0, 1)
CHOICES: dict[str, tuple[float, ...]] = {
    "learning_rate": (0.002, 0.003, 0.005, 0.007, 0.01, 0.02),
    "learning_rate_decay": (0.0, 0.01, 0.03, 0.1, 0.3),
    "init_stdev": (0.01, 0.02, 0.03, 0.05),
    "reg": (0.0, 0.001, 0.003, 0.01, 0.03),
}
PLANTED = {
    "planted dense 2,000x10": "data.rows=2000 data.columns=10",
    "planted dense 20,000x30": "data.rows=20000 data.columns=30 data.k=8 data.noise=0.8",
    "planted one-hot 20,000x4 of 200": "data.rows=20000 data.columns=200 data.fields=4",
    "planted one-hot 200,000x5 of 2,000": (
        "data.rows=200000 data.columns=2000 data.fields=5 data.k=8 data.noise=0.8"
    ),
    "planted classes 5,000x10": "data.rows=5000 data.columns=10 task=classification",
    "planted classes one-hot 50,000x4 of 400": (
        "data.rows=50000 data.columns=400 data.fields=4 task=classification"
    ),
}


def configured(overrides: str) -> Config:
    """The shipped configuration with these overrides."""
    return compose(parse_arguments(overrides.split())).config


def data_sets(seed: int) -> Iterator[tuple[str, Config, Dataset]]:
    """Name, configuration and rows; the seed draws the split and, where generated, the rows."""
    base = configured(f"split.seed={seed}")
    yield "diabetes", base, load(base.data, base.split, base.task)
    for name, overrides in PLANTED.items():
        config = configured(f"data=planted data.seed={seed} split.seed={seed} {overrides}")
        yield name, config, load(config.data, config.split, config.task)
    for name, task, X, y in tables():
        config = replace(base, task=task)
        yield name, config, from_arrays(X, y, config.split, Learning(task, standardize=True))


def tables() -> Iterator[tuple[str, Any, np.ndarray, np.ndarray]]:
    """Real tables that scikit-learn ships, and a nonlinear function that no FM equals."""
    from sklearn import datasets

    X, y = datasets.load_breast_cancer(return_X_y=True)
    yield "breast cancer 569x30", "classification", X, y
    X, y = datasets.load_digits(return_X_y=True)
    yield "digits 1,797x64, odd or even", "classification", X, y % 2
    X, y = datasets.make_friedman1(2000, 10, noise=1.0, random_state=0)
    yield "friedman 2,000x10", "regression", X, y


def with_choice(config: Config, choice: dict[str, float], seed: int) -> Config:
    """The configuration of a candidate."""
    training = replace(
        config.training,
        learning_rate=choice["learning_rate"],
        learning_rate_decay=choice["learning_rate_decay"],
        reg_w=choice["reg"],
        reg_V=choice["reg"],
    )
    model = replace(config.model, init_stdev=choice["init_stdev"])
    return replace(config, training=training, model=model, seed=seed)


def test_loss(config: Config, data: Dataset) -> float:
    """Mean loss of the kept model on the test part; infinite where training diverged."""
    done = fit(config, data)
    if done.parameters is None or data.test is None:
        return float("inf")
    scores = fm.scores(done.parameters, data.test.features)
    losses = fm.losses(config.task, scores, data.test.target)
    return float(losses.mean()) * loss_units(config.task, data)


def main() -> int:
    print(describe_machine("numba", "numpy", "scikit-learn"))
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    g = np.random.default_rng(0)
    candidates = [{key: float(g.choice(x)) for key, x in CHOICES.items()} for _ in range(wanted)]
    shipped = configured("").training
    candidates[0] = {
        "learning_rate": shipped.learning_rate,
        "learning_rate_decay": shipped.learning_rate_decay,
        "init_stdev": configured("").model.init_stdev,
        "reg": shipped.reg_V,
    }
    names: list[str] = []
    losses: dict[str, list[list[float]]] = {}
    for seed in SEEDS:
        for name, config, data in data_sets(seed):
            began = time.perf_counter()
            row = [test_loss(with_choice(config, choice, seed), data) for choice in candidates]
            losses.setdefault(name, []).append(row)
            names = list(losses)
            seconds = (time.perf_counter() - began) / len(candidates)
            print(f"{name:42} seed {seed}: best {min(row):8.4f}, {seconds:.3f} s a run", flush=True)
    table = np.array([losses[name] for name in names])  # data set, seed, candidate
    diverged = np.isinf(table).sum(axis=(0, 1))
    regret = np.minimum(np.log(table / table.min(axis=2, keepdims=True)), 3.0).mean(axis=1)
    print(f"\n{'':60} mean  worst  diverged  regret on each data set, in their order")
    for c in [0, *np.argsort(regret.mean(axis=0))[:15]]:
        words = "  ".join(f"{key} {x:g}" for key, x in candidates[c].items())
        each = " ".join(f"{x:.2f}" for x in regret[:, c])
        print(
            f"{words:60} {regret[:, c].mean():.3f} {regret[:, c].max():.3f} {diverged[c]:5} {each}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
