"""`fmexp report`: one self-contained HTML page about a sweep."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fmexp.analysis import recorded
from fmexp.analysis.report.advice import advice
from fmexp.analysis.report.interactions import Interaction, other_seeds, strongest
from fmexp.analysis.report.page import page
from fmexp.analysis.report.pictures import pictures
from fmexp.analysis.report.sweep import Sweep, read
from fmexp.errors import UserError
from fmexp.record.queries import Records

if TYPE_CHECKING:
    from fmexp.fm import Parameters

ARTIFACT = "report.html"


def report(name: str, uri: str, folder: Path, out: Path | None = None) -> int:
    """Write the page, here and as an artifact of the parent run; the exit code.

    Args:
        name: the sweep, by run name, id, beginning of an id, or `latest`.
        uri: absolute tracking URI.
        folder: where data are looked for that are not where they were.
        out: the file to write; None for `report-NAME.html` in `folder`.

    Raises:
        UserError: no such sweep, or the file cannot be written.
        StoreError: the store does not answer.
    """
    with Records(uri) as records:
        sweep = read(records, name)
        text = make_page(records, sweep, folder)
        target = out or folder / f"report-{re.sub(r'[^A-Za-z0-9._-]+', '-', sweep.name)}.html"
        with tempfile.TemporaryDirectory() as made:
            file = Path(made, ARTIFACT)
            file.write_text(text, encoding="utf-8")
            records.attach(sweep.parent, file)
            try:
                shutil.copyfile(file, target)
            except OSError as error:
                raise UserError(f"--out {target} cannot be written: {error.strerror}") from None
    print(f"report   {target} ({len(text.encode()) / 1e6:.2f} MB, opens offline)")
    print(f"also     {ARTIFACT} of {sweep.parent}")
    return 0


def make_page(records: Records, sweep: Sweep, folder: Path) -> str:
    """The HTML text."""
    found, why = _interactions(records, sweep, folder)
    return page(sweep, pictures(records, sweep), found, why, advice(sweep))


def _interactions(records: Records, sweep: Sweep, folder: Path) -> tuple[list[Interaction], str]:
    """The winner's strongest interactions, and why other seeds say nothing of them."""
    if not sweep.best or not records.has_artifact(sweep.best[0].record, "model"):
        return [], ""
    winner = sweep.best[0].record
    others: list[Parameters]
    others, why = other_seeds(records, winner, folder)
    return strongest(recorded.load_model(records, winner), others), why
