"""numpy_sgd and gibbs: the same bits on every CPU, and a cache wherever one can be written."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from fmexp.backends import sgd
from fmexp.data.dataset import Part
from fmexp.training.fitting import fit
from tests.training_fakes import (
    make_config,
    make_dataset,
    random_parameters,
    random_rows,
    to_csr,
)

CASES = {
    "dense": {"k": 5},
    "csr": {"k": 5},
    "one-hot": {"k": 32},
    "dense float32": {"k": 16, "dtype": "float32"},
    "csr classification": {"k": 5, "task": "classification"},
    "csr wide float32": {"k": 70, "dtype": "float32"},
    "dense capped": {"k": 5, "cap_steps": True, "learning_rate": 0.3},
    "csr capped": {"k": 5, "cap_steps": True, "learning_rate": 0.3},
    "dense gibbs": {"k": 5, "backend": "gibbs"},
    "csr gibbs classification": {"k": 12, "task": "classification", "backend": "gibbs"},
    "one-hot gibbs": {"k": 3, "backend": "gibbs"},
    "dense weighted capped": {"k": 5, "cap_steps": True, "learning_rate": 0.3},
    "csr weighted classification float32": {"k": 5, "task": "classification", "dtype": "float32"},
    "csr weighted gibbs": {"k": 5, "backend": "gibbs"},
}


def train_all() -> dict[str, str]:
    """The bits of the curve and the parameters of each case."""
    bits = {}
    for name, keys in CASES.items():
        X, g = random_rows(60, 21, density=0.5), np.random.default_rng(1)
        y = g.normal(size=60) if "classification" not in name else g.integers(0, 2, 60) * 1.0
        if "one-hot" in name:
            X = (X != 0) * 1.0
        rows = X if "dense" in name else to_csr(X, one_hot="one-hot" in name)
        config = make_config(**keys, shuffle=True, epochs=10, reg_V=0.1, reg_w=0.1)
        data = make_dataset(rows, y, 20)
        if "weighted" in name:
            data.train = replace(data.train, row_weights=np.arange(40) % 4 * 1.0)
            data.validation = replace(data.validation, row_weights=np.arange(20) % 3 * 1.0)
        done = fit(config, data)
        assert (done.capped > 0) == ("capped" in name)
        curve = np.array(done.train_losses + done.validation_losses)
        bits[name] = (curve.tobytes() + done.parameters.V.tobytes()).hex()
    return bits


@pytest.mark.parametrize("cpu", ["haswell", "x86-64"])
def test_every_cpu_gives_the_same_bits(cpu):
    script = "import json\nfrom tests.test_backends_sgd_bits import train_all\n"
    script += "print(json.dumps(train_all()))"
    environment = os.environ | {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""}
    ran = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == train_all()


def test_a_read_only_installation_without_a_home_compiles_into_a_scratch_folder(tmp_path):
    script = (
        "import numba.core.caching as c\n"
        "c.CacheImpl._locator_classes = [c.UserProvidedCacheLocator]\n"  # nothing is writable
        "from fmexp.backends.warm import warm\n"
        "warm({'regression': (4,)})\n"
    )
    kept = {name: x for name, x in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment = kept | {"TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-W", "error", "-c", script], env=environment, check=True)
    (scratch,) = tmp_path.glob("fmexp-numba-*")
    assert scratch.stat().st_mode & 0o077 == 0
    assert list(scratch.rglob("*.nbi"))


def test_a_scratch_folder_that_others_can_write_is_not_used(tmp_path, monkeypatch):
    from fmexp.backends import compiled

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    trap = tmp_path / f"fmexp-numba-{os.getuid()}"
    trap.mkdir()
    trap.chmod(0o777)
    assert compiled._scratch_folder() != str(trap)


def test_threads_that_train_their_own_trial_do_not_disturb_each_other():
    from concurrent.futures import ThreadPoolExecutor

    X, y = random_rows(2000, 20), np.random.default_rng(1).normal(size=2000)
    part = Part(X, y, np.arange(2000))

    def train(seed: int) -> bytes:
        p = random_parameters(20, 8, seed)
        trainer = sgd.start(make_config(k=8, reg_V=0.1), part, p)
        for _ in range(30):
            trainer.train_epoch(0.001, None)
        return trainer.parameters().V.tobytes()

    alone = [train(seed) for seed in range(6)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(train, range(6))) == alone
