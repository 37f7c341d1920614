"""Work on a study until its total is complete, with new workers where all were lost."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from fmexp.sweep.worker import DONE, EXHAUSTED
from fmexp.sweep.worker_process import LOOK_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from fmexp.sweep.failover.failover import Failover
    from fmexp.sweep.pool import WorkerPool
    from fmexp.sweep.study import SweepStudy

LOST = "lost"
"""Why a sweep ends when trials are missing, no worker is left, and no more may be started."""


def work_to_the_end(
    pool: WorkerPool,
    failover: Failover,
    study: SweepStudy,
    work: Callable[[WorkerPool], None],
    relaunch: int,
) -> str:
    """Work again for the trials of workers that died; wait for those of other commands.

    Args:
        pool: of this command's workers.
        failover: gives up the trials of the dead.
        study: what is worked on.
        work: starts workers and returns when none of them is left.
        relaunch: how often that is done again because some of them were lost.

    Returns:
        Why it is over: one of the reasons of `fmexp.sweep.worker`, "interrupted" or LOST.
    """
    while True:
        failover.recover(pool.tracker)
        pool.reasons.clear()
        lost = len(pool.lost)
        work(pool)
        if others := {*pool.reasons} - {DONE, EXHAUSTED}:
            return pool.asked() or others.pop()
        if reason := _await_others(pool, failover, study):
            return reason
        if len(pool.lost) > lost:
            if pool.relaunches == relaunch:
                return LOST
            pool.relaunches += 1


def _await_others(pool: WorkerPool, failover: Failover, study: SweepStudy) -> str:
    """Wait while others run what is missing; why it is over, "" where workers are needed.

    Those of a launch that says that it was lost may still work, or those of another command.
    """
    n_trials = int(pool.job.options["n_trials"])
    while not pool.asked():
        failover.recover(pool.tracker)
        states = Counter(t.state for t in study.counted())
        waiting, running = states[TrialState.WAITING], states[TrialState.RUNNING]
        ended = states.total() - waiting - running
        if ended >= n_trials:
            return DONE
        is_more = waiting or (EXHAUSTED not in pool.reasons and ended + running < n_trials)
        if is_more and (pool.reasons or not running):
            return ""
        if not running:
            return EXHAUSTED
        time.sleep(LOOK_SECONDS)
    return pool.asked()
