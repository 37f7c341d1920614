"""What a sweep keeps in its study: system attributes, so that Optuna's tools do not print them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

PLAN, SPACE, IDENTITY = "fmexp:plan", "fmexp:space", "fmexp:identity"
"""What every trial shares, what is searched, and what makes two sweeps the same one."""


def keep(study: optuna.Study, key: str, value: Any) -> None:
    """Write one attribute; `value` as JSON knows it."""
    study._storage.set_study_system_attr(study._study_id, key, value)


def kept(study: optuna.Study) -> dict[str, Any]:
    """All attributes."""
    return study._storage.get_study_system_attrs(study._study_id)
