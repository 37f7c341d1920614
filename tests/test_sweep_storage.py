"""A study's journal outlives kills; a storage that cannot be is refused with the reason."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from fmexp.errors import MissingPackageError, StoreError, UserError
from fmexp.sweep import storage
from fmexp.sweep.storage import (
    JOURNAL,
    JournalLock,
    locate_storage,
    open_storage,
)

WRITER = """
import sys
from pathlib import Path
import optuna
from fmexp.sweep.storage import open_storage
study = optuna.load_study(study_name="s", storage=open_storage(None, Path()))
print("open", flush=True)
for i in range(int(sys.argv[2])):
    study.set_user_attr(f"{sys.argv[1]}:{i}", "x" * 3000)
"""
HOLDER = """
import sys
from pathlib import Path
from fmexp.sweep.storage import JournalLock
JournalLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def process(code, *arguments, cwd=None):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )


def killed(child):
    child.send_signal(signal.SIGKILL)
    child.communicate()


def create(folder):
    return optuna.create_study(study_name="s", storage=open_storage(None, folder))


def reload(folder):
    return optuna.load_study(study_name="s", storage=open_storage(None, folder))


def test_four_processes_append_without_losing_a_line(tmp_path):
    create(tmp_path)
    children = [process(WRITER, name, 25, cwd=tmp_path) for name in "abcd"]
    for child in children:
        child.communicate(timeout=60)
        assert child.returncode == 0
    assert len(reload(tmp_path).user_attrs) == 100
    assert [p.name for p in tmp_path.iterdir()] == [JOURNAL]


def test_lock_of_a_killed_process_is_free_at_once(tmp_path):
    holder = process(HOLDER, tmp_path / JOURNAL)
    assert holder.stdout.readline() == "held\n"
    waiter = process(HOLDER, tmp_path / JOURNAL)
    killed(holder)
    assert waiter.stdout.readline() == "held\n"
    killed(waiter)


def test_lock_keeps_threads_of_one_process_apart(tmp_path):
    lock, inside, most = JournalLock(tmp_path / JOURNAL), [], []

    def enter(name):
        for _ in range(100):
            lock.acquire()
            inside.append(name)
            most.append(len(inside))
            inside.remove(name)
            lock.release()

    threads = [threading.Thread(target=enter, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 400


def test_who_waits_long_for_a_stopped_writer_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(storage, "_PATIENCE_SECONDS", 0.05)
    lock = JournalLock(tmp_path / JOURNAL)
    lock.acquire()
    waiting = threading.Thread(target=lambda: lock.acquire() and lock.release())
    waiting.start()
    while not caplog.records:
        time.sleep(0.01)
    lock.release()
    waiting.join()
    assert "is being written by a process that does not go on" in caplog.text


@pytest.mark.parametrize("moment", range(3))
def test_kills_in_mid_append_leave_a_journal_that_all_can_use(moment, tmp_path):
    study = create(tmp_path)
    for n in range(4):
        child = process(WRITER, f"{n}", 100_000, cwd=tmp_path)
        child.stdout.readline()
        seen = len(study.user_attrs)
        while len(study.user_attrs) < seen + 3 * moment + n:
            pass  # it is writing
        killed(child)
        study.set_user_attr(f"survivor:{n}", True)
    attributes = reload(tmp_path).user_attrs
    assert {f"survivor:{n}" for n in range(4)} <= attributes.keys()
    lines = (tmp_path / JOURNAL).read_text().splitlines()
    assert {json.loads(line)["op_code"] for line in lines} == {0, 2}


@pytest.mark.parametrize("torn", [b'{"op_code": 2, "stu', b"\x00" * 200_000, b"{}"])
def test_torn_last_line_is_cut_off_and_kept_aside(torn, tmp_path):
    create(tmp_path).set_user_attr("before", 1)
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(torn)
    study = reload(tmp_path)
    study.set_user_attr("after", 2)
    assert reload(tmp_path).user_attrs == {"before": 1, "after": 2}
    (aside,) = tmp_path.glob(f"{JOURNAL}.torn-*")
    assert aside.read_bytes() == torn


def test_line_torn_while_others_work_is_cut_off_before_their_next_write(tmp_path):
    study = create(tmp_path)
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"op_code": 2, "stu')
    study.set_user_attr("after", 2)
    assert study.user_attrs == reload(tmp_path).user_attrs == {"after": 2}


def test_journal_that_is_torn_from_its_first_byte_starts_anew(tmp_path):
    (tmp_path / JOURNAL).write_bytes(b'{"op_co')
    create(tmp_path)
    assert reload(tmp_path).study_name == "s"


def test_study_opens_in_plain_optuna(tmp_path):
    study = create(tmp_path)
    study.tell(study.ask(), 1.5)
    plain = JournalStorage(JournalFileBackend(str(tmp_path / JOURNAL)))
    again = optuna.load_study(study_name="s", storage=plain)
    again.enqueue_trial({"k": 3})  # the other kind of lock finds nothing in its way
    assert again.best_value == 1.5
    assert len(study.trials) == 2


@pytest.mark.parametrize(
    ("url", "located"),
    [
        (None, "journal://{}/optuna.journal"),
        ("journal:///tmp/a.log", "journal:///tmp/a.log"),
        ("a.journal", "journal://{}/a.journal"),
        ("/tmp/b.journal", "journal:///tmp/b.journal"),
        ("sqlite:///a.db", "sqlite:///{}/a.db"),
        ("sqlite:////tmp/a.db", "sqlite:////tmp/a.db"),
        ("postgresql://me:pw@host/db", "postgresql+psycopg://me:pw@host/db"),
        ("postgres://host/db", "postgresql+psycopg://host/db"),
    ],
)
def test_storage_is_located_from_any_folder(url, located, tmp_path):
    first = locate_storage(url, tmp_path)
    assert first == located.format(tmp_path)
    assert locate_storage(first, tmp_path / "elsewhere") == first


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://me:secret@host/db", "'mysql://me:\\*\\*\\*@host/db'; expected null"),
        ("redis://host", "no study can be kept"),
        ("study.db", "no study can be kept"),
        ("sqlite://", "no study can be kept"),
        ("sqlite:///:memory:", "no study can be kept"),
        ("nowhere/a.journal", "has no folder"),
        ("sqlite:///nowhere/a.db", "has no folder"),
        ("folder.journal", "is a folder"),
    ],
)
def test_storage_that_cannot_be_is_refused(url, message, tmp_path):
    (tmp_path / "folder.journal").mkdir()
    with pytest.raises(UserError, match=message):
        open_storage(url, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.journal"]


def test_sqlite_keeps_a_study_but_for_one_worker_only(tmp_path):
    storage = open_storage("sqlite:///a.db", tmp_path)
    study = optuna.create_study(study_name="s", storage=storage)
    study.tell(study.ask(), 1.0)
    assert (tmp_path / "a.db").exists()
    locate_storage("sqlite:///a.db", tmp_path, 1)
    locate_storage(None, tmp_path, 4)
    with pytest.raises(UserError, match=r"n_jobs=2 .* journal file.* PostgreSQL"):
        locate_storage("sqlite:///a.db", tmp_path, 2)


def test_file_that_is_something_else_is_refused(tmp_path):
    (tmp_path / "a.db").write_text("name,age\n" * 1000)
    (tmp_path / "a.journal").write_text("name,age\nme,3\n")
    with pytest.raises(UserError, match="file is not a database"):
        open_storage("sqlite:///a.db", tmp_path)
    with pytest.raises(UserError, match="is not a journal of Optuna"):
        open_storage("a.journal", tmp_path)
    assert (tmp_path / "a.journal").read_text() == "name,age\nme,3\n"


def test_missing_driver_is_named_with_its_command_and_without_the_password(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingPackageError, match=r"pip install 'psycopg\[binary\]'") as caught:
        open_storage("postgresql://me:secret@host/db", tmp_path)
    assert "secret" not in str(caught.value)


def test_database_that_does_not_answer_is_named_without_the_password(tmp_path):
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError, match="is it running") as caught:
        open_storage("postgresql://me:secret@127.0.0.1:1/db", tmp_path)
    assert "secret" not in str(caught.value)
