"""What a sweep writes into its study, and which trials count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.trial import TrialState

from fmexp.record.tracker import Outcome

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

PLAN, SPACE, IDENTITY = "fmexp:plan", "fmexp:space", "fmexp:identity"
"""Study attributes: what all workers share, what is searched, what makes two sweeps the same."""

PARENT = "fmexp:parent"
"""Study attribute, with a digest of the store: the run id of the sweep's own run."""

COMPLETED_WINNER = "fmexp:completed_winner"
"""Study attribute: the trial whose record has all that only a winner's has."""

MEMO = "fmexp:memo"
"""Trial attribute: `Evaluation.memo`."""

WORKER, OUTCOME, REASON, RETRY_OF = "worker", "outcome", "reason", "retry_of"
"""Trial attributes: the worker that runs it, how it ended, why, and the trial it runs again."""

LOSSES = "losses"
"""Trial attribute: how many trials of this point have lost their workers before."""

MARK = "mark"
"""Trial attribute: why a trial does not count."""

DISCARD = "discard"  # asked for when the total was complete
LOST = "lost"  # its worker died
INTERRUPTED = "interrupted"  # its worker was stopped
REPEAT = "repeat"  # its point was known already

STATES = {
    Outcome.COMPLETED: TrialState.COMPLETE,
    Outcome.PRUNED: TrialState.PRUNED,
    Outcome.DIVERGED: TrialState.FAIL,
    Outcome.FAILED: TrialState.FAIL,
    Outcome.INTERRUPTED: TrialState.FAIL,
}
"""What Optuna calls each outcome."""

_SAYS = {TrialState.COMPLETE: Outcome.COMPLETED, TrialState.PRUNED: Outcome.PRUNED}
"""States that say the outcome; of a FAIL the attribute does."""


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial is one of `n_trials`, be it waiting, running or done."""
    mark = trial.user_attrs.get(MARK)
    # a trial given up for lost may have ended just before the study was told so
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    return not mark or (mark == LOST and trial.state in ended)


def outcome_of(trial: FrozenTrial) -> str:
    """How a trial ended, or running or waiting."""
    told = _SAYS.get(trial.state) or trial.user_attrs.get(OUTCOME)
    return str(told) if trial.state.is_finished() and told else trial.state.name.lower()


def has_taken(trial: FrozenTrial, outcome: Outcome, value: float | None) -> bool:
    """Whether a finished trial ended so for the study.

    State and attributes of a finished trial cannot change. So when several write at the same
    moment, each reads here afterwards what came of it, and all read the same.
    """
    if trial.state is not STATES[outcome] or outcome_of(trial) != outcome:
        return False
    if outcome is Outcome.INTERRUPTED:
        return True
    return counts(trial) and (outcome is not Outcome.COMPLETED or trial.value == value)
