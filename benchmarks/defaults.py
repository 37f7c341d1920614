"""What the shipped defaults come to on other people's tables, and which defaults serve most tables.

    python benchmarks/defaults.py             # the shipped ones, beside scikit-learn
    python benchmarks/defaults.py choose 64   # 64 candidates, drawn at random
    python benchmarks/defaults.py choose      # all of a small grid about the best of them

The first trains on each table of tables.py, and on four that scikit-learn and fmexp ship, with the
configuration as it is shipped, over five seeds (of the split, the start and the shuffling). Beside
it RidgeCV (logistic regression for classes) gets the encoded rows of the same training part, and
HistGradientBoosting the same rows with names as categories. Printed is the loss on the test part
over that of predicting the training mean, both averaged over the seeds.

The others train candidates, the shipped defaults first, on the same tables and on planted ones,
with other seeds, and print what each loses. A candidate's regret on a table is the logarithm of its
loss on the test part over the lowest of all candidates' there (0.05: 5 % worse), at most 3. Chosen
is, of those that never diverge, the lowest mean regret; where several are within 0.005 of it, the
one with the lowest worst regret. Tests never see this: it is how conf/config.yaml came about.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from machine import describe_machine
from sklearn import datasets, ensemble, linear_model, model_selection
from tables import TABLES, as_numbers, configuration, frame
from threadpoolctl import threadpool_limits

from fmexp import fm
from fmexp.config.compose import compose, parse_arguments
from fmexp.data.features import CSR
from fmexp.data.learn import Learning
from fmexp.data.loading import load
from fmexp.data.memory import from_arrays
from fmexp.training.fitting import fit, loss_units

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fmexp.config.schema import Config
    from fmexp.data.dataset import Dataset, Part

SHOWN_SEEDS = (0, 1, 2, 3, 4)
CHOSEN_SEEDS = (10, 11, 12)
MOST_REGRET = 3.0
EQUAL = 0.005
CHOICES: dict[str, tuple[float, ...]] = {
    "learning_rate": (0.003, 0.005, 0.007, 0.01, 0.02, 0.03, 0.05),
    "learning_rate_decay": (0.01, 0.03, 0.1, 0.3, 1.0),
    "init_stdev": (0.02, 0.05, 0.1),
    "reg": (0.001, 0.003, 0.01, 0.03),
    "average_from": (0, 10, 25, 40),  # 0: the last state
}
GRID: dict[str, tuple[float, ...]] = {
    "learning_rate": (0.02, 0.03, 0.05),
    "learning_rate_decay": (0.1, 0.3),
    "init_stdev": (0.05, 0.1),
    "reg": (0.003, 0.01, 0.03),
    "average_from": (0, 25, 40),
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


@dataclass(frozen=True)
class Problem:
    """A table, split and encoded.

    Attributes:
        name: what the results call it.
        size: rows x columns.
        config: the shipped configuration for it.
        data: encoded.
        numbers: the whole table for trees, shape (n_rows, n_columns).
        few: which columns of it are categories.
    """

    name: str
    size: str
    config: Config
    data: Dataset
    numbers: np.ndarray
    few: list[bool]


def configured(overrides: str) -> Config:
    """The shipped configuration with these overrides."""
    return compose(parse_arguments(overrides.split())).config


def real(seed: int, folder: Path) -> Iterator[Problem]:
    """Other people's tables, split by this seed."""
    for table in TABLES:
        rows = frame(table)
        config = configuration(table, rows, folder, seed)
        numbers, few = as_numbers(table, rows)
        size = f"{len(rows):,}x{numbers.shape[1]}"
        data = load(config.data, config.split, config.task)
        yield Problem(table.name, size, config, data, numbers, few)
    for name, task, X, y in arrays():
        config = configured(f"split.seed={seed} task={task}")
        data = from_arrays(X, y, config.split, Learning(task, standardize=True))
        size = f"{len(X):,}x{X.shape[1]}"
        yield Problem(name, size, config, data, X, [False] * X.shape[1])


def arrays() -> Iterator[tuple[str, Any, np.ndarray, np.ndarray]]:
    """Tables of numbers that scikit-learn ships; the first is fmexp's default too."""
    X, y = datasets.load_diabetes(return_X_y=True, scaled=False)
    yield "diabetes: progression", "regression", X, y
    X, y = datasets.load_wine(return_X_y=True)
    yield "wines: alcohol", "regression", X[:, 1:], X[:, 0]
    X, y = datasets.load_breast_cancer(return_X_y=True)
    yield "tumours: benign", "classification", X, y
    X, y = datasets.load_digits(return_X_y=True)
    yield "digits: odd", "classification", X, y % 2


def generated(seed: int) -> Iterator[Problem]:
    """Planted machines, and a nonlinear function that no Factorization Machine equals."""
    none = np.empty((0, 0))
    for name, overrides in PLANTED.items():
        config = configured(f"data=planted data.seed={seed} split.seed={seed} {overrides}")
        data = load(config.data, config.split, config.task)
        yield Problem(name, "", config, data, none, [])
    X, y = datasets.make_friedman1(2000, 10, noise=1.0, random_state=seed)
    config = configured(f"split.seed={seed}")
    data = from_arrays(X, y, config.split, Learning("regression", standardize=True))
    yield Problem("friedman 2,000x10", "", config, data, none, [])


def with_choice(config: Config, choice: dict[str, float], seed: int) -> Config:
    """The configuration of a candidate."""
    training = replace(
        config.training,
        learning_rate=choice["learning_rate"],
        learning_rate_decay=choice["learning_rate_decay"],
        reg_w=choice["reg"],
        reg_V=choice["reg"],
        average_from=int(choice["average_from"]) or None,
    )
    model = replace(config.model, init_stdev=choice["init_stdev"])
    return replace(config, training=training, model=model, seed=seed)


def loss(config: Config, data: Dataset, scores: np.ndarray) -> float:
    """Mean loss of these scores on the test part, in the target's units."""
    assert data.test is not None
    losses = fm.losses(config.task, scores, data.test.target)
    return float(losses.mean()) * loss_units(config.task, data)


def test_loss(config: Config, data: Dataset) -> float:
    """Of the kept model on the test part; infinite where training diverged."""
    done = fit(config, data)
    if done.parameters is None or done.outcome == "diverged" or data.test is None:
        return float("inf")
    return loss(config, data, fm.scores(done.parameters, data.test.features))


def matrix(part: Part) -> Any:
    """The encoded rows as scikit-learn takes them."""
    features = part.features
    if not isinstance(features, CSR):
        return features
    from scipy.sparse import csr_matrix

    values = np.ones(len(features.indices)) if features.values is None else features.values
    return csr_matrix((values, features.indices, features.indptr), shape=features.shape)


def losses_beside(problem: Problem) -> dict[str, float]:
    """The test loss of predicting the mean, of a linear model and of boosted trees."""
    data, config = problem.data, problem.config
    train, test = data.train, data.test
    assert test is not None
    folds = model_selection.KFold(5, shuffle=True, random_state=0)  # tables come sorted
    scores = {}
    forest: Any
    if config.task == "regression":
        scores["mean"] = np.full(len(test.target), train.target.mean())
        line = linear_model.RidgeCV(np.logspace(-2, 4, 13), cv=folds)
        scores["linear"] = line.fit(matrix(train), train.target).predict(matrix(test))
        forest = ensemble.HistGradientBoostingRegressor(
            categorical_features=problem.few, random_state=0
        )
        forest.fit(problem.numbers[train.rows], train.target)
        scores["trees"] = forest.predict(problem.numbers[test.rows])
    else:
        odds = train.target.mean() / (1 - train.target.mean())
        scores["mean"] = np.full(len(test.target), np.log(odds))
        logit = linear_model.LogisticRegressionCV(
            Cs=10, cv=folds, max_iter=1000, scoring="neg_log_loss", l1_ratios=(0,),
            use_legacy_attributes=False,
        )  # fmt: skip
        scores["linear"] = logit.fit(matrix(train), train.target).decision_function(matrix(test))
        forest = ensemble.HistGradientBoostingClassifier(
            categorical_features=problem.few, random_state=0
        )
        forest.fit(problem.numbers[train.rows], train.target)
        scores["trees"] = forest.decision_function(problem.numbers[test.rows])
    return {name: loss(config, data, x) for name, x in scores.items()}


def show() -> None:
    """The shipped defaults on the real tables."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in SHOWN_SEEDS:
            for problem in real(seed, Path(scratch)):
                ours = test_loss(replace(problem.config, seed=seed), problem.data)
                row = {"ours": ours, **losses_beside(problem)}
                found.setdefault((problem.name, problem.size), []).append(row)
    print("| table | rows x columns | diverged | fmexp | RidgeCV | boosted trees |")
    print("|---|---|---|---|---|---|")
    for (name, size), rows in found.items():
        diverged = sum(np.isinf(row["ours"]) for row in rows)
        mean = sum(row["mean"] for row in rows)
        shares = {key: sum(row[key] for row in rows) / mean for key in ("ours", "linear", "trees")}
        worse = " (!)" if shares["ours"] >= 1 and shares["linear"] <= 0.95 else ""
        each = f"{shares['ours']:.3f}{worse} | {shares['linear']:.3f} | {shares['trees']:.3f}"
        print(f"| {name} | {size} | {diverged} of {len(rows)} | {each} |", flush=True)


def candidates(wanted: int | None) -> list[dict[str, float]]:
    """The shipped choice, then random ones or the grid."""
    if wanted is None:
        others = [dict(zip(GRID, point, strict=True)) for point in product(*GRID.values())]
    else:
        g = np.random.default_rng(0)
        others = [
            {key: float(g.choice(x)) for key, x in CHOICES.items()} for _ in range(wanted - 1)
        ]
    shipped = configured("")
    return [
        {
            "learning_rate": shipped.training.learning_rate,
            "learning_rate_decay": shipped.training.learning_rate_decay,
            "init_stdev": shipped.model.init_stdev,
            "reg": shipped.training.reg_V,
            "average_from": float(shipped.training.average_from or 0),
        },
        *others,
    ]


def choose(tried: list[dict[str, float]]) -> None:
    """What each candidate loses on all tables, the least first."""
    losses: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in CHOSEN_SEEDS:
            for problem in (*real(seed, Path(scratch)), *generated(seed)):
                began = time.perf_counter()
                row = [test_loss(with_choice(problem.config, c, seed), problem.data) for c in tried]
                losses.setdefault(problem.name, []).append(row)
                seconds = (time.perf_counter() - began) / len(tried)
                words = f"shipped {row[0]:12.5g}, best {min(row):12.5g}, {seconds:.3f} s a run"
                print(f"{problem.name:42} seed {seed}: {words}", flush=True)
    names = list(losses)
    table = np.array([losses[name] for name in names])  # table, seed, candidate
    diverged = np.isinf(table).sum(axis=(0, 1))
    means = table.mean(axis=1)
    regret = np.minimum(np.log(means / means.min(axis=1, keepdims=True)), MOST_REGRET)
    mean, worst = regret.mean(axis=0), regret.max(axis=0)
    mean_of_whole = np.where(diverged == 0, mean, np.inf)
    equal = np.flatnonzero(mean_of_whole <= mean_of_whole.min() + EQUAL)
    chosen = equal[np.argmin(worst[equal])]
    print(f"\n{'':78}  mean  worst  diverged  worst on")
    for c in [0, int(chosen), *np.argsort(mean)[:20]]:
        words = "  ".join(f"{key} {x:g}" for key, x in tried[c].items())
        print(
            f"{words:78} {mean[c]:.3f} {worst[c]:.3f} {diverged[c]:5}  "
            f"{names[int(regret[:, c].argmax())]}"
        )
    print("(the first line: as shipped; the second: what the rule chooses)")


def main() -> int:
    print(describe_machine("numba", "numpy", "scikit-learn"))
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    with threadpool_limits(1):  # with more, beside other work, the trees take ten times as long
        if sys.argv[1:2] == ["choose"]:
            choose(candidates(int(sys.argv[2]) if len(sys.argv) > 2 else None))
        else:
            show()
    return 0


if __name__ == "__main__":
    sys.exit(main())
