"""Train Factorization Machines, track every attempt, search their hyperparameters."""

from importlib import import_module

__version__ = "0.1.0"

_PLACES = {
    "FMClassifier": "fmexp.estimators",
    "FMRegressor": "fmexp.estimators",
    "current_trial": "fmexp.application.trial",
    "load": "fmexp.analysis.export",
    "run": "fmexp.interactive.calls",
}
"""Where the names for use from Python are defined; imported only when they are used."""

__all__ = [*_PLACES, "sweep"]


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def __getattr__(name: str) -> object:
    if name == "sweep":
        return import_module("fmexp.sweep")  # a package that can be called
    if name not in _PLACES:
        raise AttributeError(f"fmexp has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_PLACES[name]), name)
