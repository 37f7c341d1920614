"""`fmexp compare`: what differs between runs, and whether one is really better."""

from __future__ import annotations

import csv
import json
import string
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fmexp import recorded, significance, text_plot
from fmexp.errors import DataError, UserError
from fmexp.held_out import row_errors
from fmexp.model import Model
from fmexp.tracking.records import Records
from fmexp.training import fit

if TYPE_CHECKING:
    from pathlib import Path

    from fmexp.config import Config
    from fmexp.data.dataset import Dataset
    from fmexp.tracking.records import Record

MOST = 26
_SHOWN_BEST = 5
_DIGESTS = ("fmexp.data_digest", "fmexp.split_digest")


@dataclass(frozen=True)
class Candidate:
    """One of the compared runs.

    Attributes:
        letter: what it is called on the screen.
        errors: of each held-out row, by seed; empty where they cannot be known.
    """

    letter: str
    record: Record
    errors: dict[int, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Chosen:
    """The runs to compare, and how they came to be picked.

    Attributes:
        records: the first is compared with each other one.
        picked_from: how many runs were looked at for `--best`; 0 where the user named them.
    """

    records: list[Record]
    picked_from: int = 0


def compare(
    names: list[str],
    sweep: str | None,
    best: int | None,
    uri: str,
    folder: Path,
    data_file: Path | None = None,
    as_json: bool = False,
) -> int:
    """Print the comparison of the first run with each other; the exit code.

    Args:
        names: runs, by id, beginning of an id, name or `latest`.
        sweep: a sweep: its winner, its first trial and its next best are compared.
        best: how many of a sweep's best, or without a sweep of the best on the latest run's data.
        uri: absolute tracking URI.
        folder: where data are looked for that are not where they were.
        data_file: where the data are.
        as_json: print JSON for programs instead of tables for people.

    Raises:
        UserError: no such run, fewer than two, or runs on unlike data or splits.
    """
    with Records(uri) as records:
        chosen = choose(records, names, sweep, best)
        refuse_unlike(chosen.records)
        loss = _loss(chosen.records[0])
        candidates, trouble = _with_errors(records, chosen.records, data_file, folder)
        found = [(other, _judge(records, candidates[0], other, chosen)) for other in candidates[1:]]
        report = _json if as_json else _text
        print(report(records, candidates, found, loss, trouble))
    return 0


def choose(records: Records, names: list[str], sweep: str | None, best: int | None) -> Chosen:
    """The runs that the command line asks for.

    Raises:
        UserError: there are fewer than two of them, or more than letters.
    """
    if names and (sweep or best):
        raise UserError("compare takes runs, or --sweep and --best: not both")
    picked_from = 0
    if names:
        found = [records.find(name) for name in names]
    elif sweep:
        found = _of_sweep(records, records.find(sweep), best or _SHOWN_BEST)
    else:
        latest = records.find("latest")
        everything = _by_loss(records.on_same_data(latest), _loss(latest))
        found, picked_from = everything[: best or _SHOWN_BEST], len(everything)
    found = list({record.run_id: record for record in found}.values())
    if not 2 <= len(found) <= MOST:
        raise UserError(
            f"compare needs 2 to {MOST} finished runs, got {len(found)}: "
            "`fmexp compare A B`, `--sweep S` or `--best N`"
        )
    return Chosen(found, picked_from)


def refuse_unlike(found: list[Record]) -> None:
    """Raise UserError, naming what differs, unless all runs had the same data, split and task."""
    first = found[0]
    for other in found[1:]:
        tags = [tag for tag in _DIGESTS if first.tags.get(tag) != other.tags.get(tag)]
        if not tags and _loss(first) == _loss(other):
            continue
        groups = ("data", "split", "task")
        differing = [
            f"{key}: {a} and {b}"
            for key, (a, b) in _differing([first, other]).items()
            if key.partition(".")[0] in groups
        ]
        raise UserError(
            f"{first} and {other} cannot be compared: their "
            f"{' and '.join(tag[6:].replace('_', ' ') for tag in tags) or 'tasks'} differ "
            f"({'; '.join(differing) or 'the content of the data itself'})"
        )


def _of_sweep(records: Records, sweep: Record, best: int) -> list[Record]:
    """The winner, the first trial (the configuration as composed), the next best."""
    trials = records.children(sweep)
    if not trials:
        raise UserError(f"{sweep} is no sweep: it has no trials")
    ranked = _by_loss(trials, _loss(trials[0]))
    first = [trial for trial in ranked if _is_first_trial(trial)]
    return [*ranked[:1], *first, *ranked[1:best]]


def _by_loss(found: list[Record], loss: str) -> list[Record]:
    name = f"best/val_{loss}"
    have = [record for record in found if name in record.metrics and record.outcome == "completed"]
    return sorted(have, key=lambda record: record.metrics[name])


def _loss(record: Record) -> str:
    return "logloss" if record.params.get("task") == "classification" else "mse"


def _is_first_trial(record: Record) -> bool:
    return record.tags.get("fmexp.trial") == "0"


def _differing(found: list[Record]) -> dict[str, list[str]]:
    """Each param that is not the same in all runs, with its values; "" where a run has none."""
    keys = sorted({key for record in found for key in record.params})
    rows = {key: [record.params.get(key, "") for record in found] for key in keys}
    return {key: values for key, values in rows.items() if len(set(values)) > 1}


def _with_errors(
    records: Records, found: list[Record], data_file: Path | None, folder: Path
) -> tuple[list[Candidate], str]:
    """Candidates with their error on each held-out row; or without, and why."""
    plain = [Candidate(string.ascii_uppercase[i], record) for i, record in enumerate(found)]
    try:
        config = recorded.read_config(records, found[0])
        data = recorded.load_data(config, found[0], data_file, folder)
        if data.validation is None:
            raise DataError("these runs held no rows out (split.validation=0)")
        alike = records.on_same_data(found[0])
        return [
            replace(each, errors=_errors(records, each.record, alike, data)) for each in plain
        ], ""
    except UserError as error:
        return plain, f"whether one is really better cannot be told: {error}"


def _errors(
    records: Records, record: Record, alike: list[Record], data: Dataset
) -> dict[int, np.ndarray]:
    """Errors on the validation rows by seed, those of runs that differ in nothing else included."""
    assert data.validation is not None
    config = recorded.read_config(records, record)
    seeds = _seeds_of_trial(records, record)
    if seeds:  # a trial that is a mean over seeds keeps the model of one of them
        trained = {seed: _train(replace(config, seed=seed), data) for seed in seeds}
        return {seed: row_errors(kept, data, data.validation) for seed, kept in trained.items()}
    twins = {}
    for other in alike:
        if _same_but_seed(other, record):
            twins[int(other.params.get("seed", 0))] = other
    twins[config.seed] = record
    return {
        seed: row_errors(_model(records, twin, data), data, data.validation)
        for seed, twin in sorted(twins.items())
    }


def _model(records: Records, record: Record, data: Dataset) -> Model:
    """The stored model, or one trained again where none was kept."""
    if records.has_artifact(record, "model"):
        return recorded.load_model(records, record)
    return _train(recorded.read_config(records, record), data)


def _train(config: Config, data: Dataset) -> Model:
    fitted = fit(config, data)
    if fitted.parameters is None:
        raise DataError(f"training again gives no model: {fitted.reason}")
    return Model.of(config, data, fitted.parameters)


def _same_but_seed(a: Record, b: Record) -> bool:
    same = {**a.params, "seed": ""} == {**b.params, "seed": ""}
    return same and a.outcome == "completed" and a.parent_id is None and b.parent_id is None


def _seeds_of_trial(records: Records, record: Record) -> list[int]:
    """The seeds of a trial that was trained with several; [] for every other run."""
    if f"best/val_{_loss(record)}_stdev" not in record.metrics:
        return []
    with records.artifact(record, "curve.csv").open(newline="") as file:
        return sorted({int(row["seed"]) for row in csv.DictReader(file)})


def _judge(
    records: Records, a: Candidate, b: Candidate, chosen: Chosen
) -> significance.Difference | None:
    """A against B over the seeds that both have; None where errors are not known."""
    seeds = sorted(a.errors.keys() & b.errors.keys())
    if not a.errors or not b.errors:
        return None
    if seeds:
        errors = [np.stack([each.errors[seed] for seed in seeds]) for each in (a, b)]
    else:
        errors = [next(iter(each.errors.values())) for each in (a, b)]
    choices = _choices(records, a.record, b.record, chosen.picked_from)
    return significance.difference(errors[0], errors[1], choices)


def _choices(records: Records, a: Record, b: Record, picked_from: int) -> int:
    """Among how many comparisons this one was picked by its result on the same rows.

    The best of n trials against the first, which nobody picked: n - 1; any two of n: n (n-1) / 2;
    trials of two sweeps: each one's n.
    """
    if picked_from:
        return picked_from * (picked_from - 1) // 2
    sizes = {record.parent_id: _n_trials(records, record) for record in (a, b) if record.parent_id}
    if a.parent_id is None or a.parent_id != b.parent_id:
        counted = [
            1 if r.parent_id is None or _is_first_trial(r) else sizes[r.parent_id] for r in (a, b)
        ]
        return max(1, counted[0] * counted[1])
    n = sizes[a.parent_id]
    return max(1, n - 1 if _is_first_trial(a) or _is_first_trial(b) else n * (n - 1) // 2)


def _n_trials(records: Records, trial: Record) -> int:
    name = f"best/val_{_loss(trial)}"
    assert trial.parent_id is not None
    return sum(name in t.metrics for t in records.children(records.find(trial.parent_id)))


def _results(record: Record, loss: str) -> dict[str, Any]:
    """What is shown of a run besides its params."""
    names = (f"best/val_{loss}", "best/epoch", f"val/{loss}", f"train/{loss}", "test/" + loss)
    shown: dict[str, Any] = {n: record.metrics[n] for n in names if n in record.metrics}
    if "time/fit_seconds" in record.metrics:
        shown["time/fit_seconds"] = record.metrics["time/fit_seconds"]
    return {"outcome": record.outcome or record.status.lower()} | shown


def _curve(records: Records, record: Record, loss: str) -> text_plot.Curve:
    """The validation curve, or that of training where nothing was held out."""
    return records.curve(record, f"val/{loss}") or records.curve(record, f"train/{loss}")


def _text(
    records: Records,
    candidates: list[Candidate],
    found: list[tuple[Candidate, significance.Difference | None]],
    loss: str,
    trouble: str,
) -> str:
    all_records = [each.record for each in candidates]
    curves = {each.letter: _curve(records, each.record, loss) for each in candidates}
    results = [_results(record, loss) for record in all_records]
    rows = dict(_differing(all_records))
    names = dict.fromkeys(name for each in results for name in each)
    rows |= {name: [_short(each.get(name, "")) for each in results] for name in names}
    rows["epochs"] = [str(c[-1][0]) if c else "" for c in curves.values()]
    lines = [f"{each.letter}  {each.record}" for each in candidates]
    lines += ["", *_table([each.letter for each in candidates], rows)]
    lines += [
        "",
        f"{'val' if f'val/{loss}' in all_records[0].metrics else 'train'}/{loss} by epoch",
    ]
    lines += [text_plot.draw(curves), ""]
    lines += [_sentence(candidates[0], other, judged, loss) for other, judged in found if judged]
    if trouble:
        lines.append(trouble)
    elif any(judged for _, judged in found):
        lines.append(
            "Each model kept the epoch that was best on these rows, so all errors here are a "
            "little too low; `fmexp score` has rows that no choice has seen."
        )
    return "\n".join(lines)


def _sentence(a: Candidate, b: Candidate, judged: significance.Difference, loss: str) -> str:
    said = significance.in_words(judged, a.letter, b.letter, loss.upper().replace("MSE", "MSE"))
    if judged.choices > 1:
        said += f" (the interval allows for {judged.choices:,} comparisons to pick from)"
    return said[0].upper() + said[1:] + "."


def _table(letters: list[str], rows: dict[str, list[str]]) -> list[str]:
    """Keys down, runs across."""
    key_width = max(map(len, rows))
    widths = [
        max(len(letter), *(len(values[i]) for values in rows.values()))
        for i, letter in enumerate(letters)
    ]
    return [
        "  ".join([f"{key:<{key_width}}", *(f"{v:>{w}}" for v, w in zip(vs, widths, strict=True))])
        for key, vs in {"": letters, **rows}.items()
    ]


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _json(
    records: Records,
    candidates: list[Candidate],
    found: list[tuple[Candidate, significance.Difference | None]],
    loss: str,
    trouble: str,
) -> str:
    differing = _differing([each.record for each in candidates])
    runs = [
        {
            "letter": each.letter,
            "run_id": each.record.run_id,
            "name": each.record.name,
            "params": {key: values[i] for key, values in differing.items()},
            "results": _results(each.record, loss),
        }
        for i, each in enumerate(candidates)
    ]
    comparisons = [
        asdict(judged)
        | {
            "a": candidates[0].letter,
            "b": other.letter,
            "p": judged.p,
            "half_width": judged.half_width,
            "is_real": judged.is_real,
            "sentence": _sentence(candidates[0], other, judged, loss),
        }
        for other, judged in found
        if judged
    ]
    return json.dumps({"runs": runs, "comparisons": comparisons, "trouble": trouble}, indent=1)
