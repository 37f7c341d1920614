"""A sweep as its record tells it: trials, space, winner; and the same as a study for Optuna."""

from __future__ import annotations

import ast
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fmexp.analysis.objective import Objective
from fmexp.record.tracker import APPLICATION
from fmexp.sweep.space import Space

if TYPE_CHECKING:
    import optuna

    from fmexp.record.queries import StoredRun, StoredRuns
    from fmexp.sweep.space import Dimension

SPACE = "space.json"


@dataclass(frozen=True)
class Trial:
    """One point that was tried.

    Attributes:
        value: the objective; None unless it completed.
    """

    record: StoredRun
    number: int
    point: dict[str, Any]
    value: float | None


@dataclass(frozen=True)
class Sweep:
    """All of it.

    Attributes:
        objective: the name of the metric that trials are ranked by.
        trials: those that have ended, in the order of their numbers.
        best: the completed ones, best first.
        maximized: whether larger values are better.
    """

    parent: StoredRun
    space: Space
    objective: str
    trials: list[Trial]
    best: list[Trial]
    maximized: bool

    @property
    def name(self) -> str:
        """The study's name."""
        return self.parent.tags.get("fmexp.sweep", self.parent.name)

    @property
    def is_ours(self) -> bool:
        """Whether its trials are Factorization Machines; else another application's."""
        return APPLICATION not in self.parent.tags

    @property
    def curve(self) -> str:
        """The metric whose curves are shown."""
        loss = "logloss" if self.parent.params.get("task") == "classification" else "mse"
        return f"val/{loss}" if self.is_ours else self.objective

    def outcomes(self) -> list[tuple[str, str, int, Trial]]:
        """(outcome, reason, how often, an example) of all trials, the most frequent first.

        Reasons that differ only in their numbers are counted together.
        """
        keys = [(t.record.outcome, re.sub(r"\d[\d.e+-]*", "0", _reason(t))) for t in self.trials]
        examples = dict(zip(keys, self.trials, strict=True))
        return [
            (key[0], _reason(examples[key]), n, examples[key])
            for key, n in Counter(keys).most_common()
        ]

    def study(self, most: int | None = None) -> optuna.Study:
        """The trials under their numbers for Optuna's pictures, which take only a study.

        Args:
            most: only so many of the completed ones, the best; None for all trials.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(direction="maximize" if self.maximized else "minimize")
        states = optuna.trial.TrialState
        shown = self.trials if most is None else self.best[:most]
        distributions = {
            d.key: _reaching(d, [t.point[d.key] for t in self.trials if d.key in t.point])
            for d in self.space.dimensions
        }
        by_number = {trial.number: trial for trial in shown}
        for number in range(max(by_number, default=-1) + 1):
            trial = by_number.get(number)
            if trial is None or trial.record.outcome not in ("completed", "pruned"):
                study.add_trial(optuna.trial.create_trial(state=states.FAIL))
                continue
            trial_of_study = optuna.trial.create_trial(
                state=states.PRUNED if trial.value is None else states.COMPLETE,
                value=trial.value,
                params=trial.point,
                distributions={key: distributions[key] for key in trial.point},
            )
            study.add_trial(trial_of_study)
        return study


def read(records: StoredRuns, name: str) -> Sweep:
    """The sweep of this name, id, or beginning of an id; a trial stands for its sweep.

    Raises:
        UserError: there is no such sweep.
        StoreError: the store does not answer.
    """
    parent = records.find_sweep(name)
    space = Space.from_json(records.artifact(parent, SPACE).read_text(encoding="utf-8"))
    ended = [r for r in records.children(parent) if r.outcome]
    trials = sorted((_trial(r, space) for r in ended), key=lambda t: t.number)
    objective = Objective.of(parent)
    by_run = {t.record.run_id: t for t in trials}
    return Sweep(
        parent=parent,
        space=space,
        objective=objective.name,
        trials=trials,
        best=[by_run[r.run_id] for r in objective.ranked(t.record for t in trials)],
        maximized=objective.maximized,
    )


def _trial(record: StoredRun, space: Space) -> Trial:
    point: dict[str, Any] = {}
    for d in space.dimensions:
        if d.key in record.params and (d.condition is None or d.condition.holds(point)):
            point[d.key] = _value(d, record.params[d.key])
    number = int(record.tags.get("fmexp.trial", 0))
    return Trial(record, number, point, Objective.value(record))


def _reaching(d: Dimension, tried: list[Any]) -> optuna.distributions.BaseDistribution:
    """The dimension with what was tried outside it, such as the configuration's own value."""
    outside = [x for x in tried if not d.find(x)[0]]
    if not outside:
        return d.distribution
    if d.kind == "choice":
        return replace(d, choices=tuple(dict.fromkeys([*d.choices, *outside]))).distribution
    low, high = min(d.low, *outside), max(d.high, *outside)
    return replace(d, low=low, high=high, step=1 if d.kind == "int" else None).distribution


def _value(dimension: Dimension, text: str) -> Any:
    """The value of a dimension that `str` made a param of."""
    for choice in dimension.choices:
        if str(choice) == text:
            return choice
    try:
        return dimension.find(ast.literal_eval(text))[1]
    except (ValueError, SyntaxError):  # the configuration's own name, outside the space
        return text


def _reason(trial: Trial) -> str:
    """The first line of why it ended so."""
    return "".join(trial.record.tags.get("fmexp.reason", "").splitlines()[:1])
