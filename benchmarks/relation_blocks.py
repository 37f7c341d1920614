"""Gibbs sweeps on rows that share features: blocks, beside rows written out and myFM's blocks.

    python benchmarks/relation_blocks.py              # 200,000 ratings
    python benchmarks/relation_blocks.py 1000000 8    # ratings, and k
    python benchmarks/relation_blocks.py keys         # how many rows a key must have

A rating has user, item, the user's history (each of his items 1 / sqrt(n); 50 ratings a user on
average) and the item's columns from a second table (ten entries). Times are processor time of one
thread, in turns within one process, so that a busy machine is busy for all. pip install myfm
"setuptools<81", or it is left out.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from machine import describe_machine
from peers import gibbs_trainer, is_there

from fmexp.backends import gibbs
from fmexp.backends.scoring import Scorer
from fmexp.data.dataset import Part
from fmexp.data.features import CSR
from fmexp.data.related import Block, FeatureRows, Related

if TYPE_CHECKING:
    from collections.abc import Callable

RATINGS_A_USER, ITEMS, ITEM_ENTRIES, ITEM_COLUMNS = 50, 5_000, 10, 200
ROUNDS, SWEEPS = 5, 3


def ratings(n_rows: int) -> tuple[Part, Related]:
    """Rows with noise for a target: how long a sweep takes does not depend on it."""
    g, n_users = np.random.default_rng(0), n_rows // RATINGS_A_USER
    popularity = 1.0 / np.arange(1, ITEMS + 1) ** 0.7
    users = g.integers(n_users, size=n_rows).astype(np.int32)
    items = g.choice(ITEMS, n_rows, p=popularity / popularity.sum()).astype(np.int32)
    pairs = np.unique(users.astype(np.int64) * ITEMS + items)
    counts = np.bincount(pairs // ITEMS, minlength=n_users)
    values = np.repeat(1.0 / np.sqrt(np.maximum(counts, 1)), counts)
    starts = np.concatenate([[0], np.cumsum(counts)])
    history = CSR(starts, (pairs % ITEMS).astype(np.int32), values, ITEMS)
    tags = np.sort(np.argsort(g.random((ITEMS, ITEM_COLUMNS)), axis=1)[:, :ITEM_ENTRIES], axis=1)
    each = np.arange(ITEMS + 1) * ITEM_ENTRIES
    columns = CSR(each, tags.ravel().astype(np.int32), None, ITEM_COLUMNS)
    ends = np.cumsum([n_users, ITEMS, ITEMS, ITEM_COLUMNS])
    own = np.stack([users, n_users + items], axis=1).astype(np.int32).ravel()
    rows = Related(
        CSR(np.arange(n_rows + 1) * 2, own, None, int(ends[-1])),
        (Block(int(ends[1]), history, users), Block(int(ends[2]), columns, items)),
    )
    groups = np.repeat(np.arange(4), np.diff(ends, prepend=0))
    return Part(rows, g.normal(size=n_rows), np.arange(n_rows), groups), rows


def sweeps(part: Part, features: FeatureRows, k: int) -> Callable[[], None]:
    """What makes some sweeps of ours."""
    given = Part(features, part.target, part.rows, part.groups)
    trainer = gibbs_trainer(given, k, 1000, "backend.threads=1")

    def run() -> None:
        for _ in range(SWEEPS):
            trainer.train_epoch(0.0, None)

    run()
    return run


def my_fm(part: Part, rows: Related, k: int) -> Callable[[int], None]:
    """What makes as many sweeps of myFM's, its own relation blocks given, and all else it does."""
    import myfm
    from scipy.sparse import csr_matrix

    def scipy(some: CSR) -> Any:
        return csr_matrix((some.values_or_ones(), some.indices, some.indptr), some.shape)

    own = CSR(rows.own.indptr, rows.own.indices, None, rows.blocks[0].first)
    blocks = [myfm.RelationBlock(block.keys, scipy(block.rows)) for block in rows.blocks]
    shapes = np.bincount(part.groups).tolist()

    def run(n: int) -> None:
        model = myfm.MyFMRegressor(rank=k, random_seed=0)
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar
            model.fit(scipy(own), part.target, blocks, n_iter=n, n_kept_samples=1,
                      group_shapes=shapes)  # fmt: skip

    return run


def seconds(run: Callable[..., None], *arguments: Any) -> float:
    """Processor seconds."""
    began = time.process_time()
    run(*arguments)
    return time.process_time() - began


def compare(n_rows: int, k: int) -> None:
    """Seconds of a sweep, and of scoring: the median of the rounds, and of the rounds' ratios."""
    part, rows = ratings(n_rows)
    written_out = rows.expand()
    per_row = len(written_out.indices) / n_rows
    print(f"\n{n_rows:,} ratings, {per_row:.1f} entries a row written out, k={k}")
    on_keys, on_rows = sweeps(part, rows, k), sweeps(part, written_out, k)
    theirs = my_fm(part, rows, k) if is_there("myfm") else None
    found: dict[str, list[float]] = {"blocks": [], "written out": []}
    for _ in range(ROUNDS):
        found["blocks"].append(seconds(on_keys) / SWEEPS)
        found["written out"].append(seconds(on_rows) / SWEEPS)
        if theirs is not None:  # without what it does before and after
            more = seconds(theirs, 2 + SWEEPS) - seconds(theirs, 2)
            found.setdefault("myFM's blocks", []).append(more / SWEEPS)
    start = gibbs_trainer(part, k, 1).parameters().at(0)
    scorers = Scorer(rows, start), Scorer(written_out, start)
    for _ in range(ROUNDS):
        for name, scorer in zip(("score, blocks", "score, written out"), scorers, strict=True):
            found.setdefault(name, []).append(seconds(scorer, start))
    for name, each in found.items():
        ours = found["score, blocks" if "score" in name else "blocks"]
        shares = [other / us for us, other in zip(ours, each, strict=True)]
        print(
            f"{name:20} {statistics.median(each):8.4f} s, {statistics.median(shares):5.1f} times "
            f"ours with blocks ({min(shares):.1f} to {max(shares):.1f})",
            flush=True,
        )


def few_rows_a_key(n_rows: int = 100_000, k: int = 8) -> None:
    """How long blocks take whose keys have few rows (`gibbs.ROWS_PER_KEY`), as a multiple."""
    gibbs.ROWS_PER_KEY = 0
    for n_keys in (n_rows, n_rows // 2, n_rows // 5, n_rows // 20):
        g = np.random.default_rng(0)
        tags = np.sort(np.argsort(g.random((n_keys, 100)), axis=1)[:, :ITEM_ENTRIES], axis=1)
        each = np.arange(n_keys + 1) * ITEM_ENTRIES
        columns = CSR(each, tags.ravel().astype(np.int32), None, 100)
        users, keys = g.integers(2000, size=n_rows), g.integers(n_keys, size=n_rows)
        own = CSR(np.arange(n_rows + 1), users.astype(np.int32), None, 2100)
        rows = Related(own, (Block(2000, columns, keys.astype(np.int32)),))
        part = Part(rows, g.normal(size=n_rows), np.arange(n_rows))
        runs = sweeps(part, rows, k), sweeps(part, rows.expand(), k)
        shares = [np.divide(*map(seconds, runs)) for _ in range(ROUNDS)]
        share = statistics.median(shares)
        print(f"{n_rows / len(np.unique(keys)):.1f} rows a key: {share:.2f} times", flush=True)


def main() -> int:
    print(describe_machine("numba", "numpy", "myfm"))
    if sys.argv[1:] == ["keys"]:
        few_rows_a_key()
        return 0
    n_rows, *k = (int(word) for word in sys.argv[1:] or ["200000"])
    for each in k or (8, 16, 32):
        compare(n_rows, each)
    return 0


if __name__ == "__main__":
    sys.exit(main())
