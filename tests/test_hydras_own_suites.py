"""Hydra's own test suites for sweepers and launchers (hydra.test_utils), with hydra/sweeper=fmexp.

Three cases cannot hold. `BatchedSweeperTestSuite` counts batches, and trials are not run in
batches; what else it looks at is below. The function of `test_sweep_with_custom_resolver` returns a
text, by which trials cannot be ranked; below it returns a number. Hydra 1.4's
`test_failure_preserves_task_traceback` wants a job's exception raised; here it makes a failed
trial, whose record has the traceback (tests/test_application.py).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.test_utils.launcher_common_tests import IntegrationTestSuite, LauncherTestSuite
from hydra.test_utils.test_utils import verify_dir_outputs
from omegaconf import OmegaConf

from fmexp.config.compose import register_resolver

Plugins.instance()  # loaded before hydra_restore_singletons first keeps Hydra's state

OURS = ["hydra/sweeper=fmexp", "hydra/sweeper/tracking=none"]
ANEW = [*OURS, "hydra.sweeper.resume=false"]  # one case runs two applications of the same name
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*version_base.*:UserWarning", "ignore:Future Hydra versions:UserWarning"
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.mark.parametrize(("launcher_name", "overrides"), [("basic", OURS)])
class TestLaunchers(LauncherTestSuite):
    test_failure_preserves_task_traceback = None

    def test_sweep_with_custom_resolver(self, hydra_sweep_runner, launcher_name, overrides, tmpdir):
        sweep = hydra_sweep_runner(
            calling_file=None, calling_module="hydra.test_utils.a_module",
            task_function=lambda cfg: cfg.x, config_path="configs", config_name="custom_resolver",
            overrides=[f"hydra/launcher={launcher_name}", *overrides], temp_dir=tmpdir,
        )  # fmt: skip
        register_resolver("my_custom_resolver", lambda: 2.5)
        with sweep:
            ((job,),) = sweep.returns
            assert job.return_value == 2.5


@pytest.mark.parametrize(("task_launcher_cfg", "extra_flags"), [({}, ["-m", *ANEW])])
class TestIntegration(IntegrationTestSuite):
    def generate_custom_cmd(self):
        """Have the application return a number: its own function returns nothing."""

        def command(words: list[str], filename: str) -> list[str]:
            script = Path(words[1])
            code = script.read_text().replace("\nif __name__", "    return 0.0\n\nif __name__")
            script.write_text(code)
            return words

        return command


def test_hydra_finds_the_sweeper():
    assert "FmexpSweeper" in [found.__name__ for found in Plugins.instance().discover(Sweeper)]


@pytest.mark.usefixtures("hydra_restore_singletons")
def test_jobs_have_directories_of_their_own(hydra_sweep_runner, tmpdir):
    swept = ["group1=file1,file2", "bar=100,200,300"]
    sweep = hydra_sweep_runner(
        calling_file=None, calling_module="hydra.test_utils.a_module", task_function=None,
        config_path="configs", config_name="compose.yaml", overrides=[*swept, *OURS],
        temp_dir=tmpdir,
    )  # fmt: skip
    with sweep:
        kept = OmegaConf.load(Path(sweep.temp_dir) / "multirun.yaml")
        assert kept.hydra.overrides.task == swept
        (jobs,) = sweep.returns
        expected = [(f, b) for f in (1, 2) for b in (100, 200, 300)]
        assert [job.overrides for job in jobs] == [
            [f"group1=file{f}", f"bar={b}"] for f, b in expected
        ]
        assert [job.cfg for job in jobs] == [{"foo": 10 * f, "bar": b} for f, b in expected]
        for job in jobs:
            verify_dir_outputs(job, job.overrides)
        assert len({job.hydra_cfg.hydra.runtime.output_dir for job in jobs}) == 6
