"""What is wrong with a configuration is said once, for all of it, and leaves nothing behind."""

from __future__ import annotations

import pytest
from hydra.version import Version, VersionBase

from fmexp.config import flags
from fmexp.config.compose import compose, parse_arguments
from fmexp.config.schema import config_hash, flatten
from fmexp.errors import ConfigError

MISTAKES = [
    (["model.k=0"], "model.k must be a whole number from 1 to 4,096, got 0"),
    (["model.k=2.5"], "model.k must be a whole number"),
    (["model.k=abc"], "model.k must be a whole number"),
    (["model.k=true"], "model.k must be a whole number"),
    (["model.k=null"], "model.k must be a whole number"),
    (["model.k=[4]"], "model.k must be a whole number"),
    (["model=3"], "model must be a group of keys"),
    (["model.init_stdev=-1"], "model.init_stdev must be a number >= 0, got -1"),
    (["model.clip=maybe"], "model.clip must be true or false"),
    (["training.learning_rate=0"], "training.learning_rate must be a number > 0, got 0"),
    (["training.learning_rate=-1"], "training.learning_rate must be a number > 0"),
    (["training.learning_rate=nan"], "training.learning_rate must be a number > 0, got nan"),
    (["training.learning_rate=inf"], "training.learning_rate must be a number > 0, got inf"),
    (["training.epochs=0"], "training.epochs must be a whole number from 1"),
    (["training.epochs=1e99"], "training.epochs must be a whole number from 1"),
    (["training.epochs=1" + 400 * "0"], "training.epochs must be a whole number from 1"),
    (["training.reg_V=-0.1"], "training.reg_V must be a number >= 0"),
    (["training.early_stopping.patience=-1"], "patience must be a whole number from 1"),
    (["training.early_stopping.patience=3", "split.validation=0"], "needs a validation part"),
    (["training.average_from=60"], "average_from must be at most training.epochs"),
    (["backend=sklearn"], "backend must be one of gibbs, numpy_sgd, torch_adam, got sklearn"),
    (["backend=numpy_sdg"], "did you mean numpy_sgd?"),
    (["backend.name=jax"], "backend must be one of numpy_sgd, torch_adam, gibbs, got 'jax'"),
    (["backend.dtype=float8"], "backend.dtype must be one of float32, float64, got 'float8'"),
    (["backend.batch_size=8"], "belongs to another"),
    (["backend=torch_adam", "backend.batch_size=0"], "backend.batch_size must be a whole number"),
    (["backend=torch_adam", "backend.device=tpu"], "backend.device must be one of auto, cpu, cuda"),
    (["data=iris"], "data must be one of"),
    (["data=csv"], "data.path must be given"),
    (["data=csv", "data.path=nowhere.csv", "data.target=y"], "nowhere.csv"),
    (["data=notebook", "data.minimum=9"], "data.minimum must be <= data.maximum"),
    (["data=planted", "data.fields=11"], "data.fields must be <= data.columns, got 11 > 10"),
    (["data=planted", "data.rows=0"], "data.rows must be a whole number from 1"),
    (["split.validation=1.5"], "split.validation must be a number >= 0 and < 1, got 1.5"),
    (["split.test=-0.1"], "split.test must be a number >= 0 and < 1, got -0.1"),
    (["split.validation=0.6", "split.test=0.4"], "split.validation + split.test must be < 1"),
    (["seed=-1"], "seed must be a whole number from 0"),
    (["task=ranking"], "task must be one of regression, classification"),
    (["trainign.epochs=3"], "trainign.epochs is not a key; did you mean training.epochs?"),
    (["+typo=1"], "typo is not a key; known keys: seed, task, model"),
    (["lr=0.1"], "lr is not a key; did you mean training.learning_rate?"),
    (["training.lr=0.1"], "training.lr is not a key; did you mean training.learning_rate?"),
    (["--backend", "torch_adam"], "keys are set as KEY=VALUE, for example backend=torch_adam"),
    (["lr"], "'lr' is not an override; write key=value"),
    (["model.k=[4"], "'model.k=[4' is not an override"),
    (["~model.k"], "model.k must be given"),
    (["data.path=${oc.env:FMEXP_UNSET}"], "FMEXP_UNSET"),
    (["+experiment=nope"], "experiment must be one of notebook_numpy, notebook_torch, got nope"),
    (["model.k=2,4"], "sweeps need -m: fmexp run -m model.k=2,4"),
    (["hydra.sweeper.n_trials=3"], "sweeps need -m"),
    (["tracking.uri=./mlruns"], "tracking.uri on the command line: './mlruns' is a folder"),
    (["--config-dir=nowhere"], "--config-dir must be a folder, got nowhere"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), MISTAKES, ids=[" ".join(a)[:60] for a, _ in MISTAKES]
)
def test_mistake_is_named_and_leaves_nothing(arguments, message, tmp_path, refused):
    assert message in refused("run", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_all_mistakes_come_in_one_message(refused):
    printed = refused("run", "model.k=0", "training.epochs=-3", "modle.k=4", "split.test=2")
    for key in ("model.k must", "training.epochs must", "modle.k is not", "split.test must"):
        assert key in printed


def _composed(*overrides: str):
    return compose(parse_arguments(list(overrides)))


def test_whole_floats_count_as_whole_numbers():
    assert _composed("training.epochs=1e3").config.training.epochs == 1000


def test_environment_references_are_kept_in_the_record(monkeypatch):
    monkeypatch.setenv("TABLE_HOME", "secret")
    composed = _composed("data=csv", "data.path=${oc.env:TABLE_HOME}/t.csv", "data.target=y")
    assert composed.config.data.path == "secret/t.csv"
    assert composed.config_tree["data"]["path"] == "${oc.env:TABLE_HOME}/t.csv"


def test_the_record_holds_no_password():
    composed = _composed("tracking.uri='postgresql://me:secret@host/runs'")
    assert composed.config.tracking.uri == "postgresql://me:secret@host/runs"
    assert composed.config_tree["tracking"]["uri"] == "postgresql://me:***@host/runs"


def test_hash_ignores_tracking_and_nothing_else():
    plain = config_hash(_composed().config_tree)
    assert (
        config_hash(_composed("tracking.run_name=x", "tracking.uri=sqlite:///a.db").config_tree)
        == plain
    )
    assert config_hash(_composed("tracking=none").config_tree) == plain
    assert config_hash(_composed("split.seed=1").config_tree) != plain


def test_every_key_of_the_default_configuration_is_a_param_under_its_own_name():
    leaves = flatten(_composed().config_tree)
    assert leaves["model.k"] == 8
    assert leaves["backend"] == "numpy_sgd"
    assert leaves["training.early_stopping.patience"] is None


def test_own_configuration_folder_is_searched(tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nmodel: {k: 3}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    assert _composed(f"--config-dir={tmp_path}", "+experiment=mine").config.model.k == 3


def test_an_experiment_is_added_with_or_without_plus():
    for override in ("+experiment=notebook_numpy", "experiment=notebook_numpy"):
        assert _composed(override).config.data.name == "notebook"


def test_one_bad_override_does_not_hide_the_others():
    with pytest.raises(ConfigError, match=r"(?s)lr.*backend must be one of"):
        _composed("lr", "backend=x")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pg.csv"], "'pg.csv' is a file and no override; write data=csv data.path=pg.csv"),
        (["data.path=pg.csv"], "data that come from a file: data=csv data.path=pg.csv"),
        (["data.path=a b.parquet"], "data=parquet 'data.path=a b.parquet'"),
        (["t.svm"], "write data=libsvm data.path=t.svm"),
    ],
)
def test_a_file_without_its_kind_is_told_how_to_be_named(tmp_path, refused, words, said):
    (tmp_path / "t.svm").write_text("1 1:2\n")
    assert said in refused("run", *words)


def test_our_parser_knows_the_flags_that_hydra_has():
    from hydra._internal.utils import get_args_parser

    def described(parser):
        return {
            tuple(action.option_strings): (action.dest, action.nargs, action.const)
            for action in parser._actions
            if action.dest != "version"  # fmexp's own, which ends nothing here
        }

    assert described(flags.parser()) == described(get_args_parser())


def test_composing_leaves_hydras_version_base_as_it_was(monkeypatch):
    base = Version("1.2")
    monkeypatch.setattr(VersionBase.instance(), "version_base", base)
    compose(parse_arguments([]))
    assert VersionBase.instance().version_base is base
