"""Configuration files and recorded configurations that somebody sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fmexp.cli.parser import main
from fmexp.config.compose import _with_references

RUNS = "_target_: shutil.copyfile, src: theirs/experiment/theirs.yaml, dst: ran"
LAUNCHER = "defaults: [{override /hydra/launcher"
SWEEP = ["run", "-m", "--config-dir", "theirs", "+experiment=theirs", "tracking=none",
         "training.epochs=1", "hydra.sweeper.n_trials=1"]  # fmt: skip


@pytest.fixture
def sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes an experiment file that somebody sent."""
    monkeypatch.chdir(tmp_path)

    def sent(text: str) -> None:
        file = tmp_path / "theirs" / "experiment" / "theirs.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"# @package _global_\n{text}\n")

    return sent


@pytest.mark.parametrize(
    "text",
    [
        f"hydra: {{callbacks: {{x: {{{RUNS}}}}}}}",
        f"hydra: {{sweeper: {{{RUNS}}}}}",
        f"hydra: {{sweeper: {{sampler: {{{RUNS}}}}}}}",
        "hydra: {launcher: {_target_: os.system}}",
        "hydra: {job_logging: {handlers: {x: {(): os.system}}}}",
        "hydra: {job: {env_set: {PYTHONPATH: .}}}",
        "hydra: {output_subdir: .ssh}",
        f"{LAUNCHER}: submitit_local}}]\nhydra: {{launcher: {{submitit_folder: ../theirs}}}}",
        f"{LAUNCHER}: submitit_slurm}}]\nhydra: {{launcher: {{setup: [touch ran]}}}}",
        f"{LAUNCHER}: joblib}}]\nhydra: {{launcher: {{pre_dispatch: n_jobs.__class__}}}}",
        f"defaults: [{{override /hydra/sweeper: basic}}]\nhydra: {{callbacks: {{x: {{{RUNS}}}}}}}",
    ],
)
def test_what_hydra_would_run_for_a_file_is_refused(text, sent, refused):
    sent(text)
    assert "a configuration file sets hydra." in refused(*SWEEP)
    assert sorted(p.name for p in Path.cwd().iterdir()) == ["theirs"]


@pytest.mark.parametrize("found_by", ["--config-dir", "hydra.searchpath"])
def test_a_launcher_of_a_strangers_own_is_refused(found_by, sent, refused):
    sent("defaults: [{override /hydra/launcher: theirs}]")
    launcher = Path("theirs/hydra/launcher/theirs.yaml")
    launcher.parent.mkdir(parents=True)
    launcher.write_text(RUNS.replace(", ", "\n"))
    searched = ["run", "-m", *SWEEP[5:], "hydra/launcher=theirs",
                f"hydra.searchpath=[file://{Path.cwd() / 'theirs'}]"]  # fmt: skip
    assert "theirs" in refused(*(SWEEP if found_by == "--config-dir" else searched))
    assert not Path("ran").exists()


def test_files_may_choose_a_launcher_and_options_of_the_sweep(sent):
    sent("defaults: [{override /hydra/launcher: joblib}]\n"
         "hydra: {sweeper: {n_trials: 2, seeds: 1}, launcher: {n_jobs: 1}}")  # fmt: skip
    assert main([*SWEEP, "hydra.launcher.verbose=0"]) == 0


def test_showing_a_configuration_runs_nothing_of_it_either(sent, refused):
    sent(f"hydra: {{callbacks: {{x: {{{RUNS}}}}}}}")
    show = ["run", "--config-dir", "theirs", "+experiment=theirs", "--info", "config"]
    assert "hydra.callbacks.x._target_" in refused(*show)


@pytest.mark.parametrize(
    "text",
    [
        "tags: {a: '${ oc.env:SECRET}'}",
        "tags: {a: '${oc.env: SECRET}'}",
        "tags: {b: '${oc.env:SECRET}', a: '${tags.b}'}",
        "tags: {b: '${oc.env:SECRET}', a: 'x${.b}y'}",
        "tags: {a: '${oc.decode:${oc.env:SECRET}}'}",
        "tags: {c: SECRET, a: '${oc.env:${.c}}'}",
        "{tags: '${oc.dict.values:x}', x: {a: '${oc.env:SECRET}'}}",
    ],
)
def test_a_value_of_the_environment_is_kept_as_a_reference(text, monkeypatch):
    monkeypatch.setenv("SECRET", "s3cr3t")
    record = str(_with_references(OmegaConf.create(text)))
    assert "s3cr3t" not in record
    assert "SECRET" in record


@pytest.mark.usefixtures("store_folder")
def test_an_environment_variable_does_not_get_into_the_recorded_configuration(fmexp, sent):
    Path("s3cr3t.csv").write_text("a,y\n" + "".join(f"{i % 7},{i}\n" for i in range(50)))
    fmexp.env |= {"SECRET": str(Path("s3cr3t.csv").resolve()), "SEED": "3"}
    sent("data: {path: '${ oc.env:SECRET}'}\nseed: '${oc.decode:${ oc.env:SEED}}'")
    fmexp("run", "--config-dir", "theirs", "data=csv", "+experiment=theirs", "data.target=y")
    (config,) = Path("mlruns").rglob("config.yaml")
    assert "s3cr3t" not in config.read_text()
    assert "${ oc.env:SEED}" in config.read_text()
    assert fmexp.runs()[0].data.params["data.path"] == "${ oc.env:SECRET}"
