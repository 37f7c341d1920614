"""What ARCHITECTURE.md says of a new backend is all there is to do, and it is short."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

MODULE = '''\
"""`backend=numpy_gd`: gradient descent on all rows at once, in plain NumPy."""

from fmexp import fm


class GradientDescent:
    def __init__(self, config, train, parameters):
        self._config, self._train, self._now = config, train, parameters.copy()

    def train_epoch(self, learning_rate, order):
        before = self.loss(self._train)
        training = self._config.training
        slope = fm.gradients(
            self._now, self._train.features, self._train.target, self._config.task,
            reg_w0=training.reg_w0, reg_w=training.reg_w, reg_V=training.reg_V,
        )
        self._now.w0 -= learning_rate * slope.w0
        self._now.w -= learning_rate * slope.w
        self._now.V -= learning_rate * slope.V
        return before

    def loss(self, part):
        return float(fm.losses(self._config.task, self.scores(part.features), part.target).mean())

    def scores(self, features):
        return fm.scores(self._now, features)

    def parameters(self):
        return self._now.copy()


start = GradientDescent
'''
CONFIG = """@dataclass
class NumpyGdConfig:
    name: Literal["numpy_gd"]


BackendConfig = NumpyGdConfig | """


def test_a_backend_is_added_in_under_forty_lines(tmp_path: Path) -> None:
    package, conf = tmp_path / "fmexp", tmp_path / "conf"
    shutil.copytree(ROOT / "fmexp", package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "conf", conf)
    (package / "backends" / "numpy_gd.py").write_text(MODULE)
    (conf / "backend" / "numpy_gd.yaml").write_text("name: numpy_gd\n")
    listed = 'MODULES = {\n    "numpy_gd": "fmexp.backends.numpy_gd",\n'
    replace(package / "backends" / "base.py", "MODULES = {\n", listed)
    replace(package / "config" / "schema.py", "BackendConfig = ", CONFIG)
    added = len([line for line in (MODULE + CONFIG).splitlines() if line.strip()]) + 2
    assert added < 40

    command = [sys.executable, "-m", "fmexp", "run", "backend=numpy_gd", "tracking=none",
               "training.learning_rate=0.1"]  # fmt: skip
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "% less" in done.stdout  # than predicting the mean


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, path
    path.write_text(text.replace(old, new))
