"""The study of a search: made, or found and gone on with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fmexp import __version__
from fmexp.errors import ConfigError
from fmexp.record.spool import new_key
from fmexp.sweep import progress
from fmexp.sweep.study import VERSION, SweepStudy, as_stored
from fmexp.sweep.trial_status import IDENTITY, PLAN

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from fmexp.sweep.search import Search


def open_study(search: Search, storage: BaseStorage) -> str:
    """Make or find the study, with all that workers need in it; returns its name.

    Raises:
        ConfigError: the study of the name that was given is of another sweep.
    """
    name, known = search.name, {each.study_name: each for each in storage.get_all_studies()}
    if not search.options.resume:
        base, number = name, 2
        while name in known:
            name, number = f"{base}-{number}", number + 1
    if name in known and PLAN in known[name].system_attrs:
        with as_stored(name):
            _go_on(search, SweepStudy(storage, name))
        return name
    identities = {each: s.system_attrs.get(IDENTITY) for each, s in known.items()}
    if any(identities.values()):
        print(progress.newness({k: v for k, v in identities.items() if v}, search.identity))
    plan = replace(search.plan, sweep_key=new_key())
    study = SweepStudy.make(storage, name, search.space, plan, search.points, search.identity)
    study.optuna.set_user_attr(VERSION, __version__)
    return name


def _go_on(search: Search, study: SweepStudy) -> None:
    """Go on with a study that is there: with its own plan, whatever the files say now."""
    theirs, mine = study.attributes()[IDENTITY], search.identity
    if theirs != mine:
        unlike = progress.difference(theirs, mine)
        raise ConfigError(
            f"the study {study.name} is of another sweep: unlike this one in {unlike}; "
            "give another hydra.sweeper.study_name, or the same configuration"
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
