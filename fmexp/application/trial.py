"""What an application's function says of its trial while it runs: `fmexp.current_trial()`."""

from __future__ import annotations

import shutil
import stat
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fmexp.errors import ConfigError
from fmexp.record.tracker import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


class Recording(Protocol):
    """Where a trial's curves and files go; `fmexp.sweep.task.Reporter` is one.

    Attributes:
        number: the trial's number in its sweep; None outside one.
        should_stop: whether the user wants to stop.
        prunes: whether `should_prune` can say yes.
    """

    @property
    def number(self) -> int | None: ...  # noqa: D102
    @property
    def should_stop(self) -> Callable[[], bool]: ...  # noqa: D102
    @property
    def prunes(self) -> bool: ...  # noqa: D102
    @property
    def folder(self) -> Path | None: ...  # noqa: D102
    def log(self, step: int, metrics: dict[str, float]) -> None: ...  # noqa: D102
    def should_prune(self, step: int, value: float) -> bool: ...  # noqa: D102


class Trial:
    """One call of an application's function.

    Attributes:
        number: of the trial in its sweep; None outside a sweep.
        ended: why the function was told to stop, if it was and has logged nothing since.
        reason: the same in words.
        curves: names of what was logged.
    """

    def __init__(self, recording: Recording | None, objective: str | None = None) -> None:
        """Args: `recording` None keeps nothing; `objective` names the metric that pruning looks at.

        Without a name it is the metric that is logged, if there is one only.
        """
        self.number = recording.number if recording else None
        self.ended: Outcome | None = None
        self.reason = ""
        self._recording, self._objective = recording, objective
        self.curves: set[str] = set()
        self._last: tuple[int, float] | None = None

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Add a point to each named curve.

        Args:
            step: epoch, or another count, from 0 or 1 upwards.
            metrics: numbers by name; those that are not finite are left out of the record.
        """
        numbers = {name: as_number(name, x) for name, x in metrics.items()}
        self.ended = None
        self.curves |= numbers.keys()
        watched = self._objective or (next(iter(self.curves)) if len(self.curves) == 1 else "")
        if watched in numbers:
            self._last = (step, numbers[watched])
        finite = {name: x for name, x in numbers.items() if isfinite(x)}
        if self._recording and finite:
            self._recording.log(step, finite)

    def should_prune(self) -> bool:
        """Whether the function should return now; what it returns then does not matter.

        True where the pruner says so by what was logged last, where that is not finite (the trial
        has diverged), and where the user wants to stop.

        Raises:
            ConfigError: several metrics were logged, and nothing says which one counts.
        """
        if self._recording is None:
            return False
        if self._recording.should_stop():
            self.ended, self.reason = Outcome.INTERRUPTED, "interrupted"
        elif self._last is None:
            if len(self.curves) > 1 and self._recording.prunes:
                raise ConfigError(
                    f"pruning looks at one metric, and {', '.join(sorted(self.curves))} were "
                    "logged; set hydra.sweeper.objective to the one that counts"
                )
        elif not isfinite(self._last[1]):
            self.ended = Outcome.DIVERGED
            self.reason = f"{self._watched} was {self._last[1]} at step {self._last[0]}"
        elif self._recording.should_prune(*self._last):
            self.ended = Outcome.PRUNED
            self.reason = f"{self._watched} was {self._last[1]:.6g} at step {self._last[0]}"
        return self.ended is not None

    def artifact(self, path: str | Path) -> None:
        """Keep a copy of a file or folder with the trial's run.

        Of a folder the plain files are kept: no links, pipes or devices.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is neither, or a folder in which the copy would lie.
        """
        source = Path(path)
        if not source.exists():
            raise FileNotFoundError(f"trial.artifact: there is no {source.resolve()}")
        folder = self._recording.folder if self._recording else None
        if folder is None:
            return
        name = source.resolve().name if source.name in ("", "..") else source.name
        if source.is_file():
            shutil.copy2(source, folder / name)
        elif not source.is_dir() or folder.resolve().is_relative_to(source.resolve()):
            raise ValueError(
                f"trial.artifact: expected a file, or a folder of its own for what is kept, got "
                f"{source.resolve()}"
            )
        else:
            shutil.copytree(source, folder / name, ignore=_no_files, dirs_exist_ok=True)

    @property
    def _watched(self) -> str:
        return self._objective or next(iter(self.curves))


def _no_files(folder: str, names: list[str]) -> list[str]:
    """Those in a folder that are neither plain files nor folders."""
    modes = {name: Path(folder, name).lstat().st_mode for name in names}
    return [n for n, mode in modes.items() if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))]


_current: list[Trial] = []
"""A process runs one trial at a time; all its threads see it."""


def current_trial() -> Trial:
    """The trial that runs; outside a sweep one that keeps nothing and never says stop."""
    return _current[-1] if _current else Trial(None)


@contextmanager
def running(trial: Trial) -> Iterator[Trial]:
    """Within the block it is the current one."""
    _current.append(trial)
    try:
        yield trial
    finally:
        _current.remove(trial)


def as_number(name: str, x: Any) -> float:
    """A metric as a float; NumPy's and PyTorch's scalars are numbers too.

    Raises:
        TypeError: it is none.
    """
    try:
        if isinstance(x, str | bytes):
            raise TypeError
        return float(x)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"a metric must be a number, got {name}={x!r:.80}") from None
