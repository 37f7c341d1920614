"""Whether genres, a user's age and a user's history lower the error as far as they can.

    python benchmarks/recommender.py            # 1,000,000 ratings, 60 sweeps
    python benchmarks/recommender.py 100000 60  # fewer, and how many sweeps

A rating is a known Factorization Machine of these three kinds of features and noise of 1: linear
effects of genre and age, and the interactions of all features. They come from three files, as
`fmexp run` reads them: ratings, users (their ages) and items (their genres; a cell holds one to
three). User and item are keys and no features, so what is left out cannot come in by them. A fifth
of the rows is the test part; only the others make a history. backend=gibbs is trained with all
features and without each kind. What can be expected of p parameters on n rows without priors is
about sqrt(1 + p / n) times the noise.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import describe_machine

from fmexp.config.compose import compose, parse_arguments
from fmexp.data.loading import load_for
from fmexp.model import Model
from fmexp.training.fitting import fit

RATINGS_A_USER, ITEMS, GENRES, K = 50, 1_000, 18, 4
ALL = {
    "joins": "data.joins={user: users.csv, item: items.csv}",
    "lists": 'data.lists={genres: "|"}',
    "numeric": "data.numeric=[age]",
    "history": "data.history={user: item}",
}
WITHOUT = {
    "nothing left out": {},
    "without genres": {"joins": "data.joins={user: users.csv}", "lists": ""},
    "without age": {"joins": "data.joins={item: items.csv}", "numeric": ""},
    "without history": {"history": ""},
}


def main() -> None:
    given = [int(word) for word in sys.argv[1:]]
    n_rows, sweeps = given + [1_000_000, 60][len(given) :]
    print(describe_machine("numpy", "numba", "pyarrow"))
    print(f"\n{n_rows:,} ratings, k={K}, {sweeps} sweeps; rmse / noise of the test part")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write(n_rows)
        for name, without in WITHOUT.items():
            words = [word for word in (ALL | without).values() if word]
            began = time.process_time()
            error, n_parameters, n_train = error_with(words, sweeps)
            bound = math.sqrt(1 + n_parameters / n_train)
            print(
                f"  {name:<18} {error:.4f}   sqrt(1 + p / n) {bound:.4f}   {error / bound:.3f} x   "
                f"({n_parameters:,} parameters, {time.process_time() - began:.0f} s of CPU time)",
                flush=True,
            )


def error_with(words: list[str], sweeps: int) -> tuple[float, int, int]:
    """Test error in units of the noise, parameters, and training rows."""
    keys = ["data=csv", "data.path=ratings.csv", "data.drop=[user,item]", "split.by=column:part"]
    keys += ["backend=gibbs", f"model.k={K}", f"training.epochs={sweeps}", "tracking=none"]
    config = compose(parse_arguments([*keys, *words])).config
    data = load_for(config)
    fitted = fit(config, data)
    assert data.test is not None
    assert fitted.parameters is not None
    predicted = Model.of(config, data, fitted.parameters).predict_features(data.test.features)
    y = data.encoder.decode_target(data.test.target)
    n_parameters = 1 + data.encoder.n_features * (K + 1)
    return float(np.sqrt(np.square(predicted - y).mean())), n_parameters, len(data.train.target)


def write(n_rows: int) -> None:
    """The three files."""
    g, n_users = np.random.default_rng(0), n_rows // RATINGS_A_USER
    popularity = 1.0 / np.arange(1, ITEMS + 1) ** 0.5
    users = g.integers(n_users, size=n_rows)
    items = g.choice(ITEMS, n_rows, p=popularity / popularity.sum())
    is_test = g.random(n_rows) < 0.2
    ages = g.integers(15, 80, n_users)
    genres = [np.sort(g.choice(GENRES, g.integers(1, 4), replace=False)) for _ in range(ITEMS)]
    y = scores(g, users, items, is_test, ages, genres) + g.normal(size=n_rows)
    with Path("ratings.csv").open("w") as file:
        file.write("user,item,part,rating\n")
        parts = np.where(is_test, "test", "train")
        rows = zip(users.tolist(), items.tolist(), parts.tolist(), y.tolist(), strict=True)
        file.writelines(f"u{u},i{i},{part},{y:.5f}\n" for u, i, part, y in rows)
    lines = [f"u{u},{age}.5" for u, age in enumerate(ages.tolist())]
    Path("users.csv").write_text("\n".join(["user,age", *lines]) + "\n")
    lines = [f"i{i},{'|'.join(f'g{j}' for j in each)}" for i, each in enumerate(genres)]
    Path("items.csv").write_text("\n".join(["item,genres", *lines]) + "\n")


def scores(
    g: np.random.Generator,
    users: np.ndarray,
    items: np.ndarray,
    is_test: np.ndarray,
    ages: np.ndarray,
    genres: list[np.ndarray],
) -> np.ndarray:
    """What the known machine gives each row (Rendle 2010, Lemma 3.1)."""
    n_users, size = len(ages), math.sqrt(0.45 / math.sqrt(K))
    pairs = np.unique(users[~is_test] * ITEMS + items[~is_test])
    counts = np.maximum(np.bincount(pairs // ITEMS, minlength=n_users), 1)
    of_item, of_genre, of_age = (size * g.normal(size=(n, K)) for n in (ITEMS, GENRES, 1))
    age = (ages[:, None] - 47.0) / 19.0
    of_user, squares = age * of_age, np.square(age * of_age)
    np.add.at(
        of_user, pairs // ITEMS, of_item[pairs % ITEMS] / np.sqrt(counts)[pairs // ITEMS, None]
    )
    np.add.at(
        squares, pairs // ITEMS, np.square(of_item)[pairs % ITEMS] / counts[pairs // ITEMS, None]
    )
    linear, n_genres = 0.45 * g.normal(size=GENRES), np.array([len(each) for each in genres])
    taste = np.stack([of_genre[each].sum(axis=0) for each in genres]) / np.sqrt(n_genres)[:, None]
    of_taste = np.stack([np.square(of_genre[each]).sum(axis=0) for each in genres])
    bias = np.array([linear[each].sum() for each in genres]) / np.sqrt(n_genres)
    sums = of_user[users] + taste[items]
    own = squares[users] + (of_taste / n_genres[:, None])[items]
    return bias[items] + 0.45 * age[users, 0] + 0.5 * (np.square(sums) - own).sum(axis=1)


if __name__ == "__main__":
    main()
