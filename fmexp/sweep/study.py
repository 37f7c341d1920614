"""A sweep's study: its trials, which of them count, how a trial is told.

The study is the only thing that workers share. Long attributes are system attributes of Optuna's
storage, which its own tools do not print.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import JournalStorage
from optuna.trial import TrialState

from fmexp.errors import UserError
from fmexp.record.passwords import without_password
from fmexp.record.tracker import Outcome
from fmexp.sweep.draw import Drawing
from fmexp.sweep.space import Space
from fmexp.sweep.trial_status import (
    IDENTITY,
    INTERRUPTED,
    LOSSES,
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
    from collections.abc import Iterator, Sequence

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

    def newest(self, numbers: list[int], first: int) -> list[FrozenTrial]:
        """These trials, and all from number `first` on, as the storage has them now.

        Of a database one query reads what may have changed. A journal is in memory, and to list
        thousands of trials would take longer than all the rest of a trial.
        """
        if not isinstance(self._storage, JournalStorage):
            trials = self.trials()
            return [trials[n] for n in numbers] + trials[first:]
        found = [self.trial(n) for n in numbers]
        with contextlib.suppress(KeyError):
            found += (self.trial(n) for n in itertools.count(first))
        return found

    # ---------------------------------------------------------------------------------- writing

    def ask(self, worker: str, waiting: Sequence[FrozenTrial] = ()) -> None:
        """Begin a trial: one of those that wait, or a new one; signed by the worker that runs it.

        Where the answer of a database was lost there may be two: see `View.of`.
        """
        for trial in waiting:
            trial_id = self._trial_id(trial.number)
            with contextlib.suppress(UpdateFinishedTrialError):  # another was faster, and is done
                if self._storage.set_trial_state_values(trial_id, TrialState.RUNNING):
                    self._storage.set_trial_user_attr(trial_id, WORKER, worker)
                    return
        signed = optuna.create_trial(state=TrialState.RUNNING, user_attrs={WORKER: worker})
        self._storage.create_new_trial(self._id, signed)

    def drawing(self, trial: FrozenTrial, prunes: bool) -> Drawing | optuna.Trial:
        """What suggests values for a running trial, and takes reports where there is a pruner."""
        study = copy.copy(self.optuna)  # samplers keep in it what they have read: for one trial
        trial_id = self._trial_id(trial.number)
        if prunes:
            return optuna.Trial(study, trial_id)
        return Drawing(study, self._storage, trial_id, trial)

    def drop(self, number: int, mark: str, value: float | None = None) -> None:
        """Mark a trial as one that does not count, and finish it."""
        with contextlib.suppress(UpdateFinishedTrialError):  # it was given up
            self._set_attributes(number, {MARK: mark})
            state = TrialState.FAIL if value is None else TrialState.COMPLETE
            self._set_state(number, state, value)

    def tell(self, number: int, ended: Evaluation) -> bool:
        """Tell the study how a trial ended; whether it has taken that.

        It has not where the trial was given up before, as its lease had run out.
        """
        outcome = ended.outcome
        attributes = {}
        if ended.reason:
            attributes[REASON] = without_password(ended.reason[:2000])
        if outcome not in (Outcome.COMPLETED, Outcome.PRUNED):  # Optuna's FAIL does not say why
            attributes[OUTCOME] = str(outcome)
            attributes[MARK] = INTERRUPTED if outcome is Outcome.INTERRUPTED else ""
        if ended.memo is not None:
            with contextlib.suppress(UpdateFinishedTrialError):
                self._storage.set_trial_system_attr(self._trial_id(number), MEMO, ended.memo)
        finished = self._finish(number, attributes, STATES[outcome], ended.value)
        if finished and outcome in (Outcome.COMPLETED, Outcome.PRUNED):
            return True  # such a trial counts, whatever mark another has given it meanwhile
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
            if state is TrialState.PRUNED:
                self.optuna.tell(number, state=state)  # its last report becomes its value
            else:
                self._set_state(number, state, value if state is TrialState.COMPLETE else None)
        except (ValueError, UpdateFinishedTrialError):  # "it is finished already"
            return False
        if state is not TrialState.FAIL:
            return True
        trial = self.trial(number)
        if not counts(trial) and trial.user_attrs[MARK] in (LOST, INTERRUPTED):
            point = self.space.planned(trial)
            if point:
                losses = trial.user_attrs.get(LOSSES, 0) + (trial.user_attrs[MARK] == LOST)
                self.space.enqueue(self.optuna, point, {RETRY_OF: number, LOSSES: losses})
        return True

    def _set_state(self, number: int, state: TrialState, value: float | None) -> None:
        """What `optuna.Study.tell` does, without reading the trial before."""
        values = None if value is None else [value]
        self._storage.set_trial_state_values(self._trial_id(number), state, values)

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
