"""`fmexp compare`: what differs between runs, and whether one is really better."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fmexp.analysis.compare.candidates import judge, with_errors
from fmexp.analysis.compare.choose import choose, loss_of, n_choices, refuse_unlike
from fmexp.analysis.compare.show import Comparison
from fmexp.record.queries import StoredRuns

if TYPE_CHECKING:
    from pathlib import Path

    from fmexp.analysis import text_plot
    from fmexp.record.queries import StoredRun


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
        StoreError: the store does not answer.
    """
    with StoredRuns(uri) as records:
        comparison = gather(records, names, sweep, best, folder, data_file)
        print(comparison.as_json() if as_json else comparison.as_text())
    return 0


def gather(
    records: StoredRuns,
    names: list[str],
    sweep: str | None,
    best: int | None,
    folder: Path,
    data_file: Path | None,
) -> Comparison:
    """All that `compare` shows."""
    chosen = choose(records, names, sweep, best)
    refuse_unlike(chosen.records)
    candidates, trouble = with_errors(records, chosen.records, data_file, folder)
    first = candidates[0]
    judged = [
        judge(first, other, n_choices(records, first.record, other.record, chosen.picked_from))
        for other in candidates[1:]
    ]
    curves = {each.letter: _curve(records, each.record) for each in candidates}
    return Comparison(candidates, curves, judged, trouble)


def _curve(records: StoredRuns, record: StoredRun) -> text_plot.Curve:
    """The validation curve, or that of training where nothing was held out."""
    loss = loss_of(record)
    return records.curve(record, f"val/{loss}") or records.curve(record, f"train/{loss}")
