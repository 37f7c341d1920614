"""What a sweep writes on its trials, and which trials count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.trial import TrialState

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

MARK = "mark"
"""Trial attribute: why a trial does not count."""

DISCARD = "discard"  # asked for when the total was complete
LOST = "lost"  # its worker died
INTERRUPTED = "interrupted"  # its worker was stopped
REPEAT = "repeat"  # its point was known already


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial is one of `n_trials`, be it waiting, running or done."""
    mark = trial.user_attrs.get(MARK)
    # a trial given up for lost may have ended just before the study was told so
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    return not mark or (mark == LOST and trial.state in ended)
