"""Bytes of valid files are changed, and commands must end with 0, 1 or 2 and a message.

    python -m tests.hostile.fuzz CASES [KIND ...]

In a process of its own, since it limits its memory to one gigabyte more than it begins with. Prints
each kind as it is done, and the bytes with which a command failed.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # the other one reserves a gigabyte at once

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import fmexp
from fmexp.cli.parser import main
from fmexp.config import compose
from tests.hostile.support import plant_run

SECONDS, WAITING = 10, 120
"""Of computing, which other programs of the machine do not lengthen; and in all."""
GIGABYTE = 1 << 30
SPECIAL = [b"\x00", b"\xff", b"{", b"[", b'"', b"\n", b"-", b"1e999", b"99999999999", b"null",
           b"&a", b"*a", b"${", b"nan", b":", b"true", b"[[[[", b"\xed\xa0\x80"]  # fmt: skip
EDITS = st.lists(
    st.tuples(
        st.floats(0, 1), st.integers(0, 40), st.one_of(st.sampled_from(SPECIAL), st.binary())
    ),
    min_size=1, max_size=6,
)  # fmt: skip
"""Where (as a fraction of the file), how many bytes go, what comes instead."""

SWEEP = ["run", "-m", "tracking=none", "training.epochs=1", "hydra.sweeper.n_trials=1"]


def edited(whole: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    for place, cut, put in edits:
        at = int(place * len(whole))
        whole = whole[:at] + put + whole[at + cut :]
    return whole


def command(words: list[str]) -> int:
    """Run a command; it must end in time, without a traceback, and a failure says something."""
    out, err = io.StringIO(), io.StringIO()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(WAITING)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(words)
            except SystemExit as left:
                code = int(left.code or 0)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
    assert code in (0, 1, 2), code
    assert "Traceback" not in err.getvalue(), err.getvalue()
    assert code == 0 or err.getvalue() or out.getvalue()
    return code


def fuzz(file: Path, words: list[str], cases: int, then: Callable[[], None] = lambda: None) -> None:
    """Run a command on many changed versions of a file."""
    whole = file.read_bytes()

    @settings(
        max_examples=cases, deadline=None, database=None, derandomize=cases <= 200,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(EDITS)
    def changed(edits: list[tuple[float, int, bytes]]) -> None:
        file.write_bytes(edited(whole, edits))
        command(words)
        then()

    try:
        changed()
    except BaseException:
        print(f"{file} failed as {file.read_bytes()!r}")
        raise
    file.write_bytes(whole)


def make_yaml() -> tuple[list[Path], list[str]]:
    file = Path("theirs/experiment/x.yaml")
    file.parent.mkdir(parents=True)
    file.write_text(
        "# @package _global_\ndefaults:\n  - override /backend: numpy_sgd\nseed: 1\n"
        "model: {k: 4, init_stdev: 0.1}\ntraining:\n  epochs: 1\n  learning_rate: ${.reg_w}\n"
        "  reg_w: &x 0.01\n  reg_V: *x\nhydra: {sweeper: {n_trials: 3}}\n"
    )
    words = ["run", "--config-dir", "theirs", "+experiment=x", "tracking=none", "--cfg", "job"]
    return [file], words


def make_model() -> tuple[list[Path], list[str]]:
    """One with all that an encoder can hold: numbers, names, dates, a list, a joined table."""
    rows = range(40)
    frame = pd.DataFrame({"a": rows, "b": [f"b{i % 3}" for i in rows], "y": rows})
    frame["when"] = [f"{1 + i % 28}.3.2024" for i in rows]
    frame["tags"] = ["red;blue" if i % 2 else "red" for i in rows]
    frame.to_csv("rows.csv", index=False)
    Path("b.csv").write_text("b,size,colour\nb0,1,x\nb1,2,y\nb2,4,x\n")
    run = fmexp.run(
        "data=csv", "data.path=rows.csv", "data.target=y", "tracking=none", "training.epochs=2",
        "data.dates={when: '%d.%m.%Y'}", "data.date_parts=[month]", "data.lists={tags: ';'}",
        "data.joins={b: b.csv}", "model.k=3",
    )  # fmt: skip
    assert run.model is not None
    run.model.save(Path("model"))
    words = ["predict", "model", "--data", "rows.csv"]
    return [Path("model/model.json"), Path("model/parameters.npz")], words


def make_spool() -> tuple[list[Path], list[str]]:
    run = plant_run(Path.cwd(), "http://127.0.0.1:9/other")
    return [run / "events.jsonl", run.parent / "store.json"], ["doctor"]


def make_journal() -> tuple[list[Path], list[str]]:
    command(SWEEP)
    compose.refuse_foreign_code = lambda _: None  # two thirds of the time, and not what is tried
    return [Path("optuna.journal")], SWEEP


def make_parquet() -> tuple[list[Path], list[str]]:
    table = pd.DataFrame({"a": np.arange(60.0), "b": [f"c{i % 3}" for i in range(60)]})
    table.assign(y=np.arange(60)).to_parquet("t.parquet")
    return [Path("t.parquet")], ["data", "t.parquet", "--target", "y"]


def make_libsvm() -> tuple[list[Path], list[str]]:
    Path("t.libsvm").write_text("".join(f"{i}.5 1:{i} {2 + i % 5}:1 # c\n" for i in range(40)))
    return [Path("t.libsvm")], ["data", "t.libsvm"]


KINDS = {"yaml": make_yaml, "model": make_model, "spool": make_spool, "journal": make_journal,
         "parquet": make_parquet, "libsvm": make_libsvm}  # fmt: skip


def fuzz_kind(kind: str, cases: int) -> None:
    """All files of a kind, in a folder of their own."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            files, words = KINDS[kind]()
            assert command(words) == (1 if kind == "spool" else 0)
            then = partial(shutil.rmtree, ".fmexp/cache", ignore_errors=True)
            for file in files:
                fuzz(file, words, cases // len(files), then)
        finally:
            os.chdir(before)


def out_of_time(*_: object) -> None:
    raise TimeoutError(f"a command took more than {SECONDS} s")


if __name__ == "__main__":
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    signal.signal(signal.SIGALRM, out_of_time)
    signal.signal(signal.SIGPROF, out_of_time)
    command(["run", "tracking=none", "training.epochs=1"])  # loads everything
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + GIGABYTE, used + GIGABYTE))
    for each in sys.argv[2:] or KINDS:
        fuzz_kind(each, int(sys.argv[1]))
        print(f"{each}: {sys.argv[1]} cases", flush=True)
