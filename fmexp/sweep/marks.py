"""What a sweep writes on its trials, and which trials count."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    return MARK not in trial.user_attrs
