"""`backend=mine`: gradient descent with momentum on all rows at once, in plain NumPy."""

from dataclasses import dataclass
from typing import Annotated, Literal

from fmexp import fm
from fmexp.config.schema import Bounds


@dataclass
class Config:
    name: Literal["mine"]
    momentum: Annotated[float, Bounds(0, 1)]


class Trainer:
    def __init__(self, config, train, parameters):
        self.config, self.train, self.now = config, train, parameters.copy()
        self.speed = [0.0, 0.0, 0.0]

    def train_epoch(self, learning_rate, order):  # noqa: ARG002
        before, training = self.loss(self.train), self.config.training
        slope = fm.gradients(
            self.now, self.train.features, self.train.target, self.config.task,
            reg_w0=training.reg_w0, reg_w=training.reg_w, reg_V=training.reg_V,
        )  # fmt: skip
        slopes = (slope.w0, slope.w, slope.V)
        pairs = zip(self.speed, slopes, strict=True)
        momentum = self.config.backend.momentum
        self.speed = [momentum * old - learning_rate * new for old, new in pairs]
        self.now.w0 += self.speed[0]
        self.now.w += self.speed[1]
        self.now.V += self.speed[2]
        return before

    def loss(self, part):
        return float(fm.losses(self.config.task, self.scores(part.features), part.target).mean())

    def scores(self, features):
        return fm.scores(self.now, features)

    def parameters(self):
        return self.now.copy()


start = Trainer
