"""What a sweep shows: its space, a live line, the best five, and what to do next."""

from __future__ import annotations

import shlex
import statistics
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from fmexp.experiment.trial import in_words as point_in_words
from fmexp.record.environment import program
from fmexp.sweep.study import FAILURES, REASON, trials
from fmexp.sweep.sweep_run import outcome_of, ranking
from fmexp.sweep.trial_status import counts

if TYPE_CHECKING:
    import optuna

    from fmexp.experiment.trial import Plan
    from fmexp.record.tracker import Delivery
    from fmexp.sweep.options import SweepOptions
    from fmexp.sweep.space import Space

SHOWN = 5


def opening(space: Space, left: dict[str, str], options: SweepOptions) -> str:
    """The space, what left it, and how it is searched."""
    lines = ["space", *(f"  {line}" for line in str(space).splitlines())]
    lines += [f"  {key}: not swept, {why}" for key, why in left.items()]
    size = space.size()
    points = "continuous" if size is None else f"{size:,} points"
    lines.append(
        f"search {points}; {options.n_trials:,} trials in all, {options.sampler.name} sampler, "
        f"{options.pruner.name} pruner, {options.n_jobs} at a time"
    )
    return "\n".join(lines)


def estimate(space: Space, options: SweepOptions, seconds_per_trial: float) -> str:
    """How long it would take; nothing is run."""
    number = min(options.n_trials, space.size() or options.n_trials)
    seconds = seconds_per_trial * number / options.n_jobs
    return (
        f"dry run: {number:,} trials of about {_span(seconds_per_trial)} of training each, "
        f"{_span(seconds)} in all; nothing was run"
    )


def difference(name: str, theirs: dict[str, Any], mine: dict[str, Any]) -> str:
    """Which keys tell this sweep from another."""
    pairs = []
    for part in mine:
        a, b = theirs.get(part), mine[part]
        if isinstance(a, dict) and isinstance(b, dict):
            pairs += [(k, a.get(k), b.get(k)) for k in sorted(a.keys() | b.keys())]
        else:
            pairs.append((part, a, b))
    changed = [f"{key} ({a} there, {b} here)" for key, a, b in pairs if str(a) != str(b)]
    return f"a new study: unlike {name} in {', '.join(changed) or 'nothing but its name'}"


class Board:
    """One line while a sweep lasts; silent when stderr is not a terminal."""

    def __init__(
        self, study: optuna.Study, space: Space, plan: Plan, options: SweepOptions
    ) -> None:
        self._study, self._space, self._plan, self._options = study, space, plan, options
        self._shown = sys.stderr.isatty()
        self._began = time.monotonic()
        self._before = _ended(study)

    def show(self) -> None:
        """Draw the line anew."""
        if not self._shown:
            return
        done, total = _ended(self._study), self._options.n_trials
        seconds = time.monotonic() - self._began
        rate = (done - self._before) / seconds if seconds else 0.0
        left = f", {_span((total - done) / rate)} left" if rate and done < total else ""
        best = ranking(self._study)[:1]
        found = (
            f"{self._plan.objective} {best[0].value:.6g} at "
            f"{point_in_words(self._space.point(best[0]))}"
            if best
            else "none complete yet"
        )
        sys.stderr.write(f"\r\x1b[K{done}/{total} trials, {rate:.1f}/s{left}; {found}")
        sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def in_words(study: optuna.Study, space: Space, plan: Plan, options: SweepOptions) -> str:
    """What the sweep is and how far it has come, for the top of its page."""
    outcomes = Counter(outcome_of(t) for t in trials(study) if counts(t))
    listed = ", ".join(f"{number} {name}" for name, number in sorted(outcomes.items()))
    dimensions = "\n".join(f"- {d.key}: {d}" for d in space.dimensions)
    return (
        f"A search for the lowest {plan.objective} by the {options.sampler.name} sampler: "
        f"{listed} of {options.n_trials} trials.\n\n{dimensions}"
    ).replace("lowest", "lowest" if options.direction == "minimize" else "highest")


def summary(
    study: optuna.Study,
    space: Space,
    plan: Plan,
    options: SweepOptions,
    reason: str,
    delivery: Delivery,
    again: list[str],
) -> str:
    """How it ended, the best five, and the commands to see and to continue it."""
    counted = [t for t in trials(study) if counts(t)]
    outcomes = Counter(outcome_of(t) for t in counted)
    done = _ended(study)
    listed = ", ".join(f"{number} {name}" for name, number in sorted(outcomes.items()))
    endings = {
        "done": "done",
        "exhausted": f"space exhausted: {done} of {options.n_trials}",
        "timeout": f"stopped after {options.timeout:g} s" if options.timeout else "stopped",
        "interrupted": "interrupted",
        FAILURES: f"too many failures (hydra.sweeper.max_failure_rate={options.max_failure_rate})",
    }
    lines = [f"{endings.get(reason, reason)}; {done} of {options.n_trials} trials: {listed}"]
    lines += _best_table(study, space, plan)
    lines += _reasons(study)
    if delivery.store:
        lines.append(f"record   {delivery.store}, study {study.study_name}")
        lines.append(f"see it   {program()} ui")
        lines.append(f"compare  {program()} compare --sweep {study.study_name} --best {SHOWN}")
    lines += _next_command(done, options, reason, again)
    return "\n".join(lines)


def _next_command(done: int, options: SweepOptions, reason: str, again: list[str]) -> list[str]:
    """What to type to go on; nothing where the space has no more points."""
    if reason == "exhausted":
        return []
    changed = {}
    if reason == FAILURES:
        changed["hydra.sweeper.max_failure_rate"] = "1"
    elif done >= options.n_trials:
        changed["hydra.sweeper.n_trials"] = str(2 * options.n_trials)
    kept = [word for word in again if word.partition("=")[0].lstrip("+") not in changed]
    return [
        f"go on    {program()} {shlex.join([*kept, *(f'{key}={x}' for key, x in changed.items())])}"
    ]


def _best_table(study: optuna.Study, space: Space, plan: Plan) -> list[str]:
    """The best trials, and how far each is behind in units of the spread of all."""
    ranked = ranking(study)
    values = [t.value for t in ranked if t.value is not None]
    if not values:
        return ["no trial completed"]
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    rows = []
    for trial in ranked[:SHOWN]:
        assert trial.value is not None
        behind = abs(trial.value - values[0]) / spread if spread else 0.0
        point = point_in_words(space.point(trial))
        rows.append(f"  {trial.number:>5}  {trial.value:<14.6g} {behind:<8.3f} {point}")
    return [
        f"  trial  {plan.objective:<14} behind   (in standard deviations of all: {spread:.4g})",
        *rows,
    ]


def _reasons(study: optuna.Study) -> list[str]:
    """Why trials failed or diverged: one example of each."""
    lines = []
    for outcome in ("failed", "diverged"):
        found = [t for t in trials(study) if counts(t) and outcome_of(t) == outcome]
        if found:
            reason = found[-1].user_attrs.get(REASON, "").splitlines()[:1]
            lines.append(f"{outcome} e.g. trial {found[-1].number}: {''.join(reason)}")
    return lines


def _ended(study: optuna.Study) -> int:
    return sum(t.state.is_finished() and counts(t) for t in trials(study))


def _span(seconds: float) -> str:
    """A time span in its natural unit.

    >>> [_span(s) for s in (0.0123, 4.2, 90, 7200)]
    ['12 ms', '4.2 s', '1.5 min', '2.0 h']
    """
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
