"""Make the small pictures of docs/fm.md: what V = 0 does, and how far a rate may go.

.venv/bin/python docs/pictures.py
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fmexp.config.compose import compose, parse_arguments
from fmexp.data.learn import Learning
from fmexp.data.loading import from_arrays, load
from fmexp.training.fitting import fit, start_parameters
from fmexp.training.stability import rate_for_every_row

IMAGES = Path(__file__).resolve().parent / "images"


def main() -> None:
    """Both pictures."""
    zero_start()
    rate_and_scale()


def zero_start() -> None:
    """Validation loss by epoch, V drawn and V = 0, on data with interactions."""
    figure, axes = canvas("epoch", "val/mse")
    for stdev, label in ((0.05, "V drawn (model.init_stdev=0.05)"), (0.0, "V = 0: stays linear")):
        config, data = prepared("data=planted", f"model.init_stdev={stdev}", "model.k=4")
        losses = fit(config, data).validation_losses
        axes.plot(range(1, len(losses) + 1), losses, label=label)
    axes.axhline(0.5**2, color="0.5", linestyle="--", label="noise floor")
    axes.legend()
    figure.savefig(IMAGES / "zero_start.png", dpi=90)


def rate_and_scale() -> None:
    """Loss after 20 epochs by learning rate, for features of two scales, with each one's bound."""
    figure, axes = canvas("training.learning_rate", "train/mse / variance, after 20 epochs")
    dice = np.random.default_rng(0)
    X = dice.normal(size=(1000, 8))
    y = X @ dice.normal(size=8) + X[:, 0] * X[:, 1] + 0.3 * dice.normal(size=1000)
    config, _ = prepared("data=planted", "model.k=4", "training.epochs=20",
                         "data.standardize=false", "training.cap_steps=false")  # fmt: skip
    for scale, color in ((1.0, "C0"), (10.0, "C1")):
        whole = replace(config.split, validation=0, test=0)
        data = from_arrays(X * scale, y, whole, Learning(standardize=False))
        start = start_parameters(config, data)
        bound = rate_for_every_row(config.task, start, data.train.features)
        rates = np.geomspace(1e-6, 0.1, 31)
        ends = []
        for rate in rates:
            here = replace(config, training=replace(config.training, learning_rate=float(rate)))
            losses = fit(here, data).train_losses
            ends.append(losses[-1] / y.var() if len(losses) == 20 else math.nan)
        axes.plot(rates, ends, color=color, marker=".", label=f"columns of size {scale:g}")
        axes.axvline(bound, color=color, linestyle=":", label="its bound at the start")
    axes.set(xscale="log", ylim=(0, 1.6))
    axes.legend()
    figure.savefig(IMAGES / "rate_and_scale.png", dpi=90)


def prepared(*overrides: str):
    """A configuration and its data."""
    config = compose(parse_arguments([*overrides])).config
    return config, load(config.data, config.split, config.task)


def canvas(x: str, y: str):
    """A small figure with one pair of axes."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y)
    axes.grid(visible=True, alpha=0.25)
    return figure, axes


if __name__ == "__main__":
    main()
