"""Which backend a name means, and what is said where it cannot be had."""

import subprocess
import sys

import pytest

from fmexp.backends.base import MODULES, load_backend
from fmexp.errors import ConfigError, MissingPackageError, UserError


def test_a_missing_torch_is_answered_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, MODULES["torch_adam"], raising=False)
    with pytest.raises(MissingPackageError, match=r"pip install 'fmexp\[torch\]'") as raised:
        load_backend("torch_adam")
    assert isinstance(raised.value, UserError)


def test_cuda_where_there_is_none_is_a_mistake_of_the_configuration():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    from fmexp.backends.adam import _device

    with pytest.raises(ConfigError, match=r"backend\.device=cuda"):
        _device("cuda")
    assert _device("auto").type == _device("cpu").type == "cpu"


def test_numpy_sgd_needs_no_torch():
    script = "import sys, fmexp.training.fitting, fmexp.backends.sgd\nprint('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_training_is_the_same_on_cuda():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    from dataclasses import replace

    import numpy as np

    from fmexp.training.fitting import fit
    from tests.training_fakes import make_config, make_dataset, random_rows, to_csr

    X, y = random_rows(60, 9, density=0.5), np.random.default_rng(1).normal(size=60)
    for rows in (X, to_csr(X)):
        config = make_config("torch_adam", epochs=10, shuffle=True, batch_size=16)
        on_cuda = replace(config, backend=replace(config.backend, device="cuda"))
        data = make_dataset(rows, y, 20)
        one, other = fit(config, data), fit(on_cuda, data)
        np.testing.assert_allclose(one.train_losses, other.train_losses, rtol=1e-9)
