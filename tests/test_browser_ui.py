"""`fmexp ui` on a store with a real sweep, looked at through headless Chromium."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from itertools import takewhile

import pytest

from tests.browser_support import a_sweep, chromium, look_until  # noqa: F401 -- a fixture
from tests.sweep_support import left_in
from tests.test_ui import free_port


@contextmanager
def ui(folder):
    """The addresses that a running `fmexp ui` printed, by what they are."""
    server = subprocess.Popen(
        [sys.executable, "-m", "fmexp", "ui", "--port", str(free_port())],
        cwd=folder, stdout=subprocess.PIPE, text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")},
    )  # fmt: skip
    try:
        lines = list(takewhile(lambda line: "Ctrl-C" not in line, server.stdout))
        found = [re.match(r"  (.*?) +(http://\S+)$", line) for line in lines]
        yield {match[1]: match[2] for match in found if match}
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ui")
    a_sweep(folder)
    return folder


@pytest.fixture(scope="module")
def addresses(folder):
    with ui(folder) as found:
        yield found


@pytest.fixture(scope="module")
def best(folder):
    """The names of the completed trials' runs, best first."""
    left = left_in(folder)
    done = sorted((t for t in left.counted if t.value is not None), key=lambda t: t.value)
    return [left.children[t.number].name for t in done]


def test_the_sweeps_page_has_its_children_and_its_winner_in_words(
    addresses,
    best,
    chromium,  # noqa: F811
    tmp_path,
):
    page = look_until(
        chromium, addresses["the newest sweep"], tmp_path, "sweep demo", "Child runs",
        "A search for the lowest best/val_mse", "Winner", "6: k=8", "2: k=6",
    )  # fmt: skip
    assert best[0].partition(": ")[2] in page


def test_the_curves_of_all_trials_are_drawn(addresses, best, chromium, tmp_path):  # noqa: F811
    wanted = ["val/mse", "train/mse", "best/val_mse", "js-line", "Factorization Machines by fmexp"]
    page = look_until(chromium, addresses["its trials' curves"], tmp_path, *wanted, *best[:3])
    assert "sweep demo" not in page


def test_the_best_five_stand_side_by_side(addresses, best, chromium, tmp_path):  # noqa: F811
    page = look_until(
        chromium, addresses["its best 5 compared"], tmp_path, "Comparing 5 Runs", *best[:3]
    )
    assert "model.k" in page
    assert "2: k=6" not in page  # pruned


def test_all_runs_show_the_parent_with_its_section_per_kind_of_metric(
    addresses,
    chromium,  # noqa: F811
    tmp_path,
):
    wanted = ("sweep demo", ">trials<", ">best<")
    look_until(chromium, addresses["all runs side by side"], tmp_path, *wanted)


def test_the_primary_metric_is_set_and_a_persons_own_note_stays(folder, addresses):
    from mlflow import MlflowClient

    from fmexp.cli.ui import prepare

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    assert client.get_experiment("1").tags["mlflow.experiment.primaryMetric.name"] == "best/val_mse"
    client.set_experiment_tag("1", "mlflow.note.content", "mine")
    prepare("127.0.0.1", int(re.search(r":(\d+)/", addresses["all experiments"])[1]))
    assert client.get_experiment("1").tags["mlflow.note.content"] == "mine"
