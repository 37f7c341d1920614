"""What `fmexp.run` and `fmexp.sweep` return."""

from __future__ import annotations

import base64
import io
import math
import os
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.figure import Figure

from fmexp.analysis.predict import find_model
from fmexp.errors import UserError
from fmexp.experiment.artifacts import Picture, picture_of
from fmexp.record.queries import StoredRuns
from fmexp.sweep.trial_record import WINNER
from fmexp.sweep.trial_status import REASON, outcome_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fmexp.experiment.one_run import Result
    from fmexp.model import Model
    from fmexp.sweep.study import SweepStudy

SHOWN = 5
MOST_KEYS = 3


class Shown(Figure):
    """A figure of matplotlib that a notebook shows without pyplot."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=90)
        return file.getvalue()


@dataclass(frozen=True)
class Run:
    """A run that has ended.

    Attributes:
        result: all of it.
        loss: mse or logloss.
        model: the model that was kept; `model.predict(table)`. None where training diverged.
        run_id: MLflow's; "" where nothing was recorded.
        store: MLflow's tracking URI, without a password; "" likewise.
    """

    result: Result
    loss: str
    model: Model | None
    run_id: str
    store: str

    @property
    def outcome(self) -> str:
        """completed, diverged or interrupted."""
        return str(self.result.fit.outcome)

    @property
    def metrics(self) -> dict[str, float]:
        """The last values by name, such as best/val_mse."""
        return self.result.metrics

    @property
    def curve(self) -> pd.DataFrame:
        """The losses of every epoch, a column each."""
        fit = self.result.fit
        columns = {f"train/{self.loss}": fit.train_losses}
        if fit.validation_losses:
            columns[f"val/{self.loss}"] = fit.validation_losses
        return pd.DataFrame(columns, index=pd.RangeIndex(1, fit.epochs + 1, name="epoch"))

    def plot(self) -> Figure:
        """The curves, with the best epoch and the loss of predicting the mean."""
        return picture_of(Picture.of(self.loss, self.result.fit), Shown)

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name}={x:.6g}" for name, x in self.metrics.items())
        reason = f" ({self.result.fit.reason})" if self.result.fit.reason else ""
        return f"<Run {self.result.name}: {self.outcome}{reason}; {numbers}>"

    def _repr_html_(self) -> str:
        rows = {"outcome": f"{self.outcome}. {self.result.fit.reason}".strip()}
        rows |= {name: f"{x:.6g}" for name, x in self.metrics.items()}
        rows |= {"run": self.run_id, "record": self.store} if self.run_id else {}
        picture = _as_html(self.plot()) if self.result.fit.epochs else ""
        return f"<b>{escape(self.result.name)}</b>{_table(rows)}{picture}"


class Sweep:
    """A sweep as far as it has come.

    Attributes:
        name: the study's.
        objective: name of the metric that trials are ranked by.
        store: MLflow's tracking URI, without a password; "" where nothing was recorded.
        study: Optuna's.
    """

    def __init__(self, study: SweepStudy, uri: str, store: str) -> None:
        """Args: `uri` is the store with its password."""
        self.name, self.objective, self.store = study.name, study.plan.objective, store
        self.study = study.optuna
        self._study, self._uri = study, uri

    @property
    def trials(self) -> pd.DataFrame:
        """Those that have ended: outcome, value, point, and why they ended so; by number."""
        rows = [
            {"trial": t.number, "outcome": outcome_of(t), self.objective: t.value,
             **self._study.space.point(t), "reason": t.user_attrs.get(REASON, "")}
            for t in self._study.ended()
        ]  # fmt: skip
        keys = [d.key for d in self._study.space.dimensions]
        columns = ["trial", "outcome", self.objective, *keys, "reason"]
        return pd.DataFrame(rows, columns=columns).set_index("trial").sort_index()

    @property
    def best(self) -> dict[str, Any]:
        """The best point; {} while no trial is complete."""
        winner = self._study.winner()
        return dict(self._study.space.point(winner)) if winner else {}

    @property
    def value(self) -> float | None:
        """Its value; None while no trial is complete."""
        winner = self._study.winner()
        return winner.value if winner else None

    @property
    def run_id(self) -> str:
        """The best trial's run in MLflow.

        Raises:
            UserError: nothing was recorded, or no trial is complete.
        """
        if not self._uri or self.value is None:
            raise UserError("no run: the sweep was not recorded (tracking=none), or none completed")
        with _same_environment(), StoredRuns(self._uri) as records:
            return records.find_sweep(self.name).tags[WINNER]

    @property
    def model(self) -> Model:
        """The best trial's model. MLflow's client keeps idle threads after it has fetched one.

        Raises:
            UserError: as by `run_id`.
        """
        run_id = self.run_id
        with _same_environment():
            return find_model(run_id, self._uri)

    def plot(self) -> Figure:
        """The value of each trial in order, and over the first keys that are numbers."""
        done = self.trials.dropna(subset=[self.objective])
        keys = [d.key for d in self._study.space.dimensions if d.kind != "choice"][:MOST_KEYS]
        figure = Shown(figsize=(3.2 * (1 + len(keys)), 3), layout="constrained")
        axes = figure.subplots(1, 1 + len(keys), sharey=True, squeeze=False)[0]
        best = done[self.objective]
        best = best.cummin() if self._study.plan.direction == "minimize" else best.cummax()
        axes[0].plot(done.index, done[self.objective], "o", markersize=4)
        axes[0].step(best.index, best, where="post", label="best so far")
        axes[0].set(xlabel="trial", ylabel=self.objective)
        axes[0].legend()
        for key, its in zip(keys, axes[1:], strict=True):
            its.plot(done[key], done[self.objective], "o", markersize=4)
            its.set(xlabel=key)
            d = self._study.space[key]
            if d.log:
                ticks = [d.low, math.sqrt(d.low * d.high), d.high]
                its.set_xscale("log")
                its.set_xticks(ticks, [f"{x:.2g}" for x in ticks])
                its.set_xticks([], minor=True)
        return figure

    def __repr__(self) -> str:
        counts = self.trials["outcome"].value_counts().to_dict()
        ended = ", ".join(f"{n} {outcome}" for outcome, n in counts.items()) or "no trial ended"
        best = "" if self.value is None else f"; {self.objective} {self.value:.6g} at {self.best}"
        return f"<Sweep {self.name}: {ended}{best}>"

    def _repr_html_(self) -> str:
        ascending = self._study.plan.direction == "minimize"
        ranked = self.trials.dropna(subset=[self.objective])
        ranked = ranked.sort_values(self.objective, ascending=ascending).drop(columns="reason")
        picture = _as_html(self.plot()) if len(ranked) else ""
        table = ranked.head(SHOWN).to_html(float_format="{:.6g}".format)
        return f"<b>sweep {escape(self.name)}</b>, the best {SHOWN}:{table}{picture}"


@contextmanager
def _same_environment() -> Iterator[None]:
    """After the block the process's environment is as before: MLflow's settings are in it."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _table(rows: dict[str, str]) -> str:
    cells = (f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in rows.items())
    return f"<table>{''.join(cells)}</table>"


def _as_html(figure: Figure) -> str:
    assert isinstance(figure, Shown)
    data = base64.b64encode(figure._repr_png_()).decode()
    return f'<img src="data:image/png;base64,{data}">'
