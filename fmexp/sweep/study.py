"""A sweep's study: its trials, which of them count, how a trial is told.

The study is the only thing that workers share. Long attributes are system attributes of Optuna's
storage, which its own tools do not print.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from fmexp.errors import UserError
from fmexp.record.passwords import without_password
from fmexp.record.tracker import Outcome
from fmexp.sweep.space import Space
from fmexp.sweep.trial_status import (
    IDENTITY,
    INTERRUPTED,
    LOST,
    MARK,
    MEMO,
    OUTCOME,
    PLAN,
    REASON,
    RETRY_OF,
    SPACE,
    STATES,
    WORKER,
    counts,
    has_taken,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

    from fmexp.sweep.space import Point
    from fmexp.sweep.task import Evaluation

Direction = Literal["minimize", "maximize"]

VERSION = "fmexp_version"
"""Study attribute: of the fmexp that began it."""


@dataclass(frozen=True)
class SweepPlan:
    """What all workers of a study share, frozen with it: nothing of it is read again.

    Attributes:
        objective: name of the metric that trials are ranked by.
        direction: in which it gets better.
        sweep_key: key of the sweep's own run; the trials' begin with it.
        steps: most steps of a trial, for the pruner.
        settings: the task's own, as JSON, see `fmexp.sweep.task.open_task`.
    """

    objective: str
    direction: Direction
    sweep_key: str
    steps: int
    settings: dict[str, Any]

    def trial_key(self, number: int) -> str:
        """The run key of a trial."""
        return f"{self.sweep_key}-{number:06d}"


@contextlib.contextmanager
def as_stored(name: str) -> Iterator[None]:
    """What a study keeps is read in the block; where it is damaged, the user is told.

    Raises:
        UserError: it does not hold what fmexp writes.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, AssertionError) as error:
        raise UserError(
            f"the study {name} does not hold what fmexp writes ({type(error).__name__}: {error}): "
            "give another hydra.sweeper.study_name, or move its storage away (optuna.journal)"
        ) from error


class SweepStudy:
    """An Optuna study as the sweep uses it; one object for each thread, on a storage they share.

    Attributes:
        url: where it is kept, for others to open it.
        optuna: the study itself.
        space: what is searched.
        plan: what all workers share.
    """

    def __init__(self, storage: BaseStorage, name: str, url: str = "") -> None:
        """Open a study that was made by `make`."""
        self.name, self.url, self._storage = name, url, storage
        self.optuna = optuna.load_study(study_name=name, storage=storage)
        self._id = storage.get_study_id_from_name(name)
        self._trial_ids: dict[int, int] = {}
        with as_stored(name):
            attributes = self.attributes()
            self.space = Space.from_json(attributes[SPACE])
            self.plan = SweepPlan(**attributes[PLAN])

    @classmethod
    def make(
        cls,
        storage: BaseStorage,
        name: str,
        space: Space,
        plan: SweepPlan,
        points: list[Point],
        identity: dict[str, Any],
    ) -> SweepStudy:
        """Make a study; if its maker died half-way, make the rest.

        By one process at a time: see `Election`. The plan is written last.

        Args:
            storage: where.
            name: of the study.
            space: what is searched.
            plan: what all workers share.
            points: to be evaluated first.
            identity: what makes two sweeps the same one, as JSON.
        """
        study = optuna.create_study(
            storage=storage, study_name=name, direction=plan.direction, load_if_exists=True
        )
        for point in points:
            space.enqueue(study, point)
        number = storage.get_study_id_from_name(name)
        storage.set_study_system_attr(number, IDENTITY, identity)
        storage.set_study_system_attr(number, SPACE, space.to_json())
        storage.set_study_system_attr(number, PLAN, asdict(plan))
        return cls(storage, name)

    def attributes(self) -> dict[str, Any]:
        """The sweep's own attributes of the study."""
        return self._storage.get_study_system_attrs(self._id)

    def set_attribute(self, key: str, value: Any) -> None:
        """Write one of them; `value` as JSON knows it."""
        self._storage.set_study_system_attr(self._id, key, value)

    # ---------------------------------------------------------------------------------- reading

    def trials(self) -> list[FrozenTrial]:
        """All trials as the storage has them now, not to be changed."""
        return self.optuna.get_trials(deepcopy=False)

    def counted(self) -> list[FrozenTrial]:
        """Those that are among `n_trials`."""
        return [t for t in self.trials() if counts(t)]

    def ended(self) -> list[FrozenTrial]:
        """Those of them that have ended, in the order in which they did."""
        done = [t for t in self.counted() if t.state.is_finished()]
        return sorted(done, key=lambda t: t.datetime_complete or 0)

    def ranking(self) -> list[FrozenTrial]:
        """The completed trials that count, best first; equal ones in the order of their numbers."""
        sign = 1 if self.plan.direction == "minimize" else -1
        done = [t for t in self.counted() if t.state is TrialState.COMPLETE]
        return sorted(done, key=lambda t: (sign * (t.value or 0.0), t.number))

    def winner(self) -> FrozenTrial | None:
        """The best trial; None while none is complete."""
        return next(iter(self.ranking()), None)

    def better(self, best: float | None, value: float | None) -> float | None:
        """The better of two values; None is worse than any."""
        if best is None or value is None:
            return value if best is None else best
        return min(best, value) if self.plan.direction == "minimize" else max(best, value)

    def is_best(self, value: float) -> bool:
        """Whether a value is at least as good as all that the study has."""
        try:
            best = self.optuna.best_value
        except ValueError:  # no trial is complete yet
            return True
        return self.better(best, value) == value

    def rank(self, number: int) -> int:
        """How many trials with a lower number count.

        Exact however many workers race, as no two trials have the same number: the n_trials-th that
        counts knows that it is the last. A count of all trials is not: two that ask together would
        each see the other.
        """
        return sum(t.number < number for t in self.counted())

    # ---------------------------------------------------------------------------------- writing

    def ask(self, worker: str) -> optuna.Trial:
        """A new trial, or one that was enqueued; signed by the worker that runs it."""
        trial = self.optuna.ask()
        trial.set_user_attr(WORKER, worker)
        return trial

    def drop(self, number: int, mark: str, value: float | None = None) -> None:
        """Mark a trial as one that does not count, and finish it."""
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        with contextlib.suppress(ValueError, UpdateFinishedTrialError):  # it was given up
            self._set_attributes(number, {MARK: mark})
            self.optuna.tell(number, value, state)

    def tell(self, number: int, ended: Evaluation) -> bool:
        """Tell the study how a trial ended; whether it has taken that.

        It has not where the trial was given up before, as its lease had run out.
        """
        outcome = ended.outcome
        attributes = {OUTCOME: str(outcome)}
        if ended.reason:
            attributes[REASON] = without_password(ended.reason[:2000])
        if outcome not in (Outcome.COMPLETED, Outcome.PRUNED):  # Optuna's FAIL does not say why
            attributes[MARK] = INTERRUPTED if outcome is Outcome.INTERRUPTED else ""
        if ended.memo is not None:
            with contextlib.suppress(UpdateFinishedTrialError):
                self._storage.set_trial_system_attr(self._trial_id(number), MEMO, ended.memo)
        self._finish(number, attributes, STATES[outcome], ended.value)
        return has_taken(self.trial(number), outcome, ended.value)

    def give_up(self, number: int) -> bool:
        """Give up a trial whose worker is dead, and enqueue its point again; whether it is lost.

        Safe when several do it at once, and when the worker is not that dead and tells its end just
        now: only one of them finishes the trial, and that one enqueues.
        """
        finished = self._finish(number, {MARK: LOST}, TrialState.FAIL)
        return finished and not counts(self.trial(number))

    def trial(self, number: int) -> FrozenTrial:
        """One trial as the storage has it now."""
        return self._storage.get_trial(self._trial_id(number))

    def _finish(
        self,
        number: int,
        attributes: dict[str, str],
        state: TrialState,
        value: float | None = None,
    ) -> bool:
        """Finish a running trial; False if it was finished already."""
        try:
            self._set_attributes(number, attributes)
            self.optuna.tell(number, value if state is TrialState.COMPLETE else None, state)
        except (
            ValueError,
            UpdateFinishedTrialError,
        ):  # Optuna's words for "it is finished already"
            return False
        trial = self.trial(number)
        if not counts(trial) and trial.user_attrs[MARK] in (LOST, INTERRUPTED):
            point = self.space.planned(trial)
            if point:
                self.space.enqueue(self.optuna, point, {RETRY_OF: number})
        return True

    def _trial_id(self, number: int) -> int:
        """The storage's own number of a trial; asked once, since a database is far away."""
        if number not in self._trial_ids:
            found = self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
            self._trial_ids[number] = found
        return self._trial_ids[number]

    def _set_attributes(self, number: int, attributes: dict[str, str]) -> None:
        trial_id = self._trial_id(number)
        for name, value in attributes.items():
            self._storage.set_trial_user_attr(trial_id, name, value)
