"""A search of any task: space, samplers, study, workers.

The package can be called: `fmexp.sweep("model.k=2,4,8")` is `fmexp.interactive.calls.sweep`.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *overrides: str) -> Any:
        """Search, or go on with a search; see `fmexp.interactive.calls.sweep`."""
        return import_module("fmexp.interactive.calls").sweep(*overrides)


sys.modules[__name__].__class__ = _Callable
