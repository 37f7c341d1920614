"""`fmexp report`: one self-contained HTML page about a sweep."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fmexp.analysis import stored_run
from fmexp.analysis.report.advice import advice
from fmexp.analysis.report.interactions import other_seeds, strongest
from fmexp.analysis.report.page import page
from fmexp.analysis.report.pictures import pictures
from fmexp.analysis.report.sweep import Sweep, read
from fmexp.errors import UserError
from fmexp.experiment.one_run import BASELINE
from fmexp.record.queries import StoredRuns

if TYPE_CHECKING:
    from fmexp.model import Model

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
    with StoredRuns(uri) as records:
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


def make_page(records: StoredRuns, sweep: Sweep, folder: Path) -> str:
    """The HTML text."""
    model, found, why = None, [], ""
    if sweep.best and records.has_artifact(sweep.best[0].record, "model"):
        winner = sweep.best[0].record
        model = stored_run.load_model(records, winner)
        others, why = other_seeds(records, winner, folder)
        found = strongest(model, others)
    facts = _facts(sweep, model)
    return page(sweep, facts, pictures(records, sweep), found, why, advice(sweep))


def _facts(sweep: Sweep, model: Model | None) -> dict[str, str]:
    """File, target, rows and the error of predicting the mean, as far as the record has them."""
    params = sweep.parent.params
    target = model.encoder.target_name if model else params.get("data.target", "")
    weight = params.get("data.weight", "None")
    baseline = sweep.best[0].record.tags.get(BASELINE, "") if sweep.best else ""
    return {
        "data": Path(params["data.path"]).name if "data.path" in params else params.get("data", ""),
        "target": "" if target == "None" else target,
        "weighted by": "" if weight == "None" else weight,
        "rows": f"{sweep.parent.n_rows:,}" if sweep.parent.n_rows else "",
        f"{sweep.curve.rpartition('/')[2]} of predicting the mean": f"{float(baseline):.6g}"
        if baseline
        else "",
    }
