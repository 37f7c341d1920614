"""What a sweep shows: its space, a live line, the best five, and what to do next."""

from __future__ import annotations

import shlex
import statistics
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from fmexp.record.environment import program
from fmexp.sweep.samplers import searches_all
from fmexp.sweep.space import in_words as point_in_words
from fmexp.sweep.total import LOST
from fmexp.sweep.trial_status import REASON, outcome_of
from fmexp.sweep.worker import DONE, EXHAUSTED, FAILURES, TIMEOUT

if TYPE_CHECKING:
    from fmexp.record.tracker import Delivery
    from fmexp.sweep.search import Search
    from fmexp.sweep.space import Value
    from fmexp.sweep.study import SweepStudy

SHOWN = 5
MOST_DIFFERENCES = 4


def opening(search: Search) -> str:
    """The space, what left it, and how it is searched."""
    space, options = search.space, search.options
    lines = ["space", *(f"  {line}" for line in str(space).splitlines())]
    lines += [f"  {key}: not swept, {why}" for key, why in search.excluded.items()]
    if searches_all(space, options.n_trials):
        how = f"each of {space.size():,} points once, in order"
    else:
        size = space.size()
        points = "continuous" if size is None else f"{size:,} points"
        how = f"{points}; {options.n_trials:,} trials in all, {options.sampler.name} sampler"
    lines.append(f"search {how}, {options.pruner.name} pruner, {options.n_jobs} at a time")
    return "\n".join(lines)


def estimate(search: Search, seconds_per_trial: float | None) -> str:
    """How long it would take; nothing is run."""
    number = total(search, done=0)
    if seconds_per_trial is None:
        return f"dry run: {number:,} trials; nothing was run"
    seconds = seconds_per_trial * number / search.options.n_jobs
    return (
        f"dry run: {number:,} trials of about {_span(seconds_per_trial)} of training each, "
        f"{_span(seconds)} in all; nothing was run"
    )


def newness(known: dict[str, dict[str, Any]], mine: dict[str, Any]) -> str:
    """What a new study is unlike: the newest on the same data, else the newest.

    Args:
        known: identities by study name, oldest first.
        mine: the new study's.
    """
    alike = [name for name, each in known.items() if each["inputs"] == mine["inputs"]]
    name = (alike or list(known))[-1]
    return f"a new study: unlike {name} in {difference(known[name], mine)}"


def difference(theirs: dict[str, Any], mine: dict[str, Any]) -> str:
    """What tells this sweep from another, in one line: inputs, then keys with both values."""
    changed, others = [], set()
    for name, there in theirs["inputs"].items():
        here = mine["inputs"].get(name, {"digest": "", "is": "none"})
        if there["digest"] == here["digest"]:
            continue
        a, b = there["is"], here["is"]
        changed.append(
            f"other {name}" + (f" ({a if a == b else f'{a} there, {b} here'})" * bool(a))
        )
        others.add(name)
        if name == "data":
            break  # on other data all that comes after is another, too
    for part in ("config", "space"):
        a, b = theirs[part], mine[part]
        keys = [k for k in sorted(a.keys() | b.keys()) if k.partition(".")[0] not in others]
        changed += _pairs({key: (a.get(key), b.get(key)) for key in keys})
    names = ("objective", "direction", "seeds")
    changed += _pairs({name: (theirs[name], mine[name]) for name in names})
    more = len(changed) - MOST_DIFFERENCES
    shown = changed[:MOST_DIFFERENCES] + ([f"{more} keys more"] if more > 0 else [])
    return ", ".join(shown) or "nothing but its name"


def _pairs(values: dict[str, tuple[Any, Any]]) -> list[str]:
    """Those that differ; a key that only one side has says nothing beside what brought it."""
    return [
        f"{key} ({a} there, {b} here)"
        for key, (a, b) in values.items()
        if str(a) != str(b) and None not in (a, b)
    ] + [
        f"{key} ({'only there' if b is None else 'only here'})"
        for key, (a, b) in values.items()
        if str(a) != str(b) and None in (a, b)
    ]


class Progress:
    """One line while a sweep lasts; silent when stderr is not a terminal."""

    def __init__(self, search: Search, study: SweepStudy) -> None:
        self._search, self._study = search, study
        self._shown = sys.stderr.isatty() and not search.application.foreground
        self._began = time.monotonic()
        self._before = len(study.ended())

    def show(self) -> None:
        """Draw the line anew."""
        if not self._shown:
            return
        done, seconds = len(self._study.ended()), time.monotonic() - self._began
        whole = total(self._search, done)
        rate = (done - self._before) / seconds if seconds else 0.0
        left = f", {_span((whole - done) / rate)} left" if rate and done < whole else ""
        best = self._study.winner()
        found = (
            f"{self._study.plan.objective} {best.value:.6g} at "
            f"{point_in_words(self._study.space.point(best))}"
            if best
            else "none complete yet"
        )
        sys.stderr.write(f"\r\x1b[K{done}/{whole} trials, {rate:.1f}/s{left}; {found}")
        sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def in_words(search: Search, study: SweepStudy) -> str:
    """What the sweep is and how far it has come, for the top of its page."""
    dimensions = "\n".join(f"- {d.key}: {d}" for d in study.space.dimensions)
    return (
        f"A search for the {'lowest' if study.plan.direction == 'minimize' else 'highest'} "
        f"{study.plan.objective} by the {search.options.sampler.name} sampler: "
        f"{so_far(search, study)}.\n\n{dimensions}"
    )


def total(search: Search, done: int) -> int:
    """How many trials there will be: n_trials, or all points of a smaller space."""
    n_trials = search.options.n_trials
    return max(done, min(n_trials, search.space.size() or n_trials))


def so_far(search: Search, study: SweepStudy) -> str:
    """The trials that have ended, by outcome; those that are open are said apart."""
    counted = study.counted()
    outcomes = Counter(outcome_of(t) for t in counted if t.state.is_finished())
    listed = ", ".join(f"{number} {name}" for name, number in sorted(outcomes.items()))
    done = outcomes.total()
    text = f"{done} of {total(search, done)} trials" + (f": {listed}" if listed else "")
    return text + (f"; {len(counted) - done} begun or planned" if len(counted) > done else "")


def summary(
    search: Search, study: SweepStudy, reason: str, delivery: Delivery, losses: str = ""
) -> str:
    """How it ended, the best five, and the commands to see and to continue it.

    `losses` are workers that were lost, in words.
    """
    options, done = search.options, len(study.ended())
    endings = {
        DONE: "done",
        EXHAUSTED: f"done: all {search.space.size() or done:,} points of the space were tried",
        TIMEOUT: f"stopped after {options.timeout:g} s" if options.timeout else "stopped",
        "interrupted": "interrupted",
        LOST: f"no worker is left (hydra.sweeper.relaunch={options.relaunch})",
        FAILURES: f"too many failures (hydra.sweeper.max_failure_rate={options.max_failure_rate})",
    }
    lines = [f"{endings.get(reason, reason)}; {so_far(search, study)}"]
    lines += [f"workers  {losses}"] if losses else []
    lines += _best_table(study)
    lines += _reasons(study)
    if delivery.store:
        lines.append(f"record   {delivery.store}, study {study.name}")
        compare = f"compare --sweep {study.name} --best {SHOWN}{delivery.option}"
        lines.append(f"see it   {program()} ui{delivery.option}")
        lines.append(f"compare  {program()} {compare}")
    lines += _next_command(search, done, reason)
    return "\n".join(lines)


def _next_command(search: Search, done: int, reason: str) -> list[str]:
    """What to type to go on; nothing where the space has no more points."""
    if reason == EXHAUSTED or searches_all(search.space, done):
        return []
    changed, n_trials = {}, search.options.n_trials
    if reason == FAILURES:
        changed["hydra.sweeper.max_failure_rate"] = "1"
    elif done >= n_trials:
        changed["hydra.sweeper.n_trials"] = str(2 * n_trials)
    again = search.application.again
    kept = [word for word in again if word.partition("=")[0].lstrip("+") not in changed]
    words = [*kept, *(f"{key}={x}" for key, x in changed.items())]
    return [f"go on    {search.application.program or program()} {shlex.join(words)}"]


def _best_table(study: SweepStudy) -> list[str]:
    """The best trials, a column a key, and how far each is behind in units of the spread of all."""
    ranked, space = study.ranking(), study.space
    values = [t.value for t in ranked if t.value is not None]
    if not values:
        return ["no trial completed"]
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    points = [space.point(trial) for trial in ranked[:SHOWN]]
    keys = [d.key for d in space.dimensions if any(d.key in point for point in points)]
    rows = [["trial", study.plan.objective, "behind", *short_keys(keys)]]
    for trial, value, point in zip(ranked, values, points, strict=False):
        behind = abs(value - values[0]) / spread if spread else 0.0
        own = [_short(point[key]) if key in point else "" for key in keys]
        rows.append([str(trial.number), f"{value:.6g}", f"{behind:.3f}", *own])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        *("  " + "  ".join(f"{x:>{w}}" for x, w in zip(r, widths, strict=True)) for r in rows),
        f"  (behind the best, in standard deviations of all: {spread:.4g})",
    ]


def short_keys(keys: list[str]) -> list[str]:
    """The shortest ends of dotted keys that tell them apart.

    >>> short_keys(["model.k", "training.reg_V", "backend", "other.k"])
    ['model.k', 'reg_V', 'backend', 'other.k']
    """
    short = []
    for key in keys:
        words = key.split(".")
        ends = [".".join(words[i:]) for i in reversed(range(len(words)))]
        unlike = (e for e in ends if not any(o != key and f".{o}".endswith(f".{e}") for o in keys))
        short.append(next(unlike, key))
    return short


def _short(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _reasons(study: SweepStudy) -> list[str]:
    """Why trials failed or diverged: one example of each."""
    lines = []
    for outcome in ("failed", "diverged"):
        found = [t for t in study.counted() if outcome_of(t) == outcome]
        if found:
            reason = found[-1].user_attrs.get(REASON, "").splitlines()[:1]
            lines.append(f"{outcome} e.g. trial {found[-1].number}: {''.join(reason)}")
    return lines


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
