"""Reading tables, and training on more rows than memory should hold.

    python benchmarks/data.py read      1,000,000 rows of CSV, from text and from the cache
    python benchmarks/data.py memory    training on 2,000,000 and on 20,000,000 rows
    python benchmarks/data.py shared    lists, joins and histories on 1,000,000 rows (--rows)

All write their tables under a temporary folder (the second needs 3 GB) and remove it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from machine import describe_machine

if TYPE_CHECKING:
    from collections.abc import Callable

CATEGORIES = (3000, 2500, 2000, 1500, 827)
"""Of the five columns: 9,827 in all."""

CHUNK = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["read", "memory", "shared", "child", "shared-child"])
    parser.add_argument("--rows", type=int, nargs="*")
    parser.add_argument("--path", type=Path)
    parser.add_argument("--keys", nargs="*", default=[])
    arguments = parser.parse_args()
    if arguments.what == "child":
        child(arguments.path)
        return
    if arguments.what == "shared-child":
        shared_child(arguments.keys)
        return
    print(describe_machine("numpy", "numba", "pyarrow"))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        if arguments.what == "read":
            read()
        elif arguments.what == "shared":
            shared(*(arguments.rows or [1_000_000]))
        else:
            memory(arguments.rows or [2_000_000, 20_000_000])


def write_table(path: Path, n_rows: int) -> None:
    """Five columns of ids and a target that a Factorization Machine made, chunk by chunk."""
    import pyarrow as pa
    from pyarrow import csv

    draw = np.random.default_rng(0)
    V = [draw.normal(size=(n, 8)) * 0.3 for n in CATEGORIES]
    schema = pa.schema([(f"c{j}", pa.int32()) for j in range(5)] + [("y", pa.float32())])
    with csv.CSVWriter(path, schema) as writer:
        for start in range(0, n_rows, CHUNK):
            n = min(CHUNK, n_rows - start)
            codes = [draw.integers(m, size=n, dtype=np.int32) for m in CATEGORIES]
            sums = sum(v[c] for v, c in zip(V, codes, strict=True))
            squares = sum(np.square(v[c]).sum(axis=1) for v, c in zip(V, codes, strict=True))
            y = 0.5 * (np.square(sums).sum(axis=1) - squares) + draw.normal(size=n)
            columns = [*codes, y.round(4).astype(np.float32)]
            writer.write_table(pa.table(columns, schema=schema))


def read() -> None:
    from pyarrow import csv

    from fmexp.data import cache
    from fmexp.data.sources import read as read_source
    from fmexp.data.split import SplitBy

    path = Path("table.csv")
    write_table(path, 1_000_000)
    config = csv_config(path)

    def ours() -> None:
        read_source(config, SplitBy(), "regression")

    def without_cache() -> None:
        kept, cache.SMALLEST = cache.SMALLEST, 1 << 60
        ours()
        cache.SMALLEST = kept

    def building_the_cache() -> None:
        for about in Path(".fmexp").rglob("about.json"):
            about.unlink()
        ours()

    rows = {
        "pyarrow.csv.read_csv alone": lambda: csv.read_csv(path),
        "fmexp, from text into memory": without_cache,
        "fmexp, from text, writing the cache": building_the_cache,
        "fmexp, from the cache": ours,
    }
    for run in rows.values():
        run()  # imports, page cache
    times = {name: [] for name in rows}
    for _ in range(7):  # in turns, so that a busy machine is busy for all
        for name, run in rows.items():
            times[name].append(seconds(run))
    base = statistics.median(times["pyarrow.csv.read_csv alone"])
    print(f"\n1,000,000 rows, 5 columns of ids and a target, {path.stat().st_size / 1e6:.0f} MB")
    for name, found in times.items():
        median = statistics.median(found)
        print(f"  {name:<38} {median:6.3f} s   {median / base:5.2f} x   (best {min(found):.3f} s)")


def memory(sizes: list[int]) -> None:
    print("\nfmexp run's load() and fit(): numpy_sgd, k=8, float64, shuffled, 5 epochs")
    print("anonymous: the greatest RssAnon while loading / while training\n")
    paths = {n_rows: Path(f"rows-{n_rows}.csv") for n_rows in sizes}
    first = {}
    for n_rows, path in paths.items():
        write_table(path, n_rows)
        first[n_rows] = run_child("child", "--path", str(path))
    warm: dict[int, list[dict[str, float]]] = {n_rows: [] for n_rows in sizes}
    for _ in range(3):  # in turns, so that a busy machine is busy for all
        for n_rows, path in paths.items():
            warm[n_rows].append(run_child("child", "--path", str(path)))
    for n_rows, path in paths.items():
        drop_from_page_cache(Path(".fmexp"))
        cold = run_child("child", "--path", str(path))
        print(f"{n_rows:,} rows, text {path.stat().st_size / 1e6:,.0f} MB")
        print(f"  from text:      {in_words(first[n_rows])}")
        middle = {key: statistics.median(run[key] for run in warm[n_rows]) for key in cold}
        print(f"  from the cache: {in_words(middle)}")
        print(f"  cold:           {in_words(cold)}; first epoch {cold['first'] / 1e6:.1f} M")
    print(f"cache of all: {size_of(Path('.fmexp')) / 1e6:,.0f} MB")


def shared(n_rows: int) -> None:
    """What rows cost that share genres, ages and histories: for gibbs, and written out."""
    from recommender import write as write_ratings  # Hydra: not in what is measured

    write_ratings(n_rows)
    joins = "data.joins={user: users.csv, item: items.csv}"
    names = {
        "user and item alone": [],
        "and joined ages, genres": [joins],
        "and lists of genres": [joins, 'data.lists={genres: "|"}'],
        "and histories": [joins, 'data.lists={genres: "|"}', "data.history={user: item}"],
    }
    print(f"\n{n_rows:,} ratings, 50 of a user on average; load() in seconds of CPU time,")
    print("the greatest RssAnon meanwhile, and what the encoded rows take\n")
    for name, keys in names.items():
        for backend in ("numpy_sgd", "gibbs"):
            found = run_child("shared-child", "--keys", f"backend={backend}", *keys)
            sizes = f"{found['anonymous']:5.0f} MB  {found['encoded']:5.0f} MB"
            print(
                f"  {name:<24} {backend:<10} {found['seconds']:5.2f} s  {sizes}, "
                f"{found['entries']:.1f} entries a row",
                flush=True,
            )


def shared_child(keys: list[str]) -> None:
    """Load, and print what it took."""
    from fmexp.config.compose import compose, parse_arguments
    from fmexp.data.loading import load_for
    from fmexp.data.related import Related, expanded

    words = ["data=csv", "data.path=ratings.csv", "split.by=column:part", *keys]
    config = compose(parse_arguments([*words, "data.categorical=[user,item]"])).config
    watch, began = Watch(), time.process_time()
    data = load_for(config)
    took, anonymous = time.process_time() - began, watch.restart()
    n_bytes = n_entries = n_rows = 0
    for part in filter(None, (data.train, data.validation, data.test)):
        rows, n_rows = part.features, n_rows + len(part.features)
        blocks = rows.blocks if isinstance(rows, Related) else ()
        shares = {id(block.rows): block.rows for block in blocks}.values()
        for each in (rows.own if isinstance(rows, Related) else rows, *shares):
            arrays = [each.indptr, each.indices, each.values]
            n_bytes += sum(array.nbytes for array in arrays if array is not None)
        n_bytes += sum(block.keys.nbytes for block in blocks)
        some = expanded(rows.take(slice(0, 10_000)))
        n_entries += len(some.indices) * len(rows) / len(some)
    found = {"seconds": took, "anonymous": anonymous, "encoded": n_bytes / 1e6}
    print(json.dumps(found | {"entries": n_entries / n_rows}))


def in_words(run: dict[str, float]) -> str:
    return (
        f"load {run['load']:5.2f} s, anonymous {run['anonymous_load']:.0f} / "
        f"{run['anonymous_fit']:.0f} MB, {run['rows_per_second'] / 1e6:.1f} M rows/s "
        f"({run['rows_per_cpu_second'] / 1e6:.1f} M in a second of CPU time)"
    )


def child(path: Path) -> None:
    """Load and train, and print what it took."""
    from fmexp.config.schema import SplitConfig
    from fmexp.data.loading import load
    from fmexp.training.fitting import fit

    config = run_config(path)
    warm_up()
    watch = Watch()
    began = time.perf_counter()
    data = load(config.data, SplitConfig(0.2, 0.2, None, 0), "regression")
    loaded = time.perf_counter() - began
    anonymous_load = watch.restart()
    ends, busy = [time.perf_counter()], [time.thread_time()]

    def after_epoch(*_: object) -> None:
        ends.append(time.perf_counter())
        busy.append(time.thread_time())

    fit(config, data, after_epoch)
    epochs = np.diff(ends)
    n = len(data.train.target) + len(data.validation.target)
    print(
        json.dumps(
            {
                "load": loaded,
                "anonymous_load": anonymous_load,
                "anonymous_fit": watch.restart(),
                "first": n / epochs[0],
                "rows_per_second": n / float(np.median(epochs[1:])),
                "rows_per_cpu_second": n / float(np.median(np.diff(busy)[1:])),
            }
        )
    )


def csv_config(path: Path) -> object:
    from fmexp.config.schema import CsvConfig
    from fmexp.config.shipped import shipped

    keys = {"path": str(path), "target": "y", "categorical": [f"c{j}" for j in range(5)]}
    return CsvConfig(**(shipped(data="csv")["data"] | keys))


def run_config(path: Path) -> object:
    from fmexp.config.checks import parse

    stopping = {
        "average_from": None,
        "cap_steps": True,
        "early_stopping": {"patience": None, "min_delta": 0.0},
    }
    training = {"learning_rate": 0.01, "epochs": 5, "shuffle": True, "learning_rate_decay": 0.0}
    training |= {"reg_w0": 0.0, "reg_w": 0.0, "reg_V": 0.0, **stopping}
    return parse(
        {
            "seed": 0,
            "task": "regression",
            "model": {"k": 8, "init_stdev": 0.01, "start": "normal", "clip": False},
            "training": training,
            "backend": {"name": "numpy_sgd", "dtype": "float64"},
            "data": vars(csv_config(path)),
            "split": {"validation": 0.2, "test": 0.2, "by": None, "seed": 0},
            "tracking": {"name": "none"},
        }
    )


def warm_up() -> None:
    """Import and compile what every size needs alike."""
    from fmexp.data.learn import Learning
    from fmexp.data.memory import from_table
    from fmexp.training.fitting import fit

    config = run_config(Path("none"))
    rows = {f"c{j}": ["a", "b"] * 20 for j in range(5)} | {"y": np.arange(40.0)}
    fit(config, from_table(rows, "y", config.split, Learning()))


class Watch:
    """The greatest anonymous resident memory, looked at every few milliseconds."""

    def __init__(self) -> None:
        self._most = 0.0
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            self._most = max(self._most, anonymous_megabytes())
            time.sleep(0.005)

    def restart(self) -> float:
        """Megabytes since the last call."""
        most, self._most = max(self._most, anonymous_megabytes()), 0.0
        return most


def anonymous_megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    return float(status.partition("RssAnon:")[2].split()[0]) / 1000


def run_child(*arguments: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def drop_from_page_cache(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
