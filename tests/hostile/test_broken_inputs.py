"""Files that are damaged, or made to harm, given to commands: a sentence, no traceback."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from fmexp.cli.parser import main

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    "text",
    [
        b"a: [1, 2", b"a: 'x", b"\x00\x01\xff\xfe", b"a: \xff\n", b"\t- a",
        b"a: !!python/name:os.x",
        b"a: 1\na: 2\n- b", b"- " * 3000, b"[" * 3000, b"a: &a [*a]\n", b"a: *nobody",
        LAUGHS.encode(), b"{}: {}\n? [1]: 2\n", b"a: 2026-13-45\n", b"---\na: 1\n---\nb: 2\n",
        b"a: ${" * 500, b"a: ${oc.env:${a}}", b"x" * 2_000_000, b"seed: " + b"9" * 5000,
    ],
)  # fmt: skip
def test_broken_yaml_is_refused(text, here, refused):
    file = here / "theirs" / "experiment" / "x.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(text)
    assert refused("run", "--config-dir", "theirs", "+experiment=x", "tracking=none")


@pytest.fixture
def model(here, monkeypatch) -> Path:
    """The folder of a model that works, with a table for it beside it."""
    from fmexp import FMRegressor

    (here / "table.csv").write_text("a,b,y\n" + "".join(f"{i},{i % 3},{i}\n" for i in range(40)))
    frame = pd.read_csv(here / "table.csv")
    FMRegressor(k=8, epochs=2).fit(frame[["a", "b"]], frame["y"]).save(here / "model")
    return here / "model"


def arrays(folder: Path, **changed: object) -> None:
    """Write the parameters anew with some of them changed."""
    with np.load(folder / "parameters.npz") as kept:
        np.savez(folder / "parameters.npz", **{**kept, **changed})


def description(folder: Path, change) -> None:
    """Write the description anew after a change."""
    tree = json.loads((folder / "model.json").read_text())
    change(tree)
    (folder / "model.json").write_text(json.dumps(tree))


BROKEN_MODELS = {
    "objects": lambda f: arrays(f, w=np.array(["a", "b"])),
    "complex": lambda f: arrays(f, w=np.zeros(2, complex)),
    "no finite numbers": lambda f: arrays(f, V=np.full((2, 8), np.nan)),
    "w0 is an array": lambda f: arrays(f, w0=np.zeros(3)),
    "w0 is a text": lambda f: arrays(f, w0=np.array("x")),
    "V has one dimension": lambda f: arrays(f, V=np.zeros(2)),
    "w has two dimensions": lambda f: arrays(f, w=np.zeros((2, 2))),
    "w is longer": lambda f: arrays(f, w=np.zeros(9)),
    "a bad zip": lambda f: (f / "parameters.npz").write_bytes(b"PK\x03\x04 and rubbish"),
    "a plain array": lambda f: plain_array(f),
    "a text": lambda f: (f / "parameters.npz").write_text("hello"),
    "a folder": lambda f: [(f / "parameters.npz").unlink(), (f / "parameters.npz").mkdir()],
    "a huge array": lambda f: zip_bomb(f),
    "scale of 0": lambda f: encoder(f, lambda e: e["numeric"][0].update(scale=0)),
    "scale as a text": lambda f: encoder(f, lambda e: e["numeric"][0].update(scale="1")),
    "scale not finite": lambda f: encoder(f, lambda e: e.update(target_scale=1e999)),
    "target scale of 0": lambda f: encoder(f, lambda e: e.update(target_scale=0)),
    "a name that is none": lambda f: encoder(f, lambda e: e["numeric"][0].update(name=[1])),
    "labels": lambda f: encoder(f, lambda e: e.update(labels=["a"])),
    "a task that is none": lambda f: description(f, lambda t: t.update(task="ranking")),
    "clip is a text": lambda f: description(f, lambda t: t.update(clip="yes")),
    "no object": lambda f: (f / "model.json").write_text("[1]"),
    "deep": lambda f: (f / "model.json").write_text("[" * 100_000),
    "binary": lambda f: (f / "model.json").write_bytes(b"\xff\xfe\x00"),
    "a huge number": lambda f: (f / "model.json").write_text("9" * 10_000),
}


def encoder(folder: Path, change) -> None:
    """The same for the encoder in it."""
    description(folder, lambda tree: change(tree["encoder"]))


def plain_array(folder: Path) -> None:
    np.save(folder / "x.npy", np.zeros(3))
    (folder / "x.npy").replace(folder / "parameters.npz")


def zip_bomb(folder: Path) -> None:
    """An array file that unpacks to 1 GB of zeros, of the 4 that its header promises."""
    header = b"\x93NUMPY\x01\x00v\x00" + str(
        {"descr": "<f8", "fortran_order": False, "shape": (1 << 29,)}
    ).encode().ljust(117) + b"\n"  # fmt: skip
    with zipfile.ZipFile(
        folder / "parameters.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1
    ) as z:
        with z.open("w.npy", "w", force_zip64=True) as w:
            w.write(header)
            for _ in range(16):
                w.write(bytes(1 << 26))
        z.writestr("w0.npy", header)


@pytest.mark.parametrize("how", BROKEN_MODELS)
def test_a_model_folder_that_is_broken_is_refused(how, model, refused):
    BROKEN_MODELS[how](model)
    assert "model" in refused("predict", "model", "--data", "table.csv")


FIRST = '{"op_code":0,"worker_id":"a","study_name":"s","directions":[1]}\n'


@pytest.mark.parametrize(
    "line",
    [
        '{"op_code":99,"worker_id":"a"}', '{"op_code":"x"}', '{"op_code":1}', "[1]", "null", "{",
        '{"op_code":4,"worker_id":"a","study_id":7,"datetime_start":"x"}',
        '{"op_code":2,"worker_id":"a","study_id":0,"user_attr":5}',
        '{"op_code":4,"worker_id":"a","study_id":0,"datetime_start":"no date"}',
        '{"op_code":0,"worker_id":"a","study_name":"s2","directions":"up"}',
        '{"op_code":2,"worker_id":"a","study_id":0,"user_attr":{"space":"{","plan":1}}',
        "[" * 5000,
    ],
)  # fmt: skip
def test_a_journal_with_lines_that_are_not_optunas_is_refused(line, here, capsys):
    (here / "optuna.journal").write_text(f"{FIRST}{line}\n")
    code = main(["run", "-m", "tracking=none", "training.epochs=1", "hydra.sweeper.n_trials=1",
                 "hydra.sweeper.study_name=s"])  # fmt: skip
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert (code, "optuna.journal" in printed) in {(2, True), (0, False)}


def parquet_file(names: list[str], columns: list[pa.Array]) -> None:
    parquet.write_table(pa.Table.from_arrays(columns, names), "t.parquet", compression="gzip")


NUMBERS = pa.array([float(i % 7) for i in range(200)])


def broken_pages() -> None:
    parquet_file(["a", "y"], [NUMBERS, NUMBERS])
    whole = bytearray(Path("t.parquet").read_bytes())
    whole[40:200] = b"\xff" * 160
    Path("t.parquet").write_bytes(whole)


def invalid_text() -> None:
    buffers = pa.array([b"\xff\xfe"] * 200, pa.binary()).buffers()
    parquet_file(["a", "y"], [pa.Array.from_buffers(pa.string(), 200, buffers), NUMBERS])


def cut_short() -> None:
    parquet_file(["a", "y"], [NUMBERS, NUMBERS])
    Path("t.parquet").write_bytes(Path("t.parquet").read_bytes()[:-40])


def with_column(column: pa.Array):
    return lambda: parquet_file(["a", "y"], [column, NUMBERS])


BROKEN_PARQUET = {
    "names twice": lambda: parquet_file(["a", "a", "y"], [NUMBERS] * 3),
    "a target twice": lambda: parquet_file(["y", "a", "y"], [NUMBERS] * 3),
    "invalid UTF-8": invalid_text,
    "corrupt pages": broken_pages,
    "no column": lambda: parquet_file([], []),
    "cut short": cut_short,
    "only the magic": lambda: Path("t.parquet").write_bytes(b"PAR1" * 3),
    "only nulls": with_column(pa.nulls(200)),
    "durations": with_column(pa.array([1] * 200, pa.duration("s"))),
    "decimals": with_column(pa.array([1] * 200, pa.decimal128(30, 5))),
    "bytes": with_column(pa.array([b"\xff"] * 200)),
}
CAN_BE_USED = {"only nulls", "decimals", "durations", "bytes"}


@pytest.mark.parametrize("how", BROKEN_PARQUET)
def test_parquet_that_is_broken_is_refused(how, here, capsys):
    BROKEN_PARQUET[how]()
    for command in (["data", "t.parquet", "--target", "y"],
                    ["run", "data=parquet", "data.path=t.parquet", "data.target=y", "tracking=none",
                     "training.epochs=1"]):  # fmt: skip
        code = main(command)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        assert code == 2 or (code == 0 and how in CAN_BE_USED), printed.err
        assert code == 0 or "t.parquet" in printed.err


@pytest.mark.parametrize("encoding", ["klingon", "rot13", "hex", "idna", "\x00", "zlib"])
def test_an_encoding_that_is_none_is_refused(encoding, here, refused):
    (here / "t.csv").write_text("a,y\n1,2\n" * 40)
    assert "encoding" in refused("data", "t.csv", "--encoding", encoding)
    assert "encoding" in refused("run", "data=csv", "data.path=t.csv", "data.target=y",
                                 f"data.encoding='{encoding}'", "tracking=none")  # fmt: skip


@pytest.mark.parametrize("number", [2147483646, 1_000_000_000])
def test_a_feature_number_that_takes_all_memory_is_refused_with_its_line(number, here, refused):
    (here / "t.libsvm").write_text("1 1:1\n" * 50 + f"0 2:1 {number}:1\n" + "1 1:1\n" * 50)
    said = refused("run", "data=libsvm", "data.path=t.libsvm", "tracking=none")
    assert f"t.libsvm, line 51: a feature numbered {number:,}" in said


@pytest.mark.parametrize("limit", [1_500_000, 2_500_000])
def test_a_limit_of_memory_counts(limit, fmexp):
    (fmexp.folder / "t.libsvm").write_text("1 1:1\n0 20000000:1\n" * 50)
    done = subprocess.run(
        ["bash", "-c", f'ulimit -v {limit}; exec "$0" "$@"', sys.executable, "-m", "fmexp", "run",
         "data=libsvm", "data.path=t.libsvm", "tracking=none"],
        cwd=fmexp.folder, env=fmexp.environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.returncode in (1, 2)
    assert "memory" in done.stderr


def test_memory_that_ends_anywhere_ends_in_a_sentence(here, monkeypatch, capsys):
    def run_out(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("fmexp.cli.jobs.load_for", run_out)
    assert main(["run", "tracking=none"]) == 1
    assert "there is not enough memory" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["data", "t.csv", "--target", "y"], ["--version"], ["--help"],
                                     ["run", "--help"], ["run", "--cfg", "job"]])  # fmt: skip
def test_a_full_device_ends_in_a_sentence(command, here):
    (here / "t.csv").write_text("a,y\n" + "".join(f"{i},{i}\n" for i in range(40)))
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "fmexp", *command], cwd=here, stdout=full,
                              stderr=subprocess.PIPE, text=True, check=False)  # fmt: skip
    assert done.returncode == 1
    assert "fmexp: the output cannot be written: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8"])
def test_values_that_are_not_ascii_work_in_a_plain_locale(locale, fmexp):
    fmexp.env |= {"LC_ALL": locale}
    (fmexp.folder / "prix.csv").write_text("né,prix €\n" + "".join(f"{i},{i}\n" for i in range(40)))
    run = ["run", "data=csv", "data.path=prix.csv", "data.target='prix €'", "tracking=none"]
    assert "completed" in fmexp(*run, "training.epochs=2")


def test_words_that_are_not_text_here_are_refused(fmexp):
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    for env, word in (({}, b"data.path=\xff.csv"), (ascii_only, "data.target=€".encode())):
        done = subprocess.run(
            [sys.executable, "-m", "fmexp", b"run", b"data=csv", word], cwd=fmexp.folder,
            capture_output=True, check=False, env=fmexp.environment() | env,
        )  # fmt: skip
        assert done.returncode == 2
        assert b"is not text in the encoding of this system" in done.stderr
