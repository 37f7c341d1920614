"""The study of a search: made, or found and gone on with."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from optuna.exceptions import DuplicatedStudyError
from optuna.study import StudyDirection

from fmexp import __version__
from fmexp.errors import ConfigError
from fmexp.record.spool import new_key
from fmexp.sweep import progress
from fmexp.sweep.election import Election, is_auxiliary
from fmexp.sweep.study import VERSION, SweepStudy, as_stored
from fmexp.sweep.trial_status import IDENTITY, PLAN

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from fmexp.sweep.search import Search


def open_study(search: Search, storage: BaseStorage) -> tuple[str, Election]:
    """Make or find the study, with all that workers need in it; returns its name.

    Of commands that begin at the same moment, be it on different machines, one makes it; where
    that one dies, another. The election goes on to the study's own run, see `SweepRun`.

    Raises:
        ConfigError: the study of the name that was given is of another sweep.
    """
    name = search.name if search.options.resume else _new_name(search, storage)
    election = Election(storage, name)
    while not _is_made(storage, name):
        if not election.is_won():
            time.sleep(random.uniform(0.05, 0.2))
        elif not _is_made(storage, name):  # the leader before us may have been slow only
            _make(search, storage, name)
            return name, election
    with as_stored(name):
        _go_on(search, SweepStudy(storage, name))
    return name, election


def _new_name(search: Search, storage: BaseStorage) -> str:
    """A name that no study has; taken by making the study."""
    direction = StudyDirection[search.plan.direction.upper()]
    name, number = search.name, 2
    while True:
        try:
            storage.create_new_study([direction], name)
        except DuplicatedStudyError:
            name, number = f"{search.name}-{number}", number + 1
        else:
            return name


def _is_made(storage: BaseStorage, name: str) -> bool:
    """Whether the study has its plan, which is written last."""
    try:
        return PLAN in storage.get_study_system_attrs(storage.get_study_id_from_name(name))
    except KeyError:
        return False


def _make(search: Search, storage: BaseStorage, name: str) -> None:
    known = storage.get_all_studies()
    identities = {
        each.study_name: identity
        for each in known
        if not is_auxiliary(each.study_name) and (identity := each.system_attrs.get(IDENTITY))
    }
    if identities:
        print(progress.newness(identities, search.identity))
    plan = replace(search.plan, sweep_key=new_key())
    study = SweepStudy.make(storage, name, search.space, plan, search.points, search.identity)
    study.optuna.set_user_attr(VERSION, __version__)


def _content(identity: dict[str, Any]) -> dict[str, Any]:
    """An identity without what files are called and where they lie: their digests count."""
    inputs = {name: each["digest"] for name, each in identity["inputs"].items()}
    config = {key: value for key, value in identity["config"].items() if key != "data.path"}
    return {**identity, "inputs": inputs, "config": config}


def _go_on(search: Search, study: SweepStudy) -> None:
    """Go on with a study that is there: with its own plan, whatever the files say now."""
    theirs, mine = study.attributes()[IDENTITY], search.identity
    if _content(theirs) != _content(mine):
        unlike = progress.difference(theirs, mine)
        there, here = (each["inputs"].get("data", {}).get("digest", "") for each in (theirs, mine))
        if there != here:
            unlike += f" (data of digest {there[:16]} there, {here[:16]} here)"
        raise ConfigError(
            f"the study {study.name} is of another sweep: unlike this one in {unlike}; "
            "give another hydra.sweeper.study_name, or the same configuration"
        )
    if study.space.to_json() != search.space.to_json():  # its values reach the configuration
        raise ConfigError(
            f"the study {study.name} holds another space than it says it does: another program has "
            "changed it; give another hydra.sweeper.study_name"
        )
    print(f"continuing the study {study.name}; {progress.so_far(search, study)}")
    began = study.optuna.user_attrs.get(VERSION, __version__)
    if began != __version__:
        print(f"warning: it was begun by fmexp {began}, this is {__version__}")
    space, counted = study.space, study.counted()
    known = {space.key(space.point(t)) for t in counted}
    known |= {space.key(space.enqueued(t)) for t in counted}
    for point in search.points:
        if space.key(point) not in known:
            space.enqueue(study.optuna, point)
