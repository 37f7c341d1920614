"""What the tests share: the command as a process, and the store it wrote to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fmexp.cli.parser import main
from tests.record_support import copy_store, empty_store, store_folder  # noqa: F401 -- fixtures
from tests.slurm_support import nodes  # noqa: F401

SLOW = {
    "test_backends_sgd_bits", "test_browser_ui", "test_export", "test_gibbs_calibration",
    "test_postgresql", "test_report", "test_reproduce", "test_scale", "test_slurm",
    "test_four_machines_that_start_at_once_do_one_sweep_exactly",
    "test_a_killed_worker_of_a_launcher_costs_no_trial_and_shows_no_traceback",
    "test_a_run_that_its_user_closed_is_left_alone",
    "test_data_drawn_anew_after_each_sweep_leave_the_prior_as_it_is",
    "test_doctor_settles_what_a_killed_sweep_left",
    "test_four_trackers_at_once_on_an_empty_folder", "test_hydras_own_sweeper_leaves_plain_runs",
    "test_mlflow_is_mended_from_the_study_in_both_directions",
    "test_the_commands_of_help_work_after_make_run",
    "test_the_commands_of_the_first_hour_work", "test_the_tutorial_goes_as_it_says",
    "test_three_worker_processes_of_a_command_prune", "test_record_kills", "test_ui",
    "test_a_sweep_through_a_proxy_is_exact_and_waits_for_one_that_is_restarted",
    "test_no_workers_command_line_and_no_file_of_a_sweep_holds_a_password",
    "test_what_hydra_writes_down_of_an_applications_sweep_holds_no_password",
    "test_what_a_folder_says_that_jobs_returned_is_not_where_it_is_looked_for",
    "test_fmexp_ui_runs_no_module_of_the_folder", "test_hangs", "test_fuzz", "test_start_notebook",
    "test_what_the_page_on_reports_shows_works", "test_what_the_page_on_sweeps_shows_works",
    "test_who_is_left_runs_a_killed_workers_trial_again",
}  # fmt: skip
"""Files and tests that take a third of the time; CI runs them too (FMEXP_SLOW=1)."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("FMEXP_SLOW") or os.environ.get("FMEXP_SOAK"):
        return
    for item in items:
        if SLOW & {item.path.stem, item.name.partition("[")[0]}:
            item.add_marker(pytest.mark.skip(reason="slow: FMEXP_SLOW=1 make test runs it"))


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun with `&`, and so would be commands
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass
class Command:
    """Runs `fmexp` in a folder of its own, as a user would."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    made_store: Path | None = None
    """An empty store to begin with: MLflow takes seconds to make its tables."""

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "FMEXP_"))}
        return kept | {"PYTHONWARNINGS": "default"} | self.env

    def start(self, *arguments: str, **options: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "fmexp", *arguments],
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run to the end; returns stdout and stderr together."""
        keeps_nothing = any("tracking=none" in a or "dry_run" in a for a in arguments)
        if self.made_store and arguments[0] == "run" and code != 2 and not keeps_nothing:
            self.use_made_store()
        process = self.start(*arguments)
        out, err = process.communicate(timeout=120)
        assert process.returncode == code, f"exit {process.returncode}\n{out}\n{err}"
        assert "Traceback" not in err, err
        return out + err

    def use_made_store(self) -> None:
        """Begin with an empty store instead of none."""
        if self.made_store and not (self.folder / "mlflow.db").exists():
            copy_store(self.made_store, self.folder)

    @property
    def store(self):
        """A client on the folder's own store."""
        from mlflow import MlflowClient

        return MlflowClient(f"sqlite:///{self.folder}/mlflow.db")

    def runs(self):
        """Every run of every experiment, oldest first."""
        client = self.store
        experiments = [e.experiment_id for e in client.search_experiments()]
        return client.search_runs(experiments, order_by=["attributes.start_time ASC"])


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """A command that must end with exit code 2, run in this process; returns what it says."""

    def refused(*arguments: str) -> str:
        monkeypatch.chdir(tmp_path)
        assert main(list(arguments)) == 2
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        assert printed.out == ""
        return printed.err

    return refused


@pytest.fixture
def fmexp(tmp_path: Path, empty_store: Path) -> Command:  # noqa: F811
    return Command(tmp_path, made_store=empty_store)
