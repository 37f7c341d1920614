"""The report as one HTML page that needs nothing but itself."""

from __future__ import annotations

import json
import re
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from fmexp.analysis.report.packed import UNPACK, element
from fmexp.analysis.report.pictures import library
from fmexp.sweep.progress import short_keys
from fmexp.sweep.space import in_words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fmexp.analysis.report.interactions import Interaction
    from fmexp.analysis.report.pictures import Figure
    from fmexp.analysis.report.sweep import Sweep

SHOWN = 10

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem; }
.wide { overflow-x: auto; } .wide > * { overflow-wrap: normal; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem .2rem 0; text-align: left;
        border-bottom: 1px solid #ddd; vertical-align: top; }
pre { background: #f5f5f5; padding: .7rem; overflow-x: auto; }
.big { font-size: 1.3rem; } .quiet { color: #666; }
"""

_DRAW = """
async function draw() {
  const library = document.createElement("script");
  library.textContent = await unpack("plotly");
  document.head.append(library);
  const figures = JSON.parse(await unpack("figures"));
  const all = () => Promise.all(figures.map((figure, i) => {
    const element = document.getElementById(`picture-${i}`), width = element.clientWidth;
    return Plotly.react(element, figure.data, fitted(figure, width),
                        {displaylogo: false, displayModeBar: width < 600 ? false : undefined});
  }));
  await all();
  addEventListener("resize", all);
  document.body.dataset.drawn = figures.length;
}
function fitted({layout, wrap, least}, width) {
  layout = structuredClone(layout);
  layout.width = Math.max(width, least);
  if (!wrap) return layout;
  const columns = Math.min(wrap, 4, Math.max(1, Math.floor(width / 240)));
  const rows = Math.ceil(wrap / columns);
  for (let i = 0; i < wrap; i++) {
    const name = i ? i + 1 : "", column = i % columns, row = Math.floor(i / columns);
    layout["xaxis" + name].domain = [(column + 0.02) / columns, (column + 0.93) / columns];
    layout["yaxis" + name].domain = [1 - (row + 0.72) / rows, 1 - row / rows];
    layout["yaxis" + name].showticklabels = column == 0;
  }
  layout.height = 40 + 280 * rows;
  return layout;
}
draw();
"""


def page(
    sweep: Sweep,
    facts: dict[str, str],
    figures: dict[str, Figure],
    interactions: list[Interaction],
    why_no_seeds: str,
    sentences: list[str],
) -> str:
    """The whole page.

    Args:
        sweep: what it is about.
        facts: of the data, by name.
        figures: by title.
        interactions: of the winner.
        why_no_seeds: why they were not found with other seeds; "" where they were.
        sentences: what to try next.
    """
    body = [
        f"<h1>{escape(sweep.parent.name)}</h1>",
        _facts(facts),
        _summary(sweep),
        _winner(sweep),
        *_section(
            "What to try next", f"<ul>{''.join(f'<li>{_with_code(s)}' for s in sentences)}</ul>"
        ),
    ]
    for i, title in enumerate(figures):
        body += _section(title, f'<div class="wide" id="picture-{i}"></div>')
    body += _section("Outcomes", _outcomes(sweep))
    body += _section("Strongest interactions of the winner", _of(interactions, why_no_seeds))
    body += _section(f"The best {min(SHOWN, len(sweep.best))}", _best(sweep))
    return _document(sweep.parent.name, "\n".join(body), list(figures.values()))


def _document(title: str, body: str, figures: list[Figure]) -> str:
    scripts = ""
    if figures:
        texts = json.dumps(figures, allow_nan=False, separators=(",", ":"))
        scripts = (
            "<noscript>The pictures need JavaScript; nothing is loaded from elsewhere.</noscript>\n"
            + element("plotly", library())
            + element("figures", texts.encode())
            + f"<script>{UNPACK}{_DRAW}</script>"
        )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>\n"
        f'<link rel="icon" href="data:,"><style>{_STYLE}</style></head>\n'
        f"<body>\n{body}\n{scripts}\n</body></html>\n"
    )


def _facts(facts: dict[str, str]) -> str:
    """What the data are, and how well one does without a model."""
    parts = [f"{escape(name)} <b>{escape(value)}</b>" for name, value in facts.items() if value]
    return f"<p>{'; '.join(parts)}</p>" if parts else ""


def _with_code(sentence: str) -> str:
    """A sentence with what stands in backticks set as code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(sentence))


def _summary(sweep: Sweep) -> str:
    lines = [f"<li><code>{escape(d.key)}</code>: {escape(str(d))}" for d in sweep.space.dimensions]
    aim = "highest" if sweep.maximized else "lowest"
    sampler = escape(sweep.parent.tags.get("fmexp.sampler", "?"))
    return (
        f"<p>{len(sweep.trials):,} trials by the {sampler} sampler, in search of the {aim} "
        f"<code>{escape(sweep.objective)}</code> over</p><ul>{''.join(lines)}</ul>"
    )


def _winner(sweep: Sweep) -> str:
    if not sweep.best:
        return "<h2>Winner</h2><p>None: no trial completed.</p>"
    best = sweep.best[0]
    run = best.record.run_id[:12]
    use = (
        f"fmexp predict {run} --data new.csv      # predictions for the rows of a file\n"
        f'python: fmexp.load("{run}").predict(table)\n'
        f"fmexp export {run}                      # for `mlflow models serve`\n"
        f"fmexp refit {run}                       # train it on all rows\n"
        f"fmexp reproduce {run}                   # train it again, compare bit by bit"
    )
    seconds = best.record.metrics.get("time/fit_seconds")
    return (
        f'<h2>Winner</h2><p class="big">{escape(in_words(best.point))}</p>'
        f"<p>trial {best.number}, run <code>{escape(best.record.run_id)}</code>: "
        f"<b>{escape(sweep.objective)} {best.value:.6g}</b>"
        + ("" if seconds is None else f", {seconds:.3g} s of training")
        + "</p>"
        + (f"<pre>{escape(use)}</pre>" if sweep.is_ours else "")
    )


def _outcomes(sweep: Sweep) -> str:
    rows = [
        (outcome, f"{n:,}", reason, f"{trial.number}: {in_words(trial.point)}")
        for outcome, reason, n, trial in sweep.outcomes()
    ]
    return _table(("outcome", "trials", "reason", "such as trial"), rows)


def _of(interactions: list[Interaction], why_no_seeds: str) -> str:
    if not interactions:
        return "<p>No winner with a model, so none.</p>"
    with_seeds = bool(interactions[0].others)
    head = ("feature", "and feature", "weight")
    rows = []
    for each in interactions:
        row = (each.first, each.second, f"{each.weight:+.4g}")
        if with_seeds:
            all_seeds = np.array([each.weight, *each.others])
            same = int((np.sign(all_seeds) == np.sign(each.weight)).sum())
            spread = f"{all_seeds.mean():+.4g} ± {all_seeds.std(ddof=1):.2g}"
            row += (spread, f"{same} of {len(all_seeds)}")  # type: ignore[assignment]
        rows.append(row)
    if with_seeds:
        head += ("mean over seeds ± spread", "same sign")  # type: ignore[assignment]
    missing = f'<p class="quiet">Stable over seeds? {escape(why_no_seeds)}.</p>'
    return (
        "<p>What two features add to the prediction beyond their own weights: "
        "&lt;v<sub>i</sub>, v<sub>j</sub>&gt;, in the units of encoded features and target.</p>"
        + _table(head, rows)
        + (missing if why_no_seeds else "")
    )


def _best(sweep: Sweep) -> str:
    shown = sweep.best[:SHOWN]
    keys = [d.key for d in sweep.space.dimensions if any(d.key in t.point for t in shown)]
    rows = [
        (str(t.number), f"{t.value:.6g}", *(in_words({k: t.point[k]}).partition("=")[2]
         if k in t.point else "" for k in keys), t.record.run_id[:12])
        for t in shown
    ]  # fmt: skip
    return _table(("trial", sweep.objective, *short_keys(keys), "run"), rows)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    def line(cells: Iterable[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    lines = "".join(line(row, "td") for row in rows)
    return f'<div class="wide"><table>{line(head, "th")}{lines}</table></div>'


def _section(title: str, content: str) -> list[str]:
    return [f"<h2>{escape(title)}</h2>", content]
