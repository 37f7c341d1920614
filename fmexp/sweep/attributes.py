"""What a sweep keeps in its study: system attributes, so that Optuna's tools do not print them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

PLAN, SPACE, IDENTITY = "fmexp:plan", "fmexp:space", "fmexp:identity"
"""What every trial shares, what is searched, and what makes two sweeps the same one."""

PICTURED = "fmexp:pictured"
"""The trial whose record has all that only the winner's has."""

MEMO = "fmexp:memo"
"""Of a trial that was the best when it ended: what the winner's last files are made from."""


def keep(study: optuna.Study, key: str, value: Any) -> None:
    """Write one attribute; `value` as JSON knows it."""
    study._storage.set_study_system_attr(study._study_id, key, value)


def kept(study: optuna.Study) -> dict[str, Any]:
    """All attributes."""
    return study._storage.get_study_system_attrs(study._study_id)


def keep_memo(trial: optuna.Trial, memo: dict[str, Any]) -> None:
    """Write what a trial that may win leaves for the end of the sweep."""
    trial.study._storage.set_trial_system_attr(trial._trial_id, MEMO, memo)
