"""The files that a run leaves beside its numbers: configuration, curve, predictions, model."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from fmexp import model
from fmexp.config.schema import MlflowConfig
from fmexp.data.dataset import evenly_spaced
from fmexp.data.features import SMALL_CHUNK_ROWS, chunks
from fmexp.data.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from fmexp import fm
    from fmexp.config.schema import Config
    from fmexp.data.dataset import Dataset
    from fmexp.training.fitting import Fit


@dataclass(frozen=True)
class Picture:
    """What curve.png shows.

    Attributes:
        loss: mse or logloss.
        epochs: of the points, from 1.
        train: training losses at these epochs.
        validation: validation losses; empty without a validation part.
        best_epoch: the epoch of the lowest validation loss.
        baseline: the loss of predicting the mean.
    """

    loss: str
    epochs: list[int]
    train: list[float]
    validation: list[float]
    best_epoch: int | None
    baseline: float

    @classmethod
    def of(cls, loss: str, fit: Fit, most: int | None = None) -> Picture:
        """A fit's curves, of long ones about `most` points, evenly spaced, the last among them."""
        step = 1 if most is None else max(1, fit.epochs // most)
        at = sorted({*range(0, fit.epochs, step), fit.epochs - 1})
        train, validation = fit.train_losses, fit.validation_losses
        return cls(
            loss,
            [i + 1 for i in at],
            [train[i] for i in at],
            [validation[i] for i in at] if validation else [],
            fit.best_epoch,
            fit.baseline,
        )


def write_all(
    folder: Path, config: Config, config_tree: dict[str, Any], data: Dataset, fit: Fit
) -> None:
    """Every artifact of a run but curve.png; without a model or epochs what needs them is left."""
    write_config(folder / "config.yaml", config_tree)
    if fit.epochs:
        write_curves(folder / "curve.csv", config.loss, {config.seed: fit})
    if fit.parameters is not None:
        kept = write_model(folder / "model", config, data, fit.parameters)
        if isinstance(config.tracking, MlflowConfig):
            most = config.tracking.prediction_rows
            write_predictions(folder / "predictions.csv", data, kept, most)


def write_model(folder: Path, config: Config, data: Dataset, parameters: fm.Learned) -> model.Model:
    """The model with its preprocessing, as a folder that `fmexp.model.load` reads."""
    kept = model.Model.of(config, data, parameters)
    kept.save(folder)
    return kept


def write_config(path: Path, config_tree: dict[str, Any]) -> None:
    """The configuration, with references to the environment as they were written."""
    path.write_text(
        yaml.safe_dump(config_tree, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )


def write_curves(path: Path, loss: str, fits: dict[int, Fit]) -> None:
    """One row an epoch: epoch, train/<loss> and, with a validation part, val/<loss>.

    Args:
        path: the file to write.
        loss: mse or logloss.
        fits: by seed; with several, the first column is the seed.
    """
    held_out = any(fit.validation_losses for fit in fits.values())
    names = ["epoch", f"train/{loss}", f"val/{loss}"][: 3 if held_out else 2]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["seed", *names] if len(fits) > 1 else names)
        for seed, fit in fits.items():
            curves = [fit.train_losses, fit.validation_losses][: len(names) - 1]
            for epoch, losses in enumerate(zip(*curves, strict=False), start=1):
                writer.writerow([seed, epoch, *losses] if len(fits) > 1 else [epoch, *losses])


def draw_curve(path: Path, shown: Picture) -> None:
    """The curves as a picture, with the best epoch and the loss of predicting the mean."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()  # not those of a matplotlibrc in the folder, which may have LaTeX run
        picture_of(shown).savefig(path, dpi=110, pil_kwargs={"compress_level": 1})


def picture_of(shown: Picture, kind: type[Figure] | None = None) -> Figure:
    """The same as a figure of matplotlib, at its present settings; of another class if given."""
    from matplotlib.figure import Figure  # half a second, after training
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    epochs, loss = shown.epochs, shown.loss
    figure = (kind or Figure)(figsize=(7, 4.2))  # a layout engine would draw everything once more
    figure.subplots_adjust(left=0.13, right=0.98, top=0.97, bottom=0.12)
    axes = figure.subplots()
    marker = "o" if len(epochs) == 1 else None
    axes.plot(epochs, shown.train, label=f"train/{loss}", marker=marker)
    if shown.validation:
        axes.plot(epochs, shown.validation, label=f"val/{loss}", marker=marker)
    if shown.best_epoch is not None:
        label = f"best/epoch {shown.best_epoch}"
        axes.axvline(shown.best_epoch, color="0.5", linestyle=":", label=label)
    axes.axhline(shown.baseline, color="0.5", linestyle="--", label="predicting the mean")
    axes.set(xlabel="epoch", ylabel=loss, yscale="log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator() if high > 30 * low else MaxNLocator(8))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")  # plain: powers of ten are slow to set
    axes.legend(loc="upper right")  # "best" looks at every point
    axes.grid(visible=True, alpha=0.25)
    return figure


def write_predictions(path: Path, data: Dataset, kept: model.Model, most: int) -> None:
    """The source's columns, the target, y_pred and the part, for training and validation rows.

    A model that holds samples adds y_stdev in regression. The test part stays unseen. A column of
    the source that has the name of one of ours keeps it; ours is then followed by an underscore.

    Args:
        path: the file to write.
        data: what was trained on.
        kept: the model.
        most: rows to write, evenly spaced in the source's order; all where they are fewer.
    """
    parts = {"train": data.train} | ({"validation": data.validation} if data.validation else {})
    names, held = list(parts), list(parts.values())
    chosen = evenly_spaced(held, most)
    target = data.encoder.target_name
    header = [*data.raw(np.zeros(0, np.int64)), target]
    ours = ("y_pred", "y_stdev", "part") if kept.has_stdev else ("y_pred", "part")
    header += [f"{name}_" if name in header else name for name in ours]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for some in chunks(len(chosen), SMALL_CHUNK_ROWS):
            chunk = chosen[some]
            rows = np.array([row for row, _, _ in chunk])
            columns = data.raw(rows)
            targets = Table({target: data.table.columns[target]}).cells(rows)[target]
            part_names = [names[p] for _, p, _ in chunk]
            predicted = [x for x in kept.predict_with_stdev(columns) if x is not None]
            writer.writerows(zip(*columns.values(), targets, *predicted, part_names, strict=True))
