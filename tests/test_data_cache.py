"""Large files: read once, mapped afterwards, never half-written, the same bits as in memory."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from fmexp.config.schema import SplitConfig
from fmexp.data import cache, encoded_split, features
from fmexp.data.dataset import Dataset, Part
from fmexp.data.features import CSR
from fmexp.errors import DataError, UserError
from fmexp.training.fitting import fit
from fmexp.training.passes import passes
from tests.data_support import PARTS, lines, load_csv, load_libsvm
from tests.training_fakes import make_config


@pytest.fixture
def small_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything goes through the cache, in blocks of 100 rows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cache, "SMALLEST", 0)
    monkeypatch.setattr(features, "CHUNK_ROWS", 100)
    monkeypatch.setattr(encoded_split, "CHUNK_ROWS", 100)
    return tmp_path


def table(folder: Path, n_rows: int = 1000, seed: int = 0) -> Path:
    draw = np.random.default_rng(seed)
    rows = [
        f"u{draw.integers(30)},{draw.integers(9)},{draw.normal():.4f},{draw.normal():.3f}"
        for _ in range(n_rows)
    ]
    (folder / "t.csv").write_bytes(lines("user,item,a,y", *rows))
    return folder / "t.csv"


def bits(data: Dataset) -> list[Any]:
    found: list[Any] = [data.data_digest, data.columns_digest, data.split_digest]
    found += [data.test_digest, data.encoder.to_json()]
    for part in (data.train, data.validation, data.test):
        assert isinstance(part, Part)
        x = part.features
        arrays = (x.indptr, x.indices, x.values) if isinstance(x, CSR) else (x,)
        found += [None if a is None else a.tobytes() for a in (*arrays, part.target, part.rows)]
    return found


@pytest.mark.parametrize("columns", [["user", "item", "a"], ["user", "item"], ["a"]])
@pytest.mark.parametrize("by", [None, "group:user", "time:a"])
def test_from_files_and_from_memory_come_the_same_bits(
    small_limits: Path, monkeypatch: pytest.MonkeyPatch, columns: list[str], by: str | None
) -> None:
    path, how = table(small_limits), SplitConfig(0.2, 0.3, by, 7)
    names = [name for name in columns if name != "a"]
    roles = {"categorical": names, "numeric": [name for name in columns if name == "a"]}
    roles["drop"] = [name for name in ("user", "item", "a") if name not in columns]
    first, again = load_csv(path, how, **roles), load_csv(path, how, **roles)
    assert isinstance(first.train.target.base, np.memmap)
    monkeypatch.setattr(cache, "SMALLEST", 1 << 40)
    in_memory = load_csv(path, how, **roles)
    assert not isinstance(in_memory.train.target.base, np.memmap)
    assert bits(first) == bits(again) == bits(in_memory)


def test_libsvm_text_gives_the_same_bits_from_files(
    small_limits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(3)
    rows = [f"{draw.normal():.3f} {j}:1 {40 + j}:{1 + (i > 700)}" for i, j in
            enumerate(draw.integers(1, 30, 1000))]  # fmt: skip
    (small_limits / "t.svm").write_bytes(lines(*rows))
    first = load_libsvm(small_limits / "t.svm", PARTS)
    monkeypatch.setattr(cache, "SMALLEST", 1 << 40)
    assert bits(first) == bits(load_libsvm(small_limits / "t.svm", PARTS))


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("dense", [True, False])
def test_training_from_files_gives_the_same_curve_as_from_memory(
    small_limits: Path, monkeypatch: pytest.MonkeyPatch, shuffle: bool, dense: bool
) -> None:
    path = table(small_limits)
    roles: dict[str, Any] = {"drop": ["user", "item"]} if dense else {"categorical": ["item"]}
    config = make_config(epochs=3, shuffle=shuffle, seed=2)
    from_files = fit(config, load_csv(path, PARTS, **roles))
    monkeypatch.setattr(cache, "SMALLEST", 1 << 40)
    from_memory = fit(config, load_csv(path, PARTS, **roles))
    assert from_files.train_losses == from_memory.train_losses
    assert from_files.validation_losses == from_memory.validation_losses


def test_rows_in_chunks_are_each_visited_once_an_epoch(small_limits: Path) -> None:
    visited: list[int] = []

    class Recorder:
        def train_chunk(self, _: float, chunk: slice, order: np.ndarray) -> float:
            visited.extend((chunk.start + order).tolist())
            return float(len(order))

    mean = passes(Recorder(), 1050, np.random.default_rng(0))(0.1)  # type: ignore[arg-type]
    assert mean == 1.0
    assert sorted(visited) == list(range(1050))
    assert visited[:100] != sorted(visited[:100])
    assert {row // 100 for row in visited[:50]} == {visited[0] // 100}


def test_the_text_is_read_once_and_again_when_it_changes(
    small_limits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fmexp.data import csv

    path = table(small_limits)
    before = load_csv(path, PARTS)
    with monkeypatch.context() as patch:
        patch.setattr(csv, "batches", None)
        assert bits(load_csv(path, PARTS)) == bits(before)
    table(small_limits, seed=1)
    os.utime(path, ns=(1, 1))
    assert load_csv(path, PARTS).data_digest != before.data_digest
    assert len(list((small_limits / ".fmexp" / "cache").iterdir())) == 1


def test_another_contract_has_a_cache_of_its_own(small_limits: Path) -> None:
    path = table(small_limits)
    names = load_csv(path, PARTS, categorical=["item"], numeric=["a"])
    numbers = load_csv(path, PARTS, categorical=[], numeric=["item", "a"])
    assert {c.name for c in names.encoder.categorical} == {"item", "user"}
    assert {c.name for c in numbers.encoder.numeric} == {"item", "a"}


@pytest.mark.parametrize("bad", ["x,y,z", "u1,2,3.5,inf", 'u1,"2,3.5,1'])
def test_a_wrong_row_leaves_no_cache_behind(small_limits: Path, bad: str) -> None:
    path = table(small_limits)
    path.write_bytes(path.read_bytes() + bad.encode())
    with pytest.raises(DataError, match="line 1002"):
        load_csv(path, PARTS)
    assert [p.name for p in small_limits.iterdir()] == ["t.csv"]


def test_an_impossible_split_leaves_no_cache_but_one_that_was_there(small_limits: Path) -> None:
    path, impossible = table(small_limits), SplitConfig(0.5, 0.499999, None, 0)
    with pytest.raises(DataError, match="leave none to train on"):
        load_csv(path, impossible)
    assert [p.name for p in small_limits.iterdir()] == ["t.csv"]
    load_csv(path, PARTS)
    before = sorted((small_limits / ".fmexp").rglob("*"))
    with pytest.raises(DataError, match="leave none to train on"):
        load_csv(path, impossible)
    assert sorted((small_limits / ".fmexp").rglob("*")) == before


BUILD = """
import sys
from pathlib import Path
from fmexp.data import cache
from tests.data_support import PARTS, load_csv
cache.SMALLEST = 0
write = cache.write_about
def stop(folder, about):
    print("written", flush=True)
    sys.stdin.read()
    write(folder, about)
if sys.argv[1] == "stop":
    cache.write_about = stop
print(load_csv(Path("t.csv"), PARTS).data_digest)
"""


def build(folder: Path, how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, how],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_killed_build_leaves_nothing_that_is_used_and_is_swept_up(tmp_path: Path) -> None:
    table(tmp_path)
    process = build(tmp_path, "stop")
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (left,) = (tmp_path / ".fmexp" / "cache").iterdir()
    assert left.name.startswith(".")
    again = build(tmp_path, "go")
    out, _ = again.communicate()
    assert out.strip() == load_csv(tmp_path / "t.csv", PARTS).data_digest
    assert not [p for p in (tmp_path / ".fmexp" / "cache").iterdir() if p.name.startswith(".")]


def test_a_build_of_a_live_process_is_left_alone_whatever_its_number(tmp_path: Path) -> None:
    table(tmp_path)
    process = build(tmp_path, "stop")
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    (live,) = (tmp_path / ".fmexp" / "cache").iterdir()
    elsewhere = live.with_name(".t-0.999999999")  # so it was called on a host with other numbers
    live.rename(elsewhere)
    build(tmp_path, "go").communicate()
    assert (elsewhere / "0.bin").exists()
    process.kill()
    process.communicate()


def test_four_builds_at_once_agree(tmp_path: Path) -> None:
    table(tmp_path)
    said = {process.communicate()[0] for process in [build(tmp_path, "go") for _ in range(4)]}
    assert said == {load_csv(tmp_path / "t.csv", PARTS).data_digest + "\n"}
    assert len(list((tmp_path / ".fmexp" / "cache").iterdir())) == 1


def test_what_another_process_has_made_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    def made(what: int) -> int:
        with cache.new_folder(tmp_path / "made") as folder:
            cache.write_about(folder, {"what": what})
        assert [p.name for p in tmp_path.iterdir()] == ["made"]
        return (tmp_path / "made").stat().st_ino

    assert made(1) == made(1) != made(2)


def test_a_folder_that_another_process_takes_for_abandoned_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the moment in which its lock appears and that in which it is held."""
    flock, swept = fcntl.flock, list[Path]()

    def late(lock: IO[str], how: int) -> None:
        if not swept:
            swept.append(tmp_path)
            cache._remove_abandoned(tmp_path)
        flock(lock, how)

    monkeypatch.setattr("fmexp.data.cache.fcntl.flock", late)
    with cache.new_folder(tmp_path / "made") as folder:
        (folder / "0.bin").touch()
    assert (tmp_path / "made" / "0.bin").exists()


def test_a_folder_that_cannot_be_written_is_an_error_in_words(
    small_limits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = table(small_limits)
    (small_limits / ".fmexp").write_text("a file in the way")
    with pytest.raises(UserError, match=r"must be a folder of its own, and is a file"):
        load_csv(path, PARTS)
