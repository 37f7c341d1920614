"""Keys that have no meaning with some backend: refused where typed, left out of the record."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from fmexp.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

_STEPS = "it draws parameters from their posterior and takes no steps"
_PRIORS = "how strongly parameters are held together is drawn with them"
_START = "V starts at the size that its prior expects on these rows"
_MEANINGLESS: dict[str, dict[str, tuple[Any, str]]] = {
    "gibbs": {
        "model.init_stdev": (1.0, _START),
        "training.learning_rate": (1.0, _STEPS),
        "training.learning_rate_decay": (0.0, _STEPS),
        "training.cap_steps": (False, _STEPS),
        "training.average_from": (None, "predictions are means over its samples already"),
        "training.shuffle": (False, "it visits features, not rows"),
        "training.reg_w0": (0.0, _PRIORS),
        "training.reg_w": (0.0, _PRIORS),
        "training.reg_V": (0.0, _PRIORS),
    }
}
"""By backend: each key with the value that stands for it in a Config, and the reason."""


def reason(key: str, backend: str) -> str | None:
    """Why a key has no meaning with a backend, for a message; None where it has one.

    >>> reason("training.shuffle", "gibbs")
    'no meaning with backend=gibbs: it visits features, not rows'
    """
    known = _MEANINGLESS.get(backend, {}).get(key)
    return known and f"no meaning with backend={backend}: {known[1]}"


def refuse(given: Iterable[str], backend: str) -> None:
    """Refuse keys that the user set and that have no meaning.

    Raises:
        ConfigError: one line for each.
    """
    lines = [f"{key} has {why}" for key in sorted(given) if (why := reason(key, backend))]
    if lines:
        raise ConfigError("\n".join(lines))


def without(tree: dict[str, Any]) -> dict[str, Any]:
    """A configuration tree without the keys that have no meaning with its backend."""
    return _changed(tree, keep=False)


def filled(tree: dict[str, Any]) -> dict[str, Any]:
    """The same with a value that stands for each of them, so that a Config can be made of it."""
    return _changed(tree, keep=True)


def _changed(tree: dict[str, Any], keep: bool) -> dict[str, Any]:
    backend = tree.get("backend")
    name = backend.get("name") if isinstance(backend, dict) else None
    keys = _MEANINGLESS.get(str(name), {})
    tree = copy.deepcopy(tree) if keys else tree
    for key, (value, _) in keys.items():
        group, _, leaf = key.partition(".")
        if isinstance(tree.get(group), dict):
            tree[group].pop(leaf, None)
            tree[group] |= {leaf: value} if keep else {}
    return tree
