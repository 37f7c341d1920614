"""Who makes what a study has once (its plan, its first points, its own run): an election.

It is held in the study's storage alone, as that is all that machines share. Optuna's storages have
no compare-and-set, but none of them has two studies of one name. So whoever makes the auxiliary
study `NAME/leader/1` leads; when its lease does not move any more, `NAME/leader/2` is up, and so
on. These studies are taken away when all is made.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from optuna.exceptions import DuplicatedStudyError
from optuna.study import StudyDirection

from fmexp.sweep.failover.leases import Lease, LeaseWatch

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

_MARK = "/leader/"


def is_auxiliary(name: str) -> bool:
    """Whether a study of this name only says who leads another."""
    return _MARK in name


class Election:
    """One process's part in the election for a study."""

    def __init__(self, storage: BaseStorage, name: str) -> None:
        self._storage, self._name = storage, name
        self._number = 1
        self._watch = LeaseWatch()
        self._lease: Lease | None = None

    def is_won(self) -> bool:
        """Whether this process leads; to be asked several times in the length of a lease.

        Who was stopped for longer than that may lead no more without knowing: look whether the
        thing is made before making it.
        """
        if self._lease is None and self._next_is_up():
            try:
                study = self._storage.create_new_study([StudyDirection.MINIMIZE], self._title())
            except DuplicatedStudyError:  # another was faster
                return False
            self._lease = Lease(_Auxiliary(self._storage, study)).__enter__()
        return self._lease is not None

    def close(self) -> None:
        """Lead no more: all is made, or nobody is left here to make it."""
        if self._lease is None:
            return
        with suppress(KeyError):  # somebody has tidied up
            self._lease.__exit__()
        self._lease = None

    def tidy(self) -> None:
        """Take the auxiliary studies away, as all is made."""
        self.close()
        for study in self._storage.get_all_studies():
            if study.study_name.startswith(f"{self._name}{_MARK}"):
                with suppress(KeyError):  # somebody else has
                    name = study.study_name
                    self._storage.delete_study(self._storage.get_study_id_from_name(name))

    def _next_is_up(self) -> bool:
        """Whether nobody leads; turns to the next number where the leader does not live."""
        while (study := self._find(self._number)) is not None:
            try:
                leases = self._storage.get_study_system_attrs(study)
            except KeyError:  # taken away just now
                return False
            said: Any = next(iter(leases.values()), None)
            if self._watch.look({self._title(): said}):
                return False
            self._number += 1
        return True

    def _find(self, number: int) -> int | None:
        try:
            return self._storage.get_study_id_from_name(f"{self._name}{_MARK}{number}")
        except KeyError:
            return None

    def _title(self) -> str:
        return f"{self._name}{_MARK}{self._number}"


class _Auxiliary:
    """A study that a lease is written to."""

    def __init__(self, storage: BaseStorage, study: int) -> None:
        self._storage, self._study = storage, study

    def set_attribute(self, key: str, value: Any) -> None:
        self._storage.set_study_system_attr(self._study, key, value)
