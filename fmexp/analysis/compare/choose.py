"""Which runs are compared, and among how many they were picked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fmexp.analysis.objective import Objective
from fmexp.errors import UserError
from fmexp.record.queries import unlike

if TYPE_CHECKING:
    from fmexp.record.queries import StoredRun, StoredRuns

MOST = 26
SHOWN_BEST = 5


@dataclass(frozen=True)
class Chosen:
    """The runs to compare, and how they came to be picked.

    Attributes:
        records: the first is compared with each other one.
        picked_from: how many runs were looked at for `--best`; 0 where the user named them.
    """

    records: list[StoredRun]
    picked_from: int = 0


def choose(records: StoredRuns, names: list[str], sweep: str | None, best: int | None) -> Chosen:
    """The runs that the command line asks for.

    Raises:
        UserError: there are fewer than two of them, or more than letters.
    """
    if names and (sweep or best):
        raise UserError("compare takes runs, or --sweep and --best: not both")
    picked_from = 0
    if names:
        runs = [records.find_trained(name) for name in names]
    elif sweep:
        runs = _of_sweep(records, records.find_sweep(sweep), best or SHOWN_BEST)
    else:
        latest = records.find_trained("latest")
        everything = _by_loss(records.on_same_data(latest), loss_of(latest))
        runs, picked_from = everything[: best or SHOWN_BEST], len(everything)
    runs = list({record.run_id: record for record in runs}.values())
    if not 2 <= len(runs) <= MOST:
        raise UserError(
            f"compare needs 2 to {MOST} finished runs, got {len(runs)}: "
            "`fmexp compare A B`, `--sweep S` or `--best N`"
        )
    return Chosen(runs, picked_from)


def refuse_unlike(runs: list[StoredRun]) -> None:
    """Raise UserError, naming what differs, unless all runs had losses of the same rows."""
    first = runs[0]
    for other in runs[1:]:
        tags = unlike(first, other)
        if not tags and loss_of(first) == loss_of(other):
            continue
        keys = [
            f"{key}: {a} and {b}"
            for key, (a, b) in differing([first, other]).items()
            if key.partition(".")[0] in ("data", "split", "task")
        ]
        what = " and ".join(tag.removeprefix("fmexp.").replace("_", " ") for tag in tags)
        raise UserError(
            f"{first} and {other} cannot be compared: their {what or 'tasks'} differ "
            f"({'; '.join(keys) or 'the content of the data itself'})"
        )


def n_choices(records: StoredRuns, a: StoredRun, b: StoredRun, picked_from: int) -> int:
    """Among how many comparisons this one was picked by its result on the same rows.

    The best of n trials against the first, which nobody picked: n - 1; any two of n: n (n - 1) / 2;
    a trial against a run outside its sweep: n.
    """
    if picked_from:
        return picked_from * (picked_from - 1) // 2
    n_a, n_b = (1 if is_first_trial(each) else _n_trials(records, each) for each in (a, b))
    if a.parent_id is None or a.parent_id != b.parent_id:
        return n_a * n_b
    n = max(n_a, n_b)
    return max(1, n - 1 if is_first_trial(a) or is_first_trial(b) else n * (n - 1) // 2)


def loss_of(record: StoredRun) -> str:
    """The name of its loss: mse or logloss."""
    return "logloss" if record.params.get("task") == "classification" else "mse"


def is_first_trial(record: StoredRun) -> bool:
    """Whether it is a sweep's configuration as composed."""
    return record.tags.get("fmexp.trial") == "0"


def differing(runs: list[StoredRun]) -> dict[str, list[str]]:
    """Each param that is not the same in all runs, with its values; "" where a run has none."""
    keys = sorted({key for record in runs for key in record.params})
    rows = {key: [record.params.get(key, "") for record in runs] for key in keys}
    return {key: values for key, values in rows.items() if len(set(values)) > 1}


def _of_sweep(records: StoredRuns, sweep: StoredRun, best: int) -> list[StoredRun]:
    """The winner, the first trial, the next best, by the sweep's own objective."""
    trials = records.children(sweep)
    if not trials:
        raise UserError(f"{sweep} has no trials yet")
    ranked = Objective.of(sweep).ranked(trials)
    first = [trial for trial in ranked if is_first_trial(trial)]
    return [*ranked[:1], *first, *ranked[1:best]]


def _by_loss(runs: list[StoredRun], loss: str) -> list[StoredRun]:
    """Those that were trained to their end, the lowest validation loss first."""
    name = f"best/val_{loss}"
    have = [
        record
        for record in runs
        if name in record.metrics and record.outcome == "completed" and not record.is_sweep
    ]
    return sorted(have, key=lambda record: record.metrics[name])


def _n_trials(records: StoredRuns, record: StoredRun) -> int:
    """How many trials of its sweep have a result; 1 for a run of no sweep."""
    if record.parent_id is None:
        return 1
    name = f"best/val_{loss_of(record)}"
    trials = records.children(records.find(record.parent_id))
    return sum(name in trial.metrics for trial in trials)
